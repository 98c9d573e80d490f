/* Mixtures of types: the rules layer by layer, and beside files that llama.cpp made. */
#include "reference.h"

#include "dilmodeli.h"
#include "model/create.h"
#include "quantization/mixture.h"
#include "test_files.h"

static const dm_mixture *mixture_of(const char *name) {
    const dm_mixture *mixture = NULL;
    if (dm_mixture_from_name(name, &mixture) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return mixture;
}

static dm_config config_of(const dm_model_info *info, bool tied) {
    dm_config config = {0};
    dm_model_info shape = *info;
    snprintf(shape.architecture, sizeof shape.architecture, "llama");
    assert_int_equal(dm_config_from_info(&shape, 512, tied, &config), DM_OK);
    return config;
}

/* The letters of the types of one tensor of each layer: 2 to 6 for Q2_K to Q6_K, 8 for Q8_0, 0 and 1 for Q5_0 and Q5_1,
 * f for F16, ? for others. */
static const char *letters(const char *name, const dm_config *config, dm_role role) {
    static char text[128];
    dm_tensor_spec *specs;
    size_t count, used = 0;
    assert_int_equal(dm_config_tensors(config, &specs, &count), DM_OK);
    for (size_t i = 0; i < count; i++) {
        if (specs[i].role == role && used + 1 < sizeof text) {
            dm_type type = dm_mixture_type(mixture_of(name), config, &specs[i]);
            text[used++] = type >= DM_TYPE_Q2_K && type <= DM_TYPE_Q6_K ? (char)('2' + (type - DM_TYPE_Q2_K))
                           : type == DM_TYPE_Q8_0                       ? '8'
                           : type == DM_TYPE_Q5_0                       ? '0'
                           : type == DM_TYPE_Q5_1                       ? '1'
                           : type == DM_TYPE_F16                        ? 'f'
                                                                        : '?';
        }
    }
    text[used] = '\0';
    free(specs);
    return text;
}

static void test_layers(void **state) {
    (void)state;
    const dm_config c = config_of(&(dm_model_info){.layers = 32, .dim = 256, .heads = 4, .kv_heads = 2, .ffn_dim = 512}, false);
    const char *more = "66664464464464464464464464466666"; /* the first and last eighth, and every third between */
    assert_string_equal(letters("q4_k_m", &c, DM_ATTN_V), more);
    assert_string_equal(letters("Q4_K", &c, DM_FFN_DOWN), more);
    assert_string_equal(letters("q4_k_m", &c, DM_FFN_UP), "44444444444444444444444444444444");
    assert_string_equal(letters("q4_k_s", &c, DM_FFN_DOWN), "55554444444444444444444444444444");
    assert_string_equal(letters("q4_k_s", &c, DM_ATTN_V), "55554444444444444444444444444444");
    assert_string_equal(letters("q3_k_m", &c, DM_FFN_DOWN), "55444444444444444444444444444444");
    assert_string_equal(letters("q3_k_m", &c, DM_ATTN_V), "55444444444444444444444444444444");
    assert_string_equal(letters("q3_k_m", &c, DM_ATTN_OUTPUT), "44444444444444444444444444444444");
    assert_string_equal(letters("q3_k_l", &c, DM_FFN_DOWN), "55555555555555555555555555555555");
    assert_string_equal(letters("q2_k", &c, DM_ATTN_V), "33333333333333333333333333333333");
    assert_string_equal(letters("q2_k", &c, DM_ATTN_Q), "22222222222222222222222222222222");
    assert_string_equal(letters("q2_k", &c, DM_OUTPUT), "6");
    assert_string_equal(letters("q2_k", &c, DM_TOKEN_EMBD), "2");
    assert_string_equal(letters("q8_0", &c, DM_OUTPUT), "8");
}

static void test_shapes(void **state) {
    (void)state;
    dm_model_info info = {.layers = 3, .dim = 256, .heads = 8, .kv_heads = 2, .head_dim = 32, .ffn_dim = 512};
    dm_config c = config_of(&info, true);
    assert_string_equal(letters("q4_k_m", &c, DM_TOKEN_EMBD), "6"); /* it is the output too */
    assert_string_equal(letters("q2_k", &c, DM_ATTN_V), "444");     /* four heads share a value */
    info = (dm_model_info){.layers = 2, .dim = 256, .heads = 4, .experts = 8, .top_k = 2, .expert_dim = 128};
    c = config_of(&info, false);
    assert_string_equal(letters("q4_k_m", &c, DM_ATTN_V), "88");
    assert_string_equal(letters("q5_k_m", &c, DM_ATTN_K), "88");
    assert_string_equal(letters("q4_k_m", &c, DM_ATTN_OUTPUT), "55");
    assert_string_equal(letters("q4_k_m", &c, DM_FFN_DOWN_EXPS), "08"); /* rows of 128: no blocks of 256 */
    assert_string_equal(letters("q5_k_s", &c, DM_FFN_DOWN_EXPS), "11");
    assert_string_equal(letters("q4_k_m", &c, DM_FFN_UP_EXPS), "44");
    assert_string_equal(letters("q4_k_m", &c, DM_FFN_ROUTER), "??"); /* F32 */
    info = (dm_model_info){.layers = 1, .dim = 40, .heads = 2, .ffn_dim = 96};
    c = config_of(&info, false);
    assert_string_equal(letters("q4_k_m", &c, DM_OUTPUT), "f");
    assert_string_equal(letters("q6_k", &c, DM_FFN_DOWN), "8");
}

static void test_names(void **state) {
    (void)state;
    const dm_mixture *mixture = NULL;
    assert_int_equal(dm_mixture_from_name("q4_k_x", &mixture), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "q4_k_m"));
    assert_int_equal(dm_mixture_from_name("", &mixture), DM_ERR_ARGUMENT);
    assert_ptr_equal(mixture_of("Q3_K"), mixture_of("q3_k_m"));
    assert_string_equal(dm_mixture_names(), "f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, "
                                            "iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s, q2_k, q2_k_s");
}

