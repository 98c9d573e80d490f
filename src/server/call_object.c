/* Calls whose arguments are JSON: a JSON object that has a name and arguments, or arguments alone. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "server/calls_parts.h"

static bool take(const dm_calls *calls, size_t *at, const char *text) {
    return dm_calls_match(calls, at, text) == DM_MATCH_YES;
}

/* At a brace that may begin the arguments: tells the name, where the call is worded as the dialect has it. */
static dm_status try_name(dm_calls *calls, size_t brace, const dm_call_sink *sink) {
    size_t at = calls->begin;
    if (!take(calls, &at, "{") || !take(calls, &at, "\"name\"") || !take(calls, &at, ":") || !take(calls, &at, "\"")) {
        return DM_OK;
    }
    const char *name = calls->held + at, *end = memchr(name, '"', calls->length - at);
    const dm_function *function = end != NULL ? dm_calls_function(calls, name, (size_t)(end - name)) : NULL;
    if (function == NULL) {
        return DM_OK;
    }
    at += (size_t)(end - name) + 1;
    if (!take(calls, &at, ",") || !take(calls, &at, "\"") || !take(calls, &at, calls->tools->dialect->arguments_key) ||
        !take(calls, &at, "\"") || !take(calls, &at, ":") || dm_calls_skip_spaces(calls, at) != brace) {
        return DM_OK;
    }
    calls->told = brace;
    return dm_calls_tell_name(calls, function, sink);
}

/* A complete object that is worded in some other way. */
static dm_status tell_object(dm_calls *calls, const dm_call_sink *sink) {
    json_t *object = json_loadb(calls->held + calls->begin, calls->at - calls->begin, 0, NULL);
    const json_t *name = json_object_get(object, "name"), *arguments = json_object_get(object, "arguments");
    arguments = arguments != NULL ? arguments : json_object_get(object, "parameters");
    const dm_function *function =
        json_is_string(name) ? dm_calls_function(calls, json_string_value(name), json_string_length(name)) : NULL;
    dm_status status = DM_OK;
    if (function != NULL) {
        char *text = json_is_string(arguments) ? strdup(json_string_value(arguments))
                     : arguments == NULL       ? strdup("{}")
                                               : json_dumps(arguments, JSON_ENCODE_ANY);
        status = text != NULL ? dm_calls_tell_name(calls, function, sink) : dm_fail(DM_ERR_MEMORY, "out of memory for an answer");
        status = status == DM_OK ? dm_calls_tell(calls, DM_PART_ARGUMENTS, text, strlen(text), sink) : status;
        free(text);
    }
    json_decref(object);
    return status;
}

/* Looks at a byte that is in no string. */
static dm_status look_at(dm_calls *calls, char byte, const dm_call_sink *sink) {
    if (byte == '"') {
        calls->in_string = true;
    } else if (byte == '{' || byte == '[') {
        calls->depth++;
        if (calls->depth == 2 && byte == '{' && calls->function == NULL) {
            return try_name(calls, calls->at - 1, sink);
        }
    } else if (byte == '}' || byte == ']') {
        calls->depth--;
        if (calls->depth == calls->outer && calls->function != NULL && calls->arguments_end == 0) {
            calls->arguments_end = calls->at;
        }
    }
    return DM_OK;
}

dm_status dm_calls_read_json(dm_calls *calls, const dm_call_sink *sink, bool *complete) {
    while (calls->at < calls->length && !*complete) {
        char byte = calls->held[calls->at++];
        if (calls->in_string) {
            calls->in_string = calls->escaped || byte != '"';
            calls->escaped = !calls->escaped && byte == '\\';
        } else {
            DM_TRY(look_at(calls, byte, sink));
            *complete = calls->depth == 0;
        }
    }
    if (calls->function == NULL) {
        return DM_OK;
    }
    size_t end = calls->arguments_end > 0 ? calls->arguments_end : calls->at, from = calls->told;
    calls->told = end;
    return dm_calls_tell(calls, DM_PART_ARGUMENTS, calls->held + from, end - from, sink);
}

dm_status dm_calls_read_object(dm_calls *calls, const dm_call_sink *sink, bool *complete) {
    DM_TRY(dm_calls_read_json(calls, sink, complete));
    return *complete && calls->function == NULL ? tell_object(calls, sink) : DM_OK;
}
