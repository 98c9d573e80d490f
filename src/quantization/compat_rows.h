/*
 * One matrix as blocks of a GGUF type, with errors counted under H: rows meet in nothing, so each is solved alone.
 *
 * With H = L L^T an error e of a row costs |L^T e|^2. Construction goes over blocks from the last to the first: each is encoded
 * as it would have to be to make up for the errors after it, which fixes its scales; then its codes are chosen again one by
 * one, each making up for those after it too (GPTQ, Frantar et al. 2022, or Babai's nearest plane). Play then changes codes one
 * by one, scales as they are, wherever the exact change of e^T H e is below 0.
 */
#ifndef DM_QUANTIZATION_COMPAT_ROWS_H
#define DM_QUANTIZATION_COMPAT_ROWS_H

#include "kernels/weight.h"
#include "quantization/compress_moments.h"

typedef struct dm_compat_task {
    dm_weight weight;
    const dm_compress_moments *moments; /* those without h: plain encoding under the diagonal is best already */
    const float *d;                     /* [rows] slopes */
    bool compensate;
    size_t sweeps; /* of play; 0: none */
} dm_compat_task;

typedef struct dm_compat_counts {
    double before, after; /* errors: after construction, at the end */
} dm_compat_counts;

/* out = rows 0, step, 2 step, ... of the matrix as blocks of `type`, of which columns are whole ones; NULL: only the errors are
 * wanted. On all threads. DM_ERR_MEMORY, DM_ERR_INTERRUPTED. */
dm_status dm_compat_encode(const dm_compat_task *task, dm_type type, size_t step, void *out, dm_compat_counts *counts);

#endif
