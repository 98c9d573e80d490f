/* Slopes by the divergence that noise in a matrix makes. */
#ifndef DM_QUANTIZATION_CALIBRATION_NOISE_H
#define DM_QUANTIZATION_CALIBRATION_NOISE_H

#include "quantization/calibration_job.h"

/* Passes over dm_calibration_noise_tokens() tokens. */
size_t dm_calibration_noise_passes(const dm_config *config);
/* Tokens of each, of `tokens` wanted: whole windows, fewer where logits would take too much memory. */
uint64_t dm_calibration_noise_tokens(const dm_calibration_job *job, uint64_t tokens);

/* Scales the slopes of each layer's matrices of a role to the divergence that noise in all of them makes, and keeps them in a
 * part of the job: `shape`, by rows, or where that is NULL, one number for all. Takes memory for such matrices as float32.
 * DM_ERR_UNSUPPORTED where experts are on disk. */
dm_status dm_calibration_noise(dm_calibration_job *job, uint64_t tokens, uint64_t seed, const dm_calibration_slopes *shape);

#endif
