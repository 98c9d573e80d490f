/*
 * How tokenizer.json states the rules of pretokenizer.c: as steps, most of them with a pattern, whose text tells which rule
 * is meant.
 */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/hf_tokenizer.h"

typedef enum step_kind {
    STEP_END,
    STEP_SPLIT,  /* matches of a pattern are pieces, and so is what lies between */
    STEP_DIGITS, /* every digit is one */
    STEP_GPT2,   /* GPT-2's own pattern, which has no text in the file */
} step_kind;

/* \x{7A} stands for a character; files have the character itself. */
typedef struct rule_step {
    step_kind kind;
    const char *pattern;
    size_t telling; /* how many bytes at its start tell it from others; 0: all, as versions of a rule differ */
} rule_step;

enum { MAX_STEPS = 6 };

typedef struct rule_form {
    const char *rule;
    rule_step steps[MAX_STEPS + 1];
} rule_form;

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LETTERS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define BLANKS "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix
#define SIGNS_OR_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 CONTRACTIONS "|" LETTERS "|\\p{N}{1,3}|" SIGNS "|" BLANKS

#define SPLIT(text)                                                                                                              \
    { STEP_SPLIT, text, 0 }
#define SPLIT_LIKE(start, rest)                                                                                                  \
    { STEP_SPLIT, start rest, sizeof(start) - 1 }
#define DIGITS                                                                                                                   \
    { STEP_DIGITS, NULL, 0 }
#define OWN                                                                                                                      \
    { STEP_GPT2, NULL, 0 }

/* The letters that DeepSeek's first vocabularies take for letters with case. */
#define DEEPSEEK_LETTERS                                                                                                         \
    "\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}"                                                        \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}"               \
    "\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}"                 \
    "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}"         \
    "\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}"          \
    "\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}"          \
    "\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"          \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}"           \
    "\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"           \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"          \
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"         \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"                  \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}]+"
#define DEEPSEEK_SIGNS "!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"
#define DEEPSEEK_EAST "\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"

