/* Text to ids and back: exact for the real GPT-2 vocabulary, for any bytes, and clear about vocabularies that cannot work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/utf8.h"
#include "model/encoder.h"
#include "model/split.h"
#include "model/vocabulary.h"

#define GPT2 DM_SHARED_DIR "/tokenizer/ggml-vocab-gpt-2.gguf"
#define SEPARATOR "\n__ggml_vocab_test__\n"

static bool have_shared(const char *path) {
    if (access(path, R_OK) != 0) {
        print_message("%s is not here: skipped\n", path);
        return false;
    }
    return true;
}

static void assert_ids(const dm_tokenizer *tokenizer, const char *text, size_t length, bool special, const int32_t *wanted,
                       size_t n_wanted) {
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, special, &ids, &n), DM_OK);
    assert_int_equal(n, n_wanted);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
    free(ids);
}

/* Encodes, decodes, and expects the same bytes. */
static void assert_round_trip(const dm_tokenizer *tokenizer, const char *text, size_t length) {
    int32_t *ids;
    size_t n, at = 0;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, false, &ids, &n), DM_OK);
    for (size_t i = 0; i < n; i++) {
        size_t piece;
        const char *bytes = dm_tokenizer_bytes(tokenizer, ids[i], &piece);
        assert_non_null(bytes);
        assert_true(piece > 0 && piece <= length - at);
        assert_memory_equal(bytes, text + at, piece);
        at += piece;
    }
    assert_int_equal(at, length);
    free(ids);
}

/* ---- The real vocabulary ---- */

static void test_gpt2_exact(void **state) {
    (void)state;
    if (!have_shared(GPT2)) {
        skip();
    }
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(GPT2, &tokenizer), DM_OK);
    dm_map input;
    assert_int_equal(dm_map_open(GPT2 ".inp", &input), DM_OK);
    FILE *output = fopen(GPT2 ".out", "r");
    assert_non_null(output);
    const char *text = (const char *)input.data, *end = text + input.size;
    char *line = NULL;
    size_t room = 0, n_texts = 0;
    while (getline(&line, &room, output) > 0) {
        const char *stop = memmem(text, (size_t)(end - text), SEPARATOR, strlen(SEPARATOR));
        size_t length = (size_t)((stop != NULL ? stop : end) - text), n = 0;
        int32_t wanted[1024];
        char *at = line, *after;
        for (long id = strtol(at, &after, 10); after != at; id = strtol(at, &after, 10)) {
            wanted[n++] = (int32_t)id;
            at = after;
        }
        assert_ids(tokenizer, text, length, false, wanted, n);
        assert_round_trip(tokenizer, text, length);
        n_texts++;
        if (stop == NULL) {
            break;
        }
        text = stop + strlen(SEPARATOR);
    }
    assert_true(n_texts > 40);
    free(line);
    fclose(output);
    dm_map_close(&input);

    assert_int_equal(dm_tokenizer_vocab(tokenizer), 50257);
    assert_int_equal(dm_tokenizer_bos(tokenizer), 50256);
    assert_int_equal(dm_tokenizer_eos(tokenizer), 50256);
    size_t length;
    assert_non_null(dm_tokenizer_bytes(tokenizer, 50256, &length));
    assert_int_equal(length, 0);
    assert_null(dm_tokenizer_bytes(tokenizer, 50257, &length));
    assert_null(dm_tokenizer_bytes(tokenizer, -1, &length));
    assert_ids(tokenizer, "Hello<|endoftext|> world", 24, true, (int32_t[]){15496, 50256, 995}, 3);
    assert_ids(tokenizer, "<|endoftext|>", 13, false, (int32_t[]){27, 91, 437, 1659, 5239, 91, 29}, 7);
    assert_ids(tokenizer, "", 0, true, NULL, 0);
    dm_tokenizer_close(tokenizer);
}

/* ---- Vocabularies made here ---- */

typedef struct vocabulary {
    const char *model, *pre;
    dm_gguf_string tokens[300];
    int32_t types[300];
    dm_gguf_string merges[8];
    uint64_t n_tokens, n_types, n_merges;
    bool no_tokens, no_merges;
    char names[256][4];
} vocabulary;

static dm_gguf_string string_of(const char *text) {
    return (dm_gguf_string){text, strlen(text)};
}

