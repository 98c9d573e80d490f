/*
 * Products nearly as exact as float32's on tile registers (AMX-BF16): each operand is the sum of two bfloat16 numbers, its
 * value rounded and what that leaves, and three of their four products are taken (Henry, Tang and Heinecke 2019). The
 * relative error of a product is about 2^-16. Only where dm_tiles() says so.
 *
 * Packed operands are pairs of tiles [rows or columns / 16 rounded up][k / 32 rounded up][rounded, rest], zeros where the
 * matrix ends, aligned to 64 bytes.
 */
#ifndef DM_KERNELS_SPLIT_TILES_H
#define DM_KERNELS_SPLIT_TILES_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a packed operand of `across` rows or columns of the result. */
size_t dm_split_bytes(size_t across, size_t k);

/* a [m, k], ldx floats between rows. */
void dm_split_pack_left(void *out, const float *a, size_t lda, size_t m, size_t k);
/* b [k, n] that lies turned, as rows [n, k]; or as rows [k, n]. */
void dm_split_pack_turned(void *out, const float *b, size_t ldb, size_t n, size_t k);
void dm_split_pack_right(void *out, const float *b, size_t ldb, size_t k, size_t n);

/* c [m, n], both rounded up to 32, ldc floats between rows, = a b over the first k along which they were packed, of packed_k_a
 * and packed_k_b. */
void dm_split_multiply(float *c, size_t ldc, const void *a, size_t packed_k_a, const void *b, size_t packed_k_b, size_t m,
                       size_t n, size_t k);

#endif
