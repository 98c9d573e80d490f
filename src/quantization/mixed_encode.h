/*
 * Writing matrices of mixed-width panels (kernels/mixed_panels.h), for whoever decides on widths and codes.
 *
 * In order: choose a width for each tile; dm_mixed_bytes() of them is the size of the matrix, exactly; dm_mixed_lay_out()
 * writes its header, directory and tables; then each panel's numbers are chosen, by the caller or by dm_mixed_fit_panel(),
 * and dm_mixed_put_panel() writes them. Panels may be put in any order, by several threads.
 */
#ifndef DM_QUANTIZATION_MIXED_ENCODE_H
#define DM_QUANTIZATION_MIXED_ENCODE_H

#include "base/status.h"
#include "kernels/mixed_panels.h"

/* What a matrix becomes. */
typedef struct dm_mixed_plan {
    size_t rows, columns;
    const uint8_t *widths; /* [panels, units] bits: 0, 2, 3, 4, 5, 6 or 8 */
    dm_mixed_levels levels;
} dm_mixed_plan;

/* Tables with small squared error for weights that are about normally distributed, found by Lloyd's iteration with scales
 * of 32 weights fitted along; see docs/format.md. */
extern const dm_mixed_levels dm_mixed_usual_levels;

/* Bytes of the matrix. DM_ERR_ARGUMENT: columns that are no multiple of 32 or too many, a width that there is none of. */
dm_status dm_mixed_bytes(const dm_mixed_plan *plan, size_t *bytes);
/* out [dm_mixed_bytes()], aligned to 64, = everything but the panels, which become zeros. */
void dm_mixed_lay_out(void *out, const dm_mixed_plan *plan);

/* The numbers of one panel. Rows past the matrix's end are to be given too: as zeros, or whatever, for nobody reads them. */
typedef struct dm_mixed_numbers {
    uint16_t row_scales[DM_PANEL_ROWS]; /* halves */
    int8_t *scales;                     /* [units, 16] of tiles that are not pruned */
    uint8_t *codes;                     /* [16, columns], each below 2^width of its tile; 8 bits: the int8 itself */
} dm_mixed_numbers;

void dm_mixed_put_panel(void *matrix, size_t panel, const dm_mixed_numbers *numbers);

/* What the file will say: row scale * tile scale, exact in float32, and times a level, rounded once. */
float dm_mixed_scale(uint16_t row_scale, int8_t scale);
float dm_mixed_weight(uint16_t row_scale, int8_t scale, int level);
/* The code whose level is nearest to t, a weight over its scale; of two as near the first. NaN gives some code. */
unsigned dm_mixed_nearest(const dm_mixed_levels *levels, unsigned bits, float t);

/* Scales of a row: given what each of its `n` tiles would like (sign included), the half that represents them, and which int8
 * is nearest to each then. The largest in magnitude is represented as 127 times the half or a little below. */
uint16_t dm_mixed_row_scale(const float *wanted, size_t n);
int8_t dm_mixed_tile_scale(uint16_t row_scale, float wanted);

/* Rounds to nearest with scales of least squares: all numbers of one panel from its weights x [rows, columns], up to 16 rows,
 * and the widths [units] of its tiles. `importance` [columns] or NULL: how much the squared error of each column counts. NaN
 * becomes 0, what is too large the largest that fits. `numbers` has room for scales and codes. DM_ERR_MEMORY. */
dm_status dm_mixed_fit_panel(dm_mixed_numbers *numbers, const dm_mixed_levels *levels, const float *x, size_t rows,
                             size_t columns, const uint8_t *widths, const float *importance);

#endif
