/*
 * How the experts of a model lie in its file. The standard layout stacks a layer's gate matrices of all experts in one tensor,
 * its up and down matrices in two others: an expert is three reads, at no particular address. Laid out for streaming,
 * each matrix is a tensor of its own and an expert's three lie one after another from a multiple of 4096 bytes on: one read,
 * aligned as direct input and output ask for.
 */
#ifndef DM_MODEL_EXPERT_LAYOUT_H
#define DM_MODEL_EXPERT_LAYOUT_H

#include "model/model.h"

typedef enum dm_expert_layout {
    DM_LAYOUT_NONE,      /* a dense model */
    DM_LAYOUT_STANDARD,  /* stacked */
    DM_LAYOUT_APART,     /* tensors of their own, anywhere, as in files of 2023 */
    DM_LAYOUT_STREAMING, /* tensors of their own, an expert's gate, up and down matrix in one stretch */
} dm_expert_layout;

enum { DM_EXPERT_BOUNDARY = DM_GGUF_MOST_ALIGNMENT }; /* an expert begins at a multiple of so many bytes */

/* NULL for a dense model. */
const char *dm_expert_layout_name(dm_expert_layout layout);

/* As the tensors do lie, whatever the file's metadata claims. */
dm_expert_layout dm_model_expert_layout(const dm_model *model);

/* The `count` specs of a model whose experts lie apart in the order of a file laid out for streaming: first all that are no
 * expert's, then expert after expert. *order (malloc), which points to them, is the caller's to free(). */
dm_status dm_streaming_order(const dm_tensor_spec *specs, size_t count, const dm_tensor_spec ***order);
/* What such a file says of itself. */
void dm_streaming_write(dm_gguf_writer *writer);

#endif
