/* What a request says of functions: those that are there, whether one must be called, and calls that were made before. */
#include <stdlib.h>
#include <string.h>

#include "server/request_parts.h"

enum {
    MOST_TOOLS = 128,
    MOST_CALLS = 128, /* of a message */
    MOST_NAME = 64,   /* bytes of a function's name */
};

/* A text without NUL; NULL: it is none. */
static const char *text_of(const json_t *value) {
    return json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value) ? json_string_value(value)
                                                                                                  : NULL;
}

/* OpenAI's rule for names. */
static const char *name_of(const json_t *function) {
    const char *name = text_of(json_object_get(function, "name"));
    size_t length = name != NULL ? strlen(name) : 0;
    return length > 0 && length <= MOST_NAME && strspn(name, DM_FUNCTION_LETTERS) == length ? name : NULL;
}

static bool is_function(const json_t *object) {
    const char *type = text_of(json_object_get(object, "type"));
    return type != NULL && strcmp(type, "function") == 0 && json_is_object(json_object_get(object, "function"));
}

/* ---- Functions ---- */

static bool is_missing(const json_t *value) {
    return value == NULL || json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0);
}

static dm_status read_function(const json_t *tool, size_t number, dm_function *out) {
    const json_t *function = json_object_get(tool, "function"), *parameters = json_object_get(function, "parameters");
    out->name = name_of(function);
    if (!is_function(tool) || out->name == NULL) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "tool number %zu is no function with a name of up to %d letters, digits, underscores and dashes", number,
                       MOST_NAME);
    }
    out->parameters = is_missing(parameters) ? NULL : parameters;
    out->strict = json_is_true(json_object_get(function, "strict"));
    const char *type = text_of(json_object_get(out->parameters, "type"));
    return out->parameters == NULL || (type != NULL && strcmp(type, "object") == 0)
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "function '%s' has parameters that are no schema of type object", out->name);
}

static dm_status check_name(const dm_request_tools *tools, const char *name) {
    for (size_t i = 0; i < tools->n; i++) {
        if (strcmp(tools->functions[i].name, name) == 0) {
            return dm_fail(DM_ERR_ARGUMENT, "function '%s' is there twice", name);
        }
    }
    return DM_OK;
}

static dm_status read_functions(json_t *list, dm_request_tools *tools) {
    size_t n = json_array_size(list);
    if (n > MOST_TOOLS) {
        return dm_fail(DM_ERR_ARGUMENT, "there are %zu tools, expected at most %d", n, MOST_TOOLS);
    }
    tools->list = json_incref(list);
    tools->functions = calloc(n, sizeof *tools->functions);
    if (tools->functions == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for 'tools'");
    }
    for (size_t i = 0; i < n; i++) {
        DM_TRY(read_function(json_array_get(list, i), i + 1, &tools->functions[i]));
        DM_TRY(check_name(tools, tools->functions[i].name));
        tools->n++;
    }
    return DM_OK;
}

/* ---- Which of them ---- */

/* What `tool_choice` says. */
typedef struct choice {
    bool none, must;
    const char *name; /* the only one that may be called; NULL: any */
} choice;

static dm_status read_choice(dm_request_reader *from, choice *out) {
    const json_t *value = dm_request_get(from, "tool_choice");
    const char *word = text_of(value);
    *out = (choice){0};
    if (json_is_object(value) && is_function(value)) {
        out->name = name_of(json_object_get(value, "function"));
        out->must = true;
        return out->name != NULL ? DM_OK : dm_fail(DM_ERR_ARGUMENT, "'tool_choice' names no function");
    }
    out->none = word != NULL && strcmp(word, "none") == 0;
    out->must = word != NULL && strcmp(word, "required") == 0;
    return value == NULL || out->none || out->must || (word != NULL && strcmp(word, "auto") == 0)
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "'tool_choice' is none of none, auto, required or a function by name");
}

/* Gives up the schemas of functions that are not strict: those that no grammar is known for, or all. */
static void loosen(const dm_call_rules *how, bool all, dm_function *functions, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dm_call_rules alone = *how;
        dm_grammar *grammar = NULL;
        alone.functions = &functions[i];
        alone.n = 1;
        bool may = functions[i].parameters != NULL && !functions[i].strict;
        functions[i].any = may && (all || dm_grammar_calls(&alone, &grammar) != DM_OK);
        dm_grammar_free(grammar);
    }
}

/* Text and calls of any of the functions, whose arguments fit as far as that can be had. */
static dm_status make_free_grammar(const dm_call_rules *how, dm_function *functions, dm_grammar **out) {
    dm_status status = dm_grammar_calls(how, out);
    for (int all = 0; all < 2 && status == DM_ERR_UNSUPPORTED; all++) {
        loosen(how, all > 0, functions, how->n);
        status = dm_grammar_calls(how, out);
    }
    return status;
}

