/* Watching what a forward pass multiplies its matrices with. */
#ifndef DM_MODEL_OBSERVER_H
#define DM_MODEL_OBSERVER_H

#include "model/config.h"

/* Rows that meet a matrix of a layer, and with it those others that share its input: queries, keys and values come as
 * DM_ATTN_Q (fused: DM_ATTN_QKV), gate and up as the up of their kind. The output projection is DM_OUTPUT of layer -1. */
typedef struct dm_observation {
    int32_t layer;
    dm_role role;
    int32_t expert;      /* -1 but for the roles of experts */
    size_t columns, n;   /* n > 0 rows */
    const float *x;      /* row i is at x + (rows != NULL ? rows[i] : i) * columns */
    const int32_t *rows; /* [n] or NULL */
    const float *gates;  /* [n] what the result is multiplied with before it is added to others; NULL: 1 */
} dm_observation;

typedef struct dm_observer {
    dm_status (*see)(void *user, const dm_observation *seen); /* on the thread that feeds; a failure ends the pass */
    void *user;
    int32_t layers; /* that a pass runs: with fewer than the model has, it ends early and gives no logits */
} dm_observer;

#endif
