/* Dense feed-forward blocks: SwiGLU (Shazeer 2020) or GELU, and the expert that every token shares. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/vector.h"
#include "model/forward.h"

/* The tensors of one block. */
typedef struct block {
    dm_role gate, gate_bias, up, up_bias, down, down_bias;
} block;

/* Columns of ffn, of each token. */
typedef struct activation {
    float *ffn;
    const float *up; /* NULL: GELU */
    size_t width;
} activation;

static void activation_body(void *user, size_t begin, size_t end, int thread) {
    const activation *it = user;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *row = it->ffn + t * it->width;
        if (it->up != NULL) {
            dm_vector()->swiglu(row, row, it->up + t * it->width, it->width);
        } else {
            dm_vector()->gelu(row, row, it->width);
        }
    }
}

static void activate(const dm_pass *pass, const float *up, size_t width) {
    activation it = {pass->work->scratch.ffn, up, width};
    dm_parallel(pass->work->threads, pass->n, dm_parallel_grain(8 * width), activation_body, &it);
}

/* y = down(silu(gate(h)) * up(h)) */
static dm_status gated(const dm_pass *pass, const dm_weights *weights, const block *with, float *y) {
    const dm_activations *a = &pass->work->scratch;
    const dm_linear_product in[] = {
        dm_forward_product(weights, with->gate, with->gate_bias, a->ffn),
        dm_forward_product(weights, with->up, with->up_bias, a->ffn_up),
    };
    DM_TRY(dm_linear(in, 2, a->h, in[0].weight.columns, pass->n, pass->rows, a->widened, pass->work->threads));
    activate(pass, a->ffn_up, in[0].weight.rows);
    return dm_forward_linear(pass, weights, with->down, with->down_bias, a->ffn, pass->n, y);
}

/* h = down(gelu(up(h))) */
static dm_status plain(const dm_pass *pass, const dm_weights *weights) {
    const dm_activations *a = &pass->work->scratch;
    DM_TRY(dm_forward_linear(pass, weights, DM_FFN_UP, DM_FFN_UP_B, a->h, pass->n, a->ffn));
    activate(pass, NULL, (size_t)pass->work->model->config.ffn_dim);
    return dm_forward_linear(pass, weights, DM_FFN_DOWN, DM_FFN_DOWN_B, a->ffn, pass->n, a->h);
}

dm_status dm_forward_dense(const dm_pass *pass, const dm_weights *weights) {
    static const block dense = {DM_FFN_GATE, DM_FFN_GATE_B, DM_FFN_UP, DM_FFN_UP_B, DM_FFN_DOWN, DM_FFN_DOWN_B};
    DM_TRY(weights->matrices[DM_FFN_GATE].data != NULL ? gated(pass, weights, &dense, pass->work->scratch.h)
                                                       : plain(pass, weights));
    dm_times_lap(&pass->work->times, DM_OPERATION_FEED_FORWARD);
    return DM_OK;
}

dm_status dm_forward_shared(const dm_pass *pass, const dm_weights *weights) {
    static const block shared = {DM_FFN_GATE_SHEXP, DM_ROLES, DM_FFN_UP_SHEXP, DM_ROLES, DM_FFN_DOWN_SHEXP, DM_ROLES};
    const dm_vector_table *vector = dm_vector();
    const dm_activations *a = &pass->work->scratch;
    const float *gate = weights->vectors[DM_FFN_ROUTER_SHEXP];
    size_t dim = (size_t)pass->work->model->config.dim;
    DM_TRY(gated(pass, weights, &shared, a->shared));
    for (size_t t = 0; t < pass->n; t++) {
        float share = 1.0f / (1.0f + expf(-vector->dot(gate, a->h + t * dim, dim)));
        vector->scale(a->shared + t * dim, share, a->shared + t * dim, dim);
    }
    dm_times_lap(&pass->work->times, DM_OPERATION_SHARED_EXPERT);
    return DM_OK;
}
