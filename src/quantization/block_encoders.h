/* The encoders behind dm_encode(), one block each: `x` finite and below 1e9 in magnitude, `w` above 0 and at most 1. */
#ifndef DM_QUANTIZATION_BLOCK_ENCODERS_H
#define DM_QUANTIZATION_BLOCK_ENCODERS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/half.h"

typedef void (*dm_encode_fn)(void *block, const float *x, const float *w);

/* encode_blocks.c: blocks of 32 */
void dm_encode_q4_0(void *block, const float *x, const float *w);
void dm_encode_q4_1(void *block, const float *x, const float *w);
void dm_encode_q5_0(void *block, const float *x, const float *w);
void dm_encode_q5_1(void *block, const float *x, const float *w);
void dm_encode_q8_0(void *block, const float *x, const float *w);
/* encode_affine_k.c: blocks of 256 with scales and mins */
void dm_encode_q2_k(void *block, const float *x, const float *w);
void dm_encode_q4_k(void *block, const float *x, const float *w);
void dm_encode_q5_k(void *block, const float *x, const float *w);
/* encode_scaled_k.c: blocks of 256 with scales */
void dm_encode_q3_k(void *block, const float *x, const float *w);
void dm_encode_q6_k(void *block, const float *x, const float *w);
/* encode_iq4.c */
void dm_encode_iq4_nl(void *block, const float *x, const float *w);
void dm_encode_iq4_xs(void *block, const float *x, const float *w);

/* The nearest half that is finite. */
static inline uint16_t dm_finite_half(float x) {
    return dm_f16_bits(fminf(fmaxf(x, -65504.0f), 65504.0f));
}

/* The same for what scales small whole numbers. Among subnormal halves, which are coarse, the next larger in magnitude: the
 * largest of the numbers then still fits. */
static inline uint16_t dm_scale_half(float x) {
    uint16_t half = dm_finite_half(x);
    bool subnormal = (half & 0x7c00) == 0;
    return (uint16_t)(half + (subnormal && fabsf(dm_f16_value(half)) < fabsf(x)));
}

#endif
