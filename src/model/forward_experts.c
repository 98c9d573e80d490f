/* The mixture of experts (Shazeer et al. 2017): each token's choice of SwiGLU experts, weighted by their gates. */
#include <string.h>

#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/vector.h"
#include "model/forward.h"
#include "model/placed.h"
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
        dm_routing_choose(session->routing, l, a->router, pass->n, pass->together, a->experts);
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
    dm_weight matrix =
        weights->apart[role] != NULL ? weights->apart[role][e] : dm_weight_rows(&weights->matrices[role], (size_t)e * rows, rows);
    if (session->store != NULL) {
        const int number = role == DM_FFN_GATE_EXPS ? 0 : role == DM_FFN_UP_EXPS ? 1 : 2;
        const uint8_t *data = dm_expert_store_matrix(session->store, (int32_t)(weights - session->layers), e, number);
        const bool both = matrix.type == DM_TYPE_MIXED;
        matrix.data = both || matrix.panels == NULL ? data : matrix.data;
        matrix.panels = both || matrix.panels != NULL ? data : NULL;
    }
    return matrix;
}

/* ---- Tokens sorted by their experts ---- */

/* Where each choice lies when the choices are in the experts' order, and which choice lies there. Returns how many experts have
 * tokens: those of `active`. */
static size_t sort_choices(dm_session *session, size_t n) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t choices = n * (size_t)c->top_k, active = 0;
    memset(a->starts, 0, ((size_t)c->n_experts + 1) * sizeof *a->starts);
    for (size_t i = 0; i < choices; i++) {
        a->starts[a->experts[i] + 1] += a->experts[i] >= 0;
    }
    for (int32_t e = 0; e < c->n_experts; e++) {
        if (a->starts[e + 1] > 0) {
            a->active[active++] = e;
        }
        a->starts[e + 1] += a->starts[e];
    }
    session->experts_read += active;
    for (size_t i = 0; i < choices; i++) {
        if (a->experts[i] >= 0) {
            a->slots[i] = a->starts[a->experts[i]]++;
            a->choices[a->slots[i]] = (int32_t)i;
        }
    }
    memmove(a->starts + 1, a->starts, (size_t)c->n_experts * sizeof *a->starts); /* each start ended as the next one's */
    a->starts[0] = 0;
    return active;
}

/* ---- Experts dealt out to those near whose memory they lie ---- */

/* A streamed expert's home is its slot's. */
static size_t home_of(const dm_expert_run *run, int32_t expert) {
    const int32_t layer = (int32_t)(run->weights - run->session->layers);
    return run->session->store != NULL ? dm_expert_store_home(run->session->store, layer, expert)
                                       : dm_placed_home(run->session->model, layer, expert);
}

void dm_forward_deal_out(const dm_expert_run *run, const int32_t *experts, size_t n, dm_expert_lists *out) {
    *out = (dm_expert_lists){.n = 1, .experts = experts, .starts = {0, n}};
    if (run->session->model->placed == NULL) {
        return;
    }
    int32_t *sorted = run->session->scratch.dealt;
    size_t next = 0;
    out->n = dm_parallel_groups();
    for (size_t list = 0; list < out->n; list++) {
        out->starts[list] = next;
        for (size_t i = 0; i < n; i++) {
            if (home_of(run, experts[i]) == list) {
                sorted[next++] = experts[i];
            }
        }
    }
    out->starts[out->n] = next;
    out->experts = sorted;
}

void dm_forward_share_experts(const dm_expert_run *run, const dm_expert_lists *lists, size_t each, size_t grain,
                              dm_parallel_list_body body, void *user) {
    size_t n[DM_MOST_GROUPS];
    for (size_t list = 0; list < lists->n; list++) {
        n[list] = (lists->starts[list + 1] - lists->starts[list]) * each;
    }
    dm_parallel_lists(run->session->threads, lists->n, n, grain, body, user);
}

/* What the loops below share: a run of some of the experts. */
typedef struct experts {
    const dm_expert_run *run;
    dm_expert_lists lists;
    dm_failure failure;
} experts;

/* Expert number i of a list. */
static int32_t expert_at(const experts *x, size_t list, size_t i) {
    return x->lists.experts[x->lists.starts[list] + i];
}

static const dm_config *config_of(const experts *x) {
    return &x->run->session->model->config;
}

