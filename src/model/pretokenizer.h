/*
 * The rules by which byte-level vocabularies cut text into the words that BPE works within, under the names that
 * tokenizer.ggml.pre gives them.
 *
 * A rule is one pass or several. The first pass cuts the text where its pattern matches: each match is a piece, and so is
 * each stretch between matches. Every piece then goes through the next pass as if it were a text of its own; what the last
 * pass leaves are the words.
 */
#ifndef DM_MODEL_PRETOKENIZER_H
#define DM_MODEL_PRETOKENIZER_H

#include "base/status.h"

/* The path that ASCII takes in split.c, with results equal to the pattern's. */
typedef enum dm_ascii_path {
    DM_ASCII_NONE,  /* PCRE2 does all */
    DM_ASCII_GPT2,  /* a space before a word belongs to it; digits stay together */
    DM_ASCII_WORDS, /* one character of any other kind before letters belongs to them; punctuation takes the newlines after it */
} dm_ascii_path;

typedef struct dm_split_pass {
    const char *pattern; /* PCRE2; NULL ends the passes */
    bool total;          /* it matches at the start of any text */
    dm_ascii_path ascii;
    bool contractions; /* DM_ASCII_WORDS: 's, 'LL and so on are words */
    int digits;        /* DM_ASCII_WORDS: longest run of digits that is one word */
} dm_split_pass;

enum { DM_MAX_PASSES = 6 };

typedef struct dm_pretokenizer {
    const char *names; /* separated by spaces, the usual one first */
    dm_split_pass passes[DM_MAX_PASSES];
    bool whole_words; /* a word that is a token becomes it, whatever the merges say */
    bool add_bos;     /* where a file does not say */
} dm_pretokenizer;

/* NULL where there is none of that name. */
const dm_pretokenizer *dm_pretokenizer_find(const char *name, size_t length);
/* What a file of that architecture means that names no rule, as files made before the key existed: never NULL. */
const dm_pretokenizer *dm_pretokenizer_guess(const char *architecture, size_t length);
/* The rule's usual name: not NUL-terminated. */
const char *dm_pretokenizer_name(const dm_pretokenizer *rule, size_t *length);
/* Names of all rules, "a, b, c"; always terminated. */
void dm_pretokenizer_list(char *text, size_t size);

#endif
