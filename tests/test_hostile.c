/*
 * The ways in which files have broken other loaders, one test for each class: GGUF headers, vocabularies, chat templates. The
 * CVEs are those of llama.cpp, llama-cpp-python and Ollama. All of it must be refused with one line, or be harmless; under
 * the sanitizers, also without a byte read or written outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "model/tokenizer.h"
#include "test_files.h"
#include "tiny_model.h"

/* Fails unless the file is refused with one line that starts with the path and has `word` in it. */
static void refuse(const test_bytes *bytes, const char *word) {
    const char *path = test_path("bad.gguf");
    test_write(path, bytes->data, bytes->size);
    dm_gguf *file = NULL;
    dm_status status = dm_gguf_open(path, &file);
    assert_null(file);
    assert_true(status == DM_ERR_FORMAT || status == DM_ERR_UNSUPPORTED);
    assert_int_equal(strncmp(dm_error_message(), path, strlen(path)), 0);
    assert_null(strchr(dm_error_message(), '\n'));
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
}

static dm_gguf *open_ok(const char *path) {
    dm_gguf *file = NULL;
    if (dm_gguf_open(path, &file) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return file;
}

static void accept(const test_bytes *bytes) {
    test_write(test_path("good.gguf"), bytes->data, bytes->size);
    dm_gguf_close(open_ok(test_path("good.gguf")));
}

/* ---- Headers ---- */

static void not_such_a_file(void **state) {
    (void)state;
    test_bytes b;
    put_header(&b, 0, 0);
    accept(&b);
    b.data[4] = 2;
    accept(&b);
    b.data[4] = 1;
    refuse(&b, "version 1");
    b.data[4] = 0;
    b.data[7] = 3;
    refuse(&b, "big-endian");
    b.data[0] = 'X';
    refuse(&b, "not a GGUF file");
    b.size = 0;
    refuse(&b, "empty");
}

/* CVE-2024-21836, CVE-2024-23605: tables sized by what the header claims. */
static void tensor_and_key_counts(void **state) {
    (void)state;
    test_bytes b;
    const uint64_t absurd[] = {1, 1000, 1ull << 32, 1ull << 61, 1ull << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        put_header(&b, absurd[i], 0);
        refuse(&b, "tensors");
        put_header(&b, 0, absurd[i]);
        refuse(&b, "keys");
    }
}

/* CVE-2024-41130: null pointers for what is empty. */
static void nothing_at_all(void **state) {
    (void)state;
    test_bytes b;
    put_header(&b, 0, 2);
    put_key(&b, "none", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_STRING);
    put_u64(&b, 0);
    put_key(&b, "empty", DM_GGUF_STRING);
    put_string(&b, "");
    test_write(test_path("good.gguf"), b.data, b.size);
    dm_gguf *file = open_ok(test_path("good.gguf"));
    dm_gguf_string *strings, text;
    uint64_t count;
    assert_null(dm_gguf_find_tensor(file, "any"));
    assert_false(dm_gguf_has(file, ""));
    assert_int_equal(dm_gguf_get_strings(file, "none", &strings, &count), DM_OK);
    assert_int_equal(count, 0);
    free(strings);
    assert_int_equal(dm_gguf_get_string(file, "empty", &text), DM_OK);
    assert_int_equal(text.length, 0);
    dm_gguf_close(file);
    dm_model *model;
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_model_open(test_path("good.gguf"), &model), DM_ERR_FORMAT);
    assert_int_equal(dm_tokenizer_open(test_path("good.gguf"), &tokenizer), DM_ERR_FORMAT);
}

