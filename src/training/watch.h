/* Watching the gradients with respect to what each matrix gives, as a backward pass comes by them. */
#ifndef DM_TRAINING_WATCH_H
#define DM_TRAINING_WATCH_H

#include "model/config.h"
#include "training/rows.h"

/* dL/dy [n, columns] of y = W x, one row a token. */
typedef struct dm_gradient_seen {
    int32_t layer; /* -1: the output projection's, DM_OUTPUT, tied or not */
    dm_role role;
    int32_t expert; /* -1 but for the roles of experts */
    dm_rows dy;
    size_t n, columns;
    const float *gates; /* [n] of experts, else NULL */
    bool before_gates;  /* dy is the gradient of the gated result: times the gate it is that of y */
} dm_gradient_seen;

typedef struct dm_gradient_watch {
    /* Of different experts at once on different threads; those of one expert one after another. */
    void (*see)(void *user, const dm_gradient_seen *seen);
    void *user;
    uint64_t
        key; /* tokens to predict are drawn from the predictions themselves, by this key and the row; other keys draw others */
} dm_gradient_watch;

#endif
