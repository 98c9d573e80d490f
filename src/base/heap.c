#include "base/heap.h"

#include "base/table.h"

static bool before(dm_heap_entry a, dm_heap_entry b) {
    return a.key != b.key ? a.key < b.key : a.value < b.value;
}

static void sift_down(dm_heap *heap, size_t at) {
    dm_heap_entry *entries = heap->entries, moving = entries[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->count) {
            break;
        }
        child += child + 1 < heap->count && before(entries[child + 1], entries[child]);
        if (!before(entries[child], moving)) {
            break;
        }
        entries[at] = entries[child];
        at = child;
    }
    entries[at] = moving;
}

dm_status dm_heap_append(dm_heap *heap, dm_heap_entry entry) {
    DM_TRY(dm_reserve(&heap->entries, &heap->room, heap->count + 1, sizeof *heap->entries));
    heap->entries[heap->count++] = entry;
    return DM_OK;
}

void dm_heap_order(dm_heap *heap) {
    for (size_t i = heap->count / 2; i-- > 0;) {
        sift_down(heap, i);
    }
}

dm_status dm_heap_push(dm_heap *heap, dm_heap_entry entry) {
    DM_TRY(dm_heap_append(heap, entry));
    size_t at = heap->count - 1;
    for (; at > 0 && before(entry, heap->entries[(at - 1) / 2]); at = (at - 1) / 2) {
        heap->entries[at] = heap->entries[(at - 1) / 2];
    }
    heap->entries[at] = entry;
    return DM_OK;
}

dm_heap_entry dm_heap_pop(dm_heap *heap) {
    dm_heap_entry top = heap->entries[0];
    heap->entries[0] = heap->entries[--heap->count];
    if (heap->count > 0) {
        sift_down(heap, 0);
    }
    return top;
}
