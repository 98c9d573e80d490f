/* Solved tensors wait in a file without a name beside the one to be written: whatever happens, it is gone when the process is. */
#ifndef DM_QUANTIZATION_COMPRESS_SOLUTIONS_H
#define DM_QUANTIZATION_COMPRESS_SOLUTIONS_H

#include <stdio.h>

#include "base/status.h"

typedef struct dm_solutions {
    const char *to; /* the file to be written */
    FILE *stream;
    uint64_t written; /* bytes */
} dm_solutions;

/* Opens one, to be closed in any case. DM_ERR_IO, DM_ERR_MEMORY. */
dm_status dm_solutions_open(dm_solutions *it, const char *to);
void dm_solutions_close(dm_solutions *it);

/* Adds bytes at the end. DM_ERR_IO. */
dm_status dm_solutions_add(dm_solutions *it, const void *data, size_t bytes);
/* out [bytes] = what was added from byte `at` on. DM_ERR_IO. */
dm_status dm_solutions_read(const dm_solutions *it, uint64_t at, void *out, size_t bytes);

#endif
