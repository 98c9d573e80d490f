#include "moe/residency.h"

#include "base/memory.h"
#include "core/lru.h"

typedef struct simulation {
    int32_t layers, experts;
    dm_lru *lrus; /* [layers] */
} simulation;

static void times(void *user, int32_t layer, float *tau) {
    const simulation *it = user;
    for (int32_t e = 0; e < it->experts; e++) {
        tau[e] = dm_lru_has(&it->lrus[layer], e) ? 0.0f : 1.0f;
    }
}

static size_t use(void *user, int32_t layer, const int32_t *experts, size_t n) {
    const simulation *it = user;
    size_t hits = 0;
    for (size_t i = 0; i < n; i++) {
        hits += dm_lru_has(&it->lrus[layer], experts[i]);
        dm_lru_use(&it->lrus[layer], experts[i]);
    }
    return hits;
}

static void release(void *user) {
    simulation *it = user;
    for (int32_t l = 0; it->lrus != NULL && l < it->layers; l++) {
        dm_lru_free(&it->lrus[l]);
    }
    dm_free(it->lrus);
    dm_free(it);
}

dm_status dm_residency_simulate(int32_t layers, int32_t experts, int32_t slots, dm_residency *out) {
    *out = (dm_residency){0};
    simulation *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    *it = (simulation){layers, experts, dm_alloc((size_t)layers, sizeof *it->lrus)};
    dm_status status = it->lrus != NULL ? DM_OK : DM_ERR_MEMORY;
    for (int32_t l = 0; l < layers && status == DM_OK; l++) {
        status = dm_lru_create(experts, slots, &it->lrus[l]);
    }
    if (status != DM_OK) {
        release(it);
        return status;
    }
    *out = (dm_residency){it, 1.0, times, use, release};
    return DM_OK;
}
