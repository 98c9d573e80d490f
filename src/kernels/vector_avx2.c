/* Row operations for x86-64 with AVX2, FMA and F16C. */
#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 8
#include "kernels/vector_types.h"

#define DM_TABLE dm_vector_avx2
#define DM_ISA "avx2"
#define v_fma(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define v_min(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define v_max(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define v_sqrt(a) ((vf)_mm256_sqrt_ps((__m256)(a)))
#define v_from_f16(halves) ((vf)_mm256_cvtph_ps((__m128i)(halves)))
#define v_from_i8(p) ((vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p)))))
#define v_to_f16(a) ((vh)_mm256_cvtps_ph((__m256)(a), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
#define v_widen(halves) ((vu)_mm256_cvtepu16_epi32((__m128i)(halves)))
#define v_narrow(u) narrow((__m256i)(u))
#define v_load_part(p, k) ((vf)_mm256_maskload_ps(p, first_lanes(k)))

static inline __m256i first_lanes(size_t k) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Packing works within 128 bits: its two halves are brought together after. */
static inline vh narrow(__m256i u) {
    return (vh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(u, u), 0x08));
}

#include "kernels/vector_impl.h"
#endif
