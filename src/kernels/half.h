/* Half precision in plain C, bit by bit: for one number at a time, and for machines whose tables have nothing faster. */
#ifndef DM_KERNELS_HALF_H
#define DM_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float dm_bits_to_f32(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t dm_f32_to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float dm_f16_value(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 31;
    uint32_t mantissa = h & 1023;
    if (exponent == 31) {
        uint32_t quiet = mantissa != 0 ? 0x400000 : 0;
        return dm_bits_to_f32(sign | 0x7f800000 | quiet | mantissa << 13);
    }
    if (exponent == 0) { /* zero or subnormal: mantissa units of 2^-24 */
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    return dm_bits_to_f32(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* Nearest even; overflow to infinity; NaN stays NaN. */
static inline uint16_t dm_f16_bits(float x) {
    uint32_t bits = dm_f32_to_bits(x);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    }
    if (magnitude >= 0x477ff000) { /* 65520, halfway past the largest half, and above */
        return sign | 0x7c00;
    }
    if (magnitude < 0x38800000) { /* below 2^-14: count units of 2^-24, rounded by the float unit itself */
        float shifted = dm_bits_to_f32(magnitude) + 0.5f;
        return (uint16_t)(sign | (dm_f32_to_bits(shifted) - dm_f32_to_bits(0.5f)));
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000) >> 13);
}

#endif
