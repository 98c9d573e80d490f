/* Vocabularies to tokenizer.json and back: the same ids for every text; the forms that files of others have; what is refused. */
#include "model/hf_tokenizer.h"
#include "reference.h"
#include "test_files.h"

#define VOCABULARIES DM_SHARED_DIR "/tokenizer/"

static const char *const files[] = {"tokenizer.json",          "tokenizer_config.json", "generation_config.json",
                                    "special_tokens_map.json", "chat_template.jinja",   "config.json"};

static const char *folder(void) {
    static char path[256];
    snprintf(path, sizeof path, "%s", test_path(""));
    return path;
}

static void clean(void) {
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        unlink(test_path(files[i]));
    }
}

static dm_tokenizer *read_folder(int32_t vocab) {
    dm_tokenizer *tokenizer;
    if (dm_hf_tokenizer_read(folder(), NULL, vocab, &tokenizer) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return tokenizer;
}

/* The other tokenizer gives the same ids, with and without special tokens and marks. */
static void same_ids(const dm_tokenizer *a, const dm_tokenizer *b, const char *text, size_t length) {
    static const unsigned flags[] = {0, DM_ENCODE_SPECIAL, DM_ENCODE_BOS | DM_ENCODE_EOS | DM_ENCODE_SPECIAL};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        int32_t *left, *right;
        size_t n, m;
        assert_int_equal(dm_tokenizer_encode(a, text, length, flags[i], &left, &n), DM_OK);
        assert_int_equal(dm_tokenizer_encode(b, text, length, flags[i], &right, &m), DM_OK);
        assert_int_equal(n, m);
        assert_memory_equal(left, right, n * sizeof *left);
        free(left);
        free(right);
    }
}

static void same_tokens(const dm_tokenizer *a, const dm_tokenizer *b) {
    assert_int_equal(dm_tokenizer_vocab(a), dm_tokenizer_vocab(b));
    for (int32_t id = 0; id < dm_tokenizer_vocab(a); id++) {
        size_t n, m;
        const char *left = dm_strings_at(&a->texts, (uint32_t)id, &n), *right = dm_strings_at(&b->texts, (uint32_t)id, &m);
        assert_int_equal(n, m);
        assert_memory_equal(left, right, n);
        assert_int_equal(a->types[id], b->types[id]);
    }
    assert_int_equal(a->bos, b->bos);
    assert_int_equal(a->eos, b->eos);
    assert_int_equal(a->unknown, b->unknown);
    assert_int_equal(a->padding, b->padding);
    assert_int_equal(a->add_bos, b->add_bos);
    assert_int_equal(a->add_eos, b->add_eos);
    assert_int_equal(a->space_prefix, b->space_prefix);
}

static dm_tokenizer *through_folder(const dm_tokenizer *tokenizer) {
    clean();
    if (dm_hf_tokenizer_write(tokenizer, 2048, folder()) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return read_folder(dm_tokenizer_vocab(tokenizer));
}

static void known_vocabularies(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2", "llama-spm", "starcoder", "deepseek-llm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512], texts[600];
        snprintf(path, sizeof path, VOCABULARIES "ggml-vocab-%s.gguf", names[i]);
        snprintf(texts, sizeof texts, "%s.inp", path);
        need(path);
        dm_tokenizer *first;
        assert_int_equal(dm_tokenizer_open(path, &first), DM_OK);
        dm_tokenizer *second = through_folder(first);
        same_tokens(first, second);
        uint8_t *bytes;
        size_t size = test_read(texts, &bytes);
        same_ids(first, second, (const char *)bytes, size);
        print_message("%s: %d tokens, %zu bytes of text\n", names[i], (int)dm_tokenizer_vocab(first), size);
        free(bytes);
        dm_tokenizer_close(first);
        dm_tokenizer_close(second);
    }
}

/* Any rule that can be written is known again. */
static void rules(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2",        "default",        "llama-bpe",   "dbrx",   "qwen2",
                                        "qwen35",       "ufakzeka",       "tekken",      "gpt-4o", "starcoder",
                                        "deepseek-llm", "deepseek-coder", "deepseek-v3", "bloom"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const dm_pretokenizer *rule = dm_pretokenizer_find(names[i], strlen(names[i]));
        json_t *written = dm_hf_rules_write(rule);
        char name[48];
        assert_non_null(written);
        assert_ptr_equal(dm_hf_rules_find(written, rule->whole_words, name), rule);
        assert_string_equal(name, names[i]);
        json_decref(written);
    }
}

/* ---- Files as others write them ---- */

#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"
#define ADDED(id, text, special)                                                                                                 \
    "{\"id\":" #id ",\"content\":\"" text "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"     \
    "\"special\":" #special "}"
