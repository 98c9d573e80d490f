#include "core/linear_system.h"

#include <math.h>

static void swap_rows(double *a, double *b, size_t n, size_t first, size_t second) {
    for (size_t j = 0; j < n; j++) {
        double kept = a[first * n + j];
        a[first * n + j] = a[second * n + j];
        a[second * n + j] = kept;
    }
    double kept = b[first];
    b[first] = b[second];
    b[second] = kept;
}

bool dm_linear_solve(double *a, double *b, size_t n) {
    for (size_t k = 0; k < n; k++) {
        size_t pivot = k;
        for (size_t i = k + 1; i < n; i++) {
            pivot = fabs(a[i * n + k]) > fabs(a[pivot * n + k]) ? i : pivot;
        }
        if (!(fabs(a[pivot * n + k]) > 1e-280)) {
            return false;
        }
        if (pivot != k) {
            swap_rows(a, b, n, k, pivot);
        }
        for (size_t i = k + 1; i < n; i++) {
            double factor = a[i * n + k] / a[k * n + k];
            for (size_t j = k + 1; j < n && factor != 0.0; j++) {
                a[i * n + j] -= factor * a[k * n + j];
            }
            b[i] -= factor * b[k];
        }
    }
    for (size_t k = n; k-- > 0;) {
        for (size_t j = k + 1; j < n; j++) {
            b[k] -= a[k * n + j] * b[j];
        }
        b[k] /= a[k * n + k];
        if (!isfinite(b[k])) {
            return false;
        }
    }
    return true;
}
