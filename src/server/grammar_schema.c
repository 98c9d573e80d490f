/* From a JSON schema to a grammar: the subset that docs/serving.md lists, everything else refused with its place. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "server/grammar_rules.h"

enum {
    MOST_PROPERTIES = 500, /* of an object */
    MOST_COUNT = 10000,    /* in minItems and the like */
    MOST_VALUES = 1000,    /* of an enum */
    MOST_WAYS = 100,       /* of an anyOf */
    MOST_NAME = 128,       /* bytes of a property's name, where others are allowed */
    MOST_DEPTH = 64,       /* of schemas in schemas, and behind references */
    PLACE = 256,           /* bytes of a place in messages */
};

/* A schema that is referred to, and its rule. */
typedef struct reference {
    const json_t *schema;
    int32_t rule;
} reference;

typedef struct compiler {
    dm_grammar *grammar;
    dm_json_rules json;
    const json_t *root;
    reference *references;
    size_t n_references, references_room;
    int32_t depth;
    char place[PLACE]; /* of the schema that is being read, as a JSON pointer */
} compiler;

static dm_status compile(compiler *c, const json_t *schema, int32_t rule);

/* ---- Places ---- */

static dm_status refuse(const compiler *c, const char *what) {
    return dm_fail(DM_ERR_UNSUPPORTED, "the schema at '#%.200s': %.200s", c->place, what);
}

/* Goes to a part of the present place; returns what leave() needs. */
static size_t enter(compiler *c, const char *key, const char *name) {
    size_t length = strlen(c->place);
    snprintf(c->place + length, sizeof c->place - length, name != NULL ? "/%.60s/%.60s" : "/%.60s", key, name);
    return length;
}

static void leave(compiler *c, size_t length) {
    c->place[length] = '\0';
}

static dm_status compile_part(compiler *c, const char *key, const char *name, const json_t *schema, int32_t *rule) {
    size_t before = enter(c, key, name);
    *rule = dm_rules_new(c->grammar);
    dm_status status = compile(c, schema, *rule);
    leave(c, before);
    return status;
}

/* ---- Keywords ---- */

static bool is_one_of(const char *key, const char *const *list) {
    while (*list != NULL && strcmp(*list, key) != 0) {
        list++;
    }
    return *list != NULL;
}

/* All keywords must be known, as one that is left out would be broken. */
static dm_status check_keywords(const compiler *c, const json_t *schema) {
    static const char *const known[] = {"type",      "properties", "required",    "additionalProperties",
                                        "items",     "minItems",   "maxItems",    "minLength",
                                        "maxLength", "enum",       "const",       "anyOf",
                                        "$ref",      "$defs",      "definitions", NULL};
    static const char *const silent[] = {"title",    "description", "default",  "examples",  "example", "$schema", "$id",
                                         "$comment", "deprecated",  "readOnly", "writeOnly", "strict",  NULL};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)schema, key, value) {
        if (!is_one_of(key, known) && !is_one_of(key, silent)) {
            char text[128];
            snprintf(text, sizeof text, "'%.60s' is not supported", key);
            return refuse(c, text);
        }
    }
    return DM_OK;
}

/* Keywords beside one that says all. */
static dm_status check_alone(const compiler *c, const json_t *schema, const char *key) {
    static const char *const shaping[] = {"type",      "properties", "required", "additionalProperties",
                                          "items",     "minItems",   "maxItems", "minLength",
                                          "maxLength", "enum",       "const",    "anyOf",
                                          "$ref",      NULL};
    const char *other;
    json_t *value;
    json_object_foreach((json_t *)schema, other, value) {
        bool said = strcmp(other, key) == 0 || (strcmp(other, "type") == 0 && strcmp(key, "$ref") != 0);
        if (!said && is_one_of(other, shaping)) {
            char text[160];
            snprintf(text, sizeof text, "'%.40s' beside '%.40s' is not supported", other, key);
            return refuse(c, text);
        }
    }
    return DM_OK;
}

