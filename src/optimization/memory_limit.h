/* How much memory this process may use: what the machine has free, and what its control groups leave it. */
#ifndef DM_OPTIMIZATION_MEMORY_LIMIT_H
#define DM_OPTIMIZATION_MEMORY_LIMIT_H

#include "dilmodeli.h"

/* Reads /proc and control groups of both versions, below `root`: "" for those of this machine. What nobody tells is 0. Limits
 * of address space (ulimit -v), which mapped files count against as well, are not looked at. */
void dm_memory_limit(const char *root, dm_memory *out);

#endif
