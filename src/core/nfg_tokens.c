#include "core/nfg_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool ends_word(char c) {
    return is_space(c) || c == '{' || c == '}' || c == ',' || c == '"';
}

void dm_nfg_tokens_free(dm_nfg_tokens *tokens) {
    free(tokens->text);
}

size_t dm_nfg_left(const dm_nfg_tokens *tokens) {
    bool has_text = tokens->kind == DM_NFG_WORD || tokens->kind == DM_NFG_NUMBER;
    size_t current = tokens->kind == DM_NFG_END ? 0 : has_text ? strlen(tokens->text) : 1;
    return (size_t)(tokens->end - tokens->at) + current;
}

dm_status dm_nfg_expected(const dm_nfg_tokens *tokens, const char *expected) {
    static const char *const fixed[] = {
        [DM_NFG_END] = "the end of the file", [DM_NFG_OPEN] = "'{'", [DM_NFG_CLOSE] = "'}'", [DM_NFG_COMMA] = "','"};
    if (tokens->kind == DM_NFG_STRING) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected %s, found a text in quotes", tokens->line, expected);
    }
    if (tokens->kind == DM_NFG_WORD || tokens->kind == DM_NFG_NUMBER) {
        char shown[33];
        snprintf(shown, sizeof shown, "%s", tokens->text);
        for (char *c = shown; *c != '\0'; c++) {
            *c = (char)(*c < ' ' || *c > '~' ? '?' : *c); /* a damaged file may hold anything, and this goes to a terminal */
        }
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected %s, found '%s'", tokens->line, expected, shown);
    }
    return dm_fail(DM_ERR_FORMAT, "line %zu: expected %s, found %s", tokens->line, expected, fixed[tokens->kind]);
}

/* ---- Tokens ---- */

/* A string's characters: \" and \\ stand for " and \, every other one for itself. */
static dm_status read_string(dm_nfg_tokens *tokens) {
    size_t length = 0, line = tokens->line;
    while (tokens->at < tokens->end && *tokens->at != '"') {
        bool escaped = *tokens->at == '\\' && tokens->end - tokens->at > 1 && (tokens->at[1] == '"' || tokens->at[1] == '\\');
        tokens->at += escaped;
        char c = *tokens->at++;
        if (c == '\0') {
            return dm_fail(DM_ERR_FORMAT, "line %zu: a text in quotes holds a NUL byte", tokens->line);
        }
        line += c == '\n';
        DM_TRY(dm_reserve((void *)&tokens->text, &tokens->text_room, length + 2, 1));
        tokens->text[length++] = c;
    }
    if (tokens->at == tokens->end) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected a closing '\"' for the text that starts here", tokens->line);
    }
    tokens->at++;
    DM_TRY(dm_reserve((void *)&tokens->text, &tokens->text_room, length + 1, 1));
    tokens->text[length] = '\0';
    tokens->kind = DM_NFG_STRING;
    tokens->line = line;
    return DM_OK;
}

static dm_status read_word(dm_nfg_tokens *tokens) {
    const char *start = tokens->at;
    while (tokens->at < tokens->end && !ends_word(*tokens->at)) {
        tokens->at++;
    }
    size_t length = (size_t)(tokens->at - start);
    if (memchr(start, '\0', length) != NULL) {
        return dm_fail(DM_ERR_FORMAT, "line %zu: expected text, found a NUL byte", tokens->line);
    }
    DM_TRY(dm_reserve((void *)&tokens->text, &tokens->text_room, length + 1, 1));
    memcpy(tokens->text, start, length);
    tokens->text[length] = '\0';
    bool number = is_digit(*start) || *start == '-' || *start == '+' || *start == '.';
    tokens->kind = number ? DM_NFG_NUMBER : DM_NFG_WORD;
    return DM_OK;
}

