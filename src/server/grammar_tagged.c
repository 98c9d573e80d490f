/* Rules of a call's arguments in tags: <parameter=NAME>, a value in lines of its own, </parameter>. Texts are written as they
 * are, without the line that would end them; any other value is JSON. */
#include <string.h>

#include "base/memory.h"
#include "server/grammar_rules.h"

static const char line_end[] = "\n</parameter>";

bool dm_parameter_is_text(const json_t *schema) {
    const json_t *type = json_object_get(schema, "type"), *values = json_object_get(schema, "enum"),
                 *value = json_object_get(schema, "const");
    bool texts = json_array_size(values) > 0 || json_is_string(value);
    for (size_t i = 0; i < json_array_size(values); i++) {
        texts = texts && json_is_string(json_array_get(values, i));
    }
    return type != NULL ? json_is_string(type) && strcmp(json_string_value(type), "string") == 0 : texts;
}

typedef struct tagger {
    dm_grammar *grammar;
    const dm_json_rules *json;
    const dm_function *function;
    int32_t end;                   /* a rule for the line that ends a value */
    int32_t character, line_start; /* for a character that ends no line; and one that is no '<' either */
} tagger;

static void add_text(const tagger *t, const char *text) {
    dm_rules_text(t->grammar, text, strlen(text));
}

/* ---- Texts ---- */

static dm_status add_value(const tagger *t, const json_t *value, int32_t rule) {
    const char *text = json_string_value(value);
    if (text == NULL || strstr(text, line_end + 1) != NULL || strlen(text) != json_string_length(value)) {
        return dm_fail(DM_ERR_UNSUPPORTED, "a value of a parameter is no text that can stand between tags");
    }
    dm_rules_begin(t->grammar, rule);
    add_text(t, text);
    dm_rules_rule(t->grammar, t->end);
    dm_rules_end(t->grammar);
    return DM_OK;
}

/* A rule for a character that is none of `taken`. */
static int32_t add_characters(dm_grammar *g, const dm_json_rules *json, const char *taken) {
    int32_t rule = dm_rules_new(g);
    dm_byte_set set = {{UINT64_MAX, UINT64_MAX, 0, 0}};
    for (; *taken != '\0'; taken++) {
        set.bits[*taken / 64] &= ~(UINT64_C(1) << *taken % 64);
    }
    dm_rules_begin(g, rule);
    dm_rules_set(g, &set);
    dm_rules_end(g);
    dm_rules_either(g, rule, json->wide);
    return rule;
}

/* An alternative of `here`: `first`, and then `next`. */
static void add_pair(dm_grammar *g, int32_t here, int32_t first, int32_t next) {
    dm_rules_begin(g, here);
    dm_rules_rule(g, first);
    dm_rules_rule(g, next);
    dm_rules_end(g);
}

/* Rules for what is left of a text: after a character, and at the beginning of a line, where it has no '<'. */
typedef struct text_left {
    int32_t inside, line;
} text_left;

static text_left new_left(dm_grammar *g) {
    int32_t inside = dm_rules_new(g), line = dm_rules_new(g);
    return (text_left){inside, line};
}

/* One character more, after which `next` is left. */
static void add_character(const tagger *t, text_left here, text_left next) {
    dm_grammar *g = t->grammar;
    add_pair(g, here.inside, t->character, next.inside);
    add_pair(g, here.line, t->line_start, next.inside);
    for (int i = 0; i < 2; i++) {
        dm_rules_begin(g, i == 0 ? here.inside : here.line);
        dm_rules_bytes(g, "\n");
        dm_rules_rule(g, next.line);
        dm_rules_end(g);
    }
}

static void add_line_end(const tagger *t, text_left here) {
    dm_rules_either(t->grammar, here.inside, t->end);
    dm_rules_either(t->grammar, here.line, t->end);
}

/* A rule for a text of `least` to `most` characters (-1: any number) and its end. */
static int32_t add_counted(const tagger *t, int32_t least, int32_t most) {
    int32_t count = most < 0 ? least : most;
    text_left here = new_left(t->grammar);
    add_line_end(t, here);
    if (most < 0) {
        add_character(t, here, here);
    }
    while (count-- > 0 && t->grammar->status == DM_OK) { /* from the last character back */
        text_left next = here;
        here = new_left(t->grammar);
        add_character(t, here, next);
        if (count >= least) {
            add_line_end(t, here);
        }
    }
    return here.line;
}

/* A rule for any text and its end, which may be that of the line before it. */
static int32_t add_any_text(const tagger *t) {
    return dm_rules_until(t->grammar, line_end, false, dm_rules_nothing(t->grammar)) + 1;
}

static int32_t count_of(const json_t *schema, const char *key, int32_t fallback) {
    const json_t *count = json_object_get(schema, key);
    return json_is_integer(count) ? (int32_t)json_integer_value(count) : fallback; /* its range was looked at */
}

