/* How many threads work, and what time it is. Parallel loops are OpenMP's. */
#ifndef DM_BASE_THREADS_H
#define DM_BASE_THREADS_H

#include "dilmodeli.h"

/* Seconds on a clock that never steps back. */
double dm_seconds(void);

#endif
