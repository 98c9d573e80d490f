/* Points in the plane that are near where vectors are alike. */
#ifndef DM_VISUALIZATION_LAYOUT_H
#define DM_VISUALIZATION_LAYOUT_H

#include "base/status.h"

enum { DM_LAYOUT_MOST = 2048 /* points: time and memory go with their square */ };

/*
 * Places [n, 2], 0 to 1, of rows [n, dim] of length 1. They start at the two principal components (Hotelling 1933), found by
 * power iteration from the seed, and then lessen the stress, the squared differences between distances here and there, each over
 * its square, by majorization (de Leeuw 1977; Gansner, Koren and North 2004), which never raises it. Finally those that overlap
 * push each other apart. The same rows and seed give the same places. DM_ERR_ARGUMENT for more than DM_LAYOUT_MOST points.
 */
dm_status dm_layout(const float *rows, size_t n, size_t dim, uint64_t seed, float *places);

/* The stress of places: 0 where all distances are as among the rows, up to a common factor. */
dm_status dm_layout_stress(const float *rows, size_t n, size_t dim, const float *places, double *out);

#endif
