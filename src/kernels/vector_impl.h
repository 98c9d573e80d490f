/*
 * The row operations, written once with the compiler's vector types. Each
 * instruction set's file defines the width and the few operations that vector
 * types cannot express, then includes this file, which defines the table:
 *
 *   LANES                 4, 8 or 16 floats
 *   DM_TABLE, DM_ISA      name of the table, and of the instruction set
 *   v_fma(a, b, c)        a b + c, rounded once
 *   v_min, v_max(a, b)    b where either is NaN
 *   v_sqrt(a)
 *   v_from_f16(halves)    halves to floats; v_to_f16(a): floats to halves, nearest even
 *   v_load_part(p, k)     optional: the first k < LANES floats at p, then zeros
 *   v_from_i8(p)          optional: LANES signed bytes at p to floats
 *   v_widen(halves)       optional: uint16 to uint32; v_narrow(u): back, of values below 2^16
 *
 * A row is swept in whole vectors and one partial vector at its end, which
 * goes through the same arithmetic with zeros behind it and never touches
 * memory past the row. Sums keep ACCUMULATORS independent partial vectors, so
 * that one addition need not wait for the last.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/vector_tables.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* ---- Loads and stores. k is LANES, known when compiling, on all but a row's last vector. ---- */

ALWAYS_INLINE vf splat(float x) {
    return x - (vf){0};
}

ALWAYS_INLINE vf load(const float *p, size_t k) {
    if (k == LANES) {
        vf v;
        memcpy(&v, p, sizeof v);
        return v;
    }
#ifdef v_load_part
    return v_load_part(p, k);
#else
    vf v = {0};
    memcpy(&v, p, k * sizeof *p);
    return v;
#endif
}

ALWAYS_INLINE void store(float *p, vf v, size_t k) {
    memcpy(p, &v, k * sizeof *p);
}

ALWAYS_INLINE vh load_half(const uint16_t *p, size_t k) {
    vh v = {0};
    memcpy(&v, p, k * sizeof *p);
    return v;
}

ALWAYS_INLINE void store_half(uint16_t *p, vh v, size_t k) {
    memcpy(p, &v, k * sizeof *p);
}

