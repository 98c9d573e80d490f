#include "training/experts.h"

#include <omp.h>
#include <string.h>

#include "base/threads.h"
#include "core/loss.h"
#include "kernels/vector.h"

/* ---- Grouping tokens by expert ---- */

/* A counting sort: stable, so each expert sees its tokens in order. */
static void group_by_expert(const dm_experts *layer, dm_experts_state *s, size_t n) {
    const size_t k = (size_t)layer->router.top_k;
    const int32_t n_experts = layer->router.n_experts;
    memset(s->loads, 0, (size_t)n_experts * sizeof *s->loads);
    dm_router_count(s->experts, n, layer->router.top_k, s->loads);
    s->offsets[0] = 0;
    for (int32_t e = 0; e < n_experts; e++) {
        s->offsets[e + 1] = s->offsets[e] + (int32_t)s->loads[e];
    }
    for (size_t i = 0; i < n * k; i++) {
        int32_t at = s->experts[i] >= 0 ? s->offsets[s->experts[i]]++ : -1;
        s->place[i] = at;
        if (at >= 0) {
            s->token[at] = (int32_t)(i / k);
        }
    }
    for (int32_t e = n_experts; e > 0; e--) { /* undo the advance */
        s->offsets[e] = s->offsets[e - 1];
    }
    s->offsets[0] = 0;
}

dm_status dm_experts_score(const dm_experts *layer, dm_experts_state *s, dm_rows x, size_t n) {
    return dm_matmul_forward(DM_PRECISION_F32, s->p.data, s->p.stride, x.data, x.stride, layer->router_weight, layer->dim, n,
                             (size_t)layer->router.n_experts, layer->dim, false);
}

void dm_experts_route(const dm_experts *layer, dm_experts_state *s, size_t n) {
    const size_t k = (size_t)layer->router.top_k;
#pragma omp parallel
    {
        /* rows lie further apart than they are long, so one at a time */
#pragma omp for schedule(static)
        for (size_t t = 0; t < n; t++) {
            dm_router_route(&layer->router, dm_row(s->p, t), 1, s->experts + t * k, s->gates + t * k);
        }
    }
    group_by_expert(layer, s, n);
}

/* Pieces (expert, first place) of at most DM_EXPERT_PIECE pairs. */
static size_t list_pieces(const dm_experts *layer, const dm_experts_state *s, int32_t *tasks) {
    size_t count = 0;
    for (int32_t e = 0; e < layer->router.n_experts; e++) {
        for (int32_t at = s->offsets[e]; at < s->offsets[e + 1]; at += DM_EXPERT_PIECE) {
            tasks[2 * count] = e;
            tasks[2 * count + 1] = at;
            count++;
        }
    }
    return count;
}

/* Memory of one thread for one piece. */
typedef struct piece_scratch {
    dm_rows x, dy;      /* [DM_EXPERT_PIECE, dim] rows gathered from the tokens */
    dm_rows h, dh;      /* [DM_EXPERT_PIECE, expert_dim] */
    dm_rows dgate, dup; /* [DM_EXPERT_PIECE, expert_dim] */
} piece_scratch;

size_t dm_experts_scratch_floats(size_t dim, size_t expert_dim) {
    return DM_EXPERT_PIECE * (2 * dm_matmul_stride(dim) + 4 * dm_matmul_stride(expert_dim));
}

static piece_scratch my_scratch(const dm_experts *layer, const dm_experts_scratch *scratch) {
    size_t wide = dm_matmul_stride(layer->dim);
    size_t narrow = dm_matmul_stride(layer->expert_dim);
    size_t per_thread = dm_experts_scratch_floats(layer->dim, layer->expert_dim);
    float *at = scratch->per_thread + (size_t)omp_get_thread_num() * per_thread;
    piece_scratch mine;
    dm_rows *const rows[] = {&mine.x, &mine.dy, &mine.h, &mine.dh, &mine.dgate, &mine.dup};
    for (size_t i = 0; i < 6; i++) {
        size_t stride = i < 2 ? wide : narrow;
        *rows[i] = (dm_rows){at, stride};
        at += DM_EXPERT_PIECE * stride;
    }
    return mine;
}

