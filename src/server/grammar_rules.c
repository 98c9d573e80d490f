#include "server/grammar_rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/table.h"

dm_grammar *dm_rules_create(void) {
    return dm_alloc(1, sizeof(dm_grammar));
}

void dm_grammar_free(dm_grammar *grammar) {
    if (grammar != NULL) {
        free(grammar->elements);
        free(grammar->sets);
        free(grammar->alternatives);
        free(grammar->first);
        dm_free(grammar);
    }
}

/* ---- Adding ---- */

int32_t dm_rules_new(dm_grammar *grammar) {
    return grammar->n_rules++;
}

static void add(dm_grammar *g, dm_element element) {
    if (g->status == DM_OK && g->n_elements >= DM_GRAMMAR_MOST) {
        g->status = dm_fail(DM_ERR_UNSUPPORTED, "the schema is too large: its grammar has more than %d parts", DM_GRAMMAR_MOST);
    }
    if (g->status == DM_OK) {
        g->status = dm_reserve(&g->elements, &g->elements_room, g->n_elements + 1, sizeof *g->elements);
    }
    if (g->status == DM_OK) {
        g->elements[g->n_elements++] = element;
    }
}

void dm_rules_begin(dm_grammar *g, int32_t rule) {
    if (g->status == DM_OK) {
        g->status = dm_reserve(&g->alternatives, &g->alternatives_room, g->n_alternatives + 1, sizeof *g->alternatives);
    }
    if (g->status == DM_OK) {
        g->alternatives[g->n_alternatives++] = (struct dm_alternative){rule, (int32_t)g->n_elements};
    }
}

void dm_rules_end(dm_grammar *g) {
    add(g, (dm_element){DM_ELEMENT_END, 0});
}

void dm_rules_rule(dm_grammar *g, int32_t rule) {
    add(g, (dm_element){DM_ELEMENT_RULE, rule});
}

void dm_rules_set(dm_grammar *g, const dm_byte_set *set) {
    size_t number = 0;
    while (number < g->n_sets && memcmp(&g->sets[number], set, sizeof *set) != 0) {
        number++;
    }
    if (number == g->n_sets) {
        if (g->status == DM_OK) {
            g->status = dm_reserve(&g->sets, &g->sets_room, g->n_sets + 1, sizeof *g->sets);
        }
        if (g->status != DM_OK) {
            return;
        }
        g->sets[g->n_sets++] = *set;
    }
    add(g, (dm_element){DM_ELEMENT_BYTES, (int32_t)number});
}

static void set_byte(dm_byte_set *set, unsigned byte) {
    set->bits[byte / 64] |= UINT64_C(1) << byte % 64;
}

void dm_rules_bytes(dm_grammar *grammar, const char *set) {
    dm_byte_set bytes = {{0}};
    for (const unsigned char *at = (const unsigned char *)set; *at != '\0'; at++) {
        unsigned last = at[1] == '-' && at[2] != '\0' ? at[2] : at[0];
        for (unsigned byte = at[0]; byte <= last; byte++) {
            set_byte(&bytes, byte);
        }
        at += last != at[0] ? 2 : 0;
    }
    dm_rules_set(grammar, &bytes);
}

void dm_rules_text(dm_grammar *g, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        dm_byte_set set = {{0}};
        set_byte(&set, (unsigned char)text[i]);
        dm_rules_set(g, &set);
    }
}

int32_t dm_rules_nothing(dm_grammar *g) {
    int32_t rule = dm_rules_new(g);
    dm_rules_begin(g, rule);
    dm_rules_end(g);
    return rule;
}

void dm_rules_either(dm_grammar *g, int32_t a, int32_t b) {
    dm_rules_begin(g, a);
    dm_rules_rule(g, b);
    dm_rules_end(g);
}

/* item item* and nothing, or up to `most` of them: each count goes on from the one before it. */
static int32_t repeat_more(dm_grammar *g, int32_t item, int32_t most) {
    int32_t rule = dm_rules_new(g), more = rule;
    dm_rules_begin(g, rule);
    dm_rules_end(g);
    if (most == 0) {
        return rule;
    }
    for (int32_t i = 1; i < most && g->status == DM_OK; i++) { /* from the last one back */
        int32_t before = dm_rules_new(g);
        dm_rules_begin(g, before);
        dm_rules_end(g);
        dm_rules_begin(g, before);
        dm_rules_rule(g, item);
        dm_rules_rule(g, more);
        dm_rules_end(g);
        more = before;
    }
    int32_t first = most < 0 ? rule : dm_rules_new(g);
    if (first != rule) {
        dm_rules_begin(g, first);
        dm_rules_end(g);
    }
    dm_rules_begin(g, first);
    dm_rules_rule(g, item);
    dm_rules_rule(g, most < 0 ? first : more);
    dm_rules_end(g);
    return first;
}

