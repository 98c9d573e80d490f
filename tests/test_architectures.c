/* Every architecture, with what its files may ask for, against a plain forward pass in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "dilmodeli.h"
#include "reference_forward.h"
#include "test_files.h"

#define FILE_NAME "model.gguf"

enum { VOCAB = 50, CONTEXT = 64, TOKENS = 40 };

static dm_config shape_of(dm_arch arch) {
    return reference_shape(arch, VOCAB, CONTEXT);
}

static dm_config expert_shape_of(dm_arch arch) {
    return reference_expert_shape(arch, VOCAB, CONTEXT);
}

static dm_model *open_file(const char *path) {
    dm_model *model = NULL;
    if (dm_model_open(path, &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return model;
}

/* Logits [n, vocab] of ids fed in pieces of `step`. */
static void run(const dm_model *model, const int32_t *ids, int32_t n, int32_t step, float *logits) {
    dm_session *session = NULL;
    const dm_session_options options = {.context = n, .cache = DM_CACHE_F32};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    for (int32_t first = 0; first < n; first += step) {
        int32_t m = n - first < step ? n - first : step;
        assert_int_equal(dm_session_feed(session, ids + first, m, true, logits + (size_t)first * VOCAB), DM_OK);
    }
    dm_session_free(session);
}

/* Through a file, so that what is written is what is read. */
static void check(const char *name, const dm_config *config) {
    static const int32_t steps[] = {TOKENS, 9, 1};
    static double expected[TOKENS * VOCAB];
    static float logits[TOKENS * VOCAB];
    int32_t ids[TOKENS];
    reference_model reference;
    reference_make(&reference, config, 7);
    reference_ids(ids, TOKENS, VOCAB, 99);
    reference_forward(&reference, ids, TOKENS, TOKENS, expected);
    dm_model *model = reference_open(&reference, test_path(FILE_NAME));
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        run(model, ids, TOKENS, steps[s], logits);
        double difference = reference_difference(logits, expected, TOKENS * VOCAB);
        print_message("%s by %d: %.2e\n", name, steps[s], difference);
        assert_true(difference < 1e-4);
    }
    dm_model_close(model);
    reference_free(&reference);
}

/* ---- Architectures ---- */

static void plain_architectures(void **state) {
    (void)state;
    static const dm_arch dense[] = {DM_ARCH_LLAMA, DM_ARCH_QWEN2, DM_ARCH_QWEN3};
    static const dm_arch mixtures[] = {DM_ARCH_LLAMA, DM_ARCH_OLMOE, DM_ARCH_QWEN2MOE, DM_ARCH_QWEN3MOE};
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
        dm_config c = shape_of(dense[i]);
        check(dm_arch_name(dense[i]), &c);
    }
    for (size_t i = 0; i < sizeof mixtures / sizeof *mixtures; i++) {
        dm_config c = expert_shape_of(mixtures[i]);
        check(dm_arch_name(mixtures[i]), &c);
    }
    dm_config gpt2 = shape_of(DM_ARCH_GPT2);
    gpt2.head_dim = 6;
    gpt2.n_kv_heads = 6;
    gpt2.rope_base = 0.0f;
    check("gpt2", &gpt2);
}

static void tied_outputs_and_biases(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    c.tied_output = true;
    check("tied", &c);
    c.extra = DM_PART_QKV_BIAS | DM_PART_OUTPUT_BIAS | DM_PART_FFN_BIAS;
    check("tied, with biases", &c);
}

static void gates_as_the_file_says(void **state) {
    (void)state;
    dm_config c = expert_shape_of(DM_ARCH_OLMOE);
    c.plain_gates = false;
    c.expert_scale = 1.7f;
    check("olmoe, renormalised and scaled", &c);
    c = expert_shape_of(DM_ARCH_QWEN3MOE);
    c.plain_gates = true;
    check("qwen3moe, gates as they are", &c);
}

static void experts_apart(void **state) {
    (void)state;
    static const dm_arch mixtures[] = {DM_ARCH_LLAMA, DM_ARCH_OLMOE, DM_ARCH_QWEN2MOE, DM_ARCH_QWEN3MOE};
    for (size_t i = 0; i < sizeof mixtures / sizeof *mixtures; i++) {
        dm_config c = expert_shape_of(mixtures[i]);
        c.extra = DM_PART_APART;
        check("experts apart", &c);
    }
}

/* ---- What a file may say ---- */

typedef void (*saying)(dm_gguf_writer *writer);

/* A fine model with one key more; refused with a message that names it, unless `word` is NULL. */
static void with_key(const dm_config *config, saying add, dm_status expected, const char *word) {
    reference_model m;
    reference_make(&m, config, 1);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_config_write(&m.config, writer);
    add(writer);
    for (size_t i = 0; i < m.count; i++) {
        dm_gguf_add_tensor(writer, m.specs[i].name, DM_TYPE_F32, m.specs[i].dims, m.specs[i].n_dims, m.weights[i]);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(FILE_NAME)), DM_OK);
    dm_gguf_writer_free(writer);
    dm_model *model = NULL;
    assert_int_equal(dm_model_open(test_path(FILE_NAME), &model), expected);
    if (expected != DM_OK && strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
    dm_model_close(model);
    reference_free(&m);
}

static void add_wild_factor(dm_gguf_writer *writer) {
    dm_gguf_add_f32(writer, "llama.rope.scaling.factor", NAN);
}