static void gather(dm_rows to, dm_rows from, const int32_t *tokens, size_t n, size_t dim) {
    for (size_t i = 0; i < n; i++) {
        memcpy(dm_row(to, i), dm_row(from, (size_t)tokens[i]), dim * sizeof(float));
    }
}

static dm_rows rows_from(dm_rows rows, size_t first) {
    return (dm_rows){dm_row(rows, first), rows.stride};
}

/* ---- Forward ---- */

static dm_status forward_piece(const dm_experts *layer, dm_experts_state *s, const dm_experts_scratch *scratch, dm_rows x,
                               size_t e, size_t first, size_t n) {
    const dm_vector_table *vector = dm_vector();
    const size_t dim = layer->dim;
    const size_t width = layer->expert_dim;
    piece_scratch mine = my_scratch(layer, scratch);
    dm_rows gate = rows_from(s->gate_out, first);
    dm_rows up = rows_from(s->up_out, first);
    dm_rows out = rows_from(scratch->pairs, first);
    gather(mine.x, x, s->token + first, n, dim);
    DM_TRY(dm_matmul_forward(layer->precision, gate.data, gate.stride, mine.x.data, mine.x.stride, layer->gate + e * width * dim,
                             dim, n, width, dim, false));
    DM_TRY(dm_matmul_forward(layer->precision, up.data, up.stride, mine.x.data, mine.x.stride, layer->up + e * width * dim, dim,
                             n, width, dim, false));
    for (size_t i = 0; i < n; i++) {
        vector->swiglu(dm_row(mine.h, i), dm_row(gate, i), dm_row(up, i), width);
    }
    return dm_matmul_forward(layer->precision, out.data, out.stride, mine.h.data, mine.h.stride, layer->down + e * dim * width,
                             width, n, dim, width, false);
}

dm_status dm_experts_forward(const dm_experts *layer, dm_experts_state *s, dm_experts_scratch *scratch, dm_rows y, dm_rows x,
                             size_t n) {
    const dm_vector_table *vector = dm_vector();
    const size_t k = (size_t)layer->router.top_k;
    size_t pieces = list_pieces(layer, s, scratch->tasks);
    dm_failure failure = {DM_OK, ""};
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < pieces; i++) {
        size_t e = (size_t)scratch->tasks[2 * i];
        size_t first = (size_t)scratch->tasks[2 * i + 1];
        size_t end = (size_t)s->offsets[e + 1];
        size_t count = end - first < DM_EXPERT_PIECE ? end - first : DM_EXPERT_PIECE;
        dm_failure_note(&failure, forward_piece(layer, s, scratch, x, e, first, count));
    }
    DM_TRY(dm_failure_raise(&failure));
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++) {
        for (size_t j = 0; j < k; j++) {
            size_t pair = t * k + j;
            if (s->place[pair] >= 0) {
                vector->axpy(dm_row(y, t), s->gates[pair], dm_row(scratch->pairs, (size_t)s->place[pair]), layer->dim);
            }
        }
    }
    return DM_OK;
}

/* ---- Backward ---- */

/* Gradients of n tokens of an expert with respect to what its three matrices give. */
static void show(const dm_experts *layer, const piece_scratch *mine, const float *gates, size_t e, size_t n) {
    const dm_gradient_watch *watch = layer->watch;
    const struct {
        dm_role role;
        dm_rows dy;
        size_t columns;
    } matrices[] = {{DM_FFN_GATE_EXPS, mine->dgate, layer->expert_dim},
                    {DM_FFN_UP_EXPS, mine->dup, layer->expert_dim},
                    {DM_FFN_DOWN_EXPS, mine->dy, layer->dim}};
    for (size_t i = 0; i < 3 && watch != NULL; i++) {
        const dm_gradient_seen seen = {.layer = layer->layer,
                                       .role = matrices[i].role,
                                       .expert = (int32_t)e,
                                       .dy = matrices[i].dy,
                                       .n = n,
                                       .columns = matrices[i].columns,
                                       .gates = gates,
                                       .before_gates = matrices[i].role == DM_FFN_DOWN_EXPS};
        watch->see(watch->user, &seen);
    }
}

