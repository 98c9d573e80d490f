/*
 * Products with panels, written once. Each instruction set's file defines what
 * vector types cannot express, then includes this file, which defines the table:
 * all that quantized_units.h asks for, and
 *
 *   MOST_TOKENS             rows of x that share what was unpacked: a power of 2
 *   SIDE_BY_SIDE            of these, how many have their sums in registers at once
 *   DM_TABLE, DM_ISA        name of the table, and of the instruction set
 *   v_dot(acc, w, x)        acc + 4 products a lane, w codes 0 .. 127 (or 0 .. 255 after v_signed), x int8
 *   v_dot_signed(acc, w, x) the same for codes that went through v_signed, where it is another instruction
 *   SIGNED_SHIFT            1 where v_signed adds 128
 *   v_max_of(a), v_sum_of(a) the largest of the lanes of int32, their sum
 *   v_store_i8(p, a)        int32 of -128 .. 127 to LANES bytes at p
 */
#include <math.h>

#include "kernels/quantized_tables.h"
#include "kernels/quantized_units.h"

/* ---- Rounding activations ---- */

ALWAYS_INLINE void quantize_block(dm_q8_block *out, const float *x) {
    enum { VECTORS = DM_PANEL_UNIT / LANES, INFINITE = 0x7f800000 };
    const vf magic = splat(0x1.8p23f); /* adding it leaves the nearest integer, ties to even, in the low bits */
    vf v[VECTORS];
    vi largest = {0}; /* magnitudes order as integers do, those that are not finite last */
    for (int i = 0; i < VECTORS; i++) {
        memcpy(&v[i], x + i * LANES, sizeof v[i]);
        vi magnitude = (vi)v[i] & 0x7fffffff;
        vi rises = magnitude > largest;
        largest = (rises & magnitude) | (~rises & largest);
    }
    int32_t top = v_max_of(largest);
    float peak;
    memcpy(&peak, &top, sizeof peak);
    const bool finite = top < INFINITE;
    const float inverse = finite && peak > 0x1p-100f ? 127.0f / peak : 0.0f;
    const vi mask = splat_i(finite ? -1 : 0);
    vi sums[2] = {{0}, {0}};
    for (int i = 0; i < VECTORS; i++) {
        vi q = ((vi)(v[i] * inverse + magic) - (vi)magic) & mask;
        v_store_i8(out->q + i * LANES, q);
        sums[i * LANES / 16] += q;
    }
    const int32_t first = v_sum_of(sums[0]), second = v_sum_of(sums[1]);
    out->scale = inverse > 0.0f ? peak / 127.0f : finite ? 0.0f : NAN;
    out->halves[0] = out->scale * (float)first;
    out->halves[1] = out->scale * (float)second;
    out->sum = out->scale * (float)(first + second);
    out->shift = -128 * (first + second);
}

static void quantize(dm_q8_block *out, const float *x, size_t n) {
    for (size_t i = 0; i < n / DM_PANEL_UNIT; i++) {
        quantize_block(out + i, x + i * DM_PANEL_UNIT);
    }
}

/* ---- The product ---- */

enum { SECOND_LEVEL = 2 }; /* the cache that panels are asked into */

/* sum + 4 products a lane */
ALWAYS_INLINE vi dot(vi sum, bool is_signed, vu codes, vi x) {
#ifdef v_dot_signed
    if (is_signed) {
        return v_dot_signed(sum, codes, x);
    }
#else
    (void)is_signed;
#endif
    return v_dot(sum, codes, x);
}

/* sums[t] += products of half a unit for each of n tokens, which take turns: chains of dependent additions that run side by
 * side keep the units busy. */
ALWAYS_INLINE void dots(vi *sums, size_t n, bool is_signed, const vu *w, const dm_q8_block *x, size_t ldx, int half) {
#pragma GCC unroll 4
    for (int g = 0; g < LINES / 2; g++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < n; t++) {
            int32_t four;
            memcpy(&four, x[t * ldx].q + 16 * half + 4 * g, sizeof four);
            vu codes = w[half * LINES / 2 + g];
            sums[t] = dot(sums[t], is_signed, codes, splat_i(four));
        }
    }
}

