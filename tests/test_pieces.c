/* SentencePiece's kind of vocabulary: merges by score, bytes for the rest, spaces spelled out, and no text that costs much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/vocabulary.h"
#include "random_text.h"
#include "test_files.h"

#define BAR "\xe2\x96\x81" /* the file's space */

typedef struct piece {
    const char *text;
    float score;
    int32_t type;
} piece;

/* 0 <unk>, 1 <s>, 2 </s>, 3 to 258 the bytes, then these. */
enum { FIRST = 259, SPACE = FIRST, A, B, C, SPACE_A, AB, BC, ABC, SPACE_AB, AA, E_ACUTE, SPACES, USER, X, SPACE_X, UNUSED };
static const piece pieces[] = {
    {BAR, -10, DM_TOKEN_NORMAL},        {"a", -11, DM_TOKEN_NORMAL},
    {"b", -12, DM_TOKEN_NORMAL},        {"c", -13, DM_TOKEN_NORMAL},
    {BAR "a", -5, DM_TOKEN_NORMAL},     {"ab", -3, DM_TOKEN_NORMAL},
    {"bc", -2, DM_TOKEN_NORMAL}, /* before ab */
    {"abc", -8, DM_TOKEN_NORMAL},       {BAR "ab", -4, DM_TOKEN_NORMAL},
    {"aa", -3, DM_TOKEN_NORMAL}, /* as urgent as ab: the leftmost wins */
    {"\xc3\xa9", -14, DM_TOKEN_NORMAL}, {BAR BAR, -1, DM_TOKEN_NORMAL},
    {"<user>", 0, DM_TOKEN_USER},       {"x", -20, DM_TOKEN_NORMAL},
    {BAR "x", -19, DM_TOKEN_NORMAL},    {"<x", -30, DM_TOKEN_UNUSED},
};
enum { N_PIECES = sizeof pieces / sizeof *pieces, VOCAB = FIRST + N_PIECES };

typedef struct settings {
    bool bare;         /* no byte tokens: unused ones in their place */
    bool no_prefix;    /* add_space_prefix is false */
    bool inner_space;  /* one more token, "b" BAR "a" */
    const char *extra; /* a bool key that is false */
} settings;

static dm_tokenizer *make(settings how) {
    dm_gguf_string tokens[VOCAB + 1];
    float scores[VOCAB + 1];
    int32_t types[VOCAB + 1];
    char names[256][16];
    const piece head[] = {{"<unk>", 0, DM_TOKEN_UNKNOWN},
                          {"<s>", 0, DM_TOKEN_CONTROL},
                          {"</s>", 0, DM_TOKEN_CONTROL},
                          {"b" BAR "a", -1, DM_TOKEN_NORMAL}};
    uint32_t n = VOCAB + how.inner_space;
    for (uint32_t id = 0; id < n; id++) {
        const piece *p = id < 3 ? &head[id] : id < FIRST ? NULL : id < VOCAB ? &pieces[id - FIRST] : &head[3];
        if (p == NULL) {
            snprintf(names[id - 3], sizeof names[0], how.bare ? "<no%02X>" : "<0x%02X>", id - 3);
        }
        const char *text = p != NULL ? p->text : names[id - 3];
        tokens[id] = (dm_gguf_string){text, strlen(text)};
        scores[id] = p != NULL ? p->score : 0;
        types[id] = p != NULL ? p->type : how.bare ? DM_TOKEN_UNUSED : DM_TOKEN_BYTE;
    }
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_string(writer, "general.architecture", "llama");
    dm_gguf_add_string(writer, "tokenizer.ggml.model", "llama");
    dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", tokens, n);
    dm_gguf_add_array(writer, "tokenizer.ggml.scores", DM_GGUF_F32, scores, n);
    dm_gguf_add_array(writer, "tokenizer.ggml.token_type", DM_GGUF_I32, types, n);
    if (how.no_prefix) {
        dm_gguf_add_bool(writer, "tokenizer.ggml.add_space_prefix", false);
    }
    if (how.extra != NULL) {
        dm_gguf_add_bool(writer, how.extra, false);
    }
    const char *path = test_path("pieces.gguf");
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(path, &tokenizer), DM_OK);
    unlink(path);
    return tokenizer;
}

static void assert_ids(const dm_tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *wanted, size_t n_wanted) {
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, strlen(text), flags, &ids, &n), DM_OK);
    assert_int_equal(n, n_wanted);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
    free(ids);
}
#define IDS(...) (int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void assert_text(const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, bool special, const char *wanted) {
    char *text;
    size_t length;
    assert_int_equal(dm_tokenizer_decode(tokenizer, ids, n, special, &text, &length), DM_OK);
    assert_string_equal(text, wanted);
    assert_int_equal(length, strlen(wanted));
    free(text);
}

