/* Encoders of Q3_K and Q6_K: 16 groups of 16 with signed scales. */
#include "kernels/block_layouts.h"
#include "quantization/scaled_block.h"

void dm_encode_q3_k(void *block, const float *x, const float *w) {
    const scaled_shape shape = {16, {-4.0f, 3.0f, -4.0f, NULL}, -32.0f, 31.0f, 6, 0.3f};
    scaled_block found = scaled_search(x, w, shape);
    uint8_t q[256];
    scaled_levels(x, shape, &found, q);
    dm_block_q3_k *out = block;
    memset(out, 0, sizeof *out);
    out->d = found.d;
    for (int g = 0; g < 16; g++) {
        int scale = (int)found.scales[g] + 32;
        out->scales[g % 8] |= (uint8_t)((scale & 15) << (g < 8 ? 0 : 4));
        out->scales[8 + g % 4] |= (uint8_t)((scale >> 4) << (2 * (g / 4)));
    }
    for (int i = 0; i < 256; i++) {
        out->pairs[32 * (i / 128) + i % 32] |= (uint8_t)((q[i] & 3) << (2 * (i / 32 % 4)));
        out->high[i % 32] |= (uint8_t)((q[i] >> 2) << (i / 32));
    }
}

void dm_encode_q6_k(void *block, const float *x, const float *w) {
    const scaled_shape shape = {16, {-32.0f, 31.0f, -32.0f, NULL}, -128.0f, 127.0f, 6, 0.3f};
    scaled_block found = scaled_search(x, w, shape);
    uint8_t q[256];
    scaled_levels(x, shape, &found, q);
    dm_block_q6_k *out = block;
    memset(out, 0, sizeof *out);
    out->d = found.d;
    for (int g = 0; g < 16; g++) {
        out->scales[g] = (int8_t)found.scales[g];
    }
    for (int i = 0; i < 256; i++) {
        int h = i / 128, k = i / 32 % 4;
        out->low[64 * h + 32 * (k % 2) + i % 32] |= (uint8_t)((q[i] & 15) << (4 * (k / 2)));
        out->high[32 * h + i % 32] |= (uint8_t)((q[i] >> 4) << (2 * k));
    }
}
