/* Turns one word into tokens by merging: bytes by rank (BPE), or characters by the score of what they join to. */
#ifndef DM_MODEL_MERGE_H
#define DM_MODEL_MERGE_H

#include "model/tokenizer.h"

/* For one thread. The tokenizer must outlive it. */
typedef struct dm_merger dm_merger;
dm_status dm_merger_create(const dm_tokenizer *tokenizer, dm_merger **out);
void dm_merger_free(dm_merger *merger);

/* Writes the ids of word[0..n), at most n, n > 0; in n log n of time, whatever the word. DM_ERR_UNSUPPORTED if a byte of it
 * has no token, nor an unknown one stands in. */
dm_status dm_merge_word(dm_merger *merger, const char *word, size_t n, int32_t *ids, size_t *count);

#endif
