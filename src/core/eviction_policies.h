/* What the policies of eviction.h are made of: for its implementation only. */
#ifndef DM_CORE_EVICTION_POLICIES_H
#define DM_CORE_EVICTION_POLICIES_H

#include "core/eviction.h"
#include "core/lru.h"
#include "core/ranking.h"

/* What a policy does. It sees those kept that are in no step's use now. */
typedef struct dm_eviction_methods {
    void (*note)(dm_eviction *it, int32_t thing);  /* a use, before it comes; NULL: of no account */
    void (*come)(dm_eviction *it, int32_t thing);  /* its step has ended */
    void (*leave)(dm_eviction *it, int32_t thing); /* it goes, or is used again */
    int32_t (*worst)(const dm_eviction *it);       /* -1: there is none */
    void (*age)(dm_eviction *it);                  /* a pass has ended; NULL: of no account */
} dm_eviction_methods;

extern const dm_eviction_methods dm_eviction_lru, dm_eviction_slru, dm_eviction_stale; /* eviction_recency.c */
extern const dm_eviction_methods dm_eviction_lfu, dm_eviction_lfru;                    /* eviction_frequency.c */
extern const dm_eviction_methods dm_eviction_belady;                                   /* eviction_belady.c */

struct dm_eviction {
    int32_t things, slots, kept;
    const dm_eviction_methods *methods;
    dm_lru step;        /* of [slots], those used in the step */
    bool *here;         /* [things] is kept */
    bool *again;        /* [things] was kept when it was used last */
    dm_lru queues[2];   /* see each policy */
    dm_ranking ranking; /* by score */
    double *score;      /* [things] frequency: log2 of the uses, see there; belady: minus the next use */
    double half;        /* frequency: passes after which a use counts half */
    uint64_t passes;    /* that have ended */
    size_t used;        /* belady: how many uses there were, */
    size_t *next;       /* [n] the use at which each one's thing is used again, SIZE_MAX: never */
    size_t n;
};

/* next for uses[n] of `things` things. */
dm_status dm_eviction_foresee(dm_eviction *it, const dm_eviction_future *future);

#endif