/* What answers may be like. */
static dm_status make_grammar(dm_request_reader *from, const choice *chosen, bool several, dm_request *request) {
    dm_request_tools *tools = &request->tools;
    dm_call_rules how = {tools->dialect, tools->marks, tools->functions, tools->n, several, chosen->must};
    if (chosen->name != NULL) {
        size_t first = 0;
        while (first < tools->n && strcmp(tools->functions[first].name, chosen->name) != 0) {
            first++;
        }
        if (first == tools->n) {
            return dm_fail(DM_ERR_ARGUMENT, "'tool_choice' names '%s', which is not among 'tools'", chosen->name);
        }
        how.functions += first;
        how.n = 1;
    }
    from->param = "tools";
    tools->called = chosen->must;
    return chosen->must ? dm_grammar_calls(&how, &request->grammar)
                        : make_free_grammar(&how, tools->functions, &request->grammar);
}

static dm_status read_tools(dm_request_reader *from, const dm_request_rules *rules, json_t *list, const choice *chosen,
                            dm_request *request) {
    bool several;
    from->param = "parallel_tool_calls";
    DM_TRY(dm_json_bool_or(&from->json, "parallel_tool_calls", true, &several));
    from->param = "tools";
    DM_TRY(read_functions(list, &request->tools));
    if (chosen->none) {
        return DM_OK;
    }
    const dm_chat_dialect *dialect = dm_chat_dialect_of(rules->tokenizer, rules->family);
    if (dialect == NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "the model's chat template has no functions to call ('tools')");
    }
    if (request->grammar != NULL) {
        from->param = "response_format";
        return dm_fail(DM_ERR_UNSUPPORTED, "'response_format' beside 'tools' is not supported");
    }
    request->tools.dialect = dialect;
    dm_chat_mark_tokens(rules->tokenizer, dialect, request->tools.marks);
    from->param = "tool_choice";
    return make_grammar(from, chosen, several, request);
}

dm_status dm_request_read_tools(dm_request_reader *from, const dm_request_rules *rules, dm_chat_functions *functions,
                                dm_request *request) {
    choice chosen;
    DM_TRY(read_choice(from, &chosen));
    const json_t *list = dm_request_get(from, "tools");
    if (list != NULL && !json_is_array(list)) {
        return dm_fail(DM_ERR_ARGUMENT, "'tools' is no list");
    }
    if (json_array_size(list) == 0) {
        return !chosen.must ? DM_OK : dm_fail(DM_ERR_ARGUMENT, "'tool_choice' wants a call, and there are no 'tools'");
    }
    dm_status status = read_tools(from, rules, (json_t *)list, &chosen, request);
    functions->tools = chosen.none ? NULL : list;
    functions->call = request->tools.called;
    return status;
}

/* ---- Calls that were made ---- */

static dm_status read_arguments(const json_t *value, size_t number, json_t **out) {
    if (json_is_object(value)) {
        *out = json_incref((json_t *)value);
        return DM_OK;
    }
    char where[64];
    snprintf(where, sizeof where, "message number %zu: 'arguments'", number);
    bool empty = json_is_string(value) && json_string_length(value) == 0;
    return json_is_string(value)
               ? dm_json_parse(where, empty ? "{}" : json_string_value(value), empty ? 2 : json_string_length(value), out)
               : dm_fail(DM_ERR_ARGUMENT, "%s are no JSON object as a text", where);
}

static dm_status read_call(const json_t *call, size_t number, dm_chat_call *out) {
    const json_t *function = json_object_get(call, "function");
    out->id = text_of(json_object_get(call, "id"));
    out->name = name_of(function);
    if (!is_function(call) || out->id == NULL || out->name == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "message number %zu has a tool call that is no function with an id and a name", number);
    }
    return read_arguments(json_object_get(function, "arguments"), number, &out->arguments);
}

static dm_status read_calls(const json_t *list, size_t number, dm_chat_extra *out) {
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > MOST_CALLS) {
        return dm_fail(DM_ERR_ARGUMENT, "message number %zu has 'tool_calls' that are no list of up to %d", number, MOST_CALLS);
    }
    out->calls = calloc(n + 1, sizeof *out->calls);
    if (out->calls == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a message");
    }
    for (size_t i = 0; i < n; i++) {
        DM_TRY(read_call(json_array_get(list, i), number, &out->calls[out->n_calls]));
        out->n_calls++;
    }
    return DM_OK;
}

dm_status dm_request_read_extra(const json_t *message, const char *role, size_t number, dm_chat_extra *out) {
    const json_t *calls = json_object_get(message, "tool_calls");
    if (strcmp(role, "tool") == 0) {
        out->call_id = text_of(json_object_get(message, "tool_call_id"));
        return out->call_id != NULL ? DM_OK : dm_fail(DM_ERR_ARGUMENT, "message number %zu has no 'tool_call_id'", number);
    }
    if (calls == NULL || json_is_null(calls)) {
        return DM_OK;
    }
    return strcmp(role, "assistant") == 0
               ? read_calls(calls, number, out)
               : dm_fail(DM_ERR_ARGUMENT, "message number %zu has 'tool_calls' and is no assistant's", number);
}

void dm_request_free_extra(dm_chat_extra *extra) {
    for (size_t i = 0; i < extra->n_calls; i++) {
        json_decref(extra->calls[i].arguments);
    }
    free(extra->calls);
}
