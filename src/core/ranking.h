/* Some of the things 0 .. n - 1 in the order of their keys, as a binary heap that knows where each lies: whoever has the least
 * key, or any other, leaves in O(log n). */
#ifndef DM_CORE_RANKING_H
#define DM_CORE_RANKING_H

#include "base/status.h"

typedef struct dm_ranking {
    int32_t count;
    uint64_t came;     /* how many ever came */
    int32_t *heap;     /* [things] the first `count` are in it, the least first */
    int32_t *place;    /* [things] where it lies in the heap, -1: it is not there */
    double *key;       /* [things] */
    uint64_t *arrival; /* [things] of equal keys who came first is less */
} dm_ranking;

/* Nobody is in it yet. On failure *out is empty; else free it with dm_ranking_free(). */
dm_status dm_ranking_create(int32_t things, dm_ranking *out);
void dm_ranking_free(dm_ranking *it);

static inline bool dm_ranking_has(const dm_ranking *it, int32_t thing) {
    return it->place[thing] >= 0;
}

/* -1: nobody is in it. */
static inline int32_t dm_ranking_least(const dm_ranking *it) {
    return it->count > 0 ? it->heap[0] : -1;
}

/* A thing that is not in it comes; one that is leaves. */
void dm_ranking_add(dm_ranking *it, int32_t thing, double key);
void dm_ranking_remove(dm_ranking *it, int32_t thing);

#endif
