#include "model/forward.h"

#include <math.h>
#include <string.h>

#include "kernels/vector.h"
#include "model/cached_attention.h"

static const dm_config *config_of(const dm_session *session) {
    return &session->model->config;
}

void dm_forward_norm(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                     size_t n) {
    const dm_vector_table *vector = dm_vector();
    const float *weight = weights->vectors[role];
    const float *bias = bias_role < DM_ROLES ? weights->vectors[bias_role] : NULL;
    float eps = config_of(session)->norm_eps;
    size_t dim = (size_t)config_of(session)->dim;
    float *h = session->scratch.h;
#pragma omp parallel for schedule(static) if (n > 8)
    for (size_t t = 0; t < n; t++) {
        float mean, r;
        if (bias != NULL) {
            vector->layernorm(h + t * dim, &mean, &r, x + t * dim, weight, bias, eps, dim);
        } else {
            vector->rmsnorm(h + t * dim, x + t * dim, weight, eps, dim);
        }
    }
}

dm_linear_product dm_forward_product(const dm_weights *weights, dm_role role, dm_role bias_role, float *y) {
    const dm_weight *weight = &weights->matrices[role];
    const float *bias = bias_role < DM_ROLES ? weights->vectors[bias_role] : NULL;
    return (dm_linear_product){*weight, bias, y, weight->rows};
}

dm_status dm_forward_linear(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                            size_t n, float *y) {
    dm_linear_product product = dm_forward_product(weights, role, bias_role, y);
    return dm_linear(&product, 1, x, product.weight.columns, n, session->scratch.widened);
}

void dm_forward_residual(const dm_session *session, size_t n) {
    const dm_activations *a = &session->scratch;
    dm_vector()->add(a->x, a->x, a->h, n * (size_t)config_of(session)->dim);
}

float *dm_forward_cache(const dm_session *session, float *cache, int32_t l, int32_t position) {
    const dm_config *c = config_of(session);
    size_t row = (size_t)l * (size_t)session->context + (size_t)position;
    return cache + row * (size_t)c->n_kv_heads * (size_t)c->head_dim;
}

dm_status dm_forward_attention(const dm_session *session, int32_t l, size_t n, size_t ldq) {
    const dm_config *c = config_of(session);
    const dm_cached_attention attention = {
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .start = (size_t)session->length,
        .n = n,
        .q = session->scratch.q,
        .ldq = ldq,
        .keys = dm_forward_cache(session, session->keys, l, 0),
        .values = dm_forward_cache(session, session->values, l, 0),
        .out = session->scratch.attended,
    };
    return dm_cached_attention_forward(&attention, session->scratch.attention, dm_session_threads(session));
}

/* x = token_embd[id], plus position_embd[position] where positions are learned. */
static void embed(dm_session *session, const int32_t *ids, size_t n) {
    const dm_vector_table *vector = dm_vector();
    const dm_weight *positions = &session->global.matrices[DM_POSITION_EMBD];
    size_t dim = (size_t)config_of(session)->dim;
    for (size_t t = 0; t < n; t++) {
        float *x = session->scratch.x + t * dim;
        dm_weight_row(x, &session->global.matrices[DM_TOKEN_EMBD], (size_t)ids[t]);
        if (positions->data != NULL) {
            dm_weight_row(session->scratch.h, positions, (size_t)session->length + t);
            vector->add(x, x, session->scratch.h, dim);
        }
    }
}

/* Rotary angles (Su et al. 2021) of the batch's positions, in double as positions may be large. */
static void turn(dm_session *session, size_t n) {
    size_t half = (size_t)config_of(session)->head_dim / 2;
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < half; i++) {
            double angle = ((double)session->length + (double)t) * session->frequencies[i];
            session->scratch.cosine[t * half + i] = (float)cos(angle);
            session->scratch.sine[t * half + i] = (float)sin(angle);
        }
    }
}

static dm_status output(dm_session *session, size_t n, dm_logits_kind kind, float *logits) {
    size_t rows = kind == DM_LOGITS_ALL ? n : 1;
    const float *x = session->scratch.x + (n - rows) * (size_t)config_of(session)->dim;
    dm_forward_norm(session, &session->global, DM_OUTPUT_NORM, DM_OUTPUT_NORM_B, x, rows);
    return dm_forward_linear(session, &session->global, DM_OUTPUT, DM_ROLES, session->scratch.h, rows, logits);
}

dm_status dm_forward(dm_session *session, const int32_t *ids, size_t n, dm_logits_kind kind, float *logits) {
    embed(session, ids, n);
    if (session->frequencies != NULL) {
        turn(session, n);
    }
    switch (config_of(session)->arch) {
    case DM_ARCH_QWEN3MOE:
        DM_TRY(dm_forward_qwen3moe(session, n));
        break;
    case DM_ARCH_GPT2:
        DM_TRY(dm_forward_gpt2(session, n));
        break;
    }
    if (kind != DM_LOGITS_NONE) {
        DM_TRY(output(session, n, kind, logits));
    }
    memcpy(session->ids + session->length, ids, n * sizeof *ids);
    session->length += (int32_t)n;
    session->routed += config_of(session)->n_experts > 0 ? n : 0;
    return DM_OK;
}
