#include "quantization/compress_rounding.h"

#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "quantization/clones.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, TILE = ROWS * UNIT };

/* ---- Levels ---- */

static void make_width(dm_width_levels *out, const dm_mixed_levels *levels, int number) {
    const int n = 1 << dm_mixed_bits(number);
    *out = (dm_width_levels){.n = number < DM_MIXED_TABLES ? n : 0, .low = INFINITY, .high = -INFINITY};
    for (int code = 0; code < n; code++) {
        float level = (float)dm_mixed_level(levels, number, (unsigned)code);
        out->low = fminf(out->low, level);
        out->high = fmaxf(out->high, level);
        for (int i = 0; i <= code && out->n > 0; i++) { /* put in its place */
            if (i == code || level < out->level[i]) {
                float next = out->level[i];
                out->level[i] = level;
                level = next;
            }
        }
    }
    for (int i = 0; i + 1 < out->n; i++) {
        out->middle[i] = 0.5f * (out->level[i] + out->level[i + 1]);
    }
}

void dm_level_tables_make(dm_level_tables *out, const dm_mixed_levels *levels) {
    out->levels = *levels;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        make_width(&out->of[i], levels, i);
    }
}

typedef int32_t whole_lanes __attribute__((vector_size(64)));

/* a where `when` holds, else b. */
static inline __attribute__((always_inline)) dm_lanes choose(whole_lanes when, dm_lanes a, dm_lanes b) {
    return (dm_lanes)((when & (whole_lanes)a) | (~when & (whole_lanes)b));
}

/* The levels nearest to x. Adding 1.5 * 2^23 leaves no bits below 1. */
static inline __attribute__((always_inline)) dm_lanes nearest(const dm_width_levels *levels, dm_lanes x) {
    const dm_lanes zero = {0}, low = zero + levels->low;
    if (levels->n == 0) {
        const dm_lanes high = zero + levels->high;
        x = choose((whole_lanes)(x > low), x, low);
        x = choose((whole_lanes)(x < high), x, high);
        return (x + 12582912.0f) - 12582912.0f;
    }
    dm_lanes level = low;
    for (int i = 0; i + 1 < levels->n; i++) {
        const dm_lanes gap = zero + (levels->level[i + 1] - levels->level[i]);
        level += choose((whole_lanes)(x > levels->middle[i]), gap, zero);
    }
    return level;
}

static inline void invert(const float *scale, float *inverse) {
    for (int l = 0; l < ROWS; l++) {
        inverse[l] = fabsf(scale[l]) > 1e-30f ? 1.0f / scale[l] : 0.0f;
    }
}

DM_CLONES void dm_rounding_column(const dm_width_levels *levels, const float *scale, const float *x, float *level, float *q) {
    float inverse[ROWS];
    invert(scale, inverse);
    const dm_lanes found = nearest(levels, *dm_const_lanes_at(x) * *dm_const_lanes_at(inverse));
    *dm_lanes_at(level) = found;
    *dm_lanes_at(q) = *dm_const_lanes_at(scale) * found;
}

/* ---- Roundings ---- */

void dm_rounding_clear(dm_rounding *it) {
    memset(it, 0, sizeof *it);
}

DM_CLONES void dm_rounding_pruned(const float *t, const float *factor, float *error) {
    memset(error, 0, ROWS * sizeof *error);
    for (size_t j = 0; j < UNIT; j++) {
        const float cost = factor[j * (UNIT + 1)] * factor[j * (UNIT + 1)];
        for (size_t l = 0; l < ROWS; l++) {
            error[l] += cost * t[j * ROWS + l] * t[j * ROWS + l];
        }
    }
}

/* Sums over columns of x level and level^2, times their costs, for the scales 1 / inverse. */
DM_CLONES static void sum_products(const dm_width_levels *levels, const float *t, const float *factor, const float *inverse,
                                   float *xq, float *qq) {
    const dm_lanes by = *dm_const_lanes_at(inverse);
    dm_lanes sum_xq = {0}, sum_qq = {0};
    for (size_t j = 0; j < UNIT; j++) {
        const float cost = factor[j * (UNIT + 1)] * factor[j * (UNIT + 1)];
        const dm_lanes x = *dm_const_lanes_at(t + j * ROWS), level = nearest(levels, x * by);
        sum_xq += cost * x * level;
        sum_qq += cost * level * level;
    }
    *dm_lanes_at(xq) = sum_xq;
    *dm_lanes_at(qq) = sum_qq;
}

