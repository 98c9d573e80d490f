/* Text to ids and back: exact for the real GPT-2 vocabulary, for any bytes, and clear about vocabularies that cannot work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/random.h"
#include "model/encoder.h"
#include "model/vocabulary.h"
#include "random_text.h"

#define GPT2 DM_SHARED_DIR "/tokenizer/ggml-vocab-gpt-2.gguf"
#define STARCODER DM_SHARED_DIR "/tokenizer/ggml-vocab-starcoder.gguf"
#define DEEPSEEK DM_SHARED_DIR "/tokenizer/ggml-vocab-deepseek-llm.gguf"
#define LLAMA DM_SHARED_DIR "/tokenizer/ggml-vocab-llama-spm.gguf"
#define SEPARATOR "\n__ggml_vocab_test__\n"

static bool have_shared(const char *path) {
    if (access(path, R_OK) != 0) {
        print_message("%s is not here: skipped\n", path);
        return false;
    }
    return true;
}

static void assert_ids(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, const int32_t *wanted,
                       size_t n_wanted) {
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, flags, &ids, &n), DM_OK);
    assert_int_equal(n, n_wanted);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
    free(ids);
}

/* Encodes, decodes, and expects the same bytes. */
static void assert_round_trip(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags) {
    int32_t *ids;
    size_t n, back;
    char *again;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, flags, &ids, &n), DM_OK);
    assert_int_equal(dm_tokenizer_decode(tokenizer, ids, n, (flags & DM_ENCODE_SPECIAL) != 0, &again, &back), DM_OK);
    assert_int_equal(back, length);
    assert_memory_equal(again, text, length);
    free(again);
    free(ids);
}

/* ---- The real vocabularies ---- */

/* Every text of NAME.inp gives the ids of its line in NAME.out, and comes back. */
static void assert_exact(const dm_tokenizer *tokenizer, const char *name) {
    char path[256];
    dm_map input;
    snprintf(path, sizeof path, "%s.inp", name);
    assert_int_equal(dm_map_open(path, &input), DM_OK);
    snprintf(path, sizeof path, "%s.out", name);
    FILE *output = fopen(path, "r");
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
        assert_ids(tokenizer, text, length, 0, wanted, n);
        assert_round_trip(tokenizer, text, length, 0);
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
}

static void test_real_vocabularies(void **state) {
    (void)state;
    if (!have_shared(GPT2)) {
        skip();
    }
    static const struct {
        const char *path;
        int32_t vocab, bos, eos;
    } known[] = {
        {GPT2, 50257, 50256, 50256},
        {STARCODER, 49152, 0, 0},
        {DEEPSEEK, 102400, 100000, 100001},
        {LLAMA, 32000, 1, 2},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        dm_tokenizer *tokenizer;
        assert_int_equal(dm_tokenizer_open(known[i].path, &tokenizer), DM_OK);
        assert_int_equal(dm_tokenizer_vocab(tokenizer), known[i].vocab);
        assert_int_equal(dm_tokenizer_bos(tokenizer), known[i].bos);
        assert_int_equal(dm_tokenizer_eos(tokenizer), known[i].eos);
        assert_true(dm_tokenizer_is_end(tokenizer, known[i].eos));
        assert_false(dm_tokenizer_is_end(tokenizer, 7000));
        assert_exact(tokenizer, known[i].path);
        size_t length;
        assert_non_null(dm_tokenizer_bytes(tokenizer, known[i].eos, &length));
        assert_int_equal(length, 0);
        assert_null(dm_tokenizer_bytes(tokenizer, known[i].vocab, &length));
        assert_null(dm_tokenizer_bytes(tokenizer, -1, &length));
        assert_ids(tokenizer, "", 0, DM_ENCODE_SPECIAL, NULL, 0);
        dm_tokenizer_close(tokenizer);
    }
}