/* CVE-2024-23496 (a length to which 1 is added), and lengths cut to 32 bits. */
static void string_and_array_lengths(void **state) {
    (void)state;
    test_bytes b;
    const uint64_t absurd[] = {1000, 0xffffffff, 1ull << 32, (1ull << 32) + 1, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        put_header(&b, 0, 1); /* a key's length; 2^32 + 1 would be 1 if cut to 32 bits */
        put_u64(&b, absurd[i]);
        put(&b, "k\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
        refuse(&b, "key 0");
        put_header(&b, 0, 1); /* a string's */
        put_key(&b, "k", DM_GGUF_STRING);
        put_u64(&b, absurd[i]);
        put(&b, "text", 4);
        refuse(&b, "of k");
        put_header(&b, 0, 1); /* an array's */
        put_key(&b, "k", DM_GGUF_ARRAY);
        put_u32(&b, DM_GGUF_U32);
        put_u64(&b, absurd[i]);
        put(&b, "12345678", 8);
        refuse(&b, "'k'");
        put_header(&b, 0, 1); /* of a string within an array */
        put_key(&b, "k", DM_GGUF_ARRAY);
        put_u32(&b, DM_GGUF_STRING);
        put_u64(&b, 2);
        put_string(&b, "one");
        put_u64(&b, absurd[i]);
        refuse(&b, "of k");
    }
}

/* CVE-2024-21825: lengths that wrap when they are multiplied by the size of an element. */
static void array_sizes_that_wrap(void **state) {
    (void)state;
    test_bytes b;
    for (uint32_t kind = DM_GGUF_U8; kind <= DM_GGUF_F64; kind++) {
        for (int shift = 56; shift < 64; shift++) { /* times 1, 2, 4, 8 or 12 these wrap to 0 or near it */
            put_header(&b, 0, 1);
            put_key(&b, "wraps", DM_GGUF_ARRAY);
            put_u32(&b, kind);
            put_u64(&b, 1ull << shift);
            put_data(&b, 8, 64);
            refuse(&b, "wraps");
        }
    }
}

static void unknown_kinds_and_doubles(void **state) {
    (void)state;
    test_bytes b;
    put_header(&b, 0, 1);
    put_key(&b, "odd", 13);
    put_u64(&b, 0);
    refuse(&b, "kind 13");
    put_header(&b, 0, 1);
    put_key(&b, "odd", DM_GGUF_ARRAY);
    put_u32(&b, 0xffffffff);
    put_u64(&b, 0);
    refuse(&b, "unknown kind");
    put_header(&b, 0, 1);
    put_key(&b, "truth", DM_GGUF_BOOL);
    put_u8(&b, 2);
    refuse(&b, "no bool");
    put_header(&b, 0, 1);
    put_key(&b, "truths", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_BOOL);
    put_u64(&b, 3);
    put(&b, "\1\0\3", 3);
    refuse(&b, "no bool");
    put_header(&b, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_key(&b, "twin", DM_GGUF_U8);
        put_u8(&b, 0);
    }
    refuse(&b, "twice");
}

static void names_that_are_no_names(void **state) {
    (void)state;
    test_bytes b;
    const char *names[] = {"", "line\nbreak", "bell\a", "caf\xc3\xa9", "nul"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_header(&b, 0, 1);
        size_t start = b.size;
        put_key(&b, names[i], DM_GGUF_U32);
        put_u32(&b, 0);
        if (strcmp(names[i], "nul") == 0) {
            b.data[start + 9] = '\0';
        }
        refuse(&b, "key 0");
    }
    for (size_t i = 0; i < 2; i++) {
        put_header(&b, 1, 0);
        put_tensor(&b, i == 0 ? "t\nt" : "", DM_TYPE_F32, 8, 0, 0);
        put_data(&b, 32, 32);
        refuse(&b, "tensor 0");
    }
}

static void put_nested(test_bytes *b, int depth) {
    put_header(b, 0, 1);
    put_key(b, "deep", DM_GGUF_ARRAY);
    for (int i = 1; i < depth; i++) {
        put_u32(b, DM_GGUF_ARRAY);
        put_u64(b, 1);
    }
    put_u32(b, DM_GGUF_U8);
    put_u64(b, 1);
    put_u8(b, 0);
}

/* Recursion without end. */
static void nested_arrays(void **state) {
    (void)state;
    test_bytes b;
    put_nested(&b, 3);
    accept(&b);
    put_nested(&b, 600); /* a reader that recurses without end runs out of stack on deeper ones */
    refuse(&b, "nested");
}

/* Padding that wraps, or that is divided by. */
static void alignments(void **state) {
    (void)state;
    test_bytes b;
    const uint32_t bad[] = {0, 1, 4, 24, 33, 0x80000001u, UINT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_header(&b, 0, 1);
        put_key(&b, "general.alignment", DM_GGUF_U32);
        put_u32(&b, bad[i]);
        refuse(&b, "alignment");
    }
    put_header(&b, 0, 1);
    put_key(&b, "general.alignment", DM_GGUF_STRING);
    put_string(&b, "64");
    refuse(&b, "alignment");
    const uint32_t good[] = {8, 16, 64, 256};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        put_header(&b, 2, 1);
        put_key(&b, "general.alignment", DM_GGUF_U32);
        put_u32(&b, good[i]);
        put_tensor(&b, "first", DM_TYPE_F32, 2, 0, 0);
        put_tensor(&b, "second", DM_TYPE_F32, 2, 0, good[i]);
        put_data(&b, good[i], good[i] + 8);
        accept(&b);
        b.size--;
        refuse(&b, "'second'");
    }
    put_header(&b, 1, 1); /* the padding alone would leave the file */
    put_key(&b, "general.alignment", DM_GGUF_U32);
    put_u32(&b, 1u << 31);
    put_tensor(&b, "far", DM_TYPE_F32, 2, 0, 0);
    put_data(&b, 32, 64);
    refuse(&b, "'far'");
}

