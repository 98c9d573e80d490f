/* Encoders of the blocks of 256 whose groups have a scale and a min: x ~ d scale q - dmin min. */
#include "kernels/block_layouts.h"
#include "quantization/block_encoders.h"
#include "quantization/fit.h"

typedef struct affine_shape {
    size_t size;       /* weights in a group */
    fit_levels levels; /* of q, from 0 */
    float most;        /* scale or min */
    int steps;         /* of the search for a group's scale: on either side ... */
    float step;        /* ... so many levels apart */
} affine_shape;

typedef struct affine_block {
    uint16_t d, dmin;           /* halves */
    float scales[16], mins[16]; /* whole numbers */
    float error;                /* weighted, squared */
} affine_block;

FIT_INLINE float whole_between(float x, float most) {
    return rintf(fminf(fmaxf(x, 0.0f), most));
}

/* Scale and min of one group, near those given, with the least error for this d and dmin. For each scale the min is the
 * one that least squares wants for the levels that the given one leads to. */
FIT_INLINE float affine_choose(const float *x, const float *w, const affine_shape *shape, float d, float dmin, float *scale,
                               float *min) {
    float sum_w, sum_x;
    fit_totals(x, w, shape->size, &sum_w, &sum_x);
    float start = *scale, start_min = *min;
    float best = fit_affine_error(x, w, shape->size, d * start, dmin * start_min, &shape->levels);
    float per_min = fit_inverse(dmin * sum_w);
    for (int k = -1; k <= 1; k++) {
        float s = start + (float)k;
        if (s < 0.0f || s > shape->most) {
            continue;
        }
        fit_affine_sums sums = fit_affine_at(x, w, shape->size, fit_inverse(d * s), dmin * start_min, &shape->levels);
        float m = whole_between((d * s * sums.q - sum_x) * per_min, shape->most);
        float error = fit_affine_error(x, w, shape->size, d * s, dmin * m, &shape->levels);
        if (error < best) {
            best = error;
            *scale = s;
            *min = m;
        }
    }
    return best;
}

/* The best d and dmin for the scales, the mins, and the levels that they lead to. */
FIT_INLINE void affine_refit(const float *x, const float *w, const affine_shape *shape, const affine_block *block, uint16_t *d,
                             uint16_t *dmin) {
    float old_d = dm_f16_value(block->d), old_dmin = dm_f16_value(block->dmin);
    float ss = 0.0f, sm = 0.0f, mm = 0.0f, xs = 0.0f, xm = 0.0f; /* sums over products of x, scale q and min */
    for (size_t g = 0; g < 256 / shape->size; g++) {
        size_t i = g * shape->size;
        float s = block->scales[g], m = block->mins[g], sum_w, sum_x;
        fit_affine_sums sums = fit_affine_at(x + i, w + i, shape->size, fit_inverse(old_d * s), old_dmin * m, &shape->levels);
        fit_totals(x + i, w + i, shape->size, &sum_w, &sum_x);
        ss += s * s * sums.qq;
        sm += s * m * sums.q;
        mm += m * m * sum_w;
        xs += s * sums.xq;
        xm += m * sum_x;
    }
    float determinant = ss * mm - sm * sm;
    *d = block->d;
    *dmin = block->dmin;
    if (determinant > 1e-6f * ss * mm) {
        *d = dm_finite_half(fmaxf((xs * mm - sm * xm) / determinant, 0.0f));
        *dmin = dm_finite_half(fmaxf((sm * xs - ss * xm) / determinant, 0.0f));
    } else if (mm == 0.0f && ss > 0.0f) {
        *d = dm_finite_half(fmaxf(xs / ss, 0.0f));
    }
}

FIT_INLINE affine_block affine_search(const float *x, const float *w, const affine_shape shape) {
    size_t groups = 256 / shape.size;
    const fit_levels scale_levels = {0.0f, shape.most, shape.most, NULL};
    float scales[16], scale_costs[16], mins[16], min_costs[16], unused;
    for (size_t g = 0; g < groups; g++) {
        size_t i = g * shape.size;
        fit_affine_result fit = fit_affine(x + i, w + i, shape.size, &shape.levels, false, shape.steps, shape.step);
        scales[g] = fit.d;
        scale_costs[g] = fit.qq;
        mins[g] = fit.m;
        min_costs[g] = fit.w;
    }
    affine_block best = {.error = INFINITY}, next = {0};
    next.d = dm_scale_half(fit_scale(scales, scale_costs, groups, &scale_levels, 9, 0.1f, &unused));
    next.dmin = dm_scale_half(fit_scale(mins, min_costs, groups, &scale_levels, 9, 0.1f, &unused));
    for (int round = 0; round < 3; round++) {
        float d = dm_f16_value(next.d), dmin = dm_f16_value(next.dmin);
        next.error = 0.0f;
        for (size_t g = 0; g < groups; g++) {
            size_t i = g * shape.size;
            if (round == 0) {
                next.scales[g] = whole_between(scales[g] * fit_inverse(d), shape.most);
                next.mins[g] = whole_between(mins[g] * fit_inverse(dmin), shape.most);
            }
            next.error += affine_choose(x + i, w + i, &shape, d, dmin, &next.scales[g], &next.mins[g]);
        }
        if (!(next.error < best.error)) {
            break;
        }
        best = next;
        affine_refit(x, w, &shape, &best, &next.d, &next.dmin);
        if (next.d == best.d && next.dmin == best.dmin) {
            break;
        }
    }
    return best;
}