static const rule_form forms[] = {
    {"gpt-2", {OWN}},
    {"gpt-2", {SPLIT(GPT2)}},
    {"default", {SPLIT("[\\p{P}\\$\\+<=>\\^~\\|]+"), SPLIT(GPT2), SPLIT("\\p{N}+"), SPLIT("[0-9][0-9][0-9]")}},
    {"llama-bpe", {SPLIT(LLAMA3)}},
    {"dbrx", {SPLIT(LLAMA3)}},
    {"qwen2", {SPLIT(CONTRACTIONS "|" LETTERS "|\\p{N}|" SIGNS "|" BLANKS)}},
    {"qwen35",
     {SPLIT(CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS)}},
    {"ufakzeka", {SPLIT(LETTERS "|\\p{N}|" SIGNS "|" BLANKS)}},
    {"tekken", {SPLIT(CASED("") "|\\p{N}|" SIGNS_OR_SLASH "|" BLANKS)}},
    {"gpt-4o", {SPLIT(CASED(CONTRACTIONS "?") "|\\p{N}{1,3}|" SIGNS_OR_SLASH "|" BLANKS)}},
    {"starcoder", {DIGITS, OWN}},
    {"deepseek-llm",
     {SPLIT("[\\r\\n]"), SPLIT_LIKE("\\s?[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}", DEEPSEEK_LETTERS),
      SPLIT_LIKE("\\s?[", DEEPSEEK_SIGNS), SPLIT("\\s+$"), SPLIT_LIKE("[\\x{4e00}-", DEEPSEEK_EAST), DIGITS}},
    {"deepseek-coder",
     {SPLIT("[\\r\\n]"), SPLIT("\\s?\\p{L}+"), SPLIT("\\s?\\p{P}+"), SPLIT_LIKE("[\\x{4e00}-", DEEPSEEK_EAST), DIGITS}},
    {"deepseek-v3",
     {SPLIT("\\p{N}{1,3}"), SPLIT("[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"),
      SPLIT_LIKE("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|",
                 "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS)}},
    {"bloom", {SPLIT(" ?[^(\\s|[.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c}])]+")}},
};
enum { N_FORMS = sizeof forms / sizeof *forms };

/* The pattern with its characters in place of their numbers, at most as long; `out` has room for it. Returns its length. */
static size_t spell(const char *pattern, size_t length, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < length;) {
        bool number = length - i > 3 && memcmp(pattern + i, "\\x{", 3) == 0;
        char *end = NULL;
        unsigned long code = number ? strtoul(pattern + i + 3, &end, 16) : 0;
        if (number) {
            n += dm_utf8_encode((uint32_t)code, out + n);
            i = (size_t)(end - pattern) + 1;
        } else {
            out[n++] = pattern[i++];
        }
    }
    return n;
}

/* ---- Reading ---- */

static bool flag(const json_t *step, const char *key, bool fallback) {
    const json_t *value = json_object_get(step, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static bool is_text(const json_t *value, const char *text) {
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* A pattern whose matches become pieces: "Isolated", or those alone, which is the same where they are all of the text. */
static bool same_split(const json_t *step, const rule_step *wanted) {
    const json_t *pattern = json_object_get(json_object_get(step, "pattern"), "Regex");
    bool inverted = flag(step, "invert", false);
    if (!json_is_string(pattern) || !is_text(json_object_get(step, "behavior"), inverted ? "Removed" : "Isolated")) {
        return false;
    }
    static const size_t longest = sizeof(DEEPSEEK_LETTERS) + 64;
    char spelled[sizeof(DEEPSEEK_LETTERS) + 64];
    size_t length = strlen(wanted->pattern) < longest ? strlen(wanted->pattern) : longest;
    size_t whole = spell(wanted->pattern, length, spelled);
    size_t telling = wanted->telling != 0 ? spell(wanted->pattern, wanted->telling, spelled) : whole;
    return wanted->telling != 0 ? strncmp(json_string_value(pattern), spelled, telling) == 0
                                : json_string_length(pattern) == whole && memcmp(json_string_value(pattern), spelled, whole) == 0;
}

/* "Digits" means all numerals, ½ among them, but not to every program that reads it: it is written as a pattern. */
static const rule_step every_digit = SPLIT("\\p{N}");

static bool same_step(const json_t *step, const rule_step *wanted) {
    const json_t *type = json_object_get(step, "type");
    switch (wanted->kind) {
    case STEP_SPLIT:
        return is_text(type, "Split") && same_split(step, wanted);
    case STEP_DIGITS:
        return (is_text(type, "Digits") && flag(step, "individual_digits", false)) || same_step(step, &every_digit);
    case STEP_GPT2:
        return is_text(type, "ByteLevel") && flag(step, "use_regex", true);
    case STEP_END:
        break;
    }
    return false;
}

/* The last step of all turns bytes to characters, without cutting. */
static bool only_bytes(const json_t *step) {
    return is_text(json_object_get(step, "type"), "ByteLevel") && !flag(step, "use_regex", true);
}

static bool same_steps(const json_t *pre_tokenizer, const rule_step *wanted) {
    const json_t *sequence = json_object_get(pre_tokenizer, "pretokenizers");
    size_t n = sequence != NULL ? json_array_size(sequence) : 1, at = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *step = sequence != NULL ? json_array_get(sequence, i) : pre_tokenizer;
        if (is_text(json_object_get(step, "type"), "ByteLevel") && flag(step, "add_prefix_space", true)) {
            return false;
        }
        if (only_bytes(step)) {
            continue;
        }
        if (at == MAX_STEPS || !same_step(step, &wanted[at])) {
            return false;
        }
        at++;
    }
    return wanted[at].kind == STEP_END;
}

const dm_pretokenizer *dm_hf_rules_find(const json_t *pre_tokenizer, bool whole_words, char name[48]) {
    for (size_t i = 0; i < N_FORMS; i++) {
        const dm_pretokenizer *rules = dm_pretokenizer_find(forms[i].rule, strlen(forms[i].rule));
        if (rules->whole_words == whole_words && same_steps(pre_tokenizer, forms[i].steps)) {
            snprintf(name, 48, "%s", forms[i].rule);
            return rules;
        }
    }
    return NULL;
}

/* ---- Writing ---- */

static json_t *write_bytes(bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     (int)use_regex);
}

static json_t *write_step(const rule_step *step) {
    if (step->kind == STEP_DIGITS) {
        return write_step(&every_digit);
    }
    if (step->kind == STEP_GPT2) {
        return write_bytes(true);
    }
    size_t length = strlen(step->pattern);
    char *spelled = malloc(length + 1);
    size_t n = spelled != NULL ? spell(step->pattern, length, spelled) : 0;
    json_t *pattern = spelled != NULL ? json_pack("{s:s%}", "Regex", spelled, n) : NULL;
    free(spelled);
    return json_pack("{s:s, s:o, s:s, s:b}", "type", "Split", "pattern", pattern, "behavior", "Isolated", "invert", 0);
}

json_t *dm_hf_rules_write(const dm_pretokenizer *rules) {
    for (size_t i = 0; i < N_FORMS; i++) {
        const rule_step *step = forms[i].steps;
        if (dm_pretokenizer_find(forms[i].rule, strlen(forms[i].rule)) != rules) {
            continue;
        }
        json_t *sequence = json_array();
        bool bytes = false, whole = true;
        for (; step->kind != STEP_END; step++) {
            whole = json_array_append_new(sequence, write_step(step)) == 0 && whole;
            bytes = bytes || step->kind == STEP_GPT2;
        }
        whole = whole && (bytes || json_array_append_new(sequence, write_bytes(false)) == 0);
        json_t *result = json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", sequence);
        if (!whole) {
            json_decref(result);
        }
        return whole ? result : NULL;
    }
    return NULL;
}
