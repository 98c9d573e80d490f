/* Reads past the page cache, by io_uring (where there is one) and by threads: what they bring, and what becomes of files and
 * disks that do not hold still. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/disk_reader.h"
#include "base/random.h"
#include "disk_faults.h"

enum { FILES = 3, DEPTH = 16, PIECE = 64 << 10 };

/* The last one lies in memory. All end a little after a multiple of every alignment. */
static char folders[2][64];
static char paths[FILES][96];
static const size_t sizes[FILES] = {(1 << 20) + 17, (1 << 18) + 1, (1 << 19) + 4095};
static const char *const list[FILES] = {paths[0], paths[1], paths[2]};
static uint8_t *space; /* [DEPTH][PIECE] */

/* ---- Files ---- */

static uint8_t byte_at(size_t file, uint64_t place) {
    return (uint8_t)(dm_random_mix(place / 8 + (uint64_t)file * 1000003) >> place % 8 * 8);
}

static const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};

/* Older than anything written to it later. */
static void make_file(size_t file) {
    uint8_t *bytes = malloc(sizes[file]);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizes[file]; i++) {
        bytes[i] = byte_at(file, i);
    }
    int descriptor = open(paths[file], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(write(descriptor, bytes, sizes[file]) == (ssize_t)sizes[file]);
    assert_int_equal(fsync(descriptor), 0); /* only what is on the disk leaves the page cache */
    assert_int_equal(futimens(descriptor, old), 0);
    close(descriptor);
    free(bytes);
}

static int make_files(void **state) {
    (void)state;
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    space = aligned_alloc(DM_DISK_MOST_ALIGNMENT, (size_t)DEPTH * PIECE);
    for (size_t i = 0; i < 2; i++) {
        snprintf(folders[i], sizeof folders[i], "%s/dilmodeli-disk-XXXXXX", i == 0 ? "/tmp" : memory);
        if (space == NULL || mkdtemp(folders[i]) == NULL) {
            return -1;
        }
    }
    for (size_t i = 0; i < FILES; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/file%zu", folders[i / 2], i);
        make_file(i);
    }
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    for (size_t i = 0; i < FILES; i++) {
        unlink(paths[i]);
    }
    free(space);
    return rmdir(folders[0]) + rmdir(folders[1]);
}

/* ---- Readers ---- */

static dm_disk_reader *new_reader(void **state, size_t n_files, unsigned depth) {
    dm_disk_reader *it;
    assert_int_equal(dm_disk_reader_create(list, n_files, depth, *(const bool *)*state, &it), DM_OK);
    return it;
}

static bool has_ring(const dm_disk_reader *it) {
    return strcmp(dm_disk_reader_kind(it), "io_uring") == 0;
}

/* The read that goes to place `slot` of the space. */
static dm_disk_read read_of(size_t file, uint64_t offset, size_t bytes, size_t slot) {
    return (dm_disk_read){file, offset, bytes, space + slot * PIECE, slot};
}

static void assert_read(const dm_disk_read *read) {
    const uint8_t *bytes = read->to;
    for (size_t i = 0; i < read->bytes && read->offset + i < sizes[read->file]; i++) {
        if (bytes[i] != byte_at(read->file, read->offset + i)) {
            fail_msg("file %zu: byte %zu of %zu at %llu is wrong", read->file, i, read->bytes, (unsigned long long)read->offset);
        }
    }
}

/* Submits one read, which is the only one, and waits for it. */
static dm_status read_one(dm_disk_reader *it, dm_disk_read read) {
    dm_disk_done done;
    memset(space, 0, PIECE);
    assert_int_equal(dm_disk_reader_submit(it, read), DM_OK);
    assert_int_equal(dm_disk_reader_in_flight(it), 1);
    assert_true(dm_disk_reader_wait(it, true, &done));
    assert_true(done.tag == read.tag);
    assert_int_equal(dm_disk_reader_in_flight(it), 0);
    if (done.status == DM_OK) {
        assert_read(&read);
    }
    return done.status;
}

static void assert_message(const char *path, const char *words) {
    const char *message = dm_error_message();
    if (strncmp(message, path, strlen(path)) != 0 || strstr(message, words) == NULL) {
        fail_msg("expected %s: ...%s, got: %s", path, words, message);
    }
}

