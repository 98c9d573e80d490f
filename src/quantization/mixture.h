/*
 * Mixtures of types, by the names that llama.cpp's quantizer gives them: a type
 * for most matrices, and more bits for those that need them. The rules are that
 * program's, so that files of one name have the same size wherever they were made.
 */
#ifndef DM_QUANTIZATION_MIXTURE_H
#define DM_QUANTIZATION_MIXTURE_H

#include "model/config.h"

typedef struct dm_mixture dm_mixture;

/* In upper or lower case: "f32", "f16", "bf16", "q8_0", "q4_k_m", ... DM_ERR_ARGUMENT, naming them all, for any other. */
dm_status dm_mixture_from_name(const char *name, const dm_mixture **out);
/* "f32, f16, ...": all of them, for messages and help. */
const char *dm_mixture_names(void);

/* What a tensor of the model becomes. Vectors, routers and positions stay F32. Rows that are no whole blocks take the
 * nearest type of smaller blocks, F16 in the end. */
dm_type dm_mixture_type(const dm_mixture *mixture, const dm_config *config, const dm_tensor_spec *spec);

/* Adds general.file_type, which other programs show to their users, and for blocks general.quantization_version. */
void dm_mixture_write(const dm_mixture *mixture, dm_gguf_writer *writer);

#endif
