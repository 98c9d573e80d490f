/* Functions and arguments in tags, as the template of Qwen3-Coder has them. */
#include <stdio.h>
#include <string.h>

#include "model/chat_parts.h"

/* A value as that template prints it: a text as it is, true and false and null in Python's words, else JSON. */
static dm_status append_value(const json_t *value, bool trims, dm_chat_text *out) {
    const char *word = json_is_string(value)  ? json_string_value(value)
                       : json_is_true(value)  ? "True"
                       : json_is_false(value) ? "False"
                       : json_is_null(value)  ? "None"
                                              : NULL;
    return word != NULL ? dm_chat_append_content(word, trims, out) : dm_chat_append_json(value, 0, out);
}

/* "\n<NAME>VALUE</NAME>"; nothing where there is no value. */
static dm_status append_tag(const dm_tokenizer *tokenizer, const char *name, const json_t *value, bool trims, dm_chat_text *out) {
    if (value == NULL) {
        return DM_OK;
    }
    DM_TRY(dm_chat_append_marks(tokenizer, "\n<", out));
    DM_TRY(dm_chat_append_content(name, false, out));
    DM_TRY(dm_chat_append_marks(tokenizer, ">", out));
    DM_TRY(append_value(value, trims, out));
    DM_TRY(dm_chat_append_marks(tokenizer, "</", out));
    DM_TRY(dm_chat_append_content(name, false, out));
    return dm_chat_append_marks(tokenizer, ">", out);
}

/* Tags of all members but those in `told`. */
static dm_status append_others(const dm_tokenizer *tokenizer, const json_t *object, const char *const *told, dm_chat_text *out) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        const char *const *at = told;
        while (*at != NULL && strcmp(*at, key) != 0) {
            at++;
        }
        DM_TRY(*at == NULL ? append_tag(tokenizer, key, value, false, out) : DM_OK);
    }
    return DM_OK;
}

static dm_status append_parameter(const dm_tokenizer *tokenizer, const char *name, const json_t *schema, dm_chat_text *out) {
    static const char *const told[] = {"name", "type", "description", NULL};
    DM_TRY(dm_chat_append_marks(tokenizer, "\n<parameter>\n<name>", out));
    DM_TRY(dm_chat_append_content(name, false, out));
    DM_TRY(dm_chat_append_marks(tokenizer, "</name>", out));
    DM_TRY(append_tag(tokenizer, "type", json_object_get(schema, "type"), false, out));
    DM_TRY(append_tag(tokenizer, "description", json_object_get(schema, "description"), true, out));
    DM_TRY(append_others(tokenizer, schema, told, out));
    return dm_chat_append_marks(tokenizer, "\n</parameter>", out);
}

dm_status dm_chat_write_tagged_function(const dm_tokenizer *tokenizer, const json_t *function, dm_chat_text *out) {
    static const char *const told[] = {"type", "name", "description", "parameters", NULL}, *const shape[] = {"type", "properties",
                                                                                                             NULL};
    const json_t *parameters = json_object_get(function, "parameters");
    const char *name;
    json_t *schema;
    DM_TRY(dm_chat_append_marks(tokenizer, "<function>", out));
    DM_TRY(append_tag(tokenizer, "name", json_object_get(function, "name"), false, out));
    DM_TRY(append_tag(tokenizer, "description", json_object_get(function, "description"), true, out));
    DM_TRY(dm_chat_append_marks(tokenizer, "\n<parameters>", out));
    json_object_foreach(json_object_get(parameters, "properties"), name, schema) {
        DM_TRY(append_parameter(tokenizer, name, schema, out));
    }
    DM_TRY(append_others(tokenizer, parameters, shape, out));
    DM_TRY(dm_chat_append_marks(tokenizer, "\n</parameters>", out));
    DM_TRY(append_others(tokenizer, function, told, out));
    return dm_chat_append_marks(tokenizer, "\n</function>", out);
}

dm_status dm_chat_write_tagged_arguments(const dm_tokenizer *tokenizer, const json_t *arguments, dm_chat_text *out) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)arguments, name, value) {
        DM_TRY(dm_chat_append_marks(tokenizer, "<parameter=", out));
        DM_TRY(dm_chat_append_content(name, false, out));
        DM_TRY(dm_chat_append_marks(tokenizer, ">\n", out));
        DM_TRY(append_value(value, false, out));
        DM_TRY(dm_chat_append_marks(tokenizer, "\n</parameter>\n", out));
    }
    return DM_OK;
}
