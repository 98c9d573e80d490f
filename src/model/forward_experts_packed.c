/*
 * The mixture of experts over packed weights: each token is rounded to int8
 * once for all of its experts; each expert's weights are read once for all of
 * its tokens; what comes out of gate and up is rounded where it is made. A
 * token's result does not depend on which others it is computed with.
 */
#include <string.h>

#include "base/parallel.h"
#include "kernels/quantized.h"
#include "kernels/vector.h"
#include "model/forward.h"

enum { TOKENS_TOGETHER = 32, FEW_TOKENS = 8, PANELS_OUT = 4, UNIT = DM_PANEL_UNIT };

typedef struct experts {
    const dm_session *session;
    const dm_weights *weights;
    size_t n, dim, width, top_k;
    const dm_activations *a;
    size_t stride, hidden_stride; /* blocks between rounded rows of dim, of width */
    dm_expert_lists lists;        /* experts to run */
} experts;

bool dm_forward_experts_are_packed(const dm_session *session, const dm_weights *weights) {
    static const dm_role roles[] = {DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};
    for (int i = 0; i < 3; i++) {
        if (weights->matrices[roles[i]].panels == NULL) {
            return false;
        }
    }
    return session->model->config.expert_dim % UNIT == 0;
}

static void round_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        dm_quantized()->quantize(x->a->rounded + t * x->stride, x->a->h + t * x->dim, x->dim);
    }
}

/* grouped_rounded = the tokens' rounded rows in the experts' order */
static void gather_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    (void)thread;
    for (size_t slot = begin; slot < end; slot++) {
        memcpy(x->a->grouped_rounded + slot * x->stride, x->a->rounded + (size_t)x->a->choices[slot] / x->top_k * x->stride,
               x->dim / UNIT * sizeof(dm_q8_block));
    }
}

/* One matrix of an expert. */
static dm_weight matrix(const experts *x, dm_role role, int32_t e) {
    return dm_forward_expert_matrix(x->session, x->weights, role, e);
}

enum { PANELS_IN = UNIT / DM_PANEL_ROWS };

/* The expert that item i of a list belongs to, of `each` items for each expert. */
static int32_t expert_of(const experts *x, size_t list, size_t i, size_t each) {
    return x->lists.experts[x->lists.starts[list] + i / each];
}

/* The item of a list behind item i; the last one where there is none. */
static size_t next_item(const experts *x, size_t list, size_t i, size_t each) {
    return i + 1 < (x->lists.starts[list + 1] - x->lists.starts[list]) * each ? i + 1 : i;
}

/* The panels of gate behind those of piece i of a list. */
static const void *next_in(const experts *x, size_t list, size_t i) {
    size_t units = x->width / UNIT, next = next_item(x, list, i, units);
    dm_weight gate = matrix(x, DM_FFN_GATE_EXPS, expert_of(x, list, next, units));
    return dm_weight_panel(&gate, next % units * PANELS_IN);
}

/* Piece i of a list: 32 columns of an expert's hidden = silu(gate x) * up x, rounded, for all of its tokens. */
static void unit_in(const experts *x, size_t list, size_t i) {
    float gate[TOKENS_TOGETHER * UNIT], up[TOKENS_TOGETHER * UNIT];
    size_t unit = i % (x->width / UNIT);
    int32_t e = expert_of(x, list, i, x->width / UNIT);
    dm_weight gate_weight = matrix(x, DM_FFN_GATE_EXPS, e), up_weight = matrix(x, DM_FFN_UP_EXPS, e);
    const void *ups = dm_weight_panel(&up_weight, unit * PANELS_IN), *gates = next_in(x, list, i);
    size_t end = (size_t)x->a->starts[e + 1];
    for (size_t first = (size_t)x->a->starts[e]; first < end; first += TOKENS_TOGETHER) {
        size_t m = end - first < TOKENS_TOGETHER ? end - first : TOKENS_TOGETHER;
        const dm_q8_block *rows = x->a->grouped_rounded + first * x->stride;
        dm_weight_panels_product(&gate_weight, unit * PANELS_IN, PANELS_IN, rows, x->stride, m, gate, UNIT, ups);
        dm_weight_panels_product(&up_weight, unit * PANELS_IN, PANELS_IN, rows, x->stride, m, up, UNIT, gates);
        dm_vector()->swiglu(gate, gate, up, m * UNIT);
        for (size_t t = 0; t < m; t++) {
            dm_quantized()->quantize(x->a->hidden_rounded + (first + t) * x->hidden_stride + unit, gate + t * UNIT, UNIT);
        }
    }
}

