#include "server/calls.h"

#include <stdlib.h>
#include <string.h>

#include "base/table.h"
#include "server/calls_parts.h"

static const char spaces[] = " \t\r\n";

void dm_calls_init(dm_calls *calls, const dm_request_tools *tools) {
    *calls = (dm_calls){.tools = tools};
    calls->state = tools->dialect == NULL ? DM_CALLS_PLAIN : tools->called ? DM_CALLS_IN_CALL : DM_CALLS_IN_TEXT;
}

void dm_calls_free(dm_calls *calls) {
    free(calls->held);
    free(calls->made);
    *calls = (dm_calls){0};
}

dm_status dm_calls_tell(dm_calls *calls, int kind, const char *text, size_t length, const dm_call_sink *sink) {
    const dm_call_part part = {kind, calls->count, text, length};
    return length > 0 ? sink->take(sink->user, &part) : DM_OK;
}

void dm_calls_drop(dm_calls *calls, size_t n) {
    memmove(calls->held, calls->held + n, calls->length - n);
    calls->length -= n;
}

static dm_status tell_text(dm_calls *calls, size_t n, const dm_call_sink *sink) {
    calls->closed = calls->closed && n == 0;
    DM_TRY(dm_calls_tell(calls, DM_PART_TEXT, calls->held, n, sink));
    dm_calls_drop(calls, n);
    return DM_OK;
}