/*
 * With y = gate_weight * down h: dh0 = down^T dy is shared by the gradient of the gate weight, <dh0, h>, and that of h,
 * gate_weight * dh0; so the expert's output itself need not be kept. `weights` are the gate weights of the piece's pairs.
 */
static dm_status backward_piece(const dm_experts *layer, const dm_experts_gradient *g, const dm_experts_state *s,
                                const dm_experts_scratch *scratch, dm_rows dy, dm_rows x, const float *weights, size_t e,
                                size_t first, size_t n) {
    const dm_vector_table *vector = dm_vector();
    const size_t dim = layer->dim;
    const size_t width = layer->expert_dim;
    const size_t at = e * width * dim; /* of this expert in gate, up and down alike */
    const dm_precision precision = layer->precision;
    piece_scratch mine = my_scratch(layer, scratch);
    dm_rows dx = rows_from(scratch->pairs, first);
    gather(mine.x, x, s->token + first, n, dim);
    gather(mine.dy, dy, s->token + first, n, dim);
    DM_TRY(dm_matmul_input_gradient(precision, mine.dh.data, mine.dh.stride, mine.dy.data, mine.dy.stride, layer->down + at,
                                    width, n, dim, width, false));
    for (size_t i = 0; i < n; i++) {
        float *h = dm_row(mine.h, i);
        float *dh = dm_row(mine.dh, i);
        float weight = weights[first + i];
        const float *gate = dm_row(s->gate_out, first + i);
        const float *up = dm_row(s->up_out, first + i);
        vector->swiglu(h, gate, up, width);
        scratch->dgates[first + i] = vector->dot(dh, h, width);
        vector->scale(dh, weight, dh, width);
        vector->swiglu_backward(dm_row(mine.dgate, i), dm_row(mine.dup, i), NULL, dh, gate, up, width);
        vector->scale(h, weight, h, width);
    }
    show(layer, &mine, weights + first, e, n);
    DM_TRY(dm_matmul_weight_gradient(precision, g->down + at, width, mine.dy.data, mine.dy.stride, mine.h.data, mine.h.stride, n,
                                     dim, width, true));
    DM_TRY(dm_matmul_weight_gradient(precision, g->gate + at, dim, mine.dgate.data, mine.dgate.stride, mine.x.data, mine.x.stride,
                                     n, width, dim, true));
    DM_TRY(dm_matmul_weight_gradient(precision, g->up + at, dim, mine.dup.data, mine.dup.stride, mine.x.data, mine.x.stride, n,
                                     width, dim, true));
    DM_TRY(dm_matmul_input_gradient(precision, dx.data, dx.stride, mine.dgate.data, mine.dgate.stride, layer->gate + at, dim, n,
                                    width, dim, false));
    return dm_matmul_input_gradient(precision, dx.data, dx.stride, mine.dup.data, mine.dup.stride, layer->up + at, dim, n, width,
                                    dim, true);
}

/* An expert's pieces follow one another in one task, as they add to the same gradients. */
static dm_status backward_experts(const dm_experts *layer, const dm_experts_gradient *g, const dm_experts_state *s,
                                  const dm_experts_scratch *scratch, dm_rows dy, dm_rows x, const float *weights) {
    dm_failure failure = {DM_OK, ""};
#pragma omp parallel for schedule(dynamic)
    for (int32_t e = 0; e < layer->router.n_experts; e++) {
        for (int32_t at = s->offsets[e]; at < s->offsets[e + 1]; at += DM_EXPERT_PIECE) {
            int32_t left = s->offsets[e + 1] - at;
            size_t count = left < DM_EXPERT_PIECE ? (size_t)left : DM_EXPERT_PIECE;
            dm_failure_note(&failure, backward_piece(layer, g, s, scratch, dy, x, weights, (size_t)e, (size_t)at, count));
        }
    }
    return dm_failure_raise(&failure);
}

