/* A file that is read past the page cache: how it is opened for that, and whether it is still the one that was opened. */
#ifndef DM_BASE_DISK_FILE_H
#define DM_BASE_DISK_FILE_H

#include "base/status.h"

enum { DM_DISK_MOST_ALIGNMENT = 4096 }; /* a file that asks for more is read through the page cache */

typedef struct dm_disk_file {
    char *path;
    int descriptor;
    bool direct;            /* O_DIRECT; else what was read is dropped from the page cache */
    size_t alignment;       /* what offsets, sizes and memory of reads are multiples of, a power of 2 */
    uint64_t size;          /* bytes, these and the rest as they were at opening */
    uint64_t modified;      /* nanoseconds since 1970 */
    uint64_t device, inode; /* which file it is, whatever its name */
} dm_disk_file;

/* Opens a regular file for reading. The caller closes it with dm_disk_file_close(); DM_ERR_IO, DM_ERR_MEMORY. */
dm_status dm_disk_file_open(const char *path, dm_disk_file *out);
/* The same of a descriptor that is open, which is closed with the file, or here where this fails. */
dm_status dm_disk_file_adopt(int descriptor, const char *path, dm_disk_file *out);
void dm_disk_file_close(dm_disk_file *file);

/* DM_ERR_IO where the file was truncated or written since it was opened. */
dm_status dm_disk_file_check(const dm_disk_file *file);
/* After a read of these bytes: without O_DIRECT, takes them out of the page cache. */
void dm_disk_file_drop(const dm_disk_file *file, uint64_t offset, uint64_t bytes);

#endif
