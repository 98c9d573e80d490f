/*
 * What experts that saw few tokens borrow from the others of their layer: shrinkage of second moments toward the mean of all,
 * by as much as the noise of the estimate explains their distance (Ledoit and Wolf 2004; the noise is that of normal inputs).
 */
#ifndef DM_QUANTIZATION_CALIBRATION_LEND_H
#define DM_QUANTIZATION_CALIBRATION_LEND_H

#include <stddef.h>
#include <stdint.h>

/* Matrices are lower triangles, rows one after another; `own` and `mean` are per unit of gate^2. */

/* The share of the mean in what an expert is given, 0 to 1, where `own` rests on `tokens` effective tokens. */
double dm_calibration_lent(const float *own, const float *mean, size_t columns, double tokens);
/* The same of diagonals. */
double dm_calibration_lent_diagonal(const float *own, const float *mean, size_t columns, double tokens);
/* The same of an expert's slopes, whose noise is taken for that of an average over 8 tokens at a distance of 1. */
double dm_calibration_lent_slope(double tokens);

/* sum of gate^2 of an expert, with half a token's for what the text may have missed; of all experts of the layer. */
double dm_calibration_mass(double squares, double all_squares, uint64_t all_visits);
/* Effective tokens (Kish 1965). */
double dm_calibration_effective(double squares, double fourths);

#endif
