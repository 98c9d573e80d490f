/* Words: every rule's by hand, the ASCII path's equal to PCRE2's, and none that takes more than linear time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/threads.h"
#include "model/split.h"
#include "random_text.h"

static dm_splitter *splitter_of(const char *name) {
    const dm_pretokenizer *rules = dm_pretokenizer_find(name, strlen(name));
    assert_non_null(rules);
    dm_splitter *splitter;
    assert_int_equal(dm_splitter_create(rules, &splitter), DM_OK);
    return splitter;
}

/* Runs `check` for every name that is known. */
static int for_all(void (*check)(const char *name)) {
    char list[1024];
    dm_pretokenizer_list(list, sizeof list);
    int n = 0;
    for (char *name = strtok(list, ", "); name != NULL; name = strtok(NULL, ", ")) {
        check(name);
        n++;
    }
    return n;
}

/* The ASCII path and PCRE2 cut the same words. */
static void check_fast_path(const char *name) {
    dm_splitter *fast = splitter_of(name), *reference = splitter_of(name);
    dm_splitter_set_fast(reference, false);
    dm_random random;
    dm_random_seed(&random, 2);
    char text[128];
    for (int round = 0; round < (DM_EMULATED ? 50 : 1000); round++) {
        size_t length = random_text(&random, text, dm_random_next(&random) % 100);
        assert_int_equal(dm_splitter_start(fast, text, length), DM_OK);
        assert_int_equal(dm_splitter_start(reference, text, length), DM_OK);
        size_t a, b, total = 0;
        do {
            assert_int_equal(dm_splitter_next(fast, &a), DM_OK);
            assert_int_equal(dm_splitter_next(reference, &b), DM_OK);
            if (a != b) {
                fail_msg("%s: a word of %zu or %zu bytes at %zu in '%.*s'", name, a, b, total, (int)length, text);
            }
            total += a;
        } while (a != 0);
        assert_int_equal(total, length);
    }
    dm_splitter_free(fast);
    dm_splitter_free(reference);
}

static void test_fast_path_equals_pcre2(void **state) {
    (void)state;
    assert_true(for_all(check_fast_path) > 60);
}

/* Words by hand, one per '|'. */
static void assert_words(const char *rules, const char *marked) {
    char text[256];
    size_t lengths[64], n_words = 0, length = 0, word = 0;
    for (const char *c = marked; *c != '\0'; c++) {
        if (*c == '|') {
            lengths[n_words++] = word;
            word = 0;
        } else {
            text[length++] = *c;
            word++;
        }
    }
    dm_splitter *splitter = splitter_of(rules);
    for (int fast = 0; fast < 2; fast++) {
        dm_splitter_set_fast(splitter, fast);
        assert_int_equal(dm_splitter_start(splitter, text, length), DM_OK);
        for (size_t i = 0; i <= n_words; i++) {
            size_t got;
            assert_int_equal(dm_splitter_next(splitter, &got), DM_OK);
            if (got != (i < n_words ? lengths[i] : 0)) {
                fail_msg("%s: word %zu of '%s' has %zu bytes", rules, i + 1, marked, got);
            }
        }
    }
    dm_splitter_free(splitter);
}

static void test_gpt2_words(void **state) {
    (void)state;
    assert_words("gpt-2", "I|'ve| got|   |");
    assert_words("gpt-2", "I|'ve| got| | 12| apples|,'|tis|!|");
    assert_words("gpt-2", "x| |\t|y|\n|\n|z|  |");
    assert_words("gpt-2", "it|'s|_'|ll|");
    assert_words("gpt-2", " caf\xc3\xa9|\xe2\x80\x89|\xc2\xa0|x|");
    assert_words("gpt-2", "a| \xff\xfe|b|\xc3(|");
    assert_words("gpt-2", "a| |\xc2\x85|b|");    /* NEL is a space */
    assert_words("gpt-2", "a| \xe1\xa0\x8e|b|"); /* U+180E is none */
    assert_words("olmo", "I|'ve| 1234|");
}

static void test_cl100k_words(void **state) {
    (void)state;
    assert_words("llama-bpe", "I|'VE| got| |123|456|7| apples|!!\n\n|  \n|   | x|");
    assert_words("llama-bpe", "a|\tb|-c| (|d|)\r\n|e|");
    assert_words("llama-bpe", "don|'t| '|tis|");
    assert_words("llama-bpe", " caf\xc3\xa9|\xc2\xb2\xc2\xb2\xc2\xb2|\xc2\xb2|");
    assert_words("qwen2", "I|'Ll| |1|2|\n\n|a| =\n|");
    assert_words("qwen2", "e|\xcc\x81x|"); /* a combining mark is no letter: it goes with what follows it */
    assert_words("qwen35", "e\xcc\x81x|");
    assert_words("ufakzeka", "Ankara|'da|");
    assert_words("qwen2", "Ankara|'d|a|");
    assert_words("seed-coder", "a|!|\n|b|");
    assert_words("bailingmoe", "a|\n\n|b|");
    assert_words("minicpm5", "a| |123|4|b|");
}

