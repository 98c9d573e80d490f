/*
 * Scales for small groups of weights: the least squares behind every encoder.
 *
 * A group of n weights x (n a multiple of 4, up to 32) with importances w is to
 * become x ~ d q or x ~ d q - m, q from a few levels. For given q the best d (and
 * m) is linear least squares; the best q for given d is rounding. The search
 * tries scales around the one that just holds the largest weight, since giving
 * that one up may serve the others, and alternates the two steps from the best.
 *
 * Vectors are four floats on every machine and sums are taken in one order, so
 * that files do not depend on where they were written.
 */
#ifndef DM_QUANTIZATION_FIT_H
#define DM_QUANTIZATION_FIT_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FIT_INLINE static inline __attribute__((always_inline))

typedef float fit_f4 __attribute__((vector_size(16)));
typedef int32_t fit_i4 __attribute__((vector_size(16)));

FIT_INLINE fit_f4 fit_splat(float x) {
    return (fit_f4){x, x, x, x};
}

FIT_INLINE fit_f4 fit_load(const float *p) {
    fit_f4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

FIT_INLINE float fit_sum(fit_f4 v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}

FIT_INLINE fit_f4 fit_min(fit_f4 a, fit_f4 b) {
#if defined(__SSE2__)
    return (fit_f4)_mm_min_ps((__m128)a, (__m128)b);
#elif defined(__aarch64__)
    return (fit_f4)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
    fit_i4 less = a < b;
    return (fit_f4)((less & (fit_i4)a) | (~less & (fit_i4)b));
#endif
}

FIT_INLINE fit_f4 fit_max(fit_f4 a, fit_f4 b) {
#if defined(__SSE2__)
    return (fit_f4)_mm_max_ps((__m128)a, (__m128)b);
#elif defined(__aarch64__)
    return (fit_f4)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
    return -fit_min(-a, -b);
#endif
}

/* ---- Levels ---- */

/* What q may be: the whole numbers from low to high, or those of IQ4_NL's table. */
typedef struct fit_levels {
    float low, high;
    float extreme;      /* the level that the largest weight is put near */
    const float *table; /* NULL, or [high - low + 1]: the level nearest to low + i */
} fit_levels;

/* The level nearest to each t. Adding 1.5 * 2^23 leaves no bits below 1. */
FIT_INLINE fit_f4 fit_nearest(fit_f4 t, const fit_levels *levels) {
    const fit_f4 magic = fit_splat(12582912.0f);
    fit_f4 q = (fit_min(fit_max(t, fit_splat(levels->low)), fit_splat(levels->high)) + magic) - magic;
    if (levels->table != NULL) {
        for (int k = 0; k < 4; k++) {
            q[k] = levels->table[(int)(q[k] - levels->low)];
        }
    }
    return q;
}

/* 1 / d, or 0 where that would be no number of use. */
FIT_INLINE float fit_inverse(float d) {
    return fabsf(d) > 1e-30f ? 1.0f / d : 0.0f;
}

/* ---- x ~ d q ---- */

typedef struct fit_scale_sums {
    float xq, qq; /* weighted sums of x q and q q */
} fit_scale_sums;

FIT_INLINE fit_scale_sums fit_scale_at(const float *x, const float *w, size_t n, float inverse, const fit_levels *levels) {
    fit_f4 xq = {0}, qq = {0};
    for (size_t i = 0; i < n; i += 4) {
        fit_f4 q = fit_nearest(fit_load(x + i) * inverse, levels);
        fit_f4 wq = fit_load(w + i) * q;
        xq += wq * fit_load(x + i);
        qq += wq * q;
    }
    return (fit_scale_sums){fit_sum(xq), fit_sum(qq)};
}

/* Weighted squared error of x ~ d q with the best q for that d. */
FIT_INLINE float fit_scale_error(const float *x, const float *w, size_t n, float d, const fit_levels *levels) {
    float inverse = fit_inverse(d);
    fit_f4 error = {0};
    for (size_t i = 0; i < n; i += 4) {
        fit_f4 v = fit_load(x + i);
        fit_f4 rest = v - fit_nearest(v * inverse, levels) * d;
        error += fit_load(w + i) * rest * rest;
    }
    return fit_sum(error);
}

/* The weight of largest magnitude, with its sign. */
FIT_INLINE float fit_extreme(const float *x, size_t n) {
    float extreme = 0.0f;
    for (size_t i = 0; i < n; i++) {
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    }
    return extreme;
}

/* The scale with the least weighted squared error; `steps` scales are tried on either side of the one that holds the
 * largest weight, `step` levels apart. *qq is the weighted sum of q q: what an error of the scale costs. */
FIT_INLINE float fit_scale(const float *x, const float *w, size_t n, const fit_levels *levels, int steps, float step, float *qq) {
    float extreme = fit_extreme(x, n);
    float best = 0.0f, best_gain = 0.0f;
    *qq = 0.0f;
    if (fabsf(extreme) < 1e-20f) {
        return 0.0f;
    }
    for (int k = -steps; k <= steps + 2; k++) { /* the last two: from the best so far */
        float inverse = k <= steps ? (levels->extreme + (float)k * step) / extreme : fit_inverse(best);
        fit_scale_sums sums = fit_scale_at(x, w, n, inverse, levels);
        if (sums.xq * sums.xq > best_gain * sums.qq) { /* the error is the sum of w x x less xq xq / qq */
            best_gain = sums.xq * sums.xq / sums.qq;
            best = sums.xq / sums.qq;
            *qq = sums.qq;
        }
    }
    return best;
}

/* ---- x ~ d q - m ---- */

typedef struct fit_affine_sums {
    float q, qq, xq; /* weighted sums of q, q q and x q */
} fit_affine_sums;

/* q is the level nearest to (x + m) / d. */
FIT_INLINE fit_affine_sums fit_affine_at(const float *x, const float *w, size_t n, float inverse, float m,
                                         const fit_levels *levels) {
    fit_f4 sum = {0}, qq = {0}, xq = {0};
    for (size_t i = 0; i < n; i += 4) {
        fit_f4 v = fit_load(x + i);
        fit_f4 q = fit_nearest((v + m) * inverse, levels);
        fit_f4 wq = fit_load(w + i) * q;
        sum += wq;
        qq += wq * q;
        xq += wq * v;
    }
    return (fit_affine_sums){fit_sum(sum), fit_sum(qq), fit_sum(xq)};
}

FIT_INLINE float fit_affine_error(const float *x, const float *w, size_t n, float d, float m, const fit_levels *levels) {
    float inverse = fit_inverse(d);
    fit_f4 error = {0};
    for (size_t i = 0; i < n; i += 4) {
        fit_f4 v = fit_load(x + i);
        fit_f4 rest = v - (fit_nearest((v + m) * inverse, levels) * d - m);
        error += fit_load(w + i) * rest * rest;
    }
    return fit_sum(error);
}

/* Weighted sums of 1 and x. */
FIT_INLINE void fit_totals(const float *x, const float *w, size_t n, float *sum_w, float *sum_x) {
    fit_f4 ones = {0}, xs = {0};
    for (size_t i = 0; i < n; i += 4) {
        ones += fit_load(w + i);
        xs += fit_load(w + i) * fit_load(x + i);
    }
    *sum_w = fit_sum(ones);
    *sum_x = fit_sum(xs);
}

typedef struct fit_affine_result {
    float d, m;  /* d >= 0 */
    float qq, w; /* weighted sums of q q and 1: what errors of d and m cost */
} fit_affine_result;

/* Least squares for given q; m is 0 or more if `negative_m` is false. Returns what the fit takes off the sum of w x x. */
FIT_INLINE float fit_affine_solve(fit_affine_sums s, float sum_w, float sum_x, bool negative_m, float *d, float *m) {
    float determinant = sum_w * s.qq - s.q * s.q;
    *m = 0.0f;
    *d = s.qq > 0.0f ? s.xq / s.qq : 0.0f;
    if (determinant > 1e-6f * sum_w * s.qq) {
        float free_m = (s.q * s.xq - s.qq * sum_x) / determinant;
        if (free_m > 0.0f || negative_m) {
            *m = free_m;
            *d = (sum_w * s.xq - s.q * sum_x) / determinant;
        }
    }
    return *d * s.xq - *m * sum_x;
}

/* levels are 0 .. high. */
FIT_INLINE fit_affine_result fit_affine(const float *x, const float *w, size_t n, const fit_levels *levels, bool negative_m,
                                        int steps, float step) {
    fit_affine_result best = {0};
    float sum_x;
    float least = x[0], most = x[0];
    for (size_t i = 1; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    least = least > 0.0f && !negative_m ? 0.0f : least;
    fit_totals(x, w, n, &best.w, &sum_x);
    best.m = -sum_x / best.w;
    best.m = best.m < 0.0f && !negative_m ? 0.0f : best.m;
    float best_gain = -best.m * sum_x;
    if (most - least < 1e-20f) {
        return best;
    }
    for (int k = -steps; k <= steps + 2; k++) {
        float inverse = k <= steps ? (levels->extreme + (float)k * step) / (most - least) : fit_inverse(best.d);
        float d, m;
        fit_affine_sums sums = fit_affine_at(x, w, n, inverse, k <= steps ? -least : best.m, levels);
        float gain = fit_affine_solve(sums, best.w, sum_x, negative_m, &d, &m);
        if (gain > best_gain && d > 0.0f) {
            best_gain = gain;
            best.d = d;
            best.m = m;
            best.qq = sums.qq;
        }
    }
    return best;
}

#endif