static void add_token(vocabulary *v, const char *text, int32_t type) {
    v->tokens[v->n_tokens] = string_of(text);
    v->types[v->n_tokens++] = type;
    v->n_types = v->n_tokens;
}

/* 256 bytes; 256 ab, 257 abab, 258 <|endoftext|>, 259 <|end|>, 260 <user>; merges ab, abab. */
static vocabulary *usual(void) {
    vocabulary *v = calloc(1, sizeof *v);
    assert_non_null(v);
    v->model = "gpt2";
    v->pre = "gpt-2";
    dm_tokenizer *bytes;
    assert_int_equal(dm_tokenizer_bytes_only(&bytes), DM_OK);
    for (uint32_t id = 0; id < 256; id++) {
        size_t length;
        const char *text = dm_strings_at(&bytes->texts, id, &length);
        memcpy(v->names[id], text, length);
        add_token(v, v->names[id], DM_TOKEN_NORMAL);
        v->tokens[id].length = length;
    }
    dm_tokenizer_close(bytes);
    add_token(v, "ab", DM_TOKEN_NORMAL);
    add_token(v, "abab", DM_TOKEN_NORMAL);
    add_token(v, DM_END_OF_TEXT, DM_TOKEN_CONTROL);
    add_token(v, "<|end|>", DM_TOKEN_CONTROL);
    add_token(v, "<user>", DM_TOKEN_USER);
    v->merges[0] = string_of("a b");
    v->merges[1] = string_of("ab ab");
    v->n_merges = 2;
    return v;
}

/* Writes the vocabulary to a file, reads it back and frees it. */
static dm_status load(vocabulary *v, dm_tokenizer **out) {
    char path[] = "/tmp/test_tokenizer.XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    assert_non_null(writer);
    dm_gguf_add_string(writer, "general.architecture", "gpt2");
    if (v->model != NULL) {
        dm_gguf_add_string(writer, "tokenizer.ggml.model", v->model);
    }
    if (v->pre != NULL) {
        dm_gguf_add_string(writer, "tokenizer.ggml.pre", v->pre);
    }
    if (!v->no_tokens) {
        dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", v->tokens, v->n_tokens);
    }
    if (v->n_types > 0) {
        dm_gguf_add_array(writer, "tokenizer.ggml.token_type", DM_GGUF_I32, v->types, v->n_types);
    }
    if (!v->no_merges) {
        dm_gguf_add_strings(writer, "tokenizer.ggml.merges", v->merges, v->n_merges);
    }
    dm_gguf_add_u32(writer, "tokenizer.ggml.eos_token_id", 258);
    dm_gguf_add_u32(writer, "tokenizer.ggml.bos_token_id", 100000);
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    free(v);
    dm_status status = dm_tokenizer_open(path, out);
    if (status != DM_OK) {
        assert_memory_equal(dm_error_message(), path, strlen(path)); /* every complaint names the file */
    }
    unlink(path);
    return status;
}

static void assert_refused(vocabulary *v, dm_status wanted, const char *words) {
    dm_tokenizer *tokenizer;
    assert_int_equal(load(v, &tokenizer), wanted);
    assert_null(tokenizer);
    if (strstr(dm_error_message(), words) == NULL) {
        fail_msg("expected '%s' in: %s", words, dm_error_message());
    }
}

static void test_special_tokens(void **state) {
    (void)state;
    dm_tokenizer *tokenizer;
    assert_int_equal(load(usual(), &tokenizer), DM_OK);
    assert_int_equal(dm_tokenizer_eos(tokenizer), 258);
    assert_int_equal(dm_tokenizer_bos(tokenizer), -1); /* outside the vocabulary */
    const char *text = "abab<|endoftext|><user>a<|end|>ab";
    assert_ids(tokenizer, text, strlen(text), true, (int32_t[]){257, 258, 260, 'a', 259, 256}, 6);
    /* Words of control tokens are text now, a user's token is one still. */
    assert_ids(tokenizer, "<|end|><user>", 13, false, (int32_t[]){'<', '|', 'e', 'n', 'd', '|', '>', 260}, 8);
    assert_ids(tokenizer, "<|en", 4, true, (int32_t[]){'<', '|', 'e', 'n'}, 4);
    size_t length;
    dm_tokenizer_bytes(tokenizer, 260, &length);
    assert_int_equal(length, 6);
    dm_tokenizer_close(tokenizer);
}

