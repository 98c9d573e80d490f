/*
 * Products of many rows of activations with weights of any type but float32 on tile registers (AMX-BF16): both are rounded
 * to bfloat16, weights where they are used, from their panels or from 16-bit floats; sums are float32. A result depends on
 * its row of activations and its row of weights alone, wherever they lie.
 */
#ifndef DM_KERNELS_TILES_H
#define DM_KERNELS_TILES_H

#include "kernels/weight.h"

enum {
    DM_TILE_ROWS = 16,      /* rows of activations that share a tile */
    DM_TILE_COLUMNS = 32,   /* columns of a tile */
    DM_TILES_TOGETHER = 32, /* rows of weights of one group */
    DM_TILES_MOST_GROUPS = 8
};

/* Whether the machine has the registers: nothing below may be called where not. */
bool dm_tiles(void);
/* Whether a weight can be multiplied so. */
bool dm_tiles_take(const dm_weight *weight);

/* Tiles along `columns` columns. Packed activations [m, columns] are tiles [m / 16 rounded up][units], zeros where the
 * matrix ends, aligned to 64 bytes: */
size_t dm_tiles_units(size_t columns);
size_t dm_tiles_bytes(size_t m, size_t columns);

/* Packs rows of x, ldx floats between them: row i is row rows[i] of x, or i where rows is NULL. Rows of tiles are `units`
 * tiles apart. */
void dm_tiles_pack(void *out, size_t units, const float *x, size_t ldx, const int32_t *rows, size_t m, size_t columns);

/* Bytes of scratch, aligned to 64, of one product. */
size_t dm_tiles_scratch(void);
/* sums [groups][m rounded up to 16][32], aligned to 64 bytes, = packed activations x times `groups` groups of 32 rows of the
 * weight from `row` on, of which those past its end have no meaning, but at least one of each group is there. By the calling
 * thread; m > 0. Several groups share the way of x from memory where it exceeds the second-level cache. */
void dm_tiles_product(float *sums, const void *x, size_t m, const dm_weight *weight, size_t row, size_t groups, void *scratch);
/* Those of one group. */
float *dm_tiles_sums_of(float *sums, size_t m, size_t group);
/* How many groups of a weight's rows to take together, when m rows meet them and `threads` threads share them out. */
size_t dm_tiles_groups(const dm_weight *weight, size_t m, int threads);
/* y [m, n] = sums + bias, or sums where that is NULL, ldy floats between rows of y; n <= 32. */
void dm_tiles_put(float *y, size_t ldy, const float *sums, size_t m, size_t n, const float *bias);
/* Row rows[i] of y += factors[i] times row i of the sums, n <= 32 columns. */
void dm_tiles_add(float *y, size_t ldy, const float *sums, const int32_t *rows, const float *factors, size_t m, size_t n);

#endif
