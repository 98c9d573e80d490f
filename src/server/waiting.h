/* Waiting for another thread, for a limited time. */
#ifndef DM_SERVER_WAITING_H
#define DM_SERVER_WAITING_H

#include <pthread.h>
#include <time.h>

/* A condition whose times are of the clock that never steps back. */
static inline void dm_condition_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* `ms` milliseconds from now on that clock. */
static inline struct timespec dm_time_after(int ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return until;
}

#endif
