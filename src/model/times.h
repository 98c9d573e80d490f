/* Where the time of forward passes goes, by kind of operation. Off, it costs a comparison for each block of a layer. */
#ifndef DM_MODEL_TIMES_H
#define DM_MODEL_TIMES_H

#include "base/threads.h"
#include "dilmodeli.h"

typedef struct dm_times {
    bool on;
    double mark;                   /* when the last lap ended */
    double seconds[DM_OPERATIONS]; /* of the thread that runs the passes, what it waits for others included */
} dm_times;

/* A pass begins. */
static inline void dm_times_start(dm_times *times) {
    if (times->on) {
        times->mark = dm_seconds();
    }
}

/* What was done since the last lap was of this kind. */
static inline void dm_times_lap(dm_times *times, dm_operation operation) {
    if (times->on) {
        double now = dm_seconds();
        times->seconds[operation] += now - times->mark;
        times->mark = now;
    }
}

#endif
