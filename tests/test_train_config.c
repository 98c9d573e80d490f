/* What a training run can be told: parsing, files, consistency. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "training/train_config.h"

static char path[64];

static int make_file(void **state) {
    (void)state;
    strcpy(path, "/tmp/test_train_config.XXXXXX");
    int descriptor = mkstemp(path);
    return descriptor >= 0 ? close(descriptor) : -1;
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

static void fill_file(const char *text, size_t length) {
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_int_equal(fwrite(text, 1, length, stream), length);
    assert_int_equal(fclose(stream), 0);
}

static char *written(const dm_train_config *config) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    assert_int_equal(dm_train_config_write(config, stream), DM_OK);
    assert_int_equal(fclose(stream), 0);
    return text;
}

static dm_train_config *create(void) {
    dm_train_config *config = dm_train_config_create();
    assert_non_null(config);
    return config;
}

static void set(dm_train_config *config, const char *name, const char *value) {
    if (dm_train_config_set(config, name, value) != DM_OK) {
        fail_msg("%s = %s: %s", name, value, dm_error_message());
    }
}

static void refused(const char *name, const char *value, const char *word) {
    dm_train_config *config = create();
    char *before = written(config);
    assert_int_equal(dm_train_config_set(config, name, value), DM_ERR_ARGUMENT);
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("%s = %s: expected '%s' in '%s'", name, value, word, dm_error_message());
    }
    char *after = written(config);
    assert_string_equal(before, after);
    free(before);
    free(after);
    dm_train_config_free(config);
}

static void test_defaults_are_described_and_pass(void **state) {
    (void)state;
    dm_train_config *config = create();
    const char *name, *help, *fallback;
    size_t n = 0;
    for (; dm_train_config_describe(n, &name, &help, &fallback); n++) {
        assert_true(strlen(help) > 0);
        if (strcmp(name, "data") != 0 && strcmp(name, "valid") != 0) {
            set(config, name, fallback);
        }
    }
    assert_true(n > 40);
    assert_string_equal(config->arch, "qwen3moe");
    assert_int_equal(config->tokens, 1000000);
    assert_true(config->tied_output);
    assert_string_equal(config->sample_prompt, "");
    assert_null(config->tokenizer);
    set(config, "data", "text");
    set(config, "out", "run");
    assert_int_equal(dm_train_config_check(config), DM_OK);
    dm_config shape;
    dm_train_config_shape(config, 8192, &shape);
    assert_int_equal(shape.head_dim, 64);
    assert_int_equal(shape.n_kv_heads, 2);
    dm_train_config_free(config);
}

static void test_values(void **state) {
    (void)state;
    dm_train_config *config = create();
    static const struct {
        const char *text;
        int64_t value;
    } counts[] = {{"15M", 15000000}, {"64k", 64000}, {"1.5K", 1500},  {"2G", 2000000000},
                  {"1.1k", 1100},    {"7", 7},       {"0.3M", 300000}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        set(config, "tokens", counts[i].text);
        assert_int_equal(config->tokens, counts[i].value);
    }
    set(config, "lr", "3e-4");
    assert_true(config->lr == 3e-4);
    set(config, "seed", "18446744073709551615");
    assert_true(config->seed == UINT64_MAX);
    static const char *const yes[] = {"yes", "true", "1"}, *const no[] = {"no", "false", "0"};
    for (int i = 0; i < 3; i++) {
        set(config, "tied-output", no[i]);
        assert_false(config->tied_output);
        set(config, "tied-output", yes[i]);
        assert_true(config->tied_output);
    }
    set(config, "export-type", "bf16");
    assert_int_equal(config->export_type, DM_TYPE_BF16);
    set(config, "balance", "switch");
    assert_int_equal(config->balance, DM_BALANCE_SWITCH);
    set(config, "precision", "bf16");
    assert_int_equal(config->precision, DM_PRECISION_BF16);
    set(config, "data", "a");
    set(config, "data", "b c");
    assert_int_equal(config->data.count, 2);
    assert_string_equal(config->data.items[1], "b c");
    dm_train_config_free(config);
}

static void test_bad_values_are_refused(void **state) {
    (void)state;
    static const char *const counts[] = {"",   "x",     "12x",  "1.5", "1.0001k", "k",   "1kk", "1e3",
                                         "-1", "1 000", "0x10", " 5",  "5 ",      "nan", "inf", "99999999999999999999"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        refused("tokens", counts[i], "tokens");
    }
    static const char *const numbers[] = {"", "nan", "inf", "-inf", "1e999", "1,5", "0.1x", "-0.1", "11", "0x1p-3", " 0.1"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        refused("lr", numbers[i], "lr");
    }
    static const char *const seeds[] = {"", "-1", "1.0", "18446744073709551616", "1k", " 1", "+1"};
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        refused("seed", seeds[i], "seed");
    }
    refused("tied-output", "maybe", "tied-output");
    refused("balance", "nash", "none, switch, loss-free");
    refused("precision", "F32", "f32, bf16");
    refused("arch", "bert", "qwen3moe, gpt2");
    refused("export-type", "", "export-type");
    refused("vocab", "256", "257");
    refused("data", "", "data");
}

static void test_unknown_names_suggest(void **state) {
    (void)state;
    refused("top_k", "4", "did you mean 'top-k'");
    refused("layer", "4", "did you mean 'layers'");
    refused("wieght-decay", "4", "did you mean 'weight-decay'");
    refused("banana-republic", "4", "no option 'banana-republic'");
    refused("", "4", "no option ''");
    refused("a-name-much-longer-than-any-option-there-will-ever-be", "4", "no option");
}

static void assert_round_trip(const dm_train_config *config) {
    char *text = written(config);
    fill_file(text, strlen(text));
    dm_train_config *back = create();
    if (dm_train_config_load(back, path) != DM_OK) {
        fail_msg("%s\n%s", dm_error_message(), text);
    }
    char *again = written(back);
    assert_string_equal(text, again);
    assert_int_equal(back->data.count, config->data.count);
    for (size_t i = 0; i < config->data.count; i++) {
        assert_string_equal(back->data.items[i], config->data.items[i]);
    }
    assert_string_equal(back->sample_prompt, config->sample_prompt);
    assert_memory_equal(&back->lr, &config->lr, sizeof back->lr);
    assert_memory_equal(&back->rope_base, &config->rope_base, sizeof back->rope_base);
    assert_true(back->seed == config->seed);
    free(text);
    free(again);
    dm_train_config_free(back);
}

static void test_round_trip(void **state) {
    (void)state;
    dm_train_config *config = create();
    assert_round_trip(config);
    set(config, "data", "folder with spaces");
    set(config, "data", "C#/a \"quoted\" \\ name");
    set(config, "data", " leading\ttab ");
    set(config, "valid", "held\nout\r");
    set(config, "sample-prompt", "Once upon a time,\n# \"G\xc3\xbcn ayd\xc4\xb1n\" \\n ");
    set(config, "out", "run");
    set(config, "lr", "0.0012345678901234567");
    set(config, "rope-base", "1e6");
    set(config, "eps", "1.7e-9");
    set(config, "seed", "18446744073709551615");
    set(config, "tokens", "1.234567G");
    set(config, "balance", "none");
    set(config, "tied-output", "no");
    assert_round_trip(config);
    dm_train_config_free(config);
}

static void test_routing(void **state) {
    (void)state;
    dm_train_config *config = create();
    dm_config shape;
    dm_train_routing_rules rules;
    dm_train_config_shape(config, 8192, &shape);
    assert_int_equal(dm_train_config_routing(config, &shape, &rules), DM_OK);
    assert_false(rules.plays);
    assert_true(rules.weights.switch_loss == 0.01 && rules.weights.nash_loss == 0.0);
    set(config, "router", "nash");
    set(config, "balance", "none");
    assert_int_equal(dm_train_config_routing(config, &shape, &rules), DM_OK);
    assert_true(rules.plays && rules.weights.switch_loss == 0.0);
    assert_int_equal(rules.game.flock, 8);
    assert_int_equal(rules.game.min_experts, 4);
    assert_int_equal(rules.cache_slots, 16);
    set(config, "theta", "0.1");
    assert_int_equal(dm_train_config_routing(config, &shape, &rules), DM_OK);
    assert_int_equal(rules.game.min_experts, 1);
    shape.n_experts = 0;
    assert_int_equal(dm_train_config_routing(config, &shape, &rules), DM_ERR_ARGUMENT);
    dm_train_config_free(config);
}

static void test_file(void **state) {
    (void)state;
    static const char text[] = "\xef\xbb\xbf# a run\r\n"
                               "\n"
                               "  data = some folder # not this\n"
                               "data=\"other # folder\"  # nor this\n"
                               "lr = 1e-3\r\n"
                               "sample-prompt = \"a\\\"b\\n\"\n"
                               "tokenizer =\n"
                               "tokens\t=\t2M";
    fill_file(text, sizeof text - 1);
    dm_train_config *config = create();
    if (dm_train_config_load(config, path) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(config->data.count, 2);
    assert_string_equal(config->data.items[0], "some folder");
    assert_string_equal(config->data.items[1], "other # folder");
    assert_true(config->lr == 1e-3);
    assert_string_equal(config->sample_prompt, "a\"b\n");
    assert_int_equal(config->tokens, 2000000);
    assert_null(config->tokenizer);
    dm_train_config_free(config);
}

static void test_bad_files_name_the_line(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"lr = 1\nlayers\n", "line 2: expected `name = value`"},
        {"\n\nlyers = 3\n", "line 3: there is no option 'lyers'; did you mean 'layers'?"},
        {"data = \"open\n", "line 1: data: no closing quote"},
        {"data = \"bad \\x escape\"\n", "line 1: data: no closing quote, or a backslash"},
        {"data = \"ends in \\", "line 1: data: no closing quote"},
        {"data = \"a\" b\n", "line 1: data: unexpected text"},
        {"lr = fast # x\n", "line 1: lr: 'fast'"},
        {"= 3\n", "line 1: there is no option ''"},
        {"name # = 3\n", "line 1: expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fill_file(bad[i].text, strlen(bad[i].text));
        dm_train_config *config = create();
        assert_int_not_equal(dm_train_config_load(config, path), DM_OK);
        if (strstr(dm_error_message(), bad[i].word) == NULL || strncmp(dm_error_message(), path, strlen(path)) != 0) {
            fail_msg("expected '%s' in '%s'", bad[i].word, dm_error_message());
        }
        dm_train_config_free(config);
    }
    fill_file("lr = \0001\n", 9);
    dm_train_config *config = create();
    assert_int_equal(dm_train_config_load(config, path), DM_ERR_FORMAT);
    assert_int_equal(dm_train_config_load(config, "/nonexistent/file"), DM_ERR_IO);
    assert_int_equal(dm_train_config_load(config, "/tmp"), DM_ERR_IO);
    dm_train_config_free(config);
}

/* Settings "name=value ..." that must be refused in a message starting with `option`, or accepted where it is NULL. */
static void assert_check(const char *settings, const char *option) {
    dm_train_config *config = create();
    char text[256];
    snprintf(text, sizeof text, "%s", settings);
    for (char *save, *part = strtok_r(text, " ", &save); part != NULL; part = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(part, '=');
        *equals = '\0';
        set(config, part, equals + 1);
    }
    dm_status status = dm_train_config_check(config);
    if (option == NULL && status != DM_OK) {
        fail_msg("%s: %s", settings, dm_error_message());
    }
    if (option != NULL && (status != DM_ERR_ARGUMENT || strncmp(dm_error_message(), option, strlen(option)) != 0)) {
        fail_msg("%s: expected a complaint about %s, found '%s'", settings, option, status == DM_OK ? "" : dm_error_message());
    }
    dm_train_config_free(config);
}

