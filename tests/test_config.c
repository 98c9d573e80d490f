/* Shapes, the tensors that follow from them, models checked against them, and fresh models. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "model/create.h"
#include "model/model.h"
#include "test_files.h"

#define FILE_NAME "model.gguf"

static const dm_config moe = {.arch = DM_ARCH_QWEN3MOE,
                              .n_layers = 2,
                              .dim = 8,
                              .n_heads = 4,
                              .n_kv_heads = 2,
                              .head_dim = 6,
                              .n_experts = 4,
                              .top_k = 2,
                              .expert_dim = 10,
                              .vocab = 20,
                              .context = 32,
                              .norm_eps = 1e-6f,
                              .rope_base = 10000.0f};

static const dm_config dense = {.arch = DM_ARCH_GPT2,
                                .n_layers = 2,
                                .dim = 8,
                                .n_heads = 2,
                                .n_kv_heads = 2,
                                .head_dim = 4,
                                .ffn_dim = 32,
                                .vocab = 20,
                                .context = 12,
                                .norm_eps = 1e-5f,
                                .tied_output = true};

static void check_same(const dm_config *a, const dm_config *b) {
    assert_int_equal(a->arch, b->arch);
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->dim, b->dim);
    assert_int_equal(a->n_heads, b->n_heads);
    assert_int_equal(a->n_kv_heads, b->n_kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->ffn_dim, b->ffn_dim);
    assert_int_equal(a->n_experts, b->n_experts);
    assert_int_equal(a->top_k, b->top_k);
    assert_int_equal(a->expert_dim, b->expert_dim);
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->context, b->context);
    assert_true(a->norm_eps == b->norm_eps);
    assert_true(a->rope_base == b->rope_base);
    assert_int_equal(a->tied_output, b->tied_output);
}

/* ---- Files to open ---- */

/* One thing that is wrong with a file. */
typedef struct fault {
    const char *without; /* tensor left out */
    const char *wrong;   /* tensor with a row too many */
    const char *typed;   /* tensor of the type below */
    dm_type type;
    const char *surplus; /* tensor too many */
    const float *bias;   /* of the router */
    uint64_t n_bias;
    int tokens; /* in the vocabulary; 0: none is there */
} fault;

static const float numbers[4096];

static void add_tensor(dm_gguf_writer *writer, const dm_tensor_spec *spec, const fault *f) {
    uint64_t dims[DM_MAX_DIMS];
    memcpy(dims, spec->dims, sizeof dims);
    if (f->without != NULL && strcmp(f->without, spec->name) == 0) {
        return;
    }
    if (f->wrong != NULL && strcmp(f->wrong, spec->name) == 0) {
        dims[spec->n_dims - 1]++;
    }
    bool typed = f->typed != NULL && strcmp(f->typed, spec->name) == 0;
    dm_gguf_add_tensor(writer, spec->name, typed ? f->type : DM_TYPE_F32, dims, spec->n_dims, numbers);
}

