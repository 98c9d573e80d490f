/* Attention of many new tokens of one sequence: tiles of queries by keys. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/linear.h"
#include "kernels/matmul.h"
#include "kernels/vector.h"
#include "model/attention_internal.h"

enum { FEW_QUERIES = 6 }; /* up to here dot products beat a matrix product */

/* The queries of one head that are handled together, and the keys at hand. */
typedef struct tile {
    const float *q;      /* [n, width], ldq apart */
    float *out;          /* [n, width], ld_out apart */
    const float *keys;   /* [n_keys, width], ld_keys apart */
    const float *values; /* [n_keys, width], ld_keys apart */
    size_t ldq, ld_out, ld_keys;
    size_t n, n_keys, width;
    size_t position;       /* of the first query */
    size_t window;         /* a query sees itself and window - 1 positions before */
    size_t first_key;      /* position of keys[0] */
    float *scores;         /* [n, CHUNK_KEYS] */
    float *peaks, *totals; /* [n] running maximum and sum */
} tile;

/* Which of the tile's keys query i may see: from .. to - 1. */
typedef struct span {
    size_t from, to;
} span;

static span visible(const tile *t, size_t i) {
    size_t end = t->position + i + 1;
    size_t begin = end > t->window ? end - t->window : 0;
    span seen = {begin > t->first_key ? begin - t->first_key : 0, end > t->first_key ? end - t->first_key : 0};
    seen.to = seen.to < t->n_keys ? seen.to : t->n_keys;
    seen.from = seen.from < seen.to ? seen.from : seen.to;
    return seen;
}

/* scores = q keys^T */
static dm_status score(const tile *t) {
    if (t->n > FEW_QUERIES) {
        return dm_matmul_forward(DM_PRECISION_F32, t->scores, CHUNK_KEYS, t->q, t->ldq, t->keys, t->ld_keys, t->n, t->n_keys,
                                 t->width, false);
    }
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < t->n; i++) {
        span seen = visible(t, i);
        for (size_t j = seen.from; j < seen.to; j++) {
            t->scores[i * CHUNK_KEYS + j] = vector->dot(t->q + i * t->ldq, t->keys + j * t->ld_keys, t->width);
        }
    }
    return DM_OK;
}

/* out += scores values */
static dm_status add_values(const tile *t) {
    if (t->n > FEW_QUERIES) {
        return dm_matmul_input_gradient(DM_PRECISION_F32, t->out, t->ld_out, t->scores, CHUNK_KEYS, t->values, t->ld_keys, t->n,
                                        t->n_keys, t->width, true);
    }
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < t->n; i++) {
        span seen = visible(t, i);
        for (size_t j = seen.from; j < seen.to; j++) {
            vector->axpy(t->out + i * t->ld_out, t->scores[i * CHUNK_KEYS + j], t->values + j * t->ld_keys, t->width);
        }
    }
    return DM_OK;
}

/* Scores become weights against the running maximum; what was summed before shrinks when the maximum rises. */
static void rescale(const tile *t) {
    const dm_vector_table *vector = dm_vector();
    float scale = 1.0f / sqrtf((float)t->width);
    for (size_t i = 0; i < t->n; i++) {
        float *row = t->scores + i * CHUNK_KEYS;
        span seen = visible(t, i);
        size_t n = seen.to - seen.from;
        memset(row, 0, seen.from * sizeof *row);
        memset(row + seen.to, 0, (t->n_keys - seen.to) * sizeof *row);
        if (n == 0) {
            continue;
        }
        float peak = fmaxf(t->peaks[i], scale * vector->max(row + seen.from, n));
        float shrink = expf(t->peaks[i] - peak);
        t->totals[i] = shrink * t->totals[i] + vector->exp_sum(row + seen.from, scale, peak, n);
        if (shrink != 1.0f) {
            vector->scale(t->out + i * t->ld_out, shrink, t->out + i * t->ld_out, t->width);
        }
        t->peaks[i] = peak;
    }
}

/* Queries first .. first + n - 1 of all heads that share a kv head, and scratch for them. */
typedef struct group {
    const dm_attention_shape *shape;
    const dm_attention_run *run;
    size_t kv_head, size; /* heads kv_head * size .. + size - 1 */
    size_t first, n;
    float *scores, *peaks, *totals; /* [size, CHUNK_QUERIES] the latter two */
    float *keys, *values;           /* [CHUNK_KEYS, stored] widened */
} group;

