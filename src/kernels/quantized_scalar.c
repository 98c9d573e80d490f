/* Products with panels in portable C, one row and token at a time: what the other tables are tested against. */
#include <math.h>
#include <string.h>

#include "kernels/block_layouts.h"
#include "kernels/half.h"
#include "kernels/mixed_panels.h"
#include "kernels/panel_codes.h"
#include "kernels/quantized_tables.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

static void quantize(dm_q8_block *out, const float *x, size_t n) {
    for (size_t i = 0; i < n / UNIT; i++, out++, x += UNIT) {
        float peak = 0.0f, poison = 0.0f;
        for (int j = 0; j < UNIT; j++) {
            float magnitude = fabsf(x[j]);
            peak = magnitude > peak ? magnitude : peak;
            poison += x[j] * 0.0f; /* NaN as soon as one is not finite */
        }
        float inverse = peak > 0x1p-100f ? 127.0f / peak : 0.0f;
        int32_t sums[2] = {0, 0};
        for (int j = 0; j < UNIT; j++) {
            out->q[j] = poison == 0.0f ? (int8_t)nearbyintf(x[j] * inverse) : 0;
            sums[j / 16] += out->q[j];
        }
        out->scale = inverse > 0.0f ? peak / 127.0f + poison : poison;
        out->halves[0] = out->scale * (float)sums[0];
        out->halves[1] = out->scale * (float)sums[1];
        out->sum = out->scale * (float)(sums[0] + sums[1]);
        out->shift = -128 * (sums[0] + sums[1]);
    }
}

/* What a unit's code is multiplied as. */
static int factor(dm_panel_codes codes, const uint8_t *unit, int row, int column) {
    int code = dm_panel_code(codes, unit, row, column);
    return codes == DM_CODES_TABLE ? dm_iq4_values[code] : code;
}

static float half_at(const uint8_t *p, int row) {
    uint16_t h;
    memcpy(&h, p + 2 * row, sizeof h);
    return dm_f16_value(h);
}

/* Factor and addend of group `group` (of 16 columns) of a unit whose scales begin at p. */
static void group_scales(const dm_panel_format *format, const uint8_t *p, int row, int group, float d, float dmin, float *scale,
                         float *add) {
    *add = 0.0f;
    switch (format->scales) {
    case DM_SCALES_PLAIN:
        *scale = half_at(p, row);
        break;
    case DM_SCALES_MIN:
        *scale = half_at(p, row);
        *add = half_at(p + 32, row);
        break;
    case DM_SCALES_GROUPS_32:
        *scale = d * (float)(int8_t)p[row];
        break;
    case DM_SCALES_GROUPS_32_MIN:
        *scale = d * (float)p[row];
        *add = -dmin * (float)p[16 + row];
        break;
    case DM_SCALES_GROUPS_16:
        *scale = d * (float)(int8_t)p[16 * group + row];
        break;
    case DM_SCALES_GROUPS_16_MIN:
        *scale = d * (float)(p[16 * group + row] & 15);
        *add = -dmin * (float)(p[16 * group + row] >> 4);
        break;
    }
    if (format->offset != 0) {
        *add = (float)-format->offset * *scale;
    }
}

static int32_t dot(const dm_panel_format *format, const uint8_t *unit, int row, const dm_q8_block *x, int group) {
    int32_t sum = 0;
    for (int column = 16 * group; column < 16 * group + 16; column++) {
        sum += factor(format->codes, unit, row, column) * x->q[column];
    }
    return sum;
}