static void test_real_special_tokens(void **state) {
    (void)state;
    if (!have_shared(GPT2)) {
        skip();
    }
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(GPT2, &tokenizer), DM_OK);
    assert_ids(tokenizer, "Hello<|endoftext|> world", 24, DM_ENCODE_SPECIAL, (int32_t[]){15496, 50256, 995}, 3);
    assert_ids(tokenizer, "<|endoftext|>", 13, DM_ENCODE_BOS, (int32_t[]){27, 91, 437, 1659, 5239, 91, 29}, 7);
    dm_tokenizer_close(tokenizer);
    assert_int_equal(dm_tokenizer_open(LLAMA, &tokenizer), DM_OK);
    assert_ids(tokenizer, "Hello world", 11, DM_ENCODE_BOS | DM_ENCODE_EOS, (int32_t[]){1, 15043, 3186}, 3);
    assert_ids(tokenizer, "<s>Hello", 8, DM_ENCODE_BOS | DM_ENCODE_SPECIAL, (int32_t[]){1, 15043}, 2);
    assert_ids(tokenizer, " world", 6, DM_ENCODE_GOES_ON, (int32_t[]){3186}, 1);
    assert_ids(tokenizer, "</s>world", 9, DM_ENCODE_SPECIAL, (int32_t[]){2, 3186}, 2);
    /* U+2581 is the file's way to write a space, and stays itself in a text. */
    assert_ids(tokenizer, "\xe2\x96\x81", 3, DM_ENCODE_GOES_ON, (int32_t[]){3 + 0xe2, 3 + 0x96, 3 + 0x81}, 3);
    assert_round_trip(tokenizer, "a</s> b<s>c", 11, DM_ENCODE_SPECIAL);
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
    assert_ids(tokenizer, text, strlen(text), DM_ENCODE_SPECIAL, (int32_t[]){257, 258, 260, 'a', 259, 256}, 6);
    /* Words of control tokens are text now, a user's token is one still. */
    assert_ids(tokenizer, "<|end|><user>", 13, 0, (int32_t[]){'<', '|', 'e', 'n', 'd', '|', '>', 260}, 8);
    assert_ids(tokenizer, "<|en", 4, DM_ENCODE_SPECIAL, (int32_t[]){'<', '|', 'e', 'n'}, 4);
    size_t length;
    dm_tokenizer_bytes(tokenizer, 260, &length);
    assert_int_equal(length, 6);
    dm_tokenizer_close(tokenizer);
}

/* Whatever merges a file has: plain text makes no control token. */
static void test_merges_make_no_control_token(void **state) {
    (void)state;
    vocabulary *v = usual();
    v->types[256] = DM_TOKEN_CONTROL;
    dm_tokenizer *tokenizer;
    assert_int_equal(load(v, &tokenizer), DM_OK);
    assert_ids(tokenizer, "abab", 4, 0, (int32_t[]){'a', 'b', 'a', 'b'}, 4);
    assert_ids(tokenizer, "abab", 4, DM_ENCODE_SPECIAL, (int32_t[]){256, 256}, 2);
    dm_tokenizer_close(tokenizer);
}

static void test_refused_vocabularies(void **state) {
    (void)state;
    vocabulary *v = usual();
    v->model = "t5";
    assert_refused(v, DM_ERR_UNSUPPORTED, "'t5'");
    v = usual();
    v->model = "llama";
    assert_refused(v, DM_ERR_FORMAT, "tokenizer.ggml.scores");
    v = usual();
    v->model = NULL;
    assert_refused(v, DM_ERR_FORMAT, "tokenizer.ggml.model");
    v = usual();
    v->pre = "nobody's";
    assert_refused(v, DM_ERR_UNSUPPORTED, "'nobody's'; known are gpt-2, ");
    v = usual();
    v->pre = "";
    assert_refused(v, DM_ERR_UNSUPPORTED, "''; known are");
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
    assert_ids(tokenizer, "abab<|endoftext|>", 17, DM_ENCODE_SPECIAL, (int32_t[]){257, 258}, 2);
    size_t length;
    assert_memory_equal(dm_tokenizer_bytes(tokenizer, 262, &length), "\xff x", 3);
    assert_int_equal(length, 3);
    dm_tokenizer_close(tokenizer);
}

/* Some published vocabularies lack bytes: texts with others are encoded all the same. */
static void test_missing_byte(void **state) {
    (void)state;
    vocabulary *v = usual();
    v->tokens['z'] = string_of("zz");
    dm_tokenizer *tokenizer;
    assert_int_equal(load(v, &tokenizer), DM_OK);
    assert_ids(tokenizer, "abab", 4, 0, (int32_t[]){257}, 1);
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(tokenizer, "abz", 3, 0, &ids, &n), DM_ERR_UNSUPPORTED);
    assert_non_null(strstr(dm_error_message(), "0x7a"));
    dm_tokenizer_close(tokenizer);
}

