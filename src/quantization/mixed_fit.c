/* Mixed-width panels rounded to nearest: each tile's row gets the scale of least weighted squared error (fit.h). */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "quantization/error_weights.h"
#include "quantization/fit.h"
#include "quantization/mixed_encode.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, LOWEST = -128, HIGHEST = 127, FAVOURED = 3 /* bits */ };

/* The levels of one width as fit.h has them, the largest weight put near the lowest or the highest. */
typedef struct choice {
    fit_levels low, high;
    float table[HIGHEST - LOWEST + 1];
    int steps;  /* of the search for a scale, on either side ... */
    float step; /* ... so many levels apart */
} choice;

static void make_choice(choice *it, const dm_mixed_levels *levels, int number) {
    static const float steps[DM_MIXED_WIDTHS] = {12.0f, 7.0f, 3.5f, 0.2f, 0.3f, 0.3f};
    const unsigned bits = (unsigned)dm_mixed_bits(number), n = 1u << bits;
    int low = HIGHEST, high = LOWEST;
    for (unsigned code = 0; code < n; code++) {
        int level = dm_mixed_level(levels, number, code);
        low = level < low ? level : low;
        high = level > high ? level : high;
    }
    const bool is_table = number < DM_MIXED_TABLES;
    for (int t = low; t <= high && is_table; t++) {
        it->table[t - low] = (float)dm_mixed_level(levels, number, dm_mixed_nearest(levels, bits, (float)t));
    }
    it->low = (fit_levels){(float)low, (float)high, (float)low, is_table ? it->table : NULL};
    it->high = (fit_levels){(float)low, (float)high, (float)high, is_table ? it->table : NULL};
    it->steps = is_table ? 9 : 6;
    it->step = steps[number];
}

/* One row of a tile: finite weights, how much each counts, and the scale that they would like. */
typedef struct part {
    float x[UNIT], w[UNIT];
    float wanted;
} part;

/* Either sign of the scale may serve levels that are not symmetric. */
static float fit_part(const part *it, const choice *how) {
    float unused;
    float a = fit_scale(it->x, it->w, UNIT, &how->low, how->steps, how->step, &unused);
    float b = fit_scale(it->x, it->w, UNIT, &how->high, how->steps, how->step, &unused);
    return fit_scale_error(it->x, it->w, UNIT, a, &how->low) <= fit_scale_error(it->x, it->w, UNIT, b, &how->low) ? a : b;
}

/* The whole number of row scales near what is wanted that has the least error. */
static int8_t choose_scale(const part *it, const choice *how, uint16_t row_scale) {
    int8_t chosen = 0;
    float least = INFINITY;
    const int8_t nearest = dm_mixed_tile_scale(row_scale, it->wanted);
    for (int s = nearest - 1; s <= nearest + 1; s++) {
        float error = s >= -127 && s <= 127 ? fit_scale_error(it->x, it->w, UNIT, dm_mixed_scale(row_scale, (int8_t)s), &how->low)
                                            : INFINITY;
        chosen = error < least ? (int8_t)s : chosen;
        least = error < least ? error : least;
    }
    return chosen;
}

/* What the panel's rows share. */
typedef struct fitting {
    const dm_mixed_levels *levels;
    choice choices[DM_MIXED_WIDTHS];
    const uint8_t *widths;
    const float *importance;
    size_t units;
} fitting;

static void fit_row(dm_mixed_numbers *out, const fitting *f, const float *x, size_t row, part *parts, float *wanted) {
    for (size_t u = 0; u < f->units; u++) {
        part *it = &parts[u];
        const float *importance = f->importance != NULL ? f->importance + u * UNIT : NULL;
        dm_copy_finite(it->x, x + u * UNIT, UNIT);
        dm_error_weights(it->w, it->x, importance, UNIT, f->widths[u] <= FAVOURED);
        wanted[u] = it->wanted = f->widths[u] > 0 ? fit_part(it, &f->choices[dm_mixed_number(f->widths[u])]) : 0.0f;
    }
    out->row_scales[row] = dm_mixed_row_scale(wanted, f->units);
    for (size_t u = 0; u < f->units; u++) {
        if (f->widths[u] == 0) {
            continue;
        }
        int8_t scale = choose_scale(&parts[u], &f->choices[dm_mixed_number(f->widths[u])], out->row_scales[row]);
        float inverse = fit_inverse(dm_mixed_scale(out->row_scales[row], scale));
        uint8_t *codes = out->codes + row * f->units * UNIT + u * UNIT;
        out->scales[u * ROWS + row] = scale;
        for (size_t i = 0; i < UNIT; i++) {
            codes[i] = (uint8_t)dm_mixed_nearest(f->levels, f->widths[u], parts[u].x[i] * inverse);
        }
    }
}

dm_status dm_mixed_fit_panel(dm_mixed_numbers *numbers, const dm_mixed_levels *levels, const float *x, size_t rows,
                             size_t columns, const uint8_t *widths, const float *importance) {
    fitting f = {.levels = levels, .widths = widths, .importance = importance, .units = columns / UNIT};
    part *parts = dm_alloc(f.units, sizeof *parts);
    float *wanted = dm_alloc(f.units, sizeof *wanted);
    dm_status status = parts != NULL && wanted != NULL ? DM_OK : DM_ERR_MEMORY;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        make_choice(&f.choices[i], levels, i);
    }
    memset(numbers->row_scales, 0, sizeof numbers->row_scales);
    memset(numbers->scales, 0, f.units * ROWS);
    memset(numbers->codes, 0, columns * ROWS);
    for (size_t row = 0; row < rows && status == DM_OK; row++) {
        fit_row(numbers, &f, x + row * columns, row, parts, wanted);
    }
    dm_free(parts);
    dm_free(wanted);
    return status;
}
