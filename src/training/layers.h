/*
 * The small layers, a forward and a backward pass beside each other, over n rows on all threads. Gradients of
 * weights accumulate (+=); partial sums are added in thread order, so results are the same for the same number of threads.
 */
#ifndef DM_TRAINING_LAYERS_H
#define DM_TRAINING_LAYERS_H

#include <stdint.h>

#include "base/status.h"
#include "training/rows.h"

/* Partial sums of weight gradients, one row a thread. */
typedef struct dm_partials {
    float *data; /* [threads][width] */
    size_t width;
    int threads;
} dm_partials;

/* Room for sums of up to `width` floats. */
dm_status dm_partials_create(size_t width, dm_partials *out);
void dm_partials_free(dm_partials *partials);
/* Zeroes `n` columns of each thread's row, before a pass. */
void dm_partials_clear(dm_partials *partials, size_t n);
/* The calling thread's row. */
float *dm_partials_mine(const dm_partials *partials);
/* into[n] += the rows' columns [first, first + n), thread by thread. */
void dm_partials_add(const dm_partials *partials, size_t first, size_t n, float *into);

/* y[n, dim] = table[ids[i]] (+ positions[i % context] unless NULL). */
void dm_embedding_forward(dm_rows y, const float *table, const float *positions, const int32_t *ids, size_t n, size_t context,
                          size_t dim);
/* dtable[ids[i]] += dy[i]; dpositions[i % context] += dy[i] unless NULL. */
void dm_embedding_backward(float *dtable, float *dpositions, dm_rows dy, const int32_t *ids, size_t n, size_t context,
                           size_t dim);

/* A norm over rows: RMSNorm where bias is NULL, else LayerNorm. `mean` and `inverse` [n] are kept for the way back
 * (mean may be NULL for RMSNorm). */
typedef struct dm_norm {
    const float *weight; /* [dim] */
    const float *bias;   /* [dim] or NULL */
    float eps;
    size_t dim;
} dm_norm;

void dm_norm_forward(const dm_norm *norm, dm_rows y, float *mean, float *inverse, dm_rows x, size_t n);
/* dx accumulates. */
void dm_norm_backward(const dm_norm *norm, dm_rows dx, float *dweight, float *dbias, dm_rows dy, dm_rows x, const float *mean,
                      const float *inverse, size_t n, dm_partials *partials);

/* y[n, dim] += bias[dim] in every row; dbias += the sum of dy's rows. */
void dm_bias_forward(dm_rows y, const float *bias, size_t n, size_t dim);
void dm_bias_backward(float *dbias, dm_rows dy, size_t n, size_t dim, dm_partials *partials);

/* y = gelu(x) row by row; dx = dy * gelu'(x), dx may be dy. */
void dm_gelu_forward(dm_rows y, dm_rows x, size_t n, size_t dim);
void dm_gelu_backward(dm_rows dx, dm_rows dy, dm_rows x, size_t n, size_t dim);

/* y = a + b, y may be a or b. */
void dm_add_rows(dm_rows y, dm_rows a, dm_rows b, size_t n, size_t dim);
void dm_copy_rows(dm_rows y, dm_rows x, size_t n, size_t dim);
void dm_zero_rows(dm_rows y, size_t n, size_t dim);

#endif
