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

/* ---- One token: matrix-vector products over the chosen experts ---- */

/* hidden [top_k * expert_dim] = silu(gate h) * (up h), rows begin .. end - 1 of all chosen experts laid end to end. */
static void expert_rows_in(dm_session *session, const dm_weights *weights, size_t begin, size_t end) {
    dm_activations *a = &session->scratch;
    size_t width = (size_t)session->model->config.expert_dim;
    for (size_t i = begin; i < end; i++) {
        size_t row = (size_t)a->experts[i / width] * width + i % width;
        a->hidden[i] = dm_weight_dot(&weights->matrices[DM_FFN_GATE_EXPS], row, a->h);
        a->up[i] = dm_weight_dot(&weights->matrices[DM_FFN_UP_EXPS], row, a->h);
    }
    dm_vector()->swiglu(a->hidden + begin, a->hidden + begin, a->up + begin, end - begin);
}

/* grouped [dim] = sum over the chosen of gate * down hidden, rows begin .. end - 1 */
static void expert_rows_out(dm_session *session, const dm_weights *weights, size_t begin, size_t end) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    for (size_t row = begin; row < end; row++) {
        float sum = 0.0f;
        for (size_t j = 0; j < (size_t)c->top_k; j++) {
            size_t at = (size_t)a->experts[j] * (size_t)c->dim + row;
            sum += a->gates[j] * dm_weight_dot(&weights->matrices[DM_FFN_DOWN_EXPS], at, a->hidden + j * (size_t)c->expert_dim);
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

/* starts and slots by counting; grouped = the tokens' rows of h in the experts' order. */
static void group(dm_session *session, size_t n) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t choices = n * (size_t)c->top_k;
    size_t dim = (size_t)c->dim;
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
#pragma omp parallel for schedule(static) if (choices * dim > DM_WORTH_SHARING)
    for (size_t i = 0; i < choices; i++) {
        memcpy(a->grouped + (size_t)a->slots[i] * dim, a->h + i / (size_t)c->top_k * dim, dim * sizeof *a->h);
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
        {dm_weight_rows(&weights->matrices[DM_FFN_GATE_EXPS], (size_t)e * width, width), NULL, hidden, width},
        {dm_weight_rows(&weights->matrices[DM_FFN_UP_EXPS], (size_t)e * width, width), NULL, up, width},
    };
    const dm_linear_product out = {dm_weight_rows(&weights->matrices[DM_FFN_DOWN_EXPS], (size_t)e * dim, dim), NULL, x, dim};
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
    dm_activations *a = &session->scratch;
    dm_failure failure = {DM_OK, ""};
    const dm_config *c = &session->model->config;
    size_t work = n * (size_t)c->top_k * (size_t)c->expert_dim * (size_t)c->dim;
    group(session, n);
#pragma omp parallel for schedule(dynamic, 1) num_threads(dm_session_threads(session)) if (work > DM_WORTH_SHARING)
    for (int32_t e = 0; e < c->n_experts; e++) {
        float *widened = a->widened + (size_t)omp_get_thread_num() * a->widened_size;
        dm_failure_note(&failure, run_expert(session, weights, e, widened));
    }
    mix(session, n);
    return dm_failure_raise(&failure);
}

dm_status dm_forward_experts(dm_session *session, const dm_weights *weights, int32_t l, size_t n) {
    DM_TRY(route(session, weights, l, n));
    if (n == 1) {
        one_token(session, weights);
        return DM_OK;
    }
    return many_tokens(session, weights, n);
}