/* ---- What goes well ---- */

/* An aligned place of a random file, and as much of what follows as there is, up to a piece. */
static dm_disk_read random_read(dm_random *random, size_t alignment, size_t slot) {
    size_t file = (size_t)(dm_random_next(random) % FILES);
    uint64_t units = (sizes[file] + alignment - 1) / alignment, begin = dm_random_next(random) % units;
    uint64_t most = units - begin < PIECE / alignment ? units - begin : PIECE / alignment;
    return read_of(file, begin * alignment, (size_t)(1 + dm_random_next(random) % most) * alignment, slot);
}

static void many_at_a_time(void **state) {
    enum { READS = 2000 };
    dm_disk_reader *it = new_reader(state, FILES, DEPTH);
    dm_disk_read reads[DEPTH];
    dm_disk_done done;
    dm_random random;
    uint64_t bytes = 0;
    dm_random_seed(&random, 1);
    size_t submitted = 0, taken = 0;
    for (; submitted < DEPTH; submitted++) {
        reads[submitted] = random_read(&random, dm_disk_reader_alignment(it), submitted);
        assert_int_equal(dm_disk_reader_submit(it, reads[submitted]), DM_OK);
    }
    assert_int_equal(dm_disk_reader_submit(it, reads[0]), DM_ERR_ARGUMENT); /* no room for another */
    assert_message(paths[reads[0].file], "16 reads are in flight");
    while (taken < READS) {
        bool block = taken % 3 != 0;
        if (!dm_disk_reader_wait(it, block, &done)) {
            assert_false(block); /* none has ended yet */
            continue;
        }
        taken++;
        assert_int_equal(done.status, DM_OK);
        assert_read(&reads[done.tag]);
        size_t left = sizes[reads[done.tag].file] - (size_t)reads[done.tag].offset;
        bytes += left < reads[done.tag].bytes ? left : reads[done.tag].bytes;
        if (submitted < READS) {
            reads[done.tag] = random_read(&random, dm_disk_reader_alignment(it), (size_t)done.tag);
            assert_int_equal(dm_disk_reader_submit(it, reads[done.tag]), DM_OK);
            submitted++;
        }
    }
    assert_int_equal(taken, READS);
    assert_true(dm_disk_reader_counts(it).reads == READS && dm_disk_reader_counts(it).bytes == bytes);
    assert_false(dm_disk_reader_wait(it, true, &done)); /* nothing is in flight */
    dm_disk_reader_free(it);
}

static void what_is_known_of_files(void **state) {
    dm_disk_reader *it = new_reader(state, FILES, 1);
    size_t alignment = dm_disk_reader_alignment(it);
    assert_true(alignment > 0 && (alignment & (alignment - 1)) == 0 && alignment <= DM_DISK_MOST_ALIGNMENT);
    for (size_t i = 0; i < FILES; i++) {
        struct stat info;
        const dm_disk_file *file = dm_disk_reader_file(it, i);
        assert_int_equal(stat(paths[i], &info), 0);
        assert_string_equal(file->path, paths[i]);
        assert_true(file->size == sizes[i] && file->inode == info.st_ino && file->device == info.st_dev);
        assert_true(file->modified == UINT64_C(1000000000000000000) && alignment % file->alignment == 0);
    }
    dm_disk_reader_free(it);
    dm_disk_reader_free(NULL);
}

static void end_of_file(void **state) {
    dm_disk_reader *it = new_reader(state, FILES, 2);
    size_t alignment = dm_disk_reader_alignment(it);
    for (size_t i = 0; i < FILES; i++) {
        uint64_t last = sizes[i] / alignment * alignment;
        assert_int_equal(read_one(it, read_of(i, last, alignment, 0)), DM_OK);
        assert_int_equal(read_one(it, read_of(i, last - alignment, 2 * alignment, 0)), DM_OK);
        assert_int_equal(dm_disk_reader_submit(it, read_of(i, last, 2 * alignment, 0)), DM_ERR_ARGUMENT);
        assert_message(paths[i], "outside the file");
        assert_int_equal(dm_disk_reader_submit(it, read_of(i, last + alignment, alignment, 0)), DM_ERR_ARGUMENT);
        assert_int_equal(dm_disk_reader_submit(it, read_of(i, UINT64_MAX / alignment * alignment, alignment, 0)),
                         DM_ERR_ARGUMENT);
        assert_int_equal(dm_disk_reader_submit(it, read_of(i, 0, SIZE_MAX / alignment * alignment, 0)), DM_ERR_ARGUMENT);
    }
    assert_int_equal(dm_disk_reader_in_flight(it), 0);
    dm_disk_reader_free(it);
}

