#include "core/stack_distance.h"

#include <string.h>

#include "base/memory.h"

/* Times run from 1; a thing that was never used has 0. When they run out, last uses move together to the first times. */
struct dm_stack_distance {
    size_t times;     /* there are: twice as many as things */
    size_t now;       /* the last one given */
    uint64_t used;    /* bytes of all things that were used */
    uint64_t *bytes;  /* [things] */
    size_t *last;     /* [things] time of the last use */
    size_t *thing_at; /* [times + 1] plus 1, whose last use it is; 0: of none any more */
    uint64_t *tree;   /* [times + 1] Fenwick: place i sums the bytes of times i - (i & -i) + 1 to i */
};

static size_t lowest_bit(size_t i) {
    return i & (~i + 1);
}

/* Adds bytes, or, modulo 2^64, takes them away. */
static void add(dm_stack_distance *it, size_t time, uint64_t bytes) {
    for (size_t i = time; i <= it->times; i += lowest_bit(i)) {
        it->tree[i] += bytes;
    }
}

static uint64_t sum_before(const dm_stack_distance *it, size_t time) {
    uint64_t sum = 0;
    for (size_t i = time - 1; i > 0; i -= lowest_bit(i)) {
        sum += it->tree[i];
    }
    return sum;
}

/* O(times), once in `things` uses or more. */
static void move_together(dm_stack_distance *it) {
    size_t next = 0;
    for (size_t time = 1; time <= it->now; time++) {
        size_t thing = it->thing_at[time];
        if (thing > 0) {
            it->thing_at[++next] = thing;
            it->last[thing - 1] = next;
        }
    }
    memset(it->thing_at + next + 1, 0, (it->times - next) * sizeof *it->thing_at);
    memset(it->tree, 0, (it->times + 1) * sizeof *it->tree);
    for (size_t i = 1; i <= it->times; i++) {
        it->tree[i] += i <= next ? it->bytes[it->thing_at[i] - 1] : 0;
        if (i + lowest_bit(i) <= it->times) {
            it->tree[i + lowest_bit(i)] += it->tree[i];
        }
    }
    it->now = next;
}

uint64_t dm_stack_distance_use(dm_stack_distance *it, size_t thing) {
    if (it->now == it->times) {
        move_together(it);
    }
    const uint64_t bytes = it->bytes[thing];
    const size_t last = it->last[thing];
    uint64_t distance = DM_FIRST_USE;
    if (last > 0) {
        distance = it->used - sum_before(it, last);
        add(it, last, 0 - bytes);
        it->thing_at[last] = 0;
    } else {
        it->used += bytes;
    }
    it->last[thing] = ++it->now;
    it->thing_at[it->now] = thing + 1;
    add(it, it->now, bytes);
    return distance;
}

void dm_stack_distance_free(dm_stack_distance *it) {
    if (it != NULL) {
        dm_free(it->bytes);
        dm_free(it->last);
        dm_free(it->thing_at);
        dm_free(it->tree);
        dm_free(it);
    }
}

dm_status dm_stack_distance_create(const uint64_t *bytes, size_t things, dm_stack_distance **out) {
    size_t times;
    *out = NULL;
    if (!dm_mul_size(things, 2, &times) || !dm_add_size(times, 1, &times)) {
        return dm_fail(DM_ERR_MEMORY, "stack distances of %zu things do not fit into memory", things);
    }
    dm_stack_distance *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->times = times - 1;
    it->bytes = dm_alloc(things, sizeof *it->bytes);
    it->last = dm_alloc(things, sizeof *it->last);
    it->thing_at = dm_alloc(times, sizeof *it->thing_at);
    it->tree = dm_alloc(times, sizeof *it->tree);
    if (it->bytes == NULL || it->last == NULL || it->thing_at == NULL || it->tree == NULL) {
        dm_stack_distance_free(it);
        return DM_ERR_MEMORY;
    }
    memcpy(it->bytes, bytes, things * sizeof *bytes);
    *out = it;
    return DM_OK;
}
