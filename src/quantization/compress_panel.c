#include "quantization/compress_panel.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "quantization/clones.h"
#include "quantization/compress_rounding.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, TILE = ROWS * UNIT };

/* ---- Bytes ---- */

size_t dm_choice_bytes(int i) {
    return i == 0 ? 0 : dm_panel_lines(dm_mixed_codes(i - 1)) * DM_PANEL_LINE + ROWS + sizeof(uint16_t);
}

int dm_choice_of(unsigned bits) {
    return dm_mixed_number(bits) + 1;
}

size_t dm_widths_bytes(const uint8_t *widths, size_t units) {
    dm_mixed_entry entry = {0};
    for (size_t u = 0; u < units; u++) {
        if (widths[u] > 0) {
            entry.tiles[dm_mixed_number(widths[u])]++;
        }
    }
    return dm_mixed_panel_bytes(&entry) + dm_mixed_tiles(&entry) * sizeof(uint16_t);
}

/* ---- A panel ---- */

dm_status dm_panel_create(dm_panel *out, const dm_compress_moments *moments, const dm_level_tables *tables) {
    const size_t n = moments->columns, units = moments->units;
    *out = (dm_panel){.moments = moments, .tables = tables};
    float *floats = out->memory = dm_alloc(n * ROWS * 4 + units * ROWS, sizeof *floats);
    out->widths = dm_alloc(units, 1);
    out->numbers.scales = dm_alloc(units, ROWS);
    out->numbers.codes = dm_alloc(n, ROWS);
    if (floats == NULL || out->widths == NULL || out->numbers.scales == NULL || out->numbers.codes == NULL) {
        dm_panel_free(out);
        return DM_ERR_MEMORY;
    }
    out->w = floats;
    out->q = floats + n * ROWS;
    out->level = floats + 2 * n * ROWS;
    out->g = floats + 3 * n * ROWS;
    out->wanted = floats + 4 * n * ROWS;
    return DM_OK;
}

void dm_panel_free(dm_panel *it) {
    dm_free(it->memory);
    dm_free(it->widths);
    dm_free(it->numbers.scales);
    dm_free(it->numbers.codes);
    *it = (dm_panel){0};
}

void dm_panel_load(dm_panel *it, const float *x, const float *d, size_t rows) {
    const size_t n = it->moments->columns;
    memset(it->w, 0, n * ROWS * sizeof *it->w);
    memset(it->d, 0, sizeof it->d);
    for (size_t r = 0; r < rows; r++) {
        it->d[r] = d[r];
        for (size_t j = 0; j < n; j++) {
            const float v = x[r * n + j];
            it->w[j * ROWS + r] = v - v == 0.0f ? v : 0.0f;
        }
    }
}

/* ---- What choices would cost ---- */

void dm_panel_costs(dm_panel *it, double *cost) {
    dm_rounding r;
    for (size_t u = 0; u < it->moments->units; u++) {
        const float *w = it->w + u * TILE, *factor = it->moments->conditional + u * DM_UNIT_SQUARE;
        for (int i = 0; i < DM_CHOICES; i++) {
            float error[ROWS];
            if (i == 0) {
                dm_rounding_pruned(w, factor, error);
            } else {
                dm_rounding_search(&r, &it->tables->of[i - 1], w, factor);
                memcpy(error, r.error, sizeof error);
            }
            double sum = 0.0;
            for (int l = 0; l < ROWS; l++) {
                sum += (double)it->d[l] * error[l];
            }
            cost[u * DM_CHOICES + (size_t)i] = sum;
        }
    }
}

/* ---- Construction ---- */

static void choose_row_scales(dm_panel *it) {
    dm_rounding r;
    const size_t units = it->moments->units;
    for (size_t u = 0; u < units; u++) {
        memset(it->wanted + u * ROWS, 0, ROWS * sizeof *it->wanted);
        if (it->widths[u] > 0) {
            dm_rounding_search(&r, &it->tables->of[dm_mixed_number(it->widths[u])], it->w + u * TILE,
                               it->moments->conditional + u * DM_UNIT_SQUARE);
            memcpy(it->wanted + u * ROWS, r.scale, sizeof r.scale);
        }
    }
    for (int l = 0; l < ROWS; l++) {
        float most = 0.0f;
        for (size_t u = 0; u < units; u++) {
            most = fmaxf(most, fabsf(it->wanted[u * ROWS + (size_t)l]));
        }
        most *= 1.1f; /* scales that compensation makes larger fit too */
        it->numbers.row_scales[l] = dm_mixed_row_scale(&most, 1);
    }
}

