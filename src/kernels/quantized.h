/*
 * Products of panels (panels.h) with activations rounded to int8: each block
 * of 32 activations has its own scale, products are summed exactly in int32
 * over a block, and blocks in float32 in their order. Every instruction set
 * gives the same bits, whatever else is computed beside.
 */
#ifndef DM_KERNELS_QUANTIZED_H
#define DM_KERNELS_QUANTIZED_H

#include "kernels/mixed_panels.h"

/* 32 activations: x = scale q, |q| <= 127. One cache line. */
typedef struct dm_q8_block {
    float scale;
    float sum;       /* scale * sum of q */
    float halves[2]; /* the same of the first and last 16 */
    int32_t shift;   /* -128 * sum of q: undoes codes that are taken as unsigned */
    int32_t unused[3];
    int8_t q[DM_PANEL_UNIT];
} dm_q8_block;

/* out [n / 32] = x [n] rounded; n is a multiple of 32. A block with a value that is not finite gets a scale that is not. */
typedef void (*dm_quantize_fn)(dm_q8_block *out, const float *x, size_t n);

/* y[t ldy + r] = row r of the panel times row t of x, for 16 rows and m tokens; ldx blocks between rows of x. Meanwhile the
 * panel of the same size at `ahead`, which will be wanted some panels later, is asked for; any address will do. */
typedef void (*dm_panel_product_fn)(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m, const void *panel,
                                    const void *ahead, size_t columns);

/* The same with a panel of a matrix of mixed widths that was checked. */
typedef void (*dm_mixed_product_fn)(float *y, size_t ldy, const dm_q8_block *x, size_t ldx, size_t m,
                                    const dm_mixed_header *matrix, size_t panel, const void *ahead);

typedef struct dm_quantized_table {
    const char *isa;
    dm_quantize_fn quantize;
    dm_panel_product_fn product[DM_PANEL_COUNT]; /* by number of the format */
    dm_mixed_product_fn mixed;
} dm_quantized_table;

/* The best table this machine runs (DILMODELI_ISA taken into account). */
const dm_quantized_table *dm_quantized(void);

/* All tables this machine runs, best first, the portable one last; returns how many. */
size_t dm_quantized_tables(const dm_quantized_table *tables[4]);

#endif
