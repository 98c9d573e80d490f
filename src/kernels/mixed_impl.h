/*
 * Products with panels of mixed widths (mixed_panels.h), for quantized_impl.h, which includes this file: a loop over the tiles of
 * each width. A tile's products are summed exactly in int32, tiles in float32 in their order.
 */

/* What all tiles of a panel share. */
typedef struct mixed_panel {
    const uint8_t *start, *ahead; /* of this panel, and of what is asked for meanwhile */
    const uint8_t *codes, *scales;
    const uint16_t *units;
    const dm_q8_block *x;
    size_t ldx;
} mixed_panel;

/* What a sum begins with: it undoes what codes have more than levels. `shift` of activations is -128 times their sum. */
ALWAYS_INLINE vi first_of_sum(int number, const dm_q8_block *x) {
    if (dm_mixed_bits(number) == 5) {
        return splat_i(x->shift >> 3);
    }
    if (dm_mixed_bits(number) == 6) {
        return splat_i(x->shift >> 2);
    }
    return SIGNED_SHIFT ? splat_i(x->shift) : (vi){0};
}

/* sums += the products of one tile with n <= SIDE_BY_SIDE tokens, scaled. */
ALWAYS_INLINE void add_tile(vf *sums, size_t n, int number, const vu *w, vf scale, const dm_q8_block *x, size_t ldx) {
    const bool is_signed = dm_mixed_offset(number) == 0;
    vi exact[SIDE_BY_SIDE];
#pragma GCC unroll 4
    for (size_t t = 0; t < n; t++) {
        exact[t] = first_of_sum(number, x + t * ldx);
    }
    dots(exact, n, is_signed, w, x, ldx, 0);
    dots(exact, n, is_signed, w, x, ldx, 1);
#pragma GCC unroll 4
    for (size_t t = 0; t < n; t++) {
        sums[t] = v_fma(__builtin_convertvector(exact[t], vf) * x[t * ldx].scale, scale, sums[t]);
    }
}

/* All tiles of one width, for m tokens: m and the width are known when compiling. */
ALWAYS_INLINE void add_tiles(vf *sums, size_t m, int number, size_t tiles, const int8_t *table, vf row_scales, mixed_panel *p,
                             int lane) {
    const size_t bytes = dm_panel_lines(dm_mixed_codes(number)) * DM_PANEL_LINE;
    const vu levels = number < DM_MIXED_TABLES ? v_signed(v_table(table)) : (vu){0};
    for (size_t k = 0; k < tiles; k++, p->codes += bytes, p->scales += DM_PANEL_ROWS) {
        const dm_q8_block *x = p->x + *p->units++;
        for (size_t line = 0; line < bytes; line += DM_PANEL_LINE) {
            __builtin_prefetch(p->ahead + (p->codes - p->start) + line, 0, SECOND_LEVEL);
        }
        __builtin_prefetch(p->ahead + (p->scales - p->start), 0, SECOND_LEVEL);
        vu w[LINES];
        unpack(w, dm_mixed_codes(number), p->codes, lane);
        if (number < DM_MIXED_TABLES) {
#pragma GCC unroll 8
            for (int g = 0; g < LINES; g++) {
                w[g] = v_look(levels, w[g]);
            }
        }
        const vf scale = row_scales * signed_at(p->scales, lane);
#pragma GCC unroll 4
        for (size_t t = 0; t < m; t += SIDE_BY_SIDE) {
            size_t n = m - t < SIDE_BY_SIDE ? m - t : SIDE_BY_SIDE;
            add_tile(sums + t, n, number, w, scale, x + t * p->ldx, p->ldx);
        }
    }
}

/* LANES rows from `lane` on, for m tokens. */
ALWAYS_INLINE void mixed_lanes(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const dm_mixed_header *matrix,
                               size_t panel, const uint8_t *ahead, int lane) {
    const dm_mixed_entry *entry = dm_mixed_entries(matrix) + panel;
    const uint8_t *start = dm_mixed_panel(matrix, panel);
    mixed_panel p = {.start = start, .ahead = ahead, .x = x, .ldx = ldx};
    p.codes = start + dm_mixed_scale_bytes(dm_mixed_tiles(entry));
    p.scales = start + 2 * DM_PANEL_ROWS;
    p.units = dm_mixed_units(matrix) + entry->first;
    const vf row_scales = halves_at(start, lane);
    vf sums[MOST_TOKENS] = {{0}};
#pragma GCC unroll 8
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        add_tiles(sums, m, i, entry->tiles[i], dm_mixed_table(matrix, i), row_scales, &p, lane);
    }
#pragma GCC unroll 16
    for (size_t t = 0; t < m; t++) {
        memcpy(y + t * ldy + lane, &sums[t], sizeof sums[t]);
    }
}

/* The tokens of one turn, a number known when compiling. */
#define MIXED_TURN(count)                                                                                                        \
    while (m >= (count)) {                                                                                                       \
        for (int lane = 0; lane < DM_PANEL_ROWS; lane += LANES) {                                                                \
            mixed_lanes(y, ldy, x, ldx, count, matrix, panel, ahead, lane);                                                      \
        }                                                                                                                        \
        y += (count)*ldy;                                                                                                        \
        x += (count)*ldx;                                                                                                        \
        m -= (count);                                                                                                            \
        ahead = dm_mixed_panel(matrix, panel); /* it has been asked for */                                                       \
    }

static void mixed(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const dm_mixed_header *matrix, size_t panel,
                  const void *ahead) {
#if MOST_TOKENS >= 16
    MIXED_TURN(16)
#endif
#if MOST_TOKENS >= 8
    MIXED_TURN(8)
#endif
    MIXED_TURN(4)
    MIXED_TURN(3)
    MIXED_TURN(2)
    MIXED_TURN(1)
}