static const char *write_model(const dm_config *config, const fault *f) {
    const char *path = test_path(FILE_NAME);
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    assert_int_equal(dm_config_tensors(config, &specs, &count), DM_OK);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_config_write(config, writer);
    dm_gguf_add_string(writer, "general.name", "a \x1b[31mred\xff name");
    for (size_t i = 0; i < count; i++) {
        add_tensor(writer, &specs[i], f);
    }
    if (f->surplus != NULL) {
        dm_gguf_add_tensor(writer, f->surplus, DM_TYPE_F32, (const uint64_t[]){4}, 1, numbers);
    }
    if (f->bias != NULL) {
        dm_gguf_add_array(writer, DM_KEY_EXPERT_BIAS, DM_GGUF_F32, f->bias, f->n_bias);
    }
    if (f->tokens != 0) {
        const dm_gguf_string texts[32] = {{NULL, 0}};
        dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", texts, (uint64_t)f->tokens);
    }
    if (dm_gguf_writer_finish(writer, path) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    dm_gguf_writer_free(writer);
    free(specs);
    return path;
}

static void refuse(const dm_config *config, fault f, dm_status expected, const char *word) {
    const char *path = write_model(config, &f);
    dm_model *model = NULL;
    assert_int_equal(dm_model_open(path, &model), expected);
    assert_null(model);
    assert_int_equal(strncmp(dm_error_message(), path, strlen(path)), 0);
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
}

static dm_model *open_ok(const char *path) {
    dm_model *model = NULL;
    if (dm_model_open(path, &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return model;
}

/* ---- Shapes ---- */

static void test_round_trip(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        dm_config config = i % 2 == 0 ? moe : dense;
        config.tied_output = i / 2 == 0;
        dm_model *model = open_ok(write_model(&config, &(fault){.tokens = i == 3 ? 20 : 0}));
        check_same(&model->config, &config);
        assert_int_equal(model->tensors[DM_OUTPUT].data == model->tensors[DM_TOKEN_EMBD].data, config.tied_output);
        assert_null(model->expert_bias);
        assert_string_equal(model->name, "a ?[31mred? name");
        dm_model_close(model);
    }
}

static void test_arch_names(void **state) {
    (void)state;
    dm_arch arch;
    assert_int_equal(dm_arch_from_name("gpt2", &arch), DM_OK);
    assert_int_equal(arch, DM_ARCH_GPT2);
    assert_int_equal(dm_arch_from_name(dm_arch_name(DM_ARCH_QWEN3MOE), &arch), DM_OK);
    assert_int_equal(arch, DM_ARCH_QWEN3MOE);
    assert_int_equal(dm_arch_from_name("falcon", &arch), DM_ERR_UNSUPPORTED);
    assert_non_null(strstr(dm_error_message(), "qwen3moe"));
}

typedef void (*change)(dm_config *config);

static void no_layers(dm_config *c) {
    c->n_layers = 0;
}
static void many_layers(dm_config *c) {
    c->n_layers = INT32_MAX;
}
static void negative_dim(dm_config *c) {
    c->dim = -8;
}
static void huge_dim(dm_config *c) {
    c->dim = INT32_MAX;
}
static void uneven_heads(dm_config *c) {
    c->n_kv_heads = 3;
    c->n_heads = 4;
}
static void no_vocab(dm_config *c) {
    c->vocab = 0;
}
static void no_context(dm_config *c) {
    c->context = 0;
}
static void eps_nan(dm_config *c) {
    c->norm_eps = NAN;
}
static void eps_zero(dm_config *c) {
    c->norm_eps = 0;
}
static void odd_head(dm_config *c) {
    c->head_dim = 5;
}
static void rope_nan(dm_config *c) {
    c->rope_base = NAN;
}
static void top_k_above(dm_config *c) {
    c->top_k = c->n_experts + 1;
}
static void no_experts(dm_config *c) {
    c->n_experts = 0;
}
static void expert_dim_huge(dm_config *c) {
    c->expert_dim = INT32_MAX;
}

static void test_bad_shapes(void **state) {
    (void)state;
    const change both[] = {no_layers,  many_layers, negative_dim, huge_dim, uneven_heads, no_vocab,
                           no_context, eps_nan,     eps_zero,     odd_head, top_k_above};
    const change moe_only[] = {rope_nan, no_experts, expert_dim_huge};
    assert_int_equal(dm_config_check(&moe), DM_OK);
    assert_int_equal(dm_config_check(&dense), DM_OK);
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
        dm_config a = moe, b = dense;
        both[i](&a);
        both[i](&b);
        assert_int_equal(dm_config_check(&a), DM_ERR_ARGUMENT);
        assert_int_equal(dm_config_check(&b), DM_ERR_ARGUMENT);
    }
    for (size_t i = 0; i < sizeof moe_only / sizeof *moe_only; i++) {
        dm_config a = moe;
        moe_only[i](&a);
        assert_int_equal(dm_config_check(&a), DM_ERR_ARGUMENT);
    }
}

/* The largest shape that passes the checks has totals that do not overflow. */
static void test_totals_do_not_overflow(void **state) {
    (void)state;
    dm_config c = moe;
    int32_t *fields[] = {&c.n_layers, &c.dim, &c.n_heads, &c.n_kv_heads, &c.head_dim, &c.n_experts, &c.expert_dim, &c.vocab};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        for (int32_t bit = 1 << 30; bit > 0; bit /= 2) {
            *fields[i] |= bit;
            *fields[i] = dm_config_check(&c) == DM_OK ? *fields[i] : *fields[i] & ~bit;
        }
    }
    assert_int_equal(dm_config_check(&c), DM_OK);
    double experts = 3.0 * c.n_layers * c.n_experts * c.expert_dim * c.dim;
    assert_true(experts > 1e16 && experts < 9e18);
    assert_true(fabs((double)dm_config_params(&c) / experts - 1) < 0.01);
}