/* Tokens of expert e, and the row of its first one among all in the experts' order. */
static size_t rows_of(const experts *x, int32_t e, size_t *first) {
    const int32_t *starts = x->run->session->scratch.starts;
    *first = (size_t)starts[e];
    return (size_t)starts[e + 1] - *first;
}

static dm_weight matrix(const experts *x, dm_role role, int32_t e) {
    return dm_forward_expert_matrix(x->run->session, x->run->weights, role, e);
}

/* ---- The next token of each of some sequences: matrix-vector products ---- */

static size_t parts_of(size_t n) {
    return (n + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
}

static size_t end_of_part(size_t begin, size_t n) {
    return begin + ROWS_TOGETHER < n ? begin + ROWS_TOGETHER : n;
}

/* Columns begin .. end - 1 of hidden = silu(gate h) * (up h) of one expert, for all of its tokens. */
static void columns_in(const experts *x, int32_t e, size_t begin, size_t end) {
    const dm_activations *a = &x->run->session->scratch;
    const dm_config *c = config_of(x);
    size_t width = (size_t)c->expert_dim, first, m = rows_of(x, e, &first);
    dm_weight gate = matrix(x, DM_FFN_GATE_EXPS, e), up = matrix(x, DM_FFN_UP_EXPS, e);
    for (size_t row = first; row < first + m; row++) {
        const float *h = a->h + (size_t)a->choices[row] / (size_t)c->top_k * (size_t)c->dim;
        float *hidden = a->hidden + row * width;
        for (size_t i = begin; i < end; i++) {
            hidden[i] = dm_weight_dot(&gate, i, h);
            a->up[row * width + i] = dm_weight_dot(&up, i, h);
        }
        dm_vector()->swiglu(hidden + begin, hidden + begin, a->up + row * width + begin, end - begin);
    }
}

static void in_body(void *user, size_t list, size_t first, size_t last, int thread) {
    const experts *x = user;
    size_t width = (size_t)config_of(x)->expert_dim, parts = parts_of(width);
    (void)thread;
    for (size_t i = first; i < last; i++) {
        size_t begin = i % parts * ROWS_TOGETHER;
        columns_in(x, expert_at(x, list, i / parts), begin, end_of_part(begin, width));
    }
}

/* Columns begin .. end - 1 of grouped = down hidden of one expert, for all of its tokens. */
static void columns_out(const experts *x, int32_t e, size_t begin, size_t end) {
    const dm_activations *a = &x->run->session->scratch;
    const dm_config *c = config_of(x);
    size_t first, m = rows_of(x, e, &first);
    dm_weight down = matrix(x, DM_FFN_DOWN_EXPS, e);
    for (size_t row = first; row < first + m; row++) {
        for (size_t i = begin; i < end; i++) {
            a->grouped[row * (size_t)c->dim + i] = dm_weight_dot(&down, i, a->hidden + row * (size_t)c->expert_dim);
        }
    }
}

static void out_body(void *user, size_t list, size_t first, size_t last, int thread) {
    const experts *x = user;
    size_t dim = (size_t)config_of(x)->dim, parts = parts_of(dim);
    (void)thread;
    for (size_t i = first; i < last; i++) {
        size_t begin = i % parts * ROWS_TOGETHER;
        columns_out(x, expert_at(x, list, i / parts), begin, end_of_part(begin, dim));
    }
}

static void nothing(const dm_expert_run *run) {
    (void)run;
}

static dm_status run_each_token(const dm_expert_run *run, const int32_t *active, size_t n) {
    const dm_config *c = &run->session->model->config;
    experts x = {.run = run};
    size_t width = (size_t)c->expert_dim, dim = (size_t)c->dim;
    size_t cost = (1 + run->n * (size_t)c->top_k / n) * ROWS_TOGETHER; /* multiplications for a column of the other side, about */
    dm_forward_deal_out(run, active, n, &x.lists);
    dm_forward_share_experts(run, &x.lists, parts_of(width), dm_parallel_grain(cost * dim), in_body, &x);
    dm_forward_share_experts(run, &x.lists, parts_of(dim), dm_parallel_grain(cost * width), out_body, &x);
    return DM_OK;
}

/* ---- A piece of a prompt: grouped by expert, so that each expert is one product ---- */

/* grouped = the tokens' rows of h in the experts' order */
static void gather_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    const dm_activations *a = &x->run->session->scratch;
    size_t top_k = (size_t)config_of(x)->top_k, dim = (size_t)config_of(x)->dim;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        memcpy(a->grouped + row * dim, a->h + (size_t)a->choices[row] / top_k * dim, dim * sizeof *a->h);
    }
}

