/* Decoders of the types whose nibbles or bytes are the weights themselves: blocks of 32, and IQ4_XS. */
#include "kernels/block_decoders.h"
#include "kernels/block_layouts.h"
#include "kernels/half.h"

const int8_t dm_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void dm_decode_q4_0(float *y, const void *blocks, size_t n) {
    const dm_block_q4_0 *block = blocks;
    for (size_t i = 0; i < n; i += 32, block++) {
        float d = dm_f16_value(block->d);
        for (size_t l = 0; l < 16; l++) {
            y[i + l] = (float)((block->nibbles[l] & 15) - 8) * d;
            y[i + l + 16] = (float)((block->nibbles[l] >> 4) - 8) * d;
        }
    }
}

void dm_decode_q4_1(float *y, const void *blocks, size_t n) {
    const dm_block_q4_1 *block = blocks;
    for (size_t i = 0; i < n; i += 32, block++) {
        float d = dm_f16_value(block->d);
        float m = dm_f16_value(block->m);
        for (size_t l = 0; l < 16; l++) {
            y[i + l] = (float)(block->nibbles[l] & 15) * d + m;
            y[i + l + 16] = (float)(block->nibbles[l] >> 4) * d + m;
        }
    }
}

/* The 32 fifth bits of a block. */
static uint32_t fifth_bits(const uint8_t fifth[4]) {
    return fifth[0] | (uint32_t)fifth[1] << 8 | (uint32_t)fifth[2] << 16 | (uint32_t)fifth[3] << 24;
}

void dm_decode_q5_0(float *y, const void *blocks, size_t n) {
    const dm_block_q5_0 *block = blocks;
    for (size_t i = 0; i < n; i += 32, block++) {
        float d = dm_f16_value(block->d);
        uint32_t fifth = fifth_bits(block->fifth);
        for (size_t l = 0; l < 16; l++) {
            int low = (block->nibbles[l] & 15) | (int)(fifth >> l & 1) << 4;
            int high = block->nibbles[l] >> 4 | (int)(fifth >> (l + 16) & 1) << 4;
            y[i + l] = (float)(low - 16) * d;
            y[i + l + 16] = (float)(high - 16) * d;
        }
    }
}

void dm_decode_q5_1(float *y, const void *blocks, size_t n) {
    const dm_block_q5_1 *block = blocks;
    for (size_t i = 0; i < n; i += 32, block++) {
        float d = dm_f16_value(block->d);
        float m = dm_f16_value(block->m);
        uint32_t fifth = fifth_bits(block->fifth);
        for (size_t l = 0; l < 16; l++) {
            int low = (block->nibbles[l] & 15) | (int)(fifth >> l & 1) << 4;
            int high = block->nibbles[l] >> 4 | (int)(fifth >> (l + 16) & 1) << 4;
            y[i + l] = (float)low * d + m;
            y[i + l + 16] = (float)high * d + m;
        }
    }
}

void dm_decode_q8_0(float *y, const void *blocks, size_t n) {
    const dm_block_q8_0 *block = blocks;
    for (size_t i = 0; i < n; i += 32, block++) {
        float d = dm_f16_value(block->d);
        for (size_t l = 0; l < 32; l++) {
            y[i + l] = (float)block->q[l] * d;
        }
    }
}

void dm_decode_iq4_nl(float *y, const void *blocks, size_t n) {
    const dm_block_iq4_nl *block = blocks;
    for (size_t i = 0; i < n; i += 32, block++) {
        float d = dm_f16_value(block->d);
        for (size_t l = 0; l < 16; l++) {
            y[i + l] = d * (float)dm_iq4_values[block->nibbles[l] & 15];
            y[i + l + 16] = d * (float)dm_iq4_values[block->nibbles[l] >> 4];
        }
    }
}

void dm_decode_iq4_xs(float *y, const void *blocks, size_t n) {
    const dm_block_iq4_xs *block = blocks;
    for (size_t i = 0; i < n; i += 256, block++) {
        float d = dm_f16_value(block->d);
        for (int g = 0; g < 8; g++) {
            float scale = d * (float)dm_iq4_xs_scale(block, g);
            const uint8_t *nibbles = block->nibbles + 16 * g;
            float *out = y + i + 32 * g;
            for (size_t l = 0; l < 16; l++) {
                out[l] = scale * (float)dm_iq4_values[nibbles[l] & 15];
                out[l + 16] = scale * (float)dm_iq4_values[nibbles[l] >> 4];
            }
        }
    }
}
