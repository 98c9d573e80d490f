/* A model solved at one size: its tensors wait in a file without a name until they are written. */
#ifndef DM_QUANTIZATION_COMPRESS_OUTCOME_H
#define DM_QUANTIZATION_COMPRESS_OUTCOME_H

#include "quantization/compress_model.h"
#include "quantization/compress_solutions.h"

/* One tensor that is not kept. */
typedef struct dm_compress_part {
    dm_type type;           /* DM_TYPE_MIXED: panels */
    uint64_t bytes, offset; /* among the solutions */
} dm_compress_part;

typedef struct dm_compress_outcome {
    dm_solutions own;
    dm_solutions *shared;    /* with other outcomes, and open longer than this one; NULL: its own */
    dm_compress_part *parts; /* [targets] */
    dm_compress_result result;
} dm_compress_outcome;

/* An empty one, whose solutions wait beside `to`; to be closed in any case. DM_ERR_IO, DM_ERR_MEMORY. */
dm_status dm_compress_outcome_open(dm_compress_outcome *it, const dm_compress_model *model, const char *to, dm_solutions *shared);
void dm_compress_outcome_close(dm_compress_outcome *it);

/* Adds a target's next matrix: they come in order, those of one target without others between them. DM_ERR_IO. */
dm_status dm_compress_outcome_add(dm_compress_outcome *it, size_t target, size_t matrix, const void *data, size_t bytes);

/* Bits per weight of all tensors together. */
double dm_compress_outcome_bpw(const dm_compress_outcome *it, const dm_compress_model *model);

/* Writes the file. `writer` has the metadata. */
dm_status dm_compress_outcome_write(const dm_compress_outcome *it, dm_compress_model *model, dm_gguf_writer *writer,
                                    const char *to);

#endif