static tile tile_of(const group *g, size_t member) {
    const dm_attention_shape *s = g->shape;
    size_t head = g->kv_head * g->size + member;
    tile t = {.ldq = g->run->ldq,
              .ld_out = s->n_heads * s->width,
              .ld_keys = g->run->cache->stored,
              .n = g->n,
              .width = s->width,
              .position = g->run->start + g->first,
              .window = s->window != 0 ? s->window : SIZE_MAX,
              .scores = g->scores,
              .peaks = g->peaks + member * CHUNK_QUERIES,
              .totals = g->totals + member * CHUNK_QUERIES};
    t.q = g->run->q + g->first * t.ldq + head * s->width;
    t.out = g->run->out + g->first * t.ld_out + head * s->width;
    return t;
}

/* n rows of keys or values from position `at` on, as floats; `room` is used unless they are floats already. */
static const float *rows_at(const group *g, uint8_t *array, size_t at, size_t n, float *room) {
    const dm_kv_cache *cache = g->run->cache;
    const uint8_t *rows = dm_kv_cache_row(cache, array, g->shape->layer, g->kv_head, at);
    if (cache->type == DM_TYPE_F32) {
        return (const float *)(const void *)rows;
    }
    dm_kv_cache_widen(cache, rows, n, room);
    return room;
}

static void start(const group *g) {
    for (size_t member = 0; member < g->size; member++) {
        tile t = tile_of(g, member);
        for (size_t i = 0; i < t.n; i++) {
            t.peaks[i] = -INFINITY;
            t.totals[i] = 0.0f;
            memset(t.out + i * t.ld_out, 0, t.width * sizeof *t.out);
        }
    }
}

static void finish(const group *g) {
    for (size_t member = 0; member < g->size; member++) {
        tile t = tile_of(g, member);
        for (size_t i = 0; i < t.n; i++) {
            dm_vector()->scale(t.out + i * t.ld_out, 1.0f / t.totals[i], t.out + i * t.ld_out, t.width);
        }
    }
}

static dm_status attend(const group *g) {
    const dm_kv_cache *cache = g->run->cache;
    tile any = tile_of(g, 0);
    size_t end = any.position + any.n;                                                /* the last query sees itself */
    size_t begin = any.position + 1 > any.window ? any.position + 1 - any.window : 0; /* what the first query sees first */
    start(g);
    for (size_t key = begin / CHUNK_KEYS * CHUNK_KEYS; key < end; key += CHUNK_KEYS) {
        size_t n_keys = end - key < CHUNK_KEYS ? end - key : CHUNK_KEYS;
        const float *keys = rows_at(g, cache->keys, key, n_keys, g->keys);
        const float *values = rows_at(g, cache->values, key, n_keys, g->values);
        for (size_t member = 0; member < g->size; member++) {
            tile t = tile_of(g, member);
            t.first_key = key;
            t.n_keys = n_keys;
            t.keys = keys;
            t.values = values;
            DM_TRY(score(&t));
            rescale(&t);
            DM_TRY(add_values(&t));
        }
    }
    finish(g);
    return DM_OK;
}

typedef struct chunk {
    const dm_attention_shape *shape;
    const dm_attention_run *run;
    float *scratch;
    size_t blocks;
    dm_failure failure;
} chunk;

static void chunk_body(void *user, size_t begin, size_t end, int thread) {
    chunk *c = user;
    const dm_attention_shape *s = c->shape;
    const dm_attention_run *run = c->run;
    size_t size = s->n_heads / s->n_kv_heads;
    float *own = c->scratch + (size_t)thread * dm_attention_scratch(s);
    for (size_t i = begin; i < end; i++) {
        size_t first = (c->blocks - 1 - i / s->n_kv_heads) * CHUNK_QUERIES; /* the longest first */
        group g = {.shape = s, .run = run, .kv_head = i % s->n_kv_heads, .size = size, .first = first};
        g.n = run->n - first < CHUNK_QUERIES ? run->n - first : CHUNK_QUERIES;
        g.scores = own;
        g.peaks = g.scores + CHUNK_QUERIES * CHUNK_KEYS;
        g.totals = g.peaks + size * CHUNK_QUERIES;
        g.keys = g.totals + size * CHUNK_QUERIES;
        g.values = g.keys + CHUNK_KEYS * run->cache->stored;
        dm_failure_note(&c->failure, attend(&g));
    }
}

dm_status dm_attention_chunk(const dm_attention_shape *s, const dm_attention_run *run, float *scratch, int threads) {
    chunk c = {.shape = s, .run = run, .scratch = scratch, .blocks = (run->n + CHUNK_QUERIES - 1) / CHUNK_QUERIES};
    size_t work = run->n * (run->start + run->n) * s->n_heads * s->width;
    size_t tasks = c.blocks * s->n_kv_heads;
    dm_parallel(threads, tasks, dm_parallel_grain(work / tasks), chunk_body, &c);
    return dm_failure_raise(&c.failure);
}
