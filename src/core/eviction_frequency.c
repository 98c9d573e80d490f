/* Policies that count uses, of which one counts half after it->half passes. That all counts shrink with time changes no order, so
 * a count is kept as it would stand at pass 0: the sum of 2^(pass / half) over uses. That grows without end; its logarithm, which
 * is the score, grows with the passes only. */
#include <math.h>

#include "core/eviction_policies.h"

static void frequency_note(dm_eviction *it, int32_t thing) {
    const double use = (double)it->passes / it->half, before = it->score[thing];
    const double more = fmax(use, before), less = fmin(use, before);
    it->score[thing] = more + log2(1.0 + exp2(less - more));
}

/* ---- lfu ---- */

static void lfu_come(dm_eviction *it, int32_t thing) {
    dm_ranking_add(&it->ranking, thing, it->score[thing]);
}

static void lfu_leave(dm_eviction *it, int32_t thing) {
    dm_ranking_remove(&it->ranking, thing);
}

static int32_t lfu_worst(const dm_eviction *it) {
    return dm_ranking_least(&it->ranking);
}

const dm_eviction_methods dm_eviction_lfu = {.note = frequency_note, .come = lfu_come, .leave = lfu_leave, .worst = lfu_worst};

/* ---- lfru: those used last in queues[0], the others in the ranking ---- */

static void lfru_come(dm_eviction *it, int32_t thing) {
    int32_t older = dm_lru_use(&it->queues[0], thing);
    if (older >= 0) {
        dm_ranking_add(&it->ranking, older, it->score[older]);
    }
}

static void lfru_leave(dm_eviction *it, int32_t thing) {
    if (dm_ranking_has(&it->ranking, thing)) {
        dm_ranking_remove(&it->ranking, thing);
    } else {
        dm_lru_remove(&it->queues[0], thing);
    }
}

static int32_t lfru_worst(const dm_eviction *it) {
    int32_t least = dm_ranking_least(&it->ranking);
    return least >= 0 ? least : dm_lru_oldest(&it->queues[0]);
}

const dm_eviction_methods dm_eviction_lfru = {
    .note = frequency_note, .come = lfru_come, .leave = lfru_leave, .worst = lfru_worst};