static void what_is_not_taken(void **state) {
    dm_disk_reader *it = new_reader(state, 1, 1);
    size_t alignment = dm_disk_reader_alignment(it);
    assert_int_equal(dm_disk_reader_submit(it, read_of(0, alignment / 2, alignment, 0)), DM_ERR_ARGUMENT);
    assert_int_equal(dm_disk_reader_submit(it, read_of(0, 0, alignment + 1, 0)), DM_ERR_ARGUMENT);
    assert_int_equal(dm_disk_reader_submit(it, read_of(0, 0, 0, 0)), DM_ERR_ARGUMENT);
    dm_disk_read read = read_of(0, 0, alignment, 0);
    read.to = space + 1;
    assert_int_equal(dm_disk_reader_submit(it, read), DM_ERR_ARGUMENT);
    assert_message(paths[0], "expected multiples of");
    assert_int_equal(dm_disk_reader_submit(it, read_of(1, 0, alignment, 0)), DM_ERR_ARGUMENT);
    assert_int_equal(read_one(it, read_of(0, 0, alignment, 0)), DM_OK);
    dm_disk_reader_free(it);
}

static void what_cannot_be_opened(void **state) {
    const bool threads = *(const bool *)*state;
    const char *const some[] = {paths[0], folders[0], "/nowhere/at/all"};
    dm_disk_reader *it;
    assert_int_equal(dm_disk_reader_create(some, 2, 1, threads, &it), DM_ERR_IO);
    assert_null(it);
    assert_message(folders[0], "not a regular file");
    assert_int_equal(dm_disk_reader_create(some + 2, 1, 1, threads, &it), DM_ERR_IO);
    assert_message(some[2], "cannot open");
    assert_int_equal(dm_disk_reader_create(some, 1, 0, threads, &it), DM_ERR_ARGUMENT);
    assert_int_equal(dm_disk_reader_create(some, 1, DM_DISK_MOST_DEPTH + 1, threads, &it), DM_ERR_ARGUMENT);
}

/* Freed with some reads begun and others not. */
static void freed_in_flight(void **state) {
    dm_disk_reader *it = new_reader(state, 1, DEPTH);
    disk_faults_delay(1000);
    memset(space, 0, (size_t)DEPTH * PIECE);
    for (size_t i = 0; i < DEPTH; i++) {
        assert_int_equal(dm_disk_reader_submit(it, read_of(0, i * PIECE, PIECE, i)), DM_OK);
        if (i == DEPTH / 2) {
            dm_disk_reader_flush(it);
        }
    }
    dm_disk_reader_free(it);
    disk_faults_delay(0);
    for (size_t i = 0; i < DEPTH; i++) {
        dm_disk_read read = read_of(0, i * PIECE, PIECE, i);
        if (i <= DEPTH / 2) {
            assert_read(&read);
        } else {
            assert_int_equal(space[i * PIECE], 0);
        }
    }
}

/* ---- Files that change ---- */

static void truncated(void **state) {
    dm_disk_reader *it = new_reader(state, 2, DEPTH);
    assert_int_equal(read_one(it, read_of(0, PIECE, PIECE, 0)), DM_OK);
    assert_int_equal(dm_disk_reader_submit(it, read_of(0, 0, PIECE, 0)), DM_OK);
    assert_int_equal(dm_disk_reader_submit(it, read_of(0, 8 * PIECE, PIECE, 1)), DM_OK);
    assert_int_equal(truncate(paths[0], 3 * PIECE + 7), 0);
    assert_int_equal(utimensat(AT_FDCWD, paths[0], old, 0), 0); /* the size alone tells */
    for (size_t i = 0; i < 2; i++) {                            /* what is still there is no longer part of that file either */
        dm_disk_done done;
        assert_true(dm_disk_reader_wait(it, true, &done));
        assert_int_equal(done.status, DM_ERR_IO);
        assert_message(paths[0], ": has changed since it was opened");
    }
    assert_int_equal(read_one(it, read_of(0, 3 * PIECE, PIECE, 0)), DM_ERR_IO);
    assert_message(paths[0], ": has changed since it was opened");
    assert_int_equal(read_one(it, read_of(1, 0, PIECE, 0)), DM_OK); /* others go on */
    dm_disk_reader_free(it);
    make_file(0);
}

