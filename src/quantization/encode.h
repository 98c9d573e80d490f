/*
 * From float32 to the types of GGUF files, with the least squared error that a
 * search finds. The same weights give the same bytes on every machine and with
 * any number of threads.
 */
#ifndef DM_QUANTIZATION_ENCODE_H
#define DM_QUANTIZATION_ENCODE_H

#include "base/status.h"
#include "kernels/block_types.h"

/*
 * out = the blocks of x [n], n whole blocks of `type`, any that has a decoder. `importance` [n], or NULL, says how much
 * the squared error of each weight counts: as calibration gives it, the mean square of the activation that the weight is
 * multiplied with. Only ratios within a block matter; what is negative or no number counts as 0.
 * Blocks hold finite numbers only: NaN becomes 0, what is too large becomes the largest that fits. F32, F16 and BF16 are
 * conversions that keep such values. On the calling thread alone; DM_ERR_ARGUMENT for another type or n.
 */
dm_status dm_encode(dm_type type, void *out, const float *x, const float *importance, size_t n);

/* The same for elements first .. first + n - 1 of a matrix that has `columns` columns, on all threads: x and out start at
 * element `first`, which as n is whole blocks. `importance` [columns], the same for every row, or NULL. */
dm_status dm_encode_part(dm_type type, void *out, const float *x, const float *importance, size_t columns, uint64_t first,
                         size_t n);

#endif
