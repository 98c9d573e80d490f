/* What a tokenizer holds, and how it is put together: tokens first, then merges, then dm_vocabulary_finish(). */
#ifndef DM_MODEL_VOCABULARY_H
#define DM_MODEL_VOCABULARY_H

#include "base/table.h"
#include "model/tokenizer.h"

/* GGUF's tokenizer.ggml.token_type. */
typedef enum dm_token_type {
    DM_TOKEN_NORMAL = 1,
    DM_TOKEN_UNKNOWN = 2,
    DM_TOKEN_CONTROL = 3,
    DM_TOKEN_USER = 4, /* found in any text before it is split into words */
    DM_TOKEN_UNUSED = 5,
    DM_TOKEN_BYTE = 6,
} dm_token_type;

typedef struct dm_merge {
    int32_t left, right, result;
} dm_merge;

struct dm_tokenizer {
    dm_strings texts; /* a token's number is its id; as files write them, bytes by their names */
    uint8_t *types;   /* [vocab] dm_token_type */
    size_t types_room;
    char *bytes;        /* what the tokens stand for, back to back */
    size_t *byte_start; /* [vocab + 1] */
    dm_merge *merges;   /* by rank, the first to be applied first */
    size_t n_merges, merges_room;
    dm_table ranks;            /* dm_pair(left, right) to the merge's rank */
    int32_t byte_id[256];      /* the token of each single byte */
    int32_t *special;          /* tokens found in text as a whole, by first byte and then the longest first */
    size_t special_start[257]; /* where those of each first byte start */
    bool has_user;             /* some of them are DM_TOKEN_USER */
    int32_t bos, eos;          /* -1: none */
    bool add_bos;              /* kept for writing */
};

static inline uint64_t dm_pair(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

dm_status dm_vocabulary_create(dm_tokenizer **out);
/* Adds the next token. DM_ERR_FORMAT if another one has its text. */
dm_status dm_vocabulary_add(dm_tokenizer *tokenizer, const char *text, size_t length, dm_token_type type);
/* Adds the tokens of the 256 bytes, in order. */
dm_status dm_vocabulary_add_bytes(dm_tokenizer *tokenizer);
/* Adds the next merge; *result is the token of the joined text. If there is none, one is added with `add`, else it is
 * DM_ERR_FORMAT. A merge that repeats an earlier one changes nothing. */
dm_status dm_vocabulary_merge(dm_tokenizer *tokenizer, int32_t left, int32_t right, bool add, int32_t *result);
/* Fills what follows from tokens and merges. DM_ERR_FORMAT if a byte has no token. */
dm_status dm_vocabulary_finish(dm_tokenizer *tokenizer);
/* Adds <|endoftext|>, which begins and ends texts, as the last token, and finishes. */
dm_status dm_vocabulary_end(dm_tokenizer *tokenizer);

/* Number of the special token at the start of text[0..n), or -1; control tokens only with `control`. */
int32_t dm_vocabulary_special(const dm_tokenizer *tokenizer, const char *text, size_t n, bool control);

#endif
