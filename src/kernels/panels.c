#include "kernels/panels.h"

#include <string.h>

#include "kernels/block_layouts.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, WIDEST = 256, LINES = UNIT / 4 };

static const dm_panel_format formats[] = {
#define DM_PANEL_ENTRY(name, type, codes, scales, offset) {type, codes, scales, offset},
    DM_PANEL_FORMATS(DM_PANEL_ENTRY)
#undef DM_PANEL_ENTRY
};

const dm_panel_format *dm_panel_format_of(dm_type type) {
    for (size_t i = 0; i < DM_PANEL_COUNT; i++) {
        if (formats[i].type == type) {
            return &formats[i];
        }
    }
    return NULL;
}

const dm_panel_format *dm_panel_format_at(int index) {
    return &formats[index];
}

static size_t round_up(size_t n) {
    return (n + DM_PANEL_LINE - 1) / DM_PANEL_LINE * DM_PANEL_LINE;
}

static size_t code_bytes(const dm_panel_format *format, size_t units) {
    return units * dm_panel_lines(format->codes) * DM_PANEL_LINE;
}

size_t dm_panel_bytes(const dm_panel_format *format, size_t columns) {
    size_t units = columns / UNIT;
    size_t supers = units / DM_PANEL_SUPER;
    return code_bytes(format, units) +
           round_up(units * dm_panel_unit_scales(format->scales) + supers * dm_panel_super_scales(format->scales));
}

size_t dm_panel_count(size_t rows) {
    return (rows + ROWS - 1) / ROWS;
}

/* ---- One block of one row, taken apart ---- */

/* Of a unit: groups of 16 or 32. What a format lacks is not looked at. */
typedef struct parts {
    uint8_t codes[WIDEST];
    uint16_t d, m;                  /* halves */
    uint8_t scales[16], minima[16]; /* of groups in their order; int8 where the format says so */
} parts;

static void take_nibbles(uint8_t *codes, const uint8_t *nibbles, int n) {
    for (int i = 0; i < n; i++) {
        codes[i] = nibbles[i] & 15;
        codes[i + n] = nibbles[i] >> 4;
    }
}

static void take_fifth(uint8_t *codes, const uint8_t fifth[4]) {
    for (int i = 0; i < 32; i++) {
        codes[i] |= (uint8_t)((fifth[i / 8] >> (i % 8) & 1) << 4);
    }
}

static void take_q4_0(parts *p, const void *data) {
    const dm_block_q4_0 *b = data;
    p->d = b->d;
    take_nibbles(p->codes, b->nibbles, 16);
}

static void take_q4_1(parts *p, const void *data) {
    const dm_block_q4_1 *b = data;
    p->d = b->d;
    p->m = b->m;
    take_nibbles(p->codes, b->nibbles, 16);
}

static void take_q5_0(parts *p, const void *data) {
    const dm_block_q5_0 *b = data;
    p->d = b->d;
    take_nibbles(p->codes, b->nibbles, 16);
    take_fifth(p->codes, b->fifth);
}

static void take_q5_1(parts *p, const void *data) {
    const dm_block_q5_1 *b = data;
    p->d = b->d;
    p->m = b->m;
    take_nibbles(p->codes, b->nibbles, 16);
    take_fifth(p->codes, b->fifth);
}

static void take_q8_0(parts *p, const void *data) {
    const dm_block_q8_0 *b = data;
    p->d = b->d;
    memcpy(p->codes, b->q, 32);
}

static void take_iq4_nl(parts *p, const void *data) {
    const dm_block_iq4_nl *b = data;
    p->d = b->d;
    take_nibbles(p->codes, b->nibbles, 16);
}

/* Weight 128 h + 32 k + l has bits 2 k, 2 k + 1 of pairs[32 h + l], shifted up by `up`. */
static void take_pairs(uint8_t *codes, const uint8_t *pairs, int up) {
    for (int h = 0; h < 2; h++) {
        for (int k = 0; k < 4; k++) {
            for (int l = 0; l < 32; l++) {
                codes[128 * h + 32 * k + l] |= (uint8_t)((pairs[32 * h + l] >> (2 * k) & 3) << up);
            }
        }
    }
}

static void take_q2_k(parts *p, const void *data) {
    const dm_block_q2_k *b = data;
    p->d = b->d;
    p->m = b->dmin;
    memset(p->codes, 0, sizeof p->codes);
    take_pairs(p->codes, b->pairs, 0);
    memcpy(p->scales, b->scales, 16);
}

