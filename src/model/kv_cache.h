/* Keys and values of the positions that a session has seen, in 32, 16 or 8 bits. */
#ifndef DM_MODEL_KV_CACHE_H
#define DM_MODEL_KV_CACHE_H

#include "kernels/vector.h"
#include "model/config.h"

/* Positions whose rows lie together. */
enum { DM_KV_BLOCK = 512 };

/* A row is one head's key or value at one position; the rows of a head follow one another within a block of positions, so
 * that attention reads memory in order. Blocks outermost, so that memory fills from its beginning: that allows for huge
 * pages, a quarter faster to read, without filling what is not used. Rows of 8 bits are blocks of 32 numbers with a scale,
 * as GGUF's Q8_0. */
typedef struct dm_kv_cache {
    dm_type type; /* F32, F16 or Q8_0 */
    size_t n_layers, n_heads, width, context;
    size_t stored;    /* numbers in a row as stored: width, or whole blocks */
    size_t row_bytes; /* of them */
    size_t block;     /* DM_KV_BLOCK, or a shorter context */
    uint8_t *keys;    /* [blocks, n_layers, n_heads, block] rows, pages touched as they fill */
    uint8_t *values;  /* the same shape */
} dm_kv_cache;

/* Freed with dm_kv_cache_free(), also after a failure. */
dm_status dm_kv_cache_create(const dm_config *config, int32_t context, dm_cache_type type, dm_kv_cache *out);
void dm_kv_cache_free(dm_kv_cache *cache);

/* Bytes of keys and values of one position, all layers together. */
size_t dm_kv_cache_position_bytes(const dm_kv_cache *cache);

/* The row of `position` in `array`, which is cache->keys or cache->values; those of its block follow. */
uint8_t *dm_kv_cache_row(const dm_kv_cache *cache, uint8_t *array, int32_t layer, size_t head, size_t position);

/* Stores one position of a layer: k and v are [n_heads * width]. */
void dm_kv_cache_store(const dm_kv_cache *cache, int32_t layer, size_t position, const float *k, const float *v);

/* n rows as float32 [n, stored]. */
void dm_kv_cache_widen(const dm_kv_cache *cache, const uint8_t *rows, size_t n, float *out);
/* rows_dot_ and rows_sum_ of vector.h, of rows as the cache has them. */
void dm_kv_cache_dot(const dm_kv_cache *cache, float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads);
void dm_kv_cache_sum(const dm_kv_cache *cache, float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,
                     size_t heads);

#endif