static void test_decode(void **state) {
    (void)state;
    dm_tokenizer *tokenizer;
    assert_int_equal(load(usual(), &tokenizer), DM_OK);
    const int32_t ids[] = {258, 257, 'c', 260, 259};
    char *text;
    size_t length;
    assert_int_equal(dm_tokenizer_decode(tokenizer, ids, 5, false, &text, &length), DM_OK);
    assert_string_equal(text, "ababc<user>");
    free(text);
    assert_int_equal(dm_tokenizer_decode(tokenizer, ids, 5, true, &text, &length), DM_OK);
    assert_string_equal(text, "<|endoftext|>ababc<user><|end|>");
    assert_int_equal(length, strlen(text));
    free(text);
    assert_int_equal(dm_tokenizer_decode(tokenizer, ids, 0, true, &text, &length), DM_OK);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(dm_tokenizer_decode(tokenizer, (int32_t[]){'a', 261}, 2, true, &text, &length), DM_ERR_ARGUMENT);
    assert_null(text);
    assert_non_null(strstr(dm_error_message(), "261"));
    assert_true(dm_tokenizer_is_end(tokenizer, 258) && dm_tokenizer_is_end(tokenizer, 259));
    assert_false(dm_tokenizer_is_end(tokenizer, 260));
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
    assert_ids(tokenizer, all, 256, 0, ids, 256);
    assert_round_trip(tokenizer, all, 256, 0);
    dm_tokenizer_close(tokenizer);
}

/* StarCoder's vocabulary has no tokens for bytes that no text of its language has. */
static void replace_missing(const dm_tokenizer *tokenizer, char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        text[i] = tokenizer->byte_id[(uint8_t)text[i]] >= 0 ? text[i] : 'x';
    }
}

static void test_random_round_trip(void **state) {
    (void)state;
    static const char *const real[] = {GPT2, STARCODER, DEEPSEEK, LLAMA};
    bool all = have_shared(GPT2);
    dm_random random;
    dm_random_seed(&random, 1);
    for (size_t i = 0; i < (all ? 4 : 1); i++) {
        dm_tokenizer *tokenizer;
        assert_int_equal(all ? dm_tokenizer_open(real[i], &tokenizer) : load(usual(), &tokenizer), DM_OK);
        char text[600];
        for (int round = 0; round < (DM_SLOW ? 20 : 100); round++) {
            size_t length = dm_random_next(&random) % 500;
            for (size_t at = 0; at < length; at++) {
                text[at] = (char)dm_random_next(&random);
            }
            replace_missing(tokenizer, text, length);
            assert_round_trip(tokenizer, text, length, 0);
            length = random_text(&random, text, 500);
            replace_missing(tokenizer, text, length);
            assert_round_trip(tokenizer, text, length, (unsigned)round % 2 * DM_ENCODE_SPECIAL);
        }
        dm_tokenizer_close(tokenizer);
    }
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
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, 0, &ids, &n), DM_OK);
    assert_int_equal(n, length / 4);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ids[i], 257);
    }
    free(ids);
    memset(text, ' ', length);
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, 0, &ids, &n), DM_OK);
    assert_int_equal(n, length);
    free(ids);
    memset(text, 0xff, length);
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, DM_ENCODE_SPECIAL, &ids, &n), DM_OK);
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
            assert_int_equal(dm_encoder_run(encoder, text, length, 0, &ids, &count), DM_OK);
            assert_int_equal(count, n);
            assert_true(n == 0 || memcmp(ids, wanted, n * sizeof *ids) == 0);
        }
    }
    dm_encoder_free(encoder);
    dm_tokenizer_close(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_vocabularies),     cmocka_unit_test(test_real_special_tokens),
        cmocka_unit_test(test_special_tokens),        cmocka_unit_test(test_merges_make_no_control_token),
        cmocka_unit_test(test_refused_vocabularies),  cmocka_unit_test(test_tolerated_vocabularies),
        cmocka_unit_test(test_missing_byte),          cmocka_unit_test(test_decode),
        cmocka_unit_test(test_write_and_fingerprint), cmocka_unit_test(test_bytes_only),
        cmocka_unit_test(test_random_round_trip),     cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_word_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
