#include "model/pretokenizer.h"

#include <stdio.h>
#include <string.h>

/* Unicode's White_Space, spelled out: PCRE2's \s also takes U+180E, which lost that property in Unicode 6.3. */
#define SPACE "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Possessive (++) where the pattern could not match otherwise anyway, so that no run is walked back. White space before a
 * word is one piece but for its last character, which the word may take. */
#define BLANKS "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]++"
#define LINES_AND_BLANKS "[" SPACE "]*[\\r\\n]++|" BLANKS

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^" SPACE "\\p{L}\\p{N}]++|" BLANKS
#define GPT2_PASS                                                                                                                \
    { GPT2, .total = true, .ascii = DM_ASCII_GPT2 }

/* As GPT-2's since GPT-4's vocabulary, cl100k: contractions in either case, words with one character before them. */
#define CONTRACTIONS "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define LETTERS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}++"
#define SIGNS " ?[^" SPACE "\\p{L}\\p{N}]++[\\r\\n]*+"
#define WORDS_PASS(number, most)                                                                                                 \
    { CONTRACTIONS "|" LETTERS "|" number "|" SIGNS "|" LINES_AND_BLANKS, true, DM_ASCII_WORDS, true, most }
#define LLAMA3_PASS WORDS_PASS("\\p{N}{1,3}+", 3)
#define QWEN2_PASS WORDS_PASS("\\p{N}", 1)

/* Words end where an upper-case letter follows a lower-case one; marks belong to them. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "++" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "++" LOWER "*+" suffix
#define SIGNS_OR_SLASH " ?[^" SPACE "\\p{L}\\p{N}]++[\\r\\n/]*+"

/* What DeepSeek's first vocabularies take for letters that have case, as of the Unicode of their time. */
#define DEEPSEEK_LETTERS                                                                                                         \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}"             \
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
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_SIGNS "!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}"
#define DEEPSEEK_EAST "[\\x{0800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]++"

/* What lies between clause marks of many scripts. */
#define CLAUSES " ?[^(|)" SPACE ".,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{0964}\\x{06d4}\\x{060c}]++"

/* A pass that cuts, and one whose pattern takes every character. */
#define CUT(text)                                                                                                                \
    { .pattern = (text) }
#define WHOLE(text)                                                                                                              \
    { .pattern = (text), .total = true }

