/* Which tokens a grammar allows: its walk over bytes, for all tokens of a vocabulary at once. */
#ifndef DM_SERVER_MASKS_H
#define DM_SERVER_MASKS_H

#include "server/grammar.h"

/* A vocabulary's tokens by their bytes, so that those that begin alike lie together. */
typedef struct dm_vocabulary_order {
    const dm_tokenizer *tokenizer;
    int32_t *ids; /* [n] tokens that stand for bytes, in byte order */
    size_t n;
    uint64_t *silent; /* bits [vocab] of those that stand for none and do not end a text */
    int32_t vocab;    /* of the model, of which some may be beyond the tokenizer's */
} dm_vocabulary_order;
dm_status dm_vocabulary_order_init(const dm_tokenizer *tokenizer, int32_t vocab, dm_vocabulary_order *out);
void dm_vocabulary_order_free(dm_vocabulary_order *order);

typedef struct dm_masks dm_masks;
/* Grammar and order are borrowed; so are the tokens that are marks, [DM_CHAT_MARKS] as dm_chat_mark_tokens() has them, or NULL.
 */
dm_status dm_masks_create(const dm_grammar *grammar, const dm_vocabulary_order *order, const int32_t *marks, dm_masks **out);
void dm_masks_free(dm_masks *masks);
/* Makes all logits [vocab] impossible but those of tokens that may come next; tokens that end a text may where the text may.
 * DM_ERR_UNSUPPORTED where none may: the vocabulary lacks the bytes. */
dm_status dm_masks_apply(dm_masks *masks, float *logits);
/* Goes on by a token that was allowed. */
dm_status dm_masks_take(dm_masks *masks, int32_t id);
/* Whether nothing may follow. */
bool dm_masks_complete(const dm_masks *masks);

#endif
