/* Mixed-width panels: where a matrix's parts go, and the bytes of its panels. How numbers are chosen is in mixed_fit.c. */
#include "quantization/mixed_encode.h"

#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/panel_codes.h"
#include "quantization/block_encoders.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

const dm_mixed_levels dm_mixed_usual_levels = {
    {-127, -100, -79, -62, -47, -33, -21, -9, 2, 13, 25, 37, 50, 65, 82, 106},
    {-127, -80, -48, -21, 4, 29, 58, 97},
    {-127, -44, 18, 90},
};

/* ---- A matrix ---- */

/* Tiles of one panel; false where a width is none. */
static bool count_tiles(const uint8_t *widths, size_t units, dm_mixed_entry *entry) {
    memset(entry->tiles, 0, sizeof entry->tiles);
    for (size_t u = 0; u < units; u++) {
        int number = dm_mixed_number(widths[u]);
        if (number < 0 && widths[u] != 0) {
            return false;
        }
        if (number >= 0) {
            entry->tiles[number]++;
        }
    }
    return true;
}

dm_status dm_mixed_bytes(const dm_mixed_plan *plan, size_t *bytes) {
    const size_t units = plan->columns / UNIT, panels = dm_panel_count(plan->rows);
    *bytes = 0;
    if (plan->rows == 0 || plan->rows > UINT32_MAX / 2 || units == 0 || plan->columns % UNIT != 0 ||
        units >= DM_MIXED_MOST_UNITS) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu rows of %zu columns cannot be mixed-width panels: expected a multiple of %d columns",
                       plan->rows, plan->columns, UNIT);
    }
    size_t tiles = 0, all = 0;
    for (size_t p = 0; p < panels; p++) {
        dm_mixed_entry entry;
        if (!count_tiles(plan->widths + p * units, units, &entry)) {
            return dm_fail(DM_ERR_ARGUMENT,
                           "a tile of panel %zu has a width that there is none of, expected 0, 2, 3, 4, 5, 6 or 8", p);
        }
        tiles += dm_mixed_tiles(&entry);
        all += dm_mixed_panel_bytes(&entry);
    }
    if (tiles > UINT32_MAX || all / DM_PANEL_LINE > UINT32_MAX / 2) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu rows of %zu columns are more than mixed-width panels hold", plan->rows,
                       plan->columns);
    }
    *bytes = dm_mixed_front_bytes(plan->rows, tiles) + all;
    return DM_OK;
}

/* The units of one panel's tiles in their order; returns how many. */
static size_t list_units(const uint8_t *widths, size_t units, uint16_t *out) {
    size_t n = 0;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        for (size_t u = 0; u < units; u++) {
            if (widths[u] == dm_mixed_bits(i)) {
                out[n++] = (uint16_t)u;
            }
        }
    }
    return n;
}

void dm_mixed_lay_out(void *out, const dm_mixed_plan *plan) {
    const size_t units = plan->columns / UNIT, panels = dm_panel_count(plan->rows);
    dm_mixed_header *h = out;
    dm_mixed_entry *entries = (dm_mixed_entry *)(void *)(h + 1);
    uint16_t *list = (uint16_t *)(void *)(entries + panels);
    size_t tiles = 0, bytes = 0;
    for (size_t p = 0; p < panels; p++) {
        count_tiles(plan->widths + p * units, units, &entries[p]);
        entries[p].first = (uint32_t)tiles;
        entries[p].line = (uint32_t)(bytes / DM_PANEL_LINE); /* after the front, whose size is known at the end */
        tiles += list_units(plan->widths + p * units, units, list + tiles);
        bytes += dm_mixed_panel_bytes(&entries[p]);
    }
    const size_t front = dm_mixed_front_bytes(plan->rows, tiles);
    for (size_t p = 0; p < panels; p++) {
        entries[p].line += (uint32_t)(front / DM_PANEL_LINE);
    }
    *h = (dm_mixed_header){.version = DM_MIXED_VERSION,
                           .rows = (uint32_t)plan->rows,
                           .columns = (uint32_t)plan->columns,
                           .bytes = front + bytes,
                           .levels = plan->levels,
                           .tiles = (uint32_t)tiles};
    memcpy(h->magic, DM_MIXED_MAGIC, sizeof h->magic);
    uint8_t *end = (uint8_t *)(list + tiles);
    memset(end, 0, (size_t)((uint8_t *)out + h->bytes - end));
}