/* Adds to `rule` the values of a parameter that is a text. */
static dm_status add_texts(const tagger *t, const json_t *schema, int32_t rule) {
    const json_t *values = json_object_get(schema, "enum"), *value = json_object_get(schema, "const");
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *one = json_array_get(values, i);
        DM_TRY(json_is_string(one) ? add_value(t, one, rule) : DM_OK);
    }
    if (values != NULL || value != NULL) {
        return value != NULL ? add_value(t, value, rule) : DM_OK;
    }
    int32_t least = count_of(schema, "minLength", 0), most = count_of(schema, "maxLength", -1);
    dm_rules_either(t->grammar, rule, least > 0 || most >= 0 ? add_counted(t, least, most) : add_any_text(t));
    return DM_OK;
}

/* ---- Parameters ---- */

/* A rule for a parameter's value and the line that ends it. */
static dm_status add_parameter(const tagger *t, const json_t *schema, int32_t rule) {
    if (dm_parameter_is_text(schema)) {
        return add_texts(t, schema, rule);
    }
    int32_t value = dm_rules_new(t->grammar);
    DM_TRY(dm_rules_schema(t->grammar, t->json, t->function->parameters, schema, value));
    add_pair(t->grammar, rule, value, t->end);
    return DM_OK;
}

/* A rule for the parameter `name`, where it must be there, or may, and then `rest`. */
static dm_status add_member(const tagger *t, const char *name, const json_t *schema, int32_t rest, int32_t *out) {
    dm_grammar *g = t->grammar;
    if (*name == '\0' || strpbrk(name, "<>\n") != NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "the parameter '%.60s' has a name that cannot stand in a tag", name);
    }
    int32_t value = dm_rules_new(g);
    DM_TRY(add_parameter(t, schema, value));
    *out = dm_rules_new(g);
    dm_rules_begin(g, *out);
    add_text(t, "<parameter=");
    add_text(t, name);
    add_text(t, ">\n");
    dm_rules_rule(g, value);
    add_text(t, "\n");
    dm_rules_rule(g, rest);
    dm_rules_end(g);
    if (!dm_schema_requires(t->function->parameters, name)) {
        dm_rules_either(g, *out, rest);
    }
    return DM_OK;
}

/* The parameters in the schema's order. */
static dm_status add_members(const tagger *t, int32_t rule) {
    const json_t *properties = json_object_get(t->function->parameters, "properties");
    size_t n = 0, size = json_object_size(properties);
    const char **names = dm_alloc(size + 1, sizeof(char *)), *name;
    json_t *schema;
    if (names == NULL) {
        return DM_ERR_MEMORY;
    }
    json_object_foreach((json_t *)properties, name, schema) {
        names[n++] = name;
    }
    int32_t rest = dm_rules_nothing(t->grammar);
    dm_status status = DM_OK;
    while (n-- > 0 && status == DM_OK) {
        status = add_member(t, names[n], json_object_get(properties, names[n]), rest, &rest);
    }
    dm_free(names);
    dm_rules_either(t->grammar, rule, rest);
    return status;
}

/* Any parameters, each a text. */
static void add_any(const tagger *t, int32_t rule) {
    static const dm_byte_set in_name = {
        {UINT64_MAX & ~(UINT64_C(1) << '<' | UINT64_C(1) << '>' | UINT64_C(1) << '\n'), UINT64_MAX}};
    dm_grammar *g = t->grammar;
    int32_t letter = dm_rules_new(g), parameter = dm_rules_new(g), value = add_any_text(t);
    dm_rules_begin(g, letter);
    dm_rules_set(g, &in_name);
    dm_rules_end(g);
    dm_rules_either(g, letter, t->json->wide);
    int32_t name = dm_rules_repeat(g, letter, 1, -1);
    dm_rules_begin(g, parameter);
    add_text(t, "<parameter=");
    dm_rules_rule(g, name);
    add_text(t, ">\n");
    dm_rules_rule(g, value);
    add_text(t, "\n");
    dm_rules_end(g);
    dm_rules_either(g, rule, dm_rules_repeat(g, parameter, 0, -1));
}

dm_status dm_rules_tagged(dm_grammar *g, const dm_json_rules *json, const dm_function *function, int32_t rule) {
    const tagger t = {g, json, function, dm_rules_new(g), add_characters(g, json, "\n"), add_characters(g, json, "\n<")};
    dm_rules_begin(g, t.end);
    add_text(&t, line_end);
    dm_rules_end(g);
    if (function->any) {
        add_any(&t, rule);
        return DM_OK;
    }
    if (function->parameters != NULL) { /* as JSON: nobody uses it, but it says what is wrong with the schema */
        DM_TRY(dm_rules_schema(g, json, function->parameters, function->parameters, dm_rules_new(g)));
    }
    return add_members(&t, rule);
}