#define BPE(added, pre, model) "{\"added_tokens\":[" added "],\"pre_tokenizer\":" pre ",\"model\":{\"type\":\"BPE\"," model "}}"

static void write_json(const char *text) {
    clean();
    test_write(test_path("tokenizer.json"), text, strlen(text));
}

static void expect_ids(const dm_tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *ids, size_t n) {
    int32_t *got;
    size_t count;
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, strlen(text), flags, &got, &count), DM_OK);
    assert_int_equal(count, n);
    assert_memory_equal(got, ids, n * sizeof *ids);
    free(got);
}

static void both_forms_of_merges(void **state) {
    (void)state;
    static const char *const texts[] = {
        BPE(ADDED(6, "<end>", true) "," ADDED(7, "<user>", false), BYTES,
            "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"abab\":3},\"merges\":[\"a b\",\"ab ab\"]"),
        BPE(ADDED(6, "<end>", true) "," ADDED(7, "<user>", false), BYTES,
            "\"vocab\":{\"b\":1,\"a\":0,\"abab\":3,\"ab\":2},\"merges\":[[\"a\",\"b\"],[\"ab\",\"ab\"]]"),
    };
    for (size_t i = 0; i < 2; i++) {
        write_json(texts[i]);
        const char *settings =
            "{\"eos_token\":{\"content\":\"<end>\"},\"bos_token\":\"<end>\",\"add_bos_token\":true,"
            "\"model_max_length\":1000000000000000019884624838656,"
            "\"chat_template\":[{\"name\":\"tool\",\"template\":\"x\"},{\"name\":\"default\",\"template\":\"y\"}]}";
        test_write(test_path("tokenizer_config.json"), settings, strlen(settings));
        dm_tokenizer *tokenizer = read_folder(9); /* 4, 5 and 8 have no token */
        expect_ids(tokenizer, "ababa<user>b", DM_ENCODE_BOS, (const int32_t[]){6, 3, 0, 7, 1}, 5);
        expect_ids(tokenizer, "a<end>", DM_ENCODE_SPECIAL, (const int32_t[]){0, 6}, 2);
        assert_int_equal(tokenizer->types[4], DM_TOKEN_UNUSED);
        assert_int_equal(tokenizer->types[8], DM_TOKEN_UNUSED);
        assert_string_equal(tokenizer->chat_template, "y");
        assert_true(dm_tokenizer_is_end(tokenizer, 6));
        dm_tokenizer *again = through_folder(tokenizer);
        same_tokens(tokenizer, again);
        assert_string_equal(again->chat_template, "y");
        dm_tokenizer_close(again);
        dm_tokenizer_close(tokenizer);
    }
}

#define PIECES(normalizer, pre)                                                                                                  \
    "{\"added_tokens\":[" ADDED(0, "<unk>", true) "," ADDED(1, "<s>", true) "," ADDED(                                           \
        2, "</s>", true) "],\"normalizer\":" normalizer ",\"pre_tokenizer\":" pre                                                \
                         ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\","   \
                         "\"type_id\":0}},"                                                                                      \
                         "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},"                                                        \
                         "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<" \
                         "s>\":1,\"</s>\":2,"                                                                                    \
                         "\"<0x63>\":3,\"\\u2581ab\":4,\"ab\":5,\"\\u2581\":6,\"a\":7,\"b\":8},"                                 \
                         "\"merges\":[\"a b\",\"\\u2581 ab\"]}}"

static void sentencepiece(void **state) {
    (void)state;
    write_json(
        PIECES("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},{\"type\":\"Replace\","
               "\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]}",
               "null"));
    dm_tokenizer *tokenizer = read_folder(9);
    assert_int_equal(tokenizer->kind, DM_TOKENIZER_PIECES);
    assert_true(tokenizer->space_prefix);
    expect_ids(tokenizer, "ab abc", DM_ENCODE_BOS, (const int32_t[]){1, 4, 4, 3}, 4);
    dm_tokenizer_close(tokenizer);
    write_json(
        PIECES("null", "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"never\",\"split\":false}"));
    tokenizer = read_folder(9);
    assert_false(tokenizer->space_prefix);
    expect_ids(tokenizer, "ab abc", 0, (const int32_t[]){5, 4, 3}, 3);
    dm_tokenizer_close(tokenizer);
}

