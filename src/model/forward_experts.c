/* The mixture of experts (Shazeer et al. 2017): each token's choice of SwiGLU experts, weighted by their gates. */
#include <string.h>

#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/vector.h"
#include "model/forward.h"
#include "model/repack.h"
#include "moe/router.h"

enum { ROWS_TOGETHER = 16 };

typedef struct routed {
    const dm_session *session;
    const dm_router *router;
    int32_t layer;
} routed;

static void look_body(void *user, size_t begin, size_t end, int thread) {
    const routed *it = user;
    (void)thread;
    dm_routing_look(it->session->routing, it->layer, it->session->scratch.router, begin, end);
}

static void route_body(void *user, size_t begin, size_t end, int thread) {
    const routed *it = user;
    const dm_activations *a = &it->session->scratch;
    size_t experts = (size_t)it->router->n_experts, top_k = (size_t)it->router->top_k;
    (void)thread;
    dm_router_route(it->router, a->router + begin * experts, end - begin, a->experts + begin * top_k, a->gates + begin * top_k);
}

/* Router logits of h, then each token's experts and gates. */
static dm_status route(const dm_pass *pass, const dm_weights *weights, int32_t l) {
    dm_session *session = pass->work;
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t experts = (size_t)c->n_experts;
    size_t top_k = (size_t)c->top_k;
    const float *bias = session->model->expert_bias;
    dm_router router = {.n_experts = c->n_experts, .top_k = c->top_k, .given = session->routing != NULL};
    router.plain_gates = c->plain_gates;
    router.scale = c->expert_scale;
    router.bias = bias != NULL ? bias + (size_t)l * experts : NULL;

    DM_TRY(dm_forward_linear(pass, weights, DM_FFN_ROUTER, DM_ROLES, a->h, pass->n, a->router));
    routed it = {session, &router, l};
    size_t grain = dm_parallel_grain(8 * experts);
    if (session->routing != NULL) {
        dm_parallel(session->threads, pass->n, grain, look_body, &it);
        dm_routing_choose(session->routing, l, pass->n, pass->together, a->experts);
    }
    dm_parallel(session->threads, pass->n, grain, route_body, &it);
    if (session->trace != NULL) {
        dm_trace_note(session->trace, l, a->experts, pass->n, c->top_k, pass->together);
    }
    for (size_t s = 0; s < pass->n_segments; s++) {
        const dm_segment *segment = &pass->segments[s];
        dm_router_count(a->experts + segment->first * top_k, segment->n, c->top_k, segment->session->loads + (size_t)l * experts);
    }
    return DM_OK;
}

dm_weight dm_forward_expert_matrix(const dm_session *session, const dm_weights *weights, dm_role role, int32_t e) {
    const dm_config *c = &session->model->config;
    size_t rows = (size_t)(role == DM_FFN_DOWN_EXPS ? c->dim : c->expert_dim);
    return weights->apart[role] != NULL ? weights->apart[role][e]
                                        : dm_weight_rows(&weights->matrices[role], (size_t)e * rows, rows);
}

/* ---- Tokens sorted by their experts ---- */

/* Where each choice lies when the choices are in the experts' order, and which choice lies there. */
static void sort_choices(dm_session *session, size_t n) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t choices = n * (size_t)c->top_k;
    memset(a->starts, 0, ((size_t)c->n_experts + 1) * sizeof *a->starts);
    for (size_t i = 0; i < choices; i++) {
        a->starts[a->experts[i] + 1] += a->experts[i] >= 0;
    }
    for (int32_t e = 0; e < c->n_experts; e++) {
        session->experts_read += a->starts[e + 1] > 0;
        a->starts[e + 1] += a->starts[e];
    }
    for (size_t i = 0; i < choices; i++) {
        if (a->experts[i] >= 0) {
            a->slots[i] = a->starts[a->experts[i]]++;
            a->choices[a->slots[i]] = (int32_t)i;
        }
    }
    memmove(a->starts + 1, a->starts, (size_t)c->n_experts * sizeof *a->starts); /* each start ended as the next one's */
    a->starts[0] = 0;
}

/* ---- The next token of each of some sequences: matrix-vector products over the chosen experts ---- */

