/*
 * Attention of many new tokens of one sequence on tile registers, with products as exact as 16-bit caches
 * deserve: blocks of keys
 * and values are packed once for all queries of a task, by all heads that share them.
 */
#include "base/parallel.h"
#include "kernels/split_tiles.h"
#include "kernels/tiles.h"
#include "kernels/vector.h"
#include "model/attention_internal.h"

enum {
    TASK_QUERIES = 256, /* of all heads that share a kv head: they share what packing costs */
    TOGETHER = 32,      /* queries of one head whose scores lie in the first-level cache */
    ENOUGH = 16,        /* new tokens from which on this is quicker */
    WIDEST = 256,       /* head that scratch is made for */
    TILES_FASTER = 4,   /* than float32 multiplications */
};

/* A thread's scratch. */
typedef struct room {
    float *rows;           /* [CHUNK_KEYS, stored] keys or values as floats */
    float *scores;         /* [TOGETHER, CHUNK_KEYS] */
    float *sums;           /* [TOGETHER, width rounded up to 32] */
    float *peaks, *totals; /* [members, TASK_QUERIES] */
    void *keys, *values, *queries, *weights;
} room;

static size_t padded(size_t width) {
    return (width + 31) / 32 * 32; /* rows of 8 bits are whole blocks when they are widened, and so are products */
}

/* Lays out `own`, or NULL; returns the floats it takes. */
static size_t lay_out(const dm_attention_shape *s, float *own, room *out) {
    size_t members = s->n_heads / s->n_kv_heads, at = 0;
    const size_t floats[] = {CHUNK_KEYS * padded(s->width),
                             TOGETHER * CHUNK_KEYS,
                             TOGETHER * padded(s->width),
                             members * TASK_QUERIES,
                             members * TASK_QUERIES,
                             dm_split_bytes(CHUNK_KEYS, s->width) / sizeof *own,
                             dm_split_bytes(s->width, CHUNK_KEYS) / sizeof *own,
                             dm_split_bytes(TOGETHER, s->width) / sizeof *own,
                             dm_split_bytes(TOGETHER, CHUNK_KEYS) / sizeof *own};
    float *parts[sizeof floats / sizeof *floats];
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        parts[i] = own != NULL ? own + at : NULL;
        at += (floats[i] + 15) / 16 * 16;
    }
    *out = (room){parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7], parts[8]};
    return at;
}

bool dm_attention_takes_tiles(const dm_attention_shape *s, const dm_attention_run *run) {
    return dm_tiles() && run->n >= ENOUGH && run->cache->type != DM_TYPE_F32 && s->width <= WIDEST;
}

size_t dm_attention_tiles_scratch(const dm_attention_shape *s) {
    room unused;
    return dm_tiles() && s->width <= WIDEST ? lay_out(s, NULL, &unused) : 0;
}

/* Queries first .. first + n - 1 of all heads that share a kv head. */
typedef struct group {
    const dm_attention_shape *shape;
    const dm_attention_run *run;
    size_t kv_head, members, first, n;
    room room;
} group;

/* Some of them, by one head. */
static dm_query_tile queries_of(const group *g, size_t member, size_t at) {
    size_t n = g->n - at < TOGETHER ? g->n - at : TOGETHER;
    dm_query_tile t = dm_query_tile_of(g->shape, g->run, g->kv_head * g->members + member, g->first + at, n);
    t.scores = g->room.scores;
    t.peaks = g->room.peaks + member * TASK_QUERIES + at;
    t.totals = g->room.totals + member * TASK_QUERIES + at;
    return t;
}

static const float *rows_at(const group *g, uint8_t *array, size_t at, size_t n) {
    const dm_kv_cache *cache = g->run->cache;
    dm_kv_cache_widen(cache, dm_kv_cache_row(cache, array, g->shape->layer, g->kv_head, at), n, g->room.rows);
    return g->room.rows;
}

