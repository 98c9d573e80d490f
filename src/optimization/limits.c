/*
 * The limits of the machine: independent chains of multiply-adds that live in
 * registers, and reads from main memory, with all threads.
 */
#include "optimization/limits.h"

#include <string.h>

#include "base/threads.h"
#include "kernels/processor.h"
#include "optimization/tiers.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { CHAINS = 12 }; /* two units times a latency of four to six cycles */
static const long iterations = 100000;
static const double patience = 0.7; /* seconds for one figure: the best of many short runs, in some of which nobody disturbs */
static volatile float sink;

/* ---- Arithmetic: independent chains that live in registers. Each returns the operations it did. ---- */

#define DEFINE_CHAINS(name, target_options, type, start, step, operations_a_step)                                                \
    target_options static double name(void) {                                                                                    \
        type chain[CHAINS];                                                                                                      \
        for (int c = 0; c < CHAINS; c++) {                                                                                       \
            chain[c] = start(1e-3f * (float)c);                                                                                  \
        }                                                                                                                        \
        for (long i = 0; i < iterations; i++) {                                                                                  \
            _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++) {                                                          \
                chain[c] = step(chain[c]);                                                                                       \
            }                                                                                                                    \
        }                                                                                                                        \
        for (int c = 1; c < CHAINS; c++) {                                                                                       \
            chain[0] += chain[c];                                                                                                \
        }                                                                                                                        \
        float first;                                                                                                             \
        memcpy(&first, &chain[0], sizeof first);                                                                                 \
        sink = first;                                                                                                            \
        return (double)iterations * CHAINS * (operations_a_step);                                                                \
    }

#if defined(__x86_64__)
#define start_256(x) _mm256_set1_epi32((int)(1000.0f * (x)))
#define start_512(x) _mm512_set1_epi32((int)(1000.0f * (x)))
#define AVX2_STEP(x) _mm256_fmadd_ps(x, _mm256_set1_ps(0.999f), _mm256_set1_ps(1e-3f))
#define AVX512_STEP(x) _mm512_fmadd_ps(x, _mm512_set1_ps(0.999f), _mm512_set1_ps(1e-3f))
#define BF16_STEP(x) _mm512_dpbf16_ps(x, (__m512bh)_mm512_set1_epi16(0x3f00), (__m512bh)_mm512_set1_epi16(0x3c00))
DEFINE_CHAINS(fma_avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, AVX2_STEP, 16)
DEFINE_CHAINS(fma_avx512, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, AVX512_STEP, 32)
DEFINE_CHAINS(dot_bf16, __attribute__((target("avx512f,avx512bf16"))), __m512, _mm512_set1_ps, BF16_STEP, 64)

#define AVX2_BYTES_STEP(x)                                                                                                       \
    _mm256_add_epi32(x, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(3), x), _mm256_set1_epi16(1)))
#define VNNI_STEP(x) _mm512_dpbusd_epi32(x, _mm512_set1_epi8(3), _mm512_set1_epi8(5))
DEFINE_CHAINS(bytes_avx2, __attribute__((target("avx2"))), __m256i, start_256, AVX2_BYTES_STEP, 64)
DEFINE_CHAINS(bytes_vnni, __attribute__((target("avx512f,avx512bw,avx512vnni"))), __m512i, start_512, VNNI_STEP, 128)

#define TILES __attribute__((target("amx-tile,amx-bf16,amx-int8")))

/* Four tiles of sums, each a chain of its own. Static: to the compiler, loading the shapes reads but their first bytes. */
static const struct {
    uint8_t palette, rest[15];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes = {1, {0}, {64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16}};

#define DEFINE_TILES(name, multiply, operations_a_step)                                                                          \
    TILES static double name(void) {                                                                                             \
        _tile_loadconfig(&tile_shapes);                                                                                          \
        _tile_zero(0);                                                                                                           \
        _tile_zero(1);                                                                                                           \
        _tile_zero(2);                                                                                                           \
        _tile_zero(3);                                                                                                           \
        _tile_zero(4);                                                                                                           \
        _tile_zero(5);                                                                                                           \
        for (long i = 0; i < iterations; i++) {                                                                                  \
            multiply(0, 4, 5);                                                                                                   \
            multiply(1, 4, 5);                                                                                                   \
            multiply(2, 4, 5);                                                                                                   \
            multiply(3, 4, 5);                                                                                                   \
        }                                                                                                                        \
        _tile_release();                                                                                                         \
        return (double)iterations * 4 * (operations_a_step);                                                                     \
    }
DEFINE_TILES(tiles_bf16, _tile_dpbf16ps, 2 * 16 * 16 * 32)
DEFINE_TILES(tiles_int8, _tile_dpbssd, 2 * 16 * 16 * 64)
#elif defined(__aarch64__)
#define start_128(x) vdupq_n_s32((int)(1000.0f * (x)))
#define NEON_STEP(x) vfmaq_f32(vdupq_n_f32(1e-3f), x, vdupq_n_f32(0.999f))
DEFINE_CHAINS(fma_neon, , float32x4_t, vdupq_n_f32, NEON_STEP, 8)
#define SDOT_STEP(x) vdotq_s32(x, vdupq_n_s8(3), vdupq_n_s8(5))
DEFINE_CHAINS(bytes_neon, __attribute__((target("arch=armv8.2-a+dotprod"))), int32x4_t, start_128, SDOT_STEP, 32)
#endif

/* 10^9 operations a second: the sum over threads, all at work, of each one's best short run. */
static double giga_operations(double (*chains)(void)) {
    double total = 0;
#pragma omp parallel reduction(+ : total)
    {
        double best = 0, now = dm_seconds(), end = now + patience;
        while (now < end) {
            double start = now, operations = chains();
            now = dm_seconds();
            double rate = operations / (now - start) * 1e-9;
            best = rate > best ? rate : best;
        }
        total += best;
    }
    return total;
}

void dm_machine_limits(dm_limits *out) {
    const dm_processor *processor = dm_processor_features();
    *out = (dm_limits){.threads = dm_threads()};
#if defined(__x86_64__)
    if (processor->avx512) {
        out->fp32_gops = giga_operations(fma_avx512);
    } else if (processor->avx2) {
        out->fp32_gops = giga_operations(fma_avx2);
    }
    if (processor->amx_bf16) {
        out->bf16_gops = giga_operations(tiles_bf16);
    } else if (processor->avx512_bf16) {
        out->bf16_gops = giga_operations(dot_bf16);
    }
    if (processor->amx_int8) {
        out->int8_gops = giga_operations(tiles_int8);
    } else if (processor->avx512_vnni) {
        out->int8_gops = giga_operations(bytes_vnni);
    } else if (processor->avx2) {
        out->int8_gops = giga_operations(bytes_avx2);
    }
    out->int8_vector_gops = !processor->amx_int8     ? out->int8_gops
                            : processor->avx512_vnni ? giga_operations(bytes_vnni)
                                                     : giga_operations(bytes_avx2);
#elif defined(__aarch64__)
    if (processor->neon) {
        out->fp32_gops = giga_operations(fma_neon);
    }
    if (processor->dotprod) {
        out->int8_gops = out->int8_vector_gops = giga_operations(bytes_neon);
    }
#else
    (void)processor;
#endif
    out->read_gb_s = dm_main_memory_bandwidth();
}
