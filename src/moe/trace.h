/*
 * Traces: which experts tokens asked for, in the order in which a decode would, for trying policies of eviction on. A pass is a
 * token's way through the layers, or that of several tokens which were routed together.
 *
 * The file: "DMTRACE1", then little endian the numbers layers (4 bytes), experts of a layer (4), bytes of an expert (8) and
 * passes (8). For each pass follow its tokens, and for each layer a count and as many experts, each of which is there once, in
 * the order of their first use. These numbers are LEB128: 7 bits a byte, lowest first, the high bit set in all bytes but the
 * last.
 */
#ifndef DM_MOE_TRACE_H
#define DM_MOE_TRACE_H

#include "base/status.h"

#define DM_TRACE_MAGIC "DMTRACE1"
enum { DM_TRACE_HEADER = 32, DM_TRACE_MOST_EXPERTS = 1 << 16, DM_TRACE_MOST_LAYERS = 1 << 16 };

typedef struct dm_trace_shape {
    int32_t layers, experts;
    uint64_t expert_bytes; /* of an expert's weights in the file, in the mean */
} dm_trace_shape;

/* ---- Writing ---- */

typedef struct dm_trace_writer dm_trace_writer;

/* For passes of up to `choices` choices (tokens times experts of a token) in a layer. The writer ends with a commit or with
 * dm_trace_abandon(). */
dm_status dm_trace_create(const char *path, const dm_trace_shape *shape, size_t choices, dm_trace_writer **out);
/* What n tokens of a pass chose in a layer: experts [n, top_k], -1 after a token's last. Tokens that were not routed together
 * become a pass each. */
void dm_trace_note(dm_trace_writer *it, int32_t layer, const int32_t *experts, size_t n, int32_t top_k, bool together);
/* The pass is over: what was noted counts. */
void dm_trace_end_pass(dm_trace_writer *it);
/* Puts the file in its place. The writer is gone, whether that succeeds or not. */
dm_status dm_trace_commit(dm_trace_writer *it);
/* Leaves nothing behind; NULL is fine. */
void dm_trace_abandon(dm_trace_writer *it);

/* ---- Reading ---- */

typedef struct dm_trace {
    dm_trace_shape shape;
    size_t passes;
    uint64_t tokens;  /* of all passes */
    size_t *starts;   /* [passes * layers + 1] where the experts of each pass and layer begin */
    int32_t *experts; /* [starts[passes * layers]] */
} dm_trace;

/* DM_ERR_FORMAT for what is no whole trace. On failure *out is empty; else free it with dm_trace_free(). */
dm_status dm_trace_read(const char *path, dm_trace *out);
void dm_trace_free(dm_trace *trace);

#endif
