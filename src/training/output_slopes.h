/* Mean squared gradients with respect to what each matrix gives, by the backward pass: what errors of a matrix cost. */
#ifndef DM_TRAINING_OUTPUT_SLOPES_H
#define DM_TRAINING_OUTPUT_SLOPES_H

#include "kernels/matmul.h"
#include "quantization/calibration_job.h"

/* Bytes that dm_output_slopes() takes for the weights and their gradients. */
uint64_t dm_output_slopes_bytes(const dm_config *config);
/* DM_OK where the backward pass knows the architecture, else DM_ERR_UNSUPPORTED with the reason. */
dm_status dm_output_slopes_check(const dm_config *config);

/* Tokens that will be read of about `tokens`: whole windows. */
uint64_t dm_output_slopes_tokens(const dm_calibration_windows *windows, uint64_t tokens);

/* Measures over that many tokens, windows taken evenly from all, and keeps the sums in the job's part for slopes. */
dm_status dm_output_slopes(dm_calibration_job *job, uint64_t tokens, uint64_t seed, dm_precision precision);

#endif
