#include "quantization/encode.h"

#include <float.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/vector.h"
#include "quantization/block_encoders.h"

/* Far above what any type can hold (65504 * 127 * 128), and its square sums without overflow. */
#define LARGEST 1e9f
/* Of the largest importance in a block: a weight that does not count is still written near its value. */
#define LEAST_IMPORTANCE 1e-8f

typedef struct encoder {
    dm_encode_fn encode;
    bool favours_large; /* see favour_large() */
} encoder;

static const encoder encoders[DM_TYPES] = {
    [DM_TYPE_Q4_0] = {dm_encode_q4_0, false},     [DM_TYPE_Q4_1] = {dm_encode_q4_1, false},
    [DM_TYPE_Q5_0] = {dm_encode_q5_0, false},     [DM_TYPE_Q5_1] = {dm_encode_q5_1, false},
    [DM_TYPE_Q8_0] = {dm_encode_q8_0, false},     [DM_TYPE_Q2_K] = {dm_encode_q2_k, true},
    [DM_TYPE_Q3_K] = {dm_encode_q3_k, true},      [DM_TYPE_Q4_K] = {dm_encode_q4_k, false},
    [DM_TYPE_Q5_K] = {dm_encode_q5_k, false},     [DM_TYPE_Q6_K] = {dm_encode_q6_k, false},
    [DM_TYPE_IQ4_NL] = {dm_encode_iq4_nl, false}, [DM_TYPE_IQ4_XS] = {dm_encode_iq4_xs, false},
};

static void copy_finite(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i] == x[i] ? x[i] : 0.0f;
        v = v < LARGEST ? v : LARGEST;
        y[i] = v > -LARGEST ? v : -LARGEST;
    }
}

/* w [n] over their largest, at least LEAST_IMPORTANCE; all 1 where nothing counts. */
static void scale_to_largest(float *w, size_t n) {
    float most = 0.0f;
    for (size_t i = 0; i < n; i++) {
        most = w[i] > most ? w[i] : most;
    }
    for (size_t i = 0; i < n; i++) {
        float share = most > 0.0f ? w[i] / most : 1.0f;
        w[i] = share > LEAST_IMPORTANCE ? share : LEAST_IMPORTANCE;
    }
}

static void take_importance(float *w, const float *importance, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool counts = importance != NULL && importance[i] > 0.0f && importance[i] <= FLT_MAX;
        w[i] = counts ? importance[i] : 0.0f;
    }
    scale_to_largest(w, n);
}

/* With 3 bits and fewer the least squares of a group shrink its large weights so much that the model suffers: an error of
 * theirs counts up to a few times as much. Measured on a trained mixture of experts, KL to its f16 weights: 0.0203 instead
 * of 0.0224 (Q2_K), 0.0052 instead of 0.0055 (Q3_K_M); Q4_K_M lost 2% by it. */
static void favour_large(float *w, const float *x, size_t n) {
    float squares = 0.0f;
    for (size_t i = 0; i < n; i++) {
        squares += x[i] * x[i];
    }
    float typical = sqrtf(squares / (float)n);
    for (size_t i = 0; i < n; i++) {
        w[i] *= typical + fabsf(x[i]);
    }
    scale_to_largest(w, n);
}

static void encode_blocks(dm_type type, uint8_t *out, const float *x, const float *importance, size_t n) {
    uint32_t block = 1, bytes = 0;
    dm_type_block((uint32_t)type, &block, &bytes);
    for (size_t i = 0; i < n; i += block, out += bytes) {
        float finite[DM_MAX_BLOCK], w[DM_MAX_BLOCK];
        copy_finite(finite, x + i, block);
        take_importance(w, importance != NULL ? importance + i : NULL, block);
        if (encoders[type].favours_large) {
            favour_large(w, finite, block);
        }
        encoders[type].encode(out, finite, w);
    }
}

dm_status dm_encode(dm_type type, void *out, const float *x, const float *importance, size_t n) {
    uint32_t block = 1, bytes = 0;
    if (dm_type_decoder((uint32_t)type) == NULL || !dm_type_block((uint32_t)type, &block, &bytes)) {
        return dm_fail(DM_ERR_ARGUMENT, "weights cannot be written as type number %d, expected one of %s", (int)type,
                       dm_type_names());
    }
    if (n % block != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu weights are not whole blocks of %u (%s)", n, (unsigned)block,
                       dm_type_name((uint32_t)type));
    }
    switch (type) {
    case DM_TYPE_F32:
        memcpy(out, x, n * sizeof *x);
        break;
    case DM_TYPE_F16:
        dm_vector()->f32_to_f16(out, x, n);
        break;
    case DM_TYPE_BF16:
        dm_vector()->f32_to_bf16(out, x, n);
        break;
    default:
        encode_blocks(type, out, x, importance, n);
    }
    return DM_OK;
}

enum { CHUNK = 16 * DM_MAX_BLOCK }; /* weights that a thread takes at a time */

/* Elements of one chunk, row by row, as the importance starts again with each. */
static dm_status encode_chunk(dm_type type, uint8_t *out, const float *x, const float *importance, size_t columns, uint64_t first,
                              size_t n) {
    for (size_t done = 0; done < n;) {
        size_t column = (size_t)((first + done) % columns);
        size_t m = n - done < columns - column ? n - done : columns - column;
        DM_TRY(dm_encode(type, out + dm_type_bytes(type, done), x + done, importance != NULL ? importance + column : NULL, m));
        done += m;
    }
    return DM_OK;
}

dm_status dm_encode_part(dm_type type, void *out, const float *x, const float *importance, size_t columns, uint64_t first,
                         size_t n) {
    dm_failure failure = {DM_OK, ""};
    int64_t chunks = (int64_t)(n / CHUNK + (n % CHUNK != 0));
#pragma omp parallel for schedule(dynamic, 1) if (chunks > 1)
    for (int64_t c = 0; c < chunks; c++) {
        size_t from = (size_t)c * CHUNK;
        size_t m = n - from < CHUNK ? n - from : CHUNK;
        dm_failure_note(&failure, encode_chunk(type, (uint8_t *)out + dm_type_bytes(type, from), x + from, importance, columns,
                                               first + from, m));
    }
    return dm_failure_raise(&failure);
}
