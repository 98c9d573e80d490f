/* Models of mixed-width panels: they compute what their widened weights say, lose less with more bits, stream, are laid out in
 * other ways, become folders; damaged ones are refused or harmless. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/weight.h"
#include "model/mixed_tensor.h"
#include "model/model.h"
#include "test_files.h"

enum { TOKENS = DM_SLOW ? 8 : 24 };

static const int widths[] = {2, 3, 4, 5, 6, 8};

typedef struct shape {
    const char *architecture;
    int32_t dim, ffn, experts, expert_dim;
    bool tied;
} shape;

/* Experts of 24 have a matrix that stays as it is. */
static const shape shapes[] = {{"qwen3moe", 64, 0, 8, 32, false},
                               {"llama", 64, 160, 0, 0, true},
                               {"qwen3moe", 32, 0, 4, 24, false},
                               {"gpt2", 96, 96, 0, 0, true}};

static void make(const shape *of, const char *path) {
    dm_model_info info = {.layers = 2, .dim = of->dim, .heads = 4, .kv_heads = 2, .head_dim = 16, .context = 64, .top_k = 2};
    info.experts = of->experts;
    info.expert_dim = of->expert_dim;
    info.ffn_dim = of->ffn;
    info.top_k = of->experts > 0 ? 2 : 0;
    if (strcmp(of->architecture, "gpt2") == 0) {
        info.kv_heads = info.head_dim = 0;
    }
    snprintf(info.architecture, sizeof info.architecture, "%s", of->architecture);
    if (dm_model_create(path, &info, NULL, of->tied, "f32", 7, NULL) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
}

static void convert(const char *from, const char *to, const char *type, const char *layout) {
    const dm_convert_options options = {.type = type, .layout = layout};
    if (dm_convert(from, to, &options, NULL, NULL, NULL) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
}

static void mix(const char *from, const char *to, int bits) {
    char type[16];
    snprintf(type, sizeof type, "mixed:%d", bits);
    convert(from, to, type, NULL);
}

static dm_model *open_model(const char *path) {
    dm_model *model;
    if (dm_model_open(path, &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return model;
}

/* [TOKENS, vocab], fed `step` at a time; free() it. */
static float *logits_of(const dm_model *model, int32_t step) {
    const size_t vocab = (size_t)model->config.vocab;
    float *logits = malloc(TOKENS * vocab * sizeof *logits);
    int32_t ids[TOKENS];
    dm_session *session;
    for (int32_t t = 0; t < TOKENS; t++) {
        ids[t] = (t * 37 + 11) % model->config.vocab;
    }
    assert_int_equal(dm_session_create(model, TOKENS, &session), DM_OK);
    for (int32_t t = 0; t < TOKENS; t += step) {
        assert_int_equal(
            dm_session_feed(session, ids + t, TOKENS - t < step ? TOKENS - t : step, true, logits + (size_t)t * vocab), DM_OK);
    }
    dm_session_free(session);
    return logits;
}

static double log_sum(const float *logits, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)logits[i]);
    }
    return log(sum);
}

/* Mean KL(p || q), nats. */
static double divergence(const float *p, const float *q, size_t vocab) {
    double kl = 0.0;
    for (size_t t = 0; t < TOKENS; t++, p += vocab, q += vocab) {
        const double a = log_sum(p, vocab), b = log_sum(q, vocab);
        for (size_t i = 0; i < vocab; i++) {
            kl += exp((double)p[i] - a) * (((double)p[i] - a) - ((double)q[i] - b)) / TOKENS;
        }
    }
    return kl;
}

/* The logits of a float32 model of what the model's weights say. */
static float *widened_logits(const dm_model *model) {
    dm_tensor_spec *specs;
    size_t count;
    assert_int_equal(dm_config_tensors(&model->config, &specs, &count), DM_OK);
    float **weights = calloc(count, sizeof(float *));
    for (size_t i = 0; i < count; i++) {
        const dm_tensor_spec *s = &specs[i];
        const dm_tensor *tensor = s->layer < 0 ? &model->tensors[s->role] : &model->layers[s->layer].tensors[s->role];
        weights[i] = malloc(s->elements * sizeof(float));
        for (size_t m = 0; m < s->dims[2]; m++) {
            const dm_weight w = dm_tensor_matrix(tensor, m);
            dm_weight_widen(weights[i] + m * w.rows * w.columns, &w);
        }
    }
    dm_model *wide;
    assert_int_equal(dm_model_from_memory(&model->config, (const float *const *)weights, NULL, &wide), DM_OK);
    float *logits = logits_of(wide, 1);
    dm_model_close(wide);
    for (size_t i = 0; i < count; i++) {
        free(weights[i]);
    }
    free(weights);
    free(specs);
    return logits;
}

/* Divergence from the original, after looking at what the mixed model computes. */
static double check_width(const char *from, int bits, const float *original, double most) {
    char path[256];
    snprintf(path, sizeof path, "%s", test_path("mixed.gguf"));
    mix(from, path, bits);
    dm_model *model = open_model(path);
    const size_t vocab = (size_t)model->config.vocab;
    assert_int_equal(model->tensors[DM_TOKEN_EMBD].type, DM_TYPE_MIXED);
    float *one = logits_of(model, 1), *all = logits_of(model, TOKENS), *wide = widened_logits(model);
    const double rounding = divergence(wide, one, vocab), together = divergence(one, all, vocab);
    const double lost = divergence(original, one, vocab);
    assert_true(rounding < most && together < most);
    free(one);
    free(all);
    free(wide);
    dm_model_close(model);
    unlink(path);
    return lost;
}

/* `most` is what activations of 8 bits may cost; every `step`th width is tried. */
static void check_model(const char *from, double most, size_t step) {
    dm_model *model = open_model(from);
    float *original = logits_of(model, 1);
    dm_model_close(model);
    double before = INFINITY;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i += step) {
        const double lost = check_width(from, widths[i], original, most);
        assert_true(lost < 0.7 * before);
        assert_true(widths[i] != 8 || lost < most);
        before = lost;
    }
    free(original);
}

