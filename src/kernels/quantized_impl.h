/*
 * Products with panels, written once. Each instruction set's file defines what
 * vector types cannot express, then includes this file, which defines the table:
 * all that quantized_units.h asks for, and
 *
 *   MOST_TOKENS             rows of x that share what was unpacked: a power of 2
 *   DM_TABLE, DM_ISA        name of the table, and of the instruction set
 *   v_dot(acc, w, x)        acc + 4 products a lane, w codes 0 .. 127 (or 0 .. 255 after v_signed), x int8
 *   v_dot_signed(acc, w, x) the same for codes that went through v_signed
 *   SIGNED_SHIFT            1 where v_signed adds 128
 *   v_store_i8(p, a)        int32 of -128 .. 127 to LANES bytes at p
 */
#include "kernels/quantized_tables.h"
#include "kernels/quantized_units.h"

/* ---- Rounding activations ---- */

ALWAYS_INLINE void quantize_block(dm_q8_block *out, const float *x) {
    enum { VECTORS = DM_PANEL_UNIT / LANES };
    const vf magic = splat(0x1.8p23f); /* adding it leaves the nearest integer, ties to even, in the low bits */
    vf v[VECTORS], nothing = {0};
    vi largest = {0}; /* magnitudes order as integers do */
    for (int i = 0; i < VECTORS; i++) {
        memcpy(&v[i], x + i * LANES, sizeof v[i]);
        vi magnitude = (vi)v[i] & 0x7fffffff;
        vi rises = magnitude > largest;
        largest = (rises & magnitude) | (~rises & largest);
        nothing += v[i] * 0.0f; /* NaN as soon as one is not finite */
    }
    float peak = 0.0f, poison = 0.0f;
    for (int j = 0; j < LANES; j++) {
        float candidate = ((vf)largest)[j];
        peak = candidate > peak ? candidate : peak;
        poison += nothing[j];
    }
    float inverse = peak > 0x1p-100f ? 127.0f / peak : 0.0f;
    int32_t sums[2] = {0, 0};
    for (int i = 0; i < VECTORS; i++) {
        vi q = (vi)(v[i] * inverse + magic) - (vi)magic;
        q &= poison == 0.0f ? -1 : 0;
        v_store_i8(out->q + i * LANES, q);
        for (int j = 0; j < LANES; j++) {
            sums[i * LANES / 16] += q[j];
        }
    }
    out->scale = inverse > 0.0f ? peak / 127.0f + poison : poison;
    out->halves[0] = out->scale * (float)sums[0];
    out->halves[1] = out->scale * (float)sums[1];
    out->sum = out->scale * (float)(sums[0] + sums[1]);
    out->shift = -128 * (sums[0] + sums[1]);
}

static void quantize(dm_q8_block *out, const float *x, size_t n) {
    for (size_t i = 0; i < n / DM_PANEL_UNIT; i++) {
        quantize_block(out + i, x + i * DM_PANEL_UNIT);
    }
}

/* ---- The product ---- */

ALWAYS_INLINE vi dots(vi sum, bool is_signed, const vu *w, const int8_t *q) {
#pragma GCC unroll 4
    for (int g = 0; g < LINES / 2; g++) {
        int32_t four;
        memcpy(&four, q + 4 * g, sizeof four);
        sum = is_signed ? v_dot_signed(sum, w[g], splat_i(four)) : v_dot(sum, w[g], splat_i(four));
    }
    return sum;
}

/* LANES rows from `lane` on, for `m` tokens: known when compiling, as are the first three. */
ALWAYS_INLINE void product_lanes(dm_panel_codes codes, dm_panel_scales scales, int offset, size_t m, float *y, size_t ldy,
                                 const dm_q8_block *x, size_t ldx, const uint8_t *panel, size_t units, int lane) {
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
        vu w[LINES];
        unpack(w, codes, panel + u * unit_bytes, lane);
        unit_scales s = read_scales(scales, offset, p, lane, d, dmin);
        p += dm_panel_unit_scales(scales);
#pragma GCC unroll 8
        for (size_t t = 0; t < m; t++) {
            const dm_q8_block *block = x + t * ldx + u;
            vi low = dots(is_signed && SIGNED_SHIFT ? splat_i(block->shift) : (vi){0}, is_signed, w, block->q);
            vi high = dots((vi){0}, is_signed, w + LINES / 2, block->q + 16);
            if (by_16) {
                sums[t] = v_fma(__builtin_convertvector(low, vf) * block->scale, s.scale[0], sums[t]);
                sums[t] = v_fma(__builtin_convertvector(high, vf) * block->scale, s.scale[1], sums[t]);
                sums[t] = v_fma(splat(block->halves[0]), s.add[0], sums[t]);
                sums[t] = v_fma(splat(block->halves[1]), s.add[1], sums[t]);
            } else {
                sums[t] = v_fma(__builtin_convertvector(low + high, vf) * block->scale, s.scale[0], sums[t]);
                sums[t] = adds ? v_fma(splat(block->sum), s.add[0], sums[t]) : sums[t];
            }
        }
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < m; t++) {
        memcpy(y + t * ldy + lane, &sums[t], sizeof sums[t]);
    }
}

/* The tokens of one turn, a number known when compiling. */
#define TURN(count)                                                                                                              \
    while (m >= (count)) {                                                                                                       \
        for (int lane = 0; lane < DM_PANEL_ROWS; lane += LANES) {                                                                \
            product_lanes(codes, scales, offset, count, y, ldy, x, ldx, panel, units, lane);                                     \
        }                                                                                                                        \
        y += (count)*ldy;                                                                                                        \
        x += (count)*ldx;                                                                                                        \
        m -= (count);                                                                                                            \
    }

ALWAYS_INLINE void product(dm_panel_codes codes, dm_panel_scales scales, int offset, float *y, size_t ldy, const dm_q8_block *x,
                           size_t ldx, size_t m, const uint8_t *panel, size_t units) {
#if MOST_TOKENS >= 8
    TURN(8)
#endif
    TURN(4)
    TURN(2)
    TURN(1)
}

#define DEFINE_PRODUCT(name, type, codes, scales, offset)                                                                        \
    static void product_##name(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const void *panel,              \
                               size_t columns) {                                                                                 \
        product(codes, scales, offset, y, ldy, x, ldx, m, panel, columns / DM_PANEL_UNIT);                                       \
    }
DM_PANEL_FORMATS(DEFINE_PRODUCT)

#define TABLE_ENTRY(name, type, codes, scales, offset) product_##name,

const dm_quantized_table DM_TABLE = {DM_ISA, quantize, {DM_PANEL_FORMATS(TABLE_ENTRY)}};
