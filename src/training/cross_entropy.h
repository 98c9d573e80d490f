/*
 * Output projection and cross-entropy in one: logits exist for a few hundred positions at a time, and on the way the
 * gradients of the hidden states and of the projection are made from them at once.
 */
#ifndef DM_TRAINING_CROSS_ENTROPY_H
#define DM_TRAINING_CROSS_ENTROPY_H

#include <stdint.h>

#include "kernels/matmul.h"
#include "training/watch.h"

typedef struct dm_cross_entropy {
    size_t dim, vocab;
    dm_precision precision;
    const float *weight;            /* [vocab, dim] */
    float *scratch;                 /* dm_cross_entropy_scratch(vocab) floats */
    const dm_gradient_watch *watch; /* shown the gradients; draws the targets that are not negative; NULL: nobody */
} dm_cross_entropy;

size_t dm_cross_entropy_scratch(size_t vocab);

/* *loss = sum over the n rows of -log softmax(x W^T)[target], nats; a row with a negative target does not count. Unless dx.data
 * is NULL, dx[n, dim] is overwritten by and dweight[vocab, dim] accumulates `scale` times the gradient of that sum. */
dm_status dm_cross_entropy_run(const dm_cross_entropy *head, dm_rows x, const int32_t *targets, size_t n, float scale, dm_rows dx,
                               float *dweight, double *loss);

#endif