ALWAYS_INLINE vf select_vf(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* v in the first k lanes, `rest` in the others. */
ALWAYS_INLINE vf keep(vf v, size_t k, float rest) {
    if (k == LANES) {
        return v;
    }
    vi lane;
    for (int j = 0; j < LANES; j++) {
        lane[j] = j;
    }
    return select_vf(lane < (int32_t)k, v, splat(rest));
}

/* Runs the statements for every vector of a row of n: at element i, with k elements. */
#define SWEEP(i, k, n, ...)                                                                                                      \
    do {                                                                                                                         \
        size_t i = 0;                                                                                                            \
        for (; i + LANES <= (n); i += LANES) {                                                                                   \
            enum { k = LANES };                                                                                                  \
            __VA_ARGS__                                                                                                          \
        }                                                                                                                        \
        if (i < (n)) {                                                                                                           \
            const size_t k = (n)-i;                                                                                              \
            __VA_ARGS__                                                                                                          \
        }                                                                                                                        \
    } while (0)

/* The same for sums: a is the number, below ACCUMULATORS, of the partial sum to use. Written out, for a compiler keeps an
 * array in registers only when every index is a constant from the start. */
#define ACCUMULATORS 4
#define SUM_STEP_(i, k, a, number, ...)                                                                                          \
    {                                                                                                                            \
        enum { k = LANES, a = number };                                                                                          \
        __VA_ARGS__                                                                                                              \
        i += LANES;                                                                                                              \
    }
#define SWEEP_SUMS(i, k, a, n, ...)                                                                                              \
    do {                                                                                                                         \
        size_t i = 0;                                                                                                            \
        while (i + ACCUMULATORS * LANES <= (n)) {                                                                                \
            SUM_STEP_(i, k, a, 0, __VA_ARGS__)                                                                                   \
            SUM_STEP_(i, k, a, 1, __VA_ARGS__)                                                                                   \
            SUM_STEP_(i, k, a, 2, __VA_ARGS__)                                                                                   \
            SUM_STEP_(i, k, a, 3, __VA_ARGS__)                                                                                   \
        }                                                                                                                        \
        while (i + LANES <= (n)) {                                                                                               \
            SUM_STEP_(i, k, a, 0, __VA_ARGS__)                                                                                   \
        }                                                                                                                        \
        if (i < (n)) {                                                                                                           \
            enum { a = 0 };                                                                                                      \
            const size_t k = (n)-i;                                                                                              \
            __VA_ARGS__                                                                                                          \
        }                                                                                                                        \
    } while (0)

/* ---- Reductions of one vector, always in halves: lane j with lane j + width / 2 ---- */

typedef float v4 __attribute__((vector_size(16)));
#if LANES >= 8
typedef float v8 __attribute__((vector_size(32)));
#endif

ALWAYS_INLINE float horizontal_sum(vf v) {
#if LANES == 16
    v8 upper = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    v8 eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + upper;
#elif LANES == 8
    v8 eight = v;
#endif
#if LANES >= 8
    v4 four = __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
    v4 four = v;
#endif
    v4 two = four + __builtin_shufflevector(four, four, 2, 3, 0, 1);
    return two[0] + two[1];
}

ALWAYS_INLINE float total(const vf *sums) {
    return horizontal_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

ALWAYS_INLINE float horizontal_max(vf v) {
    float most = v[0];
    for (int j = 1; j < LANES; j++) {
        most = v[j] > most ? v[j] : most;
    }
    return most;
}

/* ---- Elementary functions ---- */

/*
 * exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; exp(r) by a polynomial fitted for the least relative
 * error (3e-9 before rounding). n comes from the low bits of a sum with 1.5 * 2^23, already biased to be the exponent field
 * of 2^(n - 1): the polynomial carries the other factor 2, so that results up to the largest float need no special case and
 * larger ones become infinity. Below -86.99 (results under 1.7e-38) that field is 0 and so is the result. NaN stays NaN.
 */
ALWAYS_INLINE vf v_exp(vf x) {
    const float magic = 0x1.8p23f + 126.0f;
    x = v_max(splat(-87.5f), v_min(splat(89.0f), x));
    vf biased = v_fma(x, splat(0x1.715476p+0f), splat(magic));
    vf n = biased - magic;
    vf r = v_fma(n, splat(-0x1.62e4p-1f), x); /* ln 2 in two parts; the product with the first is exact */
    r = v_fma(n, splat(-0x1.7f7d1cp-20f), r);
    vf p = v_fma(r, splat(2 * 0x1.6a2256p-10f), splat(2 * 0x1.123b04p-7f));
    p = v_fma(p, r, splat(2 * 0x1.5558f8p-5f));
    p = v_fma(p, r, splat(2 * 0x1.55549p-3f));
    p = v_fma(p, r, splat(2 * 0x1.fffffcp-2f));
    p = v_fma(v_fma(p, r, splat(2.0f)), r, splat(2.0f));
    return p * (vf)((vi)biased << 23);
}

/* x / (1 + exp(-z)): SiLU for z = x, and the tanh form of GELU for z = 2 u since (1 + tanh u) / 2 = 1 / (1 + exp(-2u)). */
ALWAYS_INLINE vf over_one_plus_exp(vf x, vf minus_z) {
    return x / (v_exp(minus_z) + 1.0f);
}

/* ---- Sums and sweeps ---- */

static float row_dot(const float *a, const float *b, size_t n) {
    vf sums[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, { sums[s] = v_fma(load(a + i, k), load(b + i, k), sums[s]); });
    return total(sums);
}

static float row_sum(const float *x, size_t n) {
    vf sums[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, { sums[s] += load(x + i, k); });
    return total(sums);
}

/* Half vectors, since a double is twice as wide. */
static double row_sum_squares(const float *x, size_t n) {
    typedef float half_vf __attribute__((vector_size(LANES * 2)));
    typedef double vd __attribute__((vector_size(LANES * 4)));
    vd sums[ACCUMULATORS] = {{0}};
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        for (int a = 0; a < ACCUMULATORS; a++) {
            half_vf v;
            memcpy(&v, x + i + a * (LANES / 2), sizeof v);
            vd wide = __builtin_convertvector(v, vd);
            sums[a] += wide * wide;
        }
    }
    vd all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double result = 0;
    for (int j = 0; j < LANES / 2; j++) {
        result += all[j];
    }
    for (; i < n; i++) {
        result += (double)x[i] * x[i];
    }
    return result;
}

static float row_max(const float *x, size_t n) {
    vf most[ACCUMULATORS];
    for (int a = 0; a < ACCUMULATORS; a++) {
        most[a] = splat(-INFINITY);
    }
    SWEEP_SUMS(i, k, s, n, { most[s] = v_max(most[s], keep(load(x + i, k), k, -INFINITY)); });
    return horizontal_max(v_max(v_max(most[0], most[1]), v_max(most[2], most[3])));
}

static void row_axpy(float *y, float a, const float *x, size_t n) {
    vf factor = splat(a);
    SWEEP(i, k, n, { store(y + i, v_fma(factor, load(x + i, k), load(y + i, k)), k); });
}

static void row_scale(float *y, float a, const float *x, size_t n) {
    SWEEP(i, k, n, { store(y + i, a * load(x + i, k), k); });
}

static void row_add(float *y, const float *a, const float *b, size_t n) {
    SWEEP(i, k, n, { store(y + i, load(a + i, k) + load(b + i, k), k); });
}

/* ---- Half precision ---- */

#ifndef v_widen /* one instruction, but compilers make several of the general conversion */
#define v_widen(halves) __builtin_convertvector(halves, vu)
#define v_narrow(u) __builtin_convertvector(u, vh)
#endif

ALWAYS_INLINE vf from_bf16(vh halves) {
    return (vf)(v_widen(halves) << 16);
}

/* Floats with the lower 16 bits rounded away to nearest even; a NaN keeps its upper bits and turns quiet. */
ALWAYS_INLINE vu rounded_to_bf16(vf x) {
    vu bits = (vu)x;
    vu rounded = bits + 0x7fff + (bits >> 16 & 1);
    vi is_nan = x != x;
    return ((vu)is_nan & (bits | 0x400000)) | (~(vu)is_nan & rounded);
}

ALWAYS_INLINE vh to_bf16(vf x) {
    return v_narrow(rounded_to_bf16(x) >> 16);
}

static float row_dot_f16(const uint16_t *w, const float *x, size_t n) {
    vf sums[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, { sums[s] = v_fma(v_from_f16(load_half(w + i, k)), load(x + i, k), sums[s]); });
    return total(sums);
}

static float row_dot_bf16(const uint16_t *w, const float *x, size_t n) {
    vf sums[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, { sums[s] = v_fma(from_bf16(load_half(w + i, k)), load(x + i, k), sums[s]); });
    return total(sums);
}

static void row_f16_to_f32(float *y, const uint16_t *x, size_t n) {
    SWEEP(i, k, n, { store(y + i, v_from_f16(load_half(x + i, k)), k); });
}

static void row_f32_to_f16(uint16_t *y, const float *x, size_t n) {
    SWEEP(i, k, n, { store_half(y + i, v_to_f16(load(x + i, k)), k); });
}

static void row_bf16_to_f32(float *y, const uint16_t *x, size_t n) {
    SWEEP(i, k, n, { store(y + i, from_bf16(load_half(x + i, k)), k); });
}

static void row_f32_to_bf16(uint16_t *y, const float *x, size_t n) {
    SWEEP(i, k, n, { store_half(y + i, to_bf16(load(x + i, k)), k); });
}

static void row_round_bf16(float *y, const float *x, size_t n) {
    SWEEP(i, k, n, { store(y + i, (vf)(rounded_to_bf16(load(x + i, k)) & 0xffff0000u), k); });
}

/* ---- Norms ---- */

static float row_rmsnorm(float *y, const float *x, const float *w, float eps, size_t n) {
    float r = 1.0f / sqrtf(row_dot(x, x, n) / (float)n + eps);
    SWEEP(i, k, n, { store(y + i, load(x + i, k) * r * load(w + i, k), k); });
    return r;
}

/* y_i = x_i r w_i with dr/dx_i = -r^3 x_i / n, so dx_i = r w_i dy_i - x_i r^3 / n * sum_j dy_j w_j x_j. */
static void row_rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, float r, size_t n) {
    vf sums[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, { sums[s] = v_fma(load(dy + i, k) * load(w + i, k), load(x + i, k), sums[s]); });
    vf pull = splat(-total(sums) * r * r * r / (float)n);
    SWEEP(i, k, n, {
        vf xi = load(x + i, k), dyr = load(dy + i, k) * r;
        store(dx + i, load(dx + i, k) + v_fma(dyr, load(w + i, k), pull * xi), k);
        store(dw + i, v_fma(dyr, xi, load(dw + i, k)), k);
    });
}

