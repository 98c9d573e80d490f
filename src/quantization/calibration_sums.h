/* Sums of gate^2 x x^T over tokens, for some of a model's slots at a time. */
#ifndef DM_QUANTIZATION_CALIBRATION_SUMS_H
#define DM_QUANTIZATION_CALIBRATION_SUMS_H

#include "model/observer.h"
#include "quantization/calibration_slots.h"

/* Of slots first .. end - 1. */
typedef struct dm_calibration_sums {
    const dm_config *config; /* borrowed */
    size_t first, end;
    float **products; /* [end - first] each [columns, columns], of which the lower triangle counts */
    uint64_t *visits; /* [end - first] rows seen */
    double *squares;  /* [end - first] sum of gate^2 */
    double *fourths;  /* [end - first] sum of gate^4 */
    float *memory;    /* what products point into */
    float *scaled;    /* [capacity] rows times their gates */
    size_t capacity;  /* floats there */
} dm_calibration_sums;

/* Bytes that the sums of a slot take. */
size_t dm_calibration_sums_bytes(const dm_calibration_slot *slot);
/* The end of the run of slots from `first` on whose sums fit into `memory` bytes; one at least. */
size_t dm_calibration_group_end(const dm_config *config, size_t first, uint64_t memory);

/* All zero. Free with dm_calibration_sums_free(), after a failure too. */
dm_status dm_calibration_sums_create(const dm_config *config, size_t first, size_t end, dm_calibration_sums *out);
void dm_calibration_sums_free(dm_calibration_sums *sums);

/* Adds what is seen; slots outside are passed over. A dm_observer's `see`, whose user is the sums. In float32, by pieces of a
 * batch: after t tokens a sum is within about t / 256 roundings of the exact one at worst. */
dm_status dm_calibration_sums_see(void *user, const dm_observation *seen);

#endif
