#include "training/layers.h"

#include <omp.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/vector.h"

/* ---- Partial sums ---- */

dm_status dm_partials_create(size_t width, dm_partials *out) {
    size_t padded = (width + 31) / 16 * 16; /* threads write to cache lines of their own */
    *out = (dm_partials){.width = padded, .threads = omp_get_max_threads()};
    out->data = dm_alloc((size_t)out->threads, padded * sizeof(float));
    return out->data != NULL ? DM_OK : DM_ERR_MEMORY;
}

void dm_partials_free(dm_partials *partials) {
    dm_free(partials->data);
    *partials = (dm_partials){0};
}

void dm_partials_clear(dm_partials *partials, size_t n) {
    for (int t = 0; t < partials->threads; t++) {
        memset(partials->data + (size_t)t * partials->width, 0, n * sizeof(float));
    }
}

float *dm_partials_mine(const dm_partials *partials) {
    return partials->data + (size_t)omp_get_thread_num() * partials->width;
}

void dm_partials_add(const dm_partials *partials, size_t first, size_t n, float *into) {
    for (int t = 0; t < partials->threads; t++) {
        const float *mine = partials->data + (size_t)t * partials->width + first;
        dm_vector()->add(into, into, mine, n);
    }
}

/* ---- Embedding ---- */

void dm_embedding_forward(dm_rows y, const float *table, const float *positions, const int32_t *ids, size_t n, size_t context,
                          size_t dim) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        memcpy(dm_row(y, i), table + (size_t)ids[i] * dim, dim * sizeof(float));
        if (positions != NULL) {
            vector->add(dm_row(y, i), dm_row(y, i), positions + i % context * dim, dim);
        }
    }
}

/* Rows of a token may meet, so threads share out the columns, not the rows. */
void dm_embedding_backward(float *dtable, float *dpositions, dm_rows dy, const int32_t *ids, size_t n, size_t context,
                           size_t dim) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel
    {
        size_t share = (dim + (size_t)omp_get_num_threads() - 1) / (size_t)omp_get_num_threads();
        size_t begin = share * (size_t)omp_get_thread_num();
        size_t end = begin + share < dim ? begin + share : dim;
        for (size_t i = 0; i < n && begin < end; i++) {
            const float *from = dm_row(dy, i) + begin;
            vector->axpy(dtable + (size_t)ids[i] * dim + begin, 1.0f, from, end - begin);
            if (dpositions != NULL) {
                vector->axpy(dpositions + i % context * dim + begin, 1.0f, from, end - begin);
            }
        }
    }
}

/* ---- Norms ---- */

void dm_norm_forward(const dm_norm *norm, dm_rows y, float *mean, float *inverse, dm_rows x, size_t n) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        if (norm->bias == NULL) {
            inverse[i] = vector->rmsnorm(dm_row(y, i), dm_row(x, i), norm->weight, norm->eps, norm->dim);
        } else {
            vector->layernorm(dm_row(y, i), &mean[i], &inverse[i], dm_row(x, i), norm->weight, norm->bias, norm->eps, norm->dim);
        }
    }
}

void dm_norm_backward(const dm_norm *norm, dm_rows dx, float *dweight, float *dbias, dm_rows dy, dm_rows x, const float *mean,
                      const float *inverse, size_t n, dm_partials *partials) {
    const dm_vector_table *vector = dm_vector();
    dm_partials_clear(partials, 2 * norm->dim);
#pragma omp parallel
    {
        float *dw = dm_partials_mine(partials);
        float *db = dw + norm->dim;
#pragma omp for schedule(static)
        for (size_t i = 0; i < n; i++) {
            if (norm->bias == NULL) {
                vector->rmsnorm_backward(dm_row(dx, i), dw, dm_row(dy, i), dm_row(x, i), norm->weight, inverse[i], norm->dim);
            } else {
                vector->layernorm_backward(dm_row(dx, i), dw, db, dm_row(dy, i), dm_row(x, i), norm->weight, mean[i], inverse[i],
                                           norm->dim);
            }
        }
    }
    dm_partials_add(partials, 0, norm->dim, dweight);
    if (norm->bias != NULL) {
        dm_partials_add(partials, norm->dim, norm->dim, dbias);
    }
}

/* ---- Bias, GELU, sums ---- */

void dm_bias_forward(dm_rows y, const float *bias, size_t n, size_t dim) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        vector->add(dm_row(y, i), dm_row(y, i), bias, dim);
    }
}

void dm_bias_backward(float *dbias, dm_rows dy, size_t n, size_t dim, dm_partials *partials) {
    const dm_vector_table *vector = dm_vector();
    dm_partials_clear(partials, dim);
#pragma omp parallel
    {
        float *db = dm_partials_mine(partials);
#pragma omp for schedule(static)
        for (size_t i = 0; i < n; i++) {
            vector->add(db, db, dm_row(dy, i), dim);
        }
    }
    dm_partials_add(partials, 0, dim, dbias);
}

void dm_gelu_forward(dm_rows y, dm_rows x, size_t n, size_t dim) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        vector->gelu(dm_row(y, i), dm_row(x, i), dim);
    }
}

void dm_gelu_backward(dm_rows dx, dm_rows dy, dm_rows x, size_t n, size_t dim) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        vector->gelu_backward(dm_row(dx, i), dm_row(dy, i), dm_row(x, i), dim);
    }
}

void dm_add_rows(dm_rows y, dm_rows a, dm_rows b, size_t n, size_t dim) {
    const dm_vector_table *vector = dm_vector();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        vector->add(dm_row(y, i), dm_row(a, i), dm_row(b, i), dim);
    }
}

void dm_copy_rows(dm_rows y, dm_rows x, size_t n, size_t dim) {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        memcpy(dm_row(y, i), dm_row(x, i), dim * sizeof(float));
    }
}

void dm_zero_rows(dm_rows y, size_t n, size_t dim) {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        memset(dm_row(y, i), 0, dim * sizeof(float));
    }
}
