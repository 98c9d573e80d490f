/*
 * Reads of files past the page cache, several at a time, while the caller does something else: by io_uring where the system has
 * it, else by threads that wait in its place. One thread at a time uses a reader.
 */
#ifndef DM_BASE_DISK_READER_H
#define DM_BASE_DISK_READER_H

#include "base/disk_file.h"

enum { DM_DISK_MOST_DEPTH = 4096, DM_DISK_PATIENCE = 30 /* seconds */ };

typedef struct dm_disk_reader dm_disk_reader;

typedef struct dm_disk_read {
    size_t file;     /* place among the paths */
    uint64_t offset; /* in the file. This, the next and the address: multiples of the alignment */
    size_t bytes;    /* not 0; may pass the end of the file by less than the alignment */
    void *to;        /* [bytes], left alone by others until the read is done; what lies past the end of the file is undefined */
    uint64_t tag;    /* the caller's own, comes back when the read is done */
} dm_disk_read;

typedef struct dm_disk_done {
    uint64_t tag;
    dm_status status; /* DM_OK: all bytes are there, and the file is still the one that was opened; DM_ERR_IO */
} dm_disk_done;

/* Of reads that went well. */
typedef struct dm_disk_counts {
    uint64_t reads, bytes;
} dm_disk_counts;

/* Opens regular files to read them with up to `depth` reads in flight, 1 to DM_DISK_MOST_DEPTH. `threads_only` leaves io_uring
 * alone. *out is freed with dm_disk_reader_free(); DM_ERR_IO, DM_ERR_ARGUMENT, DM_ERR_MEMORY. */
dm_status dm_disk_reader_create(const char *const *paths, size_t n_paths, unsigned depth, bool threads_only,
                                dm_disk_reader **out);
/* How long to wait for a read before the disk is given up; DM_DISK_PATIENCE unless told otherwise. */
void dm_disk_reader_set_patience(dm_disk_reader *it, double seconds);
/* Waits for what is in flight; what was not yet handed over is forgotten. `it` may be NULL. False where the disk does not answer:
 * the system may yet write to the memory of those reads, which has to be left to it for good, as the reader is. */
bool dm_disk_reader_free(dm_disk_reader *it);

/* What reads of all of its files can be aligned to, a power of 2. */
size_t dm_disk_reader_alignment(const dm_disk_reader *it);
/* The file at a place among the paths, the reader's own. */
const dm_disk_file *dm_disk_reader_file(const dm_disk_reader *it, size_t file);
/* "io_uring" or "threads". */
const char *dm_disk_reader_kind(const dm_disk_reader *it);
/* Reads that were submitted and whose end was not taken with dm_disk_reader_wait(). */
size_t dm_disk_reader_in_flight(const dm_disk_reader *it);
dm_disk_counts dm_disk_reader_counts(const dm_disk_reader *it);

/* Queues a read, which begins with the next dm_disk_reader_flush() or dm_disk_reader_wait(). DM_ERR_ARGUMENT for what is not
 * aligned or outside the file, and while `depth` reads are in flight; nothing is queued then. */
dm_status dm_disk_reader_submit(dm_disk_reader *it, dm_disk_read read);
/* Begins all reads that are queued, with one call to the system where it knows such a thing. */
void dm_disk_reader_flush(dm_disk_reader *it);
/* Takes a read that is done, in the order in which they end; false where there is none: of those in flight if `block` is false,
 * else because none is in flight, or dm_disk_reader_stalled() says why. What failed of a read, dm_error_message() says; other
 * reads go on. */
bool dm_disk_reader_wait(dm_disk_reader *it, bool block, dm_disk_done *out);
/* DM_ERR_IO after a wait in which no read ended for as long as the patience, until one does: reads go on, later waits may find
 * them. */
dm_status dm_disk_reader_stalled(const dm_disk_reader *it);

#endif