static void take_q3_k(parts *p, const void *data) {
    const dm_block_q3_k *b = data;
    p->d = b->d;
    memset(p->codes, 0, sizeof p->codes);
    take_pairs(p->codes, b->pairs, 0);
    for (int g = 0; g < 8; g++) {
        for (int l = 0; l < 32; l++) {
            p->codes[32 * g + l] |= (uint8_t)((b->high[l] >> g & 1) << 2);
        }
    }
    for (int g = 0; g < 16; g++) {
        p->scales[g] = (uint8_t)dm_q3_k_scale(b->scales, g);
    }
}

static void take_scales_and_minima(parts *p, const uint8_t scales[12]) {
    for (int g = 0; g < 8; g++) {
        p->scales[g] = (uint8_t)dm_q4_k_scale(scales, g);
        p->minima[g] = (uint8_t)dm_q4_k_min(scales, g);
    }
}

static void take_q4_k(parts *p, const void *data) {
    const dm_block_q4_k *b = data;
    p->d = b->d;
    p->m = b->dmin;
    take_scales_and_minima(p, b->scales);
    for (int g = 0; g < 4; g++) {
        take_nibbles(p->codes + 64 * g, b->nibbles + 32 * g, 32);
    }
}

static void take_q5_k(parts *p, const void *data) {
    const dm_block_q5_k *b = data;
    p->d = b->d;
    p->m = b->dmin;
    take_scales_and_minima(p, b->scales);
    for (int g = 0; g < 4; g++) {
        take_nibbles(p->codes + 64 * g, b->nibbles + 32 * g, 32);
    }
    for (int g = 0; g < 8; g++) {
        for (int l = 0; l < 32; l++) {
            p->codes[32 * g + l] |= (uint8_t)((b->fifth[l] >> g & 1) << 4);
        }
    }
}

static void take_q6_k(parts *p, const void *data) {
    const dm_block_q6_k *b = data;
    p->d = b->d;
    for (int h = 0; h < 2; h++) {
        take_nibbles(p->codes + 128 * h, b->low + 64 * h, 64);
    }
    take_pairs(p->codes, b->high, 4);
    memcpy(p->scales, b->scales, 16);
}

static void take_iq4_xs(parts *p, const void *data) {
    const dm_block_iq4_xs *b = data;
    p->d = b->d;
    for (int g = 0; g < 8; g++) {
        take_nibbles(p->codes + 32 * g, b->nibbles + 16 * g, 16);
        p->scales[g] = (uint8_t)dm_iq4_xs_scale(b, g);
    }
}

typedef void (*take_fn)(parts *p, const void *block);

/* In the order of `formats`. */
static const take_fn takers[] = {
#define DM_PANEL_TAKER(name, type, codes, scales, offset) take_##name,
    DM_PANEL_FORMATS(DM_PANEL_TAKER)
#undef DM_PANEL_TAKER
};

/* ---- One unit of sixteen rows, put together ---- */

typedef uint32_t line[ROWS]; /* 4 codes a row */

static void plane_of_4(line *out, line in[LINES]) {
    for (int h = 0; h < 4; h++) {
        for (int r = 0; r < ROWS; r++) {
            out[h][r] = (in[h][r] & 0x0f0f0f0f) | (in[h + 4][r] & 0x0f0f0f0f) << 4;
        }
    }
}

static void plane_of_2(line *out, line in[LINES], int shift) {
    for (int h = 0; h < 2; h++) {
        for (int r = 0; r < ROWS; r++) {
            uint32_t bits = 0;
            for (int j = 0; j < 4; j++) {
                bits |= (in[h + 2 * j][r] >> shift & 0x03030303) << (2 * j);
            }
            out[h][r] = bits;
        }
    }
}

static void plane_of_1(line *out, line in[LINES], int shift) {
    for (int r = 0; r < ROWS; r++) {
        uint32_t bits = 0;
        for (int j = 0; j < LINES; j++) {
            bits |= (in[j][r] >> shift & 0x01010101) << j;
        }
        out[0][r] = bits;
    }
}

