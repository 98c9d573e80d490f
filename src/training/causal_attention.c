#include "training/causal_attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/matmul.h"
#include "kernels/vector.h"

enum { BLOCK = 64 }; /* queries at a time */

size_t dm_causal_attention_scratch(size_t length) {
    return 2 * BLOCK * dm_matmul_stride(length);
}

/* One head of one sequence: pointers to its first row. */
typedef struct head {
    size_t index;    /* among the query heads */
    size_t first;    /* row of the sequence's first position */
    dm_rows q, k, v; /* at that row and the head's columns */
} head;

static head head_at(const dm_causal_attention *a, size_t sequence, size_t index, dm_rows q, dm_rows k, dm_rows v) {
    size_t first = sequence * a->length;
    size_t group = index / (a->n_heads / a->n_kv_heads);
    return (head){
        .index = index,
        .first = first,
        .q = {dm_row(q, first) + index * a->head_dim, q.stride},
        .k = {dm_row(k, first) + group * a->head_dim, k.stride},
        .v = {dm_row(v, first) + group * a->head_dim, v.stride},
    };
}

/* scores[rows, keys] = q[begin..] k^T, keys being all positions up to the block's last. */
static dm_status block_scores(const dm_causal_attention *a, const head *h, size_t begin, size_t rows, float *scores,
                              size_t stride) {
    return dm_matmul_forward(DM_PRECISION_F32, scores, stride, dm_row(h->q, begin), h->q.stride, h->k.data, h->k.stride, rows,
                             begin + rows, a->head_dim, false);
}

static dm_status forward_head(const dm_causal_attention *a, const head *h, dm_rows out, float *lse, float *scores) {
    const dm_vector_table *vector = dm_vector();
    const float scale = 1.0f / sqrtf((float)a->head_dim);
    const size_t stride = dm_matmul_stride(a->length);
    for (size_t begin = 0; begin < a->length; begin += BLOCK) {
        size_t rows = a->length - begin < BLOCK ? a->length - begin : BLOCK;
        size_t keys = begin + rows;
        DM_TRY(block_scores(a, h, begin, rows, scores, stride));
        for (size_t i = 0; i < rows; i++) {
            float *row = scores + i * stride;
            size_t seen = begin + i + 1;
            float shift = scale * vector->max(row, seen);
            float sum = vector->exp_sum(row, scale, shift, seen);
            vector->scale(row, 1.0f / sum, row, seen);
            memset(row + seen, 0, (keys - seen) * sizeof(float));
            lse[(h->first + begin + i) * a->n_heads + h->index] = shift + logf(sum);
        }
        float *to = dm_row(out, h->first + begin) + h->index * a->head_dim;
        DM_TRY(dm_matmul_input_gradient(DM_PRECISION_F32, to, out.stride, scores, stride, h->v.data, h->v.stride, rows, keys,
                                        a->head_dim, false));
    }
    return DM_OK;
}

dm_status dm_causal_attention_forward(const dm_causal_attention *a, dm_rows out, float *lse, dm_rows q, dm_rows k, dm_rows v) {
    const size_t per_thread = dm_causal_attention_scratch(a->length);
    dm_failure failure = {DM_OK, ""};
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (size_t s = 0; s < a->sequences; s++) {
        for (size_t index = 0; index < a->n_heads; index++) {
            head h = head_at(a, s, index, q, k, v);
            float *scratch = a->scratch + (size_t)omp_get_thread_num() * per_thread;
            dm_failure_note(&failure, forward_head(a, &h, out, lse, scratch));
        }
    }
    return dm_failure_raise(&failure);
}

/* d holds the gradients, at the same rows and columns as the q, k and v of h. */
static dm_status backward_head(const dm_causal_attention *a, const head *h, const head *d, dm_rows dout, dm_rows out,
                               const float *lse, float *scratch) {
    const dm_vector_table *vector = dm_vector();
    const float scale = 1.0f / sqrtf((float)a->head_dim);
    const size_t stride = dm_matmul_stride(a->length);
    float *p = scratch;
    float *dp = p + BLOCK * stride;
    for (size_t begin = 0; begin < a->length; begin += BLOCK) {
        size_t rows = a->length - begin < BLOCK ? a->length - begin : BLOCK;
        size_t keys = begin + rows;
        const float *dout_block = dm_row(dout, h->first + begin) + h->index * a->head_dim;
        const float *out_block = dm_row(out, h->first + begin) + h->index * a->head_dim;
        DM_TRY(block_scores(a, h, begin, rows, p, stride));
        DM_TRY(dm_matmul_forward(DM_PRECISION_F32, dp, stride, dout_block, dout.stride, h->v.data, h->v.stride, rows, keys,
                                 a->head_dim, false));
        for (size_t i = 0; i < rows; i++) {
            float *row = p + i * stride;
            float *drow = dp + i * stride;
            size_t seen = begin + i + 1;
            vector->exp_sum(row, scale, lse[(h->first + begin + i) * a->n_heads + h->index], seen);
            float delta = vector->dot(dout_block + i * dout.stride, out_block + i * out.stride, a->head_dim);
            vector->softmax_backward(drow, row, drow, delta, scale, seen);
            memset(row + seen, 0, (keys - seen) * sizeof(float));
            memset(drow + seen, 0, (keys - seen) * sizeof(float));
        }
        DM_TRY(dm_matmul_input_gradient(DM_PRECISION_F32, dm_row(d->q, begin), d->q.stride, dp, stride, h->k.data, h->k.stride,
                                        rows, keys, a->head_dim, false));
        DM_TRY(dm_matmul_weight_gradient(DM_PRECISION_F32, d->k.data, d->k.stride, dp, stride, dm_row(h->q, begin), h->q.stride,
                                         rows, keys, a->head_dim, true));
        DM_TRY(dm_matmul_weight_gradient(DM_PRECISION_F32, d->v.data, d->v.stride, p, stride, dout_block, dout.stride, rows, keys,
                                         a->head_dim, true));
    }
    return DM_OK;
}

static void clear(const dm_causal_attention *a, dm_rows x) {
    for (size_t i = 0; i < a->length; i++) {
        memset(dm_row(x, i), 0, a->head_dim * sizeof(float));
    }
}

/* The query heads of a group share a key head, so they go one after another in one task. */
dm_status dm_causal_attention_backward(const dm_causal_attention *a, dm_rows dq, dm_rows dk, dm_rows dv, dm_rows dout,
                                       dm_rows out, const float *lse, dm_rows q, dm_rows k, dm_rows v) {
    const size_t per_thread = dm_causal_attention_scratch(a->length);
    const size_t group = a->n_heads / a->n_kv_heads;
    dm_failure failure = {DM_OK, ""};
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (size_t s = 0; s < a->sequences; s++) {
        for (size_t kv = 0; kv < a->n_kv_heads; kv++) {
            for (size_t index = kv * group; index < (kv + 1) * group; index++) {
                head h = head_at(a, s, index, q, k, v);
                head d = head_at(a, s, index, dq, dk, dv);
                if (index == kv * group) {
                    clear(a, d.k);
                    clear(a, d.v);
                }
                float *scratch = a->scratch + (size_t)omp_get_thread_num() * per_thread;
                dm_failure_note(&failure, backward_head(a, &h, &d, dout, out, lse, scratch));
            }
        }
    }
    return dm_failure_raise(&failure);
}
