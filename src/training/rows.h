/* A matrix of float32 rows that may lie further apart than they are long (see dm_matmul_stride). */
#ifndef DM_TRAINING_ROWS_H
#define DM_TRAINING_ROWS_H

#include <stddef.h>

typedef struct dm_rows {
    float *data;
    size_t stride; /* floats from one row to the next */
} dm_rows;

static inline float *dm_row(dm_rows rows, size_t index) {
    return rows.data + index * rows.stride;
}

/* The same rows from column `first` on. */
static inline dm_rows dm_columns(dm_rows rows, size_t first) {
    return (dm_rows){rows.data + first, rows.stride};
}

#endif