static void test_merges(void **state) {
    (void)state;
    dm_tokenizer *tokenizer = make((settings){0});
    assert_ids(tokenizer, "", DM_ENCODE_BOS, IDS(1));
    assert_ids(tokenizer, "abc", DM_ENCODE_GOES_ON, IDS(ABC));   /* bc first, then abc */
    assert_ids(tokenizer, "aab", DM_ENCODE_GOES_ON, IDS(AA, B)); /* the leftmost of equals */
    assert_ids(tokenizer, "ab", 0, IDS(SPACE_AB));               /* ab, then with the space that is put before it */
    assert_ids(tokenizer, "a", 0, IDS(SPACE_A));
    assert_ids(tokenizer, " a", 0, IDS(SPACES, A)); /* two spaces are more urgent than a space and a */
    assert_ids(tokenizer, "x x", DM_ENCODE_GOES_ON, IDS(X, SPACE_X));
    dm_tokenizer_close(tokenizer);
    tokenizer = make((settings){.no_prefix = true});
    assert_ids(tokenizer, "ab", 0, IDS(AB));
    assert_ids(tokenizer, " ab", 0, IDS(SPACE_AB));
    dm_tokenizer_close(tokenizer);
}

static void test_byte_tokens(void **state) {
    (void)state;
    dm_tokenizer *tokenizer = make((settings){0});
    assert_ids(tokenizer, "\xc3\xa9", DM_ENCODE_GOES_ON, IDS(E_ACUTE));
    assert_ids(tokenizer, "\xc3\xa8", DM_ENCODE_GOES_ON, IDS(3 + 0xc3, 3 + 0xa8));
    assert_ids(tokenizer,
               "\xc3"
               "a\xff",
               DM_ENCODE_GOES_ON, IDS(3 + 0xc3, A, 3 + 0xff));
    assert_ids(tokenizer, "d\n", 0, IDS(SPACE, 3 + 'd', 3 + '\n'));
    assert_ids(tokenizer, BAR, DM_ENCODE_GOES_ON, IDS(3 + 0xe2, 3 + 0x96, 3 + 0x81)); /* itself, no space */
    assert_ids(tokenizer, "<0x41>", DM_ENCODE_GOES_ON, IDS(3 + '<', 3 + '0', X, 3 + '4', 3 + '1', 3 + '>'));
    assert_text(tokenizer, IDS(3 + 0xc3, 3 + 0xa8), false, "\xc3\xa8");
    dm_tokenizer_close(tokenizer);
    /* Without tokens for bytes, one unknown token stands for a character. */
    tokenizer = make((settings){.bare = true});
    assert_ids(tokenizer,
               "a\xc3\xa8"
               "b",
               0, IDS(SPACE_A, 0, B));
    dm_tokenizer_close(tokenizer);
}

static void test_special(void **state) {
    (void)state;
    dm_tokenizer *tokenizer = make((settings){0});
    assert_int_equal(dm_tokenizer_bos(tokenizer), 1); /* SentencePiece's own, as the file names none */
    assert_int_equal(dm_tokenizer_eos(tokenizer), 2);
    assert_true(dm_tokenizer_is_end(tokenizer, 2));
    assert_ids(tokenizer, "a</s>a", DM_ENCODE_BOS | DM_ENCODE_SPECIAL, IDS(1, SPACE_A, 2, SPACE_A));
    assert_ids(tokenizer, "<s>a", DM_ENCODE_BOS | DM_ENCODE_SPECIAL, IDS(1, SPACE_A)); /* one beginning is enough */
    assert_ids(tokenizer, "<s>", DM_ENCODE_GOES_ON, IDS(3 + '<', 3 + 's', 3 + '>'));   /* plain text never is control */
    assert_ids(tokenizer, "a<user>a", DM_ENCODE_EOS, IDS(SPACE_A, USER, SPACE_A));
    assert_ids(tokenizer, "<x", DM_ENCODE_GOES_ON, IDS(UNUSED));
    assert_text(tokenizer, IDS(1, SPACE_A, 2, SPACE_A), true, "<s>a</s>a");
    assert_text(tokenizer, IDS(1, SPACE_A, 2, SPACE_A), false, "aa");
    assert_text(tokenizer, IDS(A, SPACE_A, USER, SPACES), false, "a a<user> ");
    dm_tokenizer_close(tokenizer);
    tokenizer = make((settings){.extra = "tokenizer.ggml.add_bos_token"});
    assert_ids(tokenizer, "a", DM_ENCODE_BOS, IDS(SPACE_A));
    dm_tokenizer_close(tokenizer);
}

