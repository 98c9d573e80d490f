/*
 * Causal attention of new tokens over a key and value cache: softmax(q k^T / sqrt(head_dim)) v. Query heads share
 * key/value heads in groups (Ainslie et al. 2023): head h reads kv head h / (n_heads / n_kv_heads), and what is read of
 * one is used for its whole group.
 *
 * Chunks and steps compute in different orders. Which of the two a token gets depends on how it was fed alone, never on
 * other sequences, and no result depends on the number of threads.
 */
#ifndef DM_MODEL_ATTENTION_H
#define DM_MODEL_ATTENTION_H

#include "model/kv_cache.h"

typedef struct dm_attention_shape {
    size_t n_heads, n_kv_heads, width;
    size_t window; /* newest positions that a query sees, its own included; 0: all */
    int32_t layer;
} dm_attention_shape;

/* The new tokens of one sequence, at positions start .. start + n - 1, whose keys and values are in the cache. */
typedef struct dm_attention_run {
    const dm_kv_cache *cache;
    size_t start, n;
    const float *q; /* [n, n_heads * width], ldq floats between rows */
    size_t ldq;
    float *out;      /* [n, n_heads * width] */
    float *partials; /* dm_attention_partials() floats of the sequence's own, for a step */
} dm_attention_run;

/* Floats of scratch per thread, and of partial results of a sequence of up to `context` positions. */
size_t dm_attention_scratch(const dm_attention_shape *shape);
size_t dm_attention_partials(const dm_attention_shape *shape, size_t context);

/* A piece of a prompt, n of 2 or more: walked in tiles of queries by keys with a running maximum and sum (Milakov and
 * Gimelshein 2018; Dao et al. 2022), so that memory does not grow with the length. `scratch` holds
 * dm_attention_scratch() floats for each of `threads` threads, as many as are used. */
dm_status dm_attention_chunk(const dm_attention_shape *shape, const dm_attention_run *run, float *scratch, int threads);

/* The next token (n of 1) of each of n_runs sequences. A long cache is cut into blocks that threads share; their partial
 * results are merged in order (Dao et al. 2023, "Flash-Decoding"). */
void dm_attention_steps(const dm_attention_shape *shape, const dm_attention_run *runs, size_t n_runs, float *scratch,
                        int threads);

#endif