static void gather(const dm_expert_run *run) {
    const dm_config *c = &run->session->model->config;
    experts x = {.run = run};
    dm_parallel(run->session->threads, (size_t)run->session->scratch.starts[c->n_experts], dm_parallel_grain((size_t)c->dim),
                gather_body, &x);
}

/* grouped rows of expert e = down(silu(gate x) * up x) */
static dm_status run_expert(const experts *all, int32_t e, float *widened) {
    const dm_config *c = config_of(all);
    const dm_activations *a = &all->run->session->scratch;
    size_t dim = (size_t)c->dim, width = (size_t)c->expert_dim, first, m = rows_of(all, e, &first);
    float *x = a->grouped + first * dim;
    float *hidden = a->hidden + first * width;
    float *up = a->up + first * width;
    const dm_linear_product in[] = {
        {matrix(all, DM_FFN_GATE_EXPS, e), NULL, hidden, width},
        {matrix(all, DM_FFN_UP_EXPS, e), NULL, up, width},
    };
    const dm_linear_product out = {matrix(all, DM_FFN_DOWN_EXPS, e), NULL, x, dim};
    DM_TRY(dm_linear(in, 2, x, dim, m, DM_ROWS_OF_EXPERT, widened, 1));
    dm_vector()->swiglu(hidden, hidden, up, m * width);
    return dm_linear(&out, 1, hidden, width, m, DM_ROWS_OF_EXPERT, widened, 1);
}

static void experts_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    experts *x = user;
    const dm_activations *a = &x->run->session->scratch;
    for (size_t i = begin; i < end; i++) {
        float *widened = a->widened + (size_t)thread * a->widened_size;
        dm_failure_note(&x->failure, run_expert(x, expert_at(x, list, i), widened));
    }
}

static dm_status run_many_tokens(const dm_expert_run *run, const int32_t *active, size_t n) {
    const dm_config *c = &run->session->model->config;
    experts x = {.run = run};
    size_t each = 1 + run->n * (size_t)c->top_k / (size_t)c->n_experts; /* tokens, about */
    dm_forward_deal_out(run, active, n, &x.lists);
    dm_forward_share_experts(run, &x.lists, 1, dm_parallel_grain(each * (size_t)c->expert_dim * (size_t)c->dim), experts_body,
                             &x);
    return dm_failure_raise(&x.failure);
}

/* ---- The mixture --------------------------------------------------------- */

/* h = the gates' mixture of the experts' results */
static void mix_body(void *user, size_t begin, size_t end, int thread) {
    const dm_vector_table *vector = dm_vector();
    const experts *x = user;
    const dm_activations *a = &x->run->session->scratch;
    size_t top_k = (size_t)config_of(x)->top_k, dim = (size_t)config_of(x)->dim;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *h = a->h + t * dim;
        memset(h, 0, dim * sizeof *h);
        for (size_t i = t * top_k; i < (t + 1) * top_k && a->experts[i] >= 0; i++) {
            vector->axpy(h, a->gates[i], a->grouped + (size_t)a->slots[i] * dim, dim);
        }
    }
}

void dm_forward_experts_mix(const dm_expert_run *run) {
    const dm_config *c = &run->session->model->config;
    experts x = {.run = run};
    dm_parallel(run->session->threads, run->n, dm_parallel_grain((size_t)c->top_k * (size_t)c->dim), mix_body, &x);
}

static const dm_expert_kernel each_token = {nothing, run_each_token, dm_forward_experts_mix};
static const dm_expert_kernel many_tokens = {gather, run_many_tokens, dm_forward_experts_mix};

static const dm_expert_kernel *kernel_for(const dm_pass *pass, const dm_weights *weights) {
    if (pass->work->observer != NULL) {
        return &many_tokens; /* which leaves the rows between the matrices as they were multiplied */
    }
    if (pass->rows == DM_ROWS_OF_CHUNK && pass->n >= dm_forward_enough_for_tiles(&pass->work->model->config) &&
        dm_forward_experts_take_tiles(pass->work, weights)) {
        return &dm_experts_tiled;
    }
    if (dm_forward_experts_are_packed(pass->work, weights)) {
        return &dm_experts_packed;
    }
    return pass->rows == DM_ROWS_APART ? &each_token : &many_tokens;
}

