#include "core/lru.h"

#include "base/memory.h"

void dm_lru_clear(dm_lru *lru) {
    for (int32_t i = 0; i < lru->things; i++) {
        lru->older[i] = -1;
    }
    lru->older[lru->things] = lru->newer[lru->things] = lru->things;
    lru->kept = 0;
}

dm_status dm_lru_create(int32_t things, int32_t slots, dm_lru *out) {
    *out = (dm_lru){.things = things, .slots = slots};
    if (things < 1 || slots < 1 || slots > things) {
        return dm_fail(DM_ERR_ARGUMENT, "%d slots for %d things: expected 1 to as many as there are", slots, things);
    }
    out->older = dm_alloc((size_t)things + 1, sizeof *out->older);
    out->newer = dm_alloc((size_t)things + 1, sizeof *out->newer);
    if (out->older == NULL || out->newer == NULL) {
        dm_lru_free(out);
        return DM_ERR_MEMORY;
    }
    dm_lru_clear(out);
    return DM_OK;
}

void dm_lru_free(dm_lru *lru) {
    dm_free(lru->older);
    dm_free(lru->newer);
    *lru = (dm_lru){0};
}

void dm_lru_remove(dm_lru *lru, int32_t thing) {
    lru->newer[lru->older[thing]] = lru->newer[thing];
    lru->older[lru->newer[thing]] = lru->older[thing];
    lru->older[thing] = -1;
    lru->kept--;
}

void dm_lru_demote(dm_lru *lru, int32_t thing) {
    const int32_t ends = lru->things;
    dm_lru_remove(lru, thing);
    lru->newer[thing] = lru->newer[ends];
    lru->older[thing] = ends;
    lru->older[lru->newer[ends]] = thing;
    lru->newer[ends] = thing;
    lru->kept++;
}

int32_t dm_lru_use(dm_lru *lru, int32_t thing) {
    const int32_t ends = lru->things;
    int32_t gone = -1;
    if (dm_lru_has(lru, thing)) {
        dm_lru_remove(lru, thing);
    } else if (lru->kept == lru->slots) {
        gone = lru->newer[ends];
        dm_lru_remove(lru, gone);
    }
    lru->older[thing] = lru->older[ends];
    lru->newer[thing] = ends;
    lru->newer[lru->older[ends]] = thing;
    lru->older[ends] = thing;
    lru->kept++;
    return gone;
}