/* CVE-2024-21802 (more dimensions than there is room for), CVE-2026-33298 (products of dimensions that wrap). */
static void dimensions_and_their_products(void **state) {
    (void)state;
    test_bytes b;
    const struct {
        uint64_t dims[2];
        const char *word;
    } cases[] = {
        {{1ull << 32, 1ull << 32}, "dimension"}, /* the product is 2^64, 0 when it wraps */
        {{1ull << 63, 2}, "dimension"},
        {{UINT64_MAX, UINT64_MAX}, "dimension"},
        {{(1ull << 62) + 2, 4}, "dimension"},    /* wraps to 8 */
        {{1ull << 62, 0}, "more than any file"}, /* the product with 4 bytes wraps to 0 */
        {{(1ull << 62) + 2, 0}, "more than any file"},
        {{1ull << 61, 0}, "past the end"},
        {{1ull << 40, 0}, "past the end"},
        {{17, 0}, "past the end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_header(&b, 1, 0);
        put_tensor(&b, "shape", DM_TYPE_F32, cases[i].dims[0], cases[i].dims[1], 0);
        put_data(&b, 32, 64);
        refuse(&b, cases[i].word);
    }
    put_header(&b, 1, 0);
    put_tensor(&b, "shape", DM_TYPE_F32, 0, 0, 0);
    put_data(&b, 32, 64);
    refuse(&b, "dimension");
    const uint32_t counts[] = {5, 8, 0xffffffff};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        put_header(&b, 1, 0);
        put_string(&b, "shape");
        put_u32(&b, counts[i]);
        put_data(&b, 32, 256);
        refuse(&b, "dimensions");
    }
}

/* CVE-2025-53630, CVE-2026-27940: sizes of tensors, each below 2^64, whose sum wraps, and one whose padding does. */
static void sums_of_sizes_that_wrap(void **state) {
    (void)state;
    test_bytes b;
    const uint64_t quarter = (uint64_t)1 << 60; /* elements, 2^62 bytes */
    const uint64_t sizes[][5] = {
        {quarter, quarter, quarter, quarter, 8}, {UINT64_MAX / 4, 1, 1, 1, 8}, {8, UINT64_MAX / 4, 1, 1, 8}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int placed = 0; placed < 2; placed++) { /* all at the start, and each where the one before it ends */
            uint64_t offset = 0;
            put_header(&b, 5, 0);
            for (size_t t = 0; t < 5; t++) {
                char name[8];
                snprintf(name, sizeof name, "t%zu", t);
                put_tensor(&b, name, DM_TYPE_F32, sizes[i][t], 0, offset);
                offset += placed != 0 ? (sizes[i][t] * 4 + 31) / 32 * 32 : 0;
            }
            put_data(&b, 32, 256);
            refuse(&b, "past the end");
        }
    }
}