static dm_status read_count(const compiler *c, const json_t *schema, const char *key, int32_t fallback, int32_t *out) {
    const json_t *value = json_object_get(schema, key);
    json_int_t count = json_is_integer(value) ? json_integer_value(value) : -1;
    *out = value != NULL ? (int32_t)count : fallback;
    if (value != NULL && (count < 0 || count > MOST_COUNT)) {
        char text[96];
        snprintf(text, sizeof text, "'%s' is no whole number of 0 to %d", key, MOST_COUNT);
        return refuse(c, text);
    }
    return DM_OK;
}

/* Limits of a count; *most is -1 for none. */
static dm_status read_counts(const compiler *c, const json_t *schema, const char *least_key, const char *most_key, int32_t *least,
                             int32_t *most) {
    DM_TRY(read_count(c, schema, least_key, 0, least));
    DM_TRY(read_count(c, schema, most_key, -1, most));
    return *most < 0 || *most >= *least ? DM_OK : refuse(c, "a maximum is less than its minimum");
}

/* ---- Values that are spelled out ---- */

static dm_status add_value(compiler *c, const json_t *value, int32_t rule) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a schema");
    }
    dm_rules_begin(c->grammar, rule);
    dm_rules_text(c->grammar, text, strlen(text));
    dm_rules_end(c->grammar);
    free(text);
    return DM_OK;
}

static bool is_type(const json_t *value, const char *type) {
    return strcmp(type, "string") == 0    ? json_is_string(value)
           : strcmp(type, "integer") == 0 ? json_is_integer(value)
           : strcmp(type, "number") == 0  ? json_is_number(value)
           : strcmp(type, "boolean") == 0 ? json_is_boolean(value)
           : strcmp(type, "null") == 0    ? json_is_null(value)
           : strcmp(type, "array") == 0   ? json_is_array(value)
                                          : strcmp(type, "object") == 0 && json_is_object(value);
}

/* Whether "type" beside the value allows it. */
static bool fits_type(const json_t *schema, const json_t *value) {
    const json_t *type = json_object_get(schema, "type");
    bool fits = type == NULL || (json_is_string(type) && is_type(value, json_string_value(type)));
    for (size_t i = 0; i < json_array_size(type) && !fits; i++) {
        const json_t *one = json_array_get(type, i);
        fits = json_is_string(one) && is_type(value, json_string_value(one));
    }
    return fits;
}

static dm_status compile_values(compiler *c, const json_t *schema, const json_t *values, int32_t rule) {
    size_t n = 0;
    if (json_array_size(values) > MOST_VALUES) {
        return refuse(c, "'enum' has more than 1000 values");
    }
    for (size_t i = 0; i < json_array_size(values); i++) {
        if (fits_type(schema, json_array_get(values, i))) {
            DM_TRY(add_value(c, json_array_get(values, i), rule));
            n++;
        }
    }
    return n > 0 ? DM_OK : refuse(c, "'enum' has no value that is allowed");
}

static dm_status compile_const(compiler *c, const json_t *schema, const json_t *value, int32_t rule) {
    return fits_type(schema, value) ? add_value(c, value, rule) : refuse(c, "'const' is of another type");
}

/* ---- Strings and arrays ---- */

static dm_status compile_string(compiler *c, const json_t *schema, int32_t rule) {
    int32_t least, most;
    DM_TRY(read_counts(c, schema, "minLength", "maxLength", &least, &most));
    int32_t characters = dm_rules_repeat(c->grammar, c->json.character, least, most);
    dm_rules_begin(c->grammar, rule);
    dm_rules_bytes(c->grammar, "\"");
    dm_rules_rule(c->grammar, characters);
    dm_rules_bytes(c->grammar, "\"");
    dm_rules_end(c->grammar);
    return DM_OK;
}

/* `item` and then `least` - 1 to `most` - 1 more, with commas; or nothing, where `least` is 0. */
static int32_t add_items(compiler *c, int32_t item, int32_t least, int32_t most) {
    dm_grammar *g = c->grammar;
    int32_t more = dm_rules_new(g), rule = dm_rules_new(g);
    dm_rules_begin(g, more);
    dm_rules_bytes(g, ",");
    dm_rules_rule(g, c->json.space);
    dm_rules_rule(g, item);
    dm_rules_end(g);
    if (least == 0) {
        dm_rules_begin(g, rule);
        dm_rules_end(g);
    }
    if (most != 0) {
        int32_t rest = dm_rules_repeat(g, more, least > 0 ? least - 1 : 0, most < 0 ? -1 : most - 1);
        dm_rules_begin(g, rule);
        dm_rules_rule(g, item);
        dm_rules_rule(g, rest);
        dm_rules_end(g);
    }
    return rule;
}

