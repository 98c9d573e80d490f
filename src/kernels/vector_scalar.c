/*
 * The row operations in plain C: what machines without a faster table run, and
 * the independent reference that every other table is tested against. Sums are
 * kept in double, exponentials are libm's.
 */
#include <math.h>

#include "kernels/half.h"
#include "kernels/vector_tables.h"

/* ---- Sums and sweeps ---- */

static float dot(const float *a, const float *b, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += (double)a[i] * b[i];
    }
    return (float)total;
}

static float sum(const float *x, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += x[i];
    }
    return (float)total;
}

static double sum_squares(const float *x, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += (double)x[i] * x[i];
    }
    return total;
}

static float max(const float *x, size_t n) {
    float most = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

static void axpy(float *y, float a, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] += a * x[i];
    }
}

static void scale(float *y, float a, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = a * x[i];
    }
}

static void add(float *y, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = a[i] + b[i];
    }
}

/* ---- Half precision ---- */

static uint16_t bf16_bits(float x) {
    uint32_t bits = dm_f32_to_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float bf16_value(uint16_t h) {
    return dm_bits_to_f32((uint32_t)h << 16);
}

static float dot_f16(const uint16_t *w, const float *x, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += (double)dm_f16_value(w[i]) * x[i];
    }
    return (float)total;
}

static float dot_bf16(const uint16_t *w, const float *x, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += (double)bf16_value(w[i]) * x[i];
    }
    return (float)total;
}

static void f16_to_f32(float *y, const uint16_t *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = dm_f16_value(x[i]);
    }
}

static void f32_to_f16(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = dm_f16_bits(x[i]);
    }
}

static void bf16_to_f32(float *y, const uint16_t *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = bf16_value(x[i]);
    }
}

static void f32_to_bf16(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = bf16_bits(x[i]);
    }
}

static void round_bf16(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = bf16_value(bf16_bits(x[i]));
    }
}

/* ---- Norms ---- */

static float rmsnorm(float *y, const float *x, const float *w, float eps, size_t n) {
    float r = (float)(1.0 / sqrt(sum_squares(x, n) / (double)n + eps));
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i] * r * w[i];
    }
    return r;
}

/* y_i = x_i r w_i with dr/dx_i = -r^3 x_i / n, so dx_i = r w_i dy_i - x_i r^3 / n * sum_j dy_j w_j x_j. */
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, float r, size_t n) {
    double shared = 0;
    for (size_t i = 0; i < n; i++) {
        shared += (double)dy[i] * w[i] * x[i];
    }
    float pull = (float)(shared * r * r * r / (double)n);
    for (size_t i = 0; i < n; i++) {
        dx[i] += r * w[i] * dy[i] - pull * x[i];
        dw[i] += dy[i] * x[i] * r;
    }
}

static void layernorm(float *y, float *mean, float *r, const float *x, const float *w, const float *b, float eps, size_t n) {
    double total = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        total += x[i];
    }
    double centre = total / (double)n;
    for (size_t i = 0; i < n; i++) {
        squares += (x[i] - centre) * (x[i] - centre);
    }
    *mean = (float)centre;
    *r = (float)(1.0 / sqrt(squares / (double)n + eps));
    for (size_t i = 0; i < n; i++) {
        y[i] = (x[i] - *mean) * *r * w[i] + b[i];
    }
}

/* With h = (x - mean) r and g = dy w: dx = r (g - mean(g) - h mean(g h)). */
static void layernorm_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, float mean,
                               float r, size_t n) {
    double total_g = 0, total_gh = 0;
    for (size_t i = 0; i < n; i++) {
        double g = (double)dy[i] * w[i];
        total_g += g;
        total_gh += g * (x[i] - mean) * r;
    }
    float mean_g = (float)(total_g / (double)n), mean_gh = (float)(total_gh / (double)n);
    for (size_t i = 0; i < n; i++) {
        float h = (x[i] - mean) * r;
        dx[i] += r * (dy[i] * w[i] - mean_g - h * mean_gh);
        dw[i] += dy[i] * h;
        db[i] += dy[i];
    }
}

/* ---- Exponentials ---- */

static float exp_sum(float *x, float factor, float shift, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(fmaf(factor, x[i], -shift));
        total += x[i];
    }
    return (float)total;
}

static float softmax(float *x, size_t n) {
    float most = max(x, n);
    float total = exp_sum(x, 1.0f, most, n);
    scale(x, 1.0f / total, x, n);
    return most + logf(total);
}

static void swiglu(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

/* silu'(x) = s (1 + x (1 - s)), s = 1 / (1 + exp(-x)). */
static void swiglu_backward(float *dgate, float *dup, float *y, const float *dy, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + expf(-gate[i]));
        float silu = gate[i] * s;
        dgate[i] = dy[i] * up[i] * (s + silu * (1.0f - s));
        dup[i] = dy[i] * silu;
        if (y != NULL) {
            y[i] = silu * up[i];
        }
    }
}

#define GELU_ROOT 0.7978845608028654f /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715f

static void gelu(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float u = GELU_ROOT * (x[i] + GELU_CUBE * x[i] * x[i] * x[i]);
        y[i] = 0.5f * x[i] * (1.0f + tanhf(u));
    }
}

