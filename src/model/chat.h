/*
 * Conversations as the text that a model was trained on. Each family of models marks the turns in its own way; which one a
 * file means is recognised by marks in its tokenizer.chat_template. The template itself, a program in a language of its own,
 * is never run: what is not recognised is refused (CVE-2024-34359).
 */
#ifndef DM_MODEL_CHAT_H
#define DM_MODEL_CHAT_H

#include <jansson.h>

#include "model/encoder.h"

/* A rendered conversation. */
typedef struct dm_chat_text {
    char *text; /* malloc; NUL-terminated */
    size_t length, room;
    dm_span *spans; /* malloc; what came from messages */
    size_t n_spans, spans_room;
} dm_chat_text;

/* Name of the family whose template this is; NULL: none that is known. */
const char *dm_chat_recognise(const char *chat_template);

/* ---- Functions that the model may call ---- */

enum { DM_CHAT_MARKS = 6 };

/* How a family's models word calls: mark, open, a call, between, another one, ..., close. */
typedef struct dm_chat_dialect {
    const char *mark;          /* tells calls from text; "": nothing does but that they are JSON */
    const char *open, *close;  /* before the first and after the last */
    const char *between;       /* two of them; NULL: there is never more than one */
    const char *before;        /* of a call: what stands before its name, */
    const char *id;            /* before its id, which may follow the name (NULL: it has none), */
    const char *middle;        /* before its arguments, */
    const char *after;         /* and after them */
    const char *arguments_key; /* where all this is a JSON object: their key; NULL: it is none */
    bool tagged;               /* each argument is <parameter=NAME>, a line with its value, </parameter>; else they are JSON */
    const char *marks[DM_CHAT_MARKS]; /* what of all this may be control tokens, `mark` first; NULL: no more */
} dm_chat_dialect;

/* The dialect of a family, NULL for the vocabulary's own; NULL: its template says nothing of functions. */
const dm_chat_dialect *dm_chat_dialect_of(const dm_tokenizer *tokenizer, const char *family_name);
/* The control tokens that a dialect's marks are, which have no bytes; -1: it is made of others, or there is none. */
void dm_chat_mark_tokens(const dm_tokenizer *tokenizer, const dm_chat_dialect *dialect, int32_t out[DM_CHAT_MARKS]);

typedef struct dm_chat_call {
    const char *id, *name;
    json_t *arguments; /* an object */
} dm_chat_call;

/* What a message has beside its content. */
typedef struct dm_chat_extra {
    dm_chat_call *calls; /* [n_calls] of an assistant */
    size_t n_calls;
    const char *call_id; /* of the call whose result a tool's message is; NULL: it is none */
} dm_chat_extra;

typedef struct dm_chat_functions {
    const json_t *tools;         /* a list as OpenAI's API words it; NULL: none are there to be called */
    const dm_chat_extra *extras; /* [n] for each message */
    bool call;                   /* the answer is to begin with a call */
} dm_chat_functions;

/* Start from {0}; free with dm_chat_text_free() also after a failure. `functions` may be NULL. */
dm_status dm_chat_write(const dm_tokenizer *tokenizer, const char *family, const dm_chat_message *messages, size_t n,
                        const dm_chat_functions *functions, bool answer, dm_chat_text *out);
void dm_chat_text_free(dm_chat_text *text);

/* As dm_chat_encode(), with an answer invited. */
dm_status dm_chat_encode_functions(const dm_tokenizer *tokenizer, const char *family, const dm_chat_message *messages, size_t n,
                                   const dm_chat_functions *functions, int32_t **ids, size_t *count);

#endif