static void add_around(compiler *c, int32_t rule, const char *open, int32_t inside, const char *close) {
    dm_grammar *g = c->grammar;
    dm_rules_begin(g, rule);
    dm_rules_bytes(g, open);
    dm_rules_rule(g, c->json.space);
    dm_rules_rule(g, inside);
    dm_rules_rule(g, c->json.space);
    dm_rules_bytes(g, close);
    dm_rules_end(g);
}

static dm_status compile_array(compiler *c, const json_t *schema, int32_t rule) {
    const json_t *items = json_object_get(schema, "items");
    int32_t item = c->json.value, least, most;
    DM_TRY(read_counts(c, schema, "minItems", "maxItems", &least, &most));
    if (items != NULL) {
        DM_TRY(compile_part(c, "items", NULL, items, &item));
    }
    add_around(c, rule, "[", add_items(c, item, least, most), "]");
    return DM_OK;
}

/* ---- Objects ---- */

/* Properties in the schema's order. `some` of each: what follows where a member came before it; `none`: where none did. */
typedef struct members {
    int32_t some, none;
} members;

/* `key`, which is JSON, and a value. */
static void add_member(compiler *c, const char *key, int32_t key_rule, int32_t value) {
    dm_grammar *g = c->grammar;
    if (key != NULL) {
        dm_rules_text(g, key, strlen(key));
    } else {
        dm_rules_rule(g, key_rule);
    }
    dm_rules_bytes(g, ":");
    dm_rules_rule(g, c->json.space);
    dm_rules_rule(g, value);
}

/* Members of other keys, any number of them. */
static members add_others(compiler *c, int32_t key_rule, int32_t value) {
    dm_grammar *g = c->grammar;
    members rules = {dm_rules_new(g), dm_rules_new(g)};
    dm_rules_begin(g, rules.some);
    dm_rules_end(g);
    dm_rules_begin(g, rules.some);
    dm_rules_bytes(g, ",");
    dm_rules_rule(g, c->json.space);
    add_member(c, NULL, key_rule, value);
    dm_rules_rule(g, rules.some);
    dm_rules_end(g);
    dm_rules_begin(g, rules.none);
    dm_rules_end(g);
    dm_rules_begin(g, rules.none);
    add_member(c, NULL, key_rule, value);
    dm_rules_rule(g, rules.some);
    dm_rules_end(g);
    return rules;
}

/* One property before what `after` says. */
static members add_property(compiler *c, const char *key, int32_t value, bool required, members after) {
    dm_grammar *g = c->grammar;
    members rules = {dm_rules_new(g), dm_rules_new(g)};
    dm_rules_begin(g, rules.some);
    dm_rules_bytes(g, ",");
    dm_rules_rule(g, c->json.space);
    add_member(c, key, 0, value);
    dm_rules_rule(g, after.some);
    dm_rules_end(g);
    dm_rules_begin(g, rules.none);
    add_member(c, key, 0, value);
    dm_rules_rule(g, after.some);
    dm_rules_end(g);
    if (!required) {
        dm_rules_either(g, rules.some, after.some);
        dm_rules_either(g, rules.none, after.none);
    }
    return rules;
}

bool dm_schema_requires(const json_t *schema, const char *name) {
    const json_t *required = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *one = json_string_value(json_array_get(required, i));
        if (one != NULL && strcmp(one, name) == 0) {
            return true;
        }
    }
    return false;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void set_bytes(dm_byte_set *set, unsigned first, unsigned last) {
    for (unsigned byte = first; byte <= last; byte++) {
        set->bits[byte / 64] |= UINT64_C(1) << byte % 64;
    }
}

/* A rule for the rest of a string of plain characters that is none of the names [n], sorted and alike in their first `at`
 * bytes, and its closing quote; `plain` is any such rest. */