static void test_params(void **state) {
    (void)state;
    const uint64_t layer = 8 + 24 * 8 + 2 * 12 * 8 + 8 * 24 + 6 + 6 + 8 + 4 * 8;
    assert_int_equal(dm_config_params(&moe), 2 * 20 * 8 + 8 + 2 * (layer + 4 * 3 * 80));
    assert_int_equal(dm_config_active_params(&moe), 2 * 20 * 8 + 8 + 2 * (layer + 2 * 3 * 80));
    assert_int_equal(dm_config_params(&dense), dm_config_active_params(&dense));
    const dm_model_info gpt2 = {.architecture = "gpt2"};
    dm_config c;
    assert_int_equal(dm_config_from_info(&gpt2, 50257, true, &c), DM_OK);
    assert_int_equal(dm_config_params(&c), 124439808); /* as published for GPT-2 small */
}

/* ---- Models ---- */

static void test_open_refuses(void **state) {
    (void)state;
    refuse(&moe, (fault){.without = "blk.1.attn_k.weight"}, DM_ERR_FORMAT, "'blk.1.attn_k.weight' is missing");
    refuse(&moe, (fault){.without = "token_embd.weight"}, DM_ERR_FORMAT, "token_embd.weight");
    refuse(&moe, (fault){.wrong = "blk.0.attn_q.weight"}, DM_ERR_FORMAT, "'blk.0.attn_q.weight' is 8 x 25, expected 8 x 24");
    refuse(&moe, (fault){.wrong = "blk.1.ffn_up_exps.weight"}, DM_ERR_FORMAT, "8 x 10 x 5, expected 8 x 10 x 4");
    refuse(&moe, (fault){.wrong = "token_embd.weight"}, DM_ERR_FORMAT, "vocab_size");
    refuse(&dense, (fault){.wrong = "position_embd.weight"}, DM_ERR_FORMAT, "8 x 13, expected 8 x 12");
    refuse(&dense, (fault){.wrong = "blk.1.ffn_up.bias"}, DM_ERR_FORMAT, "33, expected 32");
    refuse(&moe, (fault){.typed = "blk.0.attn_q.weight", .type = DM_TYPE_I32}, DM_ERR_UNSUPPORTED,
           "I32, expected one of F32, F16, Q4_0,");
    refuse(&moe, (fault){.typed = "output_norm.weight", .type = DM_TYPE_F16}, DM_ERR_UNSUPPORTED, "F16, expected F32");
    refuse(&moe, (fault){.surplus = "blk.0.attn_q.bias"}, DM_ERR_UNSUPPORTED, "'blk.0.attn_q.bias' is not part");
    refuse(&dense, (fault){.tokens = 19}, DM_ERR_FORMAT, "19 tokens");
}

static void test_open_takes_other_types(void **state) {
    (void)state;
    dm_model *model = open_ok(write_model(&moe, &(fault){.typed = "blk.0.attn_q.weight", .type = DM_TYPE_BF16}));
    assert_int_equal(model->layers[0].tensors[DM_ATTN_Q].type, DM_TYPE_BF16);
    assert_int_equal(model->layers[1].tensors[DM_ATTN_Q].type, DM_TYPE_F32);
    dm_model_close(model);
}

static void test_expert_bias(void **state) {
    (void)state;
    const float bias[8] = {0.5f, -1, 2, 3, 4, 5, 6, 7};
    dm_model *model = open_ok(write_model(&moe, &(fault){.bias = bias, .n_bias = 8}));
    assert_memory_equal(model->expert_bias, bias, sizeof bias);
    dm_model_close(model);
    refuse(&moe, (fault){.bias = bias, .n_bias = 7}, DM_ERR_FORMAT, "7 numbers, expected 8");
    refuse(&dense, (fault){.bias = bias, .n_bias = 0}, DM_ERR_FORMAT, DM_KEY_EXPERT_BIAS);
    const float broken[8] = {0, 0, 0, NAN};
    refuse(&moe, (fault){.bias = broken, .n_bias = 8}, DM_ERR_FORMAT, "number 3");
}

/* A file that claims more layers than it has tensors must not have tables made for them. */
static void test_claimed_layers(void **state) {
    (void)state;
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_config claimed = moe;
    claimed.n_layers = 1000;
    dm_config_write(&claimed, writer);
    dm_gguf_add_tensor(writer, "token_embd.weight", DM_TYPE_F32, (const uint64_t[]){8, 20}, 2, numbers);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(FILE_NAME)), DM_OK);
    dm_gguf_writer_free(writer);
    dm_model *model = NULL;
    assert_int_equal(dm_model_open(test_path(FILE_NAME), &model), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "1000 layers"));
}

