/* Linear layers over a piece of a prompt on tile registers; for linear.c. */
#ifndef DM_KERNELS_LINEAR_TILES_H
#define DM_KERNELS_LINEAR_TILES_H

#include "kernels/linear.h"

/* Whether `m` rows meet these weights so: where the machine can and enough rows share what widening the weights costs. */
bool dm_linear_takes_tiles(const dm_linear_product *products, size_t count, size_t m);
/* Floats of scratch, for columns and rows of up to so many; 0 where there are no tiles. */
size_t dm_linear_tiles_scratch(size_t columns, size_t m, int threads);
/* As dm_linear(). */
void dm_linear_tiles(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, float *scratch,
                     int threads);

#endif