static void row_layernorm(float *y, float *mean, float *r, const float *x, const float *w, const float *b, float eps, size_t n) {
    float centre = row_sum(x, n) / (float)n;
    vf sums[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, {
        vf off = keep(load(x + i, k) - centre, k, 0.0f);
        sums[s] = v_fma(off, off, sums[s]);
    });
    float inverse = 1.0f / sqrtf(total(sums) / (float)n + eps);
    SWEEP(i, k, n, { store(y + i, v_fma((load(x + i, k) - centre) * inverse, load(w + i, k), load(b + i, k)), k); });
    *mean = centre;
    *r = inverse;
}

/* With h = (x - mean) r and g = dy w: dx = r (g - mean(g) - h mean(g h)). Padding has dy = 0, so g = 0. */
static void row_layernorm_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, float mean,
                                   float r, size_t n) {
    vf sums_g[ACCUMULATORS] = {{0}}, sums_gh[ACCUMULATORS] = {{0}};
    SWEEP_SUMS(i, k, s, n, {
        vf g = load(dy + i, k) * load(w + i, k);
        sums_g[s] += g;
        sums_gh[s] = v_fma(g, (load(x + i, k) - mean) * r, sums_gh[s]);
    });
    vf mean_g = splat(total(sums_g) / (float)n), mean_gh = splat(total(sums_gh) / (float)n);
    SWEEP(i, k, n, {
        vf h = (load(x + i, k) - mean) * r, dyi = load(dy + i, k);
        vf inner = v_fma(-h, mean_gh, v_fma(dyi, load(w + i, k), -mean_g));
        store(dx + i, v_fma(inner, splat(r), load(dx + i, k)), k);
        store(dw + i, v_fma(dyi, h, load(dw + i, k)), k);
        store(db + i, dyi + load(db + i, k), k);
    });
}

