/* One new token for each of several sequences: dot products over the cache, block by block. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/linear.h"
#include "kernels/vector.h"
#include "model/attention_internal.h"

enum {
    WORTH_WIDENING = 3, /* heads of a group from which on a tile is widened once for all of them */
    HEADS_IN_A_RUN = 4, /* that a thread takes one after another: the next one's keys are asked for early */
};

/* Positions from .. to - 1 that the new token of a run sees. */
typedef struct span {
    size_t from, to;
} span;

static span seen_by(const dm_attention_shape *s, const dm_attention_run *run) {
    size_t to = run->start + 1;
    return (span){s->window != 0 && to > s->window ? to - s->window : 0, to};
}

static size_t blocks_of(span seen) {
    return (seen.to - 1) / STEP_BLOCK - seen.from / STEP_BLOCK + 1;
}

/* Where head h's result over block number `at` of its blocks goes: [width] sum, maximum, total. */
static float *partial_of(const dm_attention_shape *s, const dm_attention_run *run, size_t h, size_t at) {
    return run->partials + (h * blocks_of(seen_by(s, run)) + at) * (s->width + 2);
}

/* One kv head's work on one block. */
typedef struct task {
    const dm_attention_shape *shape;
    const dm_attention_run *run;
    size_t kv_head, group; /* heads kv_head * group .. + group - 1 */
    span seen;             /* positions within the block */
    bool widen;
    float *scores; /* [group, STEP_BLOCK] */
    float *tile;   /* [STEP_TILE, width] */
} task;

/* scores = q k, tile by tile, each for the whole group. The values are asked for meanwhile: two streams from memory bring
 * more than one. */
static void score(const task *t) {
    const dm_kv_cache *cache = t->run->cache;
    size_t width = t->shape->width;
    for (size_t at = t->seen.from; at < t->seen.to; at += STEP_TILE) {
        size_t n = t->seen.to - at < STEP_TILE ? t->seen.to - at : STEP_TILE;
        const uint8_t *rows = dm_kv_cache_row(cache, cache->keys, t->shape->layer, t->kv_head, at);
        dm_kv_cache_fetch(cache, dm_kv_cache_row(cache, cache->values, t->shape->layer, t->kv_head, at), n);
        if (t->widen) {
            dm_kv_cache_widen(cache, rows, n, t->tile);
        }
        for (size_t g = 0; g < t->group; g++) {
            float *scores = t->scores + g * STEP_BLOCK + (at - t->seen.from);
            const float *q = t->run->q + (t->kv_head * t->group + g) * width;
            if (t->widen) {
                dm_vector()->rows_dot_f32(scores, t->tile, n, q, width);
            } else {
                dm_kv_cache_dot(cache, scores, rows, n, q);
            }
        }
    }
}

/* partial += weights v, tile by tile, each for the whole group. Meanwhile the next head's keys are asked for. */
static void add_values(const task *t, float *partial, size_t stride) {
    const dm_kv_cache *cache = t->run->cache;
    size_t width = t->shape->width;
    for (size_t at = t->seen.from; at < t->seen.to; at += STEP_TILE) {
        size_t n = t->seen.to - at < STEP_TILE ? t->seen.to - at : STEP_TILE;
        const uint8_t *rows = dm_kv_cache_row(cache, cache->values, t->shape->layer, t->kv_head, at);
        if (t->kv_head + 1 < t->shape->n_kv_heads) {
            dm_kv_cache_fetch(cache, dm_kv_cache_row(cache, cache->keys, t->shape->layer, t->kv_head + 1, at), n);
        }
        if (t->widen) {
            dm_kv_cache_widen(cache, rows, n, t->tile);
        }
        for (size_t g = 0; g < t->group; g++) {
            const float *weights = t->scores + g * STEP_BLOCK + (at - t->seen.from);
            if (t->widen) {
                dm_vector()->rows_sum_f32(partial + g * stride, weights, t->tile, n, width);
            } else {
                dm_kv_cache_sum(cache, partial + g * stride, weights, rows, n);
            }
        }
    }
}

