/*
 * What products on Intel's tile registers (AMX-BF16) share. A tile of sums is 16 x 16 floats; a tile of the left operand
 * holds 16 rows of 32 bfloat16 elements, one of the right operand 16 lines, each a pair of elements, next to each other
 * along k, of 16 columns. For files compiled with AMX's flags.
 */
#ifndef DM_KERNELS_AMX_TILES_H
#define DM_KERNELS_AMX_TILES_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SIDE = 16,         /* rows and columns of a tile of sums */
    DEPTH = 32,        /* elements of k in a tile */
    TILE_BYTES = 1024, /* of any tile */
};

/* The first n lanes, or all 16. */
static inline __mmask16 first_lanes(size_t n) {
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

/* The low 16 words of 16 bits in turns with the high ones: a line of the right operand from two rows of it. */
static inline __m512i weave(__m512i words) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20,
                                           4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, words);
}

/* The 16 x 16 words of 32 bits in `r` turned over. */
static inline void transpose_words(__m512i r[SIDE]) {
    __m512i s[SIDE];
    for (int i = 0; i < SIDE; i += 2) {
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < SIDE; i += 4) {
        r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        s[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        s[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        s[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        s[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0xdd);
    }
}

static inline void store_tile(uint8_t *tile, const __m512i r[SIDE]) {
    for (int i = 0; i < SIDE; i++) {
        _mm512_store_si512(tile + (size_t)i * 64, r[i]);
    }
}

/* All tiles of full size. Constant: to the compiler, loading it reads but its first bytes. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} full_tiles = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE}};

/* c[32, 32] = (add ? c : 0) + a b over `depth` tiles of k; the second tile row of b follows the first one, that of a comes
 * step_a bytes after it. */
static inline void multiply_32x32(float *c, size_t ldc, const uint8_t *a, size_t step_a, const uint8_t *b, size_t depth,
                                  bool add) {
    size_t stride = ldc * sizeof(float);
    const uint8_t *a2 = a + step_a;
    const uint8_t *b2 = b + depth * TILE_BYTES;
    if (add) {
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + SIDE, stride);
        _tile_loadd(2, c + SIDE * ldc, stride);
        _tile_loadd(3, c + SIDE * ldc + SIDE, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t l = 0; l < depth * TILE_BYTES; l += TILE_BYTES) {
        _tile_loadd(4, a + l, 64);
        _tile_loadd(6, b + l, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b2 + l, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a2 + l, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, stride);
    _tile_stored(1, c + SIDE, stride);
    _tile_stored(2, c + SIDE * ldc, stride);
    _tile_stored(3, c + SIDE * ldc + SIDE, stride);
}

/* The same for c[16, 32]. */
static inline void multiply_16x32(float *c, size_t ldc, const uint8_t *a, size_t step_a, const uint8_t *b, size_t depth,
                                  bool add) {
    (void)step_a;
    size_t stride = ldc * sizeof(float);
    const uint8_t *b2 = b + depth * TILE_BYTES;
    if (add) {
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + SIDE, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (size_t l = 0; l < depth * TILE_BYTES; l += TILE_BYTES) {
        _tile_loadd(4, a + l, 64);
        _tile_loadd(6, b + l, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b2 + l, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, stride);
    _tile_stored(1, c + SIDE, stride);
}

#endif
