/* Rounding one tile, 16 rows of 32 columns, to the levels of a width: the strategies that a player of the compression game lists.
 * Tiles are [32, 16]: a row of the matrix in each lane. Factors are [32, 32], L of L L^T, below the diagonal. */
#ifndef DM_QUANTIZATION_COMPRESS_ROUNDING_H
#define DM_QUANTIZATION_COMPRESS_ROUNDING_H

#include "quantization/compress_panel.h"

typedef struct dm_rounding {
    float q[DM_PANEL_UNIT * DM_PANEL_ROWS]; /* scale times level */
    float level[DM_PANEL_UNIT * DM_PANEL_ROWS];
    float scale[DM_PANEL_ROWS];
    int8_t step[DM_PANEL_ROWS]; /* scale over the row's */
    float error[DM_PANEL_ROWS];
} dm_rounding;

/* All zeros, errors too. */
void dm_rounding_clear(dm_rounding *it);
/* error = that of zeros instead of t, columns apart. */
void dm_rounding_pruned(const float *t, const float *factor, float *error);
/* scale and error = those of least error that a search finds, columns apart: errors cost the squares of the factor's diagonal. */
void dm_rounding_search(dm_rounding *it, const dm_width_levels *levels, const float *t, const float *factor);
/* The steps nearest to the scales, which become what the steps say. */
void dm_rounding_steps(dm_rounding *it, const uint16_t *row_scales);
/* Steps `by` more. */
void dm_rounding_shift(dm_rounding *it, const uint16_t *row_scales, int by);
/* q, level and error for the scales: columns from the last to the first, each making up for those after it (Babai's nearest
 * plane). t is the target, `origin` what errors that are passed on are counted from: t itself, or the original weights. */
void dm_rounding_plane(dm_rounding *it, const dm_width_levels *levels, const float *t, const float *origin, const float *factor);
/* The nearest levels to x over the scales. */
void dm_rounding_column(const dm_width_levels *levels, const float *scale, const float *x, float *level, float *q);
/* best = tried in the rows where that has less error, or in all of them. */
void dm_rounding_keep(dm_rounding *best, const dm_rounding *tried, bool all);

#endif