int32_t dm_rules_repeat(dm_grammar *g, int32_t item, int32_t least, int32_t most) {
    int32_t more = repeat_more(g, item, most < 0 ? -1 : most - least), rule = dm_rules_new(g);
    dm_rules_begin(g, rule);
    for (int32_t i = 0; i < least && g->status == DM_OK; i++) {
        dm_rules_rule(g, item);
    }
    dm_rules_rule(g, more);
    dm_rules_end(g);
    return rule;
}

/* ---- Finishing ---- */

static int by_rule(const void *a, const void *b) {
    const struct dm_alternative *x = a, *y = b;
    return x->rule != y->rule ? (x->rule > y->rule) - (x->rule < y->rule) : (x->start > y->start) - (x->start < y->start);
}

static dm_status sort(dm_grammar *g) {
    qsort(g->alternatives, g->n_alternatives, sizeof *g->alternatives, by_rule);
    g->first = calloc((size_t)g->n_rules + 1, sizeof *g->first);
    if (g->first == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a grammar of %d rules", g->n_rules);
    }
    size_t at = 0;
    for (int32_t rule = 0; rule <= g->n_rules; rule++) {
        while (at < g->n_alternatives && g->alternatives[at].rule < rule) {
            at++;
        }
        g->first[rule] = (int32_t)at;
    }
    return DM_OK;
}

/* Whether an alternative can be nothing at all, as far as is known. */
static bool is_empty(const dm_grammar *g, int32_t start, const bool *empty) {
    const dm_element *at = &g->elements[start];
    while (at->kind == DM_ELEMENT_RULE && empty[at->number]) {
        at++;
    }
    return at->kind == DM_ELEMENT_END;
}

static void find_empty(const dm_grammar *g, bool *empty) {
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < g->n_alternatives; i++) { /* rules tend to go on in earlier ones */
            int32_t rule = g->alternatives[i].rule;
            if (!empty[rule] && is_empty(g, g->alternatives[i].start, empty)) {
                empty[rule] = more = true;
            }
        }
    }
}

/* Takes away, round by round, rules that begin with none that is left: where some are left, they begin with each other. */
static bool begins_with_itself(const dm_grammar *g, const bool *empty, bool *grounded) {
    int32_t left = g->n_rules;
    for (bool more = true; more;) {
        more = false;
        for (int32_t rule = 0; rule < g->n_rules; rule++) {
            bool held = grounded[rule];
            for (int32_t a = g->first[rule]; a < g->first[rule + 1] && !held; a++) {
                const dm_element *at = &g->elements[g->alternatives[a].start];
                for (; at->kind == DM_ELEMENT_RULE && !held; at++) {
                    held = !grounded[at->number];
                    if (!empty[at->number]) {
                        break;
                    }
                }
            }
            if (!grounded[rule] && !held) {
                grounded[rule] = more = true;
                left--;
            }
        }
    }
    return left > 0;
}

static dm_status finish(dm_grammar *g) {
    DM_TRY(g->status);
    DM_TRY(sort(g));
    bool *empty = calloc(2 * (size_t)g->n_rules + 1, sizeof *empty);
    if (empty == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a grammar of %d rules", g->n_rules);
    }
    find_empty(g, empty);
    bool endless = begins_with_itself(g, empty, empty + g->n_rules);
    free(empty);
    return endless ? dm_fail(DM_ERR_UNSUPPORTED, "the schema refers to itself without anything between") : DM_OK;
}

dm_status dm_rules_finish(dm_grammar *grammar, int32_t root, dm_grammar **out) {
    *out = NULL;
    grammar->root = root;
    dm_status status = finish(grammar);
    if (status != DM_OK) {
        dm_grammar_free(grammar);
        return status;
    }
    *out = grammar;
    return DM_OK;
}
