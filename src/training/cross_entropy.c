#include "training/cross_entropy.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "kernels/vector.h"

/* Rows at a time: logits of about 8 MB, within a shared cache, but enough rows for products to be efficient. */
static size_t rows_at_a_time(size_t vocab) {
    size_t rows = ((size_t)2 << 20) / vocab;
    return rows < 64 ? 64 : rows > 512 ? 512 : rows;
}

size_t dm_cross_entropy_scratch(size_t vocab) {
    return rows_at_a_time(vocab) * dm_matmul_stride(vocab);
}

/* A token by its probability p[vocab]. */
static int32_t draw(const float *p, size_t vocab, uint64_t key) {
    dm_random random;
    dm_random_seed(&random, key);
    double left = dm_random_uniform(&random);
    size_t at = 0;
    while (at + 1 < vocab && left >= (double)p[at]) {
        left -= (double)p[at++];
    }
    return (int32_t)at;
}

/* Losses of `n` rows of logits, which become their gradients where `scale` is not 0. Targets are drawn from `key` on, unless it
 * is NULL. */
static double rows_loss(float *logits, size_t stride, const int32_t *targets, size_t n, size_t vocab, float scale,
                        const uint64_t *key) {
    const dm_vector_table *vector = dm_vector();
    double loss = 0.0;
    double losses[512];
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        float *row = logits + i * stride;
        if (targets[i] < 0) {
            memset(row, 0, vocab * sizeof(float));
            losses[i] = 0.0;
            continue;
        }
        int32_t at = targets[i];
        const float target = row[at];
        losses[i] = (double)vector->softmax(row, vocab) - (double)target;
        if (key != NULL) {
            at = draw(row, vocab, *key + i);
            losses[i] = -log((double)row[at]);
        }
        if (scale != 0.0f) {
            vector->scale(row, scale, row, vocab);
            row[at] -= scale;
        }
    }
    for (size_t i = 0; i < n; i++) {
        loss += losses[i];
    }
    return loss;
}

dm_status dm_cross_entropy_run(const dm_cross_entropy *head, dm_rows x, const int32_t *targets, size_t n, float scale, dm_rows dx,
                               float *dweight, double *loss) {
    const size_t stride = dm_matmul_stride(head->vocab);
    const size_t step = rows_at_a_time(head->vocab);
    *loss = 0.0;
    for (size_t first = 0; first < n; first += step) {
        size_t rows = n - first < step ? n - first : step;
        DM_TRY(dm_matmul_forward(head->precision, head->scratch, stride, dm_row(x, first), x.stride, head->weight, head->dim,
                                 rows, head->vocab, head->dim, false));
        const uint64_t key = head->watch != NULL ? head->watch->key + first : 0;
        *loss += rows_loss(head->scratch, stride, targets + first, rows, head->vocab, dx.data != NULL ? scale : 0.0f,
                           head->watch != NULL ? &key : NULL);
        if (dx.data == NULL) {
            continue;
        }
        if (head->watch != NULL) {
            const dm_gradient_seen seen = {-1, DM_OUTPUT, -1, {head->scratch, stride}, rows, head->vocab, NULL, false};
            head->watch->see(head->watch->user, &seen);
        }
        DM_TRY(dm_matmul_input_gradient(head->precision, dm_row(dx, first), dx.stride, head->scratch, stride, head->weight,
                                        head->dim, rows, head->vocab, head->dim, false));
        DM_TRY(dm_matmul_weight_gradient(head->precision, dweight, head->dim, head->scratch, stride, dm_row(x, first), x.stride,
                                         rows, head->vocab, head->dim, true));
    }
    return DM_OK;
}