static void test_missing_keys(void **state) {
    (void)state;
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_string(writer, "general.architecture", "qwen3moe");
    dm_gguf_add_tensor(writer, "token_embd.weight", DM_TYPE_F32, (const uint64_t[]){8, 20}, 2, numbers);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(FILE_NAME)), DM_OK);
    dm_gguf_writer_free(writer);
    dm_model *model = NULL;
    assert_int_equal(dm_model_open(test_path(FILE_NAME), &model), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "qwen3moe.block_count"));
}

static void test_from_memory(void **state) {
    (void)state;
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    assert_int_equal(dm_config_tensors(&dense, &specs, &count), DM_OK);
    const float **weights = calloc(count, sizeof *weights);
    for (size_t i = 0; i < count; i++) {
        weights[i] = numbers + i;
    }
    dm_model *model = NULL;
    assert_int_equal(dm_model_from_memory(&dense, weights, NULL, &model), DM_OK);
    for (size_t i = 0; i < count; i++) {
        const dm_tensor *tensor =
            specs[i].layer < 0 ? &model->tensors[specs[i].role] : &model->layers[specs[i].layer].tensors[specs[i].role];
        assert_ptr_equal(tensor->data, weights[i]);
        assert_memory_equal(tensor->dims, specs[i].dims, sizeof tensor->dims);
    }
    assert_ptr_equal(model->tensors[DM_OUTPUT].data, model->tensors[DM_TOKEN_EMBD].data);
    dm_model_info info;
    dm_model_get_info(model, &info);
    assert_string_equal(info.architecture, "gpt2");
    assert_int_equal(info.params, dm_config_params(&dense));
    assert_int_equal(info.ffn_dim, 32);
    dm_model_close(model);
    free(weights);
    free(specs);
}

static void test_shared_models(void **state) {
    (void)state;
    if (access(DM_SHARED_DIR "/models", R_OK) != 0) {
        print_message("no %s: models of other programs are not tested\n", DM_SHARED_DIR);
        skip();
    }
    dm_model *model = open_ok(DM_SHARED_DIR "/models/qwen3moe-tiny.gguf");
    check_same(&model->config, &(dm_config){.arch = DM_ARCH_QWEN3MOE,
                                            .n_layers = 2,
                                            .dim = 128,
                                            .n_heads = 4,
                                            .n_kv_heads = 2,
                                            .head_dim = 64,
                                            .n_experts = 16,
                                            .top_k = 4,
                                            .expert_dim = 64,
                                            .vocab = 512,
                                            .context = 256,
                                            .norm_eps = 1e-5f,
                                            .rope_base = 1e6f});
    dm_model_close(model);
    model = open_ok(DM_SHARED_DIR "/models/gpt2-tiny.gguf");
    assert_int_equal(model->config.ffn_dim, 512);
    assert_false(model->config.tied_output);
    dm_model_close(model);
    model = open_ok(DM_SHARED_DIR "/models/ref-moe.gguf");
    assert_true(model->config.tied_output);
    assert_true(dm_config_params(&model->config) / 100000 == 154 || dm_config_params(&model->config) / 100000 == 155);
    dm_model_close(model);
    model = open_ok(DM_SHARED_DIR "/models/qwen2moe-tiny.gguf");
    assert_int_equal(model->config.shared_dim, 64);
    assert_true(model->config.plain_gates);
    assert_int_equal(dm_config_params(&model->config) - dm_config_active_params(&model->config), 2 * 6 * 3 * 64 * 128);
    dm_model_close(model);
    assert_int_equal(dm_model_open(DM_SHARED_DIR "/tokenizer/ggml-vocab-gpt-2.gguf", &model), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "holds no model"));
}

/* ---- Fresh models ---- */

enum { WIDE = 40000 };

static dm_tensor_spec wide_spec(dm_role role) {
    return (dm_tensor_spec){.name = "blk.0.test.weight", .role = role, .n_dims = 2, .dims = {200, 200, 1, 1}, .elements = WIDE};
}

static double deviation_of(const float *x, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
    }
    assert_true(fabs(sum / (double)n) < 5e-4);
    return sqrt(squares / (double)n);
}