/* Shows what the layer's experts have multiplied: rows of h, and of what is between their matrices. */
static dm_status watch_experts(const dm_expert_run *run, int32_t l, size_t active) {
    const dm_session *session = run->session;
    const dm_observer *observer = session->observer;
    const dm_config *c = &session->model->config;
    const dm_activations *a = &session->scratch;
    for (size_t row = 0; row < (size_t)a->starts[c->n_experts]; row++) {
        a->tokens[row] = a->choices[row] / c->top_k;
        a->token_gates[row] = a->gates[a->choices[row]];
    }
    for (size_t i = 0; i < active; i++) {
        const int32_t e = a->active[i];
        const size_t first = (size_t)a->starts[e], n = (size_t)a->starts[e + 1] - first, width = (size_t)c->expert_dim;
        const float *gates = a->token_gates + first;
        const dm_observation in = {l, DM_FFN_UP_EXPS, e, (size_t)c->dim, n, a->h, a->tokens + first, gates};
        const dm_observation between = {l, DM_FFN_DOWN_EXPS, e, width, n, a->hidden + first * width, NULL, gates};
        DM_TRY(observer->see(observer->user, &in));
        DM_TRY(observer->see(observer->user, &between));
    }
    return DM_OK;
}

/* The experts of the layer as they come from the store. */
static dm_status run_streamed(const dm_expert_kernel *kernel, const dm_expert_run *run) {
    dm_expert_store *store = run->session->store;
    const int32_t *next;
    size_t n = 0;
    dm_status status = dm_expert_store_next(store, &next, &n);
    while (status == DM_OK && n > 0) {
        status = kernel->run(run, next, n);
        if (status == DM_OK) {
            status = dm_expert_store_next(store, &next, &n);
        }
    }
    return status;
}

/* The shared expert, before h, its input too, becomes the experts' result; then those that tokens chose. */
static dm_status compute(const dm_pass *pass, const dm_expert_kernel *kernel, const dm_expert_run *run, size_t active) {
    const dm_session *session = pass->work;
    if (session->model->config.shared_dim > 0) {
        DM_TRY(dm_forward_shared(pass, run->weights));
    }
    kernel->begin(run);
    return session->store != NULL ? run_streamed(kernel, run) : kernel->run(run, session->scratch.active, active);
}

static dm_status run_experts(const dm_pass *pass, const dm_weights *weights, int32_t l) {
    dm_session *session = pass->work;
    const dm_activations *a = &session->scratch;
    const dm_expert_kernel *kernel = kernel_for(pass, weights);
    const dm_expert_run run = {session, weights, pass->n};
    DM_TRY(route(pass, weights, l));
    dm_times_lap(&session->times, DM_OPERATION_ROUTER);
    if (session->store == NULL) {
        dm_repack_experts(session->model, l, a->experts, pass->n * (size_t)session->model->config.top_k);
    }
    const size_t active = sort_choices(session, pass->n);
    if (session->store == NULL) {
        DM_TRY(compute(pass, kernel, &run, active));
    } else {
        dm_status status = dm_expert_store_begin(session->store, l, a->active, active, kernel == &dm_experts_tiled);
        status = status == DM_OK ? compute(pass, kernel, &run, active) : status;
        dm_expert_store_end(session->store);
        dm_expert_store_count(session->store, &session->asked, &session->hit);
        DM_TRY(status);
    }
    DM_TRY(session->observer != NULL ? watch_experts(&run, l, active) : DM_OK);
    kernel->end(&run);
    if (session->model->config.shared_dim > 0) {
        dm_vector()->add(a->h, a->h, a->shared, pass->n * (size_t)session->model->config.dim);
    }
    dm_times_lap(&session->times, DM_OPERATION_EXPERTS);
    return DM_OK;
}

dm_status dm_forward_experts(const dm_pass *pass, const dm_weights *weights, int32_t l) {
    dm_expert_store *store = pass->work->store;
    if (store == NULL) {
        return run_experts(pass, weights, l);
    }
    dm_expert_store_enter(store);
    dm_status status = run_experts(pass, weights, l);
    dm_expert_store_leave(store);
    return status;
}
