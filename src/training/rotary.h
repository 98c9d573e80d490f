/* What qwen3 does to each head of queries and keys before attention: RMSNorm over the head, then rotary embedding. */
#ifndef DM_TRAINING_ROTARY_H
#define DM_TRAINING_ROTARY_H

#include "base/status.h"
#include "training/layers.h"

/* Cosines and sines of all positions; angle = position * base^(-2i / head_dim) (Su et al. 2021). */
typedef struct dm_rotary {
    float *cosine, *sine; /* [length, half] */
    size_t half;          /* head_dim / 2 */
    size_t length;
} dm_rotary;

dm_status dm_rotary_create(size_t length, size_t head_dim, double base, dm_rotary *out);
void dm_rotary_free(dm_rotary *rotary);

/* n_heads heads side by side in each of n rows; row i is position i % length. */
typedef struct dm_heads {
    const dm_rotary *rotary;
    const float *weight; /* [head_dim] of the norm */
    float eps;
    size_t n_heads;
} dm_heads;

/* y = rotate(rmsnorm(x)) head by head; inverse[n, n_heads] is kept for the way back. */
void dm_heads_forward(const dm_heads *heads, dm_rows y, float *inverse, dm_rows x, size_t n);
/* dy is turned back in place; dx is overwritten; dweight accumulates. */
void dm_heads_backward(const dm_heads *heads, dm_rows dx, float *dweight, dm_rows dy, dm_rows x, const float *inverse, size_t n,
                       dm_partials *partials);

#endif
