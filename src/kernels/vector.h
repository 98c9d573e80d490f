/*
 * Row operations, one table of them per instruction set, chosen at run time.
 *
 * All arrays are float32 unless named otherwise, need no alignment, and may
 * have any length n >= 0. Pointers marked restrict in spirit: outputs overlap
 * inputs only where "in place" is said. Every entry has one fixed order of
 * summation per table, so a result depends on the table and n alone.
 * "accumulates" means +=.
 */
#ifndef DM_KERNELS_VECTOR_H
#define DM_KERNELS_VECTOR_H

#include <stddef.h>
#include <stdint.h>

typedef struct dm_adamw {
    float lr, beta1, beta2, eps, weight_decay;
    float correction1, correction2; /* 1 - beta^t */
    float grad_scale;               /* multiplies every gradient: clipping, accumulation */
} dm_adamw;

/* Rows of a key and value cache, one after another: float32, float16, or blocks of 32 8-bit numbers as GGUF's Q8_0 has
 * them, the last one filled up with zeros. */
typedef struct dm_cached_rows {
    const void *data;
    size_t n, width;   /* rows, numbers in each */
    const void *ahead; /* as many bytes that are read soon and asked for meanwhile; or NULL */
} dm_cached_rows;

typedef struct dm_vector_table {
    const char *isa; /* "scalar", "avx2", "avx512", "neon" */

    float (*dot)(const float *a, const float *b, size_t n);
    float (*sum)(const float *x, size_t n);
    double (*sum_squares)(const float *x, size_t n);                 /* double accumulation across vectors */
    float (*max)(const float *x, size_t n);                          /* -INFINITY for n = 0 */
    void (*axpy)(float *y, float a, const float *x, size_t n);       /* y += a x */
    void (*scale)(float *y, float a, const float *x, size_t n);      /* y = a x, in place allowed */
    void (*add)(float *y, const float *a, const float *b, size_t n); /* y = a + b, in place allowed */

    /* dot products with half-precision weights: sum of (float)w[i] * x[i] */
    float (*dot_f16)(const uint16_t *w, const float *x, size_t n);
    float (*dot_bf16)(const uint16_t *w, const float *x, size_t n);
    void (*f16_to_f32)(float *y, const uint16_t *x, size_t n);
    void (*f32_to_f16)(uint16_t *y, const float *x, size_t n); /* nearest even; overflow to infinity; NaN stays NaN */
    void (*bf16_to_f32)(float *y, const uint16_t *x, size_t n);
    void (*f32_to_bf16)(uint16_t *y, const float *x, size_t n); /* nearest even; NaN stays NaN */
    void (*round_bf16)(float *y, const float *x, size_t n);     /* y = (float)(bf16)x, in place allowed */

    /* RMSNorm (Zhang and Sennrich 2019): y = x * r * w, r = 1/sqrt(mean x^2 + eps). Returns r. In place allowed. */
    float (*rmsnorm)(float *y, const float *x, const float *w, float eps, size_t n);
    /* dx accumulates; dw accumulates. r as returned by the forward pass. */
    void (*rmsnorm_backward)(float *dx, float *dw, const float *dy, const float *x, const float *w, float r, size_t n);

    /* LayerNorm (Ba et al. 2016): y = (x - mean) * r * w + b. Stores mean and r = 1/sqrt(var + eps). */
    void (*layernorm)(float *y, float *mean, float *r, const float *x, const float *w, const float *b, float eps, size_t n);
    /* dx, dw, db accumulate. */
    void (*layernorm_backward)(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, float mean,
                               float r, size_t n);

    /* x = exp(scale * x - shift) in place, returning the sum. shift is usually the maximum of scale * x, or a stored
     * log-sum-exp. Within 1.2e-7 of the true value; where that is below 1.7e-38 it may become 0. */
    float (*exp_sum)(float *x, float scale, float shift, size_t n);
    /* x = softmax(x) in place; returns log(sum(exp(x))). n >= 1. */
    float (*softmax)(float *x, size_t n);

    /* SwiGLU (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)). */
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);
    /* From dy gives dgate and dup (overwritten; may be dy's own memory for neither) and, unless NULL, y again. */
    void (*swiglu_backward)(float *dgate, float *dup, float *y, const float *dy, const float *gate, const float *up, size_t n);

    /* GELU, tanh form (Hendrycks and Gimpel 2016) as GPT-2 has it. */
    void (*gelu)(float *y, const float *x, size_t n);
    void (*gelu_backward)(float *dx, const float *dy, const float *x, size_t n); /* overwrites dx; dx may be dy */

    /* Rotary embedding, NeoX pairing (x[i], x[i + half]), in place over one head of 2*half:
     * x[i] = x[i] c - x[i+half] s; x[i+half] = x[i+half] c + x[i] s. cosine, sine: [half].
     * Turning back is the same with sine negated: pass sign = -1. */
    void (*rope)(float *x, const float *cosine, const float *sine, float sign, size_t half);
    /* The same with neighbours paired (x[2i], x[2i + 1]), in place, n even: x[i] = x[i] c[i] + x[i ^ 1] s[i]. Cosines
     * [n] stand twice, sines [n] negated for the first of a pair. */
    void (*rope_pairs)(float *x, const float *cosine, const float *sine, size_t n);

    /* Softmax's backward inside attention: ds[i] = p[i] * (dp[i] - delta) * scale. In place on dp allowed. */
    void (*softmax_backward)(float *ds, const float *p, const float *dp, float delta, float scale, size_t n);

    /* y[h][j] = sum over i of rows[j][i] x[h][i], for `heads` x of [width] one after another; ldy floats between the y */
    void (*rows_dot_f32)(float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads);
    void (*rows_dot_f16)(float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads);
    void (*rows_dot_q8)(float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads);
    /* y[h][width] += sum over j of weights[h][j] rows[j]; ldw floats between the weights of two heads */
    void (*rows_sum_f32)(float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows, size_t heads);
    void (*rows_sum_f16)(float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows, size_t heads);
    void (*rows_sum_q8)(float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows, size_t heads);

    /* One AdamW step (Loshchilov and Hutter 2019): g' = grad_scale g; m, v, w in place. */
    void (*adamw)(float *w, float *m, float *v, const float *g, const dm_adamw *step, size_t n);
} dm_vector_table;

/* The best table this machine runs, or the one DILMODELI_ISA names if the
 * machine has it. Chosen once. */
const dm_vector_table *dm_vector(void);

/* All tables this machine can run, best first, for tests. Returns how many. */
size_t dm_vector_tables(const dm_vector_table *tables[4]);

#endif
