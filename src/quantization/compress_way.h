/*
 * The two ways to compress a model: to mixed-width panels, and to blocks of GGUF's common types. What does not depend on the
 * size is measured once; then a model is solved for as many sizes as are wanted.
 */
#ifndef DM_QUANTIZATION_COMPRESS_WAY_H
#define DM_QUANTIZATION_COMPRESS_WAY_H

#include "quantization/compress_outcome.h"

typedef struct dm_compress_way {
    /* Measures what errors cost; *state is the way's own, to be closed whatever is returned. The model must outlive it. */
    dm_status (*open)(dm_compress_model *model, void **state);
    void (*close)(void *state);
    /* Decides on every weight at the size of the model's options, as they are now. Solutions wait beside `to`; *out is to be
     * closed in any case, before the way is. DM_ERR_ARGUMENT: they ask for too little. */
    dm_status (*solve)(void *state, const char *to, dm_compress_outcome *out);
    /* Adds the metadata of the file of an outcome. */
    dm_status (*describe)(const void *state, const dm_compress_outcome *outcome, dm_gguf_writer *writer);
} dm_compress_way;

extern const dm_compress_way dm_compress_to_panels, dm_compress_to_blocks;

/* One model on its way. */
typedef struct dm_compressor {
    dm_compress_model model;
    const dm_compress_way *way;
    void *state;
    bool solved; /* once at least */
} dm_compressor;

/* DM_ERR_ARGUMENT for options that contradict each other, or a file that is not to be replaced. */
dm_status dm_compress_check(const dm_compress_options *options, const char *to);

/* Checks the options, which must outlive it, opens the model and measures; to be closed in any case. */
dm_status dm_compressor_open(dm_compressor *it, const char *from, const char *to, const dm_compress_options *options);
void dm_compressor_close(dm_compressor *it);
/* Solves for the options' size as it is now; the outcome is to be closed in any case, before the compressor. */
dm_status dm_compressor_solve(dm_compressor *it, const char *to, dm_compress_outcome *out);
/* Writes an outcome to a file, and how large that is into its result. */
dm_status dm_compressor_write(dm_compressor *it, dm_compress_outcome *outcome, const char *to);

#endif