/* Every tensor of a file that llama.cpp's quantizer made has the type that the mixture of its name gives. */
static void test_peer_files(void **state) {
    (void)state;
    static const char *const names[] = {"Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "Q2_K", "F16"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        char path[512];
        snprintf(path, sizeof path, MODELS "quant-%s.gguf", names[f]);
        need(path);
        dm_gguf *file;
        dm_config config;
        dm_tensor_spec *specs;
        size_t count;
        assert_int_equal(dm_gguf_open(path, &file), DM_OK);
        assert_int_equal(dm_config_read(file, &config), DM_OK);
        assert_int_equal(dm_config_tensors(&config, &specs, &count), DM_OK);
        for (size_t i = 0; i < count; i++) {
            const dm_gguf_tensor *tensor = dm_gguf_find_tensor(file, specs[i].name);
            assert_non_null(tensor);
            assert_int_equal(dm_mixture_type(mixture_of(names[f]), &config, &specs[i]), tensor->type);
        }
        free(specs);
        dm_gguf_close(file);
    }
}

/* The tensor of that name as float32; the caller's to free(). */
static float *decoded(const dm_gguf *file, const char *name) {
    const dm_gguf_tensor *tensor = dm_gguf_find_tensor(file, name);
    assert_non_null(tensor);
    float *values = malloc(tensor->elements * sizeof *values);
    assert_non_null(values);
    dm_type_decoder((uint32_t)tensor->type)(values, tensor->data, tensor->elements);
    return values;
}

static dm_gguf *create(const char *path, const char *type) {
    const dm_model_info shape = {
        .architecture = "llama", .layers = 1, .dim = 256, .heads = 4, .ffn_dim = 256, .vocab = DM_EMULATED ? 300 : 2100};
    dm_gguf *file = NULL;
    if (dm_model_create(path, &shape, NULL, true, type, 7, NULL) != DM_OK || dm_gguf_open(path, &file) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return file;
}

/* A model in a mixture has the weights of the same model in F32, each tensor as near as its type allows; the embedding is
 * longer than one piece, but in an emulator. */
static void test_created_weights(void **state) {
    (void)state;
    dm_gguf *exact = create(test_path("exact.gguf"), "f32");
    static const char *const types[] = {"q8_0", "q4_k_m", "q2_k"};
    static const double bounds[] = {0.0052, 0.072, 0.275};
    for (size_t f = 0; f < 3; f++) {
        dm_gguf *file = create(test_path("mixed.gguf"), types[f]);
        uint32_t file_type, version;
        assert_int_equal(dm_gguf_get_u32(file, "general.file_type", &file_type), DM_OK);
        assert_int_equal(file_type, ((const uint32_t[]){7, 15, 10})[f]);
        assert_int_equal(dm_gguf_get_u32(file, "general.quantization_version", &version), DM_OK);
        assert_int_equal(version, 2);
        assert_int_equal(dm_gguf_n_tensors(file), dm_gguf_n_tensors(exact));
        for (size_t i = 0; i < dm_gguf_n_tensors(exact); i++) {
            const dm_gguf_tensor *tensor = dm_gguf_tensor_at(exact, i);
            float *expected = decoded(exact, tensor->name), *found = decoded(file, tensor->name);
            double error = 0.0, square = 0.0;
            for (uint64_t k = 0; k < tensor->elements; k++) {
                error += ((double)expected[k] - found[k]) * ((double)expected[k] - found[k]);
                square += (double)expected[k] * expected[k];
            }
            assert_true(error <= bounds[f] * bounds[f] * square);
            free(expected);
            free(found);
        }
        dm_gguf_close(file);
    }
    dm_gguf_close(exact);
    test_remove((const char *const[]){"exact.gguf", "mixed.gguf", NULL});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),     cmocka_unit_test(test_shapes),          cmocka_unit_test(test_names),
        cmocka_unit_test(test_peer_files), cmocka_unit_test(test_created_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
