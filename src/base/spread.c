#include "base/spread.h"

#include <math.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

dm_spread dm_spread_of(double *values, size_t n) {
    if (n == 0) {
        return (dm_spread){NAN, NAN, NAN};
    }
    qsort(values, n, sizeof *values, by_size);
    return (dm_spread){values[0], 0.5 * (values[n / 2] + values[(n - 1) / 2]), values[n - 1]};
}
