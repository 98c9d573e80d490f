/* Mixed-width panels as float32, row by row. */
#include <string.h>

#include "kernels/half.h"
#include "kernels/mixed_panels.h"
#include "kernels/panel_codes.h"

/* 32 weights: a row of a tile. */
static void decode_tile(float *y, const dm_mixed_levels *levels, int number, const uint8_t *codes, int row, float scale) {
    for (int column = 0; column < DM_PANEL_UNIT; column++) {
        int code = dm_panel_code(dm_mixed_codes(number), codes, row, column);
        y[column] = scale * (float)dm_mixed_level(levels, number, (unsigned)code);
    }
}

void dm_mixed_row(float *y, const dm_mixed_header *matrix, size_t row) {
    const dm_mixed_entry *entry = dm_mixed_entries(matrix) + row / DM_PANEL_ROWS;
    const uint16_t *units = dm_mixed_units(matrix) + entry->first;
    const uint8_t *scales = dm_mixed_panel(matrix, row / DM_PANEL_ROWS);
    const uint8_t *codes = scales + dm_mixed_scale_bytes(dm_mixed_tiles(entry));
    const int lane = (int)(row % DM_PANEL_ROWS);
    uint16_t half;
    memcpy(&half, scales + (size_t)2 * (size_t)lane, sizeof half);
    memset(y, 0, matrix->columns * sizeof *y); /* the tiles that were pruned */
    scales += 2 * DM_PANEL_ROWS;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        for (size_t k = 0; k < entry->tiles[i]; k++, units++, scales += DM_PANEL_ROWS) {
            float scale = dm_f16_value(half) * (float)(int8_t)scales[lane];
            decode_tile(y + (size_t)*units * DM_PANEL_UNIT, &matrix->levels, i, codes, lane, scale);
            codes += dm_panel_lines(dm_mixed_codes(i)) * DM_PANEL_LINE;
        }
    }
}

void dm_mixed_widen(float *y, const dm_mixed_header *matrix) {
    for (size_t row = 0; row < matrix->rows; row++) {
        dm_mixed_row(y + row * matrix->columns, matrix, row);
    }
}
