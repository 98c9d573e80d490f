/* What several measurements say: their median and how far they are apart. */
#ifndef DM_BASE_SPREAD_H
#define DM_BASE_SPREAD_H

#include <stddef.h>

typedef struct dm_spread {
    double least, median, most; /* NAN of nothing; the median of an even number is the mean of the two in the middle */
} dm_spread;

/* Sorts values[n]. */
dm_spread dm_spread_of(double *values, size_t n);

#endif
