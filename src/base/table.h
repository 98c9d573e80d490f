/* Two growing tables: numbers to numbers, and byte strings to the order in which they came. */
#ifndef DM_BASE_TABLE_H
#define DM_BASE_TABLE_H

#include "base/hash.h"
#include "base/status.h"

#define DM_TABLE_NONE UINT32_MAX

/* ---- 64-bit keys to 32-bit values, open addressing ---- */

typedef struct dm_table_slot {
    uint64_t key;
    uint32_t value; /* DM_TABLE_NONE: free */
} dm_table_slot;

typedef struct dm_table {
    dm_table_slot *slots; /* [mask + 1], NULL while empty */
    size_t mask;
    size_t count;
} dm_table;

/* Start from {0}. Sets a key that is new or not; `value` is not DM_TABLE_NONE. */
dm_status dm_table_set(dm_table *table, uint64_t key, uint32_t value);
void dm_table_free(dm_table *table);

/* DM_TABLE_NONE where the key is not there. */
static inline uint32_t dm_table_get(const dm_table *table, uint64_t key) {
    if (table->slots == NULL) {
        return DM_TABLE_NONE;
    }
    size_t at = dm_hash_mix(key, 0) & table->mask;
    while (table->slots[at].value != DM_TABLE_NONE && table->slots[at].key != key) {
        at = (at + 1) & table->mask;
    }
    return table->slots[at].value;
}

/* ---- Byte strings, numbered 0, 1, 2, ... as they come, their bytes kept together ---- */

typedef struct dm_strings_slot {
    uint32_t hash;  /* high half */
    uint32_t index; /* DM_TABLE_NONE: free */
} dm_strings_slot;

typedef struct dm_strings {
    char *bytes;    /* all strings, back to back */
    size_t *starts; /* [count + 1] */
    uint32_t count;
    size_t bytes_room, starts_room;
    dm_strings_slot *slots; /* [mask + 1] */
    size_t mask;
} dm_strings;

/* Start from {0}. *index is the string's number, *added whether it is new. */
dm_status dm_strings_add(dm_strings *strings, const char *bytes, size_t length, uint32_t *index, bool *added);
/* DM_TABLE_NONE where the string is not there. */
uint32_t dm_strings_find(const dm_strings *strings, const char *bytes, size_t length);
void dm_strings_free(dm_strings *strings);

/* Bytes of string `index`; valid until the next add. */
static inline const char *dm_strings_at(const dm_strings *strings, uint32_t index, size_t *length) {
    *length = strings->starts[index + 1] - strings->starts[index];
    return strings->bytes + strings->starts[index];
}

/* ---- Arrays that grow ---- */

/* Makes room for `needed` elements of `size` bytes at *pointer (malloc, *room elements so far), doubling. */
dm_status dm_reserve(void *pointer, size_t *room, size_t needed, size_t size);

#endif