/* Block sizes that are 0, as those of types that were withdrawn or are none. */
static void types_without_blocks(void **state) {
    (void)state;
    test_bytes b;
    const uint32_t gone[] = {4, 5, 31, 36, 99, 0x7fffffff, 0x80000000, UINT32_MAX}; /* some readers divide by their 0 */
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        put_header(&b, 1, 0);
        put_tensor(&b, "type", gone[i], 32, 0, 0);
        put_data(&b, 32, 256);
        refuse(&b, "of type");
    }
    put_header(&b, 1, 0);
    put_tensor(&b, "blocks", DM_TYPE_Q4_0, 33, 0, 0);
    put_data(&b, 32, 256);
    refuse(&b, "whole blocks");
    for (uint32_t type = 0; type < 64; type++) {
        uint32_t block = 0, bytes = 0;
        if (dm_type_block(type, &block, &bytes)) {
            put_header(&b, 1, 0);
            put_tensor(&b, "good", type, block, 2, 0);
            put_data(&b, 32, (size_t)2 * bytes);
            accept(&b);
            b.size--;
            refuse(&b, "past the end");
        }
    }
}

/* CVE-2026-7482: data that are said to lie past the end, read when they are quantized. */
static void offsets_past_the_end(void **state) {
    (void)state;
    test_bytes b;
    const struct {
        uint64_t offset;
        const char *word;
    } cases[] = {{1, "alignment"},
                 {31, "alignment"},
                 {64, "past the end"},
                 {1ull << 40, "past the end"},
                 {1ull << 63, "past the end"},
                 {UINT64_MAX - 31, "past the end"},
                 {UINT64_MAX, "past the end"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_header(&b, 1, 0);
        put_tensor(&b, "offset", DM_TYPE_F32, 16, 0, cases[i].offset);
        put_data(&b, 32, 64);
        refuse(&b, cases[i].word);
    }
    put_header(&b, 2, 0);
    put_tensor(&b, "twin", DM_TYPE_F32, 8, 0, 0);
    put_tensor(&b, "twin", DM_TYPE_F32, 8, 0, 32);
    put_data(&b, 32, 64);
    refuse(&b, "twice");
}

static void cut_at_every_byte(void **state) {
    (void)state;
    test_bytes b;
    put_header(&b, 2, 6);
    put_key(&b, "number", DM_GGUF_F64);
    put_u64(&b, 0);
    put_key(&b, "text", DM_GGUF_STRING);
    put_string(&b, "some text");
    put_key(&b, "bools", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_BOOL);
    put_u64(&b, 2);
    put(&b, "\0\1", 2);
    put_key(&b, "strings", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_STRING);
    put_u64(&b, 2);
    put_string(&b, "one");
    put_string(&b, "two");
    put_key(&b, "nested", DM_GGUF_ARRAY);
    put_u32(&b, DM_GGUF_ARRAY);
    put_u64(&b, 1);
    put_u32(&b, DM_GGUF_I16);
    put_u64(&b, 1);
    put(&b, "\0\1", 2);
    put_key(&b, "general.alignment", DM_GGUF_U32);
    put_u32(&b, 64);
    put_tensor(&b, "first", DM_TYPE_F16, 4, 8, 0);
    put_tensor(&b, "second", DM_TYPE_Q8_0, 32, 0, 64);
    put_data(&b, 64, 64 + 34);
    accept(&b);
    for (size_t size = b.size; size-- > 0;) {
        b.size = size;
        refuse(&b, "");
    }
}

/* A file is read through a map, so another process can change a length after it was checked. */
static void lengths_that_change_later(void **state) {
    (void)state;
    const uint64_t later[] = {5, 1000, UINT64_MAX};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        test_bytes b;
        put_header(&b, 0, 1);
        put_key(&b, "words", DM_GGUF_ARRAY);
        put_u32(&b, DM_GGUF_STRING);
        put_u64(&b, 2);
        size_t at = b.size;
        put_string(&b, "one");
        put_string(&b, "two");
        test_write(test_path("good.gguf"), b.data, b.size);
        dm_gguf *file = open_ok(test_path("good.gguf"));
        FILE *stream = fopen(test_path("good.gguf"), "r+b");
        assert_true(stream != NULL && fseek(stream, (long)at, SEEK_SET) == 0);
        assert_int_equal(fwrite(&later[i], sizeof later[i], 1, stream), 1);
        fclose(stream);
        dm_gguf_string *strings;
        uint64_t count;
        assert_int_equal(dm_gguf_get_strings(file, "words", &strings, &count), DM_OK);
        assert_int_equal(count, 2);
        assert_true(strings[0].length + strings[1].length <= 14 && strings[1].length <= 14);
        free(strings);
        dm_gguf_close(file);
    }
}

