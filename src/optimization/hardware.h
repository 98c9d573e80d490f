/* What the machine consists of: asked of hwloc, so that nothing else need know it. */
#ifndef DM_OPTIMIZATION_HARDWARE_H
#define DM_OPTIMIZATION_HARDWARE_H

#include "dilmodeli.h"

enum { DM_CACHE_LEVELS = 5, DM_CACHE_KINDS = 16 };

/* Data or unified caches of one level that are alike. */
typedef struct dm_cache_kind {
    int level; /* 1 .. DM_CACHE_LEVELS */
    uint64_t bytes;
    int line;      /* bytes; 0: unknown */
    int shared_by; /* hardware threads; 0: unknown */
    int count;     /* 0: unknown */
} dm_cache_kind;

/* A hardware thread that this process may use. */
typedef struct dm_hardware_thread {
    int processor;             /* the system's number, to bind to; -1: not of this machine */
    int core;                  /* those of one core have the same; -1: unknown */
    int node;                  /* of `nodes`, whose memory is near; -1: unknown */
    int kind[DM_CACHE_LEVELS]; /* of the cache that serves it at level 1, 2, ...: an index into `caches`; -1: none is known */
    int unit[DM_CACHE_LEVELS]; /* and which one of the level it is: those that share it have the same */
} dm_hardware_thread;

typedef struct dm_hardware {
    char processor[128];                  /* "": unknown */
    int packages, cores, threads;         /* of the machine; 0: unknown */
    uint64_t memory;                      /* bytes; 0: unknown */
    int n_caches;                         /* kinds */
    dm_cache_kind caches[DM_CACHE_KINDS]; /* by level, then by size, the larger first */
    size_t n_nodes, n_usable;
    dm_numa_node *nodes;        /* [n_nodes] */
    dm_hardware_thread *usable; /* [n_usable] first one of each core, then the second ones, and so on */
} dm_hardware;

/* Another machine than this one, for tests. */
typedef struct dm_hardware_source {
    const char *synthetic, *xml; /* what hwloc's synthetic or XML source takes; both NULL: this machine */
    long (*ask)(int name);       /* sysconf() or what stands for it */
} dm_hardware_source;

/* `source` may be NULL: this machine. Whatever is not told stays unknown; DM_ERR_ARGUMENT for a source that hwloc does not take,
 * DM_ERR_MEMORY. On failure *out is empty. */
dm_status dm_hardware_read(const dm_hardware_source *source, dm_hardware *out);
void dm_hardware_free(dm_hardware *hardware);

#endif
