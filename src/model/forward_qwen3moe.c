/* Qwen3 MoE (Qwen team 2025): RMSNorm, rotary attention with grouped heads and normalised queries and keys, SwiGLU
 * experts behind a softmax router. */
#include "kernels/vector.h"
#include "model/forward.h"

/* Each head of one token: RMSNorm, then the rotation of its position. heads [n_heads, head_dim], in place. */
static void prepare_heads(const dm_session *session, float *heads, int32_t n_heads, const float *weight, size_t t) {
    const dm_vector_table *vector = dm_vector();
    const dm_config *c = &session->model->config;
    size_t width = (size_t)c->head_dim;
    size_t half = width / 2;
    for (int32_t h = 0; h < n_heads; h++) {
        float *head = heads + (size_t)h * width;
        vector->rmsnorm(head, head, weight, c->norm_eps, width);
        vector->rope(head, session->scratch.cosine + t * half, session->scratch.sine + t * half, 1.0f, half);
    }
}

/* h = attention(h) */
static dm_status attention(dm_session *session, const dm_weights *weights, int32_t l, size_t n) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t kv_width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    float *keys = dm_forward_cache(session, session->keys, l, session->length);
    float *values = dm_forward_cache(session, session->values, l, session->length);

    const dm_linear_product products[] = {
        dm_forward_product(weights, DM_ATTN_Q, DM_ROLES, a->q),
        dm_forward_product(weights, DM_ATTN_K, DM_ROLES, keys),
        dm_forward_product(weights, DM_ATTN_V, DM_ROLES, values),
    };
    DM_TRY(dm_linear(products, 3, a->h, (size_t)c->dim, n, a->widened));
#pragma omp parallel for schedule(static) if (n > 8)
    for (size_t t = 0; t < n; t++) {
        prepare_heads(session, a->q + t * q_width, c->n_heads, weights->vectors[DM_ATTN_Q_NORM], t);
        prepare_heads(session, keys + t * kv_width, c->n_kv_heads, weights->vectors[DM_ATTN_K_NORM], t);
    }
    DM_TRY(dm_forward_attention(session, l, n, q_width));
    return dm_forward_linear(session, weights, DM_ATTN_OUTPUT, DM_ROLES, a->attended, n, a->h);
}

dm_status dm_forward_qwen3moe(dm_session *session, size_t n) {
    dm_activations *a = &session->scratch;
    for (int32_t l = 0; l < session->model->config.n_layers; l++) {
        const dm_weights *weights = &session->layers[l];

        dm_forward_norm(session, weights, DM_ATTN_NORM, DM_ROLES, a->x, n);
        DM_TRY(attention(session, weights, l, n));
        dm_forward_residual(session, n);

        dm_forward_norm(session, weights, DM_FFN_NORM, DM_ROLES, a->x, n);
        DM_TRY(dm_forward_experts(session, weights, l, n));
        dm_forward_residual(session, n);
    }
    return DM_OK;
}