size_t dm_calls_skip_spaces(const dm_calls *calls, size_t at) {
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

dm_match dm_calls_match(const dm_calls *calls, size_t *at, const char *text) {
    text += strspn(text, spaces);
    size_t n = strlen(text), from = dm_calls_skip_spaces(calls, *at);
    while (n > 0 && memchr(spaces, text[n - 1], sizeof spaces - 1) != NULL) {
        n--;
    }
    size_t there = calls->length - from < n ? calls->length - from : n;
    if (memcmp(calls->held + from, text, there) != 0) {
        return DM_MATCH_NO;
    }
    *at = there == n ? from + n : *at;
    return there == n ? DM_MATCH_YES : DM_MATCH_OPEN;
}

const dm_function *dm_calls_function(const dm_calls *calls, const char *name, size_t length) {
    for (size_t i = 0; i < calls->tools->n; i++) {
        const dm_function *function = &calls->tools->functions[i];
        if (strlen(function->name) == length && memcmp(function->name, name, length) == 0) {
            return function;
        }
    }
    return NULL;
}

dm_status dm_calls_tell_name(dm_calls *calls, const dm_function *function, const dm_call_sink *sink) {
    calls->function = function;
    return dm_calls_tell(calls, DM_PART_NAME, function->name, strlen(function->name), sink);
}

static void begin_call(dm_calls *calls, size_t body) {
    calls->state = DM_CALLS_IN_CALL;
    calls->body = calls->at = body;
    calls->function = NULL;
    calls->in_string = calls->escaped = calls->in_value = calls->some = false;
    calls->depth = calls->outer = calls->begin = calls->arguments_end = calls->told = 0;
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
        size_t at = dm_calls_skip_spaces(calls, 0);
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
    begin_call(calls, dm_calls_skip_spaces(calls, 0) + strlen(mark));
    *more = true;
    return DM_OK;
}

/* ---- A call ---- */

/* It was no call after all: what came is text, in which the next mark may be. */
static dm_status give_up(dm_calls *calls, const dm_call_sink *sink) {
    calls->state = *calls->tools->dialect->mark == '\0' ? DM_CALLS_PLAIN : DM_CALLS_IN_TEXT;
    return tell_text(calls, calls->body, sink);
}

/* An id after a name, at `at`. */
static dm_match read_id(const dm_calls *calls, size_t *at) {
    const char *mark = calls->tools->dialect->id;
    dm_match found = mark != NULL ? dm_calls_match(calls, at, mark) : DM_MATCH_NO;
    while (found == DM_MATCH_YES && *at < calls->length && strchr(DM_FUNCTION_LETTERS, calls->held[*at]) != NULL &&
           calls->held[*at] != '\0') {
        ++*at;
    }
    return found == DM_MATCH_YES && *at == calls->length ? DM_MATCH_OPEN : found;
}

/* What stands before a call's arguments, in which is its name; *function is NULL where that is of none. calls->at is after it. */
static dm_match read_head(dm_calls *calls, const dm_function **function) {
    const dm_chat_dialect *dialect = calls->tools->dialect;
    size_t at = calls->body;
    dm_match found = *dialect->before != '\0' ? dm_calls_match(calls, &at, dialect->before) : DM_MATCH_YES;
    if (found != DM_MATCH_YES) {
        return found;
    }
    size_t name = dm_calls_skip_spaces(calls, at), end = name;
    while (end < calls->length && calls->held[end] != '\0' && strchr(DM_FUNCTION_LETTERS, calls->held[end]) != NULL) {
        end++;
    }
    *function = dm_calls_function(calls, calls->held + name, end - name);
    at = end;
    found = end == calls->length ? DM_MATCH_OPEN : read_id(calls, &at);
    found = found != DM_MATCH_OPEN ? dm_calls_match(calls, &at, dialect->middle) : found;
    calls->at = at;
    return found;
}

/* Finds where a call begins. *found: there it is. */
static dm_status begin(dm_calls *calls, const dm_call_sink *sink, dm_match *found) {
    const dm_chat_dialect *dialect = calls->tools->dialect;
    if (dialect->arguments_key != NULL) {
        size_t at = dm_calls_skip_spaces(calls, calls->body);
        bool listed = strchr(dialect->open, '[') != NULL && at < calls->length && calls->held[at] == '[';
        at = listed ? dm_calls_skip_spaces(calls, at + 1) : at;
        calls->begin = calls->at = at;
        calls->outer = 1;
        *found = at == calls->length ? DM_MATCH_OPEN : calls->held[at] == '{' ? DM_MATCH_YES : DM_MATCH_NO;
        return DM_OK;
    }
    const dm_function *function = NULL;
    *found = read_head(calls, &function);
    if (*found == DM_MATCH_YES && !dialect->tagged) { /* JSON follows */
        calls->at = calls->told = dm_calls_skip_spaces(calls, calls->at);
        *found = calls->at == calls->length ? DM_MATCH_OPEN : calls->held[calls->at] == '{' ? DM_MATCH_YES : DM_MATCH_NO;
    }
    *found = *found == DM_MATCH_YES && function == NULL ? DM_MATCH_NO : *found;
    return *found == DM_MATCH_YES ? dm_calls_tell_name(calls, function, sink) : DM_OK;
}

static bool has_begun(const dm_calls *calls) {
    return calls->depth > 0 || calls->function != NULL;
}

static dm_status read_call(dm_calls *calls, bool last, const dm_call_sink *sink, bool *more) {
    const dm_chat_dialect *dialect = calls->tools->dialect;
    bool complete = false;
    if (!has_begun(calls)) {
        dm_match found;
        DM_TRY(begin(calls, sink, &found));
        if (found == DM_MATCH_OPEN && !last) {
            return DM_OK;
        }
        if (found != DM_MATCH_YES) {
            *more = true;
            return give_up(calls, sink);
        }
    }
    DM_TRY(dialect->arguments_key != NULL ? dm_calls_read_object(calls, sink, &complete)
           : dialect->tagged              ? dm_calls_read_tagged(calls, last, sink, &complete)
                                          : dm_calls_read_json(calls, sink, &complete));
    if (!complete && !last) {
        return DM_OK;
    }
    *more = true;
    if (calls->function == NULL) {
        return give_up(calls, sink);
    }
    calls->count++;
    calls->closed = true;
    dm_calls_drop(calls, calls->at);
    calls->state = DM_CALLS_AFTER_CALL;
    return DM_OK;
}

/* ---- After a call ---- */

/* Drops `text` where it is what comes, or is cut. False: that is not known yet. */
static bool drop_if(dm_calls *calls, const char *text, bool last) {
    size_t at = 0;
    dm_match found = dm_calls_match(calls, &at, text);
    if (found == DM_MATCH_OPEN) {
        calls->length = last ? 0 : calls->length;
        return last;
    }
    dm_calls_drop(calls, found == DM_MATCH_YES ? at : 0);
    return true;
}

static void read_after(dm_calls *calls, bool last, bool *more) {
    const dm_chat_dialect *dialect = calls->tools->dialect;
    dm_calls_drop(calls, dm_calls_skip_spaces(calls, 0));
    if ((calls->length > 0 || last) && drop_if(calls, dialect->after + (dialect->arguments_key != NULL), last)) {
        calls->state = DM_CALLS_BETWEEN;
        *more = true;
    }
}

/* What another call begins with where no mark does. */
static const char *next_text(const dm_chat_dialect *dialect) {
    const char *text = dialect->between != NULL ? dialect->between + strspn(dialect->between, spaces) : "";
    if (dialect->between != NULL && *text == '\0') {
        return dialect->before;
    }
    return strncmp(text, dialect->mark, strlen(dialect->mark)) != 0 ? text : "";
}

static void read_between(dm_calls *calls, bool last, bool *more) {
    const dm_chat_dialect *dialect = calls->tools->dialect;
    const char *next = next_text(dialect);
    size_t at = 0, end = 0;
    dm_match another = *next != '\0' ? dm_calls_match(calls, &at, next) : DM_MATCH_NO,
             closed = *dialect->close != '\0' ? dm_calls_match(calls, &end, dialect->close) : DM_MATCH_NO;
    if (another != DM_MATCH_YES && closed != DM_MATCH_YES && (another == DM_MATCH_OPEN || closed == DM_MATCH_OPEN)) {
        calls->length = last ? 0 : calls->length; /* what is cut is cut */
        return;
    }
    *more = true;
    if (another == DM_MATCH_YES) {
        dm_calls_drop(calls, next == dialect->before ? 0 : at);
        begin_call(calls, 0);
        return;
    }
    dm_calls_drop(calls, end);
    calls->state = *dialect->mark == '\0' ? DM_CALLS_PLAIN : DM_CALLS_IN_TEXT;
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
            read_after(calls, last, &more);
            break;
        case DM_CALLS_BETWEEN:
            read_between(calls, last, &more);
            break;
        default:
            DM_TRY(tell_text(calls, calls->length, sink));
            break;
        }
    }
    return DM_OK;
}