static void test_refused_vocabularies(void **state) {
    (void)state;
    vocabulary *v = usual();
    v->model = "llama";
    assert_refused(v, DM_ERR_UNSUPPORTED, "'llama'");
    v = usual();
    v->model = NULL;
    assert_refused(v, DM_ERR_FORMAT, "tokenizer.ggml.model");
    v = usual();
    v->pre = "starcoder";
    assert_refused(v, DM_ERR_UNSUPPORTED, "'starcoder'");
    v = usual();
    v->no_tokens = true;
    assert_refused(v, DM_ERR_FORMAT, "tokenizer.ggml.tokens");
    v = usual();
    v->no_merges = true;
    assert_refused(v, DM_ERR_FORMAT, "tokenizer.ggml.merges");
    v = usual();
    v->n_types--;
    assert_refused(v, DM_ERR_FORMAT, "260 entries for 261 tokens");
    v = usual();
    v->tokens[256] = string_of("<user>");
    assert_refused(v, DM_ERR_FORMAT, "tokens 256 and 260 have the same text '<user>'");
    v = usual();
    v->merges[1] = string_of("ab zz");
    assert_refused(v, DM_ERR_FORMAT, "merge 1 'ab zz' names a right part that is not in the vocabulary");
    v = usual();
    v->merges[1] = string_of("b a");
    assert_refused(v, DM_ERR_FORMAT, "merge 1: 'b' and 'a' join to no token");
    v = usual();
    v->merges[1] = string_of("abab");
    assert_refused(v, DM_ERR_FORMAT, "merge 1 'abab' is not two tokens");
    v = usual();
    v->merges[1] = string_of("");
    assert_refused(v, DM_ERR_FORMAT, "merge 1 '' is not two tokens");
    v = usual();
    v->tokens['z'] = string_of("zz");
    assert_refused(v, DM_ERR_FORMAT, "no token stands for the byte 0x7a");
    v = usual();
    v->n_tokens = v->n_types = 0;
    assert_refused(v, DM_ERR_FORMAT, "");
}

static void test_tolerated_vocabularies(void **state) {
    (void)state;
    vocabulary *v = usual();
    v->pre = NULL;
    v->n_types = 0;                  /* all normal, but for the end of text */
    v->merges[2] = string_of("a b"); /* the earlier one counts */
    v->n_merges = 3;
    add_token(v, "", DM_TOKEN_NORMAL);       /* never met */
    add_token(v, "\xff x", DM_TOKEN_NORMAL); /* names no bytes: kept as it is */
    v->n_types = 0;
    dm_tokenizer *tokenizer;
    assert_int_equal(load(v, &tokenizer), DM_OK);
    assert_ids(tokenizer, "abab<|endoftext|>", 17, true, (int32_t[]){257, 258}, 2);
    size_t length;
    assert_memory_equal(dm_tokenizer_bytes(tokenizer, 262, &length), "\xff x", 3);
    assert_int_equal(length, 3);
    dm_tokenizer_close(tokenizer);
}

static void test_write_and_fingerprint(void **state) {
    (void)state;
    dm_tokenizer *tokenizer, *again, *bytes;
    assert_int_equal(load(usual(), &tokenizer), DM_OK);
    char path[] = "/tmp/test_tokenizer.XXXXXX";
    close(mkstemp(path));
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_tokenizer_write(tokenizer, writer);
    assert_int_equal(dm_gguf_writer_finish(writer, path), DM_OK);
    dm_gguf_writer_free(writer);
    assert_int_equal(dm_tokenizer_open(path, &again), DM_OK);
    assert_int_equal(dm_tokenizer_bytes_only(&bytes), DM_OK);
    assert_int_equal(dm_tokenizer_vocab(again), 261);
    assert_int_equal(dm_tokenizer_eos(again), 258);
    assert_true(dm_tokenizer_fingerprint(again) == dm_tokenizer_fingerprint(tokenizer));
    assert_true(dm_tokenizer_fingerprint(again) != dm_tokenizer_fingerprint(bytes));
    again->eos = 259;
    assert_true(dm_tokenizer_fingerprint(again) != dm_tokenizer_fingerprint(tokenizer));
    dm_tokenizer_close(again);
    dm_tokenizer_close(tokenizer);
    dm_tokenizer_close(bytes);
    unlink(path);
}

