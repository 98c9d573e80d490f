/*
 * Which of the things 0 .. n - 1 are kept where only some fit, by a policy of one's choice. Things are used in steps (the experts
 * of one layer for one token) and steps form passes (a token's way through the layers). What a step uses is kept until the step
 * ends, as it is needed at once, unless the step alone takes all slots: then who was used first goes.
 *
 *   lru           who was used longest ago goes
 *   lfu:H         who was used least, where a use counts half after H passes (LRFU, Lee et al. 2001, IEEE Trans. Computers 50)
 *   lfru:X        a share X of the slots for those used last; of the others who was used least, counted as above with H = 64
 *                 (Bilal and Kang 2017, arXiv 1702.04078)
 *   slru:X        segmented LRU (Karedla et al. 1994): a share X of the slots for those that were used again while kept; the
 *                 oldest of the others goes first
 *   stale         after Least-Stale (Hoang et al. 2026, arXiv 2602.03921): those that this pass has not used yet go first, in the
 *                 order of their last use; where there are none, the newest of this pass, as it comes round last
 *   belady        who is used again last, or never (Belady 1966), which needs the future: the fewest misses that there can be,
 *                 as long as each step fits into the slots
 *
 * Each use, step and pass is O(1) amortised in lru, slru and stale: a thing moves between lists once for each use. It is
 * O(log slots) in the others: a thing enters and leaves a heap once for each use.
 */
#ifndef DM_CORE_EVICTION_H
#define DM_CORE_EVICTION_H

#include "base/status.h"

typedef enum dm_eviction_policy {
    DM_EVICT_LRU,
    DM_EVICT_LFU,
    DM_EVICT_LFRU,
    DM_EVICT_SLRU,
    DM_EVICT_STALE,
    DM_EVICT_BELADY,
    DM_EVICTION_POLICIES
} dm_eviction_policy;

typedef struct dm_eviction_rule {
    dm_eviction_policy policy;
    double parameter; /* H or X above; of no account for the others */
} dm_eviction_rule;

/* "lru", "lfu", "lfu:64", ...: NAME or NAME:PARAMETER, of `length` bytes. */
dm_status dm_eviction_parse(const char *text, size_t length, dm_eviction_rule *out);
const char *dm_eviction_name(dm_eviction_policy policy);

/* What will be used, in order, for belady; it is read on creation only. */
typedef struct dm_eviction_future {
    const int32_t *uses; /* [n] */
    size_t n;
} dm_eviction_future;

typedef struct dm_eviction dm_eviction;

/* Nothing is kept yet. 1 to `things` slots. `future` is for belady, and else NULL. */
dm_status dm_eviction_create(int32_t things, int32_t slots, const dm_eviction_rule *rule, const dm_eviction_future *future,
                             dm_eviction **out);
void dm_eviction_free(dm_eviction *it);

bool dm_eviction_has(const dm_eviction *it, int32_t thing);
/* Thing is used in this step; from now on it is kept. Returns which went for it, -1: none. */
int32_t dm_eviction_use(dm_eviction *it, int32_t thing);
/* Thing, of this step, is not needed any more: where the step takes all slots, it goes before the others. */
void dm_eviction_release(dm_eviction *it, int32_t thing);
/* A step ends, and a pass with its last step. */
void dm_eviction_end_step(dm_eviction *it);
void dm_eviction_end_pass(dm_eviction *it);

#endif
