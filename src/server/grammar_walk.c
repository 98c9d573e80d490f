/*
 * A walk through a grammar. A stack says what is still to come: a node is an element of the grammar and the node below it, and
 * equal stacks are the same node. A state is the set of stacks that a text may have led to; its transitions are found when they
 * are first asked for, and kept.
 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/table.h"
#include "server/grammar_rules.h"

enum {
    BOTTOM = 0, /* the node below all: the text may end */
    MOST_STATES = 1 << 14,
    MOST_NODES = 1 << 20,
    MOST_STACKS = 1 << 14, /* of a state */
    UNKNOWN = -2,
};

typedef struct node {
    int32_t element, below;
} node;

struct dm_walk {
    const dm_grammar *grammar;
    node *nodes; /* [n_nodes], the first is the bottom */
    size_t n_nodes, nodes_room;
    dm_table numbers;  /* of nodes */
    dm_strings states; /* each the ascending numbers of its nodes */
    int32_t *next;     /* [states, 256] */
    size_t next_room;
    int32_t *set; /* [n_set] that is being made */
    size_t n_set, set_room;
    int32_t start;
    dm_status status; /* the first failure */
};

static void note(dm_walk *walk, dm_status status) {
    walk->status = walk->status == DM_OK ? status : walk->status;
}

static dm_status too_much(void) {
    return dm_fail(DM_ERR_MEMORY, "the answer's JSON became too intricate to follow");
}

/* ---- Nodes and sets ---- */

static int32_t node_of(dm_walk *walk, int32_t element, int32_t below) {
    uint64_t key = (uint64_t)(uint32_t)element << 32 | (uint32_t)below;
    uint32_t known = dm_table_get(&walk->numbers, key);
    if (known != DM_TABLE_NONE || walk->status != DM_OK) {
        return known != DM_TABLE_NONE ? (int32_t)known : BOTTOM;
    }
    note(walk, walk->n_nodes < MOST_NODES ? DM_OK : too_much());
    note(walk, dm_reserve(&walk->nodes, &walk->nodes_room, walk->n_nodes + 1, sizeof *walk->nodes));
    note(walk, dm_table_set(&walk->numbers, key, (uint32_t)walk->n_nodes));
    if (walk->status != DM_OK) {
        return BOTTOM;
    }
    walk->nodes[walk->n_nodes] = (node){element, below};
    return (int32_t)walk->n_nodes++;
}

static void add_to_set(dm_walk *walk, int32_t number) {
    note(walk, walk->n_set < MOST_STACKS ? DM_OK : too_much());
    note(walk, dm_reserve(&walk->set, &walk->set_room, walk->n_set + 1, sizeof *walk->set));
    if (walk->status == DM_OK) {
        walk->set[walk->n_set++] = number;
    }
}

/* Adds all stacks that begin with bytes and come of going on at `element` with `below` under it. Rules do not begin with
 * themselves, so this ends. */
static void expand(dm_walk *walk, int32_t element, int32_t below) {
    const dm_grammar *g = walk->grammar;
    const dm_element *at = &g->elements[element];
    if (walk->status != DM_OK) {
        return;
    }
    if (at->kind == DM_ELEMENT_BYTES) {
        add_to_set(walk, node_of(walk, element, below));
    } else if (at->kind == DM_ELEMENT_END) {
        if (below == BOTTOM) {
            add_to_set(walk, BOTTOM);
        } else {
            expand(walk, walk->nodes[below].element, walk->nodes[below].below);
        }
    } else { /* what follows the rule goes under it, but for nothing: so lists stay as high as they are deep */
        int32_t rest = at[1].kind == DM_ELEMENT_END ? below : node_of(walk, element + 1, below);
        for (int32_t a = g->first[at->number]; a < g->first[at->number + 1]; a++) {
            expand(walk, g->alternatives[a].start, rest);
        }
    }
}

