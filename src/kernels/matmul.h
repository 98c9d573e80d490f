/*
 * Big matrix products on float32 operands through oneDNN, in float32 or in
 * bfloat16 with float32 sums. Row-major everywhere; ld* are the distances
 * between rows in floats.
 */
#ifndef DM_KERNELS_MATMUL_H
#define DM_KERNELS_MATMUL_H

#include "base/status.h"

typedef enum dm_precision {
    DM_PRECISION_F32,
    DM_PRECISION_BF16, /* operands rounded to bfloat16; emulated in float32 where the machine lacks it */
} dm_precision;

/* The three products of a linear layer y = x W^T, W [n, k], x [m, k], y [m, n].
 * `accumulate` adds to the result instead of overwriting it. m may be 0. Called from
 * inside a parallel region they use the calling thread alone, else all threads;
 * either way the result is the same for the same number of threads. */

/* y[m, n] = x[m, k] w[n, k]^T */
dm_status dm_matmul_forward(dm_precision precision, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                            size_t m, size_t n, size_t k, bool accumulate);
/* dx[m, k] = dy[m, n] w[n, k] */
dm_status dm_matmul_input_gradient(dm_precision precision, float *dx, size_t lddx, const float *dy, size_t lddy, const float *w,
                                   size_t ldw, size_t m, size_t n, size_t k, bool accumulate);
/* dw[n, k] = dy[m, n]^T x[m, k] */
dm_status dm_matmul_weight_gradient(dm_precision precision, float *dw, size_t lddw, const float *dy, size_t lddy, const float *x,
                                    size_t ldx, size_t m, size_t n, size_t k, bool accumulate);

/* The distance between rows of n floats that keeps a column's elements in different cache sets: use it for matrices that
 * products read along columns. Measured: weight gradients run at half speed with rows 8,192 floats apart. */
size_t dm_matmul_stride(size_t n);

/* True where bfloat16 products run on the machine's own bfloat16 arithmetic. */
bool dm_matmul_bf16_native(void);

#endif
