#include "kernels/split_tiles.h"

#include <string.h>

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"

enum { PAIR_BYTES = 2 * TILE_BYTES };

static size_t count(size_t n, size_t side) {
    return (n + side - 1) / side;
}

size_t dm_split_bytes(size_t across, size_t k) {
    return count(across, 2 * SIDE) * 2 * count(k, DEPTH) * PAIR_BYTES;
}

/* ---- Packing ---- */

/* The bfloat16 numbers of `words`, its low ones or its high ones, as floats. */
static inline __m512 low_floats(__m512i words) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(words)), 16);
}

static inline __m512 high_floats(__m512i words) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1)), 16);
}

/* 32 elements rounded, and what that leaves of them. */
static inline void split(__m512 low, __m512 high, __m512i *rounded, __m512i *rest) {
    *rounded = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    *rest = (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(high, high_floats(*rounded)), _mm512_sub_ps(low, low_floats(*rounded)));
}

/* Elements column .. + 31 of rows 0 .. 15, those that are there. */
static inline void split_rows(__m512i rounded[SIDE], __m512i rest[SIDE], const float *x, size_t ld, size_t rows, size_t columns) {
    const __mmask16 low = first_lanes(columns), high = first_lanes(columns > SIDE ? columns - SIDE : 0);
    for (size_t i = 0; i < SIDE; i++) {
        if (i < rows) {
            split(_mm512_maskz_loadu_ps(low, x + i * ld), _mm512_maskz_loadu_ps(high, x + i * ld + SIDE), &rounded[i], &rest[i]);
        } else {
            rounded[i] = rest[i] = _mm512_setzero_si512();
        }
    }
}

/* Tiles of rows, which lie along k; turned over where they are the right operand's columns. */
static inline void pack_rows(uint8_t *out, const float *x, size_t ld, size_t across, size_t k, bool turn) {
    __m512i rounded[SIDE], rest[SIDE];
    for (size_t i = 0; i < count(across, 2 * SIDE) * 2 * SIDE; i += SIDE) {
        for (size_t l = 0; l < k; l += DEPTH, out += PAIR_BYTES) {
            split_rows(rounded, rest, x + i * ld + l, ld, i < across ? across - i : 0, k - l);
            if (turn) {
                transpose_words(rounded);
                transpose_words(rest);
            }
            store_tile(out, rounded);
            store_tile(out + TILE_BYTES, rest);
        }
    }
}

void dm_split_pack_left(void *out, const float *a, size_t lda, size_t m, size_t k) {
    pack_rows(out, a, lda, m, k, false);
}

void dm_split_pack_turned(void *out, const float *b, size_t ldb, size_t n, size_t k) {
    pack_rows(out, b, ldb, n, k, true);
}

void dm_split_pack_right(void *out, const float *b, size_t ldb, size_t k, size_t n) {
    uint8_t *tile = out;
    for (size_t j = 0; j < count(n, 2 * SIDE) * 2 * SIDE; j += SIDE) {
        const __mmask16 mask = first_lanes(j < n ? n - j : 0);
        for (size_t l = 0; l < count(k, DEPTH) * DEPTH; l += DEPTH, tile += PAIR_BYTES) {
            for (size_t i = 0; i < SIDE; i++) {
                const float *at = b + (l + 2 * i) * ldb + j;
                __m512 even = l + 2 * i < k ? _mm512_maskz_loadu_ps(mask, at) : _mm512_setzero_ps();
                __m512 odd = l + 2 * i + 1 < k ? _mm512_maskz_loadu_ps(mask, at + ldb) : _mm512_setzero_ps();
                __m512i rounded, rest;
                split(even, odd, &rounded, &rest);
                _mm512_store_si512(tile + i * 64, weave(rounded));
                _mm512_store_si512(tile + TILE_BYTES + i * 64, weave(rest));
            }
        }
    }
}

/* ---- Multiplying ---- */

/* c [32, 32] = two rows of pairs, step_a bytes apart, by two columns of pairs, step_b bytes apart, over `units` units of k */
static void multiply_pairs(float *c, size_t ldc, const uint8_t *a, size_t step_a, const uint8_t *b, size_t step_b, size_t units) {
    const size_t stride = ldc * sizeof *c;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t u = 0; u < units; u++, a += PAIR_BYTES, b += PAIR_BYTES) {
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + step_a, 64);
        _tile_loadd(6, b + TILE_BYTES, 64); /* the small terms first */
        _tile_loadd(7, b + step_b + TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + step_b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, a + TILE_BYTES, 64);
        _tile_loadd(5, a + step_a + TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, stride);
    _tile_stored(1, c + SIDE, stride);
    _tile_stored(2, c + SIDE * ldc, stride);
    _tile_stored(3, c + SIDE * ldc + SIDE, stride);
}

void dm_split_multiply(float *c, size_t ldc, const void *a, size_t packed_k_a, const void *b, size_t packed_k_b, size_t m,
                       size_t n, size_t k) {
    const size_t step_a = count(packed_k_a, DEPTH) * PAIR_BYTES, step_b = count(packed_k_b, DEPTH) * PAIR_BYTES;
    _tile_loadconfig(&full_tiles);
    for (size_t j = 0; j < n; j += 2 * SIDE) { /* columns outermost: their tiles stay near */
        for (size_t i = 0; i < m; i += 2 * SIDE) {
            multiply_pairs(c + i * ldc + j, ldc, (const uint8_t *)a + i / SIDE * step_a, step_a,
                           (const uint8_t *)b + j / SIDE * step_b, step_b, count(k, DEPTH));
        }
    }
    _tile_release();
}
#else
size_t dm_split_bytes(size_t across, size_t k) {
    (void)across, (void)k;
    return 0;
}

void dm_split_pack_left(void *out, const float *a, size_t lda, size_t m, size_t k) {
    (void)out, (void)a, (void)lda, (void)m, (void)k;
}

void dm_split_pack_turned(void *out, const float *b, size_t ldb, size_t n, size_t k) {
    (void)out, (void)b, (void)ldb, (void)n, (void)k;
}

void dm_split_pack_right(void *out, const float *b, size_t ldb, size_t k, size_t n) {
    (void)out, (void)b, (void)ldb, (void)k, (void)n;
}

void dm_split_multiply(float *c, size_t ldc, const void *a, size_t packed_k_a, const void *b, size_t packed_k_b, size_t m,
                       size_t n, size_t k) {
    (void)c, (void)ldc, (void)a, (void)packed_k_a, (void)b, (void)packed_k_b, (void)m, (void)n, (void)k;
}
#endif
