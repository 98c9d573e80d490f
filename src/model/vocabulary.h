/* What a tokenizer holds, and how it is put together: tokens first, then merges, then dm_vocabulary_finish(). */
#ifndef DM_MODEL_VOCABULARY_H
#define DM_MODEL_VOCABULARY_H

#include "base/table.h"
#include "model/pretokenizer.h"
#include "model/special.h"
#include "model/tokenizer.h"

/* tokenizer.ggml.model. */
typedef enum dm_tokenizer_kind {
    DM_TOKENIZER_BPE,    /* "gpt2": merges of bytes, by rank */
    DM_TOKENIZER_PIECES, /* "llama", SentencePiece's BPE: merges of characters to the token of the best score */
} dm_tokenizer_kind;

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
    dm_tokenizer_kind kind;
    dm_strings texts; /* a token's number is its id; as files write them, bytes by their names */
    uint8_t *types;   /* [vocab] dm_token_type */
    size_t types_room;
    char *bytes;          /* what the tokens stand for, back to back */
    size_t *byte_start;   /* [vocab + 1] */
    int32_t byte_id[256]; /* the token of each single byte; -1: none */
    bool lacks_bytes;     /* one of them is -1 */
    dm_special_tokens special;
    dm_end_tokens ends;
    bool strips_right;                            /* white space after a special token goes with it, as in Phi-3 */
    int32_t bos, eos, eot, eom, unknown, padding; /* -1: none */
    bool add_bos, add_eos;                        /* encoding with DM_ENCODE_BOS, DM_ENCODE_EOS does something */
    char *chat_template;                          /* as the file has it; NULL: none */

    /* DM_TOKENIZER_BPE */
    const dm_pretokenizer *rules;
    char pre[48];     /* their name in the file */
    dm_merge *merges; /* by rank, the first to be applied first */
    size_t n_merges, merges_room;
    dm_table ranks; /* dm_pair(left, right) to the merge's rank */

    /* DM_TOKENIZER_PIECES */
    float *scores;     /* [vocab] */
    bool space_prefix; /* a text, and what follows a special token, is encoded as if a space stood before it */
    bool whole_spaces; /* no token has a space after another character, so that words can be encoded one by one */

    /* Both kinds: byte strings to the tokens that stand for them, where these can be met in text. Empty where not needed. */
    dm_strings pieces;
    int32_t *piece_ids; /* [pieces.count] */
    size_t longest_piece;
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
 * DM_ERR_FORMAT. A merge that repeats an earlier one changes nothing, nor does one that makes a special token: plain text never
 * becomes one. Types are known by then. */
dm_status dm_vocabulary_merge(dm_tokenizer *tokenizer, int32_t left, int32_t right, bool add, int32_t *result);
/* The tokens of both parts of merge `number`; DM_ERR_FORMAT where one is none. */
dm_status dm_vocabulary_parts(const dm_tokenizer *tokenizer, uint64_t number, const char *left, size_t a, const char *right,
                              size_t b, int32_t ids[2]);
/* The same of a merge as one text, with a space between the parts. */
dm_status dm_vocabulary_line(const dm_tokenizer *tokenizer, uint64_t number, const char *text, size_t length, int32_t ids[2]);
/* The token whose text is both parts' joined; DM_ERR_FORMAT if there is none. */
dm_status dm_vocabulary_join(const dm_tokenizer *tokenizer, int32_t left, int32_t right, int32_t *result);
/* Fills what follows from the tokens, their types and the merges. */
dm_status dm_vocabulary_finish(dm_tokenizer *tokenizer);
/* Adds <|endoftext|>, which begins and ends texts, as the last token, and finishes. */
dm_status dm_vocabulary_end(dm_tokenizer *tokenizer);

/* The token that stands for these bytes, among those that can be met in text; -1: none. */
int32_t dm_vocabulary_piece(const dm_tokenizer *tokenizer, const char *bytes, size_t length);

#endif
