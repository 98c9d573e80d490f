#include "visualization/layout.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"

enum { POWER_STEPS = 60, STRESS_STEPS = 60, PUSHES = 40 };

typedef struct layout {
    size_t n, dim;
    float *rows;     /* [n, dim] centred */
    float *distance; /* [n, n] among rows, at least a small one */
    double *place;   /* [n, 2] */
} layout;

/* ---- Principal components ---- */

static double dot(const double *a, const float *b, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * (double)b[i];
    }
    return sum;
}

static void centre(const float *rows, layout *it) {
    for (size_t d = 0; d < it->dim; d++) {
        double mean = 0.0;
        for (size_t i = 0; i < it->n; i++) {
            mean += (double)rows[i * it->dim + d] / (double)it->n;
        }
        for (size_t i = 0; i < it->n; i++) {
            it->rows[i * it->dim + d] = (float)((double)rows[i * it->dim + d] - mean);
        }
    }
}

/* Orthogonal to `other`, unless NULL, and of length 1, if it can be. */
static void straighten(double *axis, const double *other, size_t dim) {
    double along = 0.0, square = 0.0;
    for (size_t d = 0; other != NULL && d < dim; d++) {
        along += axis[d] * other[d];
    }
    for (size_t d = 0; d < dim; d++) {
        axis[d] -= other != NULL ? along * other[d] : 0.0;
        square += axis[d] * axis[d];
    }
    for (size_t d = 0; d < dim && square > 0.0; d++) {
        axis[d] /= sqrt(square);
    }
}

/* axis [dim] becomes the direction of greatest variance that is orthogonal to `other`; sums [dim] is scratch. */
static void find_axis(const layout *it, double *axis, const double *other, double *sums, dm_random *random) {
    for (size_t d = 0; d < it->dim; d++) {
        axis[d] = dm_random_normal(random);
    }
    straighten(axis, other, it->dim);
    for (int step = 0; step < POWER_STEPS; step++) {
        memset(sums, 0, it->dim * sizeof *sums);
        for (size_t i = 0; i < it->n; i++) {
            const float *row = it->rows + i * it->dim;
            double along = dot(axis, row, it->dim);
            for (size_t d = 0; d < it->dim; d++) {
                sums[d] += along * (double)row[d];
            }
        }
        memcpy(axis, sums, it->dim * sizeof *axis);
        straighten(axis, other, it->dim);
    }
}

static dm_status project(layout *it, uint64_t seed) {
    double *axes = dm_alloc(3 * it->dim, sizeof *axes);
    if (axes == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t a = 0; a < 2; a++) {
        double *axis = axes + a * it->dim;
        find_axis(it, axis, a > 0 ? axes : NULL, axes + 2 * it->dim, &random);
        for (size_t i = 0; i < it->n; i++) { /* rows that are alike must not lie on one another */
            it->place[2 * i + a] = dot(axis, it->rows + i * it->dim, it->dim) + 1e-3 * (dm_random_uniform(&random) - 0.5);
        }
    }
    dm_free(axes);
    return DM_OK;
}

/* ---- Stress ---- */

static void measure_distances(layout *it) {
    for (size_t i = 0; i < it->n; i++) {
        for (size_t j = 0; j < it->n; j++) {
            double square = 0.0;
            for (size_t d = 0; d < it->dim; d++) {
                double apart = (double)it->rows[i * it->dim + d] - (double)it->rows[j * it->dim + d];
                square += apart * apart;
            }
            it->distance[i * it->n + j] = (float)fmax(sqrt(square), 0.02);
        }
    }
}

/* One step of majorization, a point after the other: each goes to the weighted mean of where the others want it. */
static void lessen_stress(layout *it) {
    for (size_t i = 0; i < it->n; i++) {
        double weights = 0.0, x = 0.0, y = 0.0;
        for (size_t j = 0; j < it->n; j++) {
            if (j == i) {
                continue;
            }
            double d = (double)it->distance[i * it->n + j], weight = 1.0 / (d * d);
            double dx = it->place[2 * i] - it->place[2 * j], dy = it->place[2 * i + 1] - it->place[2 * j + 1];
            double far = fmax(hypot(dx, dy), 1e-9);
            x += weight * (it->place[2 * j] + d * dx / far);
            y += weight * (it->place[2 * j + 1] + d * dy / far);
            weights += weight;
        }
        it->place[2 * i] = weights > 0.0 ? x / weights : 0.0;
        it->place[2 * i + 1] = weights > 0.0 ? y / weights : 0.0;
    }
}

