#include "model/split.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/table.h"
#include "base/utf8.h"

/* One pass of the rules at work on one piece of the text. */
typedef struct pass {
    const dm_split_pass *rule;
    pcre2_code *code;
    size_t start, at, end;         /* the piece, and how far it has been handed on */
    size_t match_start, match_end; /* the next match, found already where match_end > at */
} pass;

struct dm_splitter {
    pass passes[DM_MAX_PASSES];
    size_t n_passes;
    pcre2_match_data *match;
    bool fast;
    const char *text;
    size_t at;   /* where the next word starts */
    char *valid; /* a copy of the text whose invalid bytes are replaced */
    size_t valid_room;
};

static dm_status compile(pass *p) {
    int error;
    PCRE2_SIZE where;
    /* Anchored at compile time where it can be: as an option of the match it would cost the JIT. */
    p->code = pcre2_compile((PCRE2_SPTR)p->rule->pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | (p->rule->total ? PCRE2_ANCHORED : 0), &error, &where, NULL);
    if (p->code == NULL) {
        return dm_fail(DM_ERR_MEMORY, "PCRE2 cannot compile a tokenizer's pattern (error %d)", error);
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* where there is none, PCRE2 interprets: slower, the same */
    return DM_OK;
}

dm_status dm_splitter_create(const dm_pretokenizer *rules, dm_splitter **out) {
    *out = NULL;
    dm_splitter *splitter = calloc(1, sizeof *splitter);
    dm_status status = DM_OK;
    if (splitter == NULL || (splitter->match = pcre2_match_data_create(1, NULL)) == NULL) {
        status = dm_fail(DM_ERR_MEMORY, "out of memory for the tokenizer's patterns");
    }
    while (status == DM_OK && splitter->n_passes < DM_MAX_PASSES && rules->passes[splitter->n_passes].pattern != NULL) {
        pass *p = &splitter->passes[splitter->n_passes];
        p->rule = &rules->passes[splitter->n_passes++];
        status = compile(p);
    }
    if (status != DM_OK) {
        dm_splitter_free(splitter);
        return status;
    }
    splitter->fast = true;
    *out = splitter;
    return DM_OK;
}

void dm_splitter_free(dm_splitter *splitter) {
    if (splitter != NULL) {
        for (size_t i = 0; i < splitter->n_passes; i++) {
            pcre2_code_free(splitter->passes[i].code);
        }
        pcre2_match_data_free(splitter->match);
        free(splitter->valid);
        free(splitter);
    }
}

void dm_splitter_set_fast(dm_splitter *splitter, bool fast) {
    splitter->fast = fast;
}

static void begin_piece(pass *p, size_t start, size_t end) {
    p->start = p->at = start;
    p->match_start = p->match_end = start;
    p->end = end;
}

dm_status dm_splitter_start(dm_splitter *splitter, const char *text, size_t length) {
    splitter->text = text;
    splitter->at = 0;
    for (size_t i = 0; i < splitter->n_passes; i++) {
        begin_piece(&splitter->passes[i], 0, i == 0 ? length : 0);
    }
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

/* Length of GPT-2's word at the start of text[0..n), n > 0; 0 where a character past ASCII has a say. */
static size_t gpt2_word(const char *text, size_t n) {
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

static bool is_newline(uint8_t byte) {
    return byte == '\r' || byte == '\n';
}

/* White space up to its last newline if it has one; else all but the last character before a word. */
static size_t white_word(const uint8_t *s, size_t n) {
    size_t end = run_end(s, 1, n, WHITE);
    if (end < n && classes[s[end]] == BEYOND) {
        return 0;
    }
    for (size_t at = end; at > 0; at--) {
        if (is_newline(s[at - 1])) {
            return at;
        }
    }
    return end < n && end > 1 ? end - 1 : end;
}

/* The same for the words of DM_ASCII_WORDS. */
static size_t cl100k_word(const dm_split_pass *rule, const char *text, size_t n) {
    const uint8_t *s = (const uint8_t *)text;
    uint8_t class = classes[s[0]], next = n > 1 ? classes[s[1]] : OTHER;
    if (rule->contractions && s[0] == '\'') {
        char lower[3] = {'\'', (char)(n > 1 ? s[1] | 0x20 : 0), (char)(n > 2 ? s[2] | 0x20 : 0)};
        size_t length = contraction(lower, n < 3 ? n : 3);
        if (length > 0) {
            return length;
        }
    }
    if (class == BEYOND || (next == BEYOND && n > 1)) {
        return 0;
    }
    if (class == DIGIT) {
        size_t end = run_end(s, 1, n < (size_t)rule->digits ? n : (size_t)rule->digits, DIGIT);
        return end < n && end < (size_t)rule->digits && classes[s[end]] == BEYOND ? 0 : end;
    }
    if (class == LETTER || (next == LETTER && n > 1 && !is_newline(s[0]))) {
        size_t end = run_end(s, 1, n, LETTER);
        return end < n && classes[s[end]] == BEYOND ? 0 : end;
    }
    size_t first = s[0] == ' ' && n > 1 && next == OTHER;
    if (class == WHITE && first == 0) {
        return white_word(s, n);
    }
    size_t end = run_end(s, first + 1, n, OTHER);
    if (end < n && classes[s[end]] == BEYOND) {
        return 0;
    }
    while (end < n && is_newline(s[end])) {
        end++;
    }
    return end;
}

static size_t ascii_word(const dm_split_pass *rule, const char *text, size_t n) {
    switch (rule->ascii) {
    case DM_ASCII_GPT2:
        return gpt2_word(text, n);
    case DM_ASCII_WORDS:
        return cl100k_word(rule, text, n);
    case DM_ASCII_NONE:
        break;
    }
    return 0;
}

/* ---- The passes ---- */

/* Finds where the pattern matches next in the piece; the end of the piece where it does not. */
static dm_status find(dm_splitter *splitter, pass *p) {
    size_t start = p->rule->total ? p->at : p->start; /* only patterns that search look behind */
    const char *text = splitter->text + start;
    int found = pcre2_match(p->code, (PCRE2_SPTR)text, p->end - start, p->at - start, PCRE2_NO_UTF_CHECK, splitter->match, NULL);
    if (found == PCRE2_ERROR_NOMATCH) {
        p->match_start = p->match_end = p->end;
        return DM_OK;
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(splitter->match);
    if (found < 0 || ends[1] <= ends[0]) {
        return dm_fail(DM_ERR_INTERNAL, "PCRE2 fails on a tokenizer's pattern (error %d)", found);
    }
    p->match_start = start + ends[0];
    p->match_end = start + ends[1];
    return DM_OK;
}

/* The next part of a pass's piece ends at *end: a match, or what lies before one. */
static inline dm_status advance(dm_splitter *splitter, pass *p, size_t *end) {
    if (splitter->fast && p->match_end <= p->at) {
        size_t length = ascii_word(p->rule, splitter->text + p->at, p->end - p->at);
        if (length > 0) {
            *end = p->at += length;
            return DM_OK;
        }
    }
    if (p->match_end <= p->at) {
        DM_TRY(find(splitter, p));
    }
    *end = p->at < p->match_start ? p->match_start : p->match_end;
    p->at = *end;
    return DM_OK;
}

dm_status dm_splitter_next(dm_splitter *splitter, size_t *length) {
    *length = 0;
    size_t level = splitter->n_passes - 1;
    while (splitter->passes[level].at >= splitter->passes[level].end) { /* the deepest pass that has a piece left */
        if (level == 0) {
            return DM_OK;
        }
        level--;
    }
    for (;;) {
        size_t start = splitter->passes[level].at, end;
        DM_TRY(advance(splitter, &splitter->passes[level], &end));
        if (++level == splitter->n_passes) {
            *length = end - splitter->at;
            splitter->at = end;
            return DM_OK;
        }
        begin_piece(&splitter->passes[level], start, end);
    }
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