static void put_codes(void *out, dm_panel_codes codes, line in[LINES]) {
    line planes[LINES];
    switch (codes) {
    case DM_CODES_2:
        plane_of_2(planes, in, 0);
        break;
    case DM_CODES_3:
        plane_of_2(planes, in, 0);
        plane_of_1(planes + 2, in, 2);
        break;
    case DM_CODES_4:
    case DM_CODES_TABLE:
        plane_of_4(planes, in);
        break;
    case DM_CODES_5:
        plane_of_4(planes, in);
        plane_of_1(planes + 4, in, 4);
        break;
    case DM_CODES_6:
        plane_of_4(planes, in);
        plane_of_2(planes + 4, in, 4);
        break;
    case DM_CODES_8:
        memcpy(planes, in, sizeof planes);
        break;
    }
    memcpy(out, planes, dm_panel_lines(codes) * DM_PANEL_LINE);
}

static void put_halves(uint8_t *out, const parts *rows, bool minimum) {
    for (int r = 0; r < ROWS; r++) {
        uint16_t half = minimum ? rows[r].m : rows[r].d;
        memcpy(out + 2 * r, &half, sizeof half);
    }
}

static void put_bytes(uint8_t *out, const parts *rows, int group, bool minimum) {
    for (int r = 0; r < ROWS; r++) {
        out[r] = minimum ? rows[r].minima[group] : rows[r].scales[group];
    }
}

/* Scales of unit `unit` of the blocks at hand. */
static void put_scales(uint8_t *out, dm_panel_scales scales, const parts *rows, int unit) {
    switch (scales) {
    case DM_SCALES_PLAIN:
        put_halves(out, rows, false);
        break;
    case DM_SCALES_MIN:
        put_halves(out, rows, false);
        put_halves(out + 32, rows, true);
        break;
    case DM_SCALES_GROUPS_32:
        put_bytes(out, rows, unit, false);
        break;
    case DM_SCALES_GROUPS_32_MIN:
        put_bytes(out, rows, unit, false);
        put_bytes(out + 16, rows, unit, true);
        break;
    case DM_SCALES_GROUPS_16:
    case DM_SCALES_GROUPS_16_MIN:
        put_bytes(out, rows, 2 * unit, false);
        put_bytes(out + 16, rows, 2 * unit + 1, false);
        break;
    }
}

static void put_super(uint8_t *out, dm_panel_scales scales, const parts *rows) {
    if (dm_panel_super_scales(scales) > 0) {
        put_halves(out, rows, false);
    }
    if (dm_panel_super_scales(scales) > 32) {
        put_halves(out + 32, rows, true);
    }
}

/* One panel from `rows` rows (up to 16) that begin at `blocks`, row_bytes apart. */
static void pack_panel(uint8_t *out, const dm_panel_format *format, const uint8_t *blocks, size_t row_bytes, size_t rows,
                       size_t columns) {
    uint32_t width, bytes;
    parts taken[ROWS];
    take_fn take = takers[format - formats];
    uint8_t *codes = out;
    uint8_t *scales = out + code_bytes(format, columns / UNIT);
    dm_type_block(format->type, &width, &bytes);
    memset(taken, 0, sizeof taken);
    for (size_t at = 0; at < columns; at += width, blocks += bytes) {
        for (size_t r = 0; r < rows; r++) {
            take(&taken[r], blocks + r * row_bytes);
        }
        put_super(scales, format->scales, taken);
        scales += dm_panel_super_scales(format->scales);
        for (size_t unit = 0; unit < width / UNIT; unit++) {
            line lines[LINES];
            for (size_t r = 0; r < ROWS; r++) {
                for (size_t g = 0; g < LINES; g++) {
                    memcpy(&lines[g][r], taken[r].codes + unit * UNIT + 4 * g, 4);
                }
            }
            put_codes(codes, format->codes, lines);
            codes += dm_panel_lines(format->codes) * DM_PANEL_LINE;
            put_scales(scales, format->scales, taken, (int)unit);
            scales += dm_panel_unit_scales(format->scales);
        }
    }
    memset(scales, 0, (size_t)(out + dm_panel_bytes(format, columns) - scales));
}

void dm_panels_pack(void *out, const dm_panel_format *format, const void *blocks, size_t rows, size_t columns, size_t first_row,
                    size_t panels) {
    size_t row_bytes = dm_type_bytes(format->type, columns);
    size_t panel_bytes = dm_panel_bytes(format, columns);
    for (size_t i = 0; i < panels; i++) {
        size_t row = first_row + i * ROWS;
        size_t n = rows - row < ROWS ? rows - row : ROWS;
        pack_panel((uint8_t *)out + i * panel_bytes, format, (const uint8_t *)blocks + row * row_bytes, row_bytes, n, columns);
    }
}
