/* How many threads work, what time it is, and how a failure leaves a parallel loop. Parallel loops are OpenMP's. */
#ifndef DM_BASE_THREADS_H
#define DM_BASE_THREADS_H

#include "base/status.h"

/* Seconds on a clock that never steps back. */
double dm_seconds(void);

/* Messages belong to a thread; this carries the first failure of any thread out of a parallel region. */
typedef struct dm_failure {
    dm_status status; /* DM_OK until one is noted */
    char message[512];
} dm_failure;

/* Notes `status` unless it is DM_OK or one was noted before. Any thread may call it. */
void dm_failure_note(dm_failure *failure, dm_status status);
/* After the region: the noted status, with its message as this thread's own. */
dm_status dm_failure_raise(const dm_failure *failure);

#endif
