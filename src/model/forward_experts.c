/* The mixture of experts (Shazeer et al. 2017): each token's choice of SwiGLU experts, weighted by their gates. */
#include <omp.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/vector.h"
#include "model/forward.h"
#include "moe/router.h"

enum { ROWS_TOGETHER = 16, TOKENS_TOGETHER = 16 };

/* Router logits of h, then each token's experts and gates. */
static dm_status route(dm_session *session, const dm_weights *weights, int32_t l, size_t n) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t experts = (size_t)c->n_experts;
    size_t top_k = (size_t)c->top_k;
    const float *bias = session->model->expert_bias;
    dm_router router = {.policy = DM_ROUTER_MODEL, .n_experts = c->n_experts, .top_k = c->top_k};
    router.plain_gates = c->plain_gates;
    router.scale = c->expert_scale;
    router.bias = bias != NULL ? bias + (size_t)l * experts : NULL;

    DM_TRY(dm_forward_linear(session, weights, DM_FFN_ROUTER, DM_ROLES, a->h, n, a->router));
#pragma omp parallel for schedule(static) if (n * experts > DM_WORTH_SHARING / 8)
    for (size_t t = 0; t < n; t += TOKENS_TOGETHER) {
        size_t m = n - t < TOKENS_TOGETHER ? n - t : TOKENS_TOGETHER;
        dm_router_route(&router, a->router + t * experts, m, a->experts + t * top_k, a->gates + t * top_k);
    }
    dm_router_count(a->experts, n, c->top_k, session->loads + (size_t)l * experts);
    return DM_OK;
}

dm_weight dm_forward_expert_matrix(const dm_session *session, const dm_weights *weights, dm_role role, int32_t e) {
    const dm_config *c = &session->model->config;
    size_t rows = (size_t)(role == DM_FFN_DOWN_EXPS ? c->dim : c->expert_dim);
    return weights->apart[role] != NULL ? weights->apart[role][e]
                                        : dm_weight_rows(&weights->matrices[role], (size_t)e * rows, rows);
}

/* ---- One token: matrix-vector products over the chosen experts ---- */

/* hidden [top_k * expert_dim] = silu(gate h) * (up h), rows begin .. end - 1 of all chosen experts laid end to end. */
static void expert_rows_in(dm_session *session, const dm_weights *weights, size_t begin, size_t end) {
    dm_activations *a = &session->scratch;
    size_t width = (size_t)session->model->config.expert_dim;
    for (size_t i = begin; i < end;) {
        dm_weight gate = dm_forward_expert_matrix(session, weights, DM_FFN_GATE_EXPS, a->experts[i / width]);
        dm_weight up = dm_forward_expert_matrix(session, weights, DM_FFN_UP_EXPS, a->experts[i / width]);
        size_t stop = (i / width + 1) * width < end ? (i / width + 1) * width : end;
        for (; i < stop; i++) {
            a->hidden[i] = dm_weight_dot(&gate, i % width, a->h);
            a->up[i] = dm_weight_dot(&up, i % width, a->h);
        }
    }
    dm_vector()->swiglu(a->hidden + begin, a->hidden + begin, a->up + begin, end - begin);
}

/* h [dim] = sum over the chosen of gate * down hidden, rows begin .. end - 1 */
static void expert_rows_out(dm_session *session, const dm_weights *weights, size_t begin, size_t end) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t top_k = (size_t)c->top_k;
    dm_weight down[DM_ROUTER_MAX_TOP_K];
    for (size_t j = 0; j < top_k; j++) {
        down[j] = dm_forward_expert_matrix(session, weights, DM_FFN_DOWN_EXPS, a->experts[j]);
    }
    for (size_t row = begin; row < end; row++) {
        float sum = 0.0f;
        for (size_t j = 0; j < top_k; j++) {
            sum += a->gates[j] * dm_weight_dot(&down[j], row, a->hidden + j * (size_t)c->expert_dim);
        }
        a->h[row] = sum;
    }
}

static void one_token(dm_session *session, const dm_weights *weights) {
    const dm_config *c = &session->model->config;
    size_t rows_in = (size_t)c->top_k * (size_t)c->expert_dim;
    size_t rows_out = (size_t)c->dim;
#pragma omp parallel if (rows_in * rows_out > DM_WORTH_SHARING)
    {
#pragma omp for schedule(static)
        for (size_t row = 0; row < rows_in; row += ROWS_TOGETHER) {
            expert_rows_in(session, weights, row, row + ROWS_TOGETHER < rows_in ? row + ROWS_TOGETHER : rows_in);
        } /* all threads have read h when they meet here */
#pragma omp for schedule(static)
        for (size_t row = 0; row < rows_out; row += ROWS_TOGETHER) {
            expert_rows_out(session, weights, row, row + ROWS_TOGETHER < rows_out ? row + ROWS_TOGETHER : rows_out);
        }
    }
}

