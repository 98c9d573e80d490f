#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "moe/trace.h"

struct dm_trace_writer {
    dm_replace file;
    dm_trace_shape shape;
    uint64_t passes;
    size_t choices;   /* most of a layer in a pass */
    int32_t *experts; /* [layers, choices] of the pass: those of [n, top_k], -1 where there is none */
    size_t *counts;   /* [layers] how many that are, 0 for a layer without experts */
    size_t n;         /* tokens of the pass */
    int32_t top_k;
    bool together;
    bool *is_used; /* [experts] of a layer's record */
};

static void put_fixed(FILE *stream, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        putc((int)(value >> 8 * i & 255), stream);
    }
}

static void put_number(FILE *stream, uint64_t value) {
    for (; value > 127; value >>= 7) {
        putc((int)(value & 127) | 128, stream);
    }
    putc((int)value, stream);
}

static void put_header(const dm_trace_writer *it) {
    fwrite(DM_TRACE_MAGIC, 1, strlen(DM_TRACE_MAGIC), it->file.stream);
    put_fixed(it->file.stream, (uint64_t)it->shape.layers, 4);
    put_fixed(it->file.stream, (uint64_t)it->shape.experts, 4);
    put_fixed(it->file.stream, it->shape.expert_bytes, 8);
    put_fixed(it->file.stream, it->passes, 8);
}

/* ---- Passes ---- */

void dm_trace_note(dm_trace_writer *it, int32_t layer, const int32_t *experts, size_t n, int32_t top_k, bool together) {
    size_t count = n * (size_t)top_k;
    count = count < it->choices ? count : it->choices;
    memcpy(it->experts + (size_t)layer * it->choices, experts, count * sizeof *experts);
    it->counts[layer] = count;
    it->n = n;
    it->top_k = top_k;
    it->together = together;
}

/* The different ones of choices begin .. end - 1 of a layer. */
static void put_layer(dm_trace_writer *it, int32_t layer, size_t begin, size_t end) {
    int32_t *experts = it->experts + (size_t)layer * it->choices;
    size_t used = begin; /* they move to the front of what was read */
    for (size_t i = begin; i < end && i < it->counts[layer]; i++) {
        if (experts[i] >= 0 && !it->is_used[experts[i]]) {
            it->is_used[experts[i]] = true;
            experts[used++] = experts[i];
        }
    }
    put_number(it->file.stream, used - begin);
    for (size_t i = begin; i < used; i++) {
        put_number(it->file.stream, (uint64_t)experts[i]);
        it->is_used[experts[i]] = false;
    }
}

void dm_trace_end_pass(dm_trace_writer *it) {
    const size_t tokens = it->together ? it->n : 1, top_k = (size_t)it->top_k;
    for (size_t t = 0; t < it->n; t += tokens) {
        put_number(it->file.stream, tokens);
        for (int32_t l = 0; l < it->shape.layers; l++) {
            put_layer(it, l, t * top_k, (t + tokens) * top_k);
        }
        it->passes++;
    }
    memset(it->counts, 0, (size_t)it->shape.layers * sizeof *it->counts);
    it->n = 0;
}

/* ---- The file ---- */

static void release(dm_trace_writer *it) {
    dm_free(it->experts);
    dm_free(it->counts);
    dm_free(it->is_used);
    dm_free(it);
}

static dm_status begin(dm_trace_writer *it, const char *path) {
    size_t all = 0;
    if (!dm_mul_size((size_t)it->shape.layers, it->choices, &all)) {
        return dm_fail(DM_ERR_MEMORY, "a trace of passes with %zu choices does not fit into memory", it->choices);
    }
    it->experts = dm_alloc(all, sizeof *it->experts);
    it->counts = dm_alloc((size_t)it->shape.layers, sizeof *it->counts);
    it->is_used = dm_alloc((size_t)it->shape.experts, sizeof *it->is_used);
    if (it->experts == NULL || it->counts == NULL || it->is_used == NULL) {
        return DM_ERR_MEMORY;
    }
    return dm_replace_open(path, &it->file);
}

dm_status dm_trace_create(const char *path, const dm_trace_shape *shape, size_t choices, dm_trace_writer **out) {
    *out = NULL;
    if (shape->layers < 1 || shape->layers > DM_TRACE_MOST_LAYERS || shape->experts < 1 ||
        shape->experts > DM_TRACE_MOST_EXPERTS) {
        return dm_fail(DM_ERR_ARGUMENT, "%d layers of %d experts cannot be traced: expected 1 to %d of 1 to %d", shape->layers,
                       shape->experts, DM_TRACE_MOST_LAYERS, DM_TRACE_MOST_EXPERTS);
    }
    dm_trace_writer *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->shape = *shape;
    it->choices = choices;
    dm_status status = begin(it, path);
    if (status != DM_OK) {
        release(it);
        return status;
    }
    put_header(it);
    *out = it;
    return DM_OK;
}

dm_status dm_trace_commit(dm_trace_writer *it) {
    bool wound = fseek(it->file.stream, 0, SEEK_SET) == 0;
    if (wound) {
        put_header(it); /* now that the passes are counted */
    }
    dm_status status = wound ? dm_replace_commit(&it->file) : dm_fail(DM_ERR_IO, "%s: cannot write its header", it->file.path);
    if (!wound) {
        dm_replace_abandon(&it->file);
    }
    release(it);
    return status;
}

void dm_trace_abandon(dm_trace_writer *it) {
    if (it != NULL) {
        dm_replace_abandon(&it->file);
        release(it);
    }
}