static void settings_beside(void **state) {
    (void)state;
    write_json(BPE(ADDED(2, "<x>", true), BYTES, "\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]"));
    const char *map = "{\"pad_token\":\"<x>\",\"unk_token\":{\"content\":\"nothing\"}}";
    const char *template = "{% for m in messages %}<x>{% endfor %}";
    test_write(test_path("special_tokens_map.json"), map, strlen(map));
    test_write(test_path("chat_template.jinja"), template, strlen(template));
    const char *generation = "{\"eos_token_id\":[1,2,0]}";
    test_write(test_path("generation_config.json"), generation, strlen(generation));
    json_t *config = json_pack("{s:[i,i], s:i}", "eos_token_id", 0, 1, "bos_token_id", 77);
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_hf_tokenizer_read(folder(), config, 3, &tokenizer), DM_OK);
    assert_int_equal(tokenizer->padding, 2);
    assert_int_equal(tokenizer->eos, 1);
    assert_int_equal(tokenizer->bos, -1);
    assert_int_equal(tokenizer->eot, 2);
    assert_true(dm_tokenizer_is_end(tokenizer, 2));
    assert_string_equal(tokenizer->chat_template, template);
    dm_tokenizer_close(tokenizer);
    json_decref(config);
    clean();
    assert_int_equal(dm_hf_tokenizer_read(folder(), NULL, 3, &tokenizer), DM_OK);
    assert_null(tokenizer);
    test_write(test_path("tokenizer.model"), "x", 1);
    assert_int_equal(dm_hf_tokenizer_read(folder(), NULL, 3, &tokenizer), DM_ERR_UNSUPPORTED);
    assert_non_null(strstr(dm_error_message(), "tokenizer.model but no tokenizer.json"));
    unlink(test_path("tokenizer.model"));
}

/* ---- What is refused ---- */

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {BPE("", BYTES, "\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "is number 0, and so is another one"},
        {BPE("", BYTES, "\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), "duplicate"},
        {BPE("", BYTES, "\"vocab\":{\"a\":4000000000},\"merges\":[]"), "expected 0 to 8"},
        {BPE("", BYTES, "\"vocab\":{\"a\":-1},\"merges\":[]"), "expected 0 to 8"},
        {BPE("", BYTES, "\"vocab\":{\"a\":1.5},\"merges\":[]"), "no whole number"},
        {BPE("", BYTES, "\"vocab\":{\"a\":99999999999999999999},\"merges\":[]"), "no whole number"},
        {BPE("", BYTES, "\"vocab\":[\"a\"],\"merges\":[]"), "has no 'vocab'"},
        {BPE(ADDED(1, "a", true), BYTES, "\"vocab\":{\"a\":0},\"merges\":[]"), "is number 0 and 1"},
        {BPE("{\"id\":1}", BYTES, "\"vocab\":{\"a\":0},\"merges\":[]"), "added token 0 has no 'content'"},
        {BPE("", BYTES, "\"vocab\":{\"a\":0},\"merges\":[\"a b\"]"), "right part that is not in the vocabulary"},
        {BPE("", BYTES, "\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]"), "join to no token"},
        {BPE("", BYTES, "\"vocab\":{\"a\":0},\"merges\":[7]"), "merge 0 is no pair"},
        {BPE("", BYTES, "\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"), "merge 0 is no pair"},
        {BPE("", "{\"type\":\"Whitespace\"}", "\"vocab\":{\"a\":0},\"merges\":[]"),
         "a rule that is not known: {\"type\":\"Whitespace\"}"},
        {"{\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":" BYTES ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
         "normalizer 'Lowercase'"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "'Unigram', expected BPE"},
        {"{\"model\":{\"type\":\"WordPiece\"}}", "'WordPiece', expected BPE"},
        {"{}", "expected BPE"},
        {"{\"model\":\"\\ud800\"}", "no JSON"},
        {"\xff", "no JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_json(cases[i].text);
        dm_tokenizer *tokenizer;
        dm_status status = dm_hf_tokenizer_read(folder(), NULL, 9, &tokenizer);
        if (status == DM_OK || strstr(dm_error_message(), cases[i].word) == NULL) {
            fail_msg("case %zu: expected '%s' in: %s", i, cases[i].word, dm_error_message());
        }
    }
}

static void added_beyond_the_model(void **state) {
    (void)state;
    write_json(BPE(ADDED(500, "<late>", true), BYTES, "\"vocab\":{\"a\":0},\"merges\":[]"));
    dm_tokenizer *tokenizer = read_folder(2);
    assert_int_equal(dm_tokenizer_vocab(tokenizer), 2);
    dm_tokenizer_close(tokenizer);
}

static int clean_up(void **state) {
    (void)state;
    clean();
    test_remove((const char *const[]){NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vocabularies),     cmocka_unit_test(rules),    cmocka_unit_test(both_forms_of_merges),
        cmocka_unit_test(sentencepiece),          cmocka_unit_test(refusals), cmocka_unit_test(settings_beside),
        cmocka_unit_test(added_beyond_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
