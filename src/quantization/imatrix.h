/*
 * Importance matrices as llama.cpp writes and reads them, in its older binary format and as GGUF: for each tensor the mean square
 * of every column's input. Both are described in docs/compression.md.
 */
#ifndef DM_QUANTIZATION_IMATRIX_H
#define DM_QUANTIZATION_IMATRIX_H

#include "quantization/calibration_slots.h"

typedef struct dm_imatrix {
    size_t *offsets; /* [slots + 1] of each slot's columns in `means` */
    float *means;    /* [offsets[slots]] mean squares */
    double *counts;  /* [slots] tokens behind them; 0: nothing is known of the slot */
    bool *there;     /* [slots] whether the file has it */
    uint64_t tokens; /* of the text */
    bool per_expert; /* `counts` tell experts apart */
} dm_imatrix;

/* Nothing known of any slot. Free with dm_imatrix_free(), after a failure too. */
dm_status dm_imatrix_create(const dm_config *config, dm_imatrix *out);
void dm_imatrix_free(dm_imatrix *imatrix);

/* Whether a file begins as one of the two does; false where it cannot be read. */
bool dm_imatrix_is(const char *path);
/* Reads either format. Tensors that are none of the model's matrices are passed over; of matrices that share an input the first
 * counts. DM_ERR_FORMAT for damaged files and for sizes other than the model's. On success free *out with dm_imatrix_free(). */
dm_status dm_imatrix_read(const char *path, const dm_config *config, dm_imatrix *out);
/* Writes what is there: the older format where `path` ends in ".dat", else GGUF. */
dm_status dm_imatrix_write(const char *path, const dm_config *config, const dm_imatrix *imatrix);

#endif