/* The definition, in cubic time: the best-scored neighbours join, of equals the leftmost, until none can. */
static size_t merge_plainly(const dm_tokenizer *tokenizer, const char *text, size_t length, int32_t *ids) {
    size_t starts[256], n = 0;
    for (size_t at = 0; at < length; n++) {
        uint32_t code;
        size_t step = dm_utf8_decode(text + at, length - at, &code);
        starts[n] = at;
        at += step > 0 ? step : 1;
    }
    starts[n] = length;
    for (;;) {
        size_t best = SIZE_MAX;
        float score = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int32_t id = dm_vocabulary_piece(tokenizer, text + starts[i], starts[i + 2] - starts[i]);
            if (id >= 0 && (best == SIZE_MAX || tokenizer->scores[id] > score)) {
                best = i;
                score = tokenizer->scores[id];
            }
        }
        if (best == SIZE_MAX) {
            break;
        }
        memmove(starts + best + 1, starts + best + 2, (n - best - 1) * sizeof *starts);
        n--;
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = dm_vocabulary_piece(tokenizer, text + starts[i], starts[i + 1] - starts[i]);
        for (size_t at = starts[i]; id < 0 && at < starts[i + 1]; at++) {
            ids[count++] = tokenizer->byte_id[(uint8_t)text[at]];
        }
        if (id >= 0) {
            ids[count++] = id;
        }
    }
    return count;
}

static void test_random_texts(void **state) {
    (void)state;
    for (int inner = 0; inner < 2; inner++) { /* words one by one, and all in one */
        dm_tokenizer *tokenizer = make((settings){.inner_space = inner == 1});
        assert_int_equal(tokenizer->whole_spaces, inner == 0);
        dm_random random;
        dm_random_seed(&random, 5);
        for (int round = 0; round < (DM_SLOW ? 50 : 2000); round++) {
            char text[160];
            size_t length = dm_random_next(&random) % 100, n;
            for (size_t i = 0; i < length; i++) {
                text[i] = "aabbc  x"[dm_random_next(&random) % 8];
            }
            length = round % 4 == 0 ? random_text(&random, text, 100) : length;
            int32_t *ids, plainly[256];
            assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, DM_ENCODE_GOES_ON, &ids, &n), DM_OK);
            assert_int_equal(n, merge_plainly(tokenizer, text, length, plainly));
            assert_memory_equal(ids, plainly, n * sizeof *ids);
            free(ids);
            assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, 0, &ids, &n), DM_OK);
            char *again;
            size_t back;
            assert_int_equal(dm_tokenizer_decode(tokenizer, ids, n, false, &again, &back), DM_OK);
            assert_int_equal(back, length);
            assert_memory_equal(again, text, length);
            free(again);
            free(ids);
        }
        dm_tokenizer_close(tokenizer);
    }
}

static void test_written_again(void **state) {
    (void)state;
    dm_tokenizer *tokenizer = make((settings){.no_prefix = true}), *again;
    const char *path = test_path("again.gguf");
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_tokenizer_write(tokenizer, writer);
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    assert_int_equal(dm_tokenizer_open(path, &again), DM_OK);
    unlink(path);
    assert_true(dm_tokenizer_fingerprint(again) == dm_tokenizer_fingerprint(tokenizer));
    again->scores[AB] = 7;
    assert_true(dm_tokenizer_fingerprint(again) != dm_tokenizer_fingerprint(tokenizer));
    assert_ids(again, "ab", DM_ENCODE_BOS, IDS(1, AB));
    dm_tokenizer_close(again);
    dm_tokenizer_close(tokenizer);
}

/* Megabytes that are one word, or that merge again and again: a quadratic encoder would not end. */
static void test_long_runs(void **state) {
    (void)state;
    static const char *const repeated[] = {" ", "ab", "a", "\xff", "\xc3\xa9", "ab abc", "<"};
    dm_tokenizer *tokenizer = make((settings){0});
    enum { LENGTH = DM_SLOW ? 1 << 16 : 1 << 20 };
    char *text = malloc(LENGTH + 8);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof repeated / sizeof *repeated; i++) {
        size_t unit = strlen(repeated[i]), length = 0, n, back;
        for (; length < LENGTH; length += unit) {
            memcpy(text + length, repeated[i], unit);
        }
        int32_t *ids;
        char *again;
        assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, DM_ENCODE_SPECIAL, &ids, &n), DM_OK);
        assert_int_equal(dm_tokenizer_decode(tokenizer, ids, n, true, &again, &back), DM_OK);
        assert_true(back == length && memcmp(again, text, length) == 0);
        free(again);
        free(ids);
    }
    free(text);
    dm_tokenizer_close(tokenizer);
}

static int remove_folder(void **state) {
    (void)state;
    test_remove((const char *const[]){NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),       cmocka_unit_test(test_byte_tokens),   cmocka_unit_test(test_special),
        cmocka_unit_test(test_random_texts), cmocka_unit_test(test_written_again), cmocka_unit_test(test_long_runs),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