/* ---- Any bytes ---- */

static void test_bytes_only(void **state) {
    (void)state;
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_bytes_only(&tokenizer), DM_OK);
    assert_int_equal(dm_tokenizer_vocab(tokenizer), 257);
    assert_int_equal(dm_tokenizer_eos(tokenizer), 256);
    char all[256];
    int32_t ids[256];
    for (int i = 0; i < 256; i++) {
        all[i] = (char)i;
        ids[i] = i;
    }
    assert_ids(tokenizer, all, 256, false, ids, 256);
    assert_round_trip(tokenizer, all, 256);
    dm_tokenizer_close(tokenizer);
}

/* Appends a random character of a kind that the pattern treats in its own way; returns the new length. */
static size_t random_piece(dm_random *random, char *text, size_t at) {
    static const char *const pieces[] = {" ",  " ",    "  ",   "\n", "\t",   "'",        "s",  "'s", "'ll", "'re",
                                         "a",  "Z",    "word", "0",  "42",   "!",        "--", "\r", "\v",  "\f",
                                         "\0", "\x1c", "\x7f", "`",  "\x85", "\xc2\xa0", "'v", "_"};
    uint32_t code;
    char *out = text + at;
    switch (dm_random_next(random) % 8) {
    case 0:
        code = (uint32_t)(dm_random_next(random) % 0x3100); /* most scripts and spaces */
        break;
    case 1:
        code = (uint32_t)(dm_random_next(random) % 0x110000);
        break;
    case 2: {
        static const uint32_t spaces[] = {0x85,   0xa0,   0x1680, 0x180e, 0x2000, 0x200a,
                                          0x200b, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
        code = spaces[dm_random_next(random) % 12];
        break;
    }
    case 3:
        *out = (char)dm_random_next(random); /* mostly invalid */
        return at + 1;
    default: {
        const char *piece = pieces[dm_random_next(random) % (sizeof pieces / sizeof *pieces)];
        size_t length = *piece != '\0' ? strlen(piece) : 1;
        memcpy(out, piece, length);
        return at + length;
    }
    }
    return at + dm_utf8_encode(code, out);
}

static void test_random_round_trip(void **state) {
    (void)state;
    bool real = have_shared(GPT2);
    dm_tokenizer *tokenizer;
    assert_int_equal(real ? dm_tokenizer_open(GPT2, &tokenizer) : load(usual(), &tokenizer), DM_OK);
    dm_random random;
    dm_random_seed(&random, 1);
    char text[600];
    for (int round = 0; round < 300; round++) {
        size_t length = dm_random_next(&random) % 500;
        for (size_t i = 0; i < length; i++) {
            text[i] = (char)dm_random_next(&random);
        }
        assert_round_trip(tokenizer, text, length);
        length = 0;
        while (length < 500) {
            length = random_piece(&random, text, length);
        }
        assert_round_trip(tokenizer, text, length);
    }
    dm_tokenizer_close(tokenizer);
}

/* The ASCII path and PCRE2 cut the same words. */
static void test_fast_path_equals_pcre2(void **state) {
    (void)state;
    dm_splitter *fast, *reference;
    assert_int_equal(dm_splitter_create(&fast), DM_OK);
    assert_int_equal(dm_splitter_create(&reference), DM_OK);
    dm_splitter_set_fast(reference, false);
    dm_random random;
    dm_random_seed(&random, 2);
    char text[128];
    for (int round = 0; round < 30000; round++) {
        size_t wanted = dm_random_next(&random) % 100, length = 0;
        while (length < wanted) {
            length = random_piece(&random, text, length);
        }
        assert_int_equal(dm_splitter_start(fast, text, length), DM_OK);
        assert_int_equal(dm_splitter_start(reference, text, length), DM_OK);
        size_t a, b, total = 0;
        do {
            assert_int_equal(dm_splitter_next(fast, &a), DM_OK);
            assert_int_equal(dm_splitter_next(reference, &b), DM_OK);
            assert_int_equal(a, b);
            total += a;
        } while (a != 0);
        assert_int_equal(total, length);
    }
    dm_splitter_free(fast);
    dm_splitter_free(reference);
}

/* Words by hand, one per '|'. */
static void assert_words(const char *marked) {
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
    dm_splitter *splitter;
    assert_int_equal(dm_splitter_create(&splitter), DM_OK);
    for (int fast = 0; fast < 2; fast++) {
        dm_splitter_set_fast(splitter, fast);
        assert_int_equal(dm_splitter_start(splitter, text, length), DM_OK);
        for (size_t i = 0; i <= n_words; i++) {
            size_t got;
            assert_int_equal(dm_splitter_next(splitter, &got), DM_OK);
            assert_int_equal(got, i < n_words ? lengths[i] : 0);
        }
    }
    dm_splitter_free(splitter);
}

static void test_words_by_hand(void **state) {
    (void)state;
    assert_words("I|'ve| got|   |");
    assert_words("I|'ve| got| | 12| apples|,'|tis|!|");
    assert_words("x| |\t|y|\n|\n|z|  |");
    assert_words("it|'s|_'|ll|");
    assert_words(" caf\xc3\xa9|\xe2\x80\x89|\xc2\xa0|x|");
    assert_words("a| \xff\xfe|b|\xc3(|");
    assert_words("a| |\xc2\x85|b|");    /* NEL is a space */
    assert_words("a| \xe1\xa0\x8e|b|"); /* U+180E is none */
}

/* ---- Cost ---- */

/* 10 MB without a place to split: a quadratic encoder would not end. */
static void test_long_runs(void **state) {
    (void)state;
    dm_tokenizer *tokenizer;
    assert_int_equal(load(usual(), &tokenizer), DM_OK);
    size_t length = 10 << 20;
    char *text = malloc(length);
    assert_non_null(text);
    for (size_t i = 0; i < length; i++) {
        text[i] = "ab"[i % 2];
    }
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, false, &ids, &n), DM_OK);
    assert_int_equal(n, length / 4);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ids[i], 257);
    }
    free(ids);
    memset(text, ' ', length);
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, false, &ids, &n), DM_OK);
    assert_int_equal(n, length);
    free(ids);
    memset(text, 0xff, length);
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, true, &ids, &n), DM_OK);
    assert_int_equal(n, length);
    free(ids);
    free(text);
    dm_tokenizer_close(tokenizer);
}

