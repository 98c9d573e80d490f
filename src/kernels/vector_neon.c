/* Row operations for aarch64, whose baseline has all that is needed. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define LANES 4
#include "kernels/vector_types.h"

#define DM_TABLE dm_vector_neon
#define DM_ISA "neon"
#define v_fma(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define v_min(a, b) ((vf)vminq_f32((float32x4_t)(a), (float32x4_t)(b)))
#define v_max(a, b) ((vf)vmaxq_f32((float32x4_t)(a), (float32x4_t)(b)))
#define v_sqrt(a) ((vf)vsqrtq_f32((float32x4_t)(a)))
#define v_from_f16(halves) ((vf)vcvt_f32_f16((float16x4_t)(halves)))
#define v_to_f16(a) ((vh)vcvt_f16_f32((float32x4_t)(a)))

#include "kernels/vector_impl.h"
#endif
