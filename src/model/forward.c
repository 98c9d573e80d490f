#include "model/forward.h"

#include <string.h>

#include "base/parallel.h"
#include "kernels/vector.h"

static const dm_config *config_of(const dm_session *session) {
    return &session->model->config;
}

typedef struct norm {
    const float *weight, *bias, *x;
    float *y, eps;
    size_t dim;
} norm;

static void norm_body(void *user, size_t begin, size_t end, int thread) {
    const dm_vector_table *vector = dm_vector();
    const norm *it = user;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float mean, r, *y = it->y + t * it->dim;
        const float *x = it->x + t * it->dim;
        if (it->bias != NULL) {
            vector->layernorm(y, &mean, &r, x, it->weight, it->bias, it->eps, it->dim);
        } else {
            vector->rmsnorm(y, x, it->weight, it->eps, it->dim);
        }
    }
}

void dm_forward_norm(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                     size_t n, float *y) {
    const dm_config *c = config_of(session);
    norm it = {weights->vectors[role], weights->vectors[bias_role], x, y, c->norm_eps, (size_t)c->dim};
    dm_parallel(session->threads, n, dm_parallel_grain(4 * it.dim), norm_body, &it);
}

dm_linear_product dm_forward_product(const dm_weights *weights, dm_role role, dm_role bias_role, float *y) {
    const dm_weight *weight = &weights->matrices[role];
    const float *bias = bias_role < DM_ROLES ? weights->vectors[bias_role] : NULL;
    return (dm_linear_product){*weight, bias, y, weight->rows};
}

dm_status dm_forward_linear(const dm_pass *pass, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                            size_t n, float *y) {
    dm_linear_product product = dm_forward_product(weights, role, bias_role, y);
    return dm_linear(&product, 1, x, product.weight.columns, n, pass->rows, pass->work->scratch.widened, pass->work->threads);
}

dm_status dm_forward_watch(const dm_pass *pass, const dm_weights *weights, dm_role role, const float *x, const float *gates) {
    const dm_observer *observer = pass->work->observer;
    if (observer == NULL) {
        return DM_OK;
    }
    int32_t layer = weights == &pass->work->global ? -1 : (int32_t)(weights - pass->work->layers);
    const dm_observation seen = {layer, role, -1, weights->matrices[role].columns, pass->n, x, NULL, gates};
    return observer->see(observer->user, &seen);
}

/* x = token embedding, plus that of the position where positions are learned; and the rotary table of the position. */
static void embed_body(void *user, size_t begin, size_t end, int thread) {
    const dm_pass *pass = user;
    const dm_session *work = pass->work;
    const dm_weight *positions = &work->global.matrices[DM_POSITION_EMBD];
    size_t dim = (size_t)config_of(work)->dim, turns = dm_rope_table_size(&work->rope);
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const dm_segment *segment = dm_segment_of(pass, row);
        size_t t = row - segment->first, position = (size_t)segment->session->length + t;
        float *x = work->scratch.x + row * dim, *h = work->scratch.h + row * dim;
        dm_weight_row(x, &work->global.matrices[DM_TOKEN_EMBD], (size_t)segment->ids[t]);
        if (positions->data != NULL) {
            dm_weight_row(h, positions, position);
            dm_vector()->add(x, x, h, dim);
        }
        if (turns > 0) {
            dm_rope_table(&work->rope, (int32_t)position, work->scratch.turns + row * turns);
        }
    }
}

static void embed(const dm_pass *pass) {
    enum { DECODING_COST = 8, SINE_COST = 32 }; /* of a number, in multiplications */
    size_t cost = DECODING_COST * (size_t)config_of(pass->work)->dim + SINE_COST * dm_rope_table_size(&pass->work->rope);
    dm_parallel(pass->work->threads, pass->n, dm_parallel_grain(cost), embed_body, (void *)pass);
}

/* x += h */
static void add_body(void *user, size_t begin, size_t end, int thread) {
    const dm_pass *pass = user;
    const dm_activations *a = &pass->work->scratch;
    size_t dim = (size_t)config_of(pass->work)->dim;
    (void)thread;
    dm_vector()->add(a->x + begin * dim, a->x + begin * dim, a->h + begin * dim, (end - begin) * dim);
}

