/* How fast a disk is read past the page cache. */
#ifndef DM_OPTIMIZATION_DISK_SPEED_H
#define DM_OPTIMIZATION_DISK_SPEED_H

#include "dilmodeli.h"

/* Fills path, device and filesystem; figures stay NaN. DM_ERR_IO where nothing is there; what the system does not tell is
 * "unknown". */
dm_status dm_disk_identify(const char *path, dm_disk *out);

/* Measures the disk that `out` identifies, about two seconds, by random reads of `read_bytes` (rounded up to whole pages) among
 * others: those of the file itself, or, of a folder, of one that is written there and has no name, another second. What
 * stands in the way is said in out->problem and is no failure; DM_ERR_INTERRUPTED, DM_ERR_MEMORY. */
dm_status dm_disk_measure(uint64_t read_bytes, dm_disk *out);

#endif
