/* Encoders of the blocks of 32: one scale, or one scale and one offset. */
#include "kernels/block_layouts.h"
#include "quantization/block_encoders.h"
#include "quantization/fit.h"

enum { N = 32 };

/* ---- x ~ d q ---- */

/* The scale, and q [32] counted from the lowest level. */
FIT_INLINE uint16_t scaled(const float *x, const float *w, const fit_levels levels, int steps, float step, uint8_t *q) {
    float qq;
    uint16_t half = dm_finite_half(fit_scale(x, w, N, &levels, steps, step, &qq));
    float inverse = fit_inverse(dm_f16_value(half));
    for (size_t i = 0; i < N; i += 4) {
        fit_f4 nearest = fit_nearest(fit_load(x + i) * inverse, &levels) - levels.low;
        for (size_t k = 0; k < 4; k++) {
            q[i + k] = (uint8_t)nearest[k];
        }
    }
    return half;
}

static void pack_nibbles(uint8_t nibbles[16], const uint8_t q[N]) {
    for (int i = 0; i < 16; i++) {
        nibbles[i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
    }
}

static void pack_fifth(uint8_t fifth[4], const uint8_t q[N]) {
    memset(fifth, 0, 4);
    for (int i = 0; i < N; i++) {
        fifth[i / 8] |= (uint8_t)((q[i] >> 4) << (i % 8));
    }
}

void dm_encode_q4_0(void *block, const float *x, const float *w) {
    dm_block_q4_0 *out = block;
    uint8_t q[N];
    out->d = scaled(x, w, (fit_levels){-8.0f, 7.0f, -8.0f, NULL}, 6, 0.3f, q);
    pack_nibbles(out->nibbles, q);
}

void dm_encode_q5_0(void *block, const float *x, const float *w) {
    dm_block_q5_0 *out = block;
    uint8_t q[N];
    out->d = scaled(x, w, (fit_levels){-16.0f, 15.0f, -16.0f, NULL}, 6, 0.3f, q);
    pack_nibbles(out->nibbles, q);
    pack_fifth(out->fifth, q);
}

void dm_encode_q8_0(void *block, const float *x, const float *w) {
    dm_block_q8_0 *out = block;
    uint8_t q[N];
    out->d = scaled(x, w, (fit_levels){-127.0f, 127.0f, 127.0f, NULL}, 3, 0.2f, q);
    for (int i = 0; i < N; i++) {
        out->q[i] = (int8_t)(q[i] - 127);
    }
}

/* ---- x ~ d q + m ---- */

FIT_INLINE void affine(const float *x, const float *w, const fit_levels levels, uint16_t *d_half, uint16_t *m_half, uint8_t *q) {
    fit_affine_result fit = fit_affine(x, w, N, &levels, true, 8, 0.3f);
    *d_half = dm_finite_half(fit.d);
    *m_half = dm_finite_half(-fit.m);
    float inverse = fit_inverse(dm_f16_value(*d_half));
    float m = dm_f16_value(*m_half);
    for (size_t i = 0; i < N; i += 4) {
        fit_f4 nearest = fit_nearest((fit_load(x + i) - m) * inverse, &levels);
        for (size_t k = 0; k < 4; k++) {
            q[i + k] = (uint8_t)nearest[k];
        }
    }
}

void dm_encode_q4_1(void *block, const float *x, const float *w) {
    dm_block_q4_1 *out = block;
    uint8_t q[N];
    affine(x, w, (fit_levels){0.0f, 15.0f, 15.0f, NULL}, &out->d, &out->m, q);
    pack_nibbles(out->nibbles, q);
}

void dm_encode_q5_1(void *block, const float *x, const float *w) {
    dm_block_q5_1 *out = block;
    uint8_t q[N];
    affine(x, w, (fit_levels){0.0f, 31.0f, 31.0f, NULL}, &out->d, &out->m, q);
    pack_nibbles(out->nibbles, q);
    pack_fifth(out->fifth, q);
}