/* Words of every length around the limits of the short and the cached ones, twice, so that the second comes from the cache. */
static void test_word_lengths(void **state) {
    (void)state;
    dm_tokenizer *tokenizer;
    assert_int_equal(load(usual(), &tokenizer), DM_OK);
    dm_encoder *encoder;
    assert_int_equal(dm_encoder_create(tokenizer, &encoder), DM_OK);
    for (int round = 0; round < 2; round++) {
        for (size_t length = 0; length < 80; length++) {
            char text[80];
            int32_t wanted[80];
            size_t n = 0, count, at = 0;
            for (size_t i = 0; i < length; i++) {
                text[i] = "ab"[i % 2];
            }
            for (; at + 4 <= length; at += 4) {
                wanted[n++] = 257;
            }
            for (; at + 2 <= length; at += 2) {
                wanted[n++] = 256;
            }
            for (; at < length; at++) {
                wanted[n++] = 'a';
            }
            const int32_t *ids;
            assert_int_equal(dm_encoder_run(encoder, text, length, &ids, &count), DM_OK);
            assert_int_equal(count, n);
            assert_true(n == 0 || memcmp(ids, wanted, n * sizeof *ids) == 0);
        }
    }
    dm_encoder_free(encoder);
    dm_tokenizer_close(tokenizer);
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
        cmocka_unit_test(test_gpt2_exact),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_refused_vocabularies),
        cmocka_unit_test(test_tolerated_vocabularies),
        cmocka_unit_test(test_write_and_fingerprint),
        cmocka_unit_test(test_bytes_only),
        cmocka_unit_test(test_random_round_trip),
        cmocka_unit_test(test_fast_path_equals_pcre2),
        cmocka_unit_test(test_words_by_hand),
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_word_lengths),
        cmocka_unit_test(test_split_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
