/*
 * Linear layers for inference, whose weights stay in the type that the file
 * stores, any that can be decoded: y = x W^T + bias. Pieces of prompts meet
 * weights of any type but float32 on tile registers where there are any.
 * Elsewhere weights that have been packed into panels meet activations rounded
 * to int8. Of others, a few tokens are dot products that read each weight once;
 * many are float32 products over blocks of rows widened on the way. An expert's
 * tokens, be they few or many, are dot products over such blocks.
 */
#ifndef DM_KERNELS_LINEAR_H
#define DM_KERNELS_LINEAR_H

#include "base/status.h"
#include "kernels/weight.h"

/* One layer of several that share their input. */
typedef struct dm_linear_product {
    dm_weight weight;  /* [rows, columns] */
    const float *bias; /* [rows] or NULL */
    float *y;          /* [m, rows], ldy floats between rows */
    size_t ldy;
} dm_linear_product;

/* Pieces of `step` rows of the products in one of the lists that their weights are dealt out in. All of them have copies of one
 * kind, or none. */
size_t dm_linear_pieces(const dm_linear_product *products, size_t count, size_t step, size_t lists, size_t list);

/* Floats of scratch, aligned to 64 bytes, that dm_linear() wants for weights of up to `columns`, pieces of prompts of up to
 * `m` tokens (0: none) and so many threads. */
size_t dm_linear_scratch(size_t columns, size_t m, int threads);

/* How the rows of x belong together. */
typedef enum dm_linear_rows {
    DM_ROWS_OF_CHUNK,  /* the tokens of one piece of a prompt */
    DM_ROWS_OF_EXPERT, /* those of them that one expert has, one after another (ldx = columns): each row's result is the same
                        * whatever the others, so that no token depends on what later ones choose */
    DM_ROWS_APART,     /* the next token of each of several sequences: each row's result is the same whatever the others */
} dm_linear_rows;

/* y = x W^T + bias for `count` products of the same x [m, columns], ldx floats between rows. Uses up to `threads` threads,
 * or inside a loop that is shared out the calling one alone; a result depends on `rows`, on the weights and, for rows of a
 * chunk, on m, not on how rows are shared out. `scratch` holds dm_linear_scratch(columns, m, threads) floats; for the rows of
 * an expert dm_linear_scratch(columns, 0, threads) do. */
dm_status dm_linear(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, dm_linear_rows rows,
                    float *scratch, int threads);

#endif
