/* Weights become tiles of the right operand 16 rows at a time: a panel's unit is just such a tile once its codes are widened. */
#include "kernels/tiles.h"

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"
#include "kernels/processor.h"

#define LANES 16
#include "kernels/vector_types.h"

/* Signed codes are taken as unsigned, 128 more. */
#define v_fma(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define v_from_f16(halves) ((vf)_mm512_cvtph_ps((__m256i)(halves)))
#define v_from_u8(p) ((vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define v_from_i8(p) ((vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define v_signed(w) ((w) ^ 0x80808080)
#define v_lookup(w)                                                                                                              \
    ((vu)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)dm_iq4_values)), (__m512i)(w)))

#include "kernels/quantized_units.h"

enum { UNITS_TOGETHER = 16 }; /* of two rows of tiles, 32 KB: they stay in the first-level cache while all tokens meet them */

_Static_assert((int)SIDE == DM_TILE_ROWS && (int)DEPTH == DM_TILE_COLUMNS && 2 * (int)SIDE == DM_TILES_TOGETHER, "one geometry");
_Static_assert((int)SIDE == DM_PANEL_ROWS && (int)DEPTH == DM_PANEL_UNIT, "a unit of a panel is a tile");
_Static_assert(UNITS_TOGETHER % DM_PANEL_SUPER == 0, "super-blocks stay whole");

bool dm_tiles(void) {
    const dm_processor *processor = dm_processor_features();
    return processor->amx_bf16 && processor->avx512_bf16;
}

bool dm_tiles_take(const dm_weight *weight) {
    return weight->panels != NULL || weight->type == DM_TYPE_F16 || weight->type == DM_TYPE_BF16;
}

size_t dm_tiles_units(size_t columns) {
    return (columns + DEPTH - 1) / DEPTH;
}

size_t dm_tiles_bytes(size_t m, size_t columns) {
    return (m + SIDE - 1) / SIDE * dm_tiles_units(columns) * TILE_BYTES;
}

size_t dm_tiles_scratch(void) {
    return (size_t)2 * UNITS_TOGETHER * TILE_BYTES;
}

/* ---- Activations ---- */

/* Columns `column` .. + 31 of one row, rounded. */
static inline __m512i load_floats(const float *x, size_t column, size_t columns) {
    size_t left = columns - column;
    __m512 low = _mm512_maskz_loadu_ps(first_lanes(left), x + column);
    __m512 high = _mm512_maskz_loadu_ps(first_lanes(left > SIDE ? left - SIDE : 0), x + column + SIDE);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

void dm_tiles_pack(void *out, size_t units, const float *x, size_t ldx, const int32_t *rows, size_t m, size_t columns) {
    for (size_t i = 0; i < (m + SIDE - 1) / SIDE * SIDE; i++) {
        uint8_t *line = (uint8_t *)out + i / SIDE * units * TILE_BYTES + i % SIDE * 64;
        size_t row = rows != NULL && i < m ? (size_t)rows[i] : i;
        for (size_t u = 0; u < dm_tiles_units(columns); u++) {
            __m512i v = i < m ? load_floats(x + row * ldx, u * DEPTH, columns) : _mm512_setzero_si512();
            _mm512_store_si512(line + u * TILE_BYTES, v);
        }
    }
}

/* ---- Weights from panels ---- */

/* scale q + add for the codes q in byte j of each lane: with the exponent of 256 above it, a code is the float 256 + q. `add`
 * makes up for that. */
ALWAYS_INLINE vu column(vu w, int j, vf scale, vf add) {
    const __m512i mask = _mm512_set1_epi32(0xff << 15), exponent = _mm512_set1_epi32(0x43800000);
    vu at = j == 0 ? w << 15 : j == 1 ? w << 7 : j == 2 ? w >> 1 : w >> 9;
    __m512i bits = _mm512_ternarylogic_epi32((__m512i)at, mask, exponent, 0xea); /* at & mask | exponent */
    return (vu)v_fma(scale, (vf)bits, add);
}

/* Two vectors of floats as pairs of bfloat16, rounded to nearest. */
ALWAYS_INLINE __m512i pairs(vu even, vu odd) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    even = (even + 0x8000) >> 16;
    odd += 0x8000;
    return _mm512_ternarylogic_epi32((__m512i)odd, upper, (__m512i)even, 0xea);
}

/* One unit as a tile. */
ALWAYS_INLINE void widen_unit(uint8_t *tile, dm_panel_codes codes, dm_panel_scales scales, const uint8_t *unit,
                              const unit_scales *s) {
    const bool by_16 = scales == DM_SCALES_GROUPS_16 || scales == DM_SCALES_GROUPS_16_MIN;
    const float excess = codes == DM_CODES_8 || codes == DM_CODES_TABLE ? 256.0f + 128.0f : 256.0f;
    vu w[LINES];
    unpack(w, codes, unit, 0);
#pragma GCC unroll 8
    for (int g = 0; g < LINES; g++) {
        const int half = by_16 ? g / (LINES / 2) : 0;
        vf scale = s->scale[half], add = s->add[half] - excess * scale;
        __m512i first = pairs(column(w[g], 0, scale, add), column(w[g], 1, scale, add));
        __m512i second = pairs(column(w[g], 2, scale, add), column(w[g], 3, scale, add));
        _mm512_store_si512(tile + (size_t)g * 128, first);
        _mm512_store_si512(tile + (size_t)g * 128 + 64, second);
    }
}

