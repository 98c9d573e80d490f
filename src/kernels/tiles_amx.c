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
#define v_table(p) ((vu)_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(p))))
#define v_look(table, w) ((vu)_mm512_shuffle_epi8((__m512i)(table), (__m512i)(w)))

#include "kernels/quantized_units.h"

/* Of two rows of tiles, 16 KB, and as much of activations: they fit the first-level cache */
enum { UNITS_TOGETHER = DM_PANEL_SUPER };

_Static_assert((int)SIDE == DM_TILE_ROWS && (int)DEPTH == DM_TILE_COLUMNS && 2 * (int)SIDE == DM_TILES_TOGETHER, "one geometry");
_Static_assert((int)SIDE == DM_PANEL_ROWS && (int)DEPTH == DM_PANEL_UNIT, "a unit of a panel is a tile");

bool dm_tiles(void) {
    const dm_processor *processor = dm_processor_features();
    return processor->amx_bf16 && processor->avx512_bf16;
}

bool dm_tiles_take(const dm_weight *weight) {
    return (weight->panels != NULL && weight->type != DM_TYPE_MIXED) || weight->type == DM_TYPE_F16 ||
           weight->type == DM_TYPE_BF16;
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

/* ---- Weights of 16 bits ---- */

/* Columns `column` .. + 31 of a row, rounded. */
static inline __m512i load_halves(const uint8_t *row, bool is_bf16, size_t column, size_t columns) {
    size_t left = columns - column;
    __mmask32 mask = left >= DEPTH ? 0xffffffff : (__mmask32)((1u << left) - 1);
    __m512i halves = _mm512_maskz_loadu_epi16(mask, row + 2 * column);
    if (is_bf16) {
        return halves;
    }
    __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves)), high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Unit u of `there` rows as a tile. */
ALWAYS_INLINE void widen_halves(uint8_t *tile, bool is_bf16, const uint8_t *rows, size_t there, size_t columns, size_t u) {
    __m512i r[SIDE];
    for (size_t i = 0; i < SIDE; i++) {
        r[i] = i < there ? load_halves(rows + i * 2 * columns, is_bf16, u * DEPTH, columns) : _mm512_setzero_si512();
    }
    transpose_words(r);
    store_tile(tile, r);
}

/* ---- Products ---- */

/* 32 rows of weights, and where their tiles go while all tokens meet them. */
typedef struct weights {
    const uint8_t *rows[2]; /* panels, or rows of 16-bit weights, 16 each; where the second ones lie past the end the first */
    size_t there[2];        /* rows of the matrix among them */
    size_t columns;
    uint8_t *tiles; /* [2][UNITS_TOGETHER] */
} weights;

/* Sums 0 .. 3, of 32 tokens, += unit u's products, or 0 and 1 of 16 tokens; tiles of a, of up to 2 rows of tiles. */
ALWAYS_INLINE void multiply_unit(const uint8_t *b, const uint8_t *a, size_t step, bool two, size_t u) {
    a += u * TILE_BYTES;
    b += u * TILE_BYTES;
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + (size_t)UNITS_TOGETHER * TILE_BYTES, 64);
    _tile_dpbf16ps(1, 4, 7);
    if (two) {
        _tile_loadd(5, a + step, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

/* Widens units first .. first + n - 1 and multiplies them with the first tokens at once: the tiles' unit works on one unit
 * while the vectors' units widen the next. */
ALWAYS_INLINE void widen_units(dm_panel_codes codes, dm_panel_scales scales, int offset, const weights *w, size_t first, size_t n,
                               const uint8_t *a, size_t step, bool two) {
    const size_t unit_bytes = dm_panel_lines(codes) * DM_PANEL_LINE, units = w->columns / DM_PANEL_UNIT;
    const size_t scale_bytes = dm_panel_unit_scales(scales), super = dm_panel_super_scales(scales);
    const size_t at = units * unit_bytes + first * scale_bytes + first / DM_PANEL_SUPER * super;
    vf d[2] = {{0}, {0}}, dmin[2] = {{0}, {0}};
    for (int i = 0; i < 2 && super > 0; i++) {
        d[i] = halves_at(w->rows[i] + at, 0);
        dmin[i] = super > 32 ? halves_at(w->rows[i] + at + 32, 0) : (vf){0};
    }
    for (size_t u = 0; u < n; u++) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            unit_scales s = read_scales(scales, offset, w->rows[i] + at + super + u * scale_bytes, 0, d[i], dmin[i]);
            uint8_t *tile = w->tiles + ((size_t)i * UNITS_TOGETHER + u) * TILE_BYTES;
            widen_unit(tile, codes, scales, w->rows[i] + (first + u) * unit_bytes, &s);
        }
        if (u > 0) {
            multiply_unit(w->tiles, a, step, two, u - 1);
        }
    }
    multiply_unit(w->tiles, a, step, two, n - 1);
}

