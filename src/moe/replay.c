#include "moe/replay.h"

#include "base/memory.h"

/* The layers first .. end - 1 of a trace, whose experts share a cache: expert e of layer l is thing (l - first) * experts + e. */
typedef struct part {
    const dm_trace *trace;
    int32_t first, end;
} part;

typedef struct span {
    const int32_t *experts; /* [n] of one pass in one layer */
    size_t n;
} span;

static span span_of(const part *p, size_t pass, int32_t layer) {
    const dm_trace *trace = p->trace;
    size_t at = pass * (size_t)trace->shape.layers + (size_t)layer;
    return (span){trace->experts + trace->starts[at], trace->starts[at + 1] - trace->starts[at]};
}

static int32_t thing_of(const part *p, int32_t layer, int32_t expert) {
    return (layer - p->first) * p->trace->shape.experts + expert;
}

/* Every use of the part in order; *out->uses is dm_alloc()ed. */
static dm_status list_uses(const part *p, dm_eviction_future *out) {
    int32_t *uses = dm_alloc(p->trace->starts[p->trace->passes * (size_t)p->trace->shape.layers], sizeof *uses);
    *out = (dm_eviction_future){uses, 0};
    for (size_t pass = 0; uses != NULL && pass < p->trace->passes; pass++) {
        for (int32_t l = p->first; l < p->end; l++) {
            span s = span_of(p, pass, l);
            for (size_t i = 0; i < s.n; i++) {
                uses[out->n++] = thing_of(p, l, s.experts[i]);
            }
        }
    }
    return uses != NULL ? DM_OK : DM_ERR_MEMORY;
}

static uint64_t play(const part *p, dm_eviction *cache) {
    uint64_t misses = 0;
    for (size_t pass = 0; pass < p->trace->passes; pass++) {
        for (int32_t l = p->first; l < p->end; l++) {
            span s = span_of(p, pass, l);
            for (size_t i = 0; i < s.n; i++) {
                int32_t thing = thing_of(p, l, s.experts[i]);
                misses += !dm_eviction_has(cache, thing);
                dm_eviction_use(cache, thing);
            }
            dm_eviction_end_step(cache);
        }
        dm_eviction_end_pass(cache);
    }
    return misses;
}

static dm_status replay_part(const part *p, const dm_eviction_rule *rule, int32_t slots, uint64_t *misses) {
    const int32_t layers = p->end - p->first;
    dm_eviction_future future = {0};
    dm_eviction *cache = NULL;
    dm_status status = rule->policy == DM_EVICT_BELADY ? list_uses(p, &future) : DM_OK;
    if (status == DM_OK) {
        status = dm_eviction_create(layers * p->trace->shape.experts, layers * slots, rule,
                                    rule->policy == DM_EVICT_BELADY ? &future : NULL, &cache);
    }
    if (status == DM_OK) {
        *misses += play(p, cache);
    }
    dm_eviction_free(cache);
    dm_free((void *)(uintptr_t)future.uses);
    return status;
}

dm_status dm_replay(const dm_trace *trace, const dm_eviction_rule *rule, bool shared, int32_t slots, uint64_t *misses) {
    const int32_t layers = trace->shape.layers, each = shared ? layers : 1;
    *misses = 0;
    if (slots < 1 || slots > trace->shape.experts) {
        return dm_fail(DM_ERR_ARGUMENT, "%d slots for each layer: expected 1 to the %d experts that it has", slots,
                       trace->shape.experts);
    }
    if ((int64_t)layers * trace->shape.experts > INT32_MAX) {
        return dm_fail(DM_ERR_ARGUMENT, "%d layers of %d experts are too many to replay", layers, trace->shape.experts);
    }
    for (int32_t l = 0; l < layers; l += each) {
        const part p = {trace, l, l + each};
        DM_TRY(replay_part(&p, rule, slots, misses));
    }
    return DM_OK;
}

uint64_t dm_replay_asked(const dm_trace *trace) {
    return trace->starts[trace->passes * (size_t)trace->shape.layers];
}

dm_status dm_replay_different(const dm_trace *trace, uint64_t *different) {
    const dm_eviction_rule any = {.policy = DM_EVICT_LRU};
    return dm_replay(trace, &any, false, trace->shape.experts, different); /* where all fit, the first use alone misses */
}
