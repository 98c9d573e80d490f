#include "quantization/mixed_writer.h"

#include <string.h>

#include "base/memory.h"

struct dm_mixed_writer {
    const dm_mixed_plan *plans;
    size_t matrices;
    dm_mixed_fill_fn fill;
    void *user;
    uint64_t *starts; /* [matrices + 1] */
    size_t current;   /* whose bytes are in data; `matrices`: none's */
    uint8_t *data;    /* [largest], NULL before the first piece and after the last */
    size_t largest;
};

dm_status dm_mixed_writer_create(const dm_mixed_plan *plans, size_t matrices, dm_mixed_fill_fn fill, void *user,
                                 dm_mixed_writer **out) {
    dm_mixed_writer *it = *out = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    *it = (dm_mixed_writer){.plans = plans, .matrices = matrices, .fill = fill, .user = user, .current = matrices};
    it->starts = dm_alloc(matrices + 1, sizeof *it->starts);
    dm_status status = it->starts != NULL ? DM_OK : DM_ERR_MEMORY;
    for (size_t i = 0; i < matrices && status == DM_OK; i++) {
        size_t bytes;
        status = dm_mixed_bytes(&plans[i], &bytes);
        it->starts[i + 1] = it->starts[i] + bytes;
        it->largest = bytes > it->largest ? bytes : it->largest;
    }
    if (status != DM_OK) {
        dm_mixed_writer_free(it);
        *out = NULL;
    }
    return status;
}

void dm_mixed_writer_free(dm_mixed_writer *it) {
    if (it != NULL) {
        dm_free(it->starts);
        dm_free(it->data);
        dm_free(it);
    }
}

uint64_t dm_mixed_writer_bytes(const dm_mixed_writer *it) {
    return it->starts[it->matrices];
}

static dm_status make(dm_mixed_writer *it, size_t matrix) {
    if (it->data == NULL) {
        it->data = dm_alloc(it->largest, 1);
        if (it->data == NULL) {
            return DM_ERR_MEMORY;
        }
    }
    dm_mixed_lay_out(it->data, &it->plans[matrix]);
    it->current = matrix;
    return it->fill(it->user, matrix, it->data);
}

/* A dm_gguf_maker; pieces are asked for in order. */
static dm_status make_piece(void *user, uint64_t first, size_t n, void *out) {
    dm_mixed_writer *it = user;
    for (size_t i = 0; i < it->matrices; i++) {
        const uint64_t start = it->starts[i], end = it->starts[i + 1];
        if (first >= end || first + n <= start) {
            continue;
        }
        if (it->current != i) {
            DM_TRY(make(it, i));
        }
        const uint64_t from = first > start ? first : start, to = first + n < end ? first + n : end;
        memcpy((uint8_t *)out + (from - first), it->data + (from - start), (size_t)(to - from));
    }
    if (first + n == it->starts[it->matrices]) {
        dm_free(it->data);
        it->data = NULL;
        it->current = it->matrices;
    }
    return DM_OK;
}

void dm_mixed_writer_add(dm_mixed_writer *it, dm_gguf_writer *writer, const char *name) {
    dm_gguf_add_tensor_made(writer, name, DM_TYPE_I8, &it->starts[it->matrices], 1, make_piece, it);
}