FIT_INLINE void affine_levels(const float *x, const affine_shape shape, const affine_block *block, uint8_t *q) {
    for (size_t i = 0; i < 256; i += 4) {
        size_t g = i / shape.size;
        float inverse = fit_inverse(dm_f16_value(block->d) * block->scales[g]);
        float m = dm_f16_value(block->dmin) * block->mins[g];
        fit_f4 nearest = fit_nearest((fit_load(x + i) + m) * inverse, &shape.levels);
        for (size_t k = 0; k < 4; k++) {
            q[i + k] = (uint8_t)nearest[k];
        }
    }
}

/* ---- Layouts ---- */

void dm_encode_q2_k(void *block, const float *x, const float *w) {
    const affine_shape shape = {16, {0.0f, 3.0f, 3.0f, NULL}, 15.0f, 6, 0.15f};
    affine_block found = affine_search(x, w, shape);
    uint8_t q[256];
    affine_levels(x, shape, &found, q);
    dm_block_q2_k *out = block;
    memset(out, 0, sizeof *out);
    out->d = found.d;
    out->dmin = found.dmin;
    for (int g = 0; g < 16; g++) {
        out->scales[g] = (uint8_t)((int)found.scales[g] | (int)found.mins[g] << 4);
    }
    for (int i = 0; i < 256; i++) {
        out->pairs[32 * (i / 128) + i % 32] |= (uint8_t)(q[i] << (2 * (i / 32 % 4)));
    }
}

/* The inverse of dm_q4_k_scale() and dm_q4_k_min(). */
static void pack_scales(uint8_t packed[12], const affine_block *block) {
    memset(packed, 0, 12);
    for (int g = 0; g < 4; g++) {
        packed[g] = (uint8_t)block->scales[g];
        packed[g + 4] = (uint8_t)block->mins[g];
    }
    for (int g = 4; g < 8; g++) {
        int scale = (int)block->scales[g], min = (int)block->mins[g];
        packed[g + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        packed[g - 4] |= (uint8_t)(scale >> 4 << 6);
        packed[g] |= (uint8_t)(min >> 4 << 6);
    }
}

static void pack_group_nibbles(uint8_t nibbles[128], const uint8_t q[256]) {
    for (int i = 0; i < 128; i++) {
        int first = 64 * (i / 32) + i % 32;
        nibbles[i] = (uint8_t)((q[first] & 15) | (q[first + 32] & 15) << 4);
    }
}

void dm_encode_q4_k(void *block, const float *x, const float *w) {
    const affine_shape shape = {32, {0.0f, 15.0f, 15.0f, NULL}, 63.0f, 5, 0.3f};
    affine_block found = affine_search(x, w, shape);
    uint8_t q[256];
    affine_levels(x, shape, &found, q);
    dm_block_q4_k *out = block;
    out->d = found.d;
    out->dmin = found.dmin;
    pack_scales(out->scales, &found);
    pack_group_nibbles(out->nibbles, q);
}

void dm_encode_q5_k(void *block, const float *x, const float *w) {
    const affine_shape shape = {32, {0.0f, 31.0f, 31.0f, NULL}, 63.0f, 5, 0.3f};
    affine_block found = affine_search(x, w, shape);
    uint8_t q[256];
    affine_levels(x, shape, &found, q);
    dm_block_q5_k *out = block;
    out->d = found.d;
    out->dmin = found.dmin;
    pack_scales(out->scales, &found);
    pack_group_nibbles(out->nibbles, q);
    memset(out->fifth, 0, sizeof out->fifth);
    for (int i = 0; i < 256; i++) {
        out->fifth[i % 32] |= (uint8_t)((q[i] >> 4) << (i / 32));
    }
}