static void test_init(void **state) {
    (void)state;
    float *a = malloc(WIDE * sizeof *a), *b = malloc(WIDE * sizeof *b);
    dm_config c = moe;
    c.n_layers = 8;
    dm_tensor_spec spec = wide_spec(DM_ATTN_Q);
    dm_set_threads(1);
    dm_init_weights(&c, &spec, 1, 7, &a);
    assert_true(fabs(deviation_of(a, WIDE) - 0.02) < 3e-4);
    dm_set_threads(3);
    dm_init_weights(&c, &spec, 1, 7, &b);
    assert_memory_equal(a, b, WIDE * sizeof *a);
    dm_init_weights(&c, &spec, 1, 8, &b);
    assert_memory_not_equal(a, b, 64);
    for (size_t first = 0; first < WIDE; first += 4095) { /* pieces that start anywhere give the same numbers */
        size_t n = WIDE - first < 5001 ? WIDE - first : 5001;
        dm_init_piece(&c, &spec, 7, first, n, b);
        assert_memory_equal(a + first, b, n * sizeof *b);
    }
    spec = wide_spec(DM_FFN_DOWN_EXPS);
    dm_init_weights(&c, &spec, 1, 7, &a);
    assert_true(fabs(deviation_of(a, WIDE) - 0.02 / 4) < 1e-4);
    spec.n_dims = 1;
    spec.role = DM_ATTN_NORM;
    dm_init_weights(&c, &spec, 1, 7, &a);
    assert_true(a[0] == 1.0f && a[WIDE - 1] == 1.0f);
    spec.role = DM_ATTN_NORM_B;
    dm_init_weights(&c, &spec, 1, 7, &a);
    assert_true(a[0] == 0.0f && a[WIDE - 1] == 0.0f);
    free(a);
    free(b);
}

static void test_create(void **state) {
    (void)state;
    const dm_model_info shape = {.name = "made",
                                 .layers = 3,
                                 .dim = 32,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .head_dim = 16,
                                 .experts = 8,
                                 .top_k = 3,
                                 .expert_dim = 20,
                                 .vocab = 300};
    const char *types[] = {"f32", "f16", "bf16"};
    const dm_type stored[] = {DM_TYPE_F32, DM_TYPE_F16, DM_TYPE_BF16};
    for (int i = 0; i < 3; i++) {
        dm_model_info made, read;
        const char *path = test_path(FILE_NAME);
        assert_int_equal(dm_model_create(path, &shape, NULL, i == 1, types[i], 5, &made), DM_OK);
        dm_model *model = open_ok(path);
        dm_model_get_info(model, &read);
        assert_memory_equal(&made, &read, sizeof made);
        assert_int_equal(read.vocab, 300);
        assert_int_equal(read.context, 1024);
        assert_int_equal(model->layers[2].tensors[DM_FFN_UP_EXPS].type, stored[i]);
        assert_int_equal(model->layers[2].tensors[DM_FFN_ROUTER].type, DM_TYPE_F32);
        assert_int_equal(model->layers[2].tensors[DM_ATTN_NORM].type, DM_TYPE_F32);
        dm_model_close(model);
        dm_tokenizer *tokenizer = NULL;
        assert_int_equal(dm_tokenizer_open(path, &tokenizer), DM_OK);
        assert_int_equal(dm_tokenizer_vocab(tokenizer), 300);
        dm_tokenizer_close(tokenizer);
    }
}

static void test_create_refuses(void **state) {
    (void)state;
    const char *path = test_path("never.gguf");
    const dm_model_info fine = {.layers = 1};
    dm_model_info shape = fine;
    assert_int_equal(dm_model_create(path, &fine, NULL, true, "q9_0", 0, NULL), DM_ERR_ARGUMENT);
    assert_int_equal(dm_model_create(path, &fine, test_path("nowhere.gguf"), true, "f32", 0, NULL), DM_ERR_IO);
    snprintf(shape.architecture, sizeof shape.architecture, "gpt2");
    shape.experts = 4;
    assert_int_equal(dm_model_create(path, &shape, NULL, true, "f32", 0, NULL), DM_ERR_ARGUMENT);
    shape = fine;
    shape.vocab = 100; /* less than the bytes and the end of text */
    assert_int_equal(dm_model_create(path, &shape, NULL, true, "f32", 0, NULL), DM_ERR_ARGUMENT);
    shape = fine;
    shape.layers = 2000000000;
    assert_int_equal(dm_model_create(path, &shape, NULL, true, "f32", 0, NULL), DM_ERR_ARGUMENT);
    dm_interrupt();
    assert_int_equal(dm_model_create(path, &fine, NULL, true, "f32", 0, NULL), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
    assert_int_not_equal(access(path, F_OK), 0);
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_arch_names),
        cmocka_unit_test(test_bad_shapes),
        cmocka_unit_test(test_totals_do_not_overflow),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_open_takes_other_types),
        cmocka_unit_test(test_expert_bias),
        cmocka_unit_test(test_claimed_layers),
        cmocka_unit_test(test_missing_keys),
        cmocka_unit_test(test_from_memory),
        cmocka_unit_test(test_shared_models),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_create_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