/* clang-format off */
static const dm_pretokenizer rules[] = {
    {.names = "gpt-2 phi-2 olmo mpt jais trillion gigachat mellum a.x-4.0 exaone4 modern-bert granite-docling jina-es jina-de "
              "jina-v2-es jina-v2-de",
     .passes = {GPT2_PASS}},
    {.names = "default",
     .passes = {CUT("[\\p{P}$+<=>^~|]++"), GPT2_PASS, CUT("\\p{N}++"), CUT("[0-9]{3}")}},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .passes = {LLAMA3_PASS}, .whole_words = true, .add_bos = true},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe",
     .passes = {LLAMA3_PASS}},
    {.names = "qwen2 deepseek-r1-qwen stablelm2 megrez kormo f2llmv2 hunyuan solar-open grok-2",
     .passes = {QWEN2_PASS}},
    {.names = "qwen35",
     .passes = {{CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]++|\\p{N}| ?[^" SPACE "\\p{L}\\p{M}\\p{N}]++[\\r\\n]*+|"
                 LINES_AND_BLANKS, true, DM_ASCII_WORDS, true, 1}}},
    {.names = "ufakzeka", /* Turkish: a suffix stays with its apostrophe */
     .passes = {{LETTERS "|\\p{N}|" SIGNS "|" LINES_AND_BLANKS, true, DM_ASCII_WORDS, false, 1}}},
    {.names = "tekken",
     .passes = {WHOLE(CASED("") "|\\p{N}|" SIGNS_OR_SLASH "|" LINES_AND_BLANKS)}, .whole_words = true, .add_bos = true},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2",
     .passes = {WHOLE(CASED("(?:" CONTRACTIONS ")?+") "|\\p{N}{1,3}+|" SIGNS_OR_SLASH "|" LINES_AND_BLANKS)}},
    {.names = "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
     .passes = {CUT("\\p{N}"), GPT2_PASS}},
    {.names = "deepseek-llm",
     .passes = {CUT("[\\r\\n]"), CUT("[" SPACE "]?[" DEEPSEEK_LETTERS "]++"), CUT("[" SPACE "]?[" DEEPSEEK_SIGNS "]++"),
                CUT("(?<![" SPACE "])[" SPACE "]++\\z"), CUT(DEEPSEEK_EAST), CUT("\\p{N}")}},
    {.names = "deepseek-coder",
     .passes = {CUT("[\\r\\n]"), CUT("[" SPACE "]?\\p{L}++"), CUT("[" SPACE "]?\\p{P}++"), CUT(DEEPSEEK_EAST), CUT("\\p{N}")}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .passes = {CUT("\\p{N}{1,3}+"), CUT("[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]++"),
                CUT("[!-/:-@\\[-`{-~][A-Za-z]++|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]++| ?[\\p{P}\\p{S}]++[\\r\\n]*+|"
                    LINES_AND_BLANKS)}},
    {.names = "falcon",
     .passes = {CUT("[\\p{P}$+<=>^~|`]++"), GPT2_PASS, CUT("[0-9]{3}")}},
    {.names = "bloom poro-chat gpt3-finnish",
     .passes = {CUT(CLAUSES)}},
    {.names = "viking",
     .passes = {CUT(CLAUSES), CUT("\\p{N}")}},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .passes = {WHOLE(CONTRACTIONS "|" LETTERS "|\\p{N}|" SIGNS "|[" SPACE "]*[\\r\\n]|" BLANKS)}},
    {.names = "seed-coder",
     .passes = {WHOLE(CONTRACTIONS "|" LETTERS "|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}]++|" LINES_AND_BLANKS)}},
    {.names = "minicpm5",
     .passes = {CUT("\\p{N}{1,3}+"), WORDS_PASS("\\p{N}++", 3)}, .whole_words = true},
};
/* clang-format on */
enum { N_RULES = sizeof rules / sizeof *rules };

/* Architectures, by how their names begin, and the rule that their files without one mean. */
static const struct {
    const char *begin, *rule;
} usual[] = {{"gpt2", "gpt-2"},
             {"phi2", "gpt-2"},
             {"olmo", "olmo"},
             {"mpt", "mpt"},
             {"qwen", "qwen2"},
             {"falcon", "falcon"},
             {"starcoder", "starcoder"},
             {"refact", "refact"},
             {"bloom", "bloom"},
             {"command", "command-r"},
             {"deepseek2", "deepseek-llm"}};

/* First name in `names`, which it moves past; *length is 0 at the end. */
static const char *take_name(const char **names, size_t *length) {
    const char *name = *names;
    *length = strcspn(name, " ");
    *names += *length + (name[*length] == ' ');
    return name;
}

const dm_pretokenizer *dm_pretokenizer_find(const char *name, size_t length) {
    for (size_t i = 0; length > 0 && i < N_RULES; i++) {
        const char *names = rules[i].names;
        while (*names != '\0') {
            size_t n;
            const char *known = take_name(&names, &n);
            if (n == length && memcmp(known, name, n) == 0) {
                return &rules[i];
            }
        }
    }
    return NULL;
}

const dm_pretokenizer *dm_pretokenizer_guess(const char *architecture, size_t length) {
    const char *rule = "default";
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        size_t n = strlen(usual[i].begin);
        if (n <= length && memcmp(usual[i].begin, architecture, n) == 0) {
            rule = usual[i].rule;
            break;
        }
    }
    return dm_pretokenizer_find(rule, strlen(rule));
}

const char *dm_pretokenizer_name(const dm_pretokenizer *rule, size_t *length) {
    const char *names = rule->names;
    return take_name(&names, length);
}

void dm_pretokenizer_list(char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < N_RULES; i++) {
        const char *names = rules[i].names;
        while (*names != '\0' && used < size) {
            size_t n;
            const char *name = take_name(&names, &n);
            int wrote = snprintf(text + used, size - used, "%s%.*s", used > 0 ? ", " : "", (int)n, name);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
    }
}
