/*
 * Packing blocks of GGUF's types into panels (panels.h). Each row's block
 * becomes the words that the panel has of it, 4 columns each, by operations on
 * whole words; then 16 rows of words are turned, so that those of one line lie
 * side by side. Vectors of 16 bytes, which all machines have, are enough to be
 * about as fast as memory, whose traffic is what counts: the rows of the next
 * panel are asked for while one is packed, and lines are written past the
 * caches where that can be told, for they would be fetched first otherwise.
 */
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#include <string.h>

#include "kernels/block_layouts.h"
#include "kernels/panels.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, MOST_LINES = 8 * 6, GROUPS = 16 };

/* What a panel has of one block of a row. */
typedef struct row_part {
    uint32_t lines[MOST_LINES]; /* [units][lines of a unit] */
    uint8_t scales[GROUPS];     /* of groups in their order; for groups of 32 the minima follow from 8 on */
    uint16_t d, m;              /* halves; what a format lacks is not looked at */
} row_part;

/* ---- Words of 4 columns ---- */

typedef uint32_t quad __attribute__((vector_size(16)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));

static inline quad load(const void *from) {
    quad v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(void *to, quad v) {
    memcpy(to, &v, sizeof v);
}

/* Past the caches; seen by other threads after end_streams(). `to` is aligned to 16. */
static inline void stream(void *to, quad v) {
#if defined(__SSE2__)
    _mm_stream_si128(to, (__m128i)v);
#else
    store(to, v);
#endif
}

static inline void end_streams(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* 64 codes whose low nibbles are one unit and whose high ones are another: each as its plane of 4 bits. */
static void split_nibbles(uint32_t *low, uint32_t *high, const uint8_t nibbles[32]) {
    quad a = load(nibbles), b = load(nibbles + 16);
    store(low, (a & 0x0f0f0f0f) | (b & 0x0f0f0f0f) << 4);
    store(high, (a >> 4 & 0x0f0f0f0f) | (b & 0xf0f0f0f0));
}

/* Exchanges the bits `mask` << shift of a with the bits `mask` of b. */
#define SWAP_BITS(a, b, shift, mask)                                                                                             \
    do {                                                                                                                         \
        __typeof__(a) changed = ((a) >> (shift) ^ (b)) & (mask);                                                                 \
        (b) ^= changed;                                                                                                          \
        (a) ^= changed << (shift);                                                                                               \
    } while (0)

/* Bits 2 k, 2 k + 1 of the byte for column l are those of unit k: each unit's plane of 2 bits, `step` words apart. */
static void turn_pairs(uint32_t *out, size_t step, const uint8_t pairs[32]) {
    uint64_t w[4]; /* two lines each */
    memcpy(w, pairs, sizeof w);
    SWAP_BITS(w[0], w[2], 4, 0x0f0f0f0f0f0f0f0f);
    SWAP_BITS(w[1], w[3], 4, 0x0f0f0f0f0f0f0f0f);
    SWAP_BITS(w[0], w[1], 2, 0x3333333333333333);
    SWAP_BITS(w[2], w[3], 2, 0x3333333333333333);
    for (size_t k = 0; k < 4; k++) {
        memcpy(out + k * step, &w[k], sizeof w[k]);
    }
}

/* Bit g of the byte for column l is that of unit g: each unit's plane of 1 bit, `step` words apart. */
static void turn_bits(uint32_t *out, size_t step, const uint8_t bits[32]) {
    uint32_t w[8];
    memcpy(w, bits, sizeof w);
    for (int i = 0; i < 4; i++) {
        SWAP_BITS(w[i], w[i + 4], 4, 0x0f0f0f0fu);
    }
    for (int i = 0; i < 8; i += i % 2 == 0 ? 1 : 3) {
        SWAP_BITS(w[i], w[i + 2], 2, 0x33333333u);
    }
    for (int i = 0; i < 8; i += 2) {
        SWAP_BITS(w[i], w[i + 1], 1, 0x55555555u);
    }
    for (size_t g = 0; g < 8; g++) {
        out[g * step] = w[g];
    }
}

/* Bit i is column i's: the plane of 1 bit. */
static uint32_t plane_of_bits(const uint8_t bits[4]) {
    uint32_t in, out = 0;
    memcpy(&in, bits, sizeof in);
    for (int c = 0; c < 4; c++) {
        uint32_t column = in >> c & 0x11111111;
        column = (column | column >> 3) & 0x03030303;
        column = (column | column >> 6) & 0x000f000f;
        out |= ((column | column >> 12) & 0xff) << (8 * c);
    }
    return out;
}

/* ---- One block of a row ---- */

static void take_q4_0(row_part *p, const void *data) {
    const dm_block_q4_0 *b = data;
    p->d = b->d;
    memcpy(p->lines, b->nibbles, 16);
}

static void take_q4_1(row_part *p, const void *data) {
    const dm_block_q4_1 *b = data;
    p->d = b->d;
    p->m = b->m;
    memcpy(p->lines, b->nibbles, 16);
}

static void take_q5_0(row_part *p, const void *data) {
    const dm_block_q5_0 *b = data;
    p->d = b->d;
    memcpy(p->lines, b->nibbles, 16);
    p->lines[4] = plane_of_bits(b->fifth);
}

static void take_q5_1(row_part *p, const void *data) {
    const dm_block_q5_1 *b = data;
    p->d = b->d;
    p->m = b->m;
    memcpy(p->lines, b->nibbles, 16);
    p->lines[4] = plane_of_bits(b->fifth);
}

static void take_q8_0(row_part *p, const void *data) {
    const dm_block_q8_0 *b = data;
    p->d = b->d;
    memcpy(p->lines, b->q, 32);
}

static void take_iq4_nl(row_part *p, const void *data) {
    const dm_block_iq4_nl *b = data;
    p->d = b->d;
    memcpy(p->lines, b->nibbles, 16);
}

static void take_q2_k(row_part *p, const void *data) {
    const dm_block_q2_k *b = data;
    p->d = b->d;
    p->m = b->dmin;
    memcpy(p->scales, b->scales, 16);
    turn_pairs(p->lines, 2, b->pairs);
    turn_pairs(p->lines + 8, 2, b->pairs + 32);
}

/* dm_q3_k_scale() of 4 groups at a time. */
static void take_q3_k_scales(row_part *p, const uint8_t scales[12]) {
    uint32_t w[3];
    memcpy(w, scales, sizeof w);
    for (int i = 0; i < 4; i++) {
        uint32_t s = (w[i % 2] >> (i / 2 * 4) & 0x0f0f0f0f) | (w[2] >> (2 * i) & 0x03030303) << 4;
        s = ((s | 0x80808080) - 0x20202020) ^ 0x80808080; /* - 32 in each byte */
        memcpy(p->scales + 4 * i, &s, sizeof s);
    }
}

static void take_q3_k(row_part *p, const void *data) {
    const dm_block_q3_k *b = data;
    p->d = b->d;
    take_q3_k_scales(p, b->scales);
    turn_pairs(p->lines, 3, b->pairs);
    turn_pairs(p->lines + 12, 3, b->pairs + 32);
    turn_bits(p->lines + 2, 3, b->high);
}

/* dm_q4_k_scale() and dm_q4_k_min() of 4 groups at a time. */
static void take_q4_k_scales(row_part *p, const uint8_t scales[12]) {
    uint32_t w[3];
    memcpy(w, scales, sizeof w);
    const uint32_t all[] = {
        w[0] & 0x3f3f3f3f,
        (w[2] & 0x0f0f0f0f) | (w[0] >> 6 & 0x03030303) << 4,
        w[1] & 0x3f3f3f3f,
        (w[2] >> 4 & 0x0f0f0f0f) | (w[1] >> 6 & 0x03030303) << 4,
    };
    memcpy(p->scales, all, sizeof all);
}

static void take_q4_k(row_part *p, const void *data) {
    const dm_block_q4_k *b = data;
    p->d = b->d;
    p->m = b->dmin;
    take_q4_k_scales(p, b->scales);
    for (int g = 0; g < 4; g++) {
        split_nibbles(p->lines + 8 * g, p->lines + 8 * g + 4, b->nibbles + 32 * g);
    }
}

static void take_q5_k(row_part *p, const void *data) {
    const dm_block_q5_k *b = data;
    p->d = b->d;
    p->m = b->dmin;
    take_q4_k_scales(p, b->scales);
    for (int g = 0; g < 4; g++) {
        split_nibbles(p->lines + 10 * g, p->lines + 10 * g + 5, b->nibbles + 32 * g);
    }
    turn_bits(p->lines + 4, 5, b->fifth);
}

static void take_q6_k(row_part *p, const void *data) {
    const dm_block_q6_k *b = data;
    p->d = b->d;
    memcpy(p->scales, b->scales, 16);
    for (int h = 0; h < 2; h++) {
        uint32_t *lines = p->lines + 24 * h; /* 4 units of 6 */
        split_nibbles(lines, lines + 12, b->low + 64 * h);
        split_nibbles(lines + 6, lines + 18, b->low + 64 * h + 32);
        turn_pairs(lines + 4, 6, b->high + 32 * h);
    }
}

static void take_iq4_xs(row_part *p, const void *data) {
    const dm_block_iq4_xs *b = data;
    p->d = b->d;
    for (int g = 0; g < 8; g++) {
        p->scales[g] = (uint8_t)dm_iq4_xs_scale(b, g);
    }
    memcpy(p->lines, b->nibbles, 128);
}

typedef void (*take_fn)(row_part *p, const void *block);

/* In the order of formats' numbers. */
static const take_fn takers[] = {
#define DM_PANEL_TAKER(name, type, codes, scales, offset) take_##name,
    DM_PANEL_FORMATS(DM_PANEL_TAKER)
#undef DM_PANEL_TAKER
};

/* ---- Sixteen rows ---- */

static inline quad interleave_low(quad a, quad b) {
    return (quad){a[0], b[0], a[1], b[1]};
}

static inline quad interleave_high(quad a, quad b) {
    return (quad){a[2], b[2], a[3], b[3]};
}

/* Word `line` .. line + 3 of rows r .. r + 3 to their places in those lines. */
static inline void turn_words(uint8_t *out, const row_part *rows, size_t r, size_t line) {
    quad a = load(rows[r].lines + line), b = load(rows[r + 1].lines + line);
    quad c = load(rows[r + 2].lines + line), d = load(rows[r + 3].lines + line);
    quad ac = interleave_low(a, c), bd = interleave_low(b, d);
    uint8_t *to = out + line * DM_PANEL_LINE + r * sizeof(uint32_t);
    stream(to, interleave_low(ac, bd));
    stream(to + DM_PANEL_LINE, interleave_high(ac, bd));
    ac = interleave_high(a, c);
    bd = interleave_high(b, d);
    stream(to + 2 * DM_PANEL_LINE, interleave_low(ac, bd));
    stream(to + 3 * DM_PANEL_LINE, interleave_high(ac, bd));
}

static void put_lines(uint8_t *out, const row_part *rows, size_t lines) {
    size_t line = 0;
    for (; line + 4 <= lines; line += 4) {
        for (size_t r = 0; r < ROWS; r += 4) {
            turn_words(out, rows, r, line);
        }
    }
    for (; line < lines; line++) {
        for (size_t r = 0; r < ROWS; r++) {
            memcpy(out + line * DM_PANEL_LINE + r * sizeof(uint32_t), &rows[r].lines[line], sizeof(uint32_t));
        }
    }
}

static uint8_t *put_halves(uint8_t *out, const row_part *rows, bool minimum) {
    for (int r = 0; r < ROWS; r++) {
        uint16_t half = minimum ? rows[r].m : rows[r].d;
        memcpy(out + 2 * r, &half, sizeof half);
    }
    return out + 2 * ROWS;
}

/* out [GROUPS][ROWS] = the rows' scales, by perfect shuffles: each halves the distance between a row and the next. */
static void turn_scales(bytes16 out[GROUPS], const row_part *rows) {
    bytes16 now[ROWS];
    for (int r = 0; r < ROWS; r++) {
        memcpy(&now[r], rows[r].scales, GROUPS);
    }
    for (int pass = 0; pass < 4; pass++) {
        for (int i = 0; i < ROWS / 2; i++) {
            bytes16 a = now[i], b = now[i + ROWS / 2];
            out[2 * i] =
                (bytes16){a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3], a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
            out[2 * i + 1] = (bytes16){a[8],  b[8],  a[9],  b[9],  a[10], b[10], a[11], b[11],
                                       a[12], b[12], a[13], b[13], a[14], b[14], a[15], b[15]};
        }
        memcpy(now, out, sizeof now);
    }
}

/* Scales of one block of each row; returns where the next one's go. */
static uint8_t *put_scales(uint8_t *out, dm_panel_scales scales, const row_part *rows) {
    out = put_halves(out, rows, false);
    if (scales == DM_SCALES_MIN || dm_panel_super_scales(scales) > 2 * ROWS) {
        out = put_halves(out, rows, true);
    }
    if (scales == DM_SCALES_PLAIN || scales == DM_SCALES_MIN) {
        return out;
    }
    bytes16 turned[GROUPS];
    turn_scales(turned, rows);
    size_t bytes = DM_PANEL_SUPER * dm_panel_unit_scales(scales);
    if (scales != DM_SCALES_GROUPS_32_MIN) {
        memcpy(out, turned, bytes);
        return out + bytes;
    }
    for (int unit = 0; unit < DM_PANEL_SUPER; unit++) {
        memcpy(out + 32 * unit, &turned[unit], 16);
        memcpy(out + 32 * unit + 16, &turned[DM_PANEL_SUPER + unit], 16);
    }
    return out + bytes;
}

/* What a panel is made of: up to 16 rows of blocks, end to end. */
typedef struct panel_rows {
    const uint8_t *blocks;
    size_t rows;
} panel_rows;

static panel_rows rows_at(const void *blocks, size_t row_bytes, size_t rows, size_t first) {
    const size_t begin = first < rows ? first : rows, left = rows - begin;
    return (panel_rows){(const uint8_t *)blocks + begin * row_bytes, left < ROWS ? left : ROWS};
}

static void ask_for(const uint8_t *begin, size_t bytes) {
    for (size_t i = 0; i < bytes; i += DM_PANEL_LINE) {
        __builtin_prefetch(begin + i);
    }
}

/* One panel; meanwhile asks for the next one's rows, as much at a time. */
static void pack_panel(uint8_t *out, const dm_panel_format *format, panel_rows from, panel_rows next, size_t row_bytes,
                       size_t columns) {
    uint32_t width, bytes;
    dm_type_block(format->type, &width, &bytes);
    take_fn take = takers[format - dm_panel_format_at(0)];
    const size_t lines = width / UNIT * dm_panel_lines(format->codes), blocks = columns / width;
    uint8_t *codes = out, *scales = out + blocks * lines * DM_PANEL_LINE;
    row_part taken[ROWS];
    memset(taken, 0, sizeof taken); /* of rows that are not there */
    for (size_t b = 0; b < blocks; b++) {
        ask_for(next.blocks + b * next.rows * bytes, next.rows * bytes);
        for (size_t r = 0; r < from.rows; r++) {
            take(&taken[r], from.blocks + r * row_bytes + b * bytes);
        }
        put_lines(codes, taken, lines);
        codes += lines * DM_PANEL_LINE;
        scales = put_scales(scales, format->scales, taken);
    }
    memset(scales, 0, (size_t)(out + dm_panel_bytes(format, columns) - scales));
}

void dm_panels_pack(void *out, const dm_panel_format *format, const void *blocks, size_t rows, size_t columns, size_t first_row,
                    size_t panels) {
    const size_t row_bytes = dm_type_bytes(format->type, columns), panel_bytes = dm_panel_bytes(format, columns);
    for (size_t i = 0; i < panels; i++) {
        const size_t row = first_row + i * ROWS;
        pack_panel((uint8_t *)out + i * panel_bytes, format, rows_at(blocks, row_bytes, rows, row),
                   rows_at(blocks, row_bytes, rows, row + ROWS), row_bytes, columns);
    }
    end_streams();
}
