/* One matrix: its panels' costs, and its solution as bytes, panel by panel on all threads. */
#ifndef DM_QUANTIZATION_COMPRESS_MATRIX_H
#define DM_QUANTIZATION_COMPRESS_MATRIX_H

#include "kernels/weight.h"
#include "quantization/compress_panel.h"

typedef struct dm_compress_task {
    dm_weight weight;
    dm_compress_moments *moments;
    const dm_level_tables *tables;
    float *d; /* [rows] slopes */
} dm_compress_task;

/* cost [panels, units, DM_CHOICES]. DM_ERR_MEMORY. */
dm_status dm_compress_costs(const dm_compress_task *task, float *cost);

typedef struct dm_compress_solution {
    void *data; /* the matrix, dm_free() */
    size_t bytes;
    double error_before, error_after;
    dm_play_counts counts; /* of all panels together */
    uint64_t at_rest;      /* panels */
} dm_compress_solution;

/* Solves for widths [panels, units], which the game changes, within each panel's bytes. `sweeps` 0: construction alone.
 * DM_ERR_MEMORY. */
dm_status dm_compress_solve(const dm_compress_task *task, uint8_t *widths, const dm_prices *prices, size_t sweeps,
                            dm_compress_solution *out);

#endif
