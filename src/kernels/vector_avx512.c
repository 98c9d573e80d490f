/* Row operations for x86-64 with AVX-512 F, BW, DQ and VL. */
#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 16
#include "kernels/vector_types.h"

#define DM_TABLE dm_vector_avx512
#define DM_ISA "avx512"
#define v_fma(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define v_min(a, b) ((vf)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define v_max(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define v_sqrt(a) ((vf)_mm512_sqrt_ps((__m512)(a)))
#define v_from_f16(halves) ((vf)_mm512_cvtph_ps((__m256i)(halves)))
#define v_from_i8(p) ((vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p)))))
#define v_to_f16(a) ((vh)_mm512_cvtps_ph((__m512)(a), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
#define v_widen(halves) ((vu)_mm512_cvtepu16_epi32((__m256i)(halves)))
#define v_narrow(u) ((vh)_mm512_cvtepi32_epi16((__m512i)(u)))
#define v_load_part(p, k) ((vf)_mm512_maskz_loadu_ps((__mmask16)((1u << (k)) - 1), p))

#include "kernels/vector_impl.h"
#endif
