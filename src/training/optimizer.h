/* AdamW with clipping by the global norm, and the learning rate's course. */
#ifndef DM_TRAINING_OPTIMIZER_H
#define DM_TRAINING_OPTIMIZER_H

#include "training/parameters.h"
#include "training/train_config.h"

/* Euclidean norm of all gradients; the same for any number of threads. */
double dm_gradient_norm(const dm_parameters *parameters);
void dm_gradients_clear(dm_parameters *parameters);

/* Rate of step `step` (1 is the first) of `steps`: a linear rise over config->warmup steps, then half a cosine down to
 * min_lr * lr (Loshchilov and Hutter 2017). */
double dm_learning_rate(const dm_train_config *config, int64_t step, int64_t steps);

/* One AdamW step at that rate. `norm` is dm_gradient_norm(); gradients longer than config->clip are shortened to it.
 * Weight decay falls on matrices alone. */
void dm_optimizer_step(dm_parameters *parameters, const dm_train_config *config, int64_t step, double lr, double norm);

#endif
