#include "base/disk_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/disk_queue.h"

static const size_t most_at_once = 1 << 30; /* bytes of a request: Linux reads no more than 2 GiB less a page */

struct dm_disk_reader {
    dm_disk_reader *next; /* of those that were abandoned */
    size_t n_files, alignment;
    unsigned depth;
    dm_disk_file *files; /* [n_files] */
    const dm_disk_queue_kind *kind;
    void *queue;
    /* A read and the request for what is missing of it lie at the same place. */
    dm_disk_read *reads;       /* [depth] */
    dm_disk_request *requests; /* [depth], each in one of these lists or in the queue */
    dm_disk_requests idle, queued, received;
    size_t sent; /* requests that are in the queue */
    size_t in_flight;
    double patience; /* seconds */
    bool stalled;    /* they passed in a wait, and no read has ended since */
    dm_disk_counts counts;
};

/* ---- From beginning to end ---- */

static dm_status open_files(dm_disk_reader *it, const char *const *paths, size_t n_paths) {
    it->alignment = 1;
    for (size_t i = 0; i < n_paths; i++) {
        DM_TRY(dm_disk_file_open(paths[i], &it->files[i]));
        it->n_files++;
        it->alignment = it->files[i].alignment > it->alignment ? it->files[i].alignment : it->alignment;
    }
    return DM_OK;
}

static void create_queue(dm_disk_reader *it, bool threads_only) {
#if DM_LIBURING
    it->kind = &dm_disk_ring;
    it->queue = threads_only ? NULL : it->kind->create(it->depth);
#else
    (void)threads_only;
#endif
    if (it->queue == NULL) {
        it->kind = &dm_disk_threads;
        it->queue = it->kind->create(it->depth);
    }
}

dm_status dm_disk_reader_create(const char *const *paths, size_t n_paths, unsigned depth, bool threads_only,
                                dm_disk_reader **out) {
    *out = NULL;
    if (depth < 1 || depth > DM_DISK_MOST_DEPTH) {
        return dm_fail(DM_ERR_ARGUMENT, "%u disk reads at a time: expected 1 to %d", depth, DM_DISK_MOST_DEPTH);
    }
    dm_disk_reader *it = calloc(1, sizeof *it);
    if (it == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a disk reader");
    }
    it->depth = depth;
    it->patience = DM_DISK_PATIENCE;
    it->files = calloc(n_paths + 1, sizeof *it->files);
    it->reads = calloc(depth, sizeof *it->reads);
    it->requests = calloc(depth, sizeof *it->requests);
    if (it->files != NULL && it->reads != NULL && it->requests != NULL) {
        create_queue(it, threads_only);
    }
    dm_status status = it->queue != NULL ? open_files(it, paths, n_paths)
                                         : dm_fail(DM_ERR_MEMORY, "out of memory or threads for %u disk reads at a time", depth);
    if (status != DM_OK) {
        dm_disk_reader_free(it);
        return status;
    }
    for (unsigned i = 0; i < depth; i++) {
        dm_disk_requests_add(&it->idle, &it->requests[i]);
    }
    *out = it;
    return DM_OK;
}

static void receive(dm_disk_reader *it, double seconds) {
    it->received = it->kind->receive(it->queue, seconds);
    it->stalled = it->received.first == NULL && (it->stalled || seconds > 0.0);
    for (dm_disk_request *request = it->received.first; request != NULL; request = request->next) {
        request->sent = false;
        it->sent--;
    }
}

/* Readers that the system may still write to, kept where tools that look for leaks find them. */
static _Atomic(dm_disk_reader *) abandoned;

static bool abandon(dm_disk_reader *it) {
    it->next = atomic_load(&abandoned);
    while (!atomic_compare_exchange_weak(&abandoned, &it->next, it)) {
    }
    return false;
}

bool dm_disk_reader_free(dm_disk_reader *it) {
    if (it == NULL) {
        return true;
    }
    bool waits = !it->stalled; /* once is enough */
    while (it->sent > 0) {
        receive(it, waits ? it->patience : 0.0);
        if (it->received.first == NULL) {
            return abandon(it);
        }
    }
    if (it->queue != NULL) {
        it->kind->free(it->queue);
    }
    for (size_t i = 0; i < it->n_files; i++) {
        dm_disk_file_close(&it->files[i]);
    }
    free(it->files);
    free(it->reads);
    free(it->requests);
    free(it);
    return true;
}

void dm_disk_reader_set_patience(dm_disk_reader *it, double seconds) {
    it->patience = seconds;
}

size_t dm_disk_reader_alignment(const dm_disk_reader *it) {
    return it->alignment;
}

const dm_disk_file *dm_disk_reader_file(const dm_disk_reader *it, size_t file) {
    return &it->files[file];
}

const char *dm_disk_reader_kind(const dm_disk_reader *it) {
    return it->kind->name;
}

size_t dm_disk_reader_in_flight(const dm_disk_reader *it) {
    return it->in_flight;
}

dm_disk_counts dm_disk_reader_counts(const dm_disk_reader *it) {
    return it->counts;
}

/* ---- Submitting ---- */