static int32_t add_unlike(compiler *c, const char *const *names, size_t n, size_t at, int32_t plain) {
    dm_grammar *g = c->grammar;
    int32_t rule = dm_rules_new(g);
    dm_byte_set others = {{0}};
    set_bytes(&others, ' ', '~');
    others.bits['"' / 64] &= ~(UINT64_C(1) << '"' % 64);
    others.bits['\\' / 64] &= ~(UINT64_C(1) << '\\' % 64);
    size_t i = 0;
    if (i < n && names[i][at] == '\0') {
        i++; /* here a name ends, so the string must not */
    } else {
        dm_rules_begin(g, rule);
        dm_rules_bytes(g, "\"");
        dm_rules_end(g);
    }
    while (i < n && g->status == DM_OK) {
        size_t end = i;
        unsigned char byte = (unsigned char)names[i][at];
        while (end < n && (unsigned char)names[end][at] == byte) {
            end++;
        }
        if ((others.bits[byte / 64] >> byte % 64 & 1) != 0) { /* a name with other bytes is met by no plain string */
            int32_t rest = add_unlike(c, names + i, end - i, at + 1, plain);
            others.bits[byte / 64] &= ~(UINT64_C(1) << byte % 64);
            dm_rules_begin(g, rule);
            dm_rules_text(g, (const char *)&byte, 1);
            dm_rules_rule(g, rest);
            dm_rules_end(g);
        }
        i = end;
    }
    dm_rules_begin(g, rule);
    dm_rules_set(g, &others);
    dm_rules_rule(g, plain);
    dm_rules_end(g);
    return rule;
}

/* Keys that are no property's. */
static dm_status add_other_keys(compiler *c, const json_t *properties, int32_t *out) {
    dm_grammar *g = c->grammar;
    size_t n = 0;
    const char **names = dm_alloc(json_object_size(properties), sizeof(char *)), *key;
    json_t *value;
    if (names == NULL) {
        return DM_ERR_MEMORY;
    }
    bool fine = true;
    json_object_foreach((json_t *)properties, key, value) {
        fine = fine && strlen(key) <= MOST_NAME;
        names[n++] = key;
    }
    if (!fine) {
        dm_free(names);
        return refuse(c, "a property's name has more than 128 bytes, and 'additionalProperties' are allowed");
    }
    qsort(names, n, sizeof(char *), compare_names);
    int32_t plain = dm_rules_new(g);
    dm_rules_begin(g, plain);
    dm_rules_bytes(g, "\"");
    dm_rules_end(g);
    dm_rules_begin(g, plain);
    dm_rules_bytes(g, " !#-[]-~");
    dm_rules_rule(g, plain);
    dm_rules_end(g);
    int32_t unlike = add_unlike(c, names, n, 0, plain);
    dm_free(names);
    *out = dm_rules_new(g);
    dm_rules_begin(g, *out);
    dm_rules_bytes(g, "\"");
    dm_rules_rule(g, unlike);
    dm_rules_end(g);
    return DM_OK;
}

/* What may follow the properties. Where nothing is said and there are properties, nothing: that fits every schema. */
static dm_status compile_others(compiler *c, const json_t *schema, const json_t *properties, members *out) {
    const json_t *others = json_object_get(schema, "additionalProperties");
    bool any = others == NULL ? json_object_size(properties) == 0 : !json_is_false(others);
    if (!any) {
        int32_t nothing = dm_rules_nothing(c->grammar);
        *out = (members){nothing, nothing};
        return DM_OK;
    }
    int32_t value = c->json.value, key = c->json.string;
    if (json_is_object(others)) {
        DM_TRY(compile_part(c, "additionalProperties", NULL, others, &value));
    }
    if (json_object_size(properties) > 0) {
        DM_TRY(add_other_keys(c, properties, &key));
    }
    *out = add_others(c, key, value);
    return DM_OK;
}

static dm_status check_required(const compiler *c, const json_t *properties, const json_t *required) {
    for (size_t i = 0; i < json_array_size(required); i++) {
        const json_t *name = json_array_get(required, i);
        if (!json_is_string(name) || json_object_get(properties, json_string_value(name)) == NULL) {
            return refuse(c, "'required' names something that is not in 'properties'");
        }
    }
    return DM_OK;
}

