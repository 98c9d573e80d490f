/* Blocks of 256 whose groups have a signed scale of a few bits, x ~ d scale q: the search shared by Q3_K, Q6_K, IQ4_XS. */
#ifndef DM_QUANTIZATION_SCALED_BLOCK_H
#define DM_QUANTIZATION_SCALED_BLOCK_H

#include "quantization/block_encoders.h"
#include "quantization/fit.h"

typedef struct scaled_shape {
    size_t size;       /* weights in a group */
    fit_levels levels; /* of q */
    float least, most; /* scale */
    int steps;         /* of the search for a group's scale: on either side ... */
    float step;        /* ... so many levels apart */
} scaled_shape;

typedef struct scaled_block {
    uint16_t d;       /* half */
    float scales[16]; /* whole numbers */
    float error;      /* weighted, squared */
} scaled_block;

/* The scale of one group, near `scale`, that has the least error for this d. */
FIT_INLINE float scaled_choose(const float *x, const float *w, const scaled_shape *shape, float d, float scale, float *error) {
    float chosen = scale;
    *error = INFINITY;
    for (int k = -1; k <= 1; k++) {
        float s = scale + (float)k;
        if (s < shape->least || s > shape->most) {
            continue;
        }
        float e = fit_scale_error(x, w, shape->size, d * s, &shape->levels);
        if (e < *error) {
            *error = e;
            chosen = s;
        }
    }
    return chosen;
}

/* The best d for the scales and the levels that they lead to. */
FIT_INLINE float scaled_refit(const float *x, const float *w, const scaled_shape *shape, const scaled_block *block) {
    float d = dm_f16_value(block->d);
    float xq = 0.0f, qq = 0.0f;
    for (size_t g = 0; g < 256 / shape->size; g++) {
        size_t i = g * shape->size;
        float s = block->scales[g];
        fit_scale_sums sums = fit_scale_at(x + i, w + i, shape->size, fit_inverse(d * s), &shape->levels);
        xq += s * sums.xq;
        qq += s * s * sums.qq;
    }
    return qq > 0.0f ? xq / qq : d;
}

FIT_INLINE scaled_block scaled_search(const float *x, const float *w, const scaled_shape shape) {
    size_t groups = 256 / shape.size;
    const fit_levels scale_levels = {shape.least, shape.most, shape.least, NULL};
    float fits[16], costs[16], unused;
    for (size_t g = 0; g < groups; g++) {
        size_t i = g * shape.size;
        fits[g] = fit_scale(x + i, w + i, shape.size, &shape.levels, shape.steps, shape.step, &costs[g]);
    }
    scaled_block best = {.error = INFINITY}, next = {0};
    next.d = dm_scale_half(fit_scale(fits, costs, groups, &scale_levels, 9, 0.1f, &unused));
    for (int round = 0; round < 3; round++) {
        float d = dm_f16_value(next.d);
        float inverse = fit_inverse(d);
        next.error = 0.0f;
        for (size_t g = 0; g < groups; g++) {
            size_t i = g * shape.size;
            float start = round == 0 ? fit_nearest(fit_splat(fits[g] * inverse), &scale_levels)[0] : best.scales[g];
            float error;
            next.scales[g] = scaled_choose(x + i, w + i, &shape, d, start, &error);
            next.error += error;
        }
        if (!(next.error < best.error)) {
            break;
        }
        best = next;
        next.d = dm_finite_half(scaled_refit(x, w, &shape, &best));
        if (next.d == best.d) {
            break;
        }
    }
    return best;
}

/* q [256], counted from the lowest level. */
FIT_INLINE void scaled_levels(const float *x, const scaled_shape shape, const scaled_block *block, uint8_t *q) {
    for (size_t i = 0; i < 256; i += 4) {
        float inverse = fit_inverse(dm_f16_value(block->d) * block->scales[i / shape.size]);
        fit_f4 nearest = fit_nearest(fit_load(x + i) * inverse, &shape.levels) - shape.levels.low;
        for (size_t k = 0; k < 4; k++) {
            q[i + k] = (uint8_t)nearest[k];
        }
    }
}

#endif
