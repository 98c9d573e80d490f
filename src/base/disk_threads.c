/* Requests lie in one list until a thread takes them, and in another until they are received. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/disk_queue.h"

enum { MOST_THREADS = 64 }; /* more reads at a time gain nothing that would be worth the threads */

typedef struct pool {
    pthread_mutex_t lock;          /* of the two lists and `closing` */
    pthread_cond_t sent, finished; /* the second by CLOCK_MONOTONIC */
    dm_disk_requests waiting, done;
    bool closing;
    unsigned count;
    pthread_t threads[MOST_THREADS]; /* [count] */
} pool;

void dm_disk_request_run(dm_disk_request *request) {
    ssize_t result = pread(request->descriptor, request->to, request->bytes, (off_t)request->offset);
    request->result = result >= 0 ? result : -errno;
}

static void *work(void *user) {
    pool *it = user;
    pthread_mutex_lock(&it->lock);
    while (!it->closing) {
        dm_disk_request *request = dm_disk_requests_take(&it->waiting);
        if (request == NULL) {
            pthread_cond_wait(&it->sent, &it->lock);
            continue;
        }
        pthread_mutex_unlock(&it->lock);
        dm_disk_request_run(request);
        pthread_mutex_lock(&it->lock);
        dm_disk_requests_add(&it->done, request);
        pthread_cond_signal(&it->finished);
    }
    pthread_mutex_unlock(&it->lock);
    return NULL;
}

static void destroy(void *queue) {
    pool *it = queue;
    pthread_mutex_lock(&it->lock);
    it->closing = true;
    pthread_cond_broadcast(&it->sent);
    pthread_mutex_unlock(&it->lock);
    for (unsigned i = 0; i < it->count; i++) {
        pthread_join(it->threads[i], NULL);
    }
    pthread_cond_destroy(&it->finished);
    pthread_cond_destroy(&it->sent);
    pthread_mutex_destroy(&it->lock);
    free(it);
}

/* Where threads cannot be had, there are fewer. */
static void *create(unsigned depth) {
    pool *it = calloc(1, sizeof *it);
    if (it == NULL) {
        return NULL;
    }
    pthread_mutex_init(&it->lock, NULL);
    pthread_cond_init(&it->sent, NULL);
    pthread_condattr_t by_clock;
    pthread_condattr_init(&by_clock);
    pthread_condattr_setclock(&by_clock, CLOCK_MONOTONIC);
    pthread_cond_init(&it->finished, &by_clock);
    pthread_condattr_destroy(&by_clock);
    unsigned wanted = depth < MOST_THREADS ? depth : MOST_THREADS;
    while (it->count < wanted && pthread_create(&it->threads[it->count], NULL, work, it) == 0) {
        it->count++;
    }
    if (it->count == 0) {
        destroy(it);
        return NULL;
    }
    return it;
}

static void send_requests(void *queue, dm_disk_requests requests) {
    pool *it = queue;
    pthread_mutex_lock(&it->lock);
    for (dm_disk_request *request; (request = dm_disk_requests_take(&requests)) != NULL;) {
        dm_disk_requests_add(&it->waiting, request);
        pthread_cond_signal(&it->sent);
    }
    pthread_mutex_unlock(&it->lock);
}

static struct timespec in(double seconds) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double nanoseconds = (double)end.tv_nsec + fmod(seconds, 1.0) * 1e9;
    end.tv_sec += (time_t)seconds + (nanoseconds >= 1e9);
    end.tv_nsec = (long)(nanoseconds >= 1e9 ? nanoseconds - 1e9 : nanoseconds);
    return end;
}

static dm_disk_requests receive(void *queue, double seconds) {
    pool *it = queue;
    const struct timespec end = in(seconds);
    bool late = seconds == 0.0;
    pthread_mutex_lock(&it->lock);
    while (!late && it->done.first == NULL) {
        late = pthread_cond_timedwait(&it->finished, &it->lock, &end) == ETIMEDOUT;
    }
    dm_disk_requests done = it->done;
    it->done.first = NULL;
    pthread_mutex_unlock(&it->lock);
    return done;
}

const dm_disk_queue_kind dm_disk_threads = {
    .name = "threads", .create = create, .send = send_requests, .receive = receive, .free = destroy};
