/* Rows of mixed-width panels as float32. */
#include <string.h>

#include "kernels/half.h"
#include "kernels/mixed_panels.h"
#include "kernels/panel_codes.h"
#include "kernels/vector.h"

/* The tiles of a panel, one after the other, as one row sees them. */
typedef struct walk {
    const dm_mixed_header *matrix;
    const dm_mixed_entry *entry;
    const uint16_t *units;
    const uint8_t *scales, *codes;
    int row, number; /* in the panel; of the width */
    size_t done;     /* tiles of that width */
    float row_scale;
} walk;

static walk begin_walk(const dm_mixed_header *matrix, size_t row) {
    const size_t panel = row / DM_PANEL_ROWS;
    walk w = {.matrix = matrix, .entry = dm_mixed_entries(matrix) + panel, .row = (int)(row % DM_PANEL_ROWS)};
    const uint8_t *start = dm_mixed_panel(matrix, panel);
    uint16_t half;
    memcpy(&half, start + row % DM_PANEL_ROWS * sizeof half, sizeof half);
    w.units = dm_mixed_units(matrix) + w.entry->first;
    w.scales = start + DM_PANEL_ROWS * sizeof half;
    w.codes = start + dm_mixed_scale_bytes(dm_mixed_tiles(w.entry));
    w.row_scale = dm_f16_value(half);
    return w;
}

/* Whether there is another tile; steps over widths that the panel has no more of. */
static bool has_tile(walk *w) {
    while (w->number < DM_MIXED_WIDTHS && w->done == w->entry->tiles[w->number]) {
        w->number++;
        w->done = 0;
    }
    return w->number < DM_MIXED_WIDTHS;
}

static void step(walk *w) {
    w->codes += dm_panel_lines(dm_mixed_codes(w->number)) * DM_PANEL_LINE;
    w->scales += DM_PANEL_ROWS;
    w->units++;
    w->done++;
}

/* The row's 32 weights of the tile. */
static void decode(float *y, const walk *w) {
    const float scale = w->row_scale * (float)(int8_t)w->scales[w->row];
    for (int column = 0; column < DM_PANEL_UNIT; column++) {
        int code = dm_panel_code(dm_mixed_codes(w->number), w->codes, w->row, column);
        y[column] = scale * (float)dm_mixed_level(&w->matrix->levels, w->number, (unsigned)code);
    }
}

void dm_mixed_part(float *y, const dm_mixed_header *matrix, size_t row, size_t column, size_t n) {
    memset(y, 0, n * sizeof *y); /* the tiles that were pruned */
    for (walk w = begin_walk(matrix, row); has_tile(&w); step(&w)) {
        const size_t at = (size_t)*w.units * DM_PANEL_UNIT;
        if (at >= column && at < column + n) {
            decode(y + at - column, &w);
        }
    }
}

void dm_mixed_dots(const dm_mixed_header *matrix, size_t row, const float *x, size_t ldx, size_t m, float *sums) {
    memset(sums, 0, m * sizeof *sums);
    for (walk w = begin_walk(matrix, row); has_tile(&w); step(&w)) {
        float tile[DM_PANEL_UNIT];
        decode(tile, &w);
        for (size_t t = 0; t < m; t++) {
            sums[t] += dm_vector()->dot(tile, x + t * ldx + (size_t)*w.units * DM_PANEL_UNIT, DM_PANEL_UNIT);
        }
    }
}

void dm_mixed_widen(float *y, const dm_mixed_header *matrix) {
    for (size_t row = 0; row < matrix->rows; row++) {
        dm_mixed_part(y + row * matrix->columns, matrix, row, 0, matrix->columns);
    }
}
