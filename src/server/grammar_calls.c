/* Rules of calls of functions: their names, and arguments that fit their parameters, at once or from where an answer calls. */
#include <stdio.h>
#include <string.h>

#include "server/grammar_rules.h"

typedef struct caller {
    dm_grammar *grammar;
    dm_json_rules json;
    const dm_call_rules *how;
} caller;

/* ---- A call ---- */

/* A text of the dialect, in which marks that are tokens are one byte each. */
static void add_text(const caller *c, const char *text) {
    const dm_call_rules *how = c->how;
    while (*text != '\0') {
        size_t mark = 0;
        while (mark < DM_CHAT_MARKS &&
               (how->marks[mark] < 0 || strncmp(text, how->dialect->marks[mark], strlen(how->dialect->marks[mark])) != 0)) {
            mark++;
        }
        const char symbol = mark < DM_CHAT_MARKS ? (char)(DM_GRAMMAR_MARK + mark) : *text;
        dm_rules_text(c->grammar, &symbol, 1);
        text += mark < DM_CHAT_MARKS ? strlen(how->dialect->marks[mark]) : 1;
    }
}

static dm_status add_arguments(const caller *c, const dm_function *function, int32_t rule) {
    dm_grammar *g = c->grammar;
    if (c->how->dialect->tagged) {
        return dm_rules_tagged(g, &c->json, function, rule);
    }
    if (function->any) {
        dm_rules_either(g, rule, c->json.object);
        return DM_OK;
    }
    if (function->parameters == NULL) {
        dm_rules_begin(g, rule);
        dm_rules_text(g, "{}", 2);
        dm_rules_end(g);
        return DM_OK;
    }
    return dm_rules_schema(g, &c->json, function->parameters, function->parameters, rule);
}

/* A rule for the id that a call may have after its name: letters and digits, as many as calls get here. */
static int32_t add_id(const caller *c) {
    enum { ID = 9 };
    dm_grammar *g = c->grammar;
    int32_t digit = dm_rules_new(g), rule = dm_rules_nothing(g);
    dm_rules_begin(g, digit);
    dm_rules_bytes(g, "0-9a-zA-Z");
    dm_rules_end(g);
    int32_t id = dm_rules_repeat(g, digit, ID, ID);
    if (c->how->dialect->id != NULL) {
        dm_rules_begin(g, rule);
        add_text(c, c->how->dialect->id);
        dm_rules_rule(g, id);
        dm_rules_end(g);
    }
    return rule;
}

/* A rule for a name and what follows it, of any of the functions. */
static dm_status add_named(const caller *c, int32_t *out) {
    const dm_chat_dialect *dialect = c->how->dialect;
    dm_grammar *g = c->grammar;
    const int32_t id = add_id(c);
    *out = dm_rules_new(g);
    for (size_t i = 0; i < c->how->n; i++) {
        const dm_function *function = &c->how->functions[i];
        int32_t arguments = dm_rules_new(g);
        dm_status status = add_arguments(c, function, arguments);
        if (status != DM_OK) {
            char why[512];
            snprintf(why, sizeof why, "%s", dm_error_message());
            return dm_fail(status, "function '%s': %s", function->name, why);
        }
        dm_rules_begin(g, *out);
        dm_rules_text(g, function->name, strlen(function->name));
        dm_rules_rule(g, id);
        add_text(c, dialect->middle);
        dm_rules_rule(g, arguments);
        add_text(c, dialect->after);
        dm_rules_end(g);
    }
    return DM_OK;
}

/* ---- Calls ---- */