/* ---- Vocabularies ---- */

typedef struct vocabulary {
    const char *kind; /* tokenizer.ggml.model */
    dm_gguf_string tokens[8];
    int32_t types[8];
    float scores[8];
    uint64_t n;
} vocabulary;

/* `add` puts more keys into the file, or NULL. */
static dm_status open_vocabulary(const vocabulary *v, void (*add)(dm_gguf_writer *writer), dm_tokenizer **out) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_string(writer, "tokenizer.ggml.model", v->kind);
    dm_gguf_add_string(writer, "tokenizer.ggml.pre", "gpt-2");
    dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", v->tokens, v->n);
    dm_gguf_add_array(writer, "tokenizer.ggml.token_type", DM_GGUF_I32, v->types, v->n);
    dm_gguf_add_array(writer, "tokenizer.ggml.scores", DM_GGUF_F32, v->scores, v->n);
    dm_gguf_add_strings(writer, "tokenizer.ggml.merges", v->tokens, 0);
    if (add != NULL) {
        add(writer);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, test_path("good.gguf")), DM_OK);
    dm_gguf_writer_free(writer);
    return dm_tokenizer_open(test_path("good.gguf"), out);
}

static dm_tokenizer *vocabulary_ok(const vocabulary *v, void (*add)(dm_gguf_writer *writer)) {
    dm_tokenizer *tokenizer;
    if (open_vocabulary(v, add, &tokenizer) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return tokenizer;
}

/* CVE-2025-49847: the length of a token's text as a smaller, signed number. These are 2^16 and more than any buffer. */
static void token_lengths(void **state) {
    (void)state;
    enum { LONG = 70000 };
    static char text[LONG];
    memset(text, 'a', sizeof text);
    const vocabulary v = {"gpt2", {{"a", 1}, {text, LONG}, {text, 65536}}, {1, 1, 4}, {0}, 3};
    dm_tokenizer *tokenizer = vocabulary_ok(&v, NULL);
    const int32_t ids[] = {1, 0, 2};
    char *decoded;
    size_t length;
    dm_tokenizer_bytes(tokenizer, 1, &length);
    assert_int_equal(length, LONG);
    assert_int_equal(dm_tokenizer_decode(tokenizer, ids, 3, false, &decoded, &length), DM_OK);
    assert_int_equal(length, LONG + 1 + 65536);
    assert_memory_equal(decoded, text, LONG);
    free(decoded);
    dm_tokenizer_close(tokenizer);
    const vocabulary twice = {"gpt2", {{text, LONG}, {text, LONG}}, {1, 1}, {0}, 2}; /* quoted in the message */
    assert_int_equal(open_vocabulary(&twice, NULL, &tokenizer), DM_ERR_FORMAT);
    assert_true(strlen(dm_error_message()) < 500);
}

/* CVE-2025-52566: the number of a text's tokens compared as a signed number. Here it is never below 2^32. */
static void token_counts(void **state) {
    (void)state;
    enum { MANY = 300000 };
    static char text[MANY];
    memset(text, 'a', sizeof text);
    const vocabulary v = {"gpt2", {{"a", 1}}, {1}, {0}, 1};
    dm_tokenizer *tokenizer = vocabulary_ok(&v, NULL);
    int32_t *ids;
    size_t count;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, MANY, 0, &ids, &count), DM_OK);
    assert_int_equal(count, MANY);
    free(ids);
    dm_tokenizer_close(tokenizer);
    tiny_model tiny;
    tiny_model_make(&tiny, "llama", "f32", 1);
    dm_session *session;
    assert_int_equal(dm_session_create(tiny.model, 16, &session), DM_OK);
    const dm_sampling sampling = dm_sampling_default();
    const size_t counts[] = {17, INT32_MAX, (size_t)1 << 31, ((size_t)1 << 32) + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const int32_t one = 1; /* cut to 32 bits, the counts would be 1 or below */
        assert_int_equal(dm_generate(session, &one, counts[i], 1, &sampling, NULL, NULL, NULL, NULL), DM_ERR_ARGUMENT);
        assert_non_null(strstr(dm_error_message(), "do not fit"));
    }
    dm_session_free(session);
    tiny_model_remove(&tiny);
}

