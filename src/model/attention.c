/* What chunks and steps share: how much memory they want. */
#include "model/attention_internal.h"

/* Rows of 8 bits are whole blocks when they are widened. */
static size_t widened(const dm_attention_shape *shape) {
    return (shape->width + 31) / 32 * 32;
}

size_t dm_attention_scratch(const dm_attention_shape *shape) {
    size_t group = shape->n_heads / shape->n_kv_heads;
    size_t chunk = CHUNK_QUERIES * CHUNK_KEYS + 2 * group * CHUNK_QUERIES + 2 * CHUNK_KEYS * widened(shape);
    size_t step = group * STEP_BLOCK;
    size_t tiles = dm_attention_tiles_scratch(shape);
    size_t most = chunk > step ? chunk : step;
    most = most > tiles ? most : tiles;
    return (most + 15) / 16 * 16; /* the next thread's is aligned too */
}

size_t dm_attention_partials(const dm_attention_shape *shape, size_t context) {
    return shape->n_heads * ((context + STEP_BLOCK - 1) / STEP_BLOCK) * (shape->width + 2);
}
