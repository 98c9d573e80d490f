/* Which of many things are kept where only some fit: those most recently used. Every operation is O(1). */
#ifndef DM_CORE_LRU_H
#define DM_CORE_LRU_H

#include "base/status.h"

typedef struct dm_lru {
    int32_t things, slots, kept;
    int32_t *older, *newer; /* [things + 1] a ring of those kept, through place `things`: newer[things] is the oldest */
} dm_lru;

/* Nothing is kept yet. 1 to `things` slots. On failure *out is empty; else free it with dm_lru_free(). */
dm_status dm_lru_create(int32_t things, int32_t slots, dm_lru *out);
void dm_lru_free(dm_lru *lru);
/* Keeps nothing any more. */
void dm_lru_clear(dm_lru *lru);

static inline bool dm_lru_has(const dm_lru *lru, int32_t thing) {
    return lru->older[thing] >= 0;
}

/* The one least recently used, and the one most recently; -1: none is kept. */
static inline int32_t dm_lru_oldest(const dm_lru *lru) {
    return lru->kept > 0 ? lru->newer[lru->things] : -1;
}
static inline int32_t dm_lru_newest(const dm_lru *lru) {
    return lru->kept > 0 ? lru->older[lru->things] : -1;
}

/* Thing becomes the one most recently used, in the place of the least recently used one where all slots are taken. Returns
 * which went, -1: none. */
int32_t dm_lru_use(dm_lru *lru, int32_t thing);
/* Thing, which it has, becomes the least recently used one. */
void dm_lru_demote(dm_lru *lru, int32_t thing);
/* Keeps thing, which it has, no more. */
void dm_lru_remove(dm_lru *lru, int32_t thing);

#endif