static void add_far_ids(dm_gguf_writer *writer) {
    dm_gguf_add_u64(writer, "tokenizer.ggml.bos_token_id", UINT32_MAX - 1);
    dm_gguf_add_u32(writer, "tokenizer.ggml.eos_token_id", 3);
    dm_gguf_add_u32(writer, "tokenizer.ggml.eot_token_id", (uint32_t)INT32_MAX + 1);
    dm_gguf_add_bool(writer, "tokenizer.ggml.add_bos_token", true);
}

static void add_wide_id(dm_gguf_writer *writer) {
    dm_gguf_add_u64(writer, "tokenizer.ggml.bos_token_id", (1ull << 32) + 1);
}

/* Ids outside the vocabulary, and one that is inside when it is cut to 32 bits. */
static void token_ids(void **state) {
    (void)state;
    const vocabulary v = {"gpt2", {{"a", 1}, {"b", 1}, {"c", 1}}, {1, 1, 1}, {0}, 3};
    dm_tokenizer *tokenizer = vocabulary_ok(&v, add_far_ids);
    assert_int_equal(dm_tokenizer_bos(tokenizer), -1);
    assert_int_equal(dm_tokenizer_eos(tokenizer), -1);
    assert_false(dm_tokenizer_adds_bos(tokenizer));
    assert_false(dm_tokenizer_is_end(tokenizer, INT32_MIN));
    size_t length;
    assert_null(dm_tokenizer_bytes(tokenizer, 3, &length));
    assert_null(dm_tokenizer_bytes(tokenizer, INT32_MIN, &length));
    dm_tokenizer_close(tokenizer);
    assert_int_equal(open_vocabulary(&v, add_wide_id, &tokenizer), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "bos_token_id"));
}

/* Names of bytes that are no bytes: a sign, no number, more than 255. */
static void byte_tokens(void **state) {
    (void)state;
    const vocabulary v = {
        "llama", {{"<0x-1>", 6}, {"<0xZZ>", 6}, {"<0x100>", 7}, {"<0x>", 4}, {"", 0}, {"<0x41>", 6}}, {6, 6, 6, 6, 6, 6}, {0}, 6};
    dm_tokenizer *tokenizer = vocabulary_ok(&v, NULL);
    size_t length;
    assert_memory_equal(dm_tokenizer_bytes(tokenizer, 5, &length), "A", 1);
    assert_int_equal(length, 1);
    dm_tokenizer_bytes(tokenizer, 0, &length);
    assert_int_equal(length, 6);
    dm_tokenizer_close(tokenizer);
}

/* An array beside the tokens that is shorter. */
static void scores(void **state) {
    (void)state;
    const dm_gguf_string tokens[] = {{"a", 1}, {"b", 1}};
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_string(writer, "tokenizer.ggml.model", "llama");
    dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", tokens, 2);
    dm_gguf_add_array(writer, "tokenizer.ggml.scores", DM_GGUF_F32, (const float[]){0.0f}, 1);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path("good.gguf")), DM_OK);
    dm_gguf_writer_free(writer);
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(test_path("good.gguf"), &tokenizer), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "1 entries for 2 tokens"));
}

