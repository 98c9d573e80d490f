/*
 * Which bytes may follow: a grammar over bytes, and where in it an answer is. Positions are sets of stacks that are made
 * deterministic as they are met, each set a state with a row of 256 transitions.
 */
#ifndef DM_SERVER_GRAMMAR_H
#define DM_SERVER_GRAMMAR_H

#include <jansson.h>

#include "model/chat.h"

typedef struct dm_grammar dm_grammar;

/* Any JSON object. */
dm_status dm_grammar_json(dm_grammar **out);
/* JSON that fits `schema`, in the subset of docs/serving.md; anything else is DM_ERR_UNSUPPORTED, with where it is. */
dm_status dm_grammar_schema(const json_t *schema, dm_grammar **out);
/* Calls of functions as a dialect words them after its mark, at least one and, without `several`, at most one. `functions`
 * [n] have names of plain letters, and parameters that are a schema or NULL: none. */
typedef struct dm_function {
    const char *name;
    const json_t *parameters;
} dm_function;
dm_status dm_grammar_calls(const dm_chat_dialect *dialect, const dm_function *functions, size_t n, bool several,
                           dm_grammar **out);
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

#endif