/* ---- Exponentials ---- */

static float row_exp_sum(float *x, float factor, float shift, size_t n) {
    vf sum = {0}; /* one is enough: the exponential takes longer than an addition waits */
    SWEEP(i, k, n, {
        vf e = v_exp(v_fma(splat(factor), load(x + i, k), splat(-shift)));
        store(x + i, e, k);
        sum += keep(e, k, 0.0f);
    });
    return horizontal_sum(sum);
}

static float row_softmax(float *x, size_t n) {
    float most = row_max(x, n);
    float sum = row_exp_sum(x, 1.0f, most, n);
    row_scale(x, 1.0f / sum, x, n);
    return most + logf(sum);
}

static void row_swiglu(float *y, const float *gate, const float *up, size_t n) {
    SWEEP(i, k, n, {
        vf x = load(gate + i, k);
        store(y + i, over_one_plus_exp(x, -x) * load(up + i, k), k);
    });
}

/* silu'(x) = s (1 + x (1 - s)) = s + silu(x) (1 - s), s = 1 / (1 + exp(-x)). */
ALWAYS_INLINE void swiglu_gradient(float *dgate, float *dup, float *y, const float *dy, const float *gate, const float *up,
                                   size_t k) {
    vf x = load(gate, k), dyi = load(dy, k), upi = load(up, k);
    vf s = over_one_plus_exp(splat(1.0f), -x);
    vf silu = x * s;
    store(dgate, dyi * upi * v_fma(silu, 1.0f - s, s), k);
    store(dup, dyi * silu, k);
    if (y != NULL) {
        store(y, silu * upi, k);
    }
}

static void row_swiglu_backward(float *dgate, float *dup, float *y, const float *dy, const float *gate, const float *up,
                                size_t n) {
    if (y != NULL) {
        SWEEP(i, k, n, { swiglu_gradient(dgate + i, dup + i, y + i, dy + i, gate + i, up + i, k); });
    } else {
        SWEEP(i, k, n, { swiglu_gradient(dgate + i, dup + i, NULL, dy + i, gate + i, up + i, k); });
    }
}

#define GELU_ROOT 0.7978845608028654f /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715f

/* -2 u, where u = sqrt(2 / pi) (x + 0.044715 x^3) is what GELU takes the tanh of. */
ALWAYS_INLINE vf gelu_inner(vf x) {
    return x * v_fma(x * x, splat(-2.0f * GELU_ROOT * GELU_CUBE), splat(-2.0f * GELU_ROOT));
}

static void row_gelu(float *y, const float *x, size_t n) {
    SWEEP(i, k, n, {
        vf xi = load(x + i, k);
        store(y + i, over_one_plus_exp(xi, gelu_inner(xi)), k);
    });
}

/* With e = exp(-2u) and s = (1 + tanh u) / 2 = 1 / (1 + e): gelu'(x) = s + 2 x s (1 - s) u', in which 1 - s = e s does not
 * cancel. Past |x| = 13 that is 0 or 1 in float32; the limits keep infinities out of the products. */
