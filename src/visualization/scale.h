/* From values to places along an axis, with ticks at round numbers. */
#ifndef DM_VISUALIZATION_SCALE_H
#define DM_VISUALIZATION_SCALE_H

#include <stdbool.h>
#include <stddef.h>

enum { DM_SCALE_TICKS = 16 };

typedef struct dm_scale {
    double low, high;   /* values at its ends, finite, low < high */
    double start, stop; /* their places */
    bool logarithmic;   /* low > 0 */
    int n_ticks;
    double ticks[DM_SCALE_TICKS]; /* within the ends, rising */
} dm_scale;

/* The range of the finite ones of n values, widening [*low, *high]; start from INFINITY, -INFINITY. With `positive`, only of
 * those above 0. */
void dm_range_of(const double *values, size_t n, bool positive, double *low, double *high);

/* A scale over [low, high], widened to round numbers unless `tight`; a range that is empty, of one value or not finite is widened
 * too. A logarithmic one needs a low above 0, else it is linear. */
dm_scale dm_scale_make(double low, double high, bool logarithmic, bool tight);

/* The place of a value, beyond the ends if the value is; NaN for what has none. */
double dm_scale_place(const dm_scale *scale, double value);

#endif