/* In double: 1 - tanh^2 cancels. */
static void gelu_backward(float *dx, const float *dy, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double z = x[i];
        double t = tanh((double)GELU_ROOT * (z + (double)GELU_CUBE * z * z * z));
        double du = (double)GELU_ROOT * (1 + 3 * (double)GELU_CUBE * z * z);
        double slope = fabs(t) < 1 ? 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * du : 0.5 * (1 + t);
        dx[i] = (float)(dy[i] * slope);
    }
}

/* ---- Attention and the optimizer ---- */

static void rope(float *x, const float *cosine, const float *sine, float sign, size_t half) {
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], s = sign * sine[i];
        x[i] = a * cosine[i] - b * s;
        x[i + half] = b * cosine[i] + a * s;
    }
}

static void rope_pairs(float *x, const float *cosine, const float *sine, size_t n) {
    for (size_t i = 0; i < n; i += 2) {
        float a = x[i], b = x[i + 1];
        x[i] = a * cosine[i] + b * sine[i];
        x[i + 1] = b * cosine[i + 1] + a * sine[i + 1];
    }
}

static void softmax_backward(float *ds, const float *p, const float *dp, float delta, float factor, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ds[i] = p[i] * (dp[i] - delta) * factor;
    }
}

/* ---- Rows of a cache ---- */

enum { Q8_BLOCK = 32, Q8_BYTES = 34 };

/* Number i of row j. */
static float cached_f32(const void *rows, size_t j, size_t i, size_t width) {
    return ((const float *)rows)[j * width + i];
}

static float cached_f16(const void *rows, size_t j, size_t i, size_t width) {
    return dm_f16_value(((const uint16_t *)rows)[j * width + i]);
}

static float cached_q8(const void *rows, size_t j, size_t i, size_t width) {
    size_t blocks = (width + Q8_BLOCK - 1) / Q8_BLOCK;
    const uint8_t *block = (const uint8_t *)rows + (j * blocks + i / Q8_BLOCK) * Q8_BYTES;
    uint16_t scale;
    memcpy(&scale, block, sizeof scale);
    return dm_f16_value(scale) * (float)(int8_t)block[2 + i % Q8_BLOCK];
}

#define CACHED_ROWS(type)                                                                                                        \
    static void rows_dot_##type(float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads) {                \
        for (size_t at = 0; at < heads * rows->n; at++) {                                                                        \
            size_t h = at / rows->n, j = at % rows->n;                                                                           \
            float dot = 0.0f;                                                                                                    \
            for (size_t i = 0; i < rows->width; i++) {                                                                           \
                dot += cached_##type(rows->data, j, i, rows->width) * x[h * rows->width + i];                                    \
            }                                                                                                                    \
            y[h * ldy + j] = dot;                                                                                                \
        }                                                                                                                        \
    }                                                                                                                            \
    static void rows_sum_##type(float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,              \
                                size_t heads) {                                                                                  \
        for (size_t at = 0; at < heads * rows->n; at++) {                                                                        \
            size_t h = at / rows->n, j = at % rows->n;                                                                           \
            for (size_t i = 0; i < rows->width; i++) {                                                                           \
                y[h * ldy + i] += weights[h * ldw + j] * cached_##type(rows->data, j, i, rows->width);                           \
            }                                                                                                                    \
        }                                                                                                                        \
    }

CACHED_ROWS(f32)
CACHED_ROWS(f16)
CACHED_ROWS(q8)

static void adamw(float *w, float *m, float *v, const float *g, const dm_adamw *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float gradient = step->grad_scale * g[i];
        m[i] = step->beta1 * m[i] + (1.0f - step->beta1) * gradient;
        v[i] = step->beta2 * v[i] + (1.0f - step->beta2) * gradient * gradient;
        float direction = m[i] / step->correction1 / (sqrtf(v[i] / step->correction2) + step->eps);
        w[i] -= step->lr * (direction + step->weight_decay * w[i]);
    }
}

const dm_vector_table dm_vector_scalar = {
    .isa = "scalar",
    .dot = dot,
    .sum = sum,
    .sum_squares = sum_squares,
    .max = max,
    .axpy = axpy,
    .scale = scale,
    .add = add,
    .dot_f16 = dot_f16,
    .dot_bf16 = dot_bf16,
    .f16_to_f32 = f16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_bf16 = f32_to_bf16,
    .round_bf16 = round_bf16,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward = rmsnorm_backward,
    .layernorm = layernorm,
    .layernorm_backward = layernorm_backward,
    .exp_sum = exp_sum,
    .softmax = softmax,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .rope = rope,
    .rope_pairs = rope_pairs,
    .softmax_backward = softmax_backward,
    .rows_dot_f32 = rows_dot_f32,
    .rows_dot_f16 = rows_dot_f16,
    .rows_dot_q8 = rows_dot_q8,
    .rows_sum_f32 = rows_sum_f32,
    .rows_sum_f16 = rows_sum_f16,
    .rows_sum_q8 = rows_sum_q8,
    .adamw = adamw,
};