static void test_random_models(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i += DM_SLOW ? 2 : 1) {
        char path[256];
        snprintf(path, sizeof path, "%s", test_path("plain.gguf"));
        make(&shapes[i], path);
        check_model(path, 1e-5, i > 0 || DM_SLOW ? 5 : 1);
        unlink(path);
    }
}

/* The reference models, where they are. */
static void test_reference_models(void **state) {
    (void)state;
    static const char *const names[] = {"gpt2", "llama", "mixtral", "olmoe", "qwen2moe", "qwen3moe"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i += DM_SLOW ? 5 : 1) {
        char path[512];
        snprintf(path, sizeof path, "%s/models/%s-tiny.gguf", DM_SHARED_DIR, names[i]);
        if (access(path, R_OK) != 0) {
            skip();
        }
        check_model(path, 5e-3, i == 5 && !DM_SLOW ? 1 : 5); /* another expert, where two are nearly as good, included */
    }
}

/* ---- Other layouts, and memory for some ---- */

static void same_logits(const float *want, const dm_model *model) {
    float *got = logits_of(model, 1);
    assert_memory_equal(want, got, TOKENS * (size_t)model->config.vocab * sizeof *got);
    free(got);
}

static void test_layouts(void **state) {
    (void)state;
    char plain[256], mixed[256], streaming[256], standard[256];
    snprintf(plain, sizeof plain, "%s", test_path("plain.gguf"));
    snprintf(mixed, sizeof mixed, "%s", test_path("mixed.gguf"));
    snprintf(streaming, sizeof streaming, "%s", test_path("streaming.gguf"));
    snprintf(standard, sizeof standard, "%s", test_path("standard.gguf"));
    make(&shapes[0], plain);
    mix(plain, mixed, 3);
    convert(mixed, streaming, NULL, "streaming");
    convert(streaming, standard, NULL, "standard");
    dm_model *model = open_model(mixed);
    float *want = logits_of(model, 1);
    dm_model_close(model);
    const char *const others[] = {streaming, standard};
    for (int i = 0; i < 2; i++) {
        model = open_model(others[i]);
        same_logits(want, model);
        dm_model_close(model);
        model = open_model(others[i]);
        const dm_stream_options options = {.ram_share = 0.4};
        assert_int_equal(dm_model_stream(model, &options), DM_OK);
        same_logits(want, model);
        dm_stream_stats stats;
        assert_true(dm_model_stream_stats(model, &stats) && stats.slots < stats.experts && stats.read > 0);
        dm_model_close(model);
    }
    free(want);
    mix(streaming, mixed, 3); /* again, from mixed to mixed, in the layout that it has */
    model = open_model(mixed);
    assert_non_null(model->experts);
    dm_model_close(model);
    unlink(plain);
    unlink(mixed);
    unlink(streaming);
    unlink(standard);
}

