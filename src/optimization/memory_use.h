/* What the resident memory of a process that runs a model consists of. */
#ifndef DM_OPTIMIZATION_MEMORY_USE_H
#define DM_OPTIMIZATION_MEMORY_USE_H

#include "dilmodeli.h"

/* Of n sessions of one model, in each of which at most `positions` were in use. */
void dm_memory_use(dm_session *const *sessions, size_t n, size_t positions, dm_bench_memory *out);

#endif