/* Units first .. first + n - 1 of a panel of `units` as tiles; `first` is a multiple of 8. */
ALWAYS_INLINE void widen_panel(uint8_t *out, dm_panel_codes codes, dm_panel_scales scales, int offset, const uint8_t *panel,
                               size_t units, size_t first, size_t n) {
    const size_t unit_bytes = dm_panel_lines(codes) * DM_PANEL_LINE;
    const size_t unit_scales_bytes = dm_panel_unit_scales(scales), super = dm_panel_super_scales(scales);
    const uint8_t *p = panel + units * unit_bytes + first * unit_scales_bytes + first / DM_PANEL_SUPER * super;
    vf d = {0}, dmin = {0};
    for (size_t u = first; u < first + n; u++, out += TILE_BYTES) {
        if (super > 0 && u % DM_PANEL_SUPER == 0) {
            d = halves_at(p, 0);
            dmin = super > 32 ? halves_at(p + 32, 0) : (vf){0};
            p += super;
        }
        unit_scales s = read_scales(scales, offset, p, 0, d, dmin);
        p += unit_scales_bytes;
        widen_unit(out, codes, scales, panel + u * unit_bytes, &s);
    }
}

typedef void (*widen_fn)(uint8_t *out, const uint8_t *panel, size_t units, size_t first, size_t n);

#define DEFINE_WIDEN(name, type, codes, scales, offset)                                                                          \
    static void widen_##name(uint8_t *out, const uint8_t *panel, size_t units, size_t first, size_t n) {                         \
        widen_panel(out, codes, scales, offset, panel, units, first, n);                                                         \
    }
DM_PANEL_FORMATS(DEFINE_WIDEN)

#define WIDEN_ENTRY(name, type, codes, scales, offset) widen_##name,

static const widen_fn widen_of[DM_PANEL_COUNT] = {DM_PANEL_FORMATS(WIDEN_ENTRY)};

/* ---- Weights of 16 bits ---- */

/* Columns `column` .. + 31 of a row, rounded. */
static inline __m512i load_halves(const uint8_t *row, dm_type type, size_t column, size_t columns) {
    size_t left = columns - column;
    __mmask32 mask = left >= DEPTH ? 0xffffffff : (__mmask32)((1u << left) - 1);
    __m512i halves = _mm512_maskz_loadu_epi16(mask, row + 2 * column);
    if (type == DM_TYPE_BF16) {
        return halves;
    }
    __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves)), high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Rows row .. row + 15, of which `there` are there. */
static void widen_halves(uint8_t *out, const dm_weight *weight, size_t row, size_t there, size_t first, size_t n) {
    size_t bytes = dm_type_bytes(weight->type, weight->columns);
    const uint8_t *from = (const uint8_t *)weight->data + row * bytes;
    for (size_t u = first; u < first + n; u++, out += TILE_BYTES) {
        __m512i r[SIDE];
        for (size_t i = 0; i < SIDE; i++) {
            r[i] = i < there ? load_halves(from + i * bytes, weight->type, u * DEPTH, weight->columns) : _mm512_setzero_si512();
        }
        transpose_words(r);
        store_tile(out, r);
    }
}

/* ---- The product ---- */

/* Tiles of rows row .. row + 15, zeros where the matrix ends. */
static void widen(uint8_t *out, const dm_weight *weight, size_t row, size_t first, size_t n) {
    if (row >= weight->rows) {
        memset(out, 0, n * TILE_BYTES);
    } else if (weight->panels != NULL) {
        const dm_panel_format *format = dm_panel_format_of(weight->type);
        const uint8_t *panel =
            (const uint8_t *)weight->panels + row / DM_PANEL_ROWS * dm_panel_bytes(format, weight->columns);
        widen_of[format - dm_panel_format_at(0)](out, panel, weight->columns / DM_PANEL_UNIT, first, n);
    } else {
        widen_halves(out, weight, row, weight->rows - row < SIDE ? weight->rows - row : SIDE, first, n);
    }
}

void dm_tiles_product(float *sums, const void *x, size_t m, const dm_weight *weight, size_t row, void *scratch) {
    uint8_t *b = scratch;
    size_t units = dm_tiles_units(weight->columns), step = units * TILE_BYTES;
    _tile_loadconfig(&full_tiles);
    for (size_t first = 0; first < units; first += UNITS_TOGETHER) {
        size_t n = units - first < UNITS_TOGETHER ? units - first : UNITS_TOGETHER;
        widen(b, weight, row, first, n);
        widen(b + n * TILE_BYTES, weight, row + SIDE, first, n);
        for (size_t t = 0; t < m; t += 2 * SIDE) {
            const uint8_t *a = (const uint8_t *)x + t / SIDE * step + first * TILE_BYTES;
            float *c = sums + t * DM_TILES_TOGETHER;
            if (m - t > SIDE) {
                multiply_32x32(c, DM_TILES_TOGETHER, a, step, b, n, first > 0);
            } else {
                multiply_16x32(c, DM_TILES_TOGETHER, a, step, b, n, first > 0);
            }
        }
    }
    _tile_release();
}
#else
bool dm_tiles(void) {
    return false;
}

bool dm_tiles_take(const dm_weight *weight) {
    (void)weight;
    return false;
}

size_t dm_tiles_units(size_t columns) {
    (void)columns;
    return 0;
}

size_t dm_tiles_bytes(size_t m, size_t columns) {
    (void)m;
    (void)columns;
    return 0;
}

void dm_tiles_pack(void *out, size_t units, const float *x, size_t ldx, const int32_t *rows, size_t m, size_t columns) {
    (void)out, (void)units, (void)x, (void)ldx, (void)rows, (void)m, (void)columns;
}

size_t dm_tiles_scratch(void) {
    return 0;
}

void dm_tiles_product(float *sums, const void *x, size_t m, const dm_weight *weight, size_t row, void *scratch) {
    (void)sums, (void)x, (void)m, (void)weight, (void)row, (void)scratch;
}
#endif