dm_status dm_nfg_next(dm_nfg_tokens *tokens) {
    while (tokens->at < tokens->end && is_space(*tokens->at)) {
        tokens->line += *tokens->at++ == '\n';
    }
    if (tokens->at == tokens->end) {
        tokens->kind = DM_NFG_END;
        return DM_OK;
    }
    switch (*tokens->at) {
    case '"':
        tokens->at++;
        return read_string(tokens);
    case '{':
        tokens->kind = DM_NFG_OPEN;
        break;
    case '}':
        tokens->kind = DM_NFG_CLOSE;
        break;
    case ',':
        tokens->kind = DM_NFG_COMMA;
        break;
    default:
        return read_word(tokens);
    }
    tokens->at++;
    return DM_OK;
}

/* ---- Numbers ---- */

/* digits * 10^power */
typedef struct decimal {
    int64_t digits; /* up to 18 of them */
    int32_t power;
} decimal;

enum { MOST_DIGITS = 18, FARTHEST_POWER = 100000 /* beyond every payoff, and safe to add */ };

/* One digit more. The first that finds no room rounds; those after it count for their place alone. */
static void add_digit(decimal *number, int *used, int digit, bool fraction) {
    if (*used < MOST_DIGITS) {
        number->digits = 10 * number->digits + digit;
        *used += number->digits != 0;
        number->power -= fraction;
    } else {
        number->digits += *used == MOST_DIGITS && digit >= 5;
        *used = MOST_DIGITS + 1;
        number->power += !fraction;
    }
}

static bool read_exponent(const char **at, int32_t *power) {
    const char *c = *at + 1;
    bool negative = *c == '-';
    c += *c == '-' || *c == '+';
    if (!is_digit(*c)) {
        return false;
    }
    int32_t value = 0;
    for (; is_digit(*c); c++) {
        value = value < FARTHEST_POWER ? 10 * value + (*c - '0') : value;
    }
    *power += negative ? -value : value;
    *at = c;
    return true;
}

/* Digits with a point or not, an exponent or not; without a sign. */
static bool read_decimal(const char **at, decimal *out) {
    *out = (decimal){0, 0};
    int used = 0;
    bool any = false, fraction = false;
    const char *c = *at;
    for (; is_digit(*c) || (*c == '.' && !fraction); c++) {
        if (*c == '.') {
            fraction = true;
            continue;
        }
        any = true;
        if (out->power > -FARTHEST_POWER && out->power < FARTHEST_POWER) {
            add_digit(out, &used, *c - '0', fraction);
        }
    }
    if (any && (*c == 'e' || *c == 'E')) {
        any = read_exponent(&c, &out->power);
    }
    *at = c;
    return any;
}

dm_status dm_nfg_payoff(const dm_nfg_tokens *tokens, double *value, dm_exact *exact) {
    if (tokens->kind != DM_NFG_NUMBER) {
        return dm_nfg_expected(tokens, "a payoff");
    }
    const char *c = tokens->text;
    bool negative = *c == '-';
    c += *c == '-' || *c == '+';
    decimal above, below = {1, 0};
    bool good = read_decimal(&c, &above);
    if (good && *c == '/') {
        c++;
        good = read_decimal(&c, &below) && below.digits != 0;
    }
    if (!good || *c != '\0') {
        return dm_nfg_expected(tokens, "a payoff such as 2, -0.5, 1e3 or -7/3");
    }
    *exact = (dm_exact){negative ? -above.digits : above.digits, below.digits, above.power - below.power, 0};
    if (!dm_exact_value(exact, value)) {
        return dm_nfg_expected(tokens, "a payoff of 0 or of magnitude 1e-300 to 1e300");
    }
    return DM_OK;
}

dm_status dm_nfg_index(const dm_nfg_tokens *tokens, size_t most, const char *expected, size_t *index) {
    const char *c = tokens->text;
    size_t value = 0;
    bool good = tokens->kind == DM_NFG_NUMBER && is_digit(*c);
    for (; good && is_digit(*c); c++) {
        value = 10 * value + (size_t)(*c - '0');
        good = value <= most;
    }
    if (!good || *c != '\0') {
        char words[96];
        snprintf(words, sizeof words, "%s from 0 to %zu", expected, most);
        return dm_nfg_expected(tokens, words);
    }
    *index = value;
    return DM_OK;
}
