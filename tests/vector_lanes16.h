/* The row operations at 16 lanes without AVX-512, so that its width and its tails are tested on every machine. Runs
 * where AVX2 does; on other processor families, everywhere. */
#ifndef DM_TESTS_VECTOR_LANES16_H
#define DM_TESTS_VECTOR_LANES16_H

#include "kernels/vector.h"

extern const dm_vector_table dm_vector_lanes16;

#endif
