/* A binary heap that hands out its smallest entry first. */
#ifndef DM_BASE_HEAP_H
#define DM_BASE_HEAP_H

#include "base/status.h"

typedef struct dm_heap_entry {
    uint64_t key, value; /* ordered by key, then by value */
} dm_heap_entry;

typedef struct dm_heap {
    dm_heap_entry *entries; /* malloc; free it to free the heap */
    size_t count, room;
} dm_heap;

/* Start from {0}. Appends without ordering; call dm_heap_order() before the next pop. */
dm_status dm_heap_append(dm_heap *heap, dm_heap_entry entry);
/* Makes a heap of appended entries, in time linear in their number. */
void dm_heap_order(dm_heap *heap);

dm_status dm_heap_push(dm_heap *heap, dm_heap_entry entry);
/* Takes the smallest entry out; the heap is not empty. */
dm_heap_entry dm_heap_pop(dm_heap *heap);

#endif