static dm_status check_read(const dm_disk_reader *it, const dm_disk_read *read) {
    if (read->file >= it->n_files) {
        return dm_fail(DM_ERR_ARGUMENT, "a read of file %zu of %zu", read->file, it->n_files);
    }
    const dm_disk_file *file = &it->files[read->file];
    if (((read->offset | read->bytes | (uintptr_t)read->to) & (it->alignment - 1)) != 0 || read->bytes == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: a read of %zu bytes at %" PRIu64 " to %p: expected multiples of %zu", file->path,
                       read->bytes, read->offset, read->to, it->alignment);
    }
    uint64_t left = read->offset < file->size ? file->size - read->offset : 0;
    if (left == 0 || (read->bytes > left && read->bytes - left >= it->alignment)) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: a read of %zu bytes at %" PRIu64 " ends outside the file, of %" PRIu64 " bytes",
                       file->path, read->bytes, read->offset, file->size);
    }
    return DM_OK;
}

/* Queues a request for what is missing of a read, `have` bytes of which are there. */
static void request_rest(dm_disk_reader *it, dm_disk_request *request, size_t have) {
    const dm_disk_read *read = &it->reads[request - it->requests];
    size_t rest = read->bytes - have;
    request->descriptor = it->files[read->file].descriptor;
    request->offset = read->offset + have;
    request->to = (uint8_t *)read->to + have;
    request->bytes = rest < most_at_once ? rest : most_at_once;
    dm_disk_requests_add(&it->queued, request);
}

dm_status dm_disk_reader_submit(dm_disk_reader *it, dm_disk_read read) {
    DM_TRY(check_read(it, &read));
    dm_disk_request *request = dm_disk_requests_take(&it->idle);
    if (request == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: %u reads are in flight, as many as there may be; wait for one first",
                       it->files[read.file].path, it->depth);
    }
    it->reads[request - it->requests] = read;
    request_rest(it, request, 0);
    it->in_flight++;
    return DM_OK;
}

void dm_disk_reader_flush(dm_disk_reader *it) {
    if (it->queued.first == NULL) {
        return;
    }
    for (dm_disk_request *request = it->queued.first; request != NULL; request = request->next) {
        request->sent = true;
        it->sent++;
    }
    it->kind->send(it->queue, it->queued);
    it->queued.first = NULL;
}

/* ---- Taking what is done ---- */

/* The last word on a read, `have` of whose `wanted` bytes are there; `result` is the last request's. That the file is the one
 * that was opened is looked at when its bytes are here: before, it might change until they are. */
static dm_status conclude(dm_disk_reader *it, const dm_disk_read *read, ssize_t result, size_t have, size_t wanted) {
    const dm_disk_file *file = &it->files[read->file];
    dm_disk_file_drop(file, read->offset, read->bytes);
    DM_TRY(dm_disk_file_check(file));
    if (have < wanted) {
        return dm_fail(DM_ERR_IO, "%s: cannot read %zu bytes at %" PRIu64 ": %s", file->path, wanted, read->offset,
                       result < 0 ? strerror((int)-result) : "the file ends before its size");
    }
    it->counts.reads++;
    it->counts.bytes += wanted;
    return DM_OK;
}

/* What a request that is back means for its read: true where that is done, false where another request goes on with it. */
static bool settle(dm_disk_reader *it, dm_disk_request *request, dm_disk_done *out) {
    const dm_disk_read *read = &it->reads[request - it->requests];
    const dm_disk_file *file = &it->files[read->file];
    uint64_t left = file->size - read->offset;
    size_t wanted = read->bytes < left ? read->bytes : (size_t)left;
    size_t begun = (size_t)(request->offset - read->offset);
    size_t got = request->result > 0 ? (size_t)request->result : 0;
    if (request->result == -EINTR || request->result == -EAGAIN) {
        request_rest(it, request, begun);
        return false;
    }
    size_t going_on = file->direct ? got & ~(it->alignment - 1) : got; /* where it must be aligned */
    if (begun + got < wanted && going_on > 0) {
        request_rest(it, request, begun + going_on);
        return false;
    }
    *out = (dm_disk_done){read->tag, conclude(it, read, request->result, begun + got, wanted)};
    return true;
}

bool dm_disk_reader_wait(dm_disk_reader *it, bool block, dm_disk_done *out) {
    for (;;) {
        dm_disk_reader_flush(it);
        dm_disk_request *request = dm_disk_requests_take(&it->received);
        if (request == NULL && it->sent > 0) {
            receive(it, block ? it->patience : 0.0);
            request = dm_disk_requests_take(&it->received);
        }
        if (request == NULL) {
            return false;
        }
        if (settle(it, request, out)) {
            dm_disk_requests_add(&it->idle, request);
            it->in_flight--;
            return true;
        }
    }
}

dm_status dm_disk_reader_stalled(const dm_disk_reader *it) {
    if (!it->stalled) {
        return DM_OK;
    }
    const dm_disk_request *request = it->requests;
    while (!request->sent) {
        request++;
    }
    const dm_disk_read *read = &it->reads[request - it->requests];
    return dm_fail(DM_ERR_IO, "%s: the disk has not answered for %g seconds, where %zu bytes at %" PRIu64 " were to be read",
                   it->files[read->file].path, it->patience, read->bytes, read->offset);
}
