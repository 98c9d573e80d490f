#include "model/forward.h"

#include <string.h>

#include "kernels/vector.h"

static const dm_config *config_of(const dm_session *session) {
    return &session->model->config;
}

void dm_forward_norm(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                     size_t n, float *y) {
    const dm_vector_table *vector = dm_vector();
    const float *weight = weights->vectors[role];
    const float *bias = weights->vectors[bias_role];
    float eps = config_of(session)->norm_eps;
    size_t dim = (size_t)config_of(session)->dim;
#pragma omp parallel for schedule(static) if (n > 8)
    for (size_t t = 0; t < n; t++) {
        float mean, r;
        if (bias != NULL) {
            vector->layernorm(y + t * dim, &mean, &r, x + t * dim, weight, bias, eps, dim);
        } else {
            vector->rmsnorm(y + t * dim, x + t * dim, weight, eps, dim);
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

/* x = token embedding, plus that of the position where positions are learned */
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

/* The rotary tables of the batch's positions. */
static void prepare_turns(dm_session *session, size_t n) {
    size_t size = dm_rope_table_size(&session->rope);
    for (size_t t = 0; t < n && size > 0; t++) {
        dm_rope_table(&session->rope, session->length + (int32_t)t, session->scratch.turns + t * size);
    }
}

/* x += h */
static void add_residual(const dm_session *session, size_t n) {
    const dm_activations *a = &session->scratch;
    dm_vector()->add(a->x, a->x, a->h, n * (size_t)config_of(session)->dim);
}

static dm_status layer(dm_session *session, int32_t l, size_t n) {
    const dm_weights *weights = &session->layers[l];
    const dm_activations *a = &session->scratch;

    dm_forward_norm(session, weights, DM_ATTN_NORM, DM_ATTN_NORM_B, a->x, n, a->h);
    DM_TRY(dm_forward_attention(session, weights, l, n));
    add_residual(session, n);

    dm_forward_norm(session, weights, DM_FFN_NORM, DM_FFN_NORM_B, a->x, n, a->h);
    DM_TRY(weights->matrices[DM_FFN_ROUTER].data != NULL ? dm_forward_experts(session, weights, l, n)
                                                         : dm_forward_dense(session, weights, n));
    add_residual(session, n);
    return DM_OK;
}

static dm_status output(dm_session *session, size_t n, dm_logits_kind kind, float *logits) {
    size_t rows = kind == DM_LOGITS_ALL ? n : 1;
    const dm_activations *a = &session->scratch;
    const float *x = a->x + (n - rows) * (size_t)config_of(session)->dim;
    dm_forward_norm(session, &session->global, DM_OUTPUT_NORM, DM_OUTPUT_NORM_B, x, rows, a->h);
    return dm_forward_linear(session, &session->global, DM_OUTPUT, DM_ROLES, a->h, rows, logits);
}

dm_status dm_forward(dm_session *session, const int32_t *ids, size_t n, dm_logits_kind kind, float *logits) {
    embed(session, ids, n);
    prepare_turns(session, n);
    for (int32_t l = 0; l < config_of(session)->n_layers; l++) {
        DM_TRY(layer(session, l, n));
    }
    if (kind != DM_LOGITS_NONE) {
        DM_TRY(output(session, n, kind, logits));
    }
    memcpy(session->ids + session->length, ids, n * sizeof *ids);
    session->length += (int32_t)n;
    session->routed += config_of(session)->n_experts > 0 ? n : 0;
    return DM_OK;
}
