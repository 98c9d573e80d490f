/* How much the squared error of each weight of a block counts when it is quantized. */
#ifndef DM_QUANTIZATION_ERROR_WEIGHTS_H
#define DM_QUANTIZATION_ERROR_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>

/* y [n] = x, NaN as 0 and what is beyond any type's range as the largest that is not. */
void dm_copy_finite(float *y, const float *x, size_t n);

/* w [n], above 0 and at most 1, of finite weights x. `importance` [n] or NULL: what is negative or no number counts as 0.
 * `favours_large`: errors of large weights count more, as 3 bits and fewer want it. */
void dm_error_weights(float *w, const float *x, const float *importance, size_t n, bool favours_large);

#endif
