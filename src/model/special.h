/* Tokens that are more than text: those found in it as a whole, and those that end what a model says. */
#ifndef DM_MODEL_SPECIAL_H
#define DM_MODEL_SPECIAL_H

#include "base/status.h"

/* Tokens found in text as a whole: control and unknown ones when asked for, a user's own always. */
typedef struct dm_special_tokens {
    int32_t *ids;       /* by their texts, in byte order */
    size_t starts[257]; /* where those of each first byte start */
    bool has_user;      /* some are DM_TOKEN_USER */
} dm_special_tokens;

/* What ends a turn or a text, whatever the family of the model: known by its text or named by the file. */
typedef struct dm_end_tokens {
    int32_t *ids; /* ascending */
    size_t count;
} dm_end_tokens;

struct dm_tokenizer;

/* Sorts the special tokens by their texts. Those longer than 255 bytes are never found: what a text costs stays bounded. */
dm_status dm_special_sort(struct dm_tokenizer *tokenizer);

/* The longest special token at the start of text[0..n), or -1. Control tokens only within its first `control` bytes. */
int32_t dm_special_find(const struct dm_tokenizer *tokenizer, const char *text, size_t n, size_t control);

/* Collects the ends: those that the vocabulary names (eos, eot, eom) and those known by their texts. Tokens that look like
 * ends, <|im_end|>, but have another type become control tokens, as in other programs. Again: collects them anew. */
dm_status dm_special_find_ends(struct dm_tokenizer *tokenizer);

/* Those of a vocabulary, which owns them. */
const dm_end_tokens *dm_special_ends(const struct dm_tokenizer *tokenizer);

#endif