/* Columns begin .. end - 1 of hidden = silu(gate h) * (up h) of one expert, for all of its tokens. */
static void columns_in(const dm_session *session, const dm_weights *weights, int32_t e, size_t begin, size_t end) {
    const dm_activations *a = &session->scratch;
    const dm_config *c = &session->model->config;
    size_t width = (size_t)c->expert_dim;
    dm_weight gate = dm_forward_expert_matrix(session, weights, DM_FFN_GATE_EXPS, e);
    dm_weight up = dm_forward_expert_matrix(session, weights, DM_FFN_UP_EXPS, e);
    for (size_t slot = (size_t)a->starts[e]; slot < (size_t)a->starts[e + 1]; slot++) {
        const float *x = a->h + (size_t)a->choices[slot] / (size_t)c->top_k * (size_t)c->dim;
        float *hidden = a->hidden + slot * width;
        for (size_t i = begin; i < end; i++) {
            hidden[i] = dm_weight_dot(&gate, i, x);
            a->up[slot * width + i] = dm_weight_dot(&up, i, x);
        }
        dm_vector()->swiglu(hidden + begin, hidden + begin, a->up + slot * width + begin, end - begin);
    }
}

/* Columns begin .. end - 1 of a token's h = sum over the chosen of gate * down hidden */
static void columns_out(const dm_session *session, const dm_weights *weights, size_t token, size_t begin, size_t end) {
    const dm_config *c = &session->model->config;
    const dm_activations *a = &session->scratch;
    size_t top_k = (size_t)c->top_k;
    float *h = a->h + token * (size_t)c->dim;
    memset(h + begin, 0, (end - begin) * sizeof *h);
    for (size_t i = token * top_k; i < (token + 1) * top_k && a->experts[i] >= 0; i++) {
        dm_weight down = dm_forward_expert_matrix(session, weights, DM_FFN_DOWN_EXPS, a->experts[i]);
        const float *hidden = a->hidden + (size_t)a->slots[i] * (size_t)c->expert_dim;
        for (size_t row = begin; row < end; row++) {
            h[row] += a->gates[i] * dm_weight_dot(&down, row, hidden);
        }
    }
}

/* What the loops below share. */
typedef struct experts {
    const dm_session *session;
    const dm_weights *weights;
    size_t n; /* tokens */
    dm_failure failure;
} experts;

static size_t parts_of(size_t n) {
    return (n + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
}

static size_t end_of_part(size_t begin, size_t n) {
    return begin + ROWS_TOGETHER < n ? begin + ROWS_TOGETHER : n;
}

static void in_body(void *user, size_t first, size_t last, int thread) {
    const experts *x = user;
    size_t width = (size_t)x->session->model->config.expert_dim, parts = parts_of(width);
    (void)thread;
    for (size_t i = first; i < last; i++) { /* an expert without tokens is done at once */
        size_t begin = i % parts * ROWS_TOGETHER;
        columns_in(x->session, x->weights, (int32_t)(i / parts), begin, end_of_part(begin, width));
    }
}

static void out_body(void *user, size_t first, size_t last, int thread) {
    const experts *x = user;
    (void)thread;
    for (size_t i = first; i < last; i++) {
        size_t begin = i * ROWS_TOGETHER;
        for (size_t token = 0; token < x->n; token++) { /* rows that tokens share are still in the cache */
            columns_out(x->session, x->weights, token, begin, end_of_part(begin, (size_t)x->session->model->config.dim));
        }
    }
}

static void each_token(const dm_session *session, const dm_weights *weights, size_t n) {
    const dm_config *c = &session->model->config;
    size_t width = (size_t)c->expert_dim, dim = (size_t)c->dim, top_k = (size_t)c->top_k;
    experts x = {.session = session, .weights = weights, .n = n};
    size_t parts = (size_t)c->n_experts * parts_of(width);
    dm_parallel(session->threads, parts, dm_parallel_grain(n * top_k * width * dim / parts), in_body, &x);
    dm_parallel(session->threads, parts_of(dim), dm_parallel_grain(n * top_k * width * ROWS_TOGETHER), out_body, &x);
}

/* ---- A piece of a prompt: grouped by expert, so that each expert is one product ---- */

/* grouped = the tokens' rows of h in the experts' order */
static void gather_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    const dm_activations *a = &x->session->scratch;
    size_t top_k = (size_t)x->session->model->config.top_k, dim = (size_t)x->session->model->config.dim;
    (void)thread;
    for (size_t slot = begin; slot < end; slot++) {
        memcpy(a->grouped + slot * dim, a->h + (size_t)a->choices[slot] / top_k * dim, dim * sizeof *a->h);
    }
}

