/*
 * A panel's units as vectors: codes unpacked to bytes, scales widened to
 * float32. The file that includes this defines
 *
 *   LANES                   4, 8 or 16 rows at a time
 *   v_fma(a, b, c)          a b + c, rounded once
 *   v_from_f16(halves)      halves to floats
 *   v_from_u8(p), v_from_i8(p)  LANES bytes at p to int32
 *   v_signed(w)             signed codes as the products want them
 *   v_table(p)              16 bytes at p for each 16 bytes of a vector
 *   v_look(table, w)        of such a table those that bytes 0 .. 15 name
 */
#include <string.h>

#include "kernels/block_layouts.h"
#include "kernels/panels.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { LINES = DM_PANEL_UNIT / 4 };

ALWAYS_INLINE vf splat(float x) {
    return x - (vf){0};
}

ALWAYS_INLINE vi splat_i(int32_t x) {
    return x - (vi){0};
}

/* ---- Codes and scales of one unit ---- */

ALWAYS_INLINE vu load_line(const uint8_t *codes, int line, int lane) {
    vu v;
    memcpy(&v, codes + line * DM_PANEL_LINE + lane * 4, sizeof v);
    return v;
}

/* w[g] = the codes of columns 4 g .. 4 g + 3 */
ALWAYS_INLINE void unpack(vu w[LINES], dm_panel_codes kind, const uint8_t *codes, int lane) {
    if (kind == DM_CODES_8) {
#pragma GCC unroll 8
        for (int g = 0; g < LINES; g++) {
            w[g] = v_signed(load_line(codes, g, lane));
        }
        return;
    }
    if (kind == DM_CODES_2 || kind == DM_CODES_3) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            vu v = load_line(codes, h, lane);
            w[h] = v & 0x03030303;
            w[h + 2] = v >> 2 & 0x03030303;
            w[h + 4] = v >> 4 & 0x03030303;
            w[h + 6] = v >> 6 & 0x03030303;
        }
    } else {
#pragma GCC unroll 4
        for (int h = 0; h < 4; h++) {
            vu v = load_line(codes, h, lane);
            w[h] = v & 0x0f0f0f0f;
            w[h + 4] = v >> 4 & 0x0f0f0f0f;
        }
    }
    if (kind == DM_CODES_TABLE) {
#pragma GCC unroll 8
        for (int g = 0; g < LINES; g++) {
            w[g] = v_look(v_signed(v_table(dm_iq4_values)), w[g]);
        }
    }
    if (kind == DM_CODES_3) {
        vu v = load_line(codes, 2, lane);
#pragma GCC unroll 8
        for (int g = 0; g < LINES; g++) {
            w[g] |= (g < 2 ? v << (2 - g) : v >> (g - 2)) & 0x04040404;
        }
    }
    if (kind == DM_CODES_5) {
        vu v = load_line(codes, 4, lane);
#pragma GCC unroll 8
        for (int g = 0; g < LINES; g++) {
            w[g] |= (g < 4 ? v << (4 - g) : v >> (g - 4)) & 0x10101010;
        }
    }
    if (kind == DM_CODES_6) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            vu v = load_line(codes, 4 + h, lane);
            w[h] |= v << 4 & 0x30303030;
            w[h + 2] |= v << 2 & 0x30303030;
            w[h + 4] |= v & 0x30303030;
            w[h + 6] |= v >> 2 & 0x30303030;
        }
    }
}

ALWAYS_INLINE vf halves_at(const uint8_t *p, int lane) {
    vh h;
    memcpy(&h, p + 2 * lane, sizeof h);
    return v_from_f16(h);
}

ALWAYS_INLINE vf unsigned_at(const uint8_t *p, int lane) {
    return __builtin_convertvector(v_from_u8(p + lane), vf);
}

ALWAYS_INLINE vf signed_at(const uint8_t *p, int lane) {
    return __builtin_convertvector(v_from_i8(p + lane), vf);
}

/* What a unit's products are multiplied with, and what its sums of activations are; one of each for 32 columns, or two. */
typedef struct unit_scales {
    vf scale[2], add[2];
} unit_scales;

ALWAYS_INLINE unit_scales read_scales(dm_panel_scales kind, int offset, const uint8_t *p, int lane, vf d, vf dmin) {
    unit_scales s = {{{0}}, {{0}}};
    switch (kind) {
    case DM_SCALES_PLAIN:
        s.scale[0] = halves_at(p, lane);
        break;
    case DM_SCALES_MIN:
        s.scale[0] = halves_at(p, lane);
        s.add[0] = halves_at(p + 32, lane);
        break;
    case DM_SCALES_GROUPS_32:
        s.scale[0] = d * signed_at(p, lane);
        break;
    case DM_SCALES_GROUPS_32_MIN:
        s.scale[0] = d * unsigned_at(p, lane);
        s.add[0] = -dmin * unsigned_at(p + 16, lane);
        break;
    case DM_SCALES_GROUPS_16:
        s.scale[0] = d * signed_at(p, lane);
        s.scale[1] = d * signed_at(p + 16, lane);
        break;
    case DM_SCALES_GROUPS_16_MIN:
        for (int j = 0; j < 2; j++) {
            vi both = v_from_u8(p + 16 * j + lane);
            s.scale[j] = d * __builtin_convertvector(both & 15, vf);
            s.add[j] = -dmin * __builtin_convertvector(both >> 4, vf);
        }
        break;
    }
    if (offset != 0) {
        s.add[0] = (float)-offset * s.scale[0];
        s.add[1] = (float)-offset * s.scale[1];
    }
    return s;
}
