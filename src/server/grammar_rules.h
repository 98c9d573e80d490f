/* How grammars are put together. */
#ifndef DM_SERVER_GRAMMAR_RULES_H
#define DM_SERVER_GRAMMAR_RULES_H

#include "server/grammar.h"

enum { DM_GRAMMAR_MOST = 1 << 18 }; /* elements */

/* An element of a rule's alternatives: a set of bytes, another rule, or the end of an alternative. */
typedef struct dm_element {
    enum { DM_ELEMENT_END, DM_ELEMENT_BYTES, DM_ELEMENT_RULE } kind;
    int32_t number; /* of the set, or the rule */
} dm_element;

typedef struct dm_byte_set {
    uint64_t bits[4];
} dm_byte_set;

/* Rules are lists of alternatives, and alternatives runs of elements, all of them in one array. */
struct dm_grammar {
    dm_element *elements;
    size_t n_elements, elements_room;
    dm_byte_set *sets;
    size_t n_sets, sets_room;
    struct dm_alternative {
        int32_t rule, start;
    } * alternatives; /* in any order until dm_rules_finish(), then by rule */
    size_t n_alternatives, alternatives_room;
    int32_t *first; /* [n_rules + 1] of each rule's alternatives */
    int32_t n_rules, root;
    dm_status status; /* the first failure while it was made: later calls do nothing */
};

dm_grammar *dm_rules_create(void);
/* A new rule, without alternatives. */
int32_t dm_rules_new(dm_grammar *grammar);
/* Begins an alternative of `rule`; what is added next belongs to it, until dm_rules_end(). One at a time. */
void dm_rules_begin(dm_grammar *g, int32_t rule);
void dm_rules_end(dm_grammar *g);
void dm_rules_rule(dm_grammar *g, int32_t rule);
/* One byte of those in `set`: "a-z0-9" and the like; a '-' in first place is itself. */
void dm_rules_bytes(dm_grammar *grammar, const char *set);
void dm_rules_set(dm_grammar *g, const dm_byte_set *set);
void dm_rules_text(dm_grammar *g, const char *text, size_t length);

/* A new rule for nothing. */
int32_t dm_rules_nothing(dm_grammar *g);
/* Alternative `a` of a rule is the rule `b` alone. */
void dm_rules_either(dm_grammar *g, int32_t a, int32_t b);
/* A rule for `least` to `most` (-1: any number) of `item`, one after another. */
int32_t dm_rules_repeat(dm_grammar *g, int32_t item, int32_t least, int32_t most);

/* Sorts; refuses rules that would begin with themselves. Takes the grammar over, and frees it where it fails. */
dm_status dm_rules_finish(dm_grammar *grammar, int32_t root, dm_grammar **out);

/* Rules of JSON that schemas build on; all without white space around. */
typedef struct dm_json_rules {
    int32_t space, value, object, array, string, character, integer, number, boolean, null;
    int32_t wide; /* a character of UTF-8 beyond ASCII */
} dm_json_rules;
void dm_json_rules_add(dm_grammar *g, dm_json_rules *out);
/* Whether an object's schema asks for a property. */
bool dm_schema_requires(const json_t *schema, const char *name);
/* Adds alternatives to `rule`: JSON that fits `schema`, as dm_grammar_schema() has it; references are to parts of `root`. */
dm_status dm_rules_schema(dm_grammar *g, const dm_json_rules *json, const json_t *root, const json_t *schema, int32_t rule);
/* The same for the arguments of a call that are tagged. */
dm_status dm_rules_tagged(dm_grammar *g, const dm_json_rules *json, const dm_function *function, int32_t rule);

/* A rule for any text up to and with the first `end`; then comes `then`. The rule `n` after it is for what is left after n bytes
 * of `end`. Where it is an answer's text, it may have tokens without bytes and may end before, and mark 0 is like `end`. */
int32_t dm_rules_until(dm_grammar *g, const char *end, bool answer, int32_t then);
/* A rule for an answer's text. */
int32_t dm_rules_anything(dm_grammar *g);

#endif
