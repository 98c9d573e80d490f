/* One weight of a GGUF block at a time: which values its code can take with the block's scales as they are, and setting it. */
#ifndef DM_QUANTIZATION_COMPAT_CODES_H
#define DM_QUANTIZATION_COMPAT_CODES_H

#include "kernels/block_types.h"

/* Code c of the weight stands for d level(c) + m, c from 0 to codes - 1. */
typedef struct dm_compat_grid {
    float d, m;
    int codes;
    int low;              /* level(c) = c + low, */
    const int8_t *levels; /* [codes] or this, ascending, where it is not NULL */
} dm_compat_grid;

/* The types whose blocks every GGUF program reads, from the fewest to the most bytes; those of 32 weights among them. */
enum { DM_COMPAT_TYPES = 12 };
extern const dm_type dm_compat_types[DM_COMPAT_TYPES];

/* Of weight i of a block of one of these types. */
dm_compat_grid dm_compat_grid_of(dm_type type, const void *block, size_t i);
void dm_compat_set_code(dm_type type, void *block, size_t i, int code);

/* The code whose value is nearest to x, which may be no number. */
int dm_compat_nearest(const dm_compat_grid *grid, float x);

static inline float dm_compat_value(const dm_compat_grid *grid, int code) {
    const int level = grid->levels != NULL ? grid->levels[code] : code + grid->low;
    return grid->d * (float)level + grid->m;
}

#endif