static void row_gelu_backward(float *dx, const float *dy, const float *x, size_t n) {
    SWEEP(i, k, n, {
        vf xi = v_max(splat(-13.0f), v_min(splat(13.0f), load(x + i, k)));
        vf e = v_min(splat(1e38f), v_exp(gelu_inner(xi)));
        vf s = 1.0f / (e + 1.0f);
        vf slope = v_fma(xi * xi, splat(6.0f * GELU_ROOT * GELU_CUBE), splat(2.0f * GELU_ROOT));
        store(dx + i, load(dy + i, k) * v_fma(xi * s * (e * s), slope, s), k);
    });
}

/* ---- Attention and the optimizer ---- */

static void row_rope(float *x, const float *cosine, const float *sine, float sign, size_t half) {
    SWEEP(i, k, half, {
        vf a = load(x + i, k), b = load(x + half + i, k);
        vf c = load(cosine + i, k), s = load(sine + i, k) * sign;
        store(x + i, v_fma(a, c, -(b * s)), k);
        store(x + half + i, v_fma(b, c, a * s), k);
    });
}

/* Every number beside its pair's other one. */
ALWAYS_INLINE vf swap_pairs(vf v) {
#if LANES == 16
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif LANES == 8
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
    return __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
}

static void row_rope_pairs(float *x, const float *cosine, const float *sine, size_t n) {
    SWEEP(i, k, n, {
        vf v = load(x + i, k);
        store(x + i, v_fma(v, load(cosine + i, k), swap_pairs(v) * load(sine + i, k)), k);
    });
}

static void row_softmax_backward(float *ds, const float *p, const float *dp, float delta, float factor, size_t n) {
    SWEEP(i, k, n, { store(ds + i, load(p + i, k) * factor * (load(dp + i, k) - delta), k); });
}

/* ---- Rows of a cache ---- */

/* LANES of a block's 8-bit numbers. */
#ifdef v_from_i8
#define load_bytes(p) v_from_i8(p)
#else
typedef int8_t vbytes __attribute__((vector_size(LANES)));
typedef int16_t vshorts __attribute__((vector_size(2 * LANES)));

ALWAYS_INLINE vf load_bytes(const uint8_t *p) {
    vbytes v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(__builtin_convertvector(__builtin_convertvector(v, vshorts), vi), vf);
}
#endif

ALWAYS_INLINE vf block_scale(const uint8_t *block) {
    uint16_t bits;
    memcpy(&bits, block, sizeof bits);
    return v_from_f16((vh){0} + bits);
}

typedef enum cached { CACHED_F32, CACHED_F16, CACHED_Q8 } cached;

enum {
    Q8_BLOCK = 32,
    Q8_BYTES = 34,
    ROWS = 4,                   /* whose sums are brought together in one go */
    HEADS = LANES == 8 ? 2 : 4, /* that share a loaded row; 8 lanes come with half as many registers */
    STRIP = 4,                  /* vectors of a sum in registers */
    STRIP_BLOCKS = (STRIP * LANES + Q8_BLOCK - 1) / Q8_BLOCK,
    TILE = 64, /* rows whose scales are widened together */
};

ALWAYS_INLINE size_t cached_bytes(cached kind, size_t width) {
    return kind == CACHED_F32   ? width * sizeof(float)
           : kind == CACHED_F16 ? width * sizeof(uint16_t)
                                : (width + Q8_BLOCK - 1) / Q8_BLOCK * Q8_BYTES;
}

ALWAYS_INLINE const uint8_t *block_of(const uint8_t *row, size_t i) {
    return row + i / Q8_BLOCK * Q8_BYTES;
}

/* Numbers i .. i + k - 1 of a row; 8-bit ones without their scale. */
ALWAYS_INLINE vf load_cached(cached kind, const uint8_t *row, size_t i, size_t k) {
    if (kind == CACHED_F32) {
        return load((const float *)(const void *)row + i, k);
    }
    if (kind == CACHED_F16) {
        return v_from_f16(load_half((const uint16_t *)(const void *)row + i, k));
    }
    return load_bytes(block_of(row, i) + 2 + i % Q8_BLOCK);
}

/* Asks for what lies as far behind rows->ahead as row j behind the first row: a little with every row, for the processor
 * has few requests on their way at once and would wait for a whole tile's. */
