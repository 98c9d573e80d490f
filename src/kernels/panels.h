/*
 * Quantized matrices, repacked so that the rows of one vector lie side by side.
 *
 * A panel is 16 rows; the last one may lack some, which are then zeros. Along
 * the columns it is a sequence of units of 32. A unit's codes, in whole or in
 * bit planes, are lines of 64 bytes: 16 rows of 4 columns each, so that one
 * int8 dot-product instruction advances all rows by 4 columns and no sum ever
 * crosses lanes. The layout is the same on every machine and about as large as
 * the file's:
 *
 *   codes    [units][lines][16 rows][4 columns], then, from the next multiple of 64 bytes,
 *   scales   [units] of what the format has for a unit, each [16 rows] (see dm_panel_scales),
 *            before every eighth unit the halves of its super-block.
 *
 * Of 8 lines g (columns 4 g .. 4 g + 3), a plane of 4 bits stores line h in the low and line h + 4 in the high bits of its
 * line h < 4; a plane of 2 bits stores line h + 2 j in bits 2 j, 2 j + 1 of its line h < 2; a plane of 1 bit stores line j
 * in bit j of its only line.
 */
#ifndef DM_KERNELS_PANELS_H
#define DM_KERNELS_PANELS_H

#include "base/status.h"
#include "kernels/block_types.h"

enum { DM_PANEL_ROWS = 16, DM_PANEL_UNIT = 32, DM_PANEL_SUPER = 8 /* units that share a super-block */, DM_PANEL_LINE = 64 };
enum { DM_PANEL_LAYOUT = 1 }; /* goes up with every change of what is described above: panels are kept in files */

/* Bits of a code; planes of 5 are 4 + 1, of 6 are 4 + 2, of 3 are 2 + 1. */
typedef enum dm_panel_codes {
    DM_CODES_2,
    DM_CODES_3,
    DM_CODES_4,
    DM_CODES_5,
    DM_CODES_6,
    DM_CODES_8,     /* signed */
    DM_CODES_TABLE, /* 4 bits that index dm_iq4_values */
} dm_panel_codes;

/* What turns codes into weights. */
typedef enum dm_panel_scales {
    DM_SCALES_PLAIN,         /* per unit: half d */
    DM_SCALES_MIN,           /* per unit: half d, half m; x = d q + m */
    DM_SCALES_GROUPS_32,     /* super: half d; per unit: int8 s; x = d s q */
    DM_SCALES_GROUPS_32_MIN, /* super: half d, half dmin; per unit: uint8 s, uint8 t; x = d s q - dmin t */
    DM_SCALES_GROUPS_16,     /* super: half d; per unit: int8 s[2], one for 16 columns each */
    DM_SCALES_GROUPS_16_MIN, /* super: half d, half dmin; per unit: uint8 s | t << 4, [2] */
} dm_panel_scales;

typedef struct dm_panel_format {
    dm_type type;
    dm_panel_codes codes;
    dm_panel_scales scales;
    int offset; /* subtracted from each code */
} dm_panel_format;

/* One entry a type, by the names in the tables of kernels. */
#define DM_PANEL_FORMATS(FORMAT)                                                                                                 \
    FORMAT(q4_0, DM_TYPE_Q4_0, DM_CODES_4, DM_SCALES_PLAIN, 8)                                                                   \
    FORMAT(q4_1, DM_TYPE_Q4_1, DM_CODES_4, DM_SCALES_MIN, 0)                                                                     \
    FORMAT(q5_0, DM_TYPE_Q5_0, DM_CODES_5, DM_SCALES_PLAIN, 16)                                                                  \
    FORMAT(q5_1, DM_TYPE_Q5_1, DM_CODES_5, DM_SCALES_MIN, 0)                                                                     \
    FORMAT(q8_0, DM_TYPE_Q8_0, DM_CODES_8, DM_SCALES_PLAIN, 0)                                                                   \
    FORMAT(q2_k, DM_TYPE_Q2_K, DM_CODES_2, DM_SCALES_GROUPS_16_MIN, 0)                                                           \
    FORMAT(q3_k, DM_TYPE_Q3_K, DM_CODES_3, DM_SCALES_GROUPS_16, 4)                                                               \
    FORMAT(q4_k, DM_TYPE_Q4_K, DM_CODES_4, DM_SCALES_GROUPS_32_MIN, 0)                                                           \
    FORMAT(q5_k, DM_TYPE_Q5_K, DM_CODES_5, DM_SCALES_GROUPS_32_MIN, 0)                                                           \
    FORMAT(q6_k, DM_TYPE_Q6_K, DM_CODES_6, DM_SCALES_GROUPS_16, 32)                                                              \
    FORMAT(iq4_nl, DM_TYPE_IQ4_NL, DM_CODES_TABLE, DM_SCALES_PLAIN, 0)                                                           \
    FORMAT(iq4_xs, DM_TYPE_IQ4_XS, DM_CODES_TABLE, DM_SCALES_GROUPS_32, 0)

/* Their numbers: DM_PANEL_q4_0 and so on. */
enum {
#define DM_PANEL_NUMBER(name, type, codes, scales, offset) DM_PANEL_##name,
    DM_PANEL_FORMATS(DM_PANEL_NUMBER) DM_PANEL_COUNT
#undef DM_PANEL_NUMBER
};

/* The format of a type, or NULL where it has none; its number below DM_PANEL_COUNT is format - dm_panel_format_at(0). */
const dm_panel_format *dm_panel_format_of(dm_type type);
const dm_panel_format *dm_panel_format_at(int index);

/* Lines of a unit; bytes of its scales; of a super-block's halves (0: none). */
static inline size_t dm_panel_lines(dm_panel_codes codes) {
    static const uint8_t lines[] = {2, 3, 4, 5, 6, 8, 4};
    return lines[codes];
}
static inline size_t dm_panel_unit_scales(dm_panel_scales scales) {
    static const uint8_t bytes[] = {32, 64, 16, 32, 32, 32};
    return bytes[scales];
}
static inline size_t dm_panel_super_scales(dm_panel_scales scales) {
    static const uint8_t bytes[] = {0, 0, 32, 64, 32, 64};
    return bytes[scales];
}

/* Whether something is added for each weight, whatever its code. */
static inline bool dm_panel_adds(dm_panel_scales scales, int offset) {
    return offset != 0 || scales == DM_SCALES_MIN || scales == DM_SCALES_GROUPS_32_MIN || scales == DM_SCALES_GROUPS_16_MIN;
}

/* Bytes of one panel, a multiple of 64. `columns` is a multiple of the type's block. */
size_t dm_panel_bytes(const dm_panel_format *format, size_t columns);
/* Panels that `rows` rows make. */
size_t dm_panel_count(size_t rows);

/* Packs `panels` panels from the row `first_row` of a matrix [rows, columns] of GGUF blocks. `out` is aligned to 64. */
void dm_panels_pack(void *out, const dm_panel_format *format, const void *blocks, size_t rows, size_t columns, size_t first_row,
                    size_t panels);

/* Check of a matrix's panels, whose bytes are a multiple of 64, for files that keep them. */
uint64_t dm_panels_check(const uint8_t *panels, size_t bytes);

#endif
