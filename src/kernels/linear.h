/*
 * Linear layers for inference, whose weights stay in the type that the file
 * stores, any that can be decoded: y = x W^T + bias. Weights that have been
 * packed into panels meet activations rounded to int8. Of others, a few tokens
 * are dot products that read each weight once; many are float32 products over
 * blocks of rows widened on the way.
 */
#ifndef DM_KERNELS_LINEAR_H
#define DM_KERNELS_LINEAR_H

#include "base/status.h"
#include "kernels/quantized.h"

/* A matrix W [rows, columns] of a type that has a decoder; rows contiguous, each of whole blocks. Memory is the owner's. */
typedef struct dm_weight {
    const void *data;
    dm_type type;
    size_t rows, columns;
    const void *panels; /* the same weights as panels, which products then use; or NULL */
} dm_weight;

/* One layer of several that share their input. */
typedef struct dm_linear_product {
    dm_weight weight;  /* [rows, columns] */
    const float *bias; /* [rows] or NULL */
    float *y;          /* [m, rows], ldy floats between rows */
    size_t ldy;
} dm_linear_product;

/* Floats of scratch that dm_linear() wants for weights of up to `columns`. */
size_t dm_linear_scratch(size_t columns);

/* How the rows of x belong together. */
typedef enum dm_linear_rows {
    DM_ROWS_OF_CHUNK, /* the tokens of one piece of a prompt: weights in floating point meet them in one big product */
    DM_ROWS_APART,    /* the next token of each of several sequences: each row's result is the same whatever the others */
} dm_linear_rows;

/* y = x W^T + bias for `count` products of the same x [m, columns], ldx floats between rows. Uses up to `threads` threads,
 * or inside a loop that is shared out the calling one alone; a result depends on `rows`, on the weights and, in a chunk of
 * weights in floating point, on m, not on how rows are shared out. `scratch` holds dm_linear_scratch(columns) floats for
 * each of the threads. */
dm_status dm_linear(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, dm_linear_rows rows,
                    float *scratch, int threads);

/* sum over i of W[row, i] x[i] */
float dm_weight_dot(const dm_weight *weight, size_t row, const float *x);

/* y[columns] = W[row], as float32. */
void dm_weight_row(float *y, const dm_weight *weight, size_t row);

/* Blocks between rows of `columns` rounded activations that keep them in different cache sets. */
size_t dm_q8_stride(size_t columns);

/* y [m, 16 n] = x times rows 16 first ... of a matrix that has panels; less where the matrix ends. ldx blocks between rows
 * of x, ldy floats between rows of y. By the calling thread. */
void dm_weight_panels_product(const dm_weight *weight, size_t first, size_t n, const dm_q8_block *x, size_t ldx, size_t m,
                              float *y, size_t ldy);

/* Bytes of all panels of a matrix whose type has them. */
size_t dm_weight_panel_bytes(const dm_weight *weight);

/* Rows first .. first + rows - 1 of a matrix, e.g. one expert of a stack of them. It has panels if they begin with one. */
dm_weight dm_weight_rows(const dm_weight *weight, size_t first, size_t rows);

#endif
