/* The words, numbers, strings and braces of a .nfg file. */
#ifndef DM_CORE_NFG_TOKENS_H
#define DM_CORE_NFG_TOKENS_H

#include "core/normal_form.h"

typedef enum dm_nfg_kind {
    DM_NFG_END,
    DM_NFG_WORD,
    DM_NFG_NUMBER, /* starts like one; whether it is one, dm_nfg_payoff() and dm_nfg_index() tell */
    DM_NFG_STRING,
    DM_NFG_OPEN,
    DM_NFG_CLOSE,
    DM_NFG_COMMA
} dm_nfg_kind;

typedef struct dm_nfg_tokens {
    const char *at, *end; /* what follows */
    size_t line;          /* of the current token, from 1 */
    dm_nfg_kind kind;
    char *text; /* of a word, a number or a string without its quotes; valid until the next token */
    size_t text_room;
} dm_nfg_tokens;

/* Goes on to the next token. */
dm_status dm_nfg_next(dm_nfg_tokens *tokens);
/* The payoff that the current token is. */
dm_status dm_nfg_payoff(const dm_nfg_tokens *tokens, double *value, dm_exact *exact);
/* The whole number from 0 to `most` that the current token is. */
dm_status dm_nfg_index(const dm_nfg_tokens *tokens, size_t most, const char *expected, size_t *index);
/* Bytes of the file from the current token on. */
size_t dm_nfg_left(const dm_nfg_tokens *tokens);
/* Fails with the line, what was expected, and what is there. */
dm_status dm_nfg_expected(const dm_nfg_tokens *tokens, const char *expected);
void dm_nfg_tokens_free(dm_nfg_tokens *tokens);

#endif
