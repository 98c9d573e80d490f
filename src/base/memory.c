#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/status.h"

bool dm_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

bool dm_add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

/* Zeroing touches every page at once; the big buffers it serves are all used. */
void *dm_alloc(size_t count, size_t size) {
    size_t bytes;
    if (!dm_mul_size(count, size, &bytes) || !dm_add_size(bytes, DM_ALIGNMENT - 1, &bytes)) {
        dm_fail(DM_ERR_MEMORY, "%zu x %zu bytes is more than this machine can address", count, size);
        return NULL;
    }
    bytes &= ~(size_t)(DM_ALIGNMENT - 1);
    void *pointer = aligned_alloc(DM_ALIGNMENT, bytes != 0 ? bytes : DM_ALIGNMENT);
    if (pointer == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory asking for %zu bytes", bytes);
        return NULL;
    }
    memset(pointer, 0, bytes);
    return pointer;
}

void dm_free(void *pointer) {
    free(pointer);
}

uint64_t dm_rss(void) {
    uint64_t pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm != NULL) {
        if (fscanf(statm, "%*u %" SCNu64, &pages) != 1) {
            pages = 0;
        }
        fclose(statm);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t dm_peak_rss(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}