/* An alternative of `rule`: `first`, a name and what follows it, more calls, and then `rest`. */
static void add_calls(const caller *c, int32_t rule, const char *first, int32_t named, int32_t rest) {
    const dm_chat_dialect *dialect = c->how->dialect;
    dm_grammar *g = c->grammar;
    const bool several = c->how->several && dialect->between != NULL;
    int32_t more = dm_rules_new(g);
    dm_rules_begin(g, more);
    add_text(c, several ? dialect->between : "");
    add_text(c, dialect->before);
    dm_rules_rule(g, named);
    dm_rules_end(g);
    int32_t others = dm_rules_repeat(g, more, 0, several ? -1 : 0);
    dm_rules_begin(g, rule);
    add_text(c, first);
    dm_rules_rule(g, named);
    dm_rules_rule(g, others);
    add_text(c, dialect->close);
    dm_rules_rule(g, rest);
    dm_rules_end(g);
}

/* What stands between a mark and the first name. */
static void first_text(const dm_chat_dialect *dialect, char out[256]) {
    snprintf(out, 256, "%s%s", dialect->open, dialect->before);
}

/* A text with calls at their marks; where there may be one call only, it is the end. */
static int32_t add_marked(const caller *c, int32_t named) {
    dm_grammar *g = c->grammar;
    char first[256];
    first_text(c->how->dialect, first);
    int32_t calls = dm_rules_new(g), text = dm_rules_until(g, c->how->dialect->mark, true, calls);
    add_calls(c, calls, first, named, c->how->several ? text : dm_rules_nothing(g));
    return text;
}

/* A step of add_unmarked(): `byte` leads to `next`, and any other one into a text. */
static void add_expected(dm_grammar *g, int32_t rule, char byte, bool spaces, int32_t next, int32_t text) {
    dm_byte_set others = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    for (const char *at = spaces ? " \t\r\n" : ""; *at != '\0'; at++) {
        others.bits[0] &= ~(UINT64_C(1) << *at);
        dm_rules_begin(g, rule);
        dm_rules_text(g, at, 1);
        dm_rules_rule(g, rule);
        dm_rules_end(g);
    }
    others.bits[byte / 64] &= ~(UINT64_C(1) << byte % 64);
    dm_rules_begin(g, rule);
    dm_rules_text(g, &byte, 1);
    dm_rules_rule(g, next);
    dm_rules_end(g);
    dm_rules_begin(g, rule);
    dm_rules_set(g, &others);
    dm_rules_rule(g, text);
    dm_rules_end(g);
    dm_rules_begin(g, rule);
    dm_rules_end(g);
}

/* A text, or a call where it begins as one: with the key of the name. */
static int32_t add_unmarked(const caller *c, int32_t named) {
    static const char key[] = "{\"name\"";
    dm_grammar *g = c->grammar;
    const int32_t text = dm_rules_anything(g), call = dm_rules_new(g);
    add_calls(c, call, c->how->dialect->before + strlen(key), named, dm_rules_nothing(g));
    int32_t next = call;
    for (size_t i = strlen(key); i-- > 0;) {
        int32_t rule = dm_rules_new(g);
        add_expected(g, rule, key[i], i < 2, next, text);
        next = rule;
    }
    return next;
}

static dm_status add_root(const caller *c, int32_t *root) {
    int32_t named;
    char first[256];
    DM_TRY(add_named(c, &named));
    if (c->how->after_mark) {
        first_text(c->how->dialect, first);
        *root = dm_rules_new(c->grammar);
        add_calls(c, *root, first, named, dm_rules_nothing(c->grammar));
        return DM_OK;
    }
    *root = *c->how->dialect->mark != '\0' ? add_marked(c, named) : add_unmarked(c, named);
    return DM_OK;
}

dm_status dm_grammar_calls(const dm_call_rules *how, dm_grammar **out) {
    *out = NULL;
    caller c = {.grammar = dm_rules_create(), .how = how};
    if (c.grammar == NULL) {
        return DM_ERR_MEMORY;
    }
    int32_t root = 0;
    dm_json_rules_add(c.grammar, &c.json);
    dm_status status = add_root(&c, &root);
    if (status != DM_OK) {
        dm_grammar_free(c.grammar);
        return status;
    }
    return dm_rules_finish(c.grammar, root, out);
}
