#include "base/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USUAL_ALIGNMENT = 4096 }; /* enough for O_DIRECT where the system does not tell, and whole pages of the page cache */

/* ---- Past the page cache ---- */

/* What O_DIRECT asks for; 0 where the file system says that it has no such reads. Kernels tell since Linux 6.1. */
static size_t direct_alignment(int descriptor) {
#ifdef STATX_DIOALIGN
    struct statx info;
    if (statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0) {
        size_t of_places = info.stx_dio_offset_align, of_memory = info.stx_dio_mem_align;
        size_t alignment = of_places == 0 || of_places > of_memory ? of_places : of_memory;
        bool usable = alignment <= DM_DISK_MOST_ALIGNMENT && (alignment & (alignment - 1)) == 0;
        return usable ? alignment : 0;
    }
#else
    (void)descriptor;
#endif
    return USUAL_ALIGNMENT;
}

/* Some file systems take the flag and refuse the reads. */
static bool reads_directly(int descriptor, size_t alignment) {
    size_t size = alignment > sizeof(void *) ? alignment : sizeof(void *);
    void *memory = aligned_alloc(size, size);
    bool read = memory != NULL && pread(descriptor, memory, alignment, 0) >= 0;
    free(memory);
    return read;
}

static void pass_page_cache(dm_disk_file *file) {
    int flags = fcntl(file->descriptor, F_GETFL);
    file->alignment = direct_alignment(file->descriptor);
    bool taken = file->alignment > 0 && fcntl(file->descriptor, F_SETFL, flags | O_DIRECT) == 0;
    file->direct = taken && reads_directly(file->descriptor, file->alignment);
    if (taken && !file->direct) {
        fcntl(file->descriptor, F_SETFL, flags);
    }
    if (!file->direct) {
        file->alignment = USUAL_ALIGNMENT;
        posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_RANDOM); /* nothing is read ahead */
    }
}

void dm_disk_file_drop(const dm_disk_file *file, uint64_t offset, uint64_t bytes) {
    if (!file->direct) {
        posix_fadvise(file->descriptor, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
    }
}

/* ---- Which file it is ---- */

static uint64_t modified_at(const struct stat *info) {
    return (uint64_t)info->st_mtim.tv_sec * 1000000000u + (uint64_t)info->st_mtim.tv_nsec;
}

static dm_status identify(dm_disk_file *file) {
    struct stat info;
    if (fstat(file->descriptor, &info) != 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot read its size: %s", file->path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return dm_fail(DM_ERR_IO, "%s: not a regular file", file->path);
    }
    file->size = (uint64_t)info.st_size;
    file->modified = modified_at(&info);
    file->device = info.st_dev;
    file->inode = info.st_ino;
    return DM_OK;
}

/* Not the time of change of the inode: that moves when another file takes the name of this one, which stays as it is. */
dm_status dm_disk_file_check(const dm_disk_file *file) {
    struct stat info;
    if (fstat(file->descriptor, &info) != 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot read its size: %s", file->path, strerror(errno));
    }
    if ((uint64_t)info.st_size != file->size || modified_at(&info) != file->modified) {
        return dm_fail(DM_ERR_IO, "%s: has changed since it was opened; open it again", file->path);
    }
    return DM_OK;
}

/* ---- Opening and closing ---- */

dm_status dm_disk_file_adopt(int descriptor, const char *path, dm_disk_file *out) {
    *out = (dm_disk_file){.path = strdup(path), .descriptor = descriptor};
    dm_status status = out->path != NULL ? identify(out) : dm_fail(DM_ERR_MEMORY, "out of memory opening %s", path);
    if (status != DM_OK) {
        dm_disk_file_close(out);
        return status;
    }
    pass_page_cache(out);
    return DM_OK;
}

dm_status dm_disk_file_open(const char *path, dm_disk_file *out) {
    *out = (dm_disk_file){.descriptor = -1};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    return dm_disk_file_adopt(descriptor, path, out);
}

void dm_disk_file_close(dm_disk_file *file) {
    if (file->descriptor >= 0) {
        close(file->descriptor);
    }
    free(file->path);
    *file = (dm_disk_file){.descriptor = -1};
}