/* The properties from the last one back. */
static dm_status compile_properties(compiler *c, const json_t *schema, const json_t *properties, members *rules) {
    size_t n = json_object_size(properties);
    const char **keys = dm_alloc(n, sizeof(char *)), *key;
    json_t *value;
    if (keys == NULL) {
        return DM_ERR_MEMORY;
    }
    size_t at = 0;
    json_object_foreach((json_t *)properties, key, value) {
        keys[at++] = key;
    }
    dm_status status = DM_OK;
    while (at-- > 0 && status == DM_OK) {
        int32_t rule = -1;
        json_t *name = json_string(keys[at]);
        char *quoted = name != NULL ? json_dumps(name, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        status = quoted != NULL ? compile_part(c, "properties", keys[at], json_object_get(properties, keys[at]), &rule)
                                : dm_fail(DM_ERR_MEMORY, "out of memory for a schema");
        if (status == DM_OK) {
            *rules = add_property(c, quoted, rule, dm_schema_requires(schema, keys[at]), *rules);
        }
        json_decref(name);
        free(quoted);
    }
    dm_free(keys);
    return status;
}

static dm_status compile_object(compiler *c, const json_t *schema, int32_t rule) {
    const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required");
    if ((properties != NULL && !json_is_object(properties)) || json_object_size(properties) > MOST_PROPERTIES) {
        return refuse(c, "'properties' is no object of at most 500");
    }
    if (required != NULL && !json_is_array(required)) {
        return refuse(c, "'required' is no list");
    }
    DM_TRY(check_required(c, properties, required));
    members rules;
    DM_TRY(compile_others(c, schema, properties, &rules));
    DM_TRY(compile_properties(c, schema, properties, &rules));
    add_around(c, rule, "{", rules.none, "}");
    return DM_OK;
}

/* ---- References and alternatives ---- */

/* Follows "#/a/b"; NULL: it leads nowhere. */
static const json_t *find(const json_t *root, const char *pointer) {
    const json_t *at = root;
    char key[256];
    if (*pointer++ != '#') {
        return NULL;
    }
    while (at != NULL && *pointer == '/') {
        size_t n = 0;
        for (pointer++; *pointer != '\0' && *pointer != '/' && n + 1 < sizeof key; pointer++) {
            bool escaped = *pointer == '~' && (pointer[1] == '0' || pointer[1] == '1');
            key[n++] = escaped ? (pointer[1] == '0' ? '~' : '/') : *pointer;
            pointer += escaped;
        }
        key[n] = '\0';
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10)) : json_object_get(at, key);
    }
    return *pointer == '\0' ? at : NULL;
}

static dm_status compile_reference(compiler *c, const json_t *reference_to, int32_t rule) {
    const json_t *schema = json_is_string(reference_to) ? find(c->root, json_string_value(reference_to)) : NULL;
    if (schema == NULL) {
        return refuse(c, "'$ref' leads to nothing in this schema");
    }
    for (size_t i = 0; i < c->n_references; i++) {
        if (c->references[i].schema == schema) {
            dm_rules_either(c->grammar, rule, c->references[i].rule);
            return DM_OK;
        }
    }
    DM_TRY(dm_reserve(&c->references, &c->references_room, c->n_references + 1, sizeof *c->references));
    int32_t target = dm_rules_new(c->grammar);
    c->references[c->n_references++] = (reference){schema, target};
    dm_rules_either(c->grammar, rule, target);
    char before[PLACE];
    memcpy(before, c->place, sizeof before);
    snprintf(c->place, sizeof c->place, "%s", json_string_value(reference_to) + 1);
    dm_status status = compile(c, schema, target);
    memcpy(c->place, before, sizeof before);
    return status;
}

static dm_status compile_any(compiler *c, const json_t *list, int32_t rule) {
    if (json_array_size(list) == 0 || json_array_size(list) > MOST_WAYS) {
        return refuse(c, "'anyOf' is no list of 1 to 100");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        int32_t one;
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        DM_TRY(compile_part(c, "anyOf", number, json_array_get(list, i), &one));
        dm_rules_either(c->grammar, rule, one);
    }
    return DM_OK;
}

