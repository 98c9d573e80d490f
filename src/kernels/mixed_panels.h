/*
 * Matrices of mixed-width panels: quantized weights whose width in bits changes from tile to tile, computed with as they lie
 * in a file. docs/format.md describes the bytes; in short:
 *
 * A panel is 16 rows, the last one filled up with zeros. Columns come in units of 32; a TILE is one unit of a panel, 16 x 32
 * weights of one width: 0 (pruned: no bytes, no work), 2, 3, 4, 5, 6 or 8 bits. Tiles of a panel are grouped by width, the
 * narrowest first, and ascend in column inside a group, so that each width is one loop without branches.
 *
 *   x = row scale (half) * tile scale (int8) * level      the product of the first two is exact in float32
 *
 * Levels are whole numbers, -128 .. 127: those of 2, 3 and 4 bits are tables that the matrix carries, those of 5, 6 and 8 bits
 * are code - 16, code - 32 and the code itself as a signed byte.
 *
 * A matrix, aligned to DM_MIXED_ALIGNMENT:
 *   dm_mixed_header
 *   dm_mixed_entry  [panels]        where each panel lies and how many tiles of each width it has
 *   uint16          [tiles]         the units of those tiles, panel after panel, in their order
 *   zeros up to the next multiple of 64
 *   panels, each beginning at a multiple of 64:
 *     half          [16]            scales of the rows
 *     int8          [tiles][16]     scales of the tiles' rows
 *     zeros up to the next multiple of 64
 *     codes         [tiles][lines of the width][16 rows][4 columns], the bit planes of panels.h
 *
 * All numbers are little-endian. A tensor of a file is such a matrix, or one for each expert one after another.
 */
#ifndef DM_KERNELS_MIXED_PANELS_H
#define DM_KERNELS_MIXED_PANELS_H

#include "kernels/panels.h"

enum {
    DM_MIXED_ALIGNMENT = 64,
    DM_MIXED_VERSION = 1,
    DM_MIXED_WIDTHS = 6, /* that have bytes */
    DM_MIXED_MOST_BITS = 8,
    DM_MIXED_TABLES = 3, /* widths whose levels are tables: the first ones */
    DM_MIXED_MOST_UNITS = 1 << 16,
};

#define DM_MIXED_MAGIC "DMXW"

/* The levels of codes 0, 1, ... of 4, 3 and 2 bits, in any order. */
typedef struct dm_mixed_levels {
    int8_t of_4[16], of_3[8], of_2[4];
} dm_mixed_levels;

typedef struct dm_mixed_header {
    char magic[4];
    uint32_t version;
    uint32_t rows, columns; /* columns: a multiple of 32 */
    uint64_t bytes;         /* of the whole matrix, a multiple of 64 */
    dm_mixed_levels levels;
    uint32_t tiles;    /* of all panels, but for pruned ones */
    int64_t elsewhere; /* 0 in files; of a copy of the tables: bytes from it to the matrix, which has the panels */
} dm_mixed_header;

typedef struct dm_mixed_entry {
    uint32_t line;                   /* the panel begins at the matrix's byte 64 * line */
    uint32_t first;                  /* tiles of the panels before it */
    uint16_t tiles[DM_MIXED_WIDTHS]; /* of 2, 3, 4, 5, 6 and 8 bits */
} dm_mixed_entry;

_Static_assert(sizeof(dm_mixed_header) == 64 && sizeof(dm_mixed_entry) == 20, "they lie in files without padding");

/* ---- Widths ---- */

/* Bits of width number i < DM_MIXED_WIDTHS, and how its codes lie. */
static inline int dm_mixed_bits(int i) {
    static const uint8_t bits[DM_MIXED_WIDTHS] = {2, 3, 4, 5, 6, 8};
    return bits[i];
}
static inline dm_panel_codes dm_mixed_codes(int i) {
    static const uint8_t codes[DM_MIXED_WIDTHS] = {DM_CODES_2, DM_CODES_3, DM_CODES_4, DM_CODES_5, DM_CODES_6, DM_CODES_8};
    return (dm_panel_codes)codes[i];
}
/* The number of a width, -1 for one that has no bytes: 0 bits, and what is no width. */
int dm_mixed_number(unsigned bits);

