#include "quantization/compress_moments.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/random.h"
#include "kernels/matmul.h"

enum { UNIT = DM_PANEL_UNIT, BLOCK = 64 };

static const float DAMPING = 0.01f; /* of the mean of the diagonal, as GPTQ has it */

/* ---- Cholesky, by blocks ---- */

/* One block of the diagonal, sums in double. */
static void factor_block(float *a, size_t n, size_t ld) {
    for (size_t j = 0; j < n; j++) {
        const double whole = a[j * ld + j];
        double pivot = whole;
        for (size_t k = 0; k < j; k++) {
            pivot -= (double)a[j * ld + k] * a[j * ld + k];
        }
        pivot = sqrt(fmax(pivot, 1e-7 * fabs(whole) + 1e-30));
        a[j * ld + j] = (float)pivot;
        for (size_t i = j + 1; i < n; i++) {
            double sum = a[i * ld + j];
            for (size_t k = 0; k < j; k++) {
                sum -= (double)a[i * ld + k] * a[j * ld + k];
            }
            a[i * ld + j] = (float)(sum / pivot);
        }
    }
}

/* Rows below a factored block. */
typedef struct below {
    float *rows;        /* first row below, at the block's first column */
    const float *block; /* factored */
    float *negated;     /* [rows, n] */
    size_t n, ld;
} below;

static void solve_rows(void *user, size_t begin, size_t end, int thread) {
    const below *it = user;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *row = it->rows + i * it->ld;
        for (size_t j = 0; j < it->n; j++) {
            float sum = row[j];
            for (size_t k = 0; k < j; k++) {
                sum -= row[k] * it->block[j * it->ld + k];
            }
            row[j] = sum / it->block[j * it->ld + j];
            it->negated[i * it->n + j] = -row[j];
        }
    }
}

dm_status dm_cholesky(float *a, size_t n, size_t ld) {
    float *negated = dm_alloc(n * BLOCK, sizeof *negated);
    dm_status status = negated != NULL ? DM_OK : DM_ERR_MEMORY;
    for (size_t at = 0; at < n && status == DM_OK; at += BLOCK) {
        const size_t width = n - at < BLOCK ? n - at : BLOCK, left = n - at - width;
        below it = {a + (at + width) * ld + at, a + at * ld + at, negated, width, ld};
        factor_block(a + at * ld + at, width, ld);
        dm_parallel(dm_threads(), left, dm_parallel_grain(width * width), solve_rows, &it);
        if (left > 0) {
            status = dm_matmul_forward(DM_PRECISION_F32, a + (at + width) * ld + at + width, ld, negated, width, it.rows, ld,
                                       left, left, width, true);
        }
    }
    dm_free(negated);
    return status;
}

/* ---- Neighbours ---- */

/* Squared norm of A^-1 H_bc B^-T, A and B the factors of the two units' own blocks. */
static double closeness(const dm_compress_moments *it, size_t b, size_t c) {
    const float *fa = it->own + b * DM_UNIT_SQUARE, *fb = it->own + c * DM_UNIT_SQUARE;
    float x[DM_UNIT_SQUARE];
    double norm = 0.0;
    for (size_t i = 0; i < UNIT; i++) {
        memcpy(x + i * UNIT, it->h + (b * UNIT + i) * it->columns + c * UNIT, UNIT * sizeof *x);
        for (size_t k = 0; k < i; k++) {
            for (size_t j = 0; j < UNIT; j++) {
                x[i * UNIT + j] -= fa[i * UNIT + k] * x[k * UNIT + j];
            }
        }
        for (size_t j = 0; j < UNIT; j++) {
            x[i * UNIT + j] /= fa[i * UNIT + i];
        }
    }
    for (size_t i = 0; i < UNIT; i++) {
        float *row = x + i * UNIT;
        for (size_t j = 0; j < UNIT; j++) {
            for (size_t k = 0; k < j; k++) {
                row[j] -= row[k] * fb[j * UNIT + k];
            }
            row[j] /= fb[j * UNIT + j];
            norm += (double)row[j] * row[j];
        }
    }
    return norm;
}

typedef struct search {
    dm_compress_moments *moments;
    const dm_neighbour_choice *choice;
    double *near; /* [units, units] */
} search;

static void measure_unit(void *user, size_t begin, size_t end, int thread) {
    const search *s = user;
    dm_random random;
    (void)thread;
    for (size_t b = begin; b < end; b++) {
        const size_t units = s->moments->units;
        dm_random_seed(&random, s->choice->seed + b);
        for (size_t c = 0; c < units; c++) {
            if (s->choice->random) {
                s->near[b * units + c] = dm_random_uniform(&random);
            } else if (c >= b) {
                s->near[b * units + c] = s->near[c * units + b] = closeness(s->moments, b, c);
            }
        }
    }
}

