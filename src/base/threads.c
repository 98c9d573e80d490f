#include "base/threads.h"

#include <omp.h>
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
