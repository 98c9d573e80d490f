/* Packing, against panels put together bit by bit as panels.h describes them. */
#include "kernels/block_layouts.h"
#include "kernels/panels.h"
#include "random_blocks.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

/* ---- A block, weight by weight ---- */

static int nibble(const uint8_t *nibbles, int low_at, int half) {
    return half == 0 ? nibbles[low_at] & 15 : nibbles[low_at] >> 4;
}

static int pair_of(const uint8_t *pairs, int i) {
    return pairs[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3;
}

static int code_of(dm_type type, const void *block, int i) {
    const dm_block_q5_0 *q5_0 = block;
    const dm_block_q5_1 *q5_1 = block;
    const dm_block_q5_k *q5_k = block;
    const dm_block_q6_k *q6_k = block;
    const dm_block_q3_k *q3_k = block;
    switch (type) {
    case DM_TYPE_Q4_0:
    case DM_TYPE_IQ4_NL:
        return nibble(((const dm_block_q4_0 *)block)->nibbles, i % 16, i / 16);
    case DM_TYPE_Q4_1:
        return nibble(((const dm_block_q4_1 *)block)->nibbles, i % 16, i / 16);
    case DM_TYPE_Q5_0:
        return nibble(q5_0->nibbles, i % 16, i / 16) | (q5_0->fifth[i / 8] >> (i % 8) & 1) << 4;
    case DM_TYPE_Q5_1:
        return nibble(q5_1->nibbles, i % 16, i / 16) | (q5_1->fifth[i / 8] >> (i % 8) & 1) << 4;
    case DM_TYPE_Q8_0:
        return (uint8_t)((const dm_block_q8_0 *)block)->q[i];
    case DM_TYPE_Q2_K:
        return pair_of(((const dm_block_q2_k *)block)->pairs, i);
    case DM_TYPE_Q3_K:
        return pair_of(q3_k->pairs, i) | (q3_k->high[i % 32] >> (i / 32) & 1) << 2;
    case DM_TYPE_Q4_K:
        return nibble(((const dm_block_q4_k *)block)->nibbles, 32 * (i / 64) + i % 32, i / 32 % 2);
    case DM_TYPE_Q5_K:
        return nibble(q5_k->nibbles, 32 * (i / 64) + i % 32, i / 32 % 2) | (q5_k->fifth[i % 32] >> (i / 32) & 1) << 4;
    case DM_TYPE_Q6_K:
        return nibble(q6_k->low, 64 * (i / 128) + i % 64, i / 64 % 2) | pair_of(q6_k->high, i) << 4;
    default:
        assert_int_equal(type, DM_TYPE_IQ4_XS);
        return nibble(((const dm_block_iq4_xs *)block)->nibbles, 16 * (i / 32) + i % 16, i / 16 % 2);
    }
}

/* Byte of group g's scale, or of its minimum where that has a byte of its own. */
static int scale_of(dm_type type, const void *block, int g, bool minimum) {
    const uint8_t *scales = ((const dm_block_q4_k *)block)->scales; /* where Q5_K has them too */
    switch (type) {
    case DM_TYPE_Q2_K:
        return ((const dm_block_q2_k *)block)->scales[g];
    case DM_TYPE_Q3_K:
        return dm_q3_k_scale(((const dm_block_q3_k *)block)->scales, g);
    case DM_TYPE_Q4_K:
    case DM_TYPE_Q5_K:
        return minimum ? dm_q4_k_min(scales, g) : dm_q4_k_scale(scales, g);
    case DM_TYPE_Q6_K:
        return ((const dm_block_q6_k *)block)->scales[g];
    default:
        assert_int_equal(type, DM_TYPE_IQ4_XS);
        return dm_iq4_xs_scale(block, g);
    }
}

static void half_of(dm_type type, const void *block, bool minimum, uint8_t out[2]) {
    size_t at = type == DM_TYPE_Q2_K   ? offsetof(dm_block_q2_k, d)
                : type == DM_TYPE_Q3_K ? offsetof(dm_block_q3_k, d)
                : type == DM_TYPE_Q6_K ? offsetof(dm_block_q6_k, d)
                                       : 0;
    memcpy(out, (const uint8_t *)block + at + (minimum ? 2 : 0), 2);
}

/* ---- A panel of it ---- */

/* Bits of column c's code in the planes of a unit: from bit `shift` of the code on, `bits` of them in lines from `line`. */
static void put_plane(uint8_t *unit, size_t line, int row, int c, int code, int shift, int bits) {
    int lines = bits, j = c / 4; /* 8 / bits lines share a byte */
    unit[(line + (size_t)(j % lines)) * DM_PANEL_LINE + (size_t)(4 * row + c % 4)] |=
        (uint8_t)((code >> shift & ((1 << bits) - 1)) << (j / lines * bits));
}

static void put_code(uint8_t *unit, dm_panel_codes codes, int row, int c, int code) {
    static const int first[] = {2, 2, 4, 4, 4, 8, 4}, second[] = {0, 1, 0, 1, 2, 0, 0};
    put_plane(unit, 0, row, c, code, 0, first[codes]);
    if (second[codes] > 0) {
        put_plane(unit, (size_t)first[codes], row, c, code, first[codes], second[codes]);
    }
}

static void put_scales(uint8_t *scales, dm_panel_scales kind, dm_type type, const void *block, int row, int units) {
    size_t super = dm_panel_super_scales(kind), unit_bytes = dm_panel_unit_scales(kind);
    half_of(type, block, false, scales + 2 * row);
    if (super == 64 || kind == DM_SCALES_MIN) {
        half_of(type, block, true, scales + 32 + 2 * row);
    }
    bool sixteens = kind == DM_SCALES_GROUPS_16 || kind == DM_SCALES_GROUPS_16_MIN;
    for (int u = 0; u < units && super > 0; u++) {
        uint8_t *at = scales + super + (size_t)u * unit_bytes + row;
        at[0] = (uint8_t)scale_of(type, block, sixteens ? 2 * u : u, false);
        if (unit_bytes == 32) {
            at[16] = (uint8_t)scale_of(type, block, sixteens ? 2 * u + 1 : u, !sixteens);
        }
    }
}

/* One row of the panel, which was zeros. */
static void put_row(uint8_t *panel, const dm_panel_format *format, const uint8_t *blocks, int row, size_t columns) {
    uint32_t width, bytes;
    dm_type_block(format->type, &width, &bytes);
    size_t unit_lines = dm_panel_lines(format->codes) * DM_PANEL_LINE;
    uint8_t *scales = panel + columns / UNIT * unit_lines;
    for (size_t at = 0; at < columns; at += width, blocks += bytes) {
        for (size_t i = 0; i < width; i++) {
            put_code(panel + (at + i) / UNIT * unit_lines, format->codes, row, (int)(i % UNIT),
                     code_of(format->type, blocks, (int)i));
        }
        put_scales(scales, format->scales, format->type, blocks, row, (int)(width / UNIT));
        scales += dm_panel_super_scales(format->scales) + width / UNIT * dm_panel_unit_scales(format->scales);
    }
}

/* ---- Packing ---- */

/* All panels at once and one by one, from blocks at an address that is even and nothing more. */
static void check(dm_random *random, const dm_panel_format *format, size_t rows, size_t columns) {
    size_t row_bytes = dm_type_bytes(format->type, columns), panels = dm_panel_count(rows);
    size_t panel_bytes = dm_panel_bytes(format, columns);
    uint8_t *aligned = random_blocks(random, format->type, rows, columns);
    uint8_t *memory = dm_alloc(rows * row_bytes + 2, 1), *blocks = memory + 2;
    memcpy(blocks, aligned, rows * row_bytes);
    uint8_t *want = dm_alloc(panels, panel_bytes), *got = dm_alloc(panels, panel_bytes);
    for (size_t r = 0; r < rows; r++) {
        put_row(want + r / ROWS * panel_bytes, format, blocks + r * row_bytes, (int)(r % ROWS), columns);
    }
    memset(got, 0xa5, panels * panel_bytes);
    dm_panels_pack(got, format, blocks, rows, columns, 0, panels);
    assert_memory_equal(got, want, panels * panel_bytes);
    memset(got, 0x5a, panels * panel_bytes);
    for (size_t p = panels; p-- > 0;) {
        dm_panels_pack(got + p * panel_bytes, format, blocks, rows, columns, p * ROWS, 1);
    }
    assert_memory_equal(got, want, panels * panel_bytes);
    dm_free(aligned);
    dm_free(memory);
    dm_free(want);
    dm_free(got);
}

static void packing(void **state) {
    (void)state;
    static const size_t rows[] = {1, 15, 16, 17, 40}, blocks[] = {1, 2, 3, 9};
    dm_random random;
    dm_random_seed(&random, 11);
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        const dm_panel_format *format = dm_panel_format_at(f);
        uint32_t width, bytes;
        assert_true(dm_type_block(format->type, &width, &bytes));
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            for (size_t b = 0; b < sizeof blocks / sizeof *blocks - (DM_EMULATED ? 2 : 0); b++) {
                check(&random, format, rows[r], blocks[b] * width);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(packing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
