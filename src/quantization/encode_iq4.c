/* Encoders of IQ4_NL and IQ4_XS, whose 16 levels are unevenly spaced. */
#include <pthread.h>
#include <stdlib.h>

#include "kernels/block_layouts.h"
#include "quantization/scaled_block.h"

enum { LOW = -127, HIGH = 113 };

/* For each whole number from LOW on: the nearest level, and its index. */
static float nearest_level[HIGH - LOW + 1];
static uint8_t nearest_index[HIGH - LOW + 1];
static pthread_once_t made_once = PTHREAD_ONCE_INIT;

static void make_tables(void) {
    for (int t = LOW; t <= HIGH; t++) {
        int best = 0;
        for (int i = 1; i < 16; i++) {
            best = abs(dm_iq4_values[i] - t) < abs(dm_iq4_values[best] - t) ? i : best;
        }
        nearest_level[t - LOW] = dm_iq4_values[best];
        nearest_index[t - LOW] = (uint8_t)best;
    }
}

FIT_INLINE fit_levels iq4_levels(void) {
    return (fit_levels){LOW, HIGH, LOW, nearest_level};
}

/* 32 weights as 16 bytes of indices. */
static void pack(uint8_t nibbles[16], const uint8_t q[32]) {
    for (int i = 0; i < 16; i++) {
        nibbles[i] = (uint8_t)(nearest_index[q[i]] | nearest_index[q[i + 16]] << 4);
    }
}

void dm_encode_iq4_nl(void *block, const float *x, const float *w) {
    pthread_once(&made_once, make_tables);
    const fit_levels levels = iq4_levels();
    dm_block_iq4_nl *out = block;
    float unused;
    out->d = dm_finite_half(fit_scale(x, w, 32, &levels, 8, 3.5f, &unused));
    float inverse = fit_inverse(dm_f16_value(out->d));
    uint8_t q[32];
    for (size_t i = 0; i < 32; i += 4) {
        fit_f4 nearest = fit_nearest(fit_load(x + i) * inverse, &levels) - levels.low;
        for (size_t k = 0; k < 4; k++) {
            q[i + k] = (uint8_t)nearest[k];
        }
    }
    pack(out->nibbles, q);
}

void dm_encode_iq4_xs(void *block, const float *x, const float *w) {
    pthread_once(&made_once, make_tables);
    const scaled_shape shape = {32, iq4_levels(), -32.0f, 31.0f, 8, 3.5f};
    scaled_block found = scaled_search(x, w, shape);
    uint8_t q[256];
    scaled_levels(x, shape, &found, q);
    dm_block_iq4_xs *out = block;
    memset(out, 0, sizeof *out);
    out->d = found.d;
    for (int g = 0; g < 8; g++) {
        int scale = (int)found.scales[g] + 32;
        out->scales_low[g / 2] |= (uint8_t)((scale & 15) << (4 * (g % 2)));
        out->scales_high |= (uint16_t)(scale >> 4 << (2 * g));
        pack(out->nibbles + 16 * g, q + 32 * g);
    }
}
