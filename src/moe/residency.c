#include "moe/residency.h"

#include <string.h>

#include "base/memory.h"

typedef struct simulation {
    int32_t experts;
    bool shared;
    int32_t last;         /* layer that was used last, -1: none */
    int32_t n;            /* caches: one, or one for each layer */
    dm_eviction **caches; /* [n] */
} simulation;

/* The cache of a layer, and which thing its first expert is there. */
static dm_eviction *cache_of(const simulation *it, int32_t layer, int32_t *first) {
    *first = it->shared ? layer * it->experts : 0;
    return it->caches[it->shared ? 0 : layer];
}

static void times(void *user, int32_t layer, float *tau) {
    const simulation *it = user;
    int32_t first;
    const dm_eviction *cache = cache_of(it, layer, &first);
    for (int32_t e = 0; e < it->experts; e++) {
        tau[e] = dm_eviction_has(cache, first + e) ? 0.0f : 1.0f;
    }
}

static size_t use(void *user, int32_t layer, const int32_t *experts, size_t n) {
    simulation *it = user;
    int32_t first;
    size_t hits = 0;
    dm_eviction *cache = cache_of(it, layer, &first);
    if (it->shared && layer <= it->last) {
        dm_eviction_end_pass(cache);
    }
    it->last = layer;
    for (size_t i = 0; i < n; i++) {
        hits += dm_eviction_has(cache, first + experts[i]);
        dm_eviction_use(cache, first + experts[i]);
    }
    if (it->shared) {
        dm_eviction_end_step(cache);
    } else {
        dm_eviction_end_pass(cache);
    }
    return hits;
}

static void release(void *user) {
    simulation *it = user;
    for (int32_t i = 0; it->caches != NULL && i < it->n; i++) {
        dm_eviction_free(it->caches[i]);
    }
    dm_free(it->caches);
    dm_free(it);
}

static bool ends_with(const char *text, size_t length, const char *end) {
    return length > strlen(end) && memcmp(text + length - strlen(end), end, strlen(end)) == 0;
}

dm_status dm_residency_parse(const char *text, dm_residency_rule *out) {
    const char *name = text != NULL ? text : "lru", *const shared = ":shared", *const layers = ":layers";
    size_t length = strlen(name);
    *out = (dm_residency_rule){.shared = ends_with(name, length, shared)};
    length -= out->shared ? strlen(shared) : ends_with(name, length, layers) ? strlen(layers) : 0;
    DM_TRY(dm_eviction_parse(name, length, &out->evict));
    return out->evict.policy != DM_EVICT_BELADY
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "belady needs the future: it can only be had for a recorded trace");
}

dm_status dm_residency_simulate(int32_t layers, int32_t experts, int32_t slots, const dm_residency_rule *rule,
                                dm_residency *out) {
    *out = (dm_residency){0};
    simulation *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    const int32_t n = rule->shared ? 1 : layers, each = layers / n; /* layers of a cache */
    *it = (simulation){experts, rule->shared, -1, n, dm_alloc((size_t)n, sizeof(dm_eviction *))};
    dm_status status = it->caches != NULL ? DM_OK : DM_ERR_MEMORY;
    for (int32_t i = 0; i < n && status == DM_OK; i++) {
        status = dm_eviction_create(each * experts, each * slots, &rule->evict, NULL, &it->caches[i]);
    }
    if (status != DM_OK) {
        release(it);
        return status;
    }
    *out = (dm_residency){it, 1.0, rule->shared, times, use, release};
    return DM_OK;
}