/* grouped rows of expert e = down(silu(gate x) * up x) */
static dm_status run_expert(const dm_session *session, const dm_weights *weights, int32_t e, float *widened) {
    const dm_config *c = &session->model->config;
    const dm_activations *a = &session->scratch;
    size_t dim = (size_t)c->dim;
    size_t width = (size_t)c->expert_dim;
    size_t first = (size_t)a->starts[e];
    size_t m = (size_t)a->starts[e + 1] - first;
    if (m == 0) {
        return DM_OK;
    }
    float *x = a->grouped + first * dim;
    float *hidden = a->hidden + first * width;
    float *up = a->up + first * width;
    const dm_linear_product in[] = {
        {dm_forward_expert_matrix(session, weights, DM_FFN_GATE_EXPS, e), NULL, hidden, width},
        {dm_forward_expert_matrix(session, weights, DM_FFN_UP_EXPS, e), NULL, up, width},
    };
    const dm_linear_product out = {dm_forward_expert_matrix(session, weights, DM_FFN_DOWN_EXPS, e), NULL, x, dim};
    DM_TRY(dm_linear(in, 2, x, dim, m, DM_ROWS_OF_EXPERT, widened, 1));
    dm_vector()->swiglu(hidden, hidden, up, m * width);
    return dm_linear(&out, 1, hidden, width, m, DM_ROWS_OF_EXPERT, widened, 1);
}

static void experts_body(void *user, size_t begin, size_t end, int thread) {
    experts *x = user;
    const dm_activations *a = &x->session->scratch;
    for (size_t e = begin; e < end; e++) {
        float *widened = a->widened + (size_t)thread * a->widened_size;
        dm_failure_note(&x->failure, run_expert(x->session, x->weights, (int32_t)e, widened));
    }
}

static dm_status many_tokens(const dm_session *session, const dm_weights *weights, size_t n) {
    const dm_config *c = &session->model->config;
    experts x = {.session = session, .weights = weights, .n = n};
    size_t choices = (size_t)session->scratch.starts[c->n_experts], cost = (size_t)c->expert_dim * (size_t)c->dim;
    dm_parallel(session->threads, choices, dm_parallel_grain((size_t)c->dim), gather_body, &x);
    dm_parallel(session->threads, (size_t)c->n_experts, dm_parallel_grain(choices * cost / (size_t)c->n_experts), experts_body,
                &x);
    return dm_failure_raise(&x.failure);
}

/* h = the gates' mixture of the experts' results */
static void mix_body(void *user, size_t begin, size_t end, int thread) {
    const dm_vector_table *vector = dm_vector();
    const experts *x = user;
    const dm_activations *a = &x->session->scratch;
    size_t top_k = (size_t)x->session->model->config.top_k, dim = (size_t)x->session->model->config.dim;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *h = a->h + t * dim;
        memset(h, 0, dim * sizeof *h);
        for (size_t i = t * top_k; i < (t + 1) * top_k && a->experts[i] >= 0; i++) {
            vector->axpy(h, a->gates[i], a->grouped + (size_t)a->slots[i] * dim, dim);
        }
    }
}

static void mix(const dm_session *session, size_t n) {
    const dm_config *c = &session->model->config;
    experts x = {.session = session, .n = n};
    dm_parallel(session->threads, n, dm_parallel_grain((size_t)c->top_k * (size_t)c->dim), mix_body, &x);
}

dm_status dm_forward_experts(const dm_pass *pass, const dm_weights *weights, int32_t l) {
    dm_session *session = pass->work;
    const dm_activations *a = &session->scratch;
    bool shared = session->model->config.shared_dim > 0;
    DM_TRY(route(pass, weights, l));
    dm_times_lap(&session->times, DM_OPERATION_ROUTER);
    dm_repack_experts(session->model, l, a->experts, pass->n * (size_t)session->model->config.top_k);
    if (shared) {
        DM_TRY(dm_forward_shared(pass, weights)); /* before h, its input too, becomes the experts' result */
    }
    sort_choices(session, pass->n);
    if (pass->rows == DM_ROWS_OF_CHUNK && pass->n >= dm_forward_enough_for_tiles(&session->model->config) &&
        dm_forward_experts_take_tiles(session, weights)) {
        dm_forward_experts_tiled(session, weights, pass->n);
    } else if (dm_forward_experts_are_packed(session, weights)) {
        dm_forward_experts_packed(session, weights, pass->n);
        mix(session, pass->n);
    } else if (pass->rows == DM_ROWS_APART) {
        each_token(session, weights, pass->n);
    } else {
        DM_TRY(many_tokens(session, weights, pass->n));
        mix(session, pass->n);
    }
    if (shared) {
        dm_vector()->add(a->h, a->h, a->shared, pass->n * (size_t)session->model->config.dim);
    }
    dm_times_lap(&session->times, DM_OPERATION_EXPERTS);
    return DM_OK;
}
