/* Causal attention of new tokens over a key and value cache. */
#ifndef DM_MODEL_CACHED_ATTENTION_H
#define DM_MODEL_CACHED_ATTENTION_H

#include "base/status.h"

/* One layer's attention of n tokens at positions start .. start + n - 1. Query heads share key/value heads in groups
 * (Ainslie et al. 2023): head h reads kv head h / (n_heads / n_kv_heads). */
typedef struct dm_cached_attention {
    int32_t n_heads, n_kv_heads, head_dim;
    size_t window; /* newest positions that a query sees, its own included; 0: all */
    size_t start, n;
    const float *q; /* [n, n_heads * head_dim], ldq floats between rows */
    size_t ldq;
    const float *keys;   /* [start + n, n_kv_heads * head_dim], the new tokens' own included */
    const float *values; /* the same shape */
    float *out;          /* [n, n_heads * head_dim] */
} dm_cached_attention;

/* Floats of scratch per thread. */
size_t dm_cached_attention_scratch(void);

/* out = softmax(q k^T / sqrt(head_dim)) v, walked in tiles of queries by keys with a running maximum and sum (Milakov
 * and Gimelshein 2018; Dao et al. 2022), so that memory does not grow with the length. `scratch` holds
 * dm_cached_attention_scratch() floats for each of `threads` threads, as many as are used. */
dm_status dm_cached_attention_forward(const dm_cached_attention *attention, float *scratch, int threads);

#endif