/* What is subtracted from the codes of 5 and 6 bits; 0 for other widths. */
static inline int dm_mixed_offset(int i) {
    return dm_mixed_bits(i) == 5 ? 16 : dm_mixed_bits(i) == 6 ? 32 : 0;
}
/* The level that `code` stands for; that of 8 bits may be given as the byte or the signed number. */
int dm_mixed_level(const dm_mixed_levels *levels, int number, unsigned code);
/* The table of one of the first DM_MIXED_TABLES widths, of a header: 16 bytes may be read there. */
static inline const int8_t *dm_mixed_table(const dm_mixed_header *matrix, int number) {
    const dm_mixed_levels *levels = &matrix->levels;
    return number == 0 ? levels->of_2 : number == 1 ? levels->of_3 : levels->of_4;
}

/* ---- Parts of a matrix ---- */

static inline const dm_mixed_entry *dm_mixed_entries(const dm_mixed_header *matrix) {
    return (const dm_mixed_entry *)(const void *)(matrix + 1);
}
static inline const uint16_t *dm_mixed_units(const dm_mixed_header *matrix) {
    return (const uint16_t *)(const void *)(dm_mixed_entries(matrix) + dm_panel_count(matrix->rows));
}
/* The matrix as it lies in its file. */
static inline const uint8_t *dm_mixed_origin(const dm_mixed_header *matrix) {
    return (const uint8_t *)((uintptr_t)matrix + (uintptr_t)matrix->elsewhere);
}
static inline const uint8_t *dm_mixed_panel(const dm_mixed_header *matrix, size_t panel) {
    return dm_mixed_origin(matrix) + (size_t)dm_mixed_entries(matrix)[panel].line * DM_PANEL_LINE;
}
/* Tiles of a panel that have bytes; bytes of its scales with the zeros behind them; of the panel. */
size_t dm_mixed_tiles(const dm_mixed_entry *entry);
static inline size_t dm_mixed_scale_bytes(size_t tiles) {
    return ((2 + tiles) * DM_PANEL_ROWS + DM_PANEL_LINE - 1) / DM_PANEL_LINE * DM_PANEL_LINE;
}
size_t dm_mixed_panel_bytes(const dm_mixed_entry *entry);
/* Bytes before the first panel of a matrix with `tiles` tiles. */
size_t dm_mixed_front_bytes(size_t rows, size_t tiles);

/* What some matrices are made of. */
typedef struct dm_mixed_totals {
    uint64_t matrices, weights, bytes;
    uint64_t tiles[DM_MIXED_WIDTHS], pruned;
} dm_mixed_totals;

/* Adds a matrix. */
void dm_mixed_count(const dm_mixed_header *matrix, dm_mixed_totals *totals);

/* ---- From files ---- */

/* Whether bytes claim to be such a matrix. */
bool dm_mixed_claims(const void *data, size_t bytes);
/* Checks one matrix at the front of `bytes` bytes: its magic, version, shape, sizes, and every count, offset and unit. What
 * passes can be read and multiplied with whatever its codes and scales are. DM_ERR_FORMAT or DM_ERR_UNSUPPORTED say what was
 * found and what was expected; the caller puts the file's and the tensor's name before it. */
dm_status dm_mixed_check(const void *data, size_t bytes, uint64_t rows, uint64_t columns);
/* A copy of the tables of the matrix at the front of `bytes` bytes, which other processes cannot change any more, checked as
 * above; its panels stay where they are. *out ends with dm_free(). */
dm_status dm_mixed_copy(const void *data, size_t bytes, uint64_t rows, uint64_t columns, dm_mixed_header **out);
/* Adds all matrices that fill the bytes, whatever their shapes; checks them on the way. */
dm_status dm_mixed_measure(const void *data, size_t bytes, dm_mixed_totals *totals);

/* ---- As floats; a matrix that was checked ---- */

/* y [rows, columns] */
void dm_mixed_widen(float *y, const dm_mixed_header *matrix);
/* y [n] = columns `column` .. of one row; both are multiples of 32 */
void dm_mixed_part(float *y, const dm_mixed_header *matrix, size_t row, size_t column, size_t n);
/* sums[t] = sum over i of W[row, i] x[i] for each of m rows of x, ldx floats apart */
void dm_mixed_dots(const dm_mixed_header *matrix, size_t row, const float *x, size_t ldx, size_t m, float *sums);

#endif