static void modified(void **state) {
    dm_disk_reader *it = new_reader(state, 2, DEPTH);
    int descriptor = open(paths[0], O_WRONLY | O_CLOEXEC);
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_OK);
    assert_int_equal(pwrite(descriptor, "x", 1, 9 * PIECE), 1);
    close(descriptor);
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_ERR_IO);
    assert_message(paths[0], ": has changed since it was opened");
    assert_int_equal(read_one(it, read_of(1, 0, PIECE, 0)), DM_OK);
    assert_int_equal(dm_disk_reader_counts(it).reads, 2);
    dm_disk_reader_free(it);
    make_file(0);
}

/* Another file takes the name: the one that was opened stays what it was. */
static void replaced(void **state) {
    char other[128];
    dm_disk_reader *it = new_reader(state, 1, DEPTH);
    snprintf(other, sizeof other, "%s-new", paths[0]);
    int descriptor = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(descriptor, "other", 5), 5);
    close(descriptor);
    assert_int_equal(rename(other, paths[0]), 0);
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_OK);
    dm_disk_reader_free(it);
    make_file(0);
}

static void *truncate_soon(void *started) {
    while (!atomic_load((atomic_bool *)started)) {
        usleep(10);
    }
    assert_int_equal(truncate(paths[0], PIECE), 0);
    return NULL;
}

/* In the middle of many reads: each brings what was there or fails. */
static void truncated_meanwhile(void **state) {
    dm_disk_reader *it = new_reader(state, 1, DEPTH);
    atomic_bool started = false;
    pthread_t thread;
    size_t failed = 0;
    assert_int_equal(pthread_create(&thread, NULL, truncate_soon, &started), 0);
    for (size_t round = 0; failed < 2 * DEPTH; round++) {
        dm_disk_done done;
        for (size_t i = 0; i < DEPTH; i++) {
            assert_int_equal(dm_disk_reader_submit(it, read_of(0, i * PIECE, PIECE, i)), DM_OK);
        }
        while (dm_disk_reader_wait(it, true, &done)) {
            dm_disk_read read = read_of(0, done.tag * PIECE, PIECE, (size_t)done.tag);
            if (done.status == DM_OK) {
                assert_int_equal(failed, 0);
                assert_read(&read);
            } else {
                assert_message(paths[0], ": has changed since it was opened");
                failed++;
            }
        }
        atomic_store(&started, true);
    }
    pthread_join(thread, NULL);
    dm_disk_reader_free(it);
    make_file(0);
}

/* ---- Disks that fail ---- */

static void an_error_is_one_reads_own(void **state) {
    static const int faults[] = {0, EIO};
    dm_disk_reader *it = new_reader(state, 2, DEPTH);
    assert_int_equal(read_one(it, read_of(1, 0, PIECE, 0)), DM_OK);
    disk_faults_set(faults, 2);
    for (size_t i = 0; i < DEPTH; i++) {
        assert_int_equal(dm_disk_reader_submit(it, read_of(0, i * PIECE, PIECE, i)), DM_OK);
    }
    size_t failed = 0, taken = 0;
    for (dm_disk_done done; dm_disk_reader_wait(it, true, &done); taken++) {
        dm_disk_read read = read_of(0, done.tag * PIECE, PIECE, (size_t)done.tag);
        if (done.status == DM_OK) {
            assert_read(&read);
            continue;
        }
        char words[128];
        snprintf(words, sizeof words, "cannot read %d bytes at %llu: %s", PIECE, (unsigned long long)read.offset, strerror(EIO));
        assert_int_equal(done.status, DM_ERR_IO);
        assert_message(paths[0], words);
        failed++;
    }
    assert_true(failed == 1 && taken == DEPTH && disk_faults_over());
    assert_int_equal(dm_disk_reader_counts(it).reads, DEPTH); /* one before */
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_OK);
    dm_disk_reader_free(it);
    disk_faults_set(NULL, 0);
}

