/* Sizes of the pieces that attention is cut into. */
#ifndef DM_MODEL_ATTENTION_INTERNAL_H
#define DM_MODEL_ATTENTION_INTERNAL_H

#include "model/attention.h"

/* The queries of one head that are handled together, and the keys at hand. */
typedef struct dm_query_tile {
    const float *q; /* [n, width], ldq apart */
    float *out;     /* [n, width], ld_out apart */
    size_t ldq, ld_out;
    size_t n, n_keys, width;
    size_t position;       /* of the first query */
    size_t window;         /* a query sees itself and window - 1 positions before */
    size_t first_key;      /* position of the first key */
    float *scores;         /* [n, CHUNK_KEYS] */
    float *peaks, *totals; /* [n] running maximum and sum */
} dm_query_tile;

/* Keys from .. to - 1, counted from the first at hand. */
typedef struct dm_key_span {
    size_t from, to;
} dm_key_span;

/* Queries first .. first + n - 1 of a run by one head, without keys or scratch yet. */
dm_query_tile dm_query_tile_of(const dm_attention_shape *shape, const dm_attention_run *run, size_t head, size_t first, size_t n);
/* Which of the keys at hand query i may see. */
dm_key_span dm_query_tile_visible(const dm_query_tile *t, size_t i);
/* Nothing seen yet: out = 0. */
void dm_query_tile_start(const dm_query_tile *t);
/* Scores become weights against the running maximum, 0 for keys that a query may not see; what was summed before shrinks when
 * the maximum rises. */
void dm_query_tile_weigh(const dm_query_tile *t);
/* out = out / totals */
void dm_query_tile_finish(const dm_query_tile *t);

/* dm_attention_chunk() on tile registers: whether a run is (a cache of 32 bits wants more exact products), a thread's floats of
 * scratch, and its work. */
bool dm_attention_takes_tiles(const dm_attention_shape *shape, const dm_attention_run *run);
size_t dm_attention_tiles_scratch(const dm_attention_shape *shape);
void dm_attention_tiles(const dm_attention_shape *shape, const dm_attention_run *run, float *scratch, int threads);

enum {
    CHUNK_QUERIES = 64,
    CHUNK_KEYS = DM_KV_BLOCK / 2, /* from multiples of it on, so that they lie together */
    STEP_BLOCK = DM_KV_BLOCK,     /* positions of one task; a fixed grid, so that threads do not change what is summed */
    STEP_TILE = 64,               /* rows at a time */
};

#endif
