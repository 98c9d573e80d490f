/* Slopes for models that the backward pass does not know: the divergence that noise in a matrix makes. */
#ifndef DM_QUANTIZATION_CALIBRATION_NOISE_H
#define DM_QUANTIZATION_CALIBRATION_NOISE_H

#include "quantization/calibration_job.h"

/* Passes over dm_calibration_noise_tokens() tokens. */
size_t dm_calibration_noise_passes(const dm_config *config);
/* Tokens of each, of `tokens` wanted: whole windows, fewer where logits would take too much memory. */
uint64_t dm_calibration_noise_tokens(const dm_calibration_job *job, uint64_t tokens);

/* One number for each layer's matrices of a role, by noise in all of them, kept in the job's part for slopes. Takes memory for
 * such matrices as float32. DM_ERR_UNSUPPORTED where experts are on disk. */
dm_status dm_calibration_noise(dm_calibration_job *job, uint64_t tokens, uint64_t seed);

#endif