ALWAYS_INLINE void ask_ahead(const dm_cached_rows *rows, size_t j, size_t row_bytes) {
    enum { LINE = 64, SECOND_LEVEL = 2 }; /* cache */
    if (rows->ahead != NULL) {
        size_t end = (j + 1) * row_bytes;
        for (size_t at = (j * row_bytes + LINE - 1) / LINE * LINE; at < end; at += LINE) {
            __builtin_prefetch((const uint8_t *)rows->ahead + at, 0, SECOND_LEVEL);
        }
    }
}

/* Lanes i, j of a and k, l of b, of every four lanes. */
#define FOURS_(n, i, j, k, l) (n) + (i), (n) + (j), (n) + (k) + LANES, (n) + (l) + LANES
#if LANES == 16
#define FOURS(a, b, i, j, k, l)                                                                                                  \
    __builtin_shufflevector(a, b, FOURS_(0, i, j, k, l), FOURS_(4, i, j, k, l), FOURS_(8, i, j, k, l), FOURS_(12, i, j, k, l))
#elif LANES == 8
#define FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, FOURS_(0, i, j, k, l), FOURS_(4, i, j, k, l))
#else
#define FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, FOURS_(0, i, j, k, l))
#endif

/* The sums of four vectors, transposed as they are added: a quarter of the work of one after another. */
ALWAYS_INLINE v4 horizontal_sums(const vf v[ROWS]) {
    vf ab = FOURS(v[0], v[1], 0, 1, 0, 1) + FOURS(v[0], v[1], 2, 3, 2, 3);
    vf cd = FOURS(v[2], v[3], 0, 1, 0, 1) + FOURS(v[2], v[3], 2, 3, 2, 3);
    vf all = FOURS(ab, cd, 0, 2, 0, 2) + FOURS(ab, cd, 1, 3, 1, 3);
#if LANES == 16
    v8 eight = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
#elif LANES == 8
    v8 eight = all;
#endif
#if LANES >= 8
    return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
    return all;
#endif
}

/* sums[h][j] += numbers i .. i + k - 1 of rows[j] times those of x[h] */
ALWAYS_INLINE void dot_columns(cached kind, vf sums[HEADS][ROWS], const uint8_t *const rows[ROWS], const vf scales[ROWS],
                               const float *x, size_t ldx, size_t heads, size_t i, size_t k) {
    vf numbers[ROWS];
#pragma GCC unroll 4
    for (int j = 0; j < ROWS; j++) {
        numbers[j] = load_cached(kind, rows[j], i, k);
        numbers[j] = kind == CACHED_Q8 ? numbers[j] * scales[j] : numbers[j];
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        vf xi = load(x + h * ldx + i, k);
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; j++) {
            sums[h][j] = v_fma(numbers[j], xi, sums[h][j]);
        }
    }
}

/* Numbers i .. of one block's width, or the `left` that there are. */
ALWAYS_INLINE void dot_block(cached kind, vf sums[HEADS][ROWS], const uint8_t *const rows[ROWS], const float *x, size_t ldx,
                             size_t heads, size_t i, size_t left) {
    vf scales[ROWS] = {{0}};
    if (kind == CACHED_Q8) {
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; j++) {
            scales[j] = block_scale(block_of(rows[j], i));
        }
    }
    SWEEP(at, k, left, { dot_columns(kind, sums, rows, scales, x, ldx, heads, i + at, k); });
}

/* y[h][0 .. n - 1] = the rows times x[h], n of 1 to ROWS. */
ALWAYS_INLINE void dot_rows(cached kind, float *y, size_t ldy, const uint8_t *const rows[ROWS], size_t n, const float *x,
                            size_t width, size_t heads) {
    vf sums[HEADS][ROWS] = {{{0}}};
    size_t i = 0;
    for (; i + Q8_BLOCK <= width; i += Q8_BLOCK) {
        dot_block(kind, sums, rows, x, width, heads, i, Q8_BLOCK);
    }
    if (i < width) {
        dot_block(kind, sums, rows, x, width, heads, i, width - i);
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        v4 four = horizontal_sums(sums[h]);
        memcpy(y + h * ldy, &four, n * sizeof *y);
    }
}