/* t = what unit u should be: errors of all units after it, which are in `g` times L already, made up for. */
static void target_of(const dm_panel *it, size_t u, float *t) {
    const float *factor = it->moments->conditional + u * DM_UNIT_SQUARE;
    for (size_t j = 0; j < UNIT; j++) {
        const float inverse = 1.0f / factor[j * (UNIT + 1)];
        for (int l = 0; l < ROWS; l++) {
            const size_t at = (u * UNIT + j) * ROWS + (size_t)l;
            t[j * ROWS + (size_t)l] = it->w[at] + it->g[at] * inverse;
        }
    }
}

/* y [n, 16] += a [32, n]^T e [32, 16], n a multiple of 4 */
DM_CLONES static void spread(float *y, const float *a, size_t lda, size_t n, const float *e) {
    const dm_lanes *left = dm_const_lanes_at(e);
    for (size_t j = 0; j < n; j += 4) {
        dm_lanes *sums = dm_lanes_at(y + j * ROWS), s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
        for (size_t k = 0; k < UNIT; k++) {
            const float *v = a + k * lda + j;
            s0 += v[0] * left[k];
            s1 += v[1] * left[k];
            s2 += v[2] * left[k];
            s3 += v[3] * left[k];
        }
        sums[0] = s0;
        sums[1] = s1;
        sums[2] = s2;
        sums[3] = s3;
    }
}

static void construct_unit(dm_panel *it, size_t u) {
    float t[TILE], e[TILE];
    const float *w = it->w + u * TILE, *factor = it->moments->conditional + u * DM_UNIT_SQUARE;
    dm_rounding best, r;
    target_of(it, u, t);
    dm_rounding_clear(&best);
    if (it->widths[u] > 0) {
        const dm_width_levels *levels = &it->tables->of[dm_mixed_number(it->widths[u])];
        dm_rounding_search(&r, levels, t, factor);
        dm_rounding_steps(&r, it->numbers.row_scales);
        for (int by = -1; by <= 1; by++) {
            dm_rounding tried = r;
            dm_rounding_shift(&tried, it->numbers.row_scales, by);
            dm_rounding_plane(&tried, levels, t, w, factor);
            dm_rounding_keep(&best, &tried, by == -1);
        }
    }
    memcpy(it->q + u * TILE, best.q, sizeof best.q);
    memcpy(it->level + u * TILE, best.level, sizeof best.level);
    memcpy(it->numbers.scales + u * ROWS, best.step, ROWS);
    for (size_t i = 0; i < TILE; i++) {
        e[i] = w[i] - best.q[i];
    }
    if (it->moments->lower != NULL) {
        spread(it->g, it->moments->lower + u * UNIT * it->moments->columns, it->moments->columns, u * UNIT, e);
    }
}

void dm_panel_construct(dm_panel *it) {
    memset(it->g, 0, it->moments->columns * ROWS * sizeof *it->g);
    choose_row_scales(it);
    for (size_t u = it->moments->units; u-- > 0;) {
        construct_unit(it, u);
    }
}

/* ---- The end ---- */

void dm_panel_moved(dm_panel *it, size_t unit, const float *change) {
    const dm_compress_moments *m = it->moments;
    if (m->h != NULL) {
        spread(it->g, m->h + unit * UNIT * m->columns, m->columns, m->columns, change);
        return;
    }
    for (size_t i = 0; i < TILE; i++) {
        it->g[unit * TILE + i] += m->diagonal[unit * UNIT + i / ROWS] * change[i];
    }
}

double dm_panel_error(dm_panel *it) {
    const size_t n = it->moments->columns;
    double error = 0.0;
    memset(it->g, 0, n * ROWS * sizeof *it->g);
    for (size_t u = 0; u < it->moments->units; u++) {
        float e[TILE];
        for (size_t i = 0; i < TILE; i++) {
            e[i] = it->q[u * TILE + i] - it->w[u * TILE + i];
        }
        dm_panel_moved(it, u, e);
    }
    for (size_t i = 0; i < n * ROWS; i++) {
        error += (double)it->d[i % ROWS] * (it->q[i] - it->w[i]) * it->g[i];
    }
    return error;
}

void dm_panel_finish(dm_panel *it) {
    const size_t n = it->moments->columns;
    for (size_t j = 0; j < n; j++) {
        const unsigned bits = it->widths[j / UNIT];
        for (size_t l = 0; l < ROWS; l++) {
            it->numbers.codes[l * n + j] =
                bits > 0 ? (uint8_t)dm_mixed_nearest(&it->tables->levels, bits, it->level[j * ROWS + l]) : 0;
        }
    }
}
