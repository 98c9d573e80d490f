/* What is found in an answer that comes in pieces, as text: T(text) N(name) A(arguments), with the call's number, and parts of a
 * kind joined. */
#ifndef DM_TESTS_TOLD_CALLS_H
#define DM_TESTS_TOLD_CALLS_H

#include <string.h>

#include "server/calls.h"

typedef struct told_calls {
    char text[1 << 15]; /* [length], NUL-terminated */
    size_t length;
    unsigned kind;
    int32_t call;
    bool wrong; /* something came as it must not, or there was no room */
} told_calls;

static inline void told_note(told_calls *told, const char *bytes, size_t n) {
    told->wrong = told->wrong || told->length + n >= sizeof told->text;
    if (!told->wrong) {
        memcpy(told->text + told->length, bytes, n);
        told->length += n;
        told->text[told->length] = '\0';
    }
}

static inline dm_status told_take(void *user, const dm_call_part *part) {
    told_calls *told = user;
    bool again = told->length > 0 && part->kind == told->kind && part->call == told->call;
    told->wrong = told->wrong || part->length == 0 || part->call < told->call || (again && part->kind == DM_PART_NAME);
    if (!again) {
        told_note(told, "|", told->length > 0);
        told_note(told, &"TNA"[part->kind], 1);
        told_note(told, &"0123456789"[part->call % 10], part -> kind != DM_PART_TEXT);
    }
    told->kind = part->kind;
    told->call = part->call;
    told_note(told, part->text, part->length);
    return DM_OK;
}

/* Finds what is in `answer`, which comes in pieces of `step` bytes. False: something is wrong. */
static inline bool told_parse(const dm_request_tools *tools, const char *answer, size_t length, size_t step, told_calls *told) {
    dm_calls calls;
    bool fine = true;
    told->length = 0;
    told->text[0] = '\0';
    told->call = 0;
    told->wrong = false;
    dm_calls_init(&calls, tools);
    for (size_t at = 0; at < length && fine; at += step) {
        size_t n = length - at < step ? length - at : step;
        fine = dm_calls_take(&calls, answer + at, n, false, &(dm_call_sink){told_take, told}) == DM_OK;
    }
    fine = fine && dm_calls_take(&calls, NULL, 0, true, &(dm_call_sink){told_take, told}) == DM_OK && calls.length == 0;
    dm_calls_free(&calls);
    return fine && !told->wrong;
}

#endif