static dm_status compile_type(compiler *c, const json_t *schema, const char *type, int32_t rule) {
    const struct {
        const char *name;
        int32_t rule;
    } simple[] = {{"integer", c->json.integer}, {"number", c->json.number}, {"boolean", c->json.boolean}, {"null", c->json.null}};
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++) {
        if (strcmp(type, simple[i].name) == 0) {
            dm_rules_either(c->grammar, rule, simple[i].rule);
            return DM_OK;
        }
    }
    return strcmp(type, "string") == 0   ? compile_string(c, schema, rule)
           : strcmp(type, "array") == 0  ? compile_array(c, schema, rule)
           : strcmp(type, "object") == 0 ? compile_object(c, schema, rule)
                                         : refuse(c, "'type' is none of JSON's");
}

static dm_status compile_types(compiler *c, const json_t *schema, int32_t rule) {
    const json_t *type = json_object_get(schema, "type");
    if (json_is_array(type) && json_array_size(type) > 0) {
        for (size_t i = 0; i < json_array_size(type); i++) {
            const json_t *one = json_array_get(type, i);
            DM_TRY(compile_type(c, schema, json_is_string(one) ? json_string_value(one) : "", rule));
        }
        return DM_OK;
    }
    if (type != NULL) {
        return compile_type(c, schema, json_is_string(type) ? json_string_value(type) : "", rule);
    }
    bool object = json_object_get(schema, "properties") != NULL || json_object_get(schema, "additionalProperties") != NULL;
    if (object || json_object_get(schema, "items") != NULL) {
        return compile_type(c, schema, object ? "object" : "array", rule);
    }
    DM_TRY(check_alone(c, schema, ""));
    dm_rules_either(c->grammar, rule, c->json.value);
    return DM_OK;
}

static dm_status compile_here(compiler *c, const json_t *schema, int32_t rule) {
    static const struct {
        const char *key;
        dm_status (*compile)(compiler *, const json_t *, int32_t);
    } whole[] = {{"$ref", compile_reference}, {"anyOf", compile_any}};
    DM_TRY(c->grammar->status);
    if (json_is_true(schema)) {
        dm_rules_either(c->grammar, rule, c->json.value);
        return DM_OK;
    }
    if (!json_is_object(schema)) {
        return refuse(c, "a schema is an object");
    }
    DM_TRY(check_keywords(c, schema));
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        const json_t *value = json_object_get(schema, whole[i].key);
        if (value != NULL) {
            DM_TRY(check_alone(c, schema, whole[i].key));
            return whole[i].compile(c, value, rule);
        }
    }
    const json_t *values = json_object_get(schema, "enum"), *value = json_object_get(schema, "const");
    if (values != NULL || value != NULL) {
        DM_TRY(check_alone(c, schema, values != NULL ? "enum" : "const"));
        return values != NULL ? compile_values(c, schema, values, rule) : compile_const(c, schema, value, rule);
    }
    return compile_types(c, schema, rule);
}

/* Adds the alternatives of what fits a schema to `rule`. */
static dm_status compile(compiler *c, const json_t *schema, int32_t rule) {
    if (c->depth >= MOST_DEPTH) {
        return refuse(c, "it is nested more than 64 deep");
    }
    c->depth++;
    dm_status status = compile_here(c, schema, rule);
    c->depth--;
    return status;
}

dm_status dm_rules_schema(dm_grammar *g, const dm_json_rules *json, const json_t *root, const json_t *schema, int32_t rule) {
    compiler c = {.grammar = g, .json = *json, .root = root};
    dm_status status = compile(&c, schema, rule);
    free(c.references);
    return status;
}

dm_status dm_grammar_schema(const json_t *schema, dm_grammar **out) {
    *out = NULL;
    dm_grammar *grammar = dm_rules_create();
    if (grammar == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_json_rules json;
    dm_json_rules_add(grammar, &json);
    int32_t root = dm_rules_new(grammar);
    dm_status status = dm_rules_schema(grammar, &json, schema, schema, root);
    if (status != DM_OK) {
        dm_grammar_free(grammar);
        return status;
    }
    return dm_rules_finish(grammar, root, out);
}