static void add_neutral(dm_gguf_writer *writer) {
    dm_gguf_add_string(writer, "llama.rope.scaling.type", "none");
    dm_gguf_add_f32(writer, "llama.rope.scaling.factor", 8.0f);
    dm_gguf_add_f32(writer, "llama.logit_scale", 1.0f);
    dm_gguf_add_bool(writer, "llama.attention.causal", true);
}

static void wild_and_neutral_keys(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    with_key(&c, add_wild_factor, DM_ERR_FORMAT, "factor of the rotary scaling");
    with_key(&c, add_neutral, DM_OK, NULL);
}

/* A file of 2023: the factor under its older name and no type. */
static void add_scale_linear(dm_gguf_writer *writer) {
    dm_gguf_add_f32(writer, "llama.rope.scale_linear", 4.0f);
}

static void older_linear_scaling(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    with_key(&c, add_scale_linear, DM_OK, NULL);
    dm_gguf *file = NULL;
    assert_int_equal(dm_gguf_open(test_path(FILE_NAME), &file), DM_OK);
    assert_int_equal(dm_config_read(file, &c), DM_OK);
    assert_int_equal(c.rope_scaling.kind, DM_SCALING_LINEAR);
    assert_true(c.rope_scaling.factor == 4.0f);
    dm_gguf_close(file);
}

static void version_2_is_read(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_QWEN3);
    reference_model m;
    reference_make(&m, &c, 1);
    reference_write(&m, test_path(FILE_NAME));
    reference_free(&m);
    FILE *stream = fopen(test_path(FILE_NAME), "r+b");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, 4, SEEK_SET), 0);
    assert_int_equal(fputc(2, stream), 2);
    fclose(stream);
    dm_model_close(open_file(test_path(FILE_NAME)));
}

/* ---- Split files ---- */

#define PART_1 "split-00001-of-00003.gguf"
#define PART_2 "split-00002-of-00003.gguf"
#define PART_3 "split-00003-of-00003.gguf"
static const char *const parts[] = {PART_1, PART_2, PART_3};

/* Part number `part` of 3 as file `name`: metadata in the first, every third tensor in each. */
static void write_part(const reference_model *m, const char *name, uint32_t part, uint32_t tensors) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (part == 0) {
        dm_config_write(&m->config, writer);
    }
    dm_gguf_add_u32(writer, "split.no", part);
    dm_gguf_add_u32(writer, "split.count", 3);
    dm_gguf_add_u32(writer, "split.tensors.count", tensors);
    for (size_t i = part; i < m->count; i += 3) {
        dm_gguf_add_tensor(writer, m->specs[i].name, DM_TYPE_F32, m->specs[i].dims, m->specs[i].n_dims, m->weights[i]);
    }
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(name)), DM_OK);
    dm_gguf_writer_free(writer);
}

static void refuse_part(const char *name, dm_status expected, const char *word) {
    dm_model *model = NULL;
    assert_int_equal(dm_model_open(test_path(name), &model), expected);
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
}

static void split_files(void **state) {
    (void)state;
    dm_config c = expert_shape_of(DM_ARCH_QWEN3MOE);
    reference_model m;
    reference_make(&m, &c, 7);
    for (uint32_t i = 0; i < 3; i++) {
        write_part(&m, parts[i], i, (uint32_t)m.count);
    }
    static float whole[TOKENS * VOCAB], split[TOKENS * VOCAB];
    int32_t ids[TOKENS];
    reference_ids(ids, TOKENS, VOCAB, 99);
    dm_model *model = reference_open(&m, test_path(FILE_NAME));
    run(model, ids, TOKENS, TOKENS, whole);
    dm_model_close(model);
    for (int i = 0; i < 3; i++) { /* whichever is named */
        model = open_file(test_path(parts[i]));
        run(model, ids, TOKENS, TOKENS, split);
        assert_memory_equal(split, whole, sizeof whole);
        dm_model_close(model);
    }
    write_part(&m, PART_1, 0, (uint32_t)m.count + 1);
    refuse_part(PART_1, DM_ERR_FORMAT, "tensors, expected");
    write_part(&m, PART_1, 0, (uint32_t)m.count);
    write_part(&m, PART_3, 1, (uint32_t)m.count);
    refuse_part(PART_1, DM_ERR_FORMAT, "says to be part 2 of 3");
    refuse_part(PART_3, DM_ERR_FORMAT, "expected a name that ends in -00002-of-00003.gguf");
    write_part(&m, PART_3, 3, (uint32_t)m.count);
    refuse_part(PART_3, DM_ERR_FORMAT, "part 4 of 3");
    unlink(test_path(PART_3));
    refuse_part(PART_1, DM_ERR_IO, "part 3 of 3");
    refuse_part(PART_2, DM_ERR_IO, PART_3);
    write_part(&m, FILE_NAME, 0, (uint32_t)m.count);
    refuse_part(FILE_NAME, DM_ERR_FORMAT, "-00001-of-00003.gguf");
    reference_free(&m);
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, PART_1, PART_2, PART_3, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_architectures),    cmocka_unit_test(tied_outputs_and_biases),
        cmocka_unit_test(gates_as_the_file_says), cmocka_unit_test(experts_apart),
        cmocka_unit_test(wild_and_neutral_keys),  cmocka_unit_test(older_linear_scaling),
        cmocka_unit_test(version_2_is_read),      cmocka_unit_test(split_files),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
