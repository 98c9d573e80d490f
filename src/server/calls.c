#include "server/calls.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"

static const char spaces[] = " \t\r\n";

void dm_calls_init(dm_calls *calls, const dm_request_tools *tools) {
    *calls = (dm_calls){.tools = tools};
    calls->state = tools->dialect == NULL ? DM_CALLS_PLAIN : tools->called ? DM_CALLS_IN_CALL : DM_CALLS_IN_TEXT;
}

void dm_calls_free(dm_calls *calls) {
    free(calls->held);
    *calls = (dm_calls){0};
}

static dm_status tell(dm_calls *calls, int kind, const char *text, size_t length, const dm_call_sink *sink) {
    const dm_call_part part = {kind, calls->count, text, length};
    return length > 0 ? sink->take(sink->user, &part) : DM_OK;
}

static void drop(dm_calls *calls, size_t n) {
    memmove(calls->held, calls->held + n, calls->length - n);
    calls->length -= n;
}

static dm_status tell_text(dm_calls *calls, size_t n, const dm_call_sink *sink) {
    calls->closed = calls->closed && n == 0;
    DM_TRY(tell(calls, DM_PART_TEXT, calls->held, n, sink));
    drop(calls, n);
    return DM_OK;
}

static size_t skip_spaces(const dm_calls *calls, size_t at) {
    while (at < calls->length && memchr(spaces, calls->held[at], sizeof spaces - 1) != NULL) {
        at++;
    }
    return at;
}

/* `n` without white space at its end. */
static size_t trim(const dm_calls *calls, size_t n) {
    while (n > 0 && memchr(spaces, calls->held[n - 1], sizeof spaces - 1) != NULL) {
        n--;
    }
    return n;
}

static void begin_call(dm_calls *calls, size_t body) {
    calls->state = DM_CALLS_IN_CALL;
    calls->body = calls->at = body;
    calls->named = calls->in_string = calls->escaped = false;
    calls->depth = calls->begin = calls->arguments = calls->arguments_end = calls->told = 0;
}

/* ---- Text ---- */

/* Bytes at the end that may turn out to begin a mark, with the white space before it. */
static size_t held_back(const dm_calls *calls, const char *mark) {
    size_t most = strlen(mark) - 1, n = most < calls->length ? most : calls->length;
    while (n > 0 && memcmp(calls->held + calls->length - n, mark, n) != 0) {
        n--;
    }
    return calls->length - trim(calls, calls->length - n);
}

/* Each of these says whether the state may go on. */
static dm_status read_text(dm_calls *calls, bool last, const dm_call_sink *sink, bool *more) {
    const char *mark = calls->tools->dialect->mark;
    if (*mark == '\0') { /* an answer is a call or is none */
        size_t at = skip_spaces(calls, 0);
        *more = at < calls->length || last;
        if (at < calls->length && calls->held[at] == '{') {
            begin_call(calls, 0);
        } else if (*more) {
            calls->state = DM_CALLS_PLAIN;
        }
        return DM_OK;
    }
    const char *found = memmem(calls->held, calls->length, mark, strlen(mark));
    if (found == NULL) {
        if (last && calls->closed && trim(calls, calls->length) == 0) {
            calls->length = 0; /* white space after the last call */
        }
        return tell_text(calls, calls->length - (last ? 0 : held_back(calls, mark)), sink);
    }
    DM_TRY(tell_text(calls, trim(calls, (size_t)(found - calls->held)), sink));
    begin_call(calls, skip_spaces(calls, 0) + strlen(mark));
    *more = true;
    return DM_OK;
}

/* ---- A call ---- */

static bool is_there(const dm_calls *calls, const char *name, size_t length) {
    for (size_t i = 0; i < calls->tools->n; i++) {
        if (strlen(calls->tools->names[i]) == length && memcmp(calls->tools->names[i], name, length) == 0) {
            return true;
        }
    }
    return false;
}

/* Takes `text` and the white space before it. */
static bool take(const dm_calls *calls, size_t *at, const char *text) {
    size_t n = strlen(text);
    *at = skip_spaces(calls, *at);
    bool there = calls->length - *at >= n && memcmp(calls->held + *at, text, n) == 0;
    *at += there ? n : 0;
    return there;
}

static dm_status tell_name(dm_calls *calls, const char *name, size_t length, const dm_call_sink *sink) {
    calls->named = true;
    return tell(calls, DM_PART_NAME, name, length, sink);
}

/* At a brace that may begin the arguments: tells the name, where the call is worded as the dialect has it. */
static dm_status try_name(dm_calls *calls, size_t brace, const dm_call_sink *sink) {
    size_t at = calls->begin;
    if (!take(calls, &at, "{") || !take(calls, &at, "\"name\"") || !take(calls, &at, ":") || !take(calls, &at, "\"")) {
        return DM_OK;
    }
    const char *name = calls->held + at, *end = memchr(name, '"', calls->length - at);
    if (end == NULL || !is_there(calls, name, (size_t)(end - name))) {
        return DM_OK;
    }
    at += (size_t)(end - name) + 1;
    if (!take(calls, &at, ",") || !take(calls, &at, "\"") || !take(calls, &at, calls->tools->dialect->arguments_key) ||
        !take(calls, &at, "\"") || !take(calls, &at, ":") || skip_spaces(calls, at) != brace) {
        return DM_OK;
    }
    calls->arguments = calls->told = brace;
    return tell_name(calls, name, (size_t)(end - name), sink);
}