/* ---- Damage ---- */

/* Opens; what opens also runs. */
static dm_status try_file(const uint8_t *bytes, size_t size) {
    char path[256];
    dm_model *model;
    snprintf(path, sizeof path, "%s", test_path("damaged.gguf"));
    test_write(path, bytes, size);
    dm_status status = dm_model_open(path, &model);
    if (status == DM_OK) {
        free(logits_of(model, TOKENS));
        dm_model_close(model);
    } else {
        assert_int_equal(strncmp(dm_error_message(), path, strlen(path)), 0);
        assert_null(strchr(dm_error_message(), '\n'));
    }
    unlink(path);
    return status;
}

static uint8_t *find(uint8_t *bytes, size_t size, const char *text) {
    uint8_t *at = memmem(bytes, size, text, strlen(text));
    assert_non_null(at);
    return at;
}

static void test_damage(void **state) {
    (void)state;
    enum { TRIES = DM_SLOW ? 20 : 100, HEAD = 600 };
    char plain[256], mixed[256];
    snprintf(plain, sizeof plain, "%s", test_path("plain.gguf"));
    snprintf(mixed, sizeof mixed, "%s", test_path("mixed.gguf"));
    make(&shapes[0], plain);
    mix(plain, mixed, 4);
    uint8_t *bytes;
    const size_t size = test_read(mixed, &bytes);
    uint8_t *damaged = malloc(size);
    assert_int_equal(try_file(bytes, size), DM_OK);

    uint8_t *key = find(bytes, size, DM_KEY_FORMAT);
    key[strlen(DM_KEY_FORMAT) - 1] = 'X';
    assert_int_equal(try_file(bytes, size), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), DM_KEY_FORMAT));
    key[strlen(DM_KEY_FORMAT) - 1] = 'n';
    key[strlen(DM_KEY_FORMAT) + 4] = 2;
    assert_int_equal(try_file(bytes, size), DM_ERR_UNSUPPORTED);
    key[strlen(DM_KEY_FORMAT) + 4] = 1;

    uint8_t *first = find(bytes, size, DM_MIXED_MAGIC);
    dm_random random;
    dm_random_seed(&random, 1);
    int refused = 0;
    for (int i = 0; i < TRIES; i++) { /* mostly the tables of the first matrix */
        memcpy(damaged, bytes, size);
        for (uint64_t n = 0; n < 1 + dm_random_next(&random) % 3; n++) {
            const size_t place =
                i % 4 != 0 ? (size_t)(first - bytes) + dm_random_next(&random) % HEAD : dm_random_next(&random) % size;
            damaged[place] ^= (uint8_t)(1u << dm_random_next(&random) % 8);
        }
        refused += try_file(damaged, size) != DM_OK;
    }
    assert_true(refused > TRIES / 8 && refused < TRIES);
    free(damaged);
    free(bytes);
    unlink(plain);
    unlink(mixed);
}

static void test_types(void **state) {
    (void)state;
    static const char *const wrong[] = {"mixed:", "mixed:7", "mixed:44", "mixed:x", "mixed:0"};
    char plain[256];
    snprintf(plain, sizeof plain, "%s", test_path("plain.gguf"));
    make(&shapes[2], plain);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const dm_convert_options options = {.type = wrong[i]};
        assert_int_equal(dm_convert(plain, test_path("out.gguf"), &options, NULL, NULL, NULL), DM_ERR_ARGUMENT);
        assert_int_not_equal(access(test_path("out.gguf"), F_OK), 0);
    }
    unlink(plain);
}

static int tear_down(void **state) {
    (void)state;
    static const char *const names[] = {NULL};
    test_remove(names);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_models), cmocka_unit_test(test_reference_models),
        cmocka_unit_test(test_layouts),       cmocka_unit_test(test_damage),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