/* Some queries by the keys and values at hand, of which there are `packed`. */
static void meet(const group *g, dm_query_tile *t, size_t packed) {
    const room *own = &g->room;
    size_t last = t->position + t->n - t->first_key, ld_sums = padded(t->width); /* keys that the last query may see */
    t->n_keys = last < packed ? last : packed;
    dm_split_pack_left(own->queries, t->q, t->ldq, t->n, t->width);
    dm_split_multiply(own->scores, CHUNK_KEYS, own->queries, t->width, own->keys, t->width, t->n, t->n_keys, t->width);
    dm_query_tile_weigh(t);
    dm_split_pack_left(own->weights, own->scores, CHUNK_KEYS, t->n, t->n_keys);
    dm_split_multiply(own->sums, ld_sums, own->weights, t->n_keys, own->values, packed, t->n, t->width, t->n_keys);
    for (size_t i = 0; i < t->n; i++) {
        dm_vector()->add(t->out + i * t->ld_out, t->out + i * t->ld_out, own->sums + i * ld_sums, t->width);
    }
}

static void for_all(const group *g, void (*what)(const dm_query_tile *)) {
    for (size_t member = 0; member < g->members; member++) {
        for (size_t at = 0; at < g->n; at += TOGETHER) {
            const dm_query_tile t = queries_of(g, member, at);
            what(&t);
        }
    }
}

static void attend(const group *g) {
    const dm_kv_cache *cache = g->run->cache;
    size_t width = g->shape->width, position = g->run->start + g->first;
    size_t end = position + g->n, window = g->shape->window != 0 ? g->shape->window : SIZE_MAX;
    size_t begin = position + 1 > window ? position + 1 - window : 0; /* what the first query sees first */
    for_all(g, dm_query_tile_start);
    for (size_t key = begin / CHUNK_KEYS * CHUNK_KEYS; key < end; key += CHUNK_KEYS) {
        size_t n = end - key < CHUNK_KEYS ? end - key : CHUNK_KEYS;
        dm_split_pack_turned(g->room.keys, rows_at(g, cache->keys, key, n), cache->stored, n, width);
        dm_split_pack_right(g->room.values, rows_at(g, cache->values, key, n), cache->stored, n, width);
        for (size_t member = 0; member < g->members; member++) {
            for (size_t at = 0; at < g->n; at += TOGETHER) {
                dm_query_tile t = queries_of(g, member, at);
                bool before = t.position + t.n <= key;
                bool past = t.position + 1 > window && key + n <= t.position + 1 - window;
                t.first_key = key;
                if (!before && !past) {
                    meet(g, &t, n);
                }
            }
        }
    }
    for_all(g, dm_query_tile_finish);
}

typedef struct chunk {
    const dm_attention_shape *shape;
    const dm_attention_run *run;
    float *scratch;
    size_t scratch_each, blocks;
} chunk;

static void chunk_body(void *user, size_t begin, size_t end, int thread) {
    const chunk *c = user;
    const dm_attention_shape *s = c->shape;
    for (size_t i = begin; i < end; i++) {
        size_t first = (c->blocks - 1 - i / s->n_kv_heads) * TASK_QUERIES; /* the longest first */
        group g = {s, c->run, i % s->n_kv_heads, s->n_heads / s->n_kv_heads, first, 0, {0}};
        g.n = c->run->n - first < TASK_QUERIES ? c->run->n - first : TASK_QUERIES;
        lay_out(s, c->scratch + (size_t)thread * c->scratch_each, &g.room);
        attend(&g);
    }
}

void dm_attention_tiles(const dm_attention_shape *s, const dm_attention_run *run, float *scratch, int threads) {
    chunk c = {s, run, scratch, dm_attention_scratch(s), (run->n + TASK_QUERIES - 1) / TASK_QUERIES};
    size_t work = run->n * (run->start + run->n) * s->n_heads * s->width, tasks = c.blocks * s->n_kv_heads;
    dm_parallel(threads, tasks, dm_parallel_grain(work / tasks / TILES_FASTER), chunk_body, &c);
}