/* Looks at more of the object; *complete where it ends. */
static dm_status scan(dm_calls *calls, const dm_call_sink *sink, bool *complete) {
    while (calls->at < calls->length && !*complete) {
        char byte = calls->held[calls->at++];
        if (calls->in_string) {
            calls->in_string = calls->escaped || byte != '"';
            calls->escaped = !calls->escaped && byte == '\\';
        } else if (byte == '"') {
            calls->in_string = true;
        } else if (byte == '{' || byte == '[') {
            calls->depth++;
            if (calls->depth == 2 && byte == '{' && !calls->named) {
                DM_TRY(try_name(calls, calls->at - 1, sink));
            }
        } else if (byte == '}' || byte == ']') {
            calls->depth--;
            *complete = calls->depth == 0;
            if (calls->depth == 1 && calls->named && calls->arguments_end == 0) {
                calls->arguments_end = calls->at;
            }
        }
    }
    if (!calls->named) {
        return DM_OK;
    }
    size_t end = calls->arguments_end > 0 ? calls->arguments_end : calls->at, from = calls->told;
    calls->told = end;
    return tell(calls, DM_PART_ARGUMENTS, calls->held + from, end - from, sink);
}

/* A complete object that is worded in some other way. */
static dm_status tell_object(dm_calls *calls, const dm_call_sink *sink) {
    json_t *object = json_loadb(calls->held + calls->begin, calls->at - calls->begin, 0, NULL);
    const json_t *name = json_object_get(object, "name"), *arguments = json_object_get(object, "arguments");
    arguments = arguments != NULL ? arguments : json_object_get(object, "parameters");
    dm_status status = DM_OK;
    if (json_is_string(name) && is_there(calls, json_string_value(name), json_string_length(name))) {
        char *text = json_is_string(arguments) ? strdup(json_string_value(arguments))
                     : arguments == NULL       ? strdup("{}")
                                               : json_dumps(arguments, JSON_ENCODE_ANY);
        status = text != NULL ? tell_name(calls, json_string_value(name), json_string_length(name), sink)
                              : dm_fail(DM_ERR_MEMORY, "out of memory for an answer");
        status = status == DM_OK ? tell(calls, DM_PART_ARGUMENTS, text, strlen(text), sink) : status;
        free(text);
    }
    json_decref(object);
    return status;
}

/* It was no call after all: what came is text, in which the next mark may be. */
static dm_status give_up(dm_calls *calls, const dm_call_sink *sink) {
    calls->state = *calls->tools->dialect->mark == '\0' ? DM_CALLS_PLAIN : DM_CALLS_IN_TEXT;
    return tell_text(calls, calls->body, sink);
}

static dm_status read_call(dm_calls *calls, bool last, const dm_call_sink *sink, bool *more) {
    bool complete = false, listed = strchr(calls->tools->dialect->open, '[') != NULL;
    if (calls->depth == 0) {
        size_t at = skip_spaces(calls, calls->body);
        at = listed && at < calls->length && calls->held[at] == '[' ? skip_spaces(calls, at + 1) : at;
        if (at == calls->length && !last) {
            return DM_OK;
        }
        if (at == calls->length || calls->held[at] != '{') {
            *more = true;
            return give_up(calls, sink);
        }
        calls->begin = calls->at = at;
    }
    DM_TRY(scan(calls, sink, &complete));
    if (!complete && !last) {
        return DM_OK;
    }
    *more = true;
    DM_TRY(complete && !calls->named ? tell_object(calls, sink) : DM_OK);
    if (!calls->named) {
        return give_up(calls, sink);
    }
    calls->count++;
    calls->closed = true;
    drop(calls, calls->at);
    calls->state = DM_CALLS_AFTER_CALL;
    return DM_OK;
}

/* ---- After a call ---- */

static dm_status read_after(dm_calls *calls, bool last, bool *more) {
    const dm_chat_dialect *dialect = calls->tools->dialect;
    const char *close = dialect->close + strspn(dialect->close, spaces);
    drop(calls, skip_spaces(calls, 0));
    size_t n = strlen(close), there = n < calls->length ? n : calls->length;
    bool begun = memcmp(calls->held, close, there) == 0;
    if (begun && there < n && !last) {
        return DM_OK;
    }
    *more = true;
    if (!begun && dialect->between != NULL && *dialect->between == calls->held[0]) { /* a list goes on */
        drop(calls, 1);
        begin_call(calls, 0);
        return DM_OK;
    }
    drop(calls, begun ? there : 0);
    calls->state = *dialect->mark == '\0' ? DM_CALLS_PLAIN : DM_CALLS_IN_TEXT;
    return DM_OK;
}

dm_status dm_calls_take(dm_calls *calls, const char *text, size_t length, bool last, const dm_call_sink *sink) {
    DM_TRY(dm_reserve(&calls->held, &calls->room, calls->length + length + 1, 1));
    if (length > 0) {
        memcpy(calls->held + calls->length, text, length);
        calls->length += length;
    }
    for (bool more = true; more;) {
        more = false;
        switch (calls->state) {
        case DM_CALLS_IN_TEXT:
            DM_TRY(read_text(calls, last, sink, &more));
            break;
        case DM_CALLS_IN_CALL:
            DM_TRY(read_call(calls, last, sink, &more));
            break;
        case DM_CALLS_AFTER_CALL:
            DM_TRY(read_after(calls, last, &more));
            break;
        default:
            DM_TRY(tell_text(calls, calls->length, sink));
            break;
        }
    }
    return DM_OK;
}
