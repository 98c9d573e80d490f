/* Attention of many new tokens of one sequence: blocks of queries by blocks of keys, as products in float32. */
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/matmul.h"
#include "kernels/vector.h"
#include "model/attention_internal.h"

enum { FEW_QUERIES = 6 }; /* up to here dot products beat a matrix product */

/* A query tile by keys and values as floats. */
typedef struct tile {
    dm_query_tile queries;
    const float *keys;   /* [n_keys, width], ld_keys apart */
    const float *values; /* [n_keys, width], ld_keys apart */
    size_t ld_keys;
} tile;

/* scores = q keys^T */
static dm_status score(const tile *all) {
    const dm_query_tile *t = &all->queries;
    if (t->n > FEW_QUERIES) {
        return dm_matmul_forward(DM_PRECISION_F32, t->scores, CHUNK_KEYS, t->q, t->ldq, all->keys, all->ld_keys, t->n, t->n_keys,
                                 t->width, false);
    }
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < t->n; i++) {
        dm_key_span seen = dm_query_tile_visible(t, i);
        for (size_t j = seen.from; j < seen.to; j++) {
            t->scores[i * CHUNK_KEYS + j] = vector->dot(t->q + i * t->ldq, all->keys + j * all->ld_keys, t->width);
        }
    }
    return DM_OK;
}

/* out += scores values */
static dm_status add_values(const tile *all) {
    const dm_query_tile *t = &all->queries;
    if (t->n > FEW_QUERIES) {
        return dm_matmul_input_gradient(DM_PRECISION_F32, t->out, t->ld_out, t->scores, CHUNK_KEYS, all->values, all->ld_keys,
                                        t->n, t->n_keys, t->width, true);
    }
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < t->n; i++) {
        dm_key_span seen = dm_query_tile_visible(t, i);
        for (size_t j = seen.from; j < seen.to; j++) {
            vector->axpy(t->out + i * t->ld_out, t->scores[i * CHUNK_KEYS + j], all->values + j * all->ld_keys, t->width);
        }
    }
    return DM_OK;
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

static dm_query_tile queries_of(const group *g, size_t member) {
    dm_query_tile t = dm_query_tile_of(g->shape, g->run, g->kv_head * g->size + member, g->first, g->n);
    t.scores = g->scores;
    t.peaks = g->peaks + member * CHUNK_QUERIES;
    t.totals = g->totals + member * CHUNK_QUERIES;
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

static dm_status attend(const group *g) {
    const dm_kv_cache *cache = g->run->cache;
    const dm_query_tile any = queries_of(g, 0);
    size_t end = any.position + any.n;                                                /* the last query sees itself */
    size_t begin = any.position + 1 > any.window ? any.position + 1 - any.window : 0; /* what the first query sees first */
    for (size_t member = 0; member < g->size; member++) {
        const dm_query_tile t = queries_of(g, member);
        dm_query_tile_start(&t);
    }
    for (size_t key = begin / CHUNK_KEYS * CHUNK_KEYS; key < end; key += CHUNK_KEYS) {
        size_t n_keys = end - key < CHUNK_KEYS ? end - key : CHUNK_KEYS;
        const float *keys = rows_at(g, cache->keys, key, n_keys, g->keys);
        const float *values = rows_at(g, cache->values, key, n_keys, g->values);
        for (size_t member = 0; member < g->size; member++) {
            tile t = {queries_of(g, member), keys, values, cache->stored};
            t.queries.first_key = key;
            t.queries.n_keys = n_keys;
            DM_TRY(score(&t));
            dm_query_tile_weigh(&t.queries);
            DM_TRY(add_values(&t));
        }
    }
    for (size_t member = 0; member < g->size; member++) {
        const dm_query_tile t = queries_of(g, member);
        dm_query_tile_finish(&t);
    }
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
    if (dm_attention_takes_tiles(s, run)) {
        dm_attention_tiles(s, run, scratch, threads);
        return DM_OK;
    }
    chunk c = {.shape = s, .run = run, .scratch = scratch, .blocks = (run->n + CHUNK_QUERIES - 1) / CHUNK_QUERIES};
    size_t work = run->n * (run->start + run->n) * s->n_heads * s->width;
    size_t tasks = c.blocks * s->n_kv_heads;
    dm_parallel(threads, tasks, dm_parallel_grain(work / tasks), chunk_body, &c);
    return dm_failure_raise(&c.failure);
}