/* ---- A panel ---- */

static void put_tile(uint8_t *out, int number, const uint8_t *codes, size_t columns) {
    memset(out, 0, dm_panel_lines(dm_mixed_codes(number)) * DM_PANEL_LINE);
    for (int row = 0; row < ROWS; row++, codes += columns) {
        for (int column = 0; column < UNIT; column++) {
            dm_panel_put(dm_mixed_codes(number), out, row, column, codes[column]);
        }
    }
}

void dm_mixed_put_panel(void *matrix, size_t panel, const dm_mixed_numbers *numbers) {
    const dm_mixed_header *h = matrix;
    const dm_mixed_entry *entry = dm_mixed_entries(h) + panel;
    const uint16_t *units = dm_mixed_units(h) + entry->first;
    uint8_t *scales = (uint8_t *)matrix + (size_t)entry->line * DM_PANEL_LINE;
    uint8_t *codes = scales + dm_mixed_scale_bytes(dm_mixed_tiles(entry));
    memset(scales, 0, (size_t)(codes - scales));
    memcpy(scales, numbers->row_scales, sizeof numbers->row_scales);
    scales += sizeof numbers->row_scales;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        for (size_t k = 0; k < entry->tiles[i]; k++, units++, scales += ROWS) {
            memcpy(scales, numbers->scales + (size_t)*units * ROWS, ROWS);
            put_tile(codes, i, numbers->codes + (size_t)*units * UNIT, h->columns);
            codes += dm_panel_lines(dm_mixed_codes(i)) * DM_PANEL_LINE;
        }
    }
}

/* ---- Numbers that a file can hold ---- */

float dm_mixed_scale(uint16_t row_scale, int8_t scale) {
    return dm_f16_value(row_scale) * (float)scale;
}

float dm_mixed_weight(uint16_t row_scale, int8_t scale, int level) {
    return dm_mixed_scale(row_scale, scale) * (float)level;
}

static unsigned nearest_of(const int8_t *table, unsigned n, float t) {
    unsigned best = 0;
    for (unsigned i = 1; i < n; i++) {
        best = fabsf((float)table[i] - t) < fabsf((float)table[best] - t) ? i : best;
    }
    return best;
}

unsigned dm_mixed_nearest(const dm_mixed_levels *levels, unsigned bits, float t) {
    switch (bits) {
    case 2:
        return nearest_of(levels->of_2, 4, t);
    case 3:
        return nearest_of(levels->of_3, 8, t);
    case 4:
        return nearest_of(levels->of_4, 16, t);
    default: { /* whole numbers from -half to half - 1 */
        float half = (float)(1u << (bits - 1));
        int level = (int)nearbyintf(fminf(fmaxf(t, -half), half - 1.0f));
        return bits == 8 ? (uint8_t)level : (unsigned)(level + (int)half);
    }
    }
}

uint16_t dm_mixed_row_scale(const float *wanted, size_t n) {
    float most = 0.0f;
    for (size_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(wanted[i]));
    }
    return dm_scale_half(most / 127.0f);
}

int8_t dm_mixed_tile_scale(uint16_t row_scale, float wanted) {
    float unit = dm_f16_value(row_scale);
    float t = unit != 0.0f ? wanted / unit : 0.0f;
    return (int8_t)nearbyintf(fminf(fmaxf(t, -127.0f), 127.0f));
}
