/*
 * Matrices of mixed-width panels (kernels/mixed_panels.h) in GGUF files: to GGUF such a tensor is a row of bytes, of type I8,
 * that has the matrix's usual name. A stack of experts is their matrices one after another, each of its own size.
 */
#ifndef DM_MODEL_MIXED_TENSOR_H
#define DM_MODEL_MIXED_TENSOR_H

#include "kernels/mixed_panels.h"
#include "model/config.h"

/* Metadata key of a file that has such tensors: DM_MIXED_VERSION. */
#define DM_KEY_FORMAT "dilmodeli.format.version"

/* Whether a tensor claims to be such matrices. */
bool dm_tensor_is_mixed(const dm_gguf_tensor *tensor);

/* The tables of all matrices that a model has, held in memory. */
typedef struct dm_mixed_tables {
    dm_mixed_header **of;
    size_t n, room;
} dm_mixed_tables;

/* Adds those of a tensor that claims it, checked against the shape that it should have: *first is the number of the first. */
dm_status dm_tensor_read_mixed(const dm_gguf *file, const dm_gguf_tensor *tensor, const dm_tensor_spec *spec,
                               dm_mixed_tables *tables, size_t *first);
void dm_mixed_tables_free(dm_mixed_tables *tables);

#endif
