/*
 * How reads get to the kernel and back: through a ring of io_uring's, or by threads that call pread(). What the reads mean, and
 * what is still to be done of one that came back short, is the business of disk_reader.c.
 */
#ifndef DM_BASE_DISK_QUEUE_H
#define DM_BASE_DISK_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct dm_disk_request {
    int descriptor;
    uint64_t offset;
    size_t bytes; /* less than 2^31 */
    uint8_t *to;
    ssize_t result; /* once it is back: as of pread(), but -errno where that fails */
    bool sent;      /* and not back */
    struct dm_disk_request *next;
} dm_disk_request;

/* First in, first out. */
typedef struct dm_disk_requests {
    dm_disk_request *first, *last; /* NULL: none; `last` counts only where there is a first */
} dm_disk_requests;

static inline void dm_disk_requests_add(dm_disk_requests *list, dm_disk_request *request) {
    request->next = NULL;
    if (list->first == NULL) {
        list->first = request;
    } else {
        list->last->next = request;
    }
    list->last = request;
}

static inline dm_disk_request *dm_disk_requests_take(dm_disk_requests *list) {
    dm_disk_request *request = list->first;
    list->first = request != NULL ? request->next : NULL;
    return request;
}

/* All of `more`, which is empty then. */
static inline void dm_disk_requests_join(dm_disk_requests *list, dm_disk_requests *more) {
    for (dm_disk_request *request; (request = dm_disk_requests_take(more)) != NULL;) {
        dm_disk_requests_add(list, request);
    }
}

/* One thread at a time calls these. */
typedef struct dm_disk_queue_kind {
    const char *name;
    void *(*create)(unsigned depth); /* NULL where it cannot be had */
    /* Up to `depth` may be on their way; their memory stays until they are back. */
    void (*send)(void *queue, dm_disk_requests requests);
    /* Those that are back, in the order of their completion; waits up to so many seconds for one, 0: not at all. */
    dm_disk_requests (*receive)(void *queue, double seconds);
    void (*free)(void *queue); /* while nothing is on its way */
} dm_disk_queue_kind;

/* DM_LIBURING is 1 where the library is built with liburing. */
#if DM_LIBURING
extern const dm_disk_queue_kind dm_disk_ring;
#endif
extern const dm_disk_queue_kind dm_disk_threads;

/* Carries a request out on this thread. */
void dm_disk_request_run(dm_disk_request *request);

#endif
