#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "moe/trace.h"

/* Where reading has come to. Memory is bounded by the file, in which each layer of a pass and each expert takes a byte at least.
 */
typedef struct reader {
    const char *path;
    const uint8_t *bytes;
    size_t size, at;
    bool *is_used; /* [experts] of a layer's record */
} reader;

static dm_status damaged(const reader *r, const char *what) {
    return dm_fail(DM_ERR_FORMAT, "%s: %s at byte %zu: expected a trace written by eval --trace", r->path, what, r->at);
}

static uint64_t fixed(const uint8_t *bytes, int n) {
    uint64_t value = 0;
    for (int i = n; i-- > 0;) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* A LEB128 number up to `most`, below 2^32. */
static dm_status number(reader *r, uint64_t most, const char *what, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (r->at == r->size) {
            return damaged(r, "the end came too early");
        }
        uint8_t byte = r->bytes[r->at++];
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            return *out <= most ? DM_OK : damaged(r, what);
        }
    }
    return damaged(r, what);
}

static dm_status read_layer(reader *r, dm_trace *out, size_t *used) {
    const uint64_t experts = (uint64_t)out->shape.experts;
    uint64_t count, expert;
    DM_TRY(number(r, experts, "more experts than a layer has", &count));
    for (size_t i = 0; i < count; i++) {
        DM_TRY(number(r, experts - 1, "an expert that is not there", &expert));
        if (r->is_used[expert]) {
            return damaged(r, "an expert twice");
        }
        r->is_used[expert] = true;
        out->experts[*used + i] = (int32_t)expert;
    }
    for (size_t i = 0; i < count; i++) {
        r->is_used[out->experts[(*used)++]] = false;
    }
    return DM_OK;
}

static dm_status read_passes(reader *r, dm_trace *out) {
    size_t used = 0;
    for (size_t pass = 0, at = 0; pass < out->passes; pass++) {
        uint64_t tokens;
        DM_TRY(number(r, UINT32_MAX, "too many tokens", &tokens));
        out->tokens += tokens;
        for (int32_t l = 0; l < out->shape.layers; l++) {
            DM_TRY(read_layer(r, out, &used));
            out->starts[++at] = used;
        }
    }
    return r->at == r->size ? DM_OK : damaged(r, "more than its passes");
}

static dm_status read_header(reader *r, dm_trace *out) {
    if (r->size < DM_TRACE_HEADER || memcmp(r->bytes, DM_TRACE_MAGIC, strlen(DM_TRACE_MAGIC)) != 0) {
        return damaged(r, "no trace begins");
    }
    const uint64_t layers = fixed(r->bytes + 8, 4), experts = fixed(r->bytes + 12, 4), passes = fixed(r->bytes + 24, 8);
    r->at = 8;
    if (layers < 1 || layers > DM_TRACE_MOST_LAYERS || experts < 1 || experts > DM_TRACE_MOST_EXPERTS) {
        return damaged(r, "no such model");
    }
    r->at = 24;
    if (passes > (r->size - DM_TRACE_HEADER) / (layers + 1)) {
        return damaged(r, "more passes than the file holds");
    }
    r->at = DM_TRACE_HEADER;
    out->shape = (dm_trace_shape){(int32_t)layers, (int32_t)experts, fixed(r->bytes + 16, 8)};
    out->passes = (size_t)passes;
    return DM_OK;
}

static dm_status read_all(reader *r, dm_trace *out) {
    DM_TRY(read_header(r, out));
    const size_t records = out->passes * (size_t)out->shape.layers;
    out->starts = dm_alloc(records + 1, sizeof *out->starts);
    out->experts = dm_alloc(r->size - DM_TRACE_HEADER, sizeof *out->experts);
    r->is_used = dm_alloc((size_t)out->shape.experts, sizeof *r->is_used);
    return out->starts != NULL && out->experts != NULL && r->is_used != NULL ? read_passes(r, out) : DM_ERR_MEMORY;
}

dm_status dm_trace_read(const char *path, dm_trace *out) {
    *out = (dm_trace){0};
    dm_map map;
    DM_TRY(dm_map_open(path, &map));
    reader r = {.path = path, .bytes = map.data, .size = map.size};
    dm_status status = read_all(&r, out);
    dm_free(r.is_used);
    dm_map_close(&map);
    if (status != DM_OK) {
        dm_trace_free(out);
    }
    return status;
}

void dm_trace_free(dm_trace *trace) {
    dm_free(trace->starts);
    dm_free(trace->experts);
    *trace = (dm_trace){0};
}