/* The same from weights of 16 bits. */
ALWAYS_INLINE void widen_16_bits(bool is_bf16, const weights *w, size_t first, size_t n, const uint8_t *a, size_t step,
                                 bool two) {
    for (size_t u = 0; u < n; u++) {
        widen_halves(w->tiles + u * TILE_BYTES, is_bf16, w->rows[0], w->there[0], w->columns, first + u);
        widen_halves(w->tiles + (UNITS_TOGETHER + u) * TILE_BYTES, is_bf16, w->rows[1], w->there[1], w->columns, first + u);
        if (u > 0) {
            multiply_unit(w->tiles, a, step, two, u - 1);
        }
    }
    multiply_unit(w->tiles, a, step, two, n - 1);
}

typedef void (*widen_fn)(const weights *w, size_t first, size_t n, const uint8_t *a, size_t step, bool two);

#define DEFINE_WIDEN(name, type, codes, scales, offset)                                                                          \
    static void widen_##name(const weights *w, size_t first, size_t n, const uint8_t *a, size_t step, bool two) {                \
        widen_units(codes, scales, offset, w, first, n, a, step, two);                                                           \
    }
DM_PANEL_FORMATS(DEFINE_WIDEN)

static void widen_f16(const weights *w, size_t first, size_t n, const uint8_t *a, size_t step, bool two) {
    widen_16_bits(false, w, first, n, a, step, two);
}

static void widen_bf16(const weights *w, size_t first, size_t n, const uint8_t *a, size_t step, bool two) {
    widen_16_bits(true, w, first, n, a, step, two);
}

#define WIDEN_ENTRY(name, type, codes, scales, offset) widen_##name,

static widen_fn widen_of(const dm_weight *weight) {
    static const widen_fn of_panels[DM_PANEL_COUNT] = {DM_PANEL_FORMATS(WIDEN_ENTRY)};
    if (weight->panels != NULL) {
        return of_panels[dm_panel_format_of(weight->type) - dm_panel_format_at(0)];
    }
    return weight->type == DM_TYPE_BF16 ? widen_bf16 : widen_f16;
}

static weights rows_of(const dm_weight *weight, size_t row, uint8_t *tiles) {
    bool packed = weight->panels != NULL;
    size_t bytes =
        packed ? dm_panel_bytes(dm_panel_format_of(weight->type), weight->columns) / DM_PANEL_ROWS : 2 * weight->columns;
    const uint8_t *from = (const uint8_t *)(packed ? weight->panels : weight->data) + row * bytes;
    size_t left = weight->rows - row;
    bool second = left > SIDE;
    weights w = {{from, second ? from + SIDE * bytes : from}, {left < SIDE ? left : SIDE, 0}, weight->columns, tiles};
    w.there[1] = !second ? w.there[0] : left < 2 * SIDE ? left - SIDE : SIDE;
    return w;
}

static void load_sums(const float *c, bool two, bool fresh) {
    const size_t stride = DM_TILES_TOGETHER * sizeof *c;
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + SIDE, stride);
        if (two) {
            _tile_loadd(2, c + (size_t)SIDE * DM_TILES_TOGETHER, stride);
            _tile_loadd(3, c + (size_t)SIDE * DM_TILES_TOGETHER + SIDE, stride);
        }
    }
}

static void store_sums(float *c, bool two) {
    const size_t stride = DM_TILES_TOGETHER * sizeof *c;
    _tile_stored(0, c, stride);
    _tile_stored(1, c + SIDE, stride);
    if (two) {
        _tile_stored(2, c + (size_t)SIDE * DM_TILES_TOGETHER, stride);
        _tile_stored(3, c + (size_t)SIDE * DM_TILES_TOGETHER + SIDE, stride);
    }
}

size_t dm_tiles_groups(const dm_weight *weight, size_t m, int threads) {
    enum { NEAR = 1 << 20 }; /* bytes of activations that every group finds in the second-level cache again */
    if (dm_tiles_bytes(m, weight->columns) <= NEAR) {
        return 1;
    }
    size_t groups = (weight->rows + DM_TILES_TOGETHER - 1) / DM_TILES_TOGETHER, most = DM_TILES_MOST_GROUPS * (size_t)threads;
    size_t tasks = (groups + most - 1) / most * (size_t)threads; /* as many for each thread */
    return (groups + tasks - 1) / tasks;
}

