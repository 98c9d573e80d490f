/* How fast memory is read, and how long one read takes, in a working set whose size says which tier answers. */
#ifndef DM_OPTIMIZATION_MEMORY_SPEED_H
#define DM_OPTIMIZATION_MEMORY_SPEED_H

#include "base/status.h"

/* Who reads what. */
typedef struct dm_readers {
    int threads;
    const int *processors; /* [threads] that each one is bound to; NULL, or -1: wherever the system puts it */
    size_t bytes;          /* each thread's own, in memory that it touched first; a multiple of 4096 */
    size_t line;           /* bytes; 0: unknown, 64 is taken */
    double seconds;        /* for each figure, beside what preparing takes */
} dm_readers;

typedef struct dm_memory_speed {
    double bandwidth_gb_s; /* all threads together: the best of many short runs, in some of which nobody disturbs */
    double latency_ns;     /* of a read that had to wait for the one before; NaN with several threads */
    bool huge_pages;       /* most of the memory lay in huge pages */
} dm_memory_speed;

/* DM_ERR_MEMORY, or DM_ERR_INTERRUPTED after dm_interrupt(). */
dm_status dm_memory_speed_measure(const dm_readers *readers, dm_memory_speed *out);

#endif
