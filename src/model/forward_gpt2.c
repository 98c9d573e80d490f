/* GPT-2 (Radford et al. 2019): LayerNorm before each block, learned positions, one fused q k v product, GELU. */
#include <string.h>

#include "kernels/vector.h"
#include "model/forward.h"

/* h = attention(h) */
static dm_status attention(dm_session *session, const dm_weights *weights, int32_t l, size_t n) {
    dm_activations *a = &session->scratch;
    size_t width = (size_t)session->model->config.n_heads * (size_t)session->model->config.head_dim;
    float *keys = dm_forward_cache(session, session->keys, l, session->length);
    float *values = dm_forward_cache(session, session->values, l, session->length);

    DM_TRY(dm_forward_linear(session, weights, DM_ATTN_QKV, DM_ATTN_QKV_B, a->h, n, a->q));
    for (size_t t = 0; t < n; t++) {
        const float *qkv = a->q + t * 3 * width;
        memcpy(keys + t * width, qkv + width, width * sizeof *keys);
        memcpy(values + t * width, qkv + 2 * width, width * sizeof *values);
    }
    DM_TRY(dm_forward_attention(session, l, n, 3 * width));
    return dm_forward_linear(session, weights, DM_ATTN_OUTPUT, DM_ATTN_OUTPUT_B, a->attended, n, a->h);
}

/* h = down(gelu(up(h))) */
static dm_status feed_forward(dm_session *session, const dm_weights *weights, size_t n) {
    const dm_vector_table *vector = dm_vector();
    dm_activations *a = &session->scratch;
    size_t width = (size_t)session->model->config.ffn_dim;
    DM_TRY(dm_forward_linear(session, weights, DM_FFN_UP, DM_FFN_UP_B, a->h, n, a->ffn));
#pragma omp parallel for schedule(static) if (n > 8)
    for (size_t t = 0; t < n; t++) {
        vector->gelu(a->ffn + t * width, a->ffn + t * width, width);
    }
    return dm_forward_linear(session, weights, DM_FFN_DOWN, DM_FFN_DOWN_B, a->ffn, n, a->h);
}

dm_status dm_forward_gpt2(dm_session *session, size_t n) {
    dm_activations *a = &session->scratch;
    for (int32_t l = 0; l < session->model->config.n_layers; l++) {
        const dm_weights *weights = &session->layers[l];

        dm_forward_norm(session, weights, DM_ATTN_NORM, DM_ATTN_NORM_B, a->x, n);
        DM_TRY(attention(session, weights, l, n));
        dm_forward_residual(session, n);

        dm_forward_norm(session, weights, DM_FFN_NORM, DM_FFN_NORM_B, a->x, n);
        DM_TRY(feed_forward(session, weights, n));
        dm_forward_residual(session, n);
    }
    return DM_OK;
}
