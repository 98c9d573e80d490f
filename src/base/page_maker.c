/*
 * Memory that nobody has touched has no pages: they are found, cleared and, below a virtual machine, had from its host when it is
 * touched first, 10 GB/s at best and less than 1 GB/s of the host's. Source: madvise(2), sched(7).
 */
#include "base/page_maker.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/pages.h"

struct dm_page_maker {
    pthread_t thread;
    atomic_bool stop;
    size_t n;
    dm_stretch stretches[];
};

static void *make(void *user) {
    dm_page_maker *it = user;
    const struct sched_param none = {0};
    sched_setscheduler(0, SCHED_IDLE, &none);
    for (size_t i = 0; i < it->n; i++) {
        uint8_t *const data = it->stretches[i].data;
        const size_t bytes = it->stretches[i].bytes;
        for (size_t at = 0; at < bytes; at += DM_HUGE_PAGE) {
            const size_t left = bytes - at;
            if (atomic_load(&it->stop) || !dm_pages_make(data + at, left < DM_HUGE_PAGE ? left : DM_HUGE_PAGE)) {
                return NULL;
            }
        }
    }
    return NULL;
}

dm_page_maker *dm_page_maker_start(const dm_stretch *stretches, size_t n) {
    dm_page_maker *it = calloc(1, sizeof *it + n * sizeof *stretches);
    if (it == NULL) {
        return NULL;
    }
    it->n = n;
    for (size_t i = 0; i < n; i++) {
        it->stretches[i] = stretches[i];
    }
    if (pthread_create(&it->thread, NULL, make, it) != 0) {
        free(it);
        return NULL;
    }
    return it;
}

void dm_page_maker_stop(dm_page_maker *it) {
    if (it != NULL) {
        atomic_store(&it->stop, true);
        pthread_join(it->thread, NULL);
        free(it);
    }
}