/* What is left of the rows at the end goes through the same arithmetic with the last row repeated. */
ALWAYS_INLINE void dot_heads(cached kind, float *y, size_t ldy, const dm_cached_rows *rows, const float *x, bool ask,
                             size_t heads) {
    size_t row_bytes = cached_bytes(kind, rows->width);
    for (size_t j = 0; j < rows->n; j += ROWS) {
        const uint8_t *first = (const uint8_t *)rows->data + j * row_bytes;
        size_t last = rows->n - j - 1;
        if (ask) {
            ask_ahead(rows, j / ROWS, ROWS * row_bytes);
        }
        if (last >= ROWS - 1) {
            const uint8_t *four[ROWS] = {first, first + row_bytes, first + 2 * row_bytes, first + 3 * row_bytes};
            dot_rows(kind, y + j, ldy, four, ROWS, x, rows->width, heads);
        } else {
            const uint8_t *end = first + last * row_bytes;
            const uint8_t *four[ROWS] = {first, last > 0 ? first + row_bytes : end, end, end};
            dot_rows(kind, y + j, ldy, four, last + 1, x, rows->width, heads);
        }
    }
}

/* Numbers i .. of the sums, `vectors` of LANES or one of k. The weight of row j for number i's block: at
 * weights[(b * heads + h) * ldw + j], where b counts the strip's blocks of 8-bit numbers and is 0 for other kinds. */
ALWAYS_INLINE void sum_strip(cached kind, float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,
                             size_t from, size_t n, bool ask, size_t heads, size_t i, size_t k, size_t vectors) {
    vf sums[HEADS][STRIP];
    size_t row_bytes = cached_bytes(kind, rows->width);
    const uint8_t *row = (const uint8_t *)rows->data + from * row_bytes;
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
#pragma GCC unroll 4
        for (size_t l = 0; l < vectors; l++) {
            sums[h][l] = load(y + h * ldy + i + l * LANES, k);
        }
    }
    for (size_t j = 0; j < n; j++, row += row_bytes) {
        if (ask) {
            ask_ahead(rows, from + j, row_bytes);
        }
#pragma GCC unroll 4
        for (size_t l = 0; l < vectors; l++) {
            vf numbers = load_cached(kind, row, i + l * LANES, k);
            size_t b = kind == CACHED_Q8 ? l * LANES / Q8_BLOCK : 0;
#pragma GCC unroll 4
            for (size_t h = 0; h < heads; h++) {
                sums[h][l] = v_fma(splat(weights[(b * heads + h) * ldw + j]), numbers, sums[h][l]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
#pragma GCC unroll 4
        for (size_t l = 0; l < vectors; l++) {
            store(y + h * ldy + i + l * LANES, sums[h][l], k);
        }
    }
}

/* out[h][TILE] = the weights of n rows, at most TILE, times the scales of their block at `block` */
ALWAYS_INLINE void fold_scales(float *out, const float *weights, size_t ldw, const uint8_t *block, size_t row_bytes, size_t n,
                               size_t heads) {
    uint16_t halves[TILE];
    float scales[TILE];
    for (size_t j = 0; j < n; j++) {
        memcpy(&halves[j], block + j * row_bytes, sizeof *halves);
    }
    SWEEP(j, k, n, { store(scales + j, v_from_f16(load_half(halves + j, k)), k); });
    for (size_t h = 0; h < heads; h++) {
        SWEEP(j, k, n, { store(out + h * TILE + j, load(weights + h * ldw + j, k) * load(scales + j, k), k); });
    }
}

/* Rows from .. from + TILE - 1. */
ALWAYS_INLINE void sum_tile(cached kind, float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,
                            size_t from, bool ask, size_t heads) {
    float folded[STRIP_BLOCKS * HEADS * TILE];
    size_t width = rows->width, row_bytes = cached_bytes(kind, width), step;
    size_t n = rows->n - from < TILE ? rows->n - from : TILE;
    const uint8_t *row = (const uint8_t *)rows->data + from * row_bytes;
    for (size_t i = 0; i < width; i += step) {
        bool whole = i + STRIP * LANES <= width;
        step = whole ? STRIP * LANES : LANES;
        const float *w = weights;
        size_t ld = ldw;
        if (kind == CACHED_Q8) {
            for (size_t b = 0; b * Q8_BLOCK < step; b++) {
                fold_scales(folded + b * heads * TILE, weights, ldw, block_of(row, i) + b * Q8_BYTES, row_bytes, n, heads);
            }
            w = folded;
            ld = TILE;
        }
        if (whole) {
            sum_strip(kind, y, ldy, w, ld, rows, from, n, ask && i == 0, heads, i, LANES, STRIP);
        } else {
            sum_strip(kind, y, ldy, w, ld, rows, from, n, ask && i == 0, heads, i, width - i < LANES ? width - i : LANES, 1);
        }
    }
}

ALWAYS_INLINE void sum_heads(cached kind, float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,
                             bool ask, size_t heads) {
    for (size_t j = 0; j < rows->n; j += TILE) {
        sum_tile(kind, y, ldy, weights + j, ldw, rows, j, ask, heads);
    }
}

/* f(..., heads) of up to HEADS of those that are left, how many being known when compiling. */
#define BY_HEADS(left, f, ...)                                                                                                   \
    do {                                                                                                                         \
        if ((left) >= HEADS) {                                                                                                   \
            f(__VA_ARGS__, HEADS);                                                                                               \
        } else if ((left) == 1) {                                                                                                \
            f(__VA_ARGS__, 1);                                                                                                   \
        } else if ((left) == 2) {                                                                                                \
            f(__VA_ARGS__, 2);                                                                                                   \
        } else {                                                                                                                 \
            f(__VA_ARGS__, HEADS < 3 ? HEADS : 3);                                                                               \
        }                                                                                                                        \
    } while (0)

#define CACHED_ROWS(type, kind)                                                                                                  \
    static void row_rows_dot_##type(float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads) {            \
        size_t width = rows->width;                                                                                              \
        for (size_t h = 0; h < heads; h += HEADS) {                                                                              \
            BY_HEADS(heads - h, dot_heads, kind, y + h * ldy, ldy, rows, x + h * width, h == 0);                                 \
        }                                                                                                                        \
    }                                                                                                                            \
    static void row_rows_sum_##type(float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,          \
                                    size_t heads) {                                                                              \
        for (size_t h = 0; h < heads; h += HEADS) {                                                                              \
            BY_HEADS(heads - h, sum_heads, kind, y + h * ldy, ldy, weights + h * ldw, ldw, rows, h == 0);                        \
        }                                                                                                                        \
    }

