/* Decoders of the blocks of 256 whose groups have scales: Q2_K to Q6_K. Weights lie in memory as 128 h + 32 k + l. */
#include "kernels/block_decoders.h"
#include "kernels/block_layouts.h"
#include "kernels/half.h"

void dm_decode_q2_k(float *y, const void *blocks, size_t n) {
    const dm_block_q2_k *block = blocks;
    for (size_t i = 0; i < n; i += 256, block++) {
        float d = dm_f16_value(block->d);
        float dmin = dm_f16_value(block->dmin);
        for (int g = 0; g < 16; g++) { /* half h, bits k, upper or lower 16 of 32 */
            int h = g / 8, k = g / 2 % 4;
            float scale = d * (float)(block->scales[g] & 15);
            float min = dmin * (float)(block->scales[g] >> 4);
            const uint8_t *pairs = block->pairs + 32 * h + 16 * (g % 2);
            float *out = y + i + 16 * g;
            for (int l = 0; l < 16; l++) {
                out[l] = scale * (float)(pairs[l] >> (2 * k) & 3) - min;
            }
        }
    }
}

void dm_decode_q3_k(float *y, const void *blocks, size_t n) {
    const dm_block_q3_k *block = blocks;
    for (size_t i = 0; i < n; i += 256, block++) {
        float d = dm_f16_value(block->d);
        for (int g = 0; g < 16; g++) {
            int h = g / 8, k = g / 2 % 4;
            float scale = d * (float)dm_q3_k_scale(block->scales, g);
            const uint8_t *pairs = block->pairs + 32 * h + 16 * (g % 2);
            const uint8_t *high = block->high + 16 * (g % 2);
            float *out = y + i + 16 * g;
            for (int l = 0; l < 16; l++) {
                int q = (pairs[l] >> (2 * k) & 3) + 4 * (high[l] >> (4 * h + k) & 1) - 4;
                out[l] = scale * (float)q;
            }
        }
    }
}

void dm_decode_q4_k(float *y, const void *blocks, size_t n) {
    const dm_block_q4_k *block = blocks;
    for (size_t i = 0; i < n; i += 256, block++) {
        float d = dm_f16_value(block->d);
        float dmin = dm_f16_value(block->dmin);
        for (int g = 0; g < 8; g++) {
            float scale = d * (float)dm_q4_k_scale(block->scales, g);
            float min = dmin * (float)dm_q4_k_min(block->scales, g);
            const uint8_t *nibbles = block->nibbles + 32 * (g / 2);
            int shift = 4 * (g % 2);
            float *out = y + i + 32 * g;
            for (int l = 0; l < 32; l++) {
                out[l] = scale * (float)(nibbles[l] >> shift & 15) - min;
            }
        }
    }
}

void dm_decode_q5_k(float *y, const void *blocks, size_t n) {
    const dm_block_q5_k *block = blocks;
    for (size_t i = 0; i < n; i += 256, block++) {
        float d = dm_f16_value(block->d);
        float dmin = dm_f16_value(block->dmin);
        for (int g = 0; g < 8; g++) {
            float scale = d * (float)dm_q4_k_scale(block->scales, g);
            float min = dmin * (float)dm_q4_k_min(block->scales, g);
            const uint8_t *nibbles = block->nibbles + 32 * (g / 2);
            int shift = 4 * (g % 2);
            float *out = y + i + 32 * g;
            for (int l = 0; l < 32; l++) {
                int q = (nibbles[l] >> shift & 15) | (block->fifth[l] >> g & 1) << 4;
                out[l] = scale * (float)q - min;
            }
        }
    }
}

void dm_decode_q6_k(float *y, const void *blocks, size_t n) {
    const dm_block_q6_k *block = blocks;
    for (size_t i = 0; i < n; i += 256, block++) {
        float d = dm_f16_value(block->d);
        for (int g = 0; g < 16; g++) {
            int h = g / 8, k = g / 2 % 4;
            float scale = d * (float)block->scales[g];
            const uint8_t *low = block->low + 64 * h + 32 * (k % 2) + 16 * (g % 2);
            const uint8_t *high = block->high + 32 * h + 16 * (g % 2);
            int shift = 4 * (k / 2);
            float *out = y + i + 16 * g;
            for (int l = 0; l < 16; l++) {
                int q = (low[l] >> shift & 15) | (high[l] >> (2 * k) & 3) << 4;
                out[l] = scale * (float)(q - 32);
            }
        }
    }
}
