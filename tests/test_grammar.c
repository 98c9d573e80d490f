/* What may come next in JSON by a schema: texts that fit and texts that do not, schemas that are refused, and masks of tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer.h"
#include "server/masks.h"

static dm_status compile(const char *text, dm_grammar **grammar) {
    json_t *schema = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(schema);
    dm_status status = dm_grammar_schema(schema, grammar);
    json_decref(schema);
    return status;
}

/* Whether the whole text fits. */
static bool fits(const dm_grammar *grammar, const char *text) {
    dm_walk *walk;
    assert_int_equal(dm_walk_create(grammar, &walk), DM_OK);
    int32_t state = dm_walk_start(walk);
    for (; *text != '\0'; text++) {
        state = dm_walk_step(walk, state, (uint8_t)*text);
    }
    bool end = dm_walk_may_end(walk, state);
    assert_int_equal(dm_walk_status(walk), DM_OK);
    dm_walk_free(walk);
    return end;
}

typedef struct example {
    const char *schema, *good[8], *bad[12];
} example;

static void test_schemas(void **state) {
    (void)state;
    static const example examples[] = {
        {"{\"type\":\"integer\"}", {"0", "-7", "123"}, {"", "-", "01", "1.5", "+1", "1e3", " 1", "12345678901234567890"}},
        {"{\"type\":\"number\"}", {"0", "-0.5", "1e10", "12.25E-3"}, {".5", "1.", "1e", "NaN", "--1"}},
        {"{\"type\":[\"boolean\",\"null\"]}", {"true", "false", "null"}, {"tru", "truefalse", "0", "\"true\""}},
        {"{\"type\":\"string\"}",
         {"\"\"", "\"a\\\"b\"", "\"\\u00e9\\n\"", "\"\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80\"", "\"\\ud83d\\ude00\""},
         {"\"", "a", "\"\n\"", "\"\\x\"", "\"\\u12\"", "\"\xc3\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\\ud83d\"",
          "\"\xf5\x80\x80\x80\""}},
        {"{\"type\":\"string\",\"minLength\":1,\"maxLength\":3}",
         {"\"a\"", "\"\xc3\xa9\xc3\xa9\xc3\xa9\"", "\"\\n\\n\\n\""},
         {"\"\"", "\"abcd\""}},
        {"{\"type\":\"string\",\"maxLength\":0}", {"\"\""}, {"\"a\""}},
        {"{\"enum\":[\"red\",7,null,{\"a\":[1]}]}", {"\"red\"", "7", "null", "{\"a\":[1]}"}, {"\"re\"", "\"redd\"", "8", "{}"}},
        {"{\"type\":\"string\",\"enum\":[\"x\",1]}", {"\"x\""}, {"1"}},
        {"{\"const\":\"\xc3\xa9\"}", {"\"\xc3\xa9\""}, {"\"e\""}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
         {"[1]", "[1,2]", "[1, 2,3]", "[ 1 ]", "[\n  1,\n  2\n]"},
         {"[]", "[1,]", "[,1]", "[1,2,3,4]", "[1 2]", "[\"a\"]"}},
        {"{\"type\":\"array\",\"maxItems\":0}", {"[]", "[ ]"}, {"[1]"}},
        {"{\"type\":\"array\",\"minItems\":2}", {"[1,\"a\"]", "[[],{},null]"}, {"[]", "[1]"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"},\"c\":{\"type\":"
         "\"integer\"}},"
         "\"required\":[\"b\"],\"additionalProperties\":false}",
         {"{\"b\":1}", "{\"a\":1,\"b\":2}", "{\"b\":1, \"c\":2}", "{\"a\": 1,\"b\":2,\"c\":3}"},
         {"{}", "{\"a\":1}", "{\"b\":1,\"a\":2}", "{\"b\":1,\"d\":2}", "{\"b\":1,}", "{,\"b\":1}", "{\"b\":\"x\"}",
          "{\"b\":1,\"b\":1}"}},
        {"{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"null\"},\"ac\":{\"type\":\"null\"},\"\":{\"type\":\"null\"}},"
         "\"additionalProperties\":{\"type\":\"integer\"}}",
         {"{}", "{\"ab\":null,\"z\":1}", "{\"a\":1,\"abc\":2,\"b\":3}", "{\"acx\":1}", "{\"\":null}"},
         {"{\"ab\":1}", "{\"z\":null}", "{\"\":1}", "{\"z\":1,\"ab\":1}", "{\"ac\":7}", "{\"a\\u0062\":1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"boolean\"}}", {"{}", "{\"x\":true}"}, {"{\"x\":1}"}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}]}",
         {"1", "[1]"},
         {"\"1\"", "[[1]]"}},
        {"{\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"kids\":{\"type\":\"array\","
         "\"items\":"
         "{\"$ref\":\"#/$defs/tree\"}}},\"required\":[\"v\"]}},\"$ref\":\"#/$defs/tree\"}",
         {"{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2,\"kids\":[]},{\"v\":3}]}"},
         {"{\"kids\":[]}", "{\"v\":1,\"kids\":[1]}"}},
        {"{\"definitions\":{\"a/b\":{\"type\":\"null\"}},\"$ref\":\"#/definitions/a~1b\"}", {"null"}, {"1"}},
        {"{\"description\":\"anything\"}", {"1", "\"a\"", "[{\"a\":[]}]", "null"}, {"", "x", "{a:1}"}},
        {"true", {"1", "{}"}, {"x"}},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        dm_grammar *grammar = NULL;
        if (compile(examples[i].schema, &grammar) != DM_OK) {
            fail_msg("%s: %s", examples[i].schema, dm_error_message());
        }
        for (const char *const *good = examples[i].good; *good != NULL; good++) {
            if (!fits(grammar, *good)) {
                fail_msg("%s refuses %s", examples[i].schema, *good);
            }
        }
        for (const char *const *bad = examples[i].bad; *bad != NULL; bad++) {
            if (fits(grammar, *bad)) {
                fail_msg("%s takes %s", examples[i].schema, *bad);
            }
        }
        dm_grammar_free(grammar);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *schema, *word;
    } wrong[] = {
        {"{\"type\":\"string\",\"pattern\":\"a+\"}", "'pattern'"},
        {"{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\",\"minimum\":1}}}", "#/properties/x"},
        {"{\"type\":\"thing\"}", "'type'"},
        {"{\"type\":7}", "'type'"},
        {"7", "an object"},
        {"{\"oneOf\":[]}", "'oneOf'"},
        {"{\"anyOf\":[]}", "'anyOf'"},
        {"{\"anyOf\":[{\"type\":\"null\"}],\"properties\":{}}", "beside"},
        {"{\"enum\":[]}", "'enum'"},
        {"{\"type\":\"null\",\"const\":1}", "'const'"},
        {"{\"$ref\":\"#/nowhere\"}", "'$ref'"},
        {"{\"$ref\":\"http://example.org/x\"}", "'$ref'"},
        {"{\"$ref\":\"#\"}", "refers to itself"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#\"}]}", "refers to itself"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "minimum"},
        {"{\"type\":\"array\",\"minItems\":-1}", "'minItems'"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"enum\":[\"a long "
         "value\"]},\"minItems\":10000},\"minItems\":1.5}",
         "'minItems'"},
        {"{\"type\":\"object\",\"properties\":[]}", "'properties'"},
        {"{\"type\":\"object\",\"required\":[\"x\"]}", "'required'"},
        {"{\"items\":{\"type\":\"object\",\"properties\":{\"a\":7}}}", "#/items/properties/a"},
        {"{\"$defs\":{\"x\":{\"type\":\"null\"}},\"properties\":{\"b\":{\"not\":{}},\"a\":{\"$ref\":\"#/$defs/x\"}}}",
         "#/properties/b"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dm_grammar *grammar = NULL;
        if (compile(wrong[i].schema, &grammar) != DM_ERR_UNSUPPORTED) {
            fail_msg("%s is not refused", wrong[i].schema);
        }
        assert_null(grammar);
        if (strstr(dm_error_message(), wrong[i].word) == NULL) {
            fail_msg("%s: expected '%s' in: %s", wrong[i].schema, wrong[i].word, dm_error_message());
        }
    }
}

/* A schema whose grammar would not fit is refused, and soon. */
static void test_large(void **state) {
    (void)state;
    dm_grammar *grammar = NULL;
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    fprintf(out, "{\"anyOf\":[");
    for (int i = 0; i < 20; i++) {
        fprintf(out, "%s{\"type\":\"string\",\"maxLength\":%d}", i > 0 ? "," : "", 10000 - i);
    }
    fprintf(out, "]}");
    fclose(out);
    assert_int_equal(compile(text, &grammar), DM_ERR_UNSUPPORTED);
    assert_non_null(strstr(dm_error_message(), "too large"));
    free(text);
}

/* So is one that is too deep, in itself or by references, or would make its grammar so. */
static void test_nested(void **state) {
    (void)state;
    enum { DEPTH = 1000 };
    for (int kind = 0; kind < 3; kind++) {
        dm_grammar *grammar = NULL;
        char *text = NULL;
        size_t length;
        FILE *out = open_memstream(&text, &length);
        fprintf(out, "%s", kind == 0 ? "" : kind == 1 ? "{\"$ref\":\"#/$defs/0\",\"$defs\":{" : "{\"properties\":{\"");
        for (int i = 0; i < DEPTH; i++) {
            if (kind == 1) {
                fprintf(out, "\"%d\":{\"items\":{\"$ref\":\"#/$defs/%d\"}},", i, i + 1);
            } else {
                fprintf(out, "%s", kind == 0 ? "{\"items\":" : "name");
            }
        }
        fprintf(out, "%s", kind == 0 ? "true" : kind == 1 ? "\"1000\":true}}" : "\":true},\"additionalProperties\":true}");
        for (int i = 0; kind == 0 && i < DEPTH; i++) {
            fputc('}', out);
        }
        fclose(out);
        assert_int_equal(compile(text, &grammar), DM_ERR_UNSUPPORTED);
        assert_non_null(strstr(dm_error_message(), kind == 2 ? "128 bytes" : "64 deep"));
        free(text);
    }
}

/* Deeper and deeper: in the end the walk says that it is lost, and never reads where it should not. */
static void test_deep(void **state) {
    (void)state;
    dm_grammar *grammar;
    dm_walk *walk;
    assert_int_equal(dm_grammar_json(&grammar), DM_OK);
    assert_int_equal(dm_walk_create(grammar, &walk), DM_OK);
    int32_t at = dm_walk_start(walk);
    static const char step[] = "{\"a\":";
    for (int i = 0; i < 200000 && at != DM_WALK_DEAD; i++) {
        at = dm_walk_step(walk, at, (uint8_t)step[i % 5]);
    }
    assert_int_equal(at, DM_WALK_DEAD);
    assert_int_equal(dm_walk_status(walk), DM_ERR_MEMORY);
    dm_walk_free(walk);
    dm_grammar_free(grammar);
}

/* Each token of a vocabulary of bytes and two longer ones is allowed exactly where its bytes are. */
static void test_masks(void **state) {
    (void)state;
    enum { VOCAB = 300 };
    dm_tokenizer *tokenizer;
    dm_vocabulary_order order;
    dm_grammar *grammar = NULL;
    dm_masks *masks;
    float logits[VOCAB];
    assert_int_equal(dm_tokenizer_bytes_padded(VOCAB, &tokenizer), DM_OK);
    assert_int_equal(dm_vocabulary_order_init(tokenizer, VOCAB, &order), DM_OK);
    assert_int_equal(compile("{\"type\":\"integer\"}", &grammar), DM_OK);
    assert_int_equal(dm_masks_create(grammar, &order, NULL, &masks), DM_OK);
    static const char *const allowed[] = {"-0123456789", "0123456789", ""};
    static const char made[] = "-0";
    for (size_t i = 0; i < 3; i++) {
        for (int id = 0; id < VOCAB; id++) {
            logits[id] = 1.0f;
        }
        assert_int_equal(dm_masks_apply(masks, logits), DM_OK);
        for (int id = 0; id < VOCAB; id++) {
            bool may = id < 256 ? id != 0 && strchr(allowed[i], id) != NULL : dm_tokenizer_is_end(tokenizer, id) && i == 2;
            assert_int_equal(isfinite(logits[id]), may);
        }
        if (i < 2) {
            assert_int_equal(dm_masks_take(masks, made[i]), DM_OK);
        }
    }
    assert_true(dm_masks_complete(masks));
    dm_masks_free(masks);
    dm_grammar_free(grammar);
    dm_vocabulary_order_free(&order);
    dm_tokenizer_close(tokenizer);
}

/* A text whose every character is a state of its own, and deep inside others: what came long ago is forgotten, not what is to
 * come. */
static void test_long(void **state) {
    (void)state;
    enum { VOCAB = 300, LENGTH = DM_SLOW ? 2500 : 9000, DEPTH = 300 };
    dm_tokenizer *tokenizer;
    dm_vocabulary_order order;
    dm_grammar *grammar = NULL;
    dm_masks *masks;
    float logits[VOCAB];
    char text[LENGTH + 2 * DEPTH + 20];
    size_t n = 0;
    for (int i = 0; i < DEPTH; i++) {
        text[n++] = '[';
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "{\"x\":\"");
    for (int i = 0; i < LENGTH; i++) {
        text[n++] = 'a';
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "\"}");
    for (int i = 0; i < DEPTH; i++) {
        text[n++] = ']';
    }
    assert_int_equal(dm_tokenizer_bytes_padded(VOCAB, &tokenizer), DM_OK);
    assert_int_equal(dm_vocabulary_order_init(tokenizer, VOCAB, &order), DM_OK);
    assert_int_equal(
        compile("{\"$defs\":{\"a\":{\"anyOf\":[{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/a\"}},{\"type\":\"object\","
                "\"properties\":{\"x\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":9000}}}]}},\"$ref\":\"#/$defs/a\"}",
                &grammar),
        DM_OK);
    assert_int_equal(dm_masks_create(grammar, &order, NULL, &masks), DM_OK);
    for (size_t i = 0; i < n; i++) {
        memset(logits, 0, sizeof logits);
        if (dm_masks_apply(masks, logits) != DM_OK) {
            fail_msg("after %zu bytes: %s", i, dm_error_message());
        }
        assert_true(isfinite(logits[(uint8_t)text[i]]) && !dm_masks_complete(masks));
        assert_int_equal(dm_masks_take(masks, (uint8_t)text[i]), DM_OK);
    }
    assert_true(dm_masks_complete(masks));
    dm_masks_free(masks);
    dm_grammar_free(grammar);
    dm_vocabulary_order_free(&order);
    dm_tokenizer_close(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemas), cmocka_unit_test(test_refused), cmocka_unit_test(test_large),
        cmocka_unit_test(test_nested),  cmocka_unit_test(test_deep),    cmocka_unit_test(test_masks),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
