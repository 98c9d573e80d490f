/* Source: the manual pages of liburing 2.3. */
#include "base/disk_queue.h"

#if DM_LIBURING
#include <errno.h>
#include <liburing.h>
#include <math.h>
#include <stdlib.h>

#include "base/threads.h"

typedef struct ring {
    struct io_uring uring;
    dm_disk_requests unsent; /* what the kernel has not taken of those in the submission ring */
    size_t in_kernel;        /* requests that it has taken, and that are not back */
    bool refused;            /* it takes none any more: what comes is read here at once */
    dm_disk_requests done;   /* what was */
} ring;

/* Before Linux 5.6 there was no plain read, before 5.11 no end to waiting that is not a request itself. */
static bool does_enough(struct io_uring *uring) {
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    bool has = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ) && (uring->features & IORING_FEAT_EXT_ARG) != 0;
    io_uring_free_probe(probe);
    return has;
}

static void destroy(void *queue) {
    ring *it = queue;
    io_uring_queue_exit(&it->uring);
    free(it);
}

static void *create(unsigned depth) {
    ring *it = calloc(1, sizeof *it);
    if (it == NULL || io_uring_queue_init(depth, &it->uring, 0) != 0) {
        free(it);
        return NULL;
    }
    if (!does_enough(&it->uring)) {
        destroy(it);
        return NULL;
    }
    return it;
}

static void read_here(ring *it, dm_disk_requests *requests) {
    for (dm_disk_request *request; (request = dm_disk_requests_take(requests)) != NULL;) {
        dm_disk_request_run(request);
        dm_disk_requests_add(&it->done, request);
    }
}

/* Hands over what lies in the submission ring, with one call to the system as a rule. What the kernel has no memory for stays
 * there until some request is back; with none on its way, there is nothing to wait for. */
static void submit(ring *it) {
    while (it->unsent.first != NULL && !it->refused) {
        int taken = io_uring_submit(&it->uring);
        for (int i = 0; i < taken; i++) {
            dm_disk_requests_take(&it->unsent);
            it->in_kernel++;
        }
        if (taken <= 0 && taken != -EINTR) {
            it->refused = it->in_kernel == 0;
            break;
        }
    }
    if (it->refused) {
        read_here(it, &it->unsent);
    }
}

static void send_requests(void *queue, dm_disk_requests requests) {
    ring *it = queue;
    while (!it->refused && requests.first != NULL) {
        dm_disk_request *request = dm_disk_requests_take(&requests);
        struct io_uring_sqe *entry = io_uring_get_sqe(&it->uring); /* there are as many as requests on their way */
        io_uring_prep_read(entry, request->descriptor, request->to, (unsigned)request->bytes, request->offset);
        io_uring_sqe_set_data(entry, request);
        dm_disk_requests_add(&it->unsent, request);
    }
    submit(it);
    read_here(it, &requests);
}

static void take_completed(ring *it, dm_disk_requests *out) {
    enum { MOST = 64 };
    struct io_uring_cqe *entries[MOST];
    unsigned count = io_uring_peek_batch_cqe(&it->uring, entries, MOST);
    for (unsigned i = 0; i < count; i++) {
        dm_disk_request *request = io_uring_cqe_get_data(entries[i]);
        request->result = entries[i]->res;
        dm_disk_requests_add(out, request);
    }
    io_uring_cq_advance(&it->uring, count);
    it->in_kernel -= count;
}

static dm_disk_requests receive(void *queue, double seconds) {
    ring *it = queue;
    const double end = dm_seconds() + seconds;
    dm_disk_requests out = {0};
    for (;;) {
        submit(it); /* what there was no memory for before */
        dm_disk_requests_join(&out, &it->done);
        take_completed(it, &out);
        const double left = end - dm_seconds();
        if (out.first != NULL || seconds == 0.0 || left <= 0.0) {
            return out;
        }
        struct __kernel_timespec most = {.tv_sec = (long long)left, .tv_nsec = (long long)(fmod(left, 1.0) * 1e9)};
        struct io_uring_cqe *entry;
        io_uring_wait_cqe_timeout(&it->uring, &entry, &most); /* a signal may end it early */
    }
}

const dm_disk_queue_kind dm_disk_ring = {
    .name = "io_uring", .create = create, .send = send_requests, .receive = receive, .free = destroy};
#endif
