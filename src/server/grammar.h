/*
 * Which bytes may follow: a grammar over bytes, and where in it an answer is. Positions are sets of stacks that are made
 * deterministic as they are met, each set a state with a row of 256 transitions.
 */
#ifndef DM_SERVER_GRAMMAR_H
#define DM_SERVER_GRAMMAR_H

#include <jansson.h>

#include "model/chat.h"

typedef struct dm_grammar dm_grammar;

/* Bytes that are in no text in UTF-8 stand for tokens without bytes: mark i of a dialect is DM_GRAMMAR_MARK + i, any other token
 * DM_GRAMMAR_TOKEN. */
enum { DM_GRAMMAR_MARK = 0xf8, DM_GRAMMAR_TOKEN = 0xff };

/* Any JSON object. */
dm_status dm_grammar_json(dm_grammar **out);
/* JSON that fits `schema`, in the subset of docs/serving.md; anything else is DM_ERR_UNSUPPORTED, with where it is. */
dm_status dm_grammar_schema(const json_t *schema, dm_grammar **out);

/* What names of functions are made of. */
#define DM_FUNCTION_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

typedef struct dm_function {
    const char *name;         /* of these letters */
    const json_t *parameters; /* a schema of an object; NULL: it has none */
    bool strict;              /* a schema that cannot be followed is refused */
    bool any;                 /* arguments are any object, whatever the schema says */
} dm_function;
/* What an answer may call, and how that is worded. */
typedef struct dm_call_rules {
    const dm_chat_dialect *dialect;
    const int32_t *marks; /* [DM_CHAT_MARKS] as dm_chat_mark_tokens() has them */
    const dm_function *functions;
    size_t n;
    bool several;
    bool after_mark; /* the answer goes on after the first mark; else it is any text until it has one */
} dm_call_rules;
/* A text and calls, or calls alone. DM_ERR_UNSUPPORTED: a function's schema is outside of the subset, or all are too large. */
dm_status dm_grammar_calls(const dm_call_rules *how, dm_grammar **out);
/* Whether the values of a parameter are written as they are where arguments are tagged; else they are JSON. */
bool dm_parameter_is_text(const json_t *schema);
void dm_grammar_free(dm_grammar *grammar);

/* An answer's walk through a grammar, which it borrows. */
typedef struct dm_walk dm_walk;
enum { DM_WALK_DEAD = -1 };
dm_status dm_walk_create(const dm_grammar *grammar, dm_walk **out);
void dm_walk_free(dm_walk *walk);
/* The state at the beginning. */
int32_t dm_walk_start(const dm_walk *walk);
/* The state after a byte; DM_WALK_DEAD: it may not come. */
int32_t dm_walk_step(dm_walk *walk, int32_t state, uint8_t byte);
/* Whether the text may end here; whether it must. */
bool dm_walk_may_end(const dm_walk *walk, int32_t state);
bool dm_walk_must_end(const dm_walk *walk, int32_t state);
/* DM_ERR_MEMORY once there were more states than memory is for: the walk is of no more use. */
dm_status dm_walk_status(const dm_walk *walk);
/* Whether half of that memory is used, so that it is time to forget. */
bool dm_walk_is_long(const dm_walk *walk);
/* Forgets all states but one, which gets another number. After a failure the walk is as it was. */
dm_status dm_walk_forget(dm_walk *walk, int32_t *state);

#endif