static void in_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        unit_in(user, list, i);
    }
}

static size_t pieces_out(const experts *x) {
    return (dm_panel_count(x->dim) + PANELS_OUT - 1) / PANELS_OUT;
}

/* Piece i of a list: rows of grouped that some panels of an expert's down matrix give. */
static void panels_out(const experts *x, size_t list, size_t i) {
    size_t pieces = pieces_out(x), panel = i % pieces * PANELS_OUT, left = dm_panel_count(x->dim) - panel;
    int32_t e = expert_of(x, list, i, pieces);
    size_t first = (size_t)x->a->starts[e], m = (size_t)x->a->starts[e + 1] - first;
    size_t next = next_item(x, list, i, pieces);
    dm_weight weight = matrix(x, DM_FFN_DOWN_EXPS, e);
    dm_weight follows = matrix(x, DM_FFN_DOWN_EXPS, expert_of(x, list, next, pieces));
    dm_weight_panels_product(
        &weight, panel, left < PANELS_OUT ? left : PANELS_OUT, x->a->hidden_rounded + first * x->hidden_stride, x->hidden_stride,
        m, x->a->grouped + first * x->dim + panel * DM_PANEL_ROWS, x->dim, dm_weight_panel(&follows, next % pieces * PANELS_OUT));
}

static void out_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        panels_out(user, list, i);
    }
}

static experts about(const dm_expert_run *run) {
    const dm_config *c = &run->session->model->config;
    experts x = {run->session,
                 run->weights,
                 run->n,
                 (size_t)c->dim,
                 (size_t)c->expert_dim,
                 (size_t)c->top_k,
                 &run->session->scratch,
                 dm_q8_stride((size_t)c->dim),
                 dm_q8_stride((size_t)c->expert_dim),
                 {0}};
    return x;
}

static void begin_packed(const dm_expert_run *run) {
    enum { ROUNDING_COST = 4 }; /* in float32 multiplications */
    experts x = about(run);
    size_t choices = (size_t)x.a->starts[x.session->model->config.n_experts];
    dm_parallel(x.session->threads, x.n, dm_parallel_grain(ROUNDING_COST * x.dim), round_body, &x);
    dm_parallel(x.session->threads, choices, dm_parallel_grain(2 * x.dim), gather_body, &x);
}

static dm_status run_packed(const dm_expert_run *run, const int32_t *active, size_t n) {
    enum { INT8_FASTER = 2 }; /* than float32 multiplications */
    experts x = about(run);
    const int threads = x.session->threads;
    size_t tokens_each = 1; /* about */
    for (size_t i = 0; i < n; i++) {
        tokens_each += (size_t)(x.a->starts[active[i] + 1] - x.a->starts[active[i]]);
    }
    tokens_each = (tokens_each + n) / (n + 1);
    size_t units = x.width / UNIT, pieces = pieces_out(&x);
    size_t grain_in = dm_parallel_grain(2 * UNIT * x.dim * tokens_each / INT8_FASTER);
    size_t grain_out = dm_parallel_grain(PANELS_OUT * DM_PANEL_ROWS * x.width * tokens_each / INT8_FASTER);
    if (tokens_each <= FEW_TOKENS) { /* reading an expert takes longer than multiplying with it */
        grain_in = dm_parallel_run(grain_in, units, n * units, threads);
        grain_out = dm_parallel_run(grain_out, pieces, n * pieces, threads);
    }
    dm_forward_deal_out(run, active, n, &x.lists);
    dm_forward_share_experts(run, &x.lists, units, grain_in, in_body, &x);
    dm_forward_share_experts(run, &x.lists, pieces, grain_out, out_body, &x);
    return DM_OK;
}

const dm_expert_kernel dm_experts_packed = {begin_packed, run_packed, dm_forward_experts_mix};
