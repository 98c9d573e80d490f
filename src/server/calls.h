/* Calls of functions in an answer, found while it comes: what is text, and what is a call's name and arguments. */
#ifndef DM_SERVER_CALLS_H
#define DM_SERVER_CALLS_H

#include "server/request.h"

typedef struct dm_call_part {
    enum {
        DM_PART_TEXT,
        DM_PART_NAME,     /* a call begins */
        DM_PART_ARGUMENTS /* some of its arguments' JSON */
    } kind;
    int32_t call; /* its number */
    const char *text;
    size_t length;
} dm_call_part;

/* Takes the parts in order. */
typedef struct dm_call_sink {
    dm_status (*take)(void *user, const dm_call_part *part);
    void *user;
} dm_call_sink;

typedef struct dm_calls {
    const dm_request_tools *tools;
    enum {
        DM_CALLS_IN_TEXT,
        DM_CALLS_IN_CALL,
        DM_CALLS_AFTER_CALL, /* what stands after a call is to come */
        DM_CALLS_BETWEEN,    /* or what stands between two, or after the last */
        DM_CALLS_PLAIN
    } state;
    char *held; /* [length] that was not told yet */
    size_t length, room;
    int32_t count; /* calls that were told */
    bool closed;   /* one was, and no text since */

    /* In a call. */
    const dm_function *function; /* which it is, once that was told, and arguments are told as they come; NULL: it was not */
    size_t body;                 /* bytes of `held` before it: its mark, and white space */
    size_t at;                   /* those that were looked at */

    /* In JSON. */
    size_t depth, outer; /* brackets that are open; those around the arguments */
    bool in_string, escaped;
    size_t begin, arguments_end, told; /* in `held`; end is 0 until it is there */

    /* In tags. */
    const json_t *schema; /* of the parameter that is read; NULL: none is known */
    bool in_value, some;  /* of a parameter; of which there was one */
    bool line;            /* the value is at its beginning */
    char *made;           /* [made_length] arguments that are not told yet */
    size_t made_length, made_room;
} dm_calls;

/* Of an answer to a request with these functions. */
void dm_calls_init(dm_calls *calls, const dm_request_tools *tools);
/* Goes on with more of the answer; with `last` nothing is held back. What turns out not to be a call of a function that is
 * there is text. */
dm_status dm_calls_take(dm_calls *calls, const char *text, size_t length, bool last, const dm_call_sink *sink);
void dm_calls_free(dm_calls *calls);

#endif
