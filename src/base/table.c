#include "base/table.h"

#include <stdlib.h>

#include "base/memory.h"

dm_status dm_reserve(void *pointer, size_t *room, size_t needed, size_t size) {
    if (needed <= *room) {
        return DM_OK;
    }
    size_t grown = *room < 32 ? 64 : *room;
    while (grown < needed) {
        if (!dm_mul_size(grown, 2, &grown)) {
            return dm_fail(DM_ERR_MEMORY, "%zu elements are more than this machine can address", needed);
        }
    }
    size_t bytes;
    void *old, *fresh = NULL;
    memcpy(&old, pointer, sizeof old);
    if (dm_mul_size(grown, size, &bytes)) {
        fresh = realloc(old, bytes);
    }
    if (fresh == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory asking for %zu x %zu bytes", grown, size);
    }
    memcpy(pointer, &fresh, sizeof fresh);
    *room = grown;
    return DM_OK;
}

/* ---- Numbers ---- */

static void place(dm_table *table, uint64_t key, uint32_t value) {
    size_t at = dm_hash_mix(key, 0) & table->mask;
    while (table->slots[at].value != DM_TABLE_NONE && table->slots[at].key != key) {
        at = (at + 1) & table->mask;
    }
    table->count += table->slots[at].value == DM_TABLE_NONE;
    table->slots[at] = (dm_table_slot){key, value};
}

static dm_status grow_table(dm_table *table) {
    size_t size = table->slots == NULL ? 64 : 2 * (table->mask + 1), bytes;
    dm_table grown = {.mask = size - 1};
    if (!dm_mul_size(size, sizeof *grown.slots, &bytes) || (grown.slots = malloc(bytes)) == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a table of %zu entries", size);
    }
    for (size_t i = 0; i < size; i++) {
        grown.slots[i] = (dm_table_slot){0, DM_TABLE_NONE};
    }
    for (size_t i = 0; table->slots != NULL && i <= table->mask; i++) {
        if (table->slots[i].value != DM_TABLE_NONE) {
            place(&grown, table->slots[i].key, table->slots[i].value);
        }
    }
    free(table->slots);
    *table = grown;
    return DM_OK;
}

dm_status dm_table_set(dm_table *table, uint64_t key, uint32_t value) {
    if (table->slots == NULL || 2 * table->count > table->mask) {
        DM_TRY(grow_table(table));
    }
    place(table, key, value);
    return DM_OK;
}

void dm_table_free(dm_table *table) {
    free(table->slots);
    *table = (dm_table){0};
}

/* ---- Byte strings ---- */

/* Where the string is, or the free slot where it belongs. */
static size_t slot_of(const dm_strings *strings, const char *bytes, size_t length, uint64_t hash) {
    size_t at = hash & strings->mask;
    for (;; at = (at + 1) & strings->mask) {
        const dm_strings_slot *slot = &strings->slots[at];
        if (slot->index == DM_TABLE_NONE) {
            return at;
        }
        if (slot->hash == (uint32_t)(hash >> 32)) {
            size_t other;
            const char *there = dm_strings_at(strings, slot->index, &other);
            if (other == length && memcmp(there, bytes, length) == 0) {
                return at;
            }
        }
    }
}

static dm_status grow_strings(dm_strings *strings) {
    size_t size = strings->slots == NULL ? 64 : 2 * (strings->mask + 1), bytes;
    dm_strings_slot *slots = dm_mul_size(size, sizeof *slots, &bytes) ? malloc(bytes) : NULL;
    if (slots == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a table of %zu strings", size);
    }
    memset(slots, 0xff, bytes); /* every index DM_TABLE_NONE */
    for (uint32_t i = 0; i < strings->count; i++) {
        size_t length;
        const char *there = dm_strings_at(strings, i, &length);
        uint64_t hash = dm_hash_bytes(there, length, 0);
        size_t at = hash & (size - 1);
        while (slots[at].index != DM_TABLE_NONE) {
            at = (at + 1) & (size - 1);
        }
        slots[at] = (dm_strings_slot){(uint32_t)(hash >> 32), i};
    }
    free(strings->slots);
    strings->slots = slots;
    strings->mask = size - 1;
    return DM_OK;
}

dm_status dm_strings_add(dm_strings *strings, const char *bytes, size_t length, uint32_t *index, bool *added) {
    if (strings->slots == NULL || 2 * (size_t)strings->count > strings->mask) {
        DM_TRY(grow_strings(strings));
    }
    uint64_t hash = dm_hash_bytes(bytes, length, 0);
    size_t at = slot_of(strings, bytes, length, hash);
    *added = strings->slots[at].index == DM_TABLE_NONE;
    if (*added) {
        if (strings->count == DM_TABLE_NONE - 1) {
            return dm_fail(DM_ERR_UNSUPPORTED, "more than %u different strings", strings->count);
        }
        size_t used = strings->count > 0 ? strings->starts[strings->count] : 0, end;
        if (!dm_add_size(used, length, &end)) {
            return dm_fail(DM_ERR_MEMORY, "strings are longer than this machine can address");
        }
        DM_TRY(dm_reserve(&strings->bytes, &strings->bytes_room, end | 1, 1)); /* never NULL, so that memcmp() is fine */
        DM_TRY(dm_reserve(&strings->starts, &strings->starts_room, (size_t)strings->count + 2, sizeof *strings->starts));
        if (length > 0) {
            memcpy(strings->bytes + used, bytes, length);
        }
        strings->starts[strings->count] = used;
        strings->starts[strings->count + 1] = end;
        strings->slots[at] = (dm_strings_slot){(uint32_t)(hash >> 32), strings->count++};
    }
    *index = strings->slots[at].index;
    return DM_OK;
}

uint32_t dm_strings_find(const dm_strings *strings, const char *bytes, size_t length) {
    if (strings->slots == NULL) {
        return DM_TABLE_NONE;
    }
    return strings->slots[slot_of(strings, bytes, length, dm_hash_bytes(bytes, length, 0))].index;
}

void dm_strings_free(dm_strings *strings) {
    free(strings->bytes);
    free(strings->starts);
    free(strings->slots);
    *strings = (dm_strings){0};
}
