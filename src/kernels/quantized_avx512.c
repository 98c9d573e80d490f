/* Products with panels for x86-64 with AVX-512 and VNNI. */
#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 16
#include "kernels/vector_types.h"

#define MOST_TOKENS 16
#define SIDE_BY_SIDE 4
#define DM_TABLE dm_quantized_avx512
#define DM_ISA "avx512"
#define SIGNED_SHIFT 1
#define v_fma(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define v_from_f16(halves) ((vf)_mm512_cvtph_ps((__m256i)(halves)))
#define v_from_u8(p) ((vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define v_from_i8(p) ((vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define v_store_i8(p, a) _mm_storeu_si128((__m128i *)(p), _mm512_cvtepi32_epi8((__m512i)(a)))
#define v_max_of(a) _mm512_reduce_max_epi32((__m512i)(a))
#define v_sum_of(a) _mm512_reduce_add_epi32((__m512i)(a))
#define v_dot(acc, w, x) ((vi)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(w), (__m512i)(x)))
#define v_signed(w) ((w) ^ 0x80808080)
#define v_table(p) ((vu)_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(p))))
#define v_look(table, w) ((vu)_mm512_shuffle_epi8((__m512i)(table), (__m512i)(w)))

#include "kernels/quantized_impl.h"
#endif
