#include "disk_faults.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/disk_queue.h"

static const int *_Atomic planned; /* atomic, as readers that were given up go on when the next faults are set */
static atomic_size_t n_planned, next;
static atomic_uint delay;
static int refusal;
static atomic_bool holding, late;

void disk_faults_set(const int *faults, size_t n) {
    atomic_store(&n_planned, 0);
    atomic_store(&planned, faults);
    atomic_store(&next, 0);
    atomic_store(&n_planned, n);
}

bool disk_faults_over(void) {
    return atomic_load(&next) >= atomic_load(&n_planned);
}

void disk_faults_delay(unsigned microseconds) {
    atomic_store(&delay, microseconds);
}

void disk_faults_hold(bool held) {
    atomic_store(&holding, held);
    atomic_store(&late, !held);
}

void disk_faults_refuse(int error) {
    refusal = error;
}

static int next_fault(void) {
    size_t i = atomic_fetch_add(&next, 1);
    return i < atomic_load(&n_planned) ? atomic_load(&planned)[i] : 0;
}

/* Of what was read, leaves the first bytes, and no trace of the rest. */
static ssize_t cut(uint8_t *bytes, ssize_t had, ssize_t left) {
    memset(bytes + left, 0xee, (size_t)(had - left));
    return left;
}

ssize_t __real_pread(int file, void *to, size_t bytes, off_t offset);
ssize_t __wrap_pread(int file, void *to, size_t bytes, off_t offset);

ssize_t __wrap_pread(int file, void *to, size_t bytes, off_t offset) {
    int fault = next_fault();
    while (atomic_load(&holding)) {
        usleep(1000);
    }
    if (atomic_load(&delay) > 0) {
        usleep(atomic_load(&delay));
    }
    if (fault > 0) {
        errno = fault;
        return -1;
    }
    ssize_t result = __real_pread(file, to, bytes, offset);
    return fault < 0 && -fault < result ? cut(to, result, -fault) : result;
}

#if DM_LIBURING
#include <liburing.h>

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
unsigned __real_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **entries, unsigned count);
unsigned __wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **entries, unsigned count);
int __real_io_uring_wait_cqe_timeout(struct io_uring *ring, struct io_uring_cqe **entry, struct __kernel_timespec *most);
int __wrap_io_uring_wait_cqe_timeout(struct io_uring *ring, struct io_uring_cqe **entry, struct __kernel_timespec *most);

int __wrap_io_uring_submit(struct io_uring *ring) {
    return refusal != 0 ? -refusal : __real_io_uring_submit(ring);
}

unsigned __wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **entries, unsigned count) {
    enum { NEW_ONES = 20000 /* microseconds in which they are read */ };
    if (atomic_load(&late)) {
        usleep(NEW_ONES);
    }
    unsigned n = atomic_load(&holding) ? 0 : __real_io_uring_peek_batch_cqe(ring, entries, count);
    for (unsigned i = n; i-- > 0 && atomic_load(&late);) {
        dm_disk_request *request = io_uring_cqe_get_data(entries[i]);
        atomic_store(&late, i > 0);
        entries[i]->res = (int)__real_pread(request->descriptor, request->to, request->bytes, (off_t)request->offset);
    }
    for (unsigned i = 0; i < n; i++) {
        int fault = next_fault();
        if (fault > 0) {
            entries[i]->res = -fault;
        } else if (fault < 0 && -fault < entries[i]->res) {
            dm_disk_request *request = io_uring_cqe_get_data(entries[i]);
            entries[i]->res = (int)cut(request->to, entries[i]->res, -fault);
        }
    }
    return n;
}

int __wrap_io_uring_wait_cqe_timeout(struct io_uring *ring, struct io_uring_cqe **entry, struct __kernel_timespec *most) {
    if (!atomic_load(&holding)) {
        return __real_io_uring_wait_cqe_timeout(ring, entry, most);
    }
    usleep((useconds_t)(most->tv_sec * 1000000 + most->tv_nsec / 1000));
    return -ETIME;
}
#endif