/* ---- Into the square ---- */

/* To 0 .. 1 in both directions, by one factor; the shorter direction lies in the middle. */
static void fit_square(layout *it) {
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (size_t i = 0; i < 2 * it->n; i++) {
        low[i % 2] = fmin(low[i % 2], it->place[i]);
        high[i % 2] = fmax(high[i % 2], it->place[i]);
    }
    double side = fmax(fmax(high[0] - low[0], high[1] - low[1]), 1e-9);
    for (size_t i = 0; i < 2 * it->n; i++) {
        it->place[i] = 0.5 + (it->place[i] - (low[i % 2] + high[i % 2]) / 2) / side;
    }
}

/* Those that are nearer than circles allow push each other apart, half way each. */
static void push_apart(layout *it) {
    const double room = 0.75 / sqrt((double)it->n);
    for (size_t i = 0; i < it->n; i++) {
        for (size_t j = i + 1; j < it->n; j++) {
            double dx = it->place[2 * i] - it->place[2 * j], dy = it->place[2 * i + 1] - it->place[2 * j + 1];
            double far = fmax(hypot(dx, dy), 1e-9), push = far < room ? 0.25 * (room - far) / far : 0.0;
            it->place[2 * i] += push * dx;
            it->place[2 * i + 1] += push * dy;
            it->place[2 * j] -= push * dx;
            it->place[2 * j + 1] -= push * dy;
        }
    }
}

static void free_layout(layout *it) {
    dm_free(it->rows);
    dm_free(it->distance);
    dm_free(it->place);
}

static dm_status make_layout(const float *rows, size_t n, size_t dim, layout *it) {
    *it = (layout){.n = n, .dim = dim};
    if (n == 0 || n > DM_LAYOUT_MOST || dim == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a picture of %zu points of %zu numbers each: expected 1 to %d points", n, dim,
                       DM_LAYOUT_MOST);
    }
    it->rows = dm_alloc(n * dim, sizeof *it->rows);
    it->distance = dm_alloc(n * n, sizeof *it->distance);
    it->place = dm_alloc(2 * n, sizeof *it->place);
    if (it->rows == NULL || it->distance == NULL || it->place == NULL) {
        free_layout(it);
        return DM_ERR_MEMORY;
    }
    centre(rows, it);
    measure_distances(it);
    return DM_OK;
}

dm_status dm_layout(const float *rows, size_t n, size_t dim, uint64_t seed, float *places) {
    layout it;
    DM_TRY(make_layout(rows, n, dim, &it));
    dm_status status = project(&it, seed);
    for (int step = 0; step < STRESS_STEPS && status == DM_OK; step++) {
        lessen_stress(&it);
    }
    fit_square(&it);
    for (int push = 0; push < PUSHES; push++) {
        push_apart(&it);
    }
    fit_square(&it);
    for (size_t i = 0; i < 2 * n && status == DM_OK; i++) {
        places[i] = (float)it.place[i];
    }
    free_layout(&it);
    return status;
}

dm_status dm_layout_stress(const float *rows, size_t n, size_t dim, const float *places, double *out) {
    layout it;
    DM_TRY(make_layout(rows, n, dim, &it));
    double along = 0.0, square = 0.0, pairs = 0.0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            double there = (double)it.distance[i * n + j];
            double here = hypot((double)(places[2 * i] - places[2 * j]), (double)(places[2 * i + 1] - places[2 * j + 1]));
            along += here / there;
            square += here * here / (there * there);
            pairs += 1.0;
        }
    }
    /* the factor that suits best is along / square */
    *out = square > 0.0 ? pairs - along * along / square : 0.0;
    free_layout(&it);
    return DM_OK;
}
