#include "quantization/encode.h"

#include <string.h>

#include "base/threads.h"
#include "kernels/vector.h"
#include "quantization/block_encoders.h"
#include "quantization/error_weights.h"

typedef struct encoder {
    dm_encode_fn encode;
    bool favours_large; /* see dm_error_weights() */
} encoder;

static const encoder encoders[DM_TYPES] = {
    [DM_TYPE_Q4_0] = {dm_encode_q4_0, false},     [DM_TYPE_Q4_1] = {dm_encode_q4_1, false},
    [DM_TYPE_Q5_0] = {dm_encode_q5_0, false},     [DM_TYPE_Q5_1] = {dm_encode_q5_1, false},
    [DM_TYPE_Q8_0] = {dm_encode_q8_0, false},     [DM_TYPE_Q2_K] = {dm_encode_q2_k, true},
    [DM_TYPE_Q3_K] = {dm_encode_q3_k, true},      [DM_TYPE_Q4_K] = {dm_encode_q4_k, false},
    [DM_TYPE_Q5_K] = {dm_encode_q5_k, false},     [DM_TYPE_Q6_K] = {dm_encode_q6_k, false},
    [DM_TYPE_IQ4_NL] = {dm_encode_iq4_nl, false}, [DM_TYPE_IQ4_XS] = {dm_encode_iq4_xs, false},
};

static void encode_blocks(dm_type type, uint8_t *out, const float *x, const float *importance, size_t n) {
    uint32_t block = 1, bytes = 0;
    dm_type_block((uint32_t)type, &block, &bytes);
    for (size_t i = 0; i < n; i += block, out += bytes) {
        float finite[DM_MAX_BLOCK], w[DM_MAX_BLOCK];
        dm_copy_finite(finite, x + i, block);
        dm_error_weights(w, finite, importance != NULL ? importance + i : NULL, block, encoders[type].favours_large);
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
