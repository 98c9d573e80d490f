#include "training/cross_entropy.h"

#include <string.h>

#include "kernels/vector.h"

/* Rows at a time: logits of about 8 MB, within a shared cache, but enough rows for products to be efficient. */
static size_t rows_at_a_time(size_t vocab) {
    size_t rows = ((size_t)2 << 20) / vocab;
    return rows < 64 ? 64 : rows > 512 ? 512 : rows;
}

size_t dm_cross_entropy_scratch(size_t vocab) {
    return rows_at_a_time(vocab) * dm_matmul_stride(vocab);
}

/* Losses of `n` rows of logits, which become their gradients where `scale` is not 0. */
static double rows_loss(float *logits, size_t stride, const int32_t *targets, size_t n, size_t vocab, float scale) {
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
        float target = row[targets[i]];
        losses[i] = (double)vector->softmax(row, vocab) - (double)target;
        if (scale != 0.0f) {
            vector->scale(row, scale, row, vocab);
            row[targets[i]] -= scale;
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
        *loss += rows_loss(head->scratch, stride, targets + first, rows, head->vocab, dx.data != NULL ? scale : 0.0f);
        if (dx.data == NULL) {
            continue;
        }
        DM_TRY(dm_matmul_input_gradient(head->precision, dm_row(dx, first), dx.stride, head->scratch, stride, head->weight,
                                        head->dim, rows, head->vocab, head->dim, false));
        DM_TRY(dm_matmul_weight_gradient(head->precision, dweight, head->dim, head->scratch, stride, dm_row(x, first), x.stride,
                                         rows, head->vocab, head->dim, true));
    }
    return DM_OK;
}