static void add_residual(const dm_pass *pass) {
    enum { ADDING_COST = 2 };
    size_t dim = (size_t)config_of(pass->work)->dim;
    dm_parallel(pass->work->threads, pass->n, dm_parallel_grain(ADDING_COST * dim), add_body, (void *)pass);
}

static dm_status layer(const dm_pass *pass, int32_t l) {
    const dm_weights *weights = &pass->work->layers[l];
    const dm_activations *a = &pass->work->scratch;

    dm_forward_norm(pass->work, weights, DM_ATTN_NORM, DM_ATTN_NORM_B, a->x, pass->n, a->h);
    dm_times_lap(&pass->work->times, DM_OPERATION_NORMS);
    DM_TRY(dm_forward_attention(pass, weights, l));
    add_residual(pass);

    dm_forward_norm(pass->work, weights, DM_FFN_NORM, DM_FFN_NORM_B, a->x, pass->n, a->h);
    dm_times_lap(&pass->work->times, DM_OPERATION_NORMS);
    DM_TRY(weights->matrices[DM_FFN_ROUTER].data != NULL ? dm_forward_experts(pass, weights, l)
                                                         : dm_forward_dense(pass, weights));
    add_residual(pass);
    dm_times_lap(&pass->work->times, DM_OPERATION_NORMS);
    return dm_forward_guess(pass, l);
}

static dm_status output(const dm_pass *pass, dm_logits_kind kind, float *logits) {
    const dm_weights *weights = &pass->work->global;
    const dm_activations *a = &pass->work->scratch;
    if (pass->work->observer != NULL) {
        dm_forward_norm(pass->work, weights, DM_OUTPUT_NORM, DM_OUTPUT_NORM_B, a->x, pass->n, a->h);
        DM_TRY(dm_forward_watch(pass, weights, DM_OUTPUT, a->h, NULL));
    }
    if (kind == DM_LOGITS_NONE) {
        return DM_OK;
    }
    size_t rows = kind == DM_LOGITS_ALL ? pass->n : 1;
    const float *x = a->x + (pass->n - rows) * (size_t)config_of(pass->work)->dim;
    dm_forward_norm(pass->work, weights, DM_OUTPUT_NORM, DM_OUTPUT_NORM_B, x, rows, a->h);
    return dm_forward_linear(pass, weights, DM_OUTPUT, DM_ROLES, a->h, rows, logits);
}

static void advance(const dm_segment *segment) {
    dm_session *session = segment->session;
    memcpy(session->ids + session->length, segment->ids, segment->n * sizeof *segment->ids);
    session->length += (int32_t)segment->n;
    session->routed += config_of(session)->n_experts > 0 ? segment->n : 0;
}

dm_status dm_forward(const dm_pass *pass, dm_logits_kind kind, float *logits) {
    DM_TRY(dm_streaming_start(pass->work->model, &pass->work->store));
    dm_times_start(&pass->work->times);
    embed(pass);
    dm_times_lap(&pass->work->times, DM_OPERATION_EMBEDDING);
    const dm_observer *observer = pass->work->observer;
    const int32_t layers = config_of(pass->work)->n_layers;
    const int32_t end = observer != NULL && observer->layers < layers ? observer->layers : layers;
    for (int32_t l = 0; l < end; l++) {
        DM_TRY(layer(pass, l));
    }
    if (end == layers) {
        DM_TRY(output(pass, kind, logits));
        dm_times_lap(&pass->work->times, DM_OPERATION_OUTPUT);
    }
    for (size_t s = 0; s < pass->n_segments; s++) {
        advance(&pass->segments[s]);
    }
    if (pass->work->trace != NULL) {
        dm_trace_end_pass(pass->work->trace);
    }
    dm_streaming_note_tokens(pass->work->model, pass->n);
    pass->work->passes++;
    pass->work->pass_tokens += pass->n;
    return DM_OK;
}
