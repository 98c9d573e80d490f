/* The policy that knows the future. A step's things are needed at once; among the others who is used again last goes, which is
 * optimal for the same reason as without steps: any other choice can be exchanged for this one at no more misses. */
#include <math.h>

#include "base/memory.h"
#include "core/eviction_policies.h"

dm_status dm_eviction_foresee(dm_eviction *it, const dm_eviction_future *future) {
    size_t *seen = dm_alloc((size_t)it->things, sizeof *seen); /* the next use of each, plus 1; 0: none */
    it->next = dm_alloc(future->n, sizeof *it->next);
    it->n = future->n;
    if (seen == NULL || it->next == NULL) {
        dm_free(seen);
        return DM_ERR_MEMORY;
    }
    for (size_t i = future->n; i-- > 0;) {
        int32_t thing = future->uses[i];
        it->next[i] = seen[thing] > 0 ? seen[thing] - 1 : SIZE_MAX;
        seen[thing] = i + 1;
    }
    dm_free(seen);
    return DM_OK;
}

/* A use beyond the future that was told is nobody's next. */
static void belady_note(dm_eviction *it, int32_t thing) {
    size_t next = it->used < it->n ? it->next[it->used] : SIZE_MAX;
    it->score[thing] = next < SIZE_MAX ? -(double)next : -INFINITY;
    it->used++;
}

static void belady_come(dm_eviction *it, int32_t thing) {
    dm_ranking_add(&it->ranking, thing, it->score[thing]);
}

static void belady_leave(dm_eviction *it, int32_t thing) {
    dm_ranking_remove(&it->ranking, thing);
}

static int32_t belady_worst(const dm_eviction *it) {
    return dm_ranking_least(&it->ranking);
}

const dm_eviction_methods dm_eviction_belady = {
    .note = belady_note, .come = belady_come, .leave = belady_leave, .worst = belady_worst};
