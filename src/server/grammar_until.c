/* Rules for any text up to the first place where a given text stands (Knuth, Morris and Pratt, 1977). */
#include <string.h>

#include "server/grammar_rules.h"

/* How many bytes of `end` a text ends with, after `n` of them and one more byte. */
static size_t matched(const char *end, size_t n, char byte) {
    for (size_t start = 0; start <= n; start++) {
        if (memcmp(end, end + start, n - start) == 0 && end[n - start] == byte) {
            return n - start + 1;
        }
    }
    return 0;
}

static void add_step(dm_grammar *g, int32_t rule, const dm_byte_set *set, int32_t next) {
    dm_rules_begin(g, rule);
    dm_rules_set(g, set);
    dm_rules_rule(g, next);
    dm_rules_end(g);
}

/* Takes a byte out of a set and makes it a step of its own. */
static void add_byte(dm_grammar *g, int32_t rule, unsigned char byte, int32_t next, dm_byte_set *others) {
    dm_byte_set one = {{0}};
    one.bits[byte / 64] = UINT64_C(1) << byte % 64;
    others->bits[byte / 64] &= ~one.bits[byte / 64];
    add_step(g, rule, &one, next);
}

static void add_end(dm_grammar *g, int32_t rule) {
    dm_rules_begin(g, rule);
    dm_rules_end(g);
}

static const dm_byte_set all = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}},
                         plain = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX >> (256 - DM_GRAMMAR_MARK)}};

int32_t dm_rules_until(dm_grammar *g, const char *end, bool answer, int32_t then) {
    const size_t length = strlen(end);
    const int32_t first = g->n_rules;
    for (size_t n = 0; n < length; n++) {
        dm_rules_new(g); /* for a text that ends with n bytes of `end` */
    }
    for (size_t n = 0; n < length; n++) {
        const int32_t rule = first + (int32_t)n;
        dm_byte_set others = answer ? all : plain;
        for (const char *at = end; *at != '\0'; at++) {
            size_t next = matched(end, n, *at);
            if (next > 0 && strchr(end, *at) == at) { /* each byte once */
                add_byte(g, rule, (unsigned char)*at, next == length ? then : first + (int32_t)next, &others);
            }
        }
        if (answer) {
            add_byte(g, rule, DM_GRAMMAR_MARK, then, &others);
            add_end(g, rule);
        }
        add_step(g, rule, &others, first);
    }
    return first;
}

int32_t dm_rules_anything(dm_grammar *g) {
    int32_t rule = dm_rules_new(g);
    add_end(g, rule);
    add_step(g, rule, &all, rule);
    return rule;
}
