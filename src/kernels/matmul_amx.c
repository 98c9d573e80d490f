/*
 * Both operands are rounded to bfloat16 and packed into tiles. Four tiles of sums are then kept in registers while k runs.
 * The packed panels stay in the second-level cache.
 */
#include "kernels/matmul_amx.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"

enum {
    BLOCK_M = 256,
    BLOCK_N = 512,
    BLOCK_K = 512,
    A_BYTES = BLOCK_M * BLOCK_K * 2,
    B_BYTES = BLOCK_N * BLOCK_K * 2,
};

size_t dm_amx_scratch(void) {
    return (size_t)A_BYTES + (size_t)B_BYTES;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t tiles(size_t n, size_t side) {
    return (n + side - 1) / side;
}

/* ---- Packing ---- */

/* Register i = up to 32 elements of row i, rounded; zeros where the matrix ends. */
static inline void load_rows(__m512i out[SIDE], const float *x, size_t ld, size_t rows, size_t columns) {
    __mmask16 low = first_lanes(columns), high = first_lanes(columns > 16 ? columns - 16 : 0);
    for (size_t i = 0; i < SIDE; i++) {
        __m512 left = i < rows ? _mm512_maskz_loadu_ps(low, x + i * ld) : _mm512_setzero_ps();
        __m512 right = i < rows ? _mm512_maskz_loadu_ps(high, x + i * ld + 16) : _mm512_setzero_ps();
        out[i] = (__m512i)_mm512_cvtne2ps_pbh(right, left);
    }
}

/* Register i = for up to 16 columns the pair of elements of rows 2 i and 2 i + 1, rounded. */
static inline void load_pairs(__m512i out[SIDE], const float *x, size_t ld, size_t rows, size_t columns) {
    __mmask16 mask = first_lanes(columns);
    for (size_t i = 0; i < SIDE; i++) {
        __m512 even = 2 * i < rows ? _mm512_maskz_loadu_ps(mask, x + 2 * i * ld) : _mm512_setzero_ps();
        __m512 odd = 2 * i + 1 < rows ? _mm512_maskz_loadu_ps(mask, x + (2 * i + 1) * ld) : _mm512_setzero_ps();
        out[i] = weave((__m512i)_mm512_cvtne2ps_pbh(odd, even));
    }
}

/* One of the operands: `across` counts rows of the result for a, columns for b. */
typedef struct operand {
    const float *data;
    size_t ld;
    bool along_k; /* consecutive in memory: elements along k, else elements across */
    bool paired;  /* tiles as those of b */
} operand;

/* Tiles [across][k] of the part that begins at (`at`, `l`); tile rows past `across` are filled with zeros up to `padded`. */
static void pack(uint8_t *out, const operand *x, size_t at, size_t across, size_t padded, size_t l, size_t depth) {
    __m512i r[SIDE];
    for (size_t i = 0; i < padded; i++) {
        size_t wide = i * SIDE < across ? smaller(across - i * SIDE, SIDE) : 0;
        for (size_t t = 0; t < depth; t += DEPTH, out += TILE_BYTES) {
            size_t deep = smaller(depth - t, DEPTH);
            size_t side = at + i * SIDE;
            if (x->along_k) {
                load_rows(r, x->data + side * x->ld + l + t, x->ld, wide, deep);
            } else {
                load_pairs(r, x->data + (l + t) * x->ld + side, x->ld, deep, wide);
            }
            if (x->along_k == x->paired) {
                transpose_words(r);
            }
            store_tile(out, r);
        }
    }
}

/* ---- Multiplying ---- */

/* Up to 32 x 32 elements of c; those at its edge go through a full block of their own. */
static void multiply_block(float *c, size_t ldc, size_t m, size_t n, const uint8_t *a, const uint8_t *b, size_t depth, bool add) {
    void (*multiply)(float *, size_t, const uint8_t *, size_t, const uint8_t *, size_t, bool) =
        m > SIDE ? multiply_32x32 : multiply_16x32;
    if (m % SIDE == 0 && n == 2 * SIDE) {
        multiply(c, ldc, a, depth * TILE_BYTES, b, depth, add);
        return;
    }
    float edge[2 * SIDE * 2 * SIDE];
    for (size_t i = 0; i < m && add; i++) {
        memcpy(edge + i * 2 * SIDE, c + i * ldc, n * sizeof *c);
    }
    multiply(edge, 2 * SIDE, a, depth * TILE_BYTES, b, depth, add);
    for (size_t i = 0; i < m; i++) {
        memcpy(c + i * ldc, edge + i * 2 * SIDE, n * sizeof *c);
    }
}

/* A packed block of a [m, k] by a packed block of b [k, n]. */
static void multiply_panels(float *c, size_t ldc, size_t m, size_t n, const uint8_t *a, const uint8_t *b, size_t depth,
                            bool add) {
    for (size_t i = 0; i < m; i += 2 * SIDE) {
        for (size_t j = 0; j < n; j += 2 * SIDE) {
            multiply_block(c + i * ldc + j, ldc, smaller(m - i, 2 * SIDE), smaller(n - j, 2 * SIDE),
                           a + i / SIDE * depth * TILE_BYTES, b + j / SIDE * depth * TILE_BYTES, depth, add);
        }
    }
}

void dm_amx_multiply(const dm_amx_product *p, void *scratch) {
    uint8_t *packed_a = scratch;
    uint8_t *packed_b = packed_a + A_BYTES;
    const operand a = {p->a, p->lda, !p->a_turned, false};
    const operand b = {p->b, p->ldb, p->b_turned, true};
    _tile_loadconfig(&full_tiles);
    for (size_t l = 0; l < p->k; l += BLOCK_K) {
        size_t k = smaller(p->k - l, BLOCK_K);
        for (size_t j = 0; j < p->n; j += BLOCK_N) {
            size_t n = smaller(p->n - j, BLOCK_N);
            pack(packed_b, &b, j, n, tiles(n, 2 * SIDE) * 2, l, k);
            for (size_t i = 0; i < p->m; i += BLOCK_M) {
                size_t m = smaller(p->m - i, BLOCK_M);
                pack(packed_a, &a, i, m, tiles(m, SIDE), l, k);
                multiply_panels(p->c + i * p->ldc + j, p->ldc, m, n, packed_a, packed_b, tiles(k, DEPTH), p->accumulate || l > 0);
            }
        }
    }
    _tile_release();
}
#else
size_t dm_amx_scratch(void) {
    return 0;
}

void dm_amx_multiply(const dm_amx_product *product, void *scratch) {
    (void)product;
    (void)scratch;
}
#endif
