/* Linear layers over a piece of a prompt on tile registers: in steps for those who make or want tiles themselves, and whole
 * for linear.c. */
#ifndef DM_KERNELS_LINEAR_TILES_H
#define DM_KERNELS_LINEAR_TILES_H

#include "kernels/linear.h"

/* Whether `m` rows meet these weights so: where the machine can and enough rows share what widening the weights costs. */
bool dm_linear_takes_tiles(const dm_linear_product *products, size_t count, size_t m);

/* A thread's own: sums of up to DM_TILES_MOST_GROUPS groups of rows of weights, and what dm_tiles_product() wants. */
typedef struct dm_tiles_room {
    float *sums;
    void *scratch;
} dm_tiles_room;

/* Floats of room for `m` rows and so many threads; a thread's part of it. */
size_t dm_tiles_room_floats(size_t m, int threads);
dm_tiles_room dm_tiles_room_of(float *room, size_t m, int threads, int thread);

/* `packed` = x [m, columns] as tiles, dm_tiles_bytes() of them; ldx floats between rows. */
void dm_linear_tiles_pack(void *packed, const float *x, size_t ldx, size_t m, size_t columns, int threads);
/* As dm_linear(), of packed rows. */
void dm_linear_tiles_packed(const dm_linear_product *products, size_t count, const void *packed, size_t m, float *room,
                            int threads);

/* Both, and the floats of scratch that they want for columns and rows of up to so many; 0 where there are no tiles. */
size_t dm_linear_tiles_scratch(size_t columns, size_t m, int threads);
void dm_linear_tiles(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, float *scratch,
                     int threads);

#endif
