/*
 * Products in bfloat16 on Intel's tile registers (AMX-BF16), operands given in
 * float32: rounding and packing are one pass. Row-major; ld* in floats. The
 * caller has made sure that the machine can do it.
 */
#ifndef DM_KERNELS_MATMUL_AMX_H
#define DM_KERNELS_MATMUL_AMX_H

#include <stdbool.h>
#include <stddef.h>

/* c[m, n] (+)= op(a) op(b) with op(a) [m, k], op(b) [k, n]; a_turned: a is stored [k, m]; b_turned: b is stored [n, k]. */
typedef struct dm_amx_product {
    bool a_turned, b_turned, accumulate;
    size_t m, n, k;
    const float *a, *b;
    float *c;
    size_t lda, ldb, ldc;
} dm_amx_product;

/* Bytes of scratch, aligned to 64, that a product wants. */
size_t dm_amx_scratch(void);

/* The product, by the calling thread alone; k > 0. An element's sum is taken in the same order wherever the element lies. */
void dm_amx_multiply(const dm_amx_product *product, void *scratch);

#endif
