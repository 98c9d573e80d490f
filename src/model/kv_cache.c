#include "model/kv_cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/pages.h"

enum { Q8_BLOCK = 32 };

typedef struct q8_block {
    uint16_t scale; /* float16 */
    int8_t numbers[Q8_BLOCK];
} q8_block;

dm_status dm_cache_type_from_name(const char *name, dm_cache_type *out) {
    static const char *const names[] = {[DM_CACHE_F16] = "f16", [DM_CACHE_Q8] = "q8", [DM_CACHE_F32] = "f32"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (dm_cache_type)i;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_ARGUMENT, "the type '%.40s' of the cache is unknown, expected f32, f16 or q8", name);
}

dm_status dm_kv_cache_create(const dm_config *c, int32_t context, dm_cache_type type, dm_kv_cache *out) {
    static const dm_type types[] = {[DM_CACHE_F16] = DM_TYPE_F16, [DM_CACHE_Q8] = DM_TYPE_Q8_0, [DM_CACHE_F32] = DM_TYPE_F32};
    *out = (dm_kv_cache){.n_layers = (size_t)c->n_layers,
                         .n_heads = (size_t)c->n_kv_heads,
                         .width = (size_t)c->head_dim,
                         .context = (size_t)context};
    if ((size_t)type >= sizeof types / sizeof *types) {
        return dm_fail(DM_ERR_ARGUMENT, "the type of the cache is %d, expected DM_CACHE_F16, DM_CACHE_Q8 or DM_CACHE_F32",
                       (int)type);
    }
    out->type = types[type];
    out->stored = type == DM_CACHE_Q8 ? (out->width + Q8_BLOCK - 1) / Q8_BLOCK * Q8_BLOCK : out->width;
    out->row_bytes = dm_type_bytes(out->type, out->stored);
    out->block = out->context < DM_KV_BLOCK ? out->context : DM_KV_BLOCK;
    size_t blocks = (out->context + DM_KV_BLOCK - 1) / DM_KV_BLOCK, first, bytes;
    if (!dm_mul_size(out->row_bytes * out->n_heads * out->block, out->n_layers, &first) || !dm_mul_size(first, blocks, &bytes)) {
        return dm_fail(DM_ERR_ARGUMENT, "a context of %d tokens is more than this machine can address", (int)context);
    }
    /* calloc, as the system hands out zero pages only as positions fill them: a long context costs nothing while unused */
    out->keys = calloc(bytes, 1);
    out->values = calloc(bytes, 1);
    if (out->keys == NULL || out->values == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for keys and values of %d tokens (2 x %zu bytes); ask for a shorter context",
                       (int)context, bytes);
    }
    if (bytes > first) { /* behind the first block: sessions of a few tokens stay small */
        dm_pages_advise(out->keys + first, bytes - first);
        dm_pages_advise(out->values + first, bytes - first);
    }
    return DM_OK;
}

void dm_kv_cache_free(dm_kv_cache *cache) {
    free(cache->keys);
    free(cache->values);
}

size_t dm_kv_cache_position_bytes(const dm_kv_cache *cache) {
    return 2 * cache->n_layers * cache->n_heads * cache->row_bytes;
}

uint8_t *dm_kv_cache_row(const dm_kv_cache *cache, uint8_t *array, int32_t layer, size_t head, size_t position) {
    size_t heads = (position / DM_KV_BLOCK * cache->n_layers + (size_t)layer) * cache->n_heads + head;
    return array + (heads * cache->block + position % DM_KV_BLOCK) * cache->row_bytes;
}

/* What is no number becomes -127: nothing sensible can be stored for it, and the conversion must not be undefined. */
static int8_t to_byte(float x) {
    float least = x > -127.0f ? x : -127.0f;
    float bounded = least < 127.0f ? least : 127.0f;
    return (int8_t)(bounded + (bounded < 0.0f ? -0.5f : 0.5f));
}

static void store_q8(q8_block *to, const float *x, size_t width) {
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < width; i += Q8_BLOCK, to++) {
        size_t n = width - i < Q8_BLOCK ? width - i : Q8_BLOCK;
        float most = 0.0f;
        for (size_t k = 0; k < n; k++) {
            most = fmaxf(most, fabsf(x[i + k]));
        }
        float scale = most / 127.0f;
        float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        vector->f32_to_f16(&to->scale, &scale, 1);
        for (size_t k = 0; k < n; k++) {
            to->numbers[k] = to_byte(x[i + k] * inverse);
        }
        memset(to->numbers + n, 0, Q8_BLOCK - n);
    }
}

static void store_row(const dm_kv_cache *cache, uint8_t *row, const float *x) {
    if (cache->type == DM_TYPE_F16) {
        dm_vector()->f32_to_f16((uint16_t *)(void *)row, x, cache->width);
    } else if (cache->type == DM_TYPE_Q8_0) {
        store_q8((q8_block *)(void *)row, x, cache->width);
    } else {
        memcpy(row, x, cache->row_bytes);
    }
}

void dm_kv_cache_store(const dm_kv_cache *cache, int32_t layer, size_t position, const float *k, const float *v) {
    for (size_t head = 0; head < cache->n_heads; head++) {
        store_row(cache, dm_kv_cache_row(cache, cache->keys, layer, head, position), k + head * cache->width);
        store_row(cache, dm_kv_cache_row(cache, cache->values, layer, head, position), v + head * cache->width);
    }
}

void dm_kv_cache_widen(const dm_kv_cache *cache, const uint8_t *rows, size_t n, float *out) {
    if (cache->type == DM_TYPE_F16) {
        dm_vector()->f16_to_f32(out, (const uint16_t *)(const void *)rows, n * cache->stored);
    } else {
        dm_type_decoder(cache->type)(out, rows, n * cache->stored);
    }
}

void dm_kv_cache_dot(const dm_kv_cache *cache, float *y, size_t ldy, const dm_cached_rows *rows, const float *x, size_t heads) {
    const dm_vector_table *vector = dm_vector();
    switch (cache->type) {
    case DM_TYPE_F16:
        vector->rows_dot_f16(y, ldy, rows, x, heads);
        break;
    case DM_TYPE_Q8_0:
        vector->rows_dot_q8(y, ldy, rows, x, heads);
        break;
    default:
        vector->rows_dot_f32(y, ldy, rows, x, heads);
        break;
    }
}

void dm_kv_cache_sum(const dm_kv_cache *cache, float *y, size_t ldy, const float *weights, size_t ldw, const dm_cached_rows *rows,
                     size_t heads) {
    const dm_vector_table *vector = dm_vector();
    switch (cache->type) {
    case DM_TYPE_F16:
        vector->rows_sum_f16(y, ldy, weights, ldw, rows, heads);
        break;
    case DM_TYPE_Q8_0:
        vector->rows_sum_q8(y, ldy, weights, ldw, rows, heads);
        break;
    default:
        vector->rows_sum_f32(y, ldy, weights, ldw, rows, heads);
        break;
    }
}