/* Texts of a file that would move a terminal's cursor, or forge another message, where a message quotes them. */
static void messages_are_one_line(void **state) {
    (void)state;
    const char *const texts[] = {"\x1b[2J\x1b[31mdone", "\ndilmodeli: fine\r", "\xc2\x9b[31m", "\a\b\x7f\t"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const dm_gguf_string text = {texts[i], strlen(texts[i])};
        const vocabulary twice = {"gpt2", {text, text}, {1, 1}, {0}, 2}, unknown = {texts[i], {text}, {1}, {0}, 1};
        const vocabulary *const both[] = {&twice, &unknown};
        for (size_t k = 0; k < 2; k++) {
            dm_tokenizer *tokenizer;
            assert_int_not_equal(open_vocabulary(both[k], NULL, &tokenizer), DM_OK);
            const char *message = dm_error_message();
            for (const char *at = message; *at != '\0'; at++) {
                assert_true((uint8_t)*at >= ' ' && *at != 0x7f);
            }
            assert_null(strstr(message, "\xc2\x9b"));
            assert_non_null(strchr(message, '?'));
        }
    }
}

/* ---- Chat templates ---- */

static const char *template;

static void add_template(dm_gguf_writer *writer) {
    dm_gguf_add_string(writer, "tokenizer.chat_template", template);
}

/* CVE-2024-34359: templates that are programs. Nothing of them is run: they are unknown, or their marks are known ones. */
static void templates_that_run_code(void **state) {
    (void)state;
    static const char *const attacks[] = {
        ("{% for c in [].__class__.__base__.__subclasses__() %}{% if c.__name__ == 'catch_warnings' %}"
         "{{ c.__init__.__globals__['__builtins__'].eval(\"__import__('os').system('touch ATTACKED')\") }}{% endif %}{% endfor "
         "%}"),
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for i in range(99999999999) %}{{ 'x' * 99999999 }}{% endfor %}",
        "{% include '/etc/passwd' %}${7*7}<%= `id` %>%n%n%s%1000000d",
    };
    const vocabulary v = {"gpt2", {{"H", 1}, {"i", 1}}, {1, 1}, {0}, 2};
    const dm_chat_message message = {"user", "Hi"};
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        char *text, marked[1024];
        template = attacks[i];
        dm_tokenizer *tokenizer = vocabulary_ok(&v, add_template);
        assert_null(dm_tokenizer_chat_family(tokenizer));
        assert_int_equal(dm_chat_render(tokenizer, NULL, &message, 1, true, &text), DM_ERR_UNSUPPORTED);
        assert_null(text);
        assert_non_null(strstr(dm_error_message(), "a chat template that is not known"));
        dm_tokenizer_close(tokenizer);
        snprintf(marked, sizeof marked, "%s<|im_start|><|im_end|>", attacks[i]);
        template = marked;
        tokenizer = vocabulary_ok(&v, add_template);
        assert_int_equal(dm_chat_render(tokenizer, NULL, &message, 1, true, &text), DM_OK);
        assert_string_equal(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
        free(text);
        dm_tokenizer_close(tokenizer);
    }
    assert_int_not_equal(access("ATTACKED", F_OK), 0);
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){"bad.gguf", "good.gguf", NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_such_a_file),
        cmocka_unit_test(tensor_and_key_counts),
        cmocka_unit_test(nothing_at_all),
        cmocka_unit_test(string_and_array_lengths),
        cmocka_unit_test(array_sizes_that_wrap),
        cmocka_unit_test(unknown_kinds_and_doubles),
        cmocka_unit_test(names_that_are_no_names),
        cmocka_unit_test(nested_arrays),
        cmocka_unit_test(alignments),
        cmocka_unit_test(dimensions_and_their_products),
        cmocka_unit_test(sums_of_sizes_that_wrap),
        cmocka_unit_test(types_without_blocks),
        cmocka_unit_test(offsets_past_the_end),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(lengths_that_change_later),
        cmocka_unit_test(token_lengths),
        cmocka_unit_test(token_counts),
        cmocka_unit_test(token_ids),
        cmocka_unit_test(byte_tokens),
        cmocka_unit_test(scores),
        cmocka_unit_test(messages_are_one_line),
        cmocka_unit_test(templates_that_run_code),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
