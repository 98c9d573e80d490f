/* Calls whose arguments are in tags: <parameter=NAME>, lines with a value, </parameter>. They are told as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/table.h"
#include "server/calls_parts.h"

static const char tag[] = "<parameter=", line_end[] = "\n</parameter>";

/* ---- Writing JSON ---- */

static dm_status write(dm_calls *calls, const char *text, size_t length) {
    DM_TRY(dm_reserve(&calls->made, &calls->made_room, calls->made_length + length, 1));
    if (length > 0) {
        memcpy(calls->made + calls->made_length, text, length);
    }
    calls->made_length += length;
    return DM_OK;
}

/* Inside a string. */
static dm_status write_escaped(dm_calls *calls, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const unsigned char byte = (unsigned char)text[i];
        char escape[8];
        int n = byte == '\n'                  ? snprintf(escape, sizeof escape, "\\n")
                : byte == '"' || byte == '\\' ? snprintf(escape, sizeof escape, "\\%c", byte)
                : byte < 0x20                 ? snprintf(escape, sizeof escape, "\\u%04x", byte)
                                              : snprintf(escape, sizeof escape, "%c", byte);
        DM_TRY(write(calls, escape, (size_t)n));
    }
    return DM_OK;
}

/* A value that is no text by its schema: JSON, Python's words for it, or else a text. */
static dm_status write_value(dm_calls *calls, const char *text, size_t length) {
    static const struct {
        const char *word, *json;
    } words[] = {{"true", "true"}, {"false", "false"}, {"null", "null"}, {"none", "null"}};
    json_t *value = json_loadb(text, length, JSON_DECODE_ANY, NULL);
    if (value != NULL) {
        json_decref(value);
        return write(calls, text, length);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strlen(words[i].word) == length && strncasecmp(words[i].word, text, length) == 0) {
            return write(calls, words[i].json, strlen(words[i].json));
        }
    }
    DM_TRY(write(calls, "\"", 1));
    DM_TRY(write_escaped(calls, text, length));
    return write(calls, "\"", 1);
}

/* ---- Reading ---- */

static bool is_text(const dm_calls *calls) {
    return dm_parameter_is_text(calls->schema);
}

/* Begins a parameter of the name that stands at `at`. *more: its tag is whole. */
static dm_status begin_parameter(dm_calls *calls, size_t at, bool *more) {
    const char *name = calls->held + at, *end = memchr(name, '>', calls->length - at);
    *more = end != NULL;
    if (end == NULL) {
        return DM_OK;
    }
    const size_t length = (size_t)(end - name);
    calls->schema = json_object_getn(json_object_get(calls->function->parameters, "properties"), name, length);
    DM_TRY(write(calls, calls->some ? ", \"" : "{\"", calls->some ? 3 : 2));
    DM_TRY(write_escaped(calls, name, length));
    DM_TRY(write(calls, is_text(calls) ? "\": \"" : "\": ", is_text(calls) ? 4 : 3));
    calls->some = calls->in_value = calls->line = true;
    dm_calls_drop(calls, at + length + 1);
    return DM_OK;
}

/* What stands between parameters; *more: something came of it. */
static dm_status read_tag(dm_calls *calls, bool *more, bool *complete) {
    size_t at = 0, end = 0;
    dm_match begun = dm_calls_match(calls, &at, tag), over = dm_calls_match(calls, &end, "</function>");
    if (begun == DM_MATCH_YES) {
        return begin_parameter(calls, at, more);
    }
    if (over != DM_MATCH_YES && (begun == DM_MATCH_OPEN || over == DM_MATCH_OPEN)) {
        return DM_OK;
    }
    *complete = true; /* here, or where something else comes than should */
    return write(calls, calls->some ? "}" : "{}", calls->some ? 1 : 2);
}

/* Bytes at the end of what is held that may begin the end of a value. */
static size_t held_back(const dm_calls *calls) {
    size_t most = sizeof line_end - 2, n = most < calls->length ? most : calls->length;
    while (n > 0 && memcmp(calls->held + calls->length - n, line_end, n) != 0) {
        n--;
    }
    return n;
}

/* A value: texts as they come, others when they are whole. */
static dm_status read_value(dm_calls *calls, bool *more) {
    const char *found = memmem(calls->held, calls->length, line_end, sizeof line_end - 1);
    size_t length = found != NULL ? (size_t)(found - calls->held) : calls->length - held_back(calls);
    if (found == NULL && !is_text(calls)) {
        return DM_OK;
    }
    size_t skipped = calls->line && length > 0 && calls->held[0] == '\n'; /* the tag has its own line */
    calls->line = calls->line && length == 0;
    DM_TRY(is_text(calls) ? write_escaped(calls, calls->held + skipped, length - skipped)
                          : write_value(calls, calls->held + skipped, length - skipped));
    dm_calls_drop(calls, length + (found != NULL ? sizeof line_end - 1 : 0));
    if (found != NULL) {
        calls->in_value = false;
        *more = true;
        return is_text(calls) ? write(calls, "\"", 1) : DM_OK;
    }
    return DM_OK;
}

dm_status dm_calls_read_tagged(dm_calls *calls, bool last, const dm_call_sink *sink, bool *complete) {
    dm_calls_drop(calls, calls->at);
    calls->at = 0;
    for (bool more = true; more && !*complete;) {
        more = false;
        DM_TRY(calls->in_value ? read_value(calls, &more) : read_tag(calls, &more, complete));
    }
    DM_TRY(dm_calls_tell(calls, DM_PART_ARGUMENTS, calls->made, calls->made_length, sink));
    calls->made_length = 0;
    calls->at = last && !*complete ? calls->length : 0; /* what is cut is cut */
    return DM_OK;
}
