/* Attention: queries, keys and values, their norms and turns, the cache, and the product behind it. */
#include <string.h>

#include "kernels/vector.h"
#include "model/cached_attention.h"
#include "model/forward.h"

/* Where the batch's queries, keys and values are, ld floats between tokens. */
typedef struct heads {
    float *q, *k, *v;
    size_t ldq, ldkv;
} heads;

static dm_status project(const dm_session *session, const dm_weights *weights, size_t n, heads *out) {
    const dm_config *c = &session->model->config;
    const dm_activations *a = &session->scratch;
    size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t kv_width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    if (weights->matrices[DM_ATTN_QKV].data != NULL) {
        *out = (heads){a->q, a->q + q_width, a->q + q_width + kv_width, 3 * q_width, 3 * q_width};
        return dm_forward_linear(session, weights, DM_ATTN_QKV, DM_ATTN_QKV_B, a->h, n, a->q);
    }
    *out = (heads){a->q, a->k, a->v, q_width, kv_width};
    const dm_linear_product products[] = {
        dm_forward_product(weights, DM_ATTN_Q, DM_ATTN_Q_B, a->q),
        dm_forward_product(weights, DM_ATTN_K, DM_ATTN_K_B, a->k),
        dm_forward_product(weights, DM_ATTN_V, DM_ATTN_V_B, a->v),
    };
    return dm_linear(products, 3, a->h, (size_t)c->dim, n, a->widened);
}

/* RMSNorm of each head, or of all together where the weight is as wide as they are. */
static void normalise(const dm_session *session, const dm_weights *weights, dm_role role, float *row, size_t n_heads) {
    const float *weight = weights->vectors[role];
    size_t head_dim = (size_t)session->model->config.head_dim;
    size_t width = weights->matrices[role].columns; /* checked: head_dim or n_heads * head_dim */
    for (size_t at = 0; weight != NULL && at < n_heads * head_dim; at += width) {
        dm_vector()->rmsnorm(row + at, row + at, weight, session->model->config.norm_eps, width);
    }
}

/* Norms and turns of one token's queries or keys. */
static void prepare(const dm_session *session, const dm_weights *weights, dm_role norm, float *row, int32_t n_heads, size_t t) {
    const dm_rope *rope = &session->rope;
    normalise(session, weights, norm, row, (size_t)n_heads);
    if (rope->kind != DM_ROPE_NONE) {
        const float *table = session->scratch.turns + t * dm_rope_table_size(rope);
        dm_rope_turn(rope, table, row, (size_t)n_heads, (size_t)session->model->config.head_dim);
    }
}

/* Keys or values of layer l at the session's next position. */
static float *cache_at(const dm_session *session, float *cache, int32_t l, int32_t position) {
    const dm_config *c = &session->model->config;
    size_t row = (size_t)l * (size_t)session->context + (size_t)position;
    return cache + row * (size_t)c->n_kv_heads * (size_t)c->head_dim;
}

static void append(const dm_session *session, const heads *from, int32_t l, size_t t) {
    const dm_config *c = &session->model->config;
    size_t width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    int32_t position = session->length + (int32_t)t;
    memcpy(cache_at(session, session->keys, l, position), from->k + t * from->ldkv, width * sizeof(float));
    memcpy(cache_at(session, session->values, l, position), from->v + t * from->ldkv, width * sizeof(float));
}

static dm_status attend(const dm_session *session, const heads *from, int32_t l, size_t n) {
    const dm_config *c = &session->model->config;
    const dm_cached_attention attention = {
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .window = (size_t)c->window,
        .start = (size_t)session->length,
        .n = n,
        .q = from->q,
        .ldq = from->ldq,
        .keys = cache_at(session, session->keys, l, 0),
        .values = cache_at(session, session->values, l, 0),
        .out = session->scratch.attended,
    };
    return dm_cached_attention_forward(&attention, session->scratch.attention, dm_session_threads(session));
}

dm_status dm_forward_attention(dm_session *session, const dm_weights *weights, int32_t l, size_t n) {
    const dm_config *c = &session->model->config;
    const dm_activations *a = &session->scratch;
    heads at;
    DM_TRY(project(session, weights, n, &at));
#pragma omp parallel for schedule(static) if (n > 8)
    for (size_t t = 0; t < n; t++) {
        prepare(session, weights, DM_ATTN_Q_NORM, at.q + t * at.ldq, c->n_heads, t);
        prepare(session, weights, DM_ATTN_K_NORM, at.k + t * at.ldkv, c->n_kv_heads, t);
        append(session, &at, l, t);
    }
    DM_TRY(attend(session, &at, l, n));
    return dm_forward_linear(session, weights, DM_ATTN_OUTPUT, DM_ATTN_OUTPUT_B, a->attended, n, a->h);
}