static float row_product(const dm_panel_format *format, const uint8_t *panel, size_t units, int row, const dm_q8_block *x) {
    size_t unit_bytes = dm_panel_lines(format->codes) * DM_PANEL_LINE;
    size_t super = dm_panel_super_scales(format->scales);
    const uint8_t *p = panel + units * unit_bytes;
    bool by_16 = format->scales == DM_SCALES_GROUPS_16 || format->scales == DM_SCALES_GROUPS_16_MIN;
    bool adds = dm_panel_adds(format->scales, format->offset);
    float sum = 0.0f, d = 0.0f, dmin = 0.0f, scale[2], add[2];
    for (size_t u = 0; u < units; u++, panel += unit_bytes, x++) {
        if (super > 0 && u % DM_PANEL_SUPER == 0) {
            d = half_at(p, row);
            dmin = super > 32 ? half_at(p + 32, row) : 0.0f;
            p += super;
        }
        for (int group = 0; group < 2; group++) {
            group_scales(format, p, row, group, d, dmin, &scale[group], &add[group]);
        }
        p += dm_panel_unit_scales(format->scales);
        int32_t low = dot(format, panel, row, x, 0), high = dot(format, panel, row, x, 1);
        if (by_16) {
            sum = fmaf((float)low * x->scale, scale[0], sum);
            sum = fmaf((float)high * x->scale, scale[1], sum);
            sum = fmaf(x->halves[0], add[0], sum);
            sum = fmaf(x->halves[1], add[1], sum);
        } else {
            sum = fmaf((float)(low + high) * x->scale, scale[0], sum);
            sum = adds ? fmaf(x->sum, add[0], sum) : sum;
        }
    }
    return sum;
}

static void product(int format, float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const void *panel,
                    size_t columns) {
    for (size_t t = 0; t < m; t++) {
        for (int row = 0; row < ROWS; row++) {
            y[t * ldy + (size_t)row] = row_product(dm_panel_format_at(format), panel, columns / UNIT, row, x + t * ldx);
        }
    }
}

/* One row of a panel of mixed widths. */
static float mixed_row_product(const dm_mixed_header *matrix, size_t panel, int row, const dm_q8_block *x) {
    const dm_mixed_entry *entry = dm_mixed_entries(matrix) + panel;
    const uint16_t *units = dm_mixed_units(matrix) + entry->first;
    const uint8_t *scales = dm_mixed_panel(matrix, panel), *codes = scales + dm_mixed_scale_bytes(dm_mixed_tiles(entry));
    const float row_scale = half_at(scales, row);
    float sum = 0.0f;
    scales += 2 * ROWS;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        for (size_t k = 0; k < entry->tiles[i]; k++, units++, scales += ROWS) {
            int32_t exact = 0;
            for (int column = 0; column < UNIT; column++) {
                int code = dm_panel_code(dm_mixed_codes(i), codes, row, column);
                exact += dm_mixed_level(&matrix->levels, i, (unsigned)code) * x[*units].q[column];
            }
            sum = fmaf((float)exact * x[*units].scale, row_scale * (float)(int8_t)scales[row], sum);
            codes += dm_panel_lines(dm_mixed_codes(i)) * DM_PANEL_LINE;
        }
    }
    return sum;
}

static void mixed(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const dm_mixed_header *matrix, size_t panel,
                  const void *ahead) {
    (void)ahead;
    for (size_t t = 0; t < m; t++) {
        for (int row = 0; row < ROWS; row++) {
            y[t * ldy + (size_t)row] = mixed_row_product(matrix, panel, row, x + t * ldx);
        }
    }
}

#define DEFINE_PRODUCT(name, type, codes, scales, offset)                                                                        \
    static void product_##name(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const void *panel,              \
                               const void *ahead, size_t columns) {                                                              \
        (void)ahead;                                                                                                             \
        product(DM_PANEL_##name, y, ldy, x, ldx, m, panel, columns);                                                             \
    }
DM_PANEL_FORMATS(DEFINE_PRODUCT)

#define TABLE_ENTRY(name, type, codes, scales, offset) product_##name,

const dm_quantized_table dm_quantized_scalar = {"scalar", quantize, {DM_PANEL_FORMATS(TABLE_ENTRY)}, mixed};
