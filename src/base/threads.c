#include "base/threads.h"

#include <omp.h>
#include <stdio.h>
#include <time.h>

void dm_set_threads(int threads) {
    omp_set_num_threads(threads > 0 ? threads : omp_get_num_procs());
}

int dm_threads(void) {
    return omp_get_max_threads();
}

double dm_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void dm_failure_note(dm_failure *failure, dm_status status) {
    if (status == DM_OK) {
        return;
    }
#pragma omp critical(dm_failure)
    if (failure->status == DM_OK) {
        failure->status = status;
        snprintf(failure->message, sizeof failure->message, "%s", dm_error_message());
    }
}

dm_status dm_failure_raise(const dm_failure *failure) {
    return failure->status == DM_OK ? DM_OK : dm_fail(failure->status, "%s", failure->message);
}