static void short_and_interrupted_reads_go_on(void **state) {
    /* 100 bytes are no step for O_DIRECT, which asks for them again with the rest. */
    static const int faults[] = {EINTR, -16384, EAGAIN, EINTR, -(8192 + 100), 0, -4096};
    dm_disk_reader *it = new_reader(state, 1, 1);
    disk_faults_set(faults, sizeof faults / sizeof *faults);
    assert_int_equal(read_one(it, read_of(0, PIECE, PIECE, 0)), DM_OK);
    assert_false(disk_faults_over());
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_OK);
    assert_true(disk_faults_over());
    assert_true(dm_disk_reader_counts(it).reads == 2 && dm_disk_reader_counts(it).bytes == 2 * PIECE);
    dm_disk_reader_free(it);
    disk_faults_set(NULL, 0);
}

/* A read that ends where the file has more, and once more. */
static void a_file_that_ends_early(void **state) {
    static const int faults[] = {-4096, EIO};
    const char *const kernel = "/sys/kernel/mm/transparent_hugepage/enabled"; /* its size is a page, whatever it holds */
    dm_disk_reader *it = new_reader(state, 1, 1);
    disk_faults_set(faults, 2);
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_ERR_IO);
    assert_message(paths[0], strerror(EIO));
    dm_disk_reader_free(it);
    disk_faults_set(NULL, 0);
    struct stat info;
    if (stat(kernel, &info) == 0 && info.st_size >= 4096 && access(kernel, R_OK) == 0) {
        assert_int_equal(dm_disk_reader_create(&kernel, 1, 1, *(const bool *)*state, &it), DM_OK);
        assert_false(dm_disk_reader_file(it, 0)->direct);
        assert_int_equal(read_one(it, read_of(0, 0, 4096, 0)), DM_ERR_IO);
        assert_message(kernel, "the file ends before its size");
        dm_disk_reader_free(it);
    }
}

/* A kernel that has no memory for requests, at once or after some: they are read without it. */
static void a_ring_that_is_refused(void **state) {
    dm_disk_reader *it = new_reader(state, 1, DEPTH);
    assert_int_equal(read_one(it, read_of(0, 0, PIECE, 0)), DM_OK);
    for (size_t i = 0; i < DEPTH; i++) {
        assert_int_equal(dm_disk_reader_submit(it, read_of(0, i * PIECE, PIECE, i)), DM_OK);
        if (i == 3) {
            dm_disk_reader_flush(it);
            disk_faults_refuse(EAGAIN);
        }
    }
    size_t taken = 0;
    for (dm_disk_done done; dm_disk_reader_in_flight(it) > 0;) {
        if (dm_disk_reader_wait(it, taken % 2 == 0, &done)) {
            dm_disk_read read = read_of(0, done.tag * PIECE, PIECE, (size_t)done.tag);
            assert_int_equal(done.status, DM_OK);
            assert_read(&read);
            taken++;
        }
    }
    assert_int_equal(taken, DEPTH);
    disk_faults_refuse(0);
    assert_int_equal(read_one(it, read_of(0, PIECE, PIECE, 0)), DM_OK);
    dm_disk_reader_free(it);
}

/* ---- Disks that do not answer ---- */

static void stalled(void **state) {
    dm_disk_reader *it = new_reader(state, 2, DEPTH);
    dm_disk_done done;
    assert_int_equal(read_one(it, read_of(1, 0, PIECE, 0)), DM_OK);
    dm_disk_reader_set_patience(it, 0.05);
    memset(space, 0, 2 * PIECE);
    disk_faults_hold(true);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(dm_disk_reader_submit(it, read_of(0, i * PIECE, PIECE, i)), DM_OK);
    }
    assert_false(dm_disk_reader_wait(it, false, &done));
    assert_int_equal(dm_disk_reader_stalled(it), DM_OK); /* nobody waited */
    assert_false(dm_disk_reader_wait(it, true, &done));
    assert_int_equal(dm_disk_reader_stalled(it), DM_ERR_IO);
    assert_message(paths[0], "the disk has not answered for 0.05 seconds");
    assert_int_equal(dm_disk_reader_in_flight(it), 2);
    disk_faults_hold(false); /* it comes back: nothing is lost */
    for (size_t i = 0; i < 2; i++) {
        dm_disk_reader_set_patience(it, 30);
        assert_true(dm_disk_reader_wait(it, true, &done));
        dm_disk_read read = read_of(0, done.tag * PIECE, PIECE, (size_t)done.tag);
        assert_int_equal(done.status, DM_OK);
        assert_read(&read);
        assert_int_equal(dm_disk_reader_stalled(it), DM_OK);
    }
    assert_true(dm_disk_reader_free(it));
}