static void test_cased_words(void **state) {
    (void)state;
    assert_words("tekken", "Hello|World| HTTPServer|'s| |4|2|/path|//\n|");
    assert_words("tekken", "\xc3\x89"
                           "cole|\xc3\x89"
                           "cole| e\xcc\x81"
                           "e|");
    assert_words("gpt-4o", "Hello|World's| |123|4|");
}

static void test_words_of_several_passes(void **state) {
    (void)state;
    assert_words("starcoder", "a| |1|2|b|");
    assert_words("starcoder", "x|  |1|"); /* a pass sees a piece as a text of its own */
    assert_words("gpt-2", "x| | 1|");
    assert_words("deepseek-llm", "Hello|,| world| |1|2|\n|");
    assert_words("deepseek-llm", "a|  | b|");
    assert_words("deepseek-coder", "x|=|1| y|!|");
    assert_words("deepseek-v3", "(foo| |12| bar|)!\n|");
    assert_words("falcon", "it|'|s| |$|123|45|");
    assert_words("default", "it|'|s| |$|123|45|");
    assert_words("default", "a| |123|4|");
    assert_words("bloom", "a| b|,| c12|");
    assert_words("viking", "a| b|,| c|1|2|");
}

static void test_names(void **state) {
    (void)state;
    assert_null(dm_pretokenizer_find("gpt", 3));
    assert_null(dm_pretokenizer_find("gpt-2 phi-2", 11));
    assert_null(dm_pretokenizer_find("", 0));
    assert_ptr_equal(dm_pretokenizer_find("phi-2", 5), dm_pretokenizer_find("gpt-2", 5));
    /* What a file without a name means, by its architecture. */
    assert_ptr_equal(dm_pretokenizer_guess("gpt2", 4), dm_pretokenizer_find("gpt-2", 5));
    assert_ptr_equal(dm_pretokenizer_guess("qwen3moe", 8), dm_pretokenizer_find("qwen2", 5));
    assert_ptr_equal(dm_pretokenizer_guess("olmoe", 5), dm_pretokenizer_find("olmo", 4));
    assert_ptr_equal(dm_pretokenizer_guess("", 0), dm_pretokenizer_find("default", 7));
    assert_ptr_equal(dm_pretokenizer_guess("llama", 5), dm_pretokenizer_find("default", 7));
}

/* Texts that a pattern which walks runs back again and again would not get through. */
static void check_linear(const char *name) {
    static const char *const repeated[] = {" ",    "A",        "a", "1", "'", "!", "\n", "\n ", " \t", "\xe4\xb8\xad",
                                           "\xff", "\xcc\x81", "aA"};
    enum { LENGTH = DM_EMULATED ? 1 << 12 : 1 << 18 };
    char *text = malloc(LENGTH + 8);
    assert_non_null(text);
    dm_splitter *splitter = splitter_of(name);
    double start = dm_seconds();
    for (size_t i = 0; i < sizeof repeated / sizeof *repeated; i++) {
        size_t unit = strlen(repeated[i]), length = 0, n, total = 0;
        for (; length < LENGTH; length += unit) {
            memcpy(text + length, repeated[i], unit);
        }
        text[length++] = 'x';
        assert_int_equal(dm_splitter_start(splitter, text, length), DM_OK);
        do {
            assert_int_equal(dm_splitter_next(splitter, &n), DM_OK);
            total += n;
        } while (n > 0);
        assert_int_equal(total, length);
    }
    if (dm_seconds() - start > 30.0) {
        fail_msg("%s takes %.1f s for 3 MB", name, dm_seconds() - start);
    }
    dm_splitter_free(splitter);
    free(text);
}

static void test_linear_time(void **state) {
    (void)state;
    for_all(check_linear);
}

static void test_split_point(void **state) {
    (void)state;
    const char *text = "ab  c\xc3\xa9 d e";
    assert_int_equal(dm_split_point(text, 1, 11), 2);
    assert_int_equal(dm_split_point(text, 3, 11), 9); /* not after a character past ASCII */
    assert_int_equal(dm_split_point(text, 3, 9), 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_path_equals_pcre2),
        cmocka_unit_test(test_gpt2_words),
        cmocka_unit_test(test_cl100k_words),
        cmocka_unit_test(test_cased_words),
        cmocka_unit_test(test_words_of_several_passes),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_linear_time),
        cmocka_unit_test(test_split_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
