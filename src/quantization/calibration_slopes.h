/* Sums of squared gradients with respect to the rows of what each matrix gives. */
#ifndef DM_QUANTIZATION_CALIBRATION_SLOPES_H
#define DM_QUANTIZATION_CALIBRATION_SLOPES_H

#include "quantization/calibration_slots.h"

typedef struct dm_calibration_slopes {
    const dm_config *config; /* borrowed */
    float *sums;             /* [dm_calibration_slopes_count()] sum over tokens of the squared gradient of the loss, by rows */
    double *squares;         /* [slots] sum of gate^2 over the same tokens: what to divide by */
    uint64_t *visits;        /* [slots] those tokens */
} dm_calibration_slopes;

/* All zero. Free with dm_calibration_slopes_free(), after a failure too. */
dm_status dm_calibration_slopes_create(const dm_config *config, dm_calibration_slopes *out);
void dm_calibration_slopes_free(dm_calibration_slopes *slopes);

/* Rows of all matrices. */
uint64_t dm_calibration_slopes_count(const dm_config *config);
/* Where the rows of one matrix begin in `sums`; it has a slot. Those of a layer's experts follow one another. */
uint64_t dm_calibration_slopes_at(const dm_config *config, int32_t layer, dm_role role, int32_t expert);
/* How many matrices of a role a layer has. */
size_t dm_calibration_copies(const dm_config *config, dm_role role);

#endif