/* Block number `at` of those that the run sees. */
static void attend_block(const dm_attention_shape *s, const dm_attention_run *run, size_t kv_head, size_t at, float *scratch) {
    const dm_vector_table *vector = dm_vector();
    const float scale = 1.0f / sqrtf((float)s->width);
    size_t group = s->n_heads / s->n_kv_heads;
    span all = seen_by(s, run);
    size_t block = all.from / STEP_BLOCK + at;
    task t = {
        .shape = s, .run = run, .kv_head = kv_head, .group = group, .scores = scratch, .tile = scratch + group * STEP_BLOCK};
    t.seen.from = block * STEP_BLOCK > all.from ? block * STEP_BLOCK : all.from;
    t.seen.to = (block + 1) * STEP_BLOCK < all.to ? (block + 1) * STEP_BLOCK : all.to;
    t.widen = group >= WORTH_WIDENING && run->cache->type != DM_TYPE_F32 && run->cache->stored == s->width;
    size_t n = t.seen.to - t.seen.from;
    size_t stride = blocks_of(all) * (s->width + 2);
    float *first = partial_of(s, run, kv_head * group, at);
    score(&t);
    for (size_t g = 0; g < group; g++) {
        float *scores = t.scores + g * STEP_BLOCK;
        float *partial = first + g * stride;
        memset(partial, 0, s->width * sizeof *partial);
        partial[s->width] = scale * vector->max(scores, n);
        partial[s->width + 1] = vector->exp_sum(scores, scale, partial[s->width], n);
    }
    add_values(&t, first, stride);
}

/* out = the blocks' sums, each by the weight that its maximum gives it, in the order of the blocks */
static void merge(const dm_attention_shape *s, const dm_attention_run *run, size_t h) {
    const dm_vector_table *vector = dm_vector();
    size_t n = blocks_of(seen_by(s, run));
    float *out = run->out + h * s->width;
    float peak = -INFINITY, total = 0.0f;
    for (size_t b = 0; b < n; b++) {
        peak = fmaxf(peak, partial_of(s, run, h, b)[s->width]);
    }
    memset(out, 0, s->width * sizeof *out);
    for (size_t b = 0; b < n; b++) {
        const float *partial = partial_of(s, run, h, b);
        float weight = expf(partial[s->width] - peak);
        total += weight * partial[s->width + 1];
        vector->axpy(out, weight, partial, s->width);
    }
    vector->scale(out, 1.0f / total, out, s->width);
}

typedef struct steps {
    const dm_attention_shape *shape;
    const dm_attention_run *runs;
    size_t n_runs;
    float *scratch;
} steps;

static void blocks_body(void *user, size_t begin, size_t end, int thread) {
    const steps *it = user;
    const dm_attention_shape *s = it->shape;
    float *own = it->scratch + (size_t)thread * dm_attention_scratch(s);
    for (size_t i = begin; i < end; i++) { /* blocks outermost: the long sequences' many come last and even out */
        const dm_attention_run *run = &it->runs[i / s->n_kv_heads % it->n_runs];
        size_t block = i / s->n_kv_heads / it->n_runs;
        if (block < blocks_of(seen_by(s, run))) {
            attend_block(s, run, i % s->n_kv_heads, block, own);
        }
    }
}

static void merge_body(void *user, size_t begin, size_t end, int thread) {
    const steps *it = user;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        merge(it->shape, &it->runs[i / it->shape->n_heads], i % it->shape->n_heads);
    }
}

void dm_attention_steps(const dm_attention_shape *s, const dm_attention_run *runs, size_t n_runs, float *scratch, int threads) {
    size_t most = 0, work = 0;
    for (size_t r = 0; r < n_runs; r++) {
        span seen = seen_by(s, &runs[r]);
        most = blocks_of(seen) > most ? blocks_of(seen) : most;
        work += (seen.to - seen.from) * s->n_heads * s->width;
    }
    size_t tasks = n_runs * s->n_kv_heads * most;
    steps it = {s, runs, n_runs, scratch};
    if (tasks > 0) {
        size_t grain = dm_parallel_run(dm_parallel_grain(work / tasks), HEADS_IN_A_RUN, tasks, threads);
        dm_parallel(threads, tasks, grain, blocks_body, &it);
        dm_parallel(threads, n_runs * s->n_heads, dm_parallel_grain(s->width * most), merge_body, &it);
    }
}