/*
 * Renormalised over the chosen experts, the gates are the softmax of the chosen logits, whatever the others are:
 * dlogit_j = gate_j (dgate_j - sum_i gate_i dgate_i). The Switch loss and others add their slopes through the full softmax.
 */
static void backward_gates(const dm_experts *layer, const dm_experts_state *s, const float *dgates, size_t t, float *dlogits) {
    const size_t k = (size_t)layer->router.top_k;
    float mean = 0.0f;
    for (size_t j = 0; j < k; j++) {
        size_t pair = t * k + j;
        mean += s->place[pair] >= 0 ? s->gates[pair] * dgates[s->place[pair]] : 0.0f;
    }
    for (size_t j = 0; j < k; j++) {
        size_t pair = t * k + j;
        if (s->place[pair] >= 0) {
            dlogits[s->experts[pair]] += s->gates[pair] * (dgates[s->place[pair]] - mean);
        }
    }
}

static void backward_router(const dm_experts *layer, const dm_experts_state *s, const dm_experts_scratch *scratch, size_t n,
                            const dm_router_slopes *slopes) {
    const dm_vector_table *vector = dm_vector();
    const size_t n_experts = (size_t)layer->router.n_experts;
    const double aux = slopes->switch_weight;
    if (aux != 0.0) {
        dm_switch_loss(s->p.data, s->p.stride, n, layer->router.n_experts, layer->router.top_k, s->loads, scratch->slopes);
    }
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++) {
        float *dlogits = dm_row(scratch->dlogits, t);
        const float *p = dm_row(s->p, t);
        if (aux != 0.0) {
            float mean = vector->dot(p, scratch->slopes, n_experts);
            vector->softmax_backward(dlogits, p, scratch->slopes, mean, (float)aux, n_experts);
        } else {
            memset(dlogits, 0, n_experts * sizeof(float));
        }
        if (slopes->slopes.data != NULL) {
            float *others = dm_row(slopes->slopes, t);
            float mean = vector->dot(p, others, n_experts);
            vector->softmax_backward(others, p, others, mean, (float)slopes->scale, n_experts);
            vector->add(dlogits, dlogits, others, n_experts);
        }
        backward_gates(layer, s, scratch->dgates, t, dlogits);
    }
}

dm_status dm_experts_backward(const dm_experts *layer, const dm_experts_gradient *g, const dm_experts_state *s,
                              dm_experts_scratch *scratch, dm_rows dx, dm_rows dy, dm_rows x, size_t n,
                              const dm_router_slopes *slopes) {
    const dm_vector_table *vector = dm_vector();
    const size_t k = (size_t)layer->router.top_k;
    const size_t n_experts = (size_t)layer->router.n_experts;
    float *weights = scratch->weights;
    for (size_t i = 0; i < n * k; i++) {
        if (s->place[i] >= 0) {
            weights[s->place[i]] = s->gates[i];
        }
    }
    DM_TRY(backward_experts(layer, g, s, scratch, dy, x, weights));
    backward_router(layer, s, scratch, n, slopes);
    DM_TRY(dm_matmul_weight_gradient(DM_PRECISION_F32, g->router_weight, layer->dim, scratch->dlogits.data,
                                     scratch->dlogits.stride, x.data, x.stride, n, n_experts, layer->dim, true));
    DM_TRY(dm_matmul_input_gradient(DM_PRECISION_F32, dx.data, dx.stride, scratch->dlogits.data, scratch->dlogits.stride,
                                    layer->router_weight, layer->dim, n, n_experts, layer->dim, false));
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++) {
        for (size_t j = 0; j < k; j++) {
            if (s->place[t * k + j] >= 0) {
                vector->add(dm_row(dx, t), dm_row(dx, t), dm_row(scratch->pairs, (size_t)s->place[t * k + j]), layer->dim);
            }
        }
    }
    return DM_OK;
}
