#include "optimization/disk_speed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/disk_file.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pages.h"
#include "base/pseudo_file.h"
#include "base/random.h"
#include "base/spread.h"
#include "base/threads.h"

enum {
    PAGE = 4096,        /* of the small reads, and what the others are multiples of, where the file system asks for no more */
    PIECE = 4 << 20,    /* of reading and writing in sequence: the kernel splits it into requests that go side by side */
    SAMPLES = 2048,     /* most random reads */
    FEWEST = 5,         /* and least, however slow they are */
    SHARE_OF_FREE = 16, /* the file that is written takes no more of what is free than one in so many */
};
static const size_t most_written = 256 << 20;
static const size_t most_read = 256 << 20; /* bytes of one random read */
static const double write_seconds = 1.0, sequence_seconds = 0.7, random_seconds = 0.4;

/* ---- Where ---- */

/* The type of the file system with this device's number, of a line "ID PARENT MAJOR:MINOR ... - TYPE ...". */
static void find_filesystem(const char *device, char *type, size_t size) {
    FILE *file = dm_pseudo_open("", "/proc/self/mountinfo");
    char line[2 * PATH_MAX], number[24], found[24];
    snprintf(type, size, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *rest = strstr(line, " - ");
        if (rest != NULL && sscanf(line, "%*d %*d %23s", number) == 1 && sscanf(rest, " - %23s", found) == 1 &&
            strcmp(number, device) == 0) {
            snprintf(type, size, "%s", found);
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

dm_status dm_disk_identify(const char *path, dm_disk *out) {
    struct stat info;
    *out = (dm_disk){.bandwidth_gb_s = NAN, .read_us = NAN, .page_us = NAN};
    if (strlen(path) >= sizeof out->path) {
        return dm_fail(DM_ERR_ARGUMENT, "%.40s...: the path is too long", path);
    }
    if (stat(path, &info) != 0) {
        return dm_fail(DM_ERR_IO, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        return dm_fail(DM_ERR_IO, "%s: is neither a file nor a folder", path);
    }
    snprintf(out->path, sizeof out->path, "%s", path);
    snprintf(out->device, sizeof out->device, "%u:%u", major(info.st_dev), minor(info.st_dev));
    find_filesystem(out->device, out->filesystem, sizeof out->filesystem);
    return DM_OK;
}

/* ---- The file that is read ---- */

typedef struct probe {
    dm_disk_file file;
    size_t page;     /* PAGE, or the file's alignment where that is more */
    size_t size;     /* bytes, whole pages */
    uint8_t *buffer; /* of a piece, or of a random read if that is more */
    dm_random random;
    dm_disk *out;
} probe;

/* Notes why nothing can be measured. */
static bool give_up(probe *it, const char *what) {
    snprintf(it->out->problem, sizeof it->out->problem, "%s: %s", what, strerror(errno));
    return false;
}

/* A file without a name in the folder, which nothing is left of once it is closed. */
static int open_nameless(const char *folder) {
    int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char path[PATH_MAX + 32];
    if (file >= 0) {
        return file;
    }
    snprintf(path, sizeof path, "%s/.dilmodeli-XXXXXX", folder); /* a file system that does not know O_TMPFILE */
    file = mkostemp(path, O_CLOEXEC);
    if (file >= 0) {
        unlink(path);
    }
    return file;
}

/* Bytes that nothing can compress or tell to be equal, as long as that takes no longer than a second. */
static bool write_file(probe *it, int file) {
    struct statvfs space;
    size_t most = most_written, size = 0;
    if (fstatvfs(file, &space) == 0 && (double)space.f_bavail * (double)space.f_frsize / SHARE_OF_FREE < (double)most) {
        most = (size_t)((double)space.f_bavail * (double)space.f_frsize / SHARE_OF_FREE);
    }
    double end = dm_seconds() + write_seconds;
    while (size + PIECE <= most && (size == 0 || dm_seconds() < end) && !dm_interrupted()) {
        for (size_t i = 0; i < PIECE; i += sizeof(uint64_t)) {
            uint64_t word = dm_random_next(&it->random);
            memcpy(it->buffer + i, &word, sizeof word);
        }
        ssize_t written = pwrite(file, it->buffer, PIECE, (off_t)size);
        if (written != PIECE || fdatasync(file) != 0) {
            errno = written >= 0 && written < PIECE ? ENOSPC : errno;
            return give_up(it, "cannot write a file to read");
        }
        size += PIECE;
    }
    if (size == 0) {
        snprintf(it->out->problem, sizeof it->out->problem, "too little space is free for a file to read");
    }
    return size > 0;
}

/* Descriptor of a file with something in it; -1 where there can be none. */
static int make_file(probe *it) {
    int file = open_nameless(it->out->path);
    if (file < 0) {
        give_up(it, "cannot make a file to read");
    } else if (!write_file(it, file)) {
        close(file);
        file = -1;
    }
    return file;
}

static bool open_file(probe *it) {
    const char *path = it->out->path;
    bool folder = dm_is_folder(path);
    int file = folder ? make_file(it) : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return !folder && give_up(it, "cannot open");
    }
    if (dm_disk_file_adopt(file, path, &it->file) != DM_OK) {
        snprintf(it->out->problem, sizeof it->out->problem, "%s", dm_error_message());
        return false;
    }
    it->page = it->file.alignment > PAGE ? it->file.alignment : PAGE;
    it->size = (size_t)it->file.size / it->page * it->page;
    if (it->size == 0) {
        snprintf(it->out->problem, sizeof it->out->problem, "the file is too small to measure with");
    }
    return it->size > 0;
}

/* Reads `bytes` at a place. */
static bool read_at(probe *it, size_t place, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(it->file.descriptor, it->buffer + done, bytes - done, (off_t)(place + done));
        if (n <= 0) {
            errno = n == 0 ? EIO : errno; /* cut short by another process */
            return give_up(it, "cannot read");
        }
        done += (size_t)n;
    }
    dm_disk_file_drop(&it->file, place, bytes); /* so that another read of them is one too */
    return true;
}

/* ---- Figures ---- */

static bool read_in_sequence(probe *it) {
    size_t place = 0;
    double bytes = 0, start = dm_seconds(), now = start;
    posix_fadvise(it->file.descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
    while (now < start + sequence_seconds && !dm_interrupted()) {
        size_t piece = it->size - place < PIECE ? it->size - place : PIECE;
        if (!read_at(it, place, piece)) {
            return false;
        }
        bytes += (double)piece;
        place = place + piece < it->size ? place + piece : 0;
        now = dm_seconds();
    }
    it->out->bandwidth_gb_s = 1e-9 * bytes / (now - start);
    return true;
}

/* The median of microseconds that reads at random places take. */
static bool read_at_random(probe *it, size_t bytes, double *us) {
    double samples[SAMPLES], end = dm_seconds() + random_seconds;
    size_t n = 0;
    posix_fadvise(it->file.descriptor, 0, 0, POSIX_FADV_RANDOM);
    while (n < SAMPLES && (n < FEWEST || dm_seconds() < end) && !dm_interrupted()) {
        size_t place = (size_t)(dm_random_next(&it->random) % ((it->size - bytes) / it->page + 1)) * it->page;
        double start = dm_seconds();
        if (!read_at(it, place, bytes)) {
            return false;
        }
        samples[n++] = 1e6 * (dm_seconds() - start);
    }
    *us = dm_spread_of(samples, n).median;
    return true;
}

static void measure(probe *it, size_t bytes) {
    dm_disk *out = it->out;
    bytes = (bytes + it->page - 1) / it->page * it->page;
    dm_disk_file_drop(&it->file, 0, it->file.size);
    out->direct = it->file.direct;
    out->file_bytes = it->size;
    out->read_bytes = bytes < it->size ? bytes : it->size;
    if (!read_in_sequence(it) || !read_at_random(it, (size_t)out->read_bytes, &out->read_us) ||
        !read_at_random(it, it->page, &out->page_us)) {
        out->bandwidth_gb_s = out->read_us = out->page_us = NAN;
    }
}

dm_status dm_disk_measure(uint64_t read_bytes, dm_disk *out) {
    size_t bytes = read_bytes < most_read ? (size_t)read_bytes : most_read;
    bytes = bytes > 0 ? bytes : 1;
    size_t space = (bytes > PIECE ? bytes : PIECE) + DM_DISK_MOST_ALIGNMENT - 1;
    space = space / DM_DISK_MOST_ALIGNMENT * DM_DISK_MOST_ALIGNMENT;
    dm_pages memory; /* as experts are read */
    DM_TRY(dm_pages_map(space, &memory));
    probe it = {.file = {.descriptor = -1}, .out = out, .buffer = memory.data};
    dm_random_seed(&it.random, 1);
    if (open_file(&it)) {
        measure(&it, bytes);
    }
    dm_disk_file_close(&it.file);
    dm_pages_unmap(&memory);
    return dm_interrupted() ? dm_fail(DM_ERR_INTERRUPTED, "interrupted") : DM_OK;
}