static int compare(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Ascending, each once. */
static void sort_set(dm_walk *walk) {
    size_t kept = 1;
    qsort(walk->set, walk->n_set, sizeof *walk->set, compare);
    for (size_t i = 1; i < walk->n_set; i++) {
        if (walk->set[i] != walk->set[kept - 1]) {
            walk->set[kept++] = walk->set[i];
        }
    }
    walk->n_set = kept;
}

/* The state of the set that was made. */
static int32_t state_of_set(dm_walk *walk) {
    uint32_t index = 0;
    bool added = false;
    if (walk->n_set == 0 || walk->status != DM_OK) {
        return DM_WALK_DEAD;
    }
    sort_set(walk);
    note(walk, walk->states.count < MOST_STATES ? DM_OK : too_much());
    note(walk, dm_strings_add(&walk->states, (const char *)walk->set, walk->n_set * sizeof *walk->set, &index, &added));
    if (added) {
        note(walk, dm_reserve(&walk->next, &walk->next_room, ((size_t)index + 1) * 256, sizeof *walk->next));
    }
    if (walk->status != DM_OK) {
        return DM_WALK_DEAD;
    }
    for (size_t byte = 0; added && byte < 256; byte++) {
        walk->next[(size_t)index * 256 + byte] = UNKNOWN;
    }
    return (int32_t)index;
}

/* ---- Steps ---- */

static int32_t number_at(const dm_walk *walk, int32_t state, size_t i, size_t *n) {
    size_t length;
    int32_t number;
    const char *bytes = dm_strings_at(&walk->states, (uint32_t)state, &length);
    *n = length / sizeof number;
    memcpy(&number, bytes + i * sizeof number, sizeof number);
    return number;
}

static bool takes(const dm_walk *walk, int32_t number, uint8_t byte) {
    const dm_grammar *g = walk->grammar;
    const dm_byte_set *set = number != BOTTOM ? &g->sets[g->elements[walk->nodes[number].element].number] : NULL;
    return set != NULL && (set->bits[byte / 64] >> byte % 64 & 1) != 0;
}

int32_t dm_walk_step(dm_walk *walk, int32_t state, uint8_t byte) {
    if (state == DM_WALK_DEAD) {
        return DM_WALK_DEAD;
    }
    size_t cell = (size_t)state * 256 + byte, n = 1;
    if (walk->next[cell] != UNKNOWN) {
        return walk->next[cell];
    }
    walk->n_set = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t number = number_at(walk, state, i, &n);
        if (takes(walk, number, byte)) {
            expand(walk, walk->nodes[number].element + 1, walk->nodes[number].below);
        }
    }
    int32_t next = state_of_set(walk);
    walk->next[cell] = next;
    return next;
}

bool dm_walk_may_end(const dm_walk *walk, int32_t state) {
    size_t n;
    return state != DM_WALK_DEAD && number_at(walk, state, 0, &n) == BOTTOM;
}

bool dm_walk_must_end(const dm_walk *walk, int32_t state) {
    size_t n;
    return state != DM_WALK_DEAD && number_at(walk, state, 0, &n) == BOTTOM && n == 1;
}

int32_t dm_walk_start(const dm_walk *walk) {
    return walk->start;
}

dm_status dm_walk_status(const dm_walk *walk) {
    return walk->status;
}

/* ---- Beginning and end ---- */

static void free_contents(dm_walk *walk) {
    free(walk->nodes);
    free(walk->next);
    free(walk->set);
    dm_table_free(&walk->numbers);
    dm_strings_free(&walk->states);
}

void dm_walk_free(dm_walk *walk) {
    if (walk != NULL) {
        free_contents(walk);
        dm_free(walk);
    }
}

static void begin(dm_walk *walk, const dm_grammar *grammar) {
    walk->grammar = grammar;
    node_of(walk, -1, -1); /* the bottom */
    for (int32_t a = grammar->first[grammar->root]; a < grammar->first[grammar->root + 1]; a++) {
        expand(walk, grammar->alternatives[a].start, BOTTOM);
    }
    walk->start = state_of_set(walk);
}

dm_status dm_walk_create(const dm_grammar *grammar, dm_walk **out) {
    *out = NULL;
    dm_walk *walk = dm_alloc(1, sizeof *walk);
    if (walk == NULL) {
        return DM_ERR_MEMORY;
    }
    begin(walk, grammar);
    if (walk->status != DM_OK) {
        dm_status status = walk->status;
        dm_walk_free(walk);
        return status;
    }
    *out = walk;
    return DM_OK;
}

/* ---- Forgetting ---- */

bool dm_walk_is_long(const dm_walk *walk) {
    return walk->states.count > MOST_STATES / 2 || walk->n_nodes > MOST_NODES / 2;
}

/* The same stack in another walk. */
static int32_t copy_stack(dm_walk *to, const dm_walk *from, int32_t number) {
    size_t height = 0, room = 0;
    int32_t *path = NULL, copy = BOTTOM;
    for (; number != BOTTOM && to->status == DM_OK; number = from->nodes[number].below) {
        note(to, dm_reserve(&path, &room, height + 1, sizeof *path));
        if (to->status == DM_OK) {
            path[height++] = number;
        }
    }
    while (height-- > 0 && to->status == DM_OK) {
        copy = node_of(to, from->nodes[path[height]].element, copy);
    }
    free(path);
    return copy;
}

dm_status dm_walk_forget(dm_walk *walk, int32_t *state) {
    dm_walk fresh = {0};
    begin(&fresh, walk->grammar);
    fresh.n_set = 0;
    size_t n = 1;
    for (size_t i = 0; i < n && *state != DM_WALK_DEAD; i++) {
        add_to_set(&fresh, copy_stack(&fresh, walk, number_at(walk, *state, i, &n)));
    }
    int32_t number = state_of_set(&fresh);
    if (fresh.status != DM_OK) {
        free_contents(&fresh);
        return fresh.status;
    }
    free_contents(walk);
    *walk = fresh;
    *state = number;
    return DM_OK;
}
