/* What the files that look for calls share. */
#ifndef DM_SERVER_CALLS_PARTS_H
#define DM_SERVER_CALLS_PARTS_H

#include "server/calls.h"

/* Whether what is held goes on in some way. */
typedef enum dm_match {
    DM_MATCH_NO,
    DM_MATCH_YES,
    DM_MATCH_OPEN /* it may, by what is still to come */
} dm_match;

/* `text` from `at` on, with any white space before it, and without its own around it; *at is after it where it is there. */
dm_match dm_calls_match(const dm_calls *calls, size_t *at, const char *text);
/* The first place from `at` on that is no white space. */
size_t dm_calls_skip_spaces(const dm_calls *calls, size_t at);
/* Drops `n` bytes of what is held. */
void dm_calls_drop(dm_calls *calls, size_t n);
/* The function of this name; NULL: it is not there. */
const dm_function *dm_calls_function(const dm_calls *calls, const char *name, size_t length);

dm_status dm_calls_tell(dm_calls *calls, int kind, const char *text, size_t length, const dm_call_sink *sink);
dm_status dm_calls_tell_name(dm_calls *calls, const dm_function *function, const dm_call_sink *sink);

/* Each goes on reading a call from calls->at, once it has begun. *complete: it is over, calls->at is after it. */
/* A JSON object that has a name and arguments, with calls->begin where it begins. */
dm_status dm_calls_read_object(dm_calls *calls, const dm_call_sink *sink, bool *complete);
/* Arguments that are JSON: there calls->at is at the brace. */
dm_status dm_calls_read_json(dm_calls *calls, const dm_call_sink *sink, bool *complete);
/* Arguments in tags. `last`: there is no more. */
dm_status dm_calls_read_tagged(dm_calls *calls, bool last, const dm_call_sink *sink, bool *complete);

#endif
