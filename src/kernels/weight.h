/* A matrix of weights in the type that a file stores, and its panels where it has been repacked. */
#ifndef DM_KERNELS_WEIGHT_H
#define DM_KERNELS_WEIGHT_H

#include "base/parallel.h"
#include "kernels/quantized.h"

/* A matrix, or some of its rows, as one group of threads reads it (base/parallel.h): as if all of it lay there. */
typedef struct dm_weight_copy {
    const void *data, *panels;
} dm_weight_copy;

/* A matrix W [rows, columns] of a type that has a decoder; rows contiguous, each of whole blocks. Or one of DM_TYPE_MIXED, which
 * was checked: data and panels are then its header. Memory is the owner's. */
typedef struct dm_weight {
    const void *data;
    dm_type type;
    size_t rows, columns;
    const void *panels;           /* the same weights as panels, which products then use; or NULL */
    const dm_weight_copy *copies; /* [groups] what each group of threads reads instead; NULL: the above */
    bool mirrored;                /* copies have all rows; else a group's have its share of them and DM_WEIGHT_OVERLAP more */
} dm_weight;

/* ---- Who reads what ---- */

/* Rows: products take so many less one beyond the last one of a share, when they take several together. */
enum { DM_WEIGHT_OVERLAP = 256 };

/* Lists that a product's rows are dealt out in (dm_parallel_lists()): one that all threads take from, or one for each group. */
size_t dm_weight_lists(const dm_weight *weight);
/* Of the pieces of `step` <= DM_WEIGHT_OVERLAP rows that the matrix is cut into, those of a list: [*begin, *end). */
void dm_weight_share(const dm_weight *weight, size_t step, size_t lists, size_t list, size_t *begin, size_t *end);
/* The matrix as threads of a group read it. */
dm_weight dm_weight_near(const dm_weight *weight, size_t group);

/* ---- What is in it ---- */

/* sum over i of W[row, i] x[i] */
float dm_weight_dot(const dm_weight *weight, size_t row, const float *x);
/* sums[t] = the same of each of m rows of x, ldx floats apart: what is read of W is read once for all. */
void dm_weight_dots(const dm_weight *weight, size_t row, const float *x, size_t ldx, size_t m, float *sums);

/* y [rows, columns] = the whole matrix as float32. */
void dm_weight_widen(float *y, const dm_weight *weight);
/* y[columns] = W[row], as float32. */
void dm_weight_row(float *y, const dm_weight *weight, size_t row);

/* Blocks between rows of `columns` rounded activations that keep them in different cache sets. */
size_t dm_q8_stride(size_t columns);

/* y [m, 16 n] = x times rows 16 first ... of a matrix that has panels; less where the matrix ends. ldx blocks between rows
 * of x, ldy floats between rows of y. By the calling thread. `next` is where n panels of this size lie that the thread will want
 * soon after these, and which are asked for meanwhile; NULL: those that follow in the matrix. */
void dm_weight_panels_product(const dm_weight *weight, size_t first, size_t n, const dm_q8_block *x, size_t ldx, size_t m,
                              float *y, size_t ldy, const void *next);
/* Where a panel of a matrix lies. */
const void *dm_weight_panel(const dm_weight *weight, size_t panel);

/* A matrix as its file has it: its bytes, and how many. */
const void *dm_weight_stored(const dm_weight *weight, size_t *bytes);

/* Bytes of all panels of a matrix whose type has them. */
size_t dm_weight_panel_bytes(const dm_weight *weight);

/* Rows first .. first + rows - 1 of a matrix, e.g. one expert of a stack of them. It has panels if they begin with one. Not of
 * DM_TYPE_MIXED. */
dm_weight dm_weight_rows(const dm_weight *weight, size_t first, size_t rows);

#endif