static void test_consistency(void **state) {
    (void)state;
    assert_check("out=r", "data:");
    assert_check("data=d", "out:");
    assert_check("data=d out=r kv-heads=3", "kv-heads:");
    assert_check("data=d out=r kv-heads=0 heads=3 dim=192", NULL);
    assert_check("data=d out=r heads=3 kv-heads=1", "heads:");
    assert_check("data=d out=r heads=3 kv-heads=1 head-dim=48", NULL);
    assert_check("data=d out=r head-dim=33", "head-dim:");
    assert_check("data=d out=r heads=1024 kv-heads=1", "heads:");
    assert_check("data=d out=r top-k=33", "top-k:");
    assert_check("data=d out=r ffn-dim=512", "ffn-dim:");
    assert_check("data=d out=r micro-batch=17", "micro-batch:");
    assert_check("data=d out=r batch=1048576 context=4096", "batch:");
    assert_check("data=d out=r arch=gpt2", NULL);
    assert_check("data=d out=r arch=gpt2 ffn-dim=512 heads=8 kv-heads=8", NULL);
    assert_check("data=d out=r arch=gpt2 head-dim=32", "head-dim:");
    assert_check("data=d out=r arch=gpt2 experts=64", "experts:");
    assert_check("data=d out=r arch=gpt2 kv-heads=1", "kv-heads:");
    assert_check("data=d out=r arch=gpt2 heads=5", "heads:");
    assert_check("data=d out=r model=m.gguf", NULL);
    assert_check("data=d out=r model=m.gguf context=128", NULL);
    assert_check("data=d out=r model=m.gguf layers=3", "layers:");
    assert_check("data=d out=r router=nash", NULL);
    assert_check("data=d out=r router=nash balance=loss-free flock=32 gamma=0.1 keep-top=4 sweeps=0", NULL);
    assert_check("data=d out=r router=nash theta=0.1 keep-top=1", NULL);
    assert_check("data=d out=r router=nash theta=0.1 keep-top=2", "keep-top:");
    assert_check("data=d out=r router=nash theta=0.1 min-experts=5", "min-experts:");
    assert_check("data=d out=r router=nash min-experts=2", "min-experts:");
    assert_check("data=d out=r router=nash flock=3", "flock:");
    assert_check("data=d out=r router=nash flock=33", "flock:");
    assert_check("data=d out=r router=nash experts=4 top-k=2", NULL);
    assert_check("data=d out=r price-rate=0.5", "price-rate:");
    assert_check("data=d out=r theta=0.5", "theta:");
    assert_check("data=d out=r flock=9", "flock:");
    assert_check("data=d out=r nash-loss=0.02 flock=9 beta=3", NULL);
    assert_check("data=d out=r cache-slots=9", "cache-slots:");
    assert_check("data=d out=r cache-reward=0.05 cache-slots=9 swarm-reward=0.03 balance-loss=0.1", NULL);
    assert_check("data=d out=r cache-reward=0.05 cache-slots=33", "cache-slots:");
    assert_check("data=d out=r arch=gpt2 router=nash", "router:");
    assert_check("data=d out=r arch=gpt2 swarm-reward=1", "swarm-reward:");
}

/* A decimal comma, as in Turkish or German locales, must not reach numbers. */
static void test_locale_does_not_matter(void **state) {
    (void)state;
    static const char *const names[] = {"tr_TR.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8"};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && found == NULL; i++) {
        found = setlocale(LC_ALL, names[i]);
    }
    if (found == NULL) {
        print_message("no locale with a decimal comma is installed\n");
        skip();
    }
    dm_train_config *config = create();
    set(config, "lr", "0.25");
    assert_true(config->lr == 0.25);
    assert_round_trip(config);
    dm_train_config_free(config);
    setlocale(LC_ALL, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_described_and_pass),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_bad_values_are_refused),
        cmocka_unit_test(test_unknown_names_suggest),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_bad_files_name_the_line),
        cmocka_unit_test(test_consistency),
        cmocka_unit_test(test_routing),
        cmocka_unit_test(test_locale_does_not_matter),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