/* sums += the products of one unit with n <= SIDE_BY_SIDE tokens, scaled. */
ALWAYS_INLINE void add_unit(vf *sums, size_t n, bool is_signed, bool by_16, bool adds, const vu *w, const unit_scales *s,
                            const dm_q8_block *x, size_t ldx) {
    vi exact[SIDE_BY_SIDE];
#pragma GCC unroll 4
    for (size_t t = 0; t < n; t++) {
        exact[t] = is_signed && SIGNED_SHIFT ? splat_i(x[t * ldx].shift) : (vi){0};
    }
    dots(exact, n, is_signed, w, x, ldx, 0);
    if (by_16) {
#pragma GCC unroll 4
        for (size_t t = 0; t < n; t++) {
            sums[t] = v_fma(__builtin_convertvector(exact[t], vf) * x[t * ldx].scale, s->scale[0], sums[t]);
            exact[t] = (vi){0};
        }
    }
    dots(exact, n, is_signed, w, x, ldx, 1);
#pragma GCC unroll 4
    for (size_t t = 0; t < n; t++) {
        const dm_q8_block *block = x + t * ldx;
        sums[t] = v_fma(__builtin_convertvector(exact[t], vf) * block->scale, s->scale[by_16 ? 1 : 0], sums[t]);
        if (by_16 && adds) {
            sums[t] = v_fma(splat(block->halves[0]), s->add[0], sums[t]);
            sums[t] = v_fma(splat(block->halves[1]), s->add[1], sums[t]);
        } else if (adds) {
            sums[t] = v_fma(splat(block->sum), s->add[0], sums[t]);
        }
    }
}

/* LANES rows from `lane` on, for `m` tokens: known when compiling, as are the first three. */
ALWAYS_INLINE void product_lanes(dm_panel_codes codes, dm_panel_scales scales, int offset, size_t m, float *y, size_t ldy,
                                 const dm_q8_block *x, size_t ldx, const uint8_t *panel, const uint8_t *ahead, size_t units,
                                 int lane) {
    const bool is_signed = codes == DM_CODES_8 || codes == DM_CODES_TABLE;
    const bool by_16 = scales == DM_SCALES_GROUPS_16 || scales == DM_SCALES_GROUPS_16_MIN;
    const bool adds = dm_panel_adds(scales, offset);
    const size_t unit_bytes = dm_panel_lines(codes) * DM_PANEL_LINE;
    const uint8_t *p = panel + units * unit_bytes;
    vf sums[MOST_TOKENS] = {{0}}, d = {0}, dmin = {0};
    for (size_t u = 0; u < units; u++) {
        if (dm_panel_super_scales(scales) > 0 && u % DM_PANEL_SUPER == 0) {
            d = halves_at(p, lane);
            dmin = dm_panel_super_scales(scales) > 32 ? halves_at(p + 32, lane) : (vf){0};
            p += dm_panel_super_scales(scales);
        }
        for (size_t line = 0; line < unit_bytes; line += DM_PANEL_LINE) {
            __builtin_prefetch(ahead + u * unit_bytes + line, 0, SECOND_LEVEL);
        }
        __builtin_prefetch(ahead + (p - panel), 0, SECOND_LEVEL);
        vu w[LINES];
        unpack(w, codes, panel + u * unit_bytes, lane);
        unit_scales s = read_scales(scales, offset, p, lane, d, dmin);
        p += dm_panel_unit_scales(scales);
#pragma GCC unroll 4
        for (size_t t = 0; t < m; t += SIDE_BY_SIDE) {
            size_t n = m - t < SIDE_BY_SIDE ? m - t : SIDE_BY_SIDE;
            add_unit(sums + t, n, is_signed, by_16, adds, w, &s, x + t * ldx + u, ldx);
        }
    }
#pragma GCC unroll 16
    for (size_t t = 0; t < m; t++) {
        memcpy(y + t * ldy + lane, &sums[t], sizeof sums[t]);
    }
}

/* The tokens of one turn, a number known when compiling. */
#define TURN(count)                                                                                                              \
    while (m >= (count)) {                                                                                                       \
        for (int lane = 0; lane < DM_PANEL_ROWS; lane += LANES) {                                                                \
            product_lanes(codes, scales, offset, count, y, ldy, x, ldx, panel, ahead, units, lane);                              \
        }                                                                                                                        \
        y += (count)*ldy;                                                                                                        \
        x += (count)*ldx;                                                                                                        \
        m -= (count);                                                                                                            \
        ahead = panel; /* it has been asked for */                                                                               \
    }

ALWAYS_INLINE void product(dm_panel_codes codes, dm_panel_scales scales, int offset, float *y, size_t ldy, const dm_q8_block *x,
                           size_t ldx, size_t m, const uint8_t *panel, const uint8_t *ahead, size_t units) {
#if MOST_TOKENS >= 16
    TURN(16)
#endif
#if MOST_TOKENS >= 8
    TURN(8)
#endif
    TURN(4)
    TURN(3)
    TURN(2)
    TURN(1)
}

#define DEFINE_PRODUCT(name, type, codes, scales, offset)                                                                        \
    static void product_##name(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const void *panel,              \
                               const void *ahead, size_t columns) {                                                              \
        product(codes, scales, offset, y, ldy, x, ldx, m, panel, ahead, columns / DM_PANEL_UNIT);                                \
    }
DM_PANEL_FORMATS(DEFINE_PRODUCT)

#include "kernels/mixed_impl.h"

#define TABLE_ENTRY(name, type, codes, scales, offset) product_##name,

const dm_quantized_table DM_TABLE = {DM_ISA, quantize, {DM_PANEL_FORMATS(TABLE_ENTRY)}, mixed};
