/* Products with panels for x86-64 with AVX2, whose byte products are summed in pairs of 16 bits: codes below 128 keep
 * them from overflowing, and signed codes lend their sign to the activation. */
#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 8
#include "kernels/vector_types.h"

#define MOST_TOKENS 4
#define SIDE_BY_SIDE 1
#define DM_TABLE dm_quantized_avx2
#define DM_ISA "avx2"
#define SIGNED_SHIFT 0
#define v_fma(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define v_from_f16(halves) ((vf)_mm256_cvtph_ps((__m128i)(halves)))
#define v_from_u8(p) ((vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p))))
#define v_from_i8(p) ((vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p))))
#define v_store_i8(p, a) store_bytes(p, (__m256i)(a))
#define v_max_of(a) max_of((__m256i)(a))
#define v_sum_of(a) sum_of((__m256i)(a))
#define v_dot(acc, w, x) ((acc) + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)(w), (__m256i)(x)), _mm256_set1_epi16(1)))
#define v_dot_signed(acc, w, x)                                                                                                  \
    v_dot(acc, _mm256_sign_epi8((__m256i)(w), (__m256i)(w)), _mm256_sign_epi8((__m256i)(x), (__m256i)(w)))
#define v_signed(w) (w)
#define v_table(p) ((vu)_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p))))
#define v_look(table, w) ((vu)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(w)))

static inline int32_t max_of(__m256i a) {
    __m128i v = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1));
    return _mm_cvtsi128_si32(v);
}

static inline int32_t sum_of(__m256i a) {
    __m128i v = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1));
    return _mm_cvtsi128_si32(v);
}

/* The low byte of each of 8 words. */
static inline void store_bytes(int8_t *p, __m256i a) {
    const __m128i low = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m128i first = _mm_shuffle_epi8(_mm256_castsi256_si128(a), low);
    __m128i second = _mm_shuffle_epi8(_mm256_extracti128_si256(a, 1), low);
    _mm_storel_epi64((__m128i *)p, _mm_unpacklo_epi32(first, second));
}

#include "kernels/quantized_impl.h"
#endif
