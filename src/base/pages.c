/*
 * Sources: mmap(2), madvise(2), mbind(2), get_mempolicy(2), move_pages(2), Documentation/admin-guide/mm/hugetlbpage.rst of Linux.
 * A control group may forbid a reserved page that mmap() has promised, and touching it then ends the process; MADV_POPULATE_WRITE
 * (Linux 5.14) says so instead.
 */
#include "base/pages.h"

#include <linux/mempolicy.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/memory.h"
#include "dilmodeli.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static atomic_bool huge = true;

void dm_set_huge_pages(bool on) {
    atomic_store(&huge, on);
}

static size_t to_boundary(const void *data) {
    return (DM_HUGE_PAGE - (uintptr_t)data % DM_HUGE_PAGE) % DM_HUGE_PAGE;
}

void dm_pages_advise(void *data, size_t bytes) {
    size_t skipped = to_boundary(data);
    if (skipped < bytes) {
        madvise((uint8_t *)data + skipped, bytes - skipped, atomic_load(&huge) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    }
}

/* Masks of nodes; the system does not count the last bit that it is told of. */
enum { WORD = 8 * sizeof(unsigned long), WORDS = 16, MOST_NODES = WORD * WORDS };

/* Before anything is touched. */
static void prefer(void *memory, size_t bytes, int node) {
    unsigned long mask[WORDS] = {0};
    if (node >= 0 && node < MOST_NODES) {
        mask[node / WORD] = 1UL << node % WORD;
        syscall(SYS_mbind, memory, bytes, MPOL_PREFERRED, mask, MOST_NODES + 1, 0);
    }
}

bool dm_pages_one_node(void) {
    unsigned long mask[WORDS] = {0};
    int nodes = 0;
    if (syscall(SYS_get_mempolicy, NULL, mask, MOST_NODES, NULL, MPOL_F_MEMS_ALLOWED) != 0) {
        return false;
    }
    for (size_t i = 0; i < WORDS; i++) {
        nodes += __builtin_popcountl(mask[i]);
    }
    return nodes == 1;
}

/* False where the pool has less than that, where part of it is another size's or not ours to use. */
static bool map_reserved(size_t bytes, int node, dm_pages *out) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT; /* 2^21 bytes a page */
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    prefer(memory, bytes, node);
    if (madvise(memory, bytes, MADV_POPULATE_WRITE) != 0) {
        munmap(memory, bytes);
        return false;
    }
    *out = (dm_pages){memory, memory, bytes};
    return true;
}

dm_status dm_pages_map(size_t bytes, dm_pages *out) {
    return dm_pages_map_near(bytes, -1, out);
}

dm_status dm_pages_map_near(size_t bytes, int node, dm_pages *out) {
    size_t rounded, size;
    *out = (dm_pages){0};
    if (!dm_add_size(bytes, DM_HUGE_PAGE - 1, &rounded) || !dm_add_size(rounded, DM_HUGE_PAGE, &size)) {
        return dm_fail(DM_ERR_MEMORY, "%zu bytes are more than this machine can address", bytes);
    }
    rounded -= rounded % DM_HUGE_PAGE;
    if (rounded > 0 && atomic_load(&huge) && map_reserved(rounded, node, out)) {
        return DM_OK;
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return dm_fail(DM_ERR_MEMORY, "out of memory asking the system for %zu bytes", size);
    }
    *out = (dm_pages){(uint8_t *)memory + to_boundary(memory), memory, size};
    prefer(memory, size, node);
    dm_pages_advise(out->data, bytes); /* not what lies behind: a last page would be more memory than was asked for */
    return DM_OK;
}

bool dm_pages_make(void *data, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (uintptr_t)data % page;
    const size_t whole = (before + bytes + page - 1) / page * page;
    return madvise((uint8_t *)data - before, whole, MADV_POPULATE_WRITE) == 0;
}

void dm_pages_count(const dm_pages *pages, size_t bytes, int node, uint64_t *there, uint64_t *elsewhere) {
    enum { PAGE = 4096, AT_ONCE = 512 };
    *there = *elsewhere = 0;
    for (size_t at = 0; at < bytes;) {
        void *asked[AT_ONCE];
        int lies_on[AT_ONCE];
        size_t n = 0;
        for (; n < AT_ONCE && at < bytes; at += PAGE) {
            asked[n++] = pages->data + at;
        }
        if (syscall(SYS_move_pages, 0, n, asked, NULL, lies_on, 0) != 0) {
            return;
        }
        for (size_t i = 0; i < n; i++) {
            *there += lies_on[i] >= 0 && lies_on[i] == node;
            *elsewhere += lies_on[i] >= 0 && lies_on[i] != node;
        }
    }
}

void dm_pages_unmap(dm_pages *pages) {
    if (pages->mapped != NULL) {
        munmap(pages->mapped, pages->mapped_bytes);
    }
    *pages = (dm_pages){0};
}
