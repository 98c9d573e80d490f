#include "training/rotary.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/vector.h"

dm_status dm_rotary_create(size_t length, size_t head_dim, double base, dm_rotary *out) {
    size_t half = head_dim / 2;
    *out = (dm_rotary){dm_alloc(length, half * sizeof(float)), dm_alloc(length, half * sizeof(float)), half, length};
    if (out->cosine == NULL || out->sine == NULL) {
        dm_rotary_free(out);
        return DM_ERR_MEMORY;
    }
    for (size_t position = 0; position < length; position++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)position * pow(base, -2.0 * (double)i / (double)head_dim);
            out->cosine[position * half + i] = (float)cos(angle);
            out->sine[position * half + i] = (float)sin(angle);
        }
    }
    return DM_OK;
}

void dm_rotary_free(dm_rotary *rotary) {
    dm_free(rotary->cosine);
    dm_free(rotary->sine);
    *rotary = (dm_rotary){0};
}

static void rotate(const dm_rotary *rotary, float *head, size_t row, float sign) {
    size_t at = row % rotary->length * rotary->half;
    dm_vector()->rope(head, rotary->cosine + at, rotary->sine + at, sign, rotary->half);
}

void dm_heads_forward(const dm_heads *heads, dm_rows y, float *inverse, dm_rows x, size_t n) {
    const dm_vector_table *vector = dm_vector();
    const size_t dim = 2 * heads->rotary->half;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        for (size_t h = 0; h < heads->n_heads; h++) {
            float *to = dm_row(y, i) + h * dim;
            inverse[i * heads->n_heads + h] = vector->rmsnorm(to, dm_row(x, i) + h * dim, heads->weight, heads->eps, dim);
            rotate(heads->rotary, to, i, 1.0f);
        }
    }
}

void dm_heads_backward(const dm_heads *heads, dm_rows dx, float *dweight, dm_rows dy, dm_rows x, const float *inverse, size_t n,
                       dm_partials *partials) {
    const dm_vector_table *vector = dm_vector();
    const size_t dim = 2 * heads->rotary->half;
    dm_partials_clear(partials, dim);
#pragma omp parallel
    {
        float *dw = dm_partials_mine(partials);
#pragma omp for schedule(static)
        for (size_t i = 0; i < n; i++) {
            memset(dm_row(dx, i), 0, heads->n_heads * dim * sizeof(float));
            for (size_t h = 0; h < heads->n_heads; h++) {
                float *from = dm_row(dy, i) + h * dim;
                rotate(heads->rotary, from, i, -1.0f);
                vector->rmsnorm_backward(dm_row(dx, i) + h * dim, dw, from, dm_row(x, i) + h * dim, heads->weight,
                                         inverse[i * heads->n_heads + h], dim);
            }
        }
    }
    dm_partials_add(partials, 0, dim, dweight);
}
