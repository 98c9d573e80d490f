/* One new token for each of several sequences: dot products over the cache, block by block. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/linear.h"
#include "kernels/vector.h"
#include "model/attention_internal.h"

enum {
    HEADS_IN_A_RUN = 4, /* that a thread takes one after another: the next one's keys are asked for early */
    AHEAD = 16 << 10,   /* bytes between what is asked for and what is worked on: memory's answer takes that long */
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
    const dm_attention_run *run;
    size_t kv_head, block;
    span seen; /* positions within the block */
} task;

static task task_of(const dm_attention_shape *s, const dm_attention_run *run, size_t kv_head, size_t at) {
    span all = seen_by(s, run);
    size_t from = (all.from / STEP_BLOCK + at) * STEP_BLOCK, to = from + STEP_BLOCK;
    return (task){run, kv_head, at, {from > all.from ? from : all.from, to < all.to ? to : all.to}};
}

static size_t tiles_of(const task *t) {
    return (t->seen.to - t->seen.from + STEP_TILE - 1) / STEP_TILE;
}

/* Tile number `at` of a task's keys and, after them, values; number 0 and so on of the next task's, if any, after those. */
static const uint8_t *tile_of(const dm_attention_shape *s, const task *t, const task *next, size_t at) {
    size_t tiles = tiles_of(t);
    if (at >= 2 * tiles) {
        return next != NULL && at - 2 * tiles < tiles_of(next) ? tile_of(s, next, NULL, at - 2 * tiles) : NULL;
    }
    const dm_kv_cache *cache = t->run->cache;
    size_t position = t->seen.from + at % tiles * STEP_TILE;
    return dm_kv_cache_row(cache, at < tiles ? cache->keys : cache->values, s->layer, t->kv_head, position);
}

/* Tile number `at`, and what lies AHEAD of it. */
static dm_cached_rows rows_of(const dm_attention_shape *s, const task *t, const task *next, size_t at) {
    size_t left = t->seen.to - t->seen.from - at % tiles_of(t) * STEP_TILE;
    size_t tile_bytes = STEP_TILE * t->run->cache->row_bytes;
    return (dm_cached_rows){.data = tile_of(s, t, NULL, at),
                            .n = left < STEP_TILE ? left : STEP_TILE,
                            .width = s->width,
                            .ahead = tile_of(s, t, next, at + (AHEAD + tile_bytes - 1) / tile_bytes)};
}

/* scores [group, STEP_BLOCK] = q k, tile by tile, then weights; partial += weights v. */
static void attend_block(const dm_attention_shape *s, const task *t, const task *next, float *scores) {
    const dm_vector_table *vector = dm_vector();
    const dm_kv_cache *cache = t->run->cache;
    const float scale = 1.0f / sqrtf((float)s->width);
    size_t group = s->n_heads / s->n_kv_heads, n = t->seen.to - t->seen.from, tiles = tiles_of(t);
    size_t stride = blocks_of(seen_by(s, t->run)) * (s->width + 2);
    float *first = partial_of(s, t->run, t->kv_head * group, t->block);
    const float *q = t->run->q + t->kv_head * group * s->width;
    for (size_t at = 0; at < tiles; at++) {
        dm_cached_rows keys = rows_of(s, t, next, at);
        dm_kv_cache_dot(cache, scores + at * STEP_TILE, STEP_BLOCK, &keys, q, group);
    }
    for (size_t g = 0; g < group; g++) {
        float *partial = first + g * stride;
        memset(partial, 0, s->width * sizeof *partial);
        partial[s->width] = scale * vector->max(scores + g * STEP_BLOCK, n);
        partial[s->width + 1] = vector->exp_sum(scores + g * STEP_BLOCK, scale, partial[s->width], n);
    }
    for (size_t at = 0; at < tiles; at++) {
        dm_cached_rows values = rows_of(s, t, next, tiles + at);
        dm_kv_cache_sum(cache, first, stride, scores + at * STEP_TILE, STEP_BLOCK, &values, group);
    }
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

/* Task number i of those from `i` to `end` - 1 that there is, in *out; its number, or `end`. Blocks outermost: the long
 * sequences' many come last and even out. */
static size_t next_task(const steps *it, size_t i, size_t end, task *out) {
    const dm_attention_shape *s = it->shape;
    for (; i < end; i++) {
        const dm_attention_run *run = &it->runs[i / s->n_kv_heads % it->n_runs];
        size_t block = i / s->n_kv_heads / it->n_runs;
        if (block < blocks_of(seen_by(s, run))) {
            *out = task_of(s, run, i % s->n_kv_heads, block);
            break;
        }
    }
    return i;
}

static void blocks_body(void *user, size_t begin, size_t end, int thread) {
    const steps *it = user;
    float *own = it->scratch + (size_t)thread * dm_attention_scratch(it->shape);
    task now, next;
    for (size_t i = next_task(it, begin, end, &now); i < end; now = next) {
        i = next_task(it, i + 1, end, &next);
        attend_block(it->shape, &now, i < end ? &next : NULL, own);
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