/* Tries the scales 1 / inverse: *gain is how much less the squared error is than that of zeros. */
static void try_scales(dm_rounding *it, const dm_width_levels *levels, const float *t, const float *factor, const float *inverse,
                       float *gain) {
    float xq[ROWS], qq[ROWS];
    sum_products(levels, t, factor, inverse, xq, qq);
    for (int l = 0; l < ROWS; l++) {
        const float found = qq[l] > 0.0f ? xq[l] * xq[l] / qq[l] : 0.0f;
        it->scale[l] = found > gain[l] ? xq[l] / qq[l] : it->scale[l];
        gain[l] = found > gain[l] ? found : gain[l];
    }
}

DM_CLONES void dm_rounding_search(dm_rounding *it, const dm_width_levels *levels, const float *t, const float *factor) {
    static const float shares[] = {1.0f,  0.92f, 0.84f, 0.76f,
                                   0.68f, 0.6f,  0.5f}; /* of the largest weight that the levels reach */
    const int tried = levels->n == 0 ? 3 : levels->n == 16 ? 5 : 7;
    float most[ROWS] = {0}, gain[ROWS] = {0}, inverse[ROWS];
    memset(it->scale, 0, sizeof it->scale);
    for (size_t i = 0; i < TILE; i++) {
        most[i % ROWS] = fabsf(t[i]) > most[i % ROWS] ? fabsf(t[i]) : most[i % ROWS];
    }
    for (int k = 0; k < tried * 2; k++) { /* either sign serves, as levels are not symmetric */
        const float end = k % 2 == 0 ? levels->low : -levels->low;
        for (int l = 0; l < ROWS; l++) {
            inverse[l] = most[l] > 1e-30f ? end / (most[l] * shares[k / 2]) : 0.0f;
        }
        try_scales(it, levels, t, factor, inverse, gain);
    }
    invert(it->scale, inverse);
    try_scales(it, levels, t, factor, inverse, gain);
    dm_rounding_pruned(t, factor, it->error);
    for (int l = 0; l < ROWS; l++) {
        it->error[l] = fmaxf(it->error[l] - gain[l], 0.0f);
    }
}

static void scale_of_steps(dm_rounding *it, const uint16_t *row_scales) {
    for (int l = 0; l < ROWS; l++) {
        it->scale[l] = dm_mixed_scale(row_scales[l], it->step[l]);
    }
}

void dm_rounding_steps(dm_rounding *it, const uint16_t *row_scales) {
    for (int l = 0; l < ROWS; l++) {
        it->step[l] = dm_mixed_tile_scale(row_scales[l], it->scale[l]);
    }
    scale_of_steps(it, row_scales);
}

void dm_rounding_shift(dm_rounding *it, const uint16_t *row_scales, int by) {
    for (int l = 0; l < ROWS; l++) {
        const int step = it->step[l] + by;
        it->step[l] = (int8_t)(step > 127 ? 127 : step < -127 ? -127 : step);
    }
    scale_of_steps(it, row_scales);
}

DM_CLONES void dm_rounding_plane(dm_rounding *it, const dm_width_levels *levels, const float *t, const float *origin,
                                 const float *factor) {
    float e[TILE];
    memset(it->error, 0, sizeof it->error);
    for (size_t j = UNIT; j-- > 0;) {
        const float pivot = factor[j * (UNIT + 1)], inverse = 1.0f / pivot;
        float x[ROWS];
        dm_lanes passed = {0};
        for (size_t k = j + 1; k < UNIT; k++) {
            passed += factor[k * UNIT + j] * *dm_const_lanes_at(e + k * ROWS);
        }
        *dm_lanes_at(x) = *dm_const_lanes_at(t + j * ROWS) + passed * inverse;
        dm_rounding_column(levels, it->scale, x, it->level + j * ROWS, it->q + j * ROWS);
        for (size_t l = 0; l < ROWS; l++) {
            const float q = it->q[j * ROWS + l];
            e[j * ROWS + l] = origin[j * ROWS + l] - q;
            it->error[l] += pivot * pivot * (x[l] - q) * (x[l] - q);
        }
    }
}

DM_CLONES void dm_rounding_keep(dm_rounding *best, const dm_rounding *tried, bool all) {
    for (size_t l = 0; l < ROWS; l++) {
        if (!all && tried->error[l] >= best->error[l]) {
            continue;
        }
        best->scale[l] = tried->scale[l];
        best->step[l] = tried->step[l];
        best->error[l] = tried->error[l];
        for (size_t j = 0; j < UNIT; j++) {
            best->q[j * ROWS + l] = tried->q[j * ROWS + l];
            best->level[j * ROWS + l] = tried->level[j * ROWS + l];
        }
    }
}
