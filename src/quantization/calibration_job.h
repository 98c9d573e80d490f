/*
 * A calibration under way: inputs' moments are measured for groups of slots that fit into memory, one reading of the text each;
 * what is measured is kept in parts beside the file to come, so that an interrupted calibration goes on where it was, with the
 * same bits.
 */
#ifndef DM_QUANTIZATION_CALIBRATION_JOB_H
#define DM_QUANTIZATION_CALIBRATION_JOB_H

#include "quantization/calibration_file.h"
#include "quantization/calibration_windows.h"

typedef struct dm_calibration_job {
    const dm_model *model;
    const char *out;                       /* the file to come */
    const dm_calibration_windows *windows; /* of the text */
    dm_calibration_origin origin;
    uint64_t memory;         /* bytes for sums */
    double every;            /* seconds between checkpoints */
    dm_calibrate_fn on_step; /* told after each window; NULL: nobody */
    void *user;
    uint64_t done, total; /* tokens to read, groups and slopes together */
    uint64_t skipped;     /* of `done`: what a run before this one read */
    double started;       /* dm_seconds() */
    double saved;         /* dm_seconds() of the last checkpoint */
} dm_calibration_job;

/* How many groups there are. */
size_t dm_calibration_groups(const dm_calibration_job *job);
/* Measures all of them. DM_ERR_INTERRUPTED after dm_interrupt(), with everything kept. */
dm_status dm_calibration_measure(dm_calibration_job *job);
/* Puts the parts into the file to come, with that of the slopes: DM_CALIBRATION_SLOPES, DM_CALIBRATION_SCALED or 0: none. */
dm_status dm_calibration_finish(const dm_calibration_job *job, size_t slopes);
/* Removes the parts. */
void dm_calibration_clear(const dm_calibration_job *job);

/* Path of a part (malloc), the caller's to free(); NULL when memory is short. The slopes' are these. */
char *dm_calibration_part(const dm_calibration_job *job, size_t group);
#define DM_CALIBRATION_SLOPES SIZE_MAX
#define DM_CALIBRATION_SCALED (SIZE_MAX - 1)

/* What follows a window of `tokens` tokens: reports, and tells whether it is time for a checkpoint. */
bool dm_calibration_step(dm_calibration_job *job, const char *stage, uint64_t tokens);
/* `tokens` tokens were read by a run before this one. */
void dm_calibration_skip(dm_calibration_job *job, uint64_t tokens);

#endif