/* The memory of a read that is under way is left to the system, and what it needs with it. */
static void freed_while_stalled(void **state) {
    dm_disk_reader *it = new_reader(state, 1, DEPTH);
    uint8_t *memory = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    dm_disk_read read = {0, 0, PIECE, memory, 0};
    dm_disk_reader_set_patience(it, 0.05);
    disk_faults_hold(true);
    assert_int_equal(dm_disk_reader_submit(it, read), DM_OK);
    dm_disk_reader_flush(it);
    assert_false(dm_disk_reader_free(it));
    disk_faults_hold(false); /* now it is written, and stays mapped */
}

/* ---- Without O_DIRECT ---- */

/* Pages of a file that the page cache holds. */
static size_t cached_pages(size_t file) {
    unsigned char in_core[256 + 1];
    size_t pages = (sizes[file] + 4095) / 4096, n = 0;
    assert_true(pages <= sizeof in_core);
    int descriptor = open(paths[file], O_RDONLY | O_CLOEXEC);
    void *data = mmap(NULL, sizes[file], PROT_READ, MAP_SHARED, descriptor, 0);
    assert_true(data != MAP_FAILED && mincore(data, sizes[file], in_core) == 0);
    munmap(data, sizes[file]);
    close(descriptor);
    for (size_t i = 0; i < pages; i++) {
        n += in_core[i] & 1;
    }
    return n;
}

/* A file system that takes the flag and refuses the reads. */
static void no_direct_reads(void **state) {
    static const int faults[] = {EINVAL, EINVAL, EINVAL};
    int descriptor = open(paths[0], O_RDONLY | O_CLOEXEC);
    assert_int_equal(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED), 0); /* what was left there by others */
    close(descriptor);
    size_t before = cached_pages(0);
    disk_faults_set(faults, FILES);
    dm_disk_reader *it = new_reader(state, FILES, DEPTH);
    assert_true(!dm_disk_reader_file(it, 0)->direct && dm_disk_reader_alignment(it) == 4096);
    disk_faults_set(NULL, 0);
    for (size_t i = 0; i < FILES; i++) {
        for (uint64_t offset = 0; offset < sizes[i]; offset += PIECE) {
            size_t left = sizes[i] - (size_t)offset;
            size_t bytes = left < PIECE ? (left + 4095) / 4096 * 4096 : PIECE;
            assert_int_equal(read_one(it, read_of(i, offset, bytes, 0)), DM_OK);
        }
    }
    assert_true(cached_pages(0) <= before);
    dm_disk_reader_free(it);
}

/* ---- Both kinds ---- */

static void kinds(void **state) {
    dm_disk_reader *it = new_reader(state, 1, 1);
    if (*(const bool *)*state) {
        assert_string_equal(dm_disk_reader_kind(it), "threads");
    } else if (!has_ring(it)) {
        printf("no io_uring here: threads are tested twice\n");
    }
    dm_disk_reader_free(it);
}

static bool with_threads = true, with_ring = false;

#define BOTH(test) cmocka_unit_test_prestate(test, &with_ring), cmocka_unit_test_prestate(test, &with_threads)

int main(void) {
    const struct CMUnitTest tests[] = {
        BOTH(kinds),
        BOTH(many_at_a_time),
        BOTH(what_is_known_of_files),
        BOTH(end_of_file),
        BOTH(what_is_not_taken),
        BOTH(what_cannot_be_opened),
        BOTH(freed_in_flight),
        BOTH(truncated),
        BOTH(modified),
        BOTH(replaced),
        BOTH(truncated_meanwhile),
        BOTH(an_error_is_one_reads_own),
        BOTH(short_and_interrupted_reads_go_on),
        BOTH(a_file_that_ends_early),
        BOTH(a_ring_that_is_refused),
        BOTH(stalled),
        BOTH(freed_while_stalled),
        BOTH(no_direct_reads),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
