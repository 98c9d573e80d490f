/* One answer while it is made: from logits to tokens, from tokens to text that may be sent. The engine's thread's alone, but for
 * dm_choice_draw(). */
#ifndef DM_SERVER_CHOICE_H
#define DM_SERVER_CHOICE_H

#include "model/sampling.h"
#include "server/masks.h"
#include "server/request.h"

typedef struct dm_choice {
    struct dm_choice *next; /* in the queue */
    dm_request *request;    /* of which this is a holder */
    const dm_prompt *prompt;
    int32_t index; /* among the request's answers */

    dm_sampler sampler;
    int32_t *ids; /* [room] made so far */
    size_t made, ids_room;
    int32_t *counts; /* [vocab] how often each was; NULL: nobody asks */
    float *raw;      /* [vocab] logits as the model gave them; NULL: nobody asks */
    dm_masks *masks; /* what the grammar allows; NULL: everything */
    char *text;      /* [length] made so far */
    size_t length, room;
    size_t sent;         /* bytes of it */
    dm_token_odds *odds; /* [n_odds] of tokens that were not sent yet */
    size_t n_odds, odds_room;
} dm_choice;

/* Answer number `index` of a request, of which it becomes a holder. NULL: no memory. */
dm_choice *dm_choice_create(dm_request *request, int32_t index);
void dm_choice_free(dm_choice *choice);
/* Before the first token. */
dm_status dm_choice_begin(dm_choice *choice, const dm_vocabulary_order *order);

/* Draws the next token; logits [vocab] are changed. `known` [n_known] is all that the session holds. Threads may do it at the
 * same time for different answers. */
dm_status dm_choice_draw(dm_choice *choice, const dm_tokenizer *tokenizer, float *logits, const int32_t *known, int32_t n_known,
                         int32_t *id);
/* Takes what was drawn. *finish says whether the answer ends with it, or before it where *id becomes -1. What can be sent was put
 * into the request. */
dm_status dm_choice_take(dm_choice *choice, const dm_tokenizer *tokenizer, int32_t *id, dm_finish *finish);
/* Ends it. */
void dm_choice_end(dm_choice *choice, dm_finish finish);
/* Ends it where no more tokens can be had, with what was held back. */
void dm_choice_cut(dm_choice *choice);
/* Ends it with the thread's last message. */
void dm_choice_fail(dm_choice *choice, int status);

/* Text that is sent before anything is made, such as an echo; with its odds [n_odds], copied. */
dm_status dm_choice_say(dm_choice *choice, const char *text, size_t length, const dm_token_odds *odds, size_t n_odds);
/* The odds of `id` in logits [vocab], with the `top` best. */
void dm_odds_of(const float *logits, int32_t vocab, int32_t id, int32_t top, dm_token_odds *out);

#endif