float *dm_tiles_sums_of(float *sums, size_t m, size_t group) {
    return sums + group * ((m + SIDE - 1) / SIDE * SIDE * DM_TILES_TOGETHER);
}

/* Sums of all m tokens += units first .. first + n - 1 of 32 rows of weights. */
static void multiply_units(float *sums, const uint8_t *x, size_t step, size_t m, widen_fn widen, const weights *w, size_t first,
                           size_t n) {
    for (size_t t = 0; t < m; t += 2 * SIDE) {
        const uint8_t *a = x + t / SIDE * step + first * TILE_BYTES;
        float *c = sums + t * DM_TILES_TOGETHER;
        bool two = m - t > SIDE;
        load_sums(c, two, first == 0);
        if (t == 0) {
            widen(w, first, n, a, step, two);
        } else {
            for (size_t u = 0; u < n; u++) {
                multiply_unit(w->tiles, a, step, two, u);
            }
        }
        store_sums(c, two);
    }
}

void dm_tiles_product(float *sums, const void *x, size_t m, const dm_weight *weight, size_t row, size_t groups, void *scratch) {
    const widen_fn widen = widen_of(weight);
    const size_t units = dm_tiles_units(weight->columns), step = units * TILE_BYTES;
    _tile_loadconfig(&full_tiles);
    for (size_t first = 0; first < units; first += UNITS_TOGETHER) {
        size_t n = units - first < UNITS_TOGETHER ? units - first : UNITS_TOGETHER;
        for (size_t g = 0; g < groups; g++) { /* these columns of x, whatever its size, stay in the second-level cache */
            const weights w = rows_of(weight, row + g * DM_TILES_TOGETHER, scratch);
            multiply_units(dm_tiles_sums_of(sums, m, g), x, step, m, widen, &w, first, n);
        }
    }
    _tile_release();
}

void dm_tiles_put(float *y, size_t ldy, const float *sums, size_t m, size_t n, const float *bias) {
    const __mmask16 low = first_lanes(n), high = first_lanes(n > SIDE ? n - SIDE : 0);
    const __m512 zero = _mm512_setzero_ps();
    const __m512 add[2] = {bias != NULL ? _mm512_maskz_loadu_ps(low, bias) : zero,
                           bias != NULL ? _mm512_maskz_loadu_ps(high, bias + SIDE) : zero};
    for (size_t t = 0; t < m; t++, sums += DM_TILES_TOGETHER, y += ldy) {
        _mm512_mask_storeu_ps(y, low, _mm512_add_ps(_mm512_load_ps(sums), add[0]));
        _mm512_mask_storeu_ps(y + SIDE, high, _mm512_add_ps(_mm512_load_ps(sums + SIDE), add[1]));
    }
}

void dm_tiles_add(float *y, size_t ldy, const float *sums, const int32_t *rows, const float *factors, size_t m, size_t n) {
    const __mmask16 low = first_lanes(n), high = first_lanes(n > SIDE ? n - SIDE : 0);
    for (size_t t = 0; t < m; t++, sums += DM_TILES_TOGETHER) {
        const __m512 weight = _mm512_set1_ps(factors[t]);
        float *to = y + (size_t)rows[t] * ldy;
        __m512 left = _mm512_fmadd_ps(weight, _mm512_load_ps(sums), _mm512_maskz_loadu_ps(low, to));
        __m512 right = _mm512_fmadd_ps(weight, _mm512_load_ps(sums + SIDE), _mm512_maskz_loadu_ps(high, to + SIDE));
        _mm512_mask_storeu_ps(to, low, left);
        _mm512_mask_storeu_ps(to + SIDE, high, right);
    }
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

void dm_tiles_product(float *sums, const void *x, size_t m, const dm_weight *weight, size_t row, size_t groups, void *scratch) {
    (void)sums, (void)x, (void)m, (void)weight, (void)row, (void)groups, (void)scratch;
}

size_t dm_tiles_groups(const dm_weight *weight, size_t m, int threads) {
    (void)weight, (void)m, (void)threads;
    return 1;
}

float *dm_tiles_sums_of(float *sums, size_t m, size_t group) {
    (void)m, (void)group;
    return sums;
}

void dm_tiles_put(float *y, size_t ldy, const float *sums, size_t m, size_t n, const float *bias) {
    (void)y, (void)ldy, (void)sums, (void)m, (void)n, (void)bias;
}

void dm_tiles_add(float *y, size_t ldy, const float *sums, const int32_t *rows, const float *factors, size_t m, size_t n) {
    (void)y, (void)ldy, (void)sums, (void)rows, (void)factors, (void)m, (void)n;
}
#endif
