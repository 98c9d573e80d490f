#include "model/split.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/table.h"
#include "base/utf8.h"

/* Unicode's White_Space, spelled out: PCRE2's \s also takes U+180E, which lost that property in Unicode 6.3. */
#define SPACE "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Possessive (++) where the pattern could not match otherwise anyway, so that no run is walked back. */
static const char pattern[] =
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^" SPACE "\\p{L}\\p{N}]++|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]++";

struct dm_splitter {
    pcre2_code *code;
    pcre2_match_data *match;
    bool fast;
    const char *text;
    size_t length, at;
    char *valid; /* a copy of the text whose invalid bytes are replaced */
    size_t valid_room;
};

dm_status dm_splitter_create(dm_splitter **out) {
    *out = NULL;
    dm_splitter *splitter = calloc(1, sizeof *splitter);
    if (splitter == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for the tokenizer's pattern");
    }
    splitter->fast = true;
    int error;
    PCRE2_SIZE where;
    splitter->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_ANCHORED, &error, &where, NULL);
    if (splitter->code != NULL) {
        pcre2_jit_compile(splitter->code, PCRE2_JIT_COMPLETE); /* where there is none, PCRE2 interprets: slower, the same */
        splitter->match = pcre2_match_data_create(1, NULL);
    }
    if (splitter->match == NULL) {
        dm_splitter_free(splitter);
        return dm_fail(DM_ERR_MEMORY, "PCRE2 cannot compile the tokenizer's pattern");
    }
    *out = splitter;
    return DM_OK;
}

void dm_splitter_free(dm_splitter *splitter) {
    if (splitter != NULL) {
        pcre2_match_data_free(splitter->match);
        pcre2_code_free(splitter->code);
        free(splitter->valid);
        free(splitter);
    }
}

void dm_splitter_set_fast(dm_splitter *splitter, bool fast) {
    splitter->fast = fast;
}

dm_status dm_splitter_start(dm_splitter *splitter, const char *text, size_t length) {
    splitter->text = text;
    splitter->length = length;
    splitter->at = 0;
    size_t valid = dm_utf8_valid_prefix(text, length);
    if (valid == length) {
        return DM_OK;
    }
    /* U+0001 is of the same class as an invalid byte and as long, so words keep their places. */
    DM_TRY(dm_reserve(&splitter->valid, &splitter->valid_room, length, 1));
    memcpy(splitter->valid, text, length);
    for (; valid < length; valid += dm_utf8_valid_prefix(text + valid, length - valid)) {
        splitter->valid[valid++] = 1;
    }
    splitter->text = splitter->valid;
    return DM_OK;
}

/* ---- The ASCII path ---- */

enum { OTHER, LETTER, DIGIT, WHITE, BEYOND }; /* BEYOND: part of a character past ASCII */

/* clang-format off */
#define FOUR(x) x, x, x, x
#define SIXTEEN(x) FOUR(x), FOUR(x), FOUR(x), FOUR(x)
static const uint8_t classes[256] = {
    OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, WHITE, WHITE, WHITE, WHITE, WHITE, OTHER, OTHER,
    SIXTEEN(OTHER),
    WHITE, OTHER, OTHER, OTHER, FOUR(OTHER), FOUR(OTHER), FOUR(OTHER),
    FOUR(DIGIT), FOUR(DIGIT), DIGIT, DIGIT, OTHER, OTHER, FOUR(OTHER),
    OTHER, LETTER, LETTER, LETTER, FOUR(LETTER), FOUR(LETTER), FOUR(LETTER),
    FOUR(LETTER), FOUR(LETTER), LETTER, LETTER, LETTER, OTHER, FOUR(OTHER),
    OTHER, LETTER, LETTER, LETTER, FOUR(LETTER), FOUR(LETTER), FOUR(LETTER),
    FOUR(LETTER), FOUR(LETTER), LETTER, LETTER, LETTER, OTHER, FOUR(OTHER),
    SIXTEEN(BEYOND), SIXTEEN(BEYOND), SIXTEEN(BEYOND), SIXTEEN(BEYOND),
    SIXTEEN(BEYOND), SIXTEEN(BEYOND), SIXTEEN(BEYOND), SIXTEEN(BEYOND),
};
/* clang-format on */

/* Length of 's 't 'm 'd 're 've 'll at the start of s, or 0. */
static size_t contraction(const char *s, size_t n) {
    if (n < 2) {
        return 0;
    }
    if (s[1] == 's' || s[1] == 't' || s[1] == 'm' || s[1] == 'd') {
        return 2;
    }
    if (n >= 3 && ((s[2] == 'e' && (s[1] == 'r' || s[1] == 'v')) || (s[1] == 'l' && s[2] == 'l'))) {
        return 3;
    }
    return 0;
}

/* First place in [at, n) whose class is not `class`. */
static inline size_t run_end(const uint8_t *s, size_t at, size_t n, uint8_t class) {
    while (at < n && classes[s[at]] == class) {
        at++;
    }
    return at;
}

/* Length of the word at the start of text[0..n), n > 0; 0 where a character past ASCII has a say. */
static size_t ascii_word(const char *text, size_t n) {
    const uint8_t *s = (const uint8_t *)text;
    if (s[0] == '\'') {
        size_t length = contraction(text, n);
        if (length > 0) {
            return length;
        }
    }
    size_t first = s[0] == ' ' && n > 1 && classes[s[1]] != WHITE; /* the optional space before a word */
    uint8_t class = classes[s[first]];
    if (class == BEYOND) {
        return 0;
    }
    size_t end = run_end(s, first + 1, n, class);
    if (end < n && classes[s[end]] == BEYOND) {
        return 0;
    }
    /* Of white space before a word the last character is left to it. */
    return class == WHITE && end < n && end > 1 ? end - 1 : end;
}

dm_status dm_splitter_next(dm_splitter *splitter, size_t *length) {
    *length = 0;
    if (splitter->at >= splitter->length) {
        return DM_OK;
    }
    const char *text = splitter->text + splitter->at;
    size_t left = splitter->length - splitter->at;
    if (splitter->fast) {
        *length = ascii_word(text, left);
    }
    if (*length == 0) {
        /* Nothing in the pattern looks back, so each word can be matched as the start of a text. */
        int found = pcre2_match(splitter->code, (PCRE2_SPTR)text, left, 0, PCRE2_NO_UTF_CHECK, splitter->match, NULL);
        if (found < 0) {
            return dm_fail(DM_ERR_INTERNAL, "PCRE2 fails on the tokenizer's pattern (error %d)", found);
        }
        *length = pcre2_get_ovector_pointer(splitter->match)[1];
    }
    splitter->at += *length;
    return DM_OK;
}

size_t dm_split_point(const char *text, size_t from, size_t to) {
    const uint8_t *s = (const uint8_t *)text;
    for (size_t at = from; at < to; at++) {
        if (classes[s[at]] == WHITE && s[at - 1] > ' ' && s[at - 1] < 0x7f) {
            return at;
        }
    }
    return to;
}