static void pick_nearest(dm_compress_moments *it, double *near, size_t b) {
    near[b] = -1.0;
    for (size_t k = 0; k < it->n_neighbours; k++) {
        size_t best = 0;
        for (size_t c = 1; c < it->units; c++) {
            best = near[c] > near[best] ? c : best;
        }
        it->neighbours[b * it->n_neighbours + k] = (uint16_t)best;
        near[best] = -1.0;
    }
}

static dm_status find_neighbours(dm_compress_moments *it, const dm_neighbour_choice *choice) {
    it->n_neighbours = it->h == NULL ? 0 : choice->n < it->units ? choice->n : it->units - 1;
    if (it->n_neighbours == 0) {
        return DM_OK;
    }
    search s = {it, choice, dm_alloc(it->units * it->units, sizeof *s.near)};
    it->neighbours = dm_alloc(it->units * it->n_neighbours, sizeof *it->neighbours);
    if (s.near == NULL || it->neighbours == NULL) {
        dm_free(s.near);
        return DM_ERR_MEMORY;
    }
    dm_parallel(dm_threads(), it->units, 1, measure_unit, &s);
    for (size_t b = 0; b < it->units; b++) {
        pick_nearest(it, s.near + b * it->units, b);
    }
    dm_free(s.near);
    return DM_OK;
}

/* ---- All together ---- */

static void take_blocks(float *to, const float *from, size_t columns) {
    for (size_t j = 0; j < columns; j++) {
        const size_t unit = j / UNIT, i = j % UNIT;
        memcpy(to + unit * DM_UNIT_SQUARE + i * UNIT, from + j * columns + unit * UNIT, UNIT * sizeof *to);
    }
}

/* Without H everything is its diagonal. */
static void make_diagonal(dm_compress_moments *it) {
    for (size_t j = 0; j < it->columns; j++) {
        const size_t at = j / UNIT * DM_UNIT_SQUARE + j % UNIT * (UNIT + 1);
        it->own[at] = it->conditional[at] = sqrtf(it->diagonal[j]);
    }
}

static dm_status make_factors(dm_compress_moments *it, const float *h, float damping) {
    const size_t n = it->columns;
    it->h = dm_alloc(n * n, sizeof *it->h);
    it->lower = dm_alloc(n * n, sizeof *it->lower);
    if (it->h == NULL || it->lower == NULL) {
        return DM_ERR_MEMORY;
    }
    memcpy(it->h, h, n * n * sizeof *h);
    for (size_t j = 0; j < n; j++) {
        it->h[j * n + j] += damping;
    }
    memcpy(it->lower, it->h, n * n * sizeof *h);
    DM_TRY(dm_cholesky(it->lower, n, n));
    take_blocks(it->conditional, it->lower, n);
    take_blocks(it->own, it->h, n);
    for (size_t u = 0; u < it->units; u++) {
        factor_block(it->own + u * DM_UNIT_SQUARE, UNIT, UNIT);
    }
    return DM_OK;
}

static dm_status make_all(dm_compress_moments *it, const float *h, const float *diagonal, const dm_neighbour_choice *choice) {
    double mean = 0.0;
    if (it->diagonal == NULL || it->conditional == NULL || it->own == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t j = 0; j < it->columns; j++) {
        mean += fmax(diagonal[j], 0.0) / (double)it->columns;
    }
    const float damping = DAMPING * (float)mean + 1e-20f;
    for (size_t j = 0; j < it->columns; j++) {
        it->diagonal[j] = fmaxf(diagonal[j], 0.0f) + damping;
    }
    if (h != NULL) {
        DM_TRY(make_factors(it, h, damping));
    } else {
        make_diagonal(it);
    }
    return find_neighbours(it, choice);
}

dm_status dm_compress_moments_make(dm_compress_moments *out, const float *h, const float *diagonal, size_t columns,
                                   const dm_neighbour_choice *choice) {
    *out = (dm_compress_moments){.columns = columns, .units = columns / UNIT};
    out->diagonal = dm_alloc(columns, sizeof *out->diagonal);
    out->conditional = dm_alloc(out->units, DM_UNIT_SQUARE * sizeof *out->conditional);
    out->own = dm_alloc(out->units, DM_UNIT_SQUARE * sizeof *out->own);
    dm_status status = make_all(out, h, diagonal, choice);
    if (status != DM_OK) {
        dm_compress_moments_free(out);
    }
    return status;
}

void dm_compress_moments_free(dm_compress_moments *it) {
    dm_free(it->h);
    dm_free(it->lower);
    dm_free(it->diagonal);
    dm_free(it->conditional);
    dm_free(it->own);
    dm_free(it->neighbours);
    *it = (dm_compress_moments){0};
}
