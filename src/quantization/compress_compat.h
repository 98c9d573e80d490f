/* A model as blocks that every GGUF program reads: a type for each tensor under one price of a byte. */
#ifndef DM_QUANTIZATION_COMPRESS_COMPAT_H
#define DM_QUANTIZATION_COMPRESS_COMPAT_H

#include "quantization/compress_model.h"

/* Writes an open model, which stays the caller's, to `to`; the model's conversion takes scratch that the caller frees.
 * DM_ERR_ARGUMENT where the budget is too small, DM_ERR_UNSUPPORTED where the model is no plain GGUF file. */
dm_status dm_compress_compat(dm_compress_model *model, const char *to, dm_compress_result *result);

#endif
