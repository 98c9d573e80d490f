/* Fresh models: the numbers that training starts from. */
#ifndef DM_MODEL_CREATE_H
#define DM_MODEL_CREATE_H

#include "model/config.h"

/*
 * Fills weights[i], float32 [specs[i].elements], for each of n tensors: matrices normal with deviation 0.02, those that
 * write into the residual stream divided by sqrt(2 layers) (Radford et al. 2019), norms 1, biases 0. A number depends on
 * seed, tensor name and position alone: not on the other tensors nor on the number of threads.
 */
void dm_init_weights(const dm_config *config, const dm_tensor_spec *specs, size_t n, uint64_t seed, float *const *weights);

/* Elements [first, first + n) of one tensor, the same numbers. */
void dm_init_piece(const dm_config *config, const dm_tensor_spec *spec, uint64_t seed, uint64_t first, size_t n, float *out);

/* The shape that `info` asks for, 0 meaning the architecture's default, and `vocab` where the info has none. */
dm_status dm_config_from_info(const dm_model_info *info, int32_t vocab, bool tied_output, dm_config *out);

#endif
