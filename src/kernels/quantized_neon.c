/* Products with panels for aarch64 with dot products of int8. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define LANES 4
#include "kernels/vector_types.h"

#define MOST_TOKENS 8
#define SIDE_BY_SIDE 4
#define DM_TABLE dm_quantized_neon
#define DM_ISA "neon"
#define SIGNED_SHIFT 0
#define v_fma(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define v_from_f16(halves) ((vf)vcvt_f32_f16((float16x4_t)(halves)))
#define v_from_u8(p) ((vi)vmovl_u16(vget_low_u16(vmovl_u8(four_bytes((const uint8_t *)(p))))))
#define v_from_i8(p) ((vi)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes((const uint8_t *)(p)))))))
#define v_store_i8(p, a) store_bytes(p, (int32x4_t)(a))
#define v_max_of(a) vmaxvq_s32((int32x4_t)(a))
#define v_sum_of(a) vaddvq_s32((int32x4_t)(a))
#define v_dot(acc, w, x) ((vi)vdotq_s32((int32x4_t)(acc), (int8x16_t)(w), (int8x16_t)(x)))
#define v_signed(w) (w)
#define v_table(p) ((vu)vld1q_s8(p))
#define v_look(table, w) ((vu)vqtbl1q_s8((int8x16_t)(table), (uint8x16_t)(w)))

static inline uint8x8_t four_bytes(const uint8_t *p) {
    uint32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    return vreinterpret_u8_u32(vdup_n_u32(word));
}

static inline void store_bytes(int8_t *p, int32x4_t a) {
    int16x4_t halves = vmovn_s32(a);
    uint32_t word = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(halves, halves))), 0);
    __builtin_memcpy(p, &word, sizeof word);
}

#include "kernels/quantized_impl.h"
#endif
