/* Attention: queries, keys and values, their norms and turns, the cache, and the product behind it. */
#include "base/parallel.h"
#include "kernels/vector.h"
#include "model/forward.h"

/* Where the batch's queries, keys and values are, ld floats between tokens. */
typedef struct heads {
    float *q, *k, *v;
    size_t ldq, ldkv;
} heads;

static dm_status project(const dm_pass *pass, const dm_weights *weights, heads *out) {
    const dm_config *c = &pass->work->model->config;
    const dm_activations *a = &pass->work->scratch;
    size_t q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t kv_width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    if (weights->matrices[DM_ATTN_QKV].data != NULL) {
        *out = (heads){a->q, a->q + q_width, a->q + q_width + kv_width, 3 * q_width, 3 * q_width};
        return dm_forward_linear(pass, weights, DM_ATTN_QKV, DM_ATTN_QKV_B, a->h, pass->n, a->q);
    }
    *out = (heads){a->q, a->k, a->v, q_width, kv_width};
    const dm_linear_product products[] = {
        dm_forward_product(weights, DM_ATTN_Q, DM_ATTN_Q_B, a->q),
        dm_forward_product(weights, DM_ATTN_K, DM_ATTN_K_B, a->k),
        dm_forward_product(weights, DM_ATTN_V, DM_ATTN_V_B, a->v),
    };
    return dm_linear(products, 3, a->h, (size_t)c->dim, pass->n, pass->rows, a->widened, pass->work->threads);
}

/* RMSNorm of each head, or of all together where the weight is as wide as they are. */
static void normalise(const dm_session *session, const dm_weights *weights, dm_role role, float *row, size_t n_heads) {
    const float *weight = weights->vectors[role];
    size_t head_dim = (size_t)session->model->config.head_dim;
    size_t width = weights->matrices[role].columns; /* checked: head_dim or n_heads * head_dim */
    for (size_t at = 0; weight != NULL && at < n_heads * head_dim; at += width) {
        dm_vector()->rmsnorm(row + at, row + at, weight, session->model->config.norm_eps, width);
    }
}

/* Norms and turns of one token's queries or keys. */
static void prepare(const dm_session *session, const dm_weights *weights, dm_role norm, float *row, int32_t n_heads, size_t t) {
    const dm_rope *rope = &session->rope;
    normalise(session, weights, norm, row, (size_t)n_heads);
    if (rope->kind != DM_ROPE_NONE) {
        const float *table = session->scratch.turns + t * dm_rope_table_size(rope);
        dm_rope_turn(rope, table, row, (size_t)n_heads, (size_t)session->model->config.head_dim);
    }
}

typedef struct appending {
    const dm_pass *pass;
    const dm_weights *weights;
    const heads *at;
    int32_t layer;
} appending;

static void append_body(void *user, size_t begin, size_t end, int thread) {
    const appending *it = user;
    const dm_session *work = it->pass->work;
    const dm_config *c = &work->model->config;
    const heads *at = it->at;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const dm_segment *segment = dm_segment_of(it->pass, row);
        const dm_session *session = segment->session;
        float *k = at->k + row * at->ldkv;
        prepare(work, it->weights, DM_ATTN_Q_NORM, at->q + row * at->ldq, c->n_heads, row);
        prepare(work, it->weights, DM_ATTN_K_NORM, k, c->n_kv_heads, row);
        dm_kv_cache_store(&session->cache, it->layer, (size_t)session->length + row - segment->first, k, at->v + row * at->ldkv);
    }
}

/* Norms and turns of all queries and keys, which then go to their sequences' caches with the values. */
static void append(const dm_pass *pass, const dm_weights *weights, const heads *at, int32_t l) {
    enum { TURNING_COST = 8 }; /* of a number with its storing, in multiplications */
    const dm_config *c = &pass->work->model->config;
    appending it = {pass, weights, at, l};
    size_t width = (size_t)(c->n_heads + 2 * c->n_kv_heads) * (size_t)c->head_dim;
    dm_parallel(pass->work->threads, pass->n, dm_parallel_grain(TURNING_COST * width), append_body, &it);
}

static dm_attention_run run_of(const dm_pass *pass, const dm_segment *segment, const heads *at) {
    const dm_config *c = &pass->work->model->config;
    size_t width = (size_t)c->n_heads * (size_t)c->head_dim;
    return (dm_attention_run){.cache = &segment->session->cache,
                              .start = (size_t)segment->session->length,
                              .n = segment->n,
                              .q = at->q + segment->first * at->ldq,
                              .ldq = at->ldq,
                              .out = pass->work->scratch.attended + segment->first * width,
                              .partials = segment->session->partials};
}

/* Chunks one after another, for each keeps all threads busy; the steps of all sequences together. */
static dm_status attend(const dm_pass *pass, const heads *at, int32_t l) {
    const dm_activations *a = &pass->work->scratch;
    const dm_attention_shape shape = dm_session_attention(pass->work, l);
    int threads = pass->work->threads;
    size_t steps = 0;
    for (size_t s = 0; s < pass->n_segments; s++) {
        dm_attention_run run = run_of(pass, &pass->segments[s], at);
        if (run.n == 1) {
            a->runs[steps++] = run;
        } else {
            DM_TRY(dm_attention_chunk(&shape, &run, a->attention, threads));
        }
    }
    dm_attention_steps(&shape, a->runs, steps, a->attention, threads);
    return DM_OK;
}

dm_status dm_forward_attention(const dm_pass *pass, const dm_weights *weights, int32_t l) {
    const dm_activations *a = &pass->work->scratch;
    heads at;
    const dm_role first = weights->matrices[DM_ATTN_QKV].data != NULL ? DM_ATTN_QKV : DM_ATTN_Q;
    DM_TRY(dm_forward_watch(pass, weights, first, a->h, NULL));
    DM_TRY(project(pass, weights, &at));
    dm_times_lap(&pass->work->times, DM_OPERATION_PROJECTIONS);
    append(pass, weights, &at, l);
    DM_TRY(attend(pass, &at, l));
    dm_times_lap(&pass->work->times, DM_OPERATION_ATTENTION);
    DM_TRY(dm_forward_watch(pass, weights, DM_ATTN_OUTPUT, a->attended, NULL));
    DM_TRY(dm_forward_linear(pass, weights, DM_ATTN_OUTPUT, DM_ATTN_OUTPUT_B, a->attended, pass->n, a->h));
    dm_times_lap(&pass->work->times, DM_OPERATION_PROJECTIONS);
    return DM_OK;
}