CACHED_ROWS(f32, CACHED_F32)
CACHED_ROWS(f16, CACHED_F16)
CACHED_ROWS(q8, CACHED_Q8)

static void row_adamw(float *w, float *m, float *v, const float *g, const dm_adamw *step, size_t n) {
    const float beta1 = step->beta1, beta2 = step->beta2, eps = step->eps;
    const float root_correction2 = 1.0f / sqrtf(step->correction2), rate = step->lr / step->correction1;
    const float g_scale = step->grad_scale, shrink = 1.0f - step->lr * step->weight_decay;
    SWEEP(i, k, n, {
        vf gi = load(g + i, k) * g_scale;
        vf mi = v_fma(gi, splat(1.0f - beta1), beta1 * load(m + i, k));
        vf vi_ = v_fma(gi * (1.0f - beta2), gi, beta2 * load(v + i, k));
        vf direction = mi / v_fma(v_sqrt(vi_), splat(root_correction2), splat(eps));
        store(m + i, mi, k);
        store(v + i, vi_, k);
        store(w + i, v_fma(direction, splat(-rate), shrink * load(w + i, k)), k);
    });
}

const dm_vector_table DM_TABLE = {
    .isa = DM_ISA,
    .dot = row_dot,
    .sum = row_sum,
    .sum_squares = row_sum_squares,
    .max = row_max,
    .axpy = row_axpy,
    .scale = row_scale,
    .add = row_add,
    .dot_f16 = row_dot_f16,
    .dot_bf16 = row_dot_bf16,
    .f16_to_f32 = row_f16_to_f32,
    .f32_to_f16 = row_f32_to_f16,
    .bf16_to_f32 = row_bf16_to_f32,
    .f32_to_bf16 = row_f32_to_bf16,
    .round_bf16 = row_round_bf16,
    .rmsnorm = row_rmsnorm,
    .rmsnorm_backward = row_rmsnorm_backward,
    .layernorm = row_layernorm,
    .layernorm_backward = row_layernorm_backward,
    .exp_sum = row_exp_sum,
    .softmax = row_softmax,
    .swiglu = row_swiglu,
    .swiglu_backward = row_swiglu_backward,
    .gelu = row_gelu,
    .gelu_backward = row_gelu_backward,
    .rope = row_rope,
    .rope_pairs = row_rope_pairs,
    .softmax_backward = row_softmax_backward,
    .rows_dot_f32 = row_rows_dot_f32,
    .rows_dot_f16 = row_rows_dot_f16,
    .rows_dot_q8 = row_rows_dot_q8,
    .rows_sum_f32 = row_rows_sum_f32,
    .rows_sum_f16 = row_rows_sum_f16,
    .rows_sum_q8 = row_rows_sum_q8,
    .adamw = row_adamw,
};
