/* Policies that go by the order of uses. */
#include "core/eviction_policies.h"

/* ---- lru: queues[0] ---- */

static void lru_come(dm_eviction *it, int32_t thing) {
    dm_lru_use(&it->queues[0], thing);
}

static void lru_leave(dm_eviction *it, int32_t thing) {
    dm_lru_remove(&it->queues[0], thing);
}

static int32_t lru_worst(const dm_eviction *it) {
    return dm_lru_oldest(&it->queues[0]);
}

const dm_eviction_methods dm_eviction_lru = {.come = lru_come, .leave = lru_leave, .worst = lru_worst};

/* ---- slru: used once in queues[0], used again in queues[1] ---- */

static void slru_come(dm_eviction *it, int32_t thing) {
    int32_t once = it->again[thing] ? dm_lru_use(&it->queues[1], thing) : thing;
    if (once >= 0) { /* it is new, or the other queue was full */
        dm_lru_use(&it->queues[0], once);
    }
}

static void leave_either(dm_eviction *it, int32_t thing) {
    dm_lru_remove(&it->queues[dm_lru_has(&it->queues[1], thing) ? 1 : 0], thing);
}

static int32_t slru_worst(const dm_eviction *it) {
    int32_t once = dm_lru_oldest(&it->queues[0]);
    return once >= 0 ? once : dm_lru_oldest(&it->queues[1]);
}

const dm_eviction_methods dm_eviction_slru = {.come = slru_come, .leave = leave_either, .worst = slru_worst};

/* ---- stale: those of earlier passes in queues[0], of this one in queues[1] ---- */

static void stale_come(dm_eviction *it, int32_t thing) {
    dm_lru_use(&it->queues[1], thing);
}

static int32_t stale_worst(const dm_eviction *it) {
    int32_t stale = dm_lru_oldest(&it->queues[0]);
    return stale >= 0 ? stale : dm_lru_newest(&it->queues[1]);
}

static void stale_age(dm_eviction *it) {
    for (int32_t thing; (thing = dm_lru_oldest(&it->queues[1])) >= 0;) {
        dm_lru_remove(&it->queues[1], thing);
        dm_lru_use(&it->queues[0], thing);
    }
}

const dm_eviction_methods dm_eviction_stale = {.come = stale_come, .leave = leave_either, .worst = stale_worst, .age = stale_age};