/* ---- Many tokens: grouped by expert, so that each expert is one product ---- */

/* starts and slots by counting */
static void sort_choices(dm_session *session, size_t n) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t choices = n * (size_t)c->top_k;
    memset(a->starts, 0, ((size_t)c->n_experts + 1) * sizeof *a->starts);
    for (size_t i = 0; i < choices; i++) {
        a->starts[a->experts[i] + 1]++;
    }
    for (int32_t e = 0; e < c->n_experts; e++) {
        a->starts[e + 1] += a->starts[e];
    }
    for (size_t i = 0; i < choices; i++) {
        a->slots[i] = a->starts[a->experts[i]]++;
    }
    memmove(a->starts + 1, a->starts, (size_t)c->n_experts * sizeof *a->starts); /* each start ended as the next one's */
    a->starts[0] = 0;
}

/* grouped = the tokens' rows of h in the experts' order */
static void gather(dm_session *session, size_t n) {
    const dm_activations *a = &session->scratch;
    size_t top_k = (size_t)session->model->config.top_k;
    size_t choices = n * top_k;
    size_t dim = (size_t)session->model->config.dim;
#pragma omp parallel for schedule(static) if (choices * dim > DM_WORTH_SHARING)
    for (size_t i = 0; i < choices; i++) {
        memcpy(a->grouped + (size_t)a->slots[i] * dim, a->h + i / top_k * dim, dim * sizeof *a->h);
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
    DM_TRY(dm_linear(in, 2, x, dim, m, widened));
    dm_vector()->swiglu(hidden, hidden, up, m * width);
    return dm_linear(&out, 1, hidden, width, m, widened);
}

/* h = the gates' mixture of the experts' results */
static void mix(dm_session *session, size_t n) {
    const dm_vector_table *vector = dm_vector();
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t dim = (size_t)c->dim;
#pragma omp parallel for schedule(static) if (n * (size_t)c->top_k * dim > DM_WORTH_SHARING)
    for (size_t t = 0; t < n; t++) {
        float *h = a->h + t * dim;
        memset(h, 0, dim * sizeof *h);
        for (size_t i = t * (size_t)c->top_k; i < (t + 1) * (size_t)c->top_k; i++) {
            vector->axpy(h, a->gates[i], a->grouped + (size_t)a->slots[i] * dim, dim);
        }
    }
}

static dm_status many_tokens(dm_session *session, const dm_weights *weights, size_t n) {
    const dm_activations *a = &session->scratch;
    dm_failure failure = {DM_OK, ""};
    const dm_config *c = &session->model->config;
    size_t work = n * (size_t)c->top_k * (size_t)c->expert_dim * (size_t)c->dim;
    gather(session, n);
#pragma omp parallel for schedule(dynamic, 1) num_threads(dm_session_threads(session)) if (work > DM_WORTH_SHARING)
    for (int32_t e = 0; e < c->n_experts; e++) {
        float *widened = a->widened + (size_t)omp_get_thread_num() * a->widened_size;
        dm_failure_note(&failure, run_expert(session, weights, e, widened));
    }
    return dm_failure_raise(&failure);
}

dm_status dm_forward_experts(const dm_pass *pass, const dm_weights *weights, int32_t l) {
    dm_session *session = pass->work;
    size_t n = pass->n;
    const dm_config *c = &session->model->config;
    DM_TRY(route(session, weights, l, n));
    if (c->shared_dim > 0) {
        DM_TRY(dm_forward_shared(pass, weights)); /* before h, its input too, becomes the experts' result */
    }
    if (dm_forward_experts_are_packed(session, weights)) {
        sort_choices(session, n);
        dm_forward_experts_packed(session, weights, n);
        mix(session, n);
    } else if (n == 1) {
        one_token(session, weights);
    } else {
        sort_choices(session, n);
        DM_TRY(many_tokens(session, weights, n));
        mix(session, n);
    }
    if (c->shared_dim > 0) {
        dm_vector()->add(session->scratch.h, session->scratch.h, session->scratch.shared, n * (size_t)c->dim);
    }
    return DM_OK;
}
