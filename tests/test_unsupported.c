/*
 * What is fine in a file but not handled here: refused by its name, with what is supported instead, and before any memory is
 * asked for that the model would need. The files claim a model of a gigabyte and are mostly a hole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "counted_memory.h"
#include "dilmodeli.h"
#include "model/config.h"
#include "model/pretokenizer.h"
#include "test_files.h"

#define FILE_NAME "unsupported.gguf"
#define END_OF_KEYS "-- no more keys --"

enum { MOST_MEMORY = 64 * 1024 }; /* of a header's tables */

static dm_config large(dm_arch arch) {
    dm_config c = {.arch = arch,
                   .n_layers = 2,
                   .dim = 4096,
                   .n_heads = 32,
                   .n_kv_heads = 8,
                   .head_dim = 128,
                   .ffn_dim = 8192,
                   .vocab = 32000,
                   .context = 4096,
                   .norm_eps = 1e-5f,
                   .rope_base = 10000.0f,
                   .tied_output = true};
    if (arch == DM_ARCH_QWEN3MOE) {
        c.ffn_dim = 0;
        c.n_experts = 8;
        c.top_k = 2;
        c.expert_dim = 1024;
    }
    return c;
}

/* A key beside those of the shape. */
typedef struct feature {
    const char *key;
    enum { NOTHING, INTEGER, REAL, TRUTH, TEXT } kind;
    double number;
    const char *text;
} feature;

/* How a file differs from one that opens. */
typedef struct difference {
    const char *architecture; /* in place of all keys */
    const char *typed;        /* a tensor of the type below */
    uint32_t type;
    const char *surplus; /* a tensor too many */
    feature feature;
} difference;

static void add_feature(dm_gguf_writer *writer, const feature *f) {
    if (f->kind == INTEGER) {
        dm_gguf_add_u32(writer, f->key, (uint32_t)f->number);
    } else if (f->kind == REAL) {
        dm_gguf_add_f32(writer, f->key, (float)f->number);
    } else if (f->kind == TRUTH) {
        dm_gguf_add_bool(writer, f->key, f->number != 0.0);
    } else if (f->kind == TEXT) {
        dm_gguf_add_string(writer, f->key, f->text);
    }
}

/* The header of a file up to its tensors. */
static void put_keys(test_bytes *b, const dm_config *config, const difference *d) {
    uint8_t *bytes;
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (d->architecture != NULL) {
        dm_gguf_add_string(writer, "general.architecture", d->architecture);
    } else {
        dm_config_write(config, writer);
    }
    add_feature(writer, &d->feature);
    dm_gguf_add_string(writer, "test.end", END_OF_KEYS);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(FILE_NAME)), DM_OK);
    dm_gguf_writer_free(writer);
    size_t size = test_read(test_path(FILE_NAME), &bytes);
    const uint8_t *end = memmem(bytes, size, END_OF_KEYS, strlen(END_OF_KEYS));
    assert_non_null(end);
    b->size = 0;
    put(b, bytes, (size_t)(end - bytes) + strlen(END_OF_KEYS));
    free(bytes);
}

/* One tensor; *offset is where it starts and then where the next one may. */
static void put_spec(test_bytes *b, const dm_tensor_spec *spec, uint32_t type, uint64_t *offset) {
    uint32_t weights = 1, bytes = 0; /* of an unknown type nothing is known */
    dm_type_block(type, &weights, &bytes);
    put_string(b, spec->name);
    put_u32(b, spec->n_dims);
    for (uint32_t d = 0; d < spec->n_dims; d++) {
        put_u64(b, spec->dims[d]);
    }
    put_u32(b, type);
    put_u64(b, *offset);
    *offset += (spec->elements / weights * bytes + 31) / 32 * 32;
}

static const char *write_file(const dm_config *config, const difference *d) {
    test_bytes b;
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    uint64_t bytes = 0;
    put_keys(&b, config, d);
    assert_int_equal(dm_config_tensors(config, &specs, &count), DM_OK);
    uint64_t stated = count + (d->surplus != NULL);
    memcpy(b.data + 8, &stated, sizeof stated); /* the number of tensors, which the writer had none of */
    for (size_t i = 0; i < count; i++) {
        bool typed = d->typed != NULL && strcmp(d->typed, specs[i].name) == 0;
        put_spec(&b, &specs[i], typed ? d->type : (uint32_t)dm_config_stored_type(&specs[i], DM_TYPE_F16), &bytes);
    }
    if (d->surplus != NULL) {
        dm_tensor_spec more = {.n_dims = 1, .dims = {32, 1, 1, 1}, .elements = 32};
        snprintf(more.name, sizeof more.name, "%s", d->surplus);
        put_spec(&b, &more, DM_TYPE_F32, &bytes);
    }
    free(specs);
    put_data(&b, 32, 0);
    test_write(test_path(FILE_NAME), b.data, b.size);
    assert_int_equal(truncate(test_path(FILE_NAME), (off_t)(b.size + bytes)), 0);
    return test_path(FILE_NAME);
}

static void assert_says(const char *word) {
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
}

static void refuse(dm_arch arch, difference d, const char *named, const char *supported) {
    const dm_config config = large(arch);
    const char *path = write_file(&config, &d);
    dm_model *model = NULL;
    counted = (counted_memory){0};
    dm_status status = dm_model_open(path, &model);
    assert_true(counted.bytes < MOST_MEMORY);
    assert_int_equal(status, DM_ERR_UNSUPPORTED);
    assert_null(model);
    assert_int_equal(strncmp(dm_error_message(), path, strlen(path)), 0);
    assert_says(named);
    assert_says(supported);
}

/* Without a difference the files open, so that what the tests name is why they do not. */
static void the_rest_is_fine(void **state) {
    (void)state;
    const dm_arch archs[] = {DM_ARCH_LLAMA, DM_ARCH_QWEN3MOE};
    for (size_t i = 0; i < 2; i++) {
        const dm_config config = large(archs[i]);
        dm_model *model = NULL;
        const char *path = write_file(&config, &(difference){0});
        if (dm_model_open(path, &model) != DM_OK) {
            fail_msg("%s", dm_error_message());
        }
        dm_model_close(model);
    }
}

static void architectures(void **state) {
    (void)state;
    static const char *const unknown[] = {"falcon", "gemma3", "deepseek2", "mamba", "t5", "llama4", "LLAMA", "llama ", ""};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        char named[64];
        snprintf(named, sizeof named, "architecture '%s'", unknown[i]);
        refuse(DM_ARCH_LLAMA, (difference){.architecture = unknown[i]}, named,
               "expected qwen3moe, gpt2, llama, olmoe, qwen2, qwen2moe or qwen3");
    }
}

/* Every type that is known by name only, and numbers that are none. */
static void tensor_types(void **state) {
    (void)state;
    size_t named = 0;
    for (uint32_t type = 0; type < 48; type++) {
        char word[64], number[16];
        const char *name = dm_type_name(type);
        snprintf(number, sizeof number, "%u", type);
        if (name != NULL && dm_type_decoder(type) != NULL) {
            continue;
        }
        named += name != NULL;
        snprintf(word, sizeof word, "'blk.1.attn_q.weight' is of type %s,", name != NULL ? name : number);
        refuse(DM_ARCH_LLAMA, (difference){.typed = "blk.1.attn_q.weight", .type = type}, word, "F32, F16, Q4_0, Q4_1, Q5_0");
    }
    assert_int_equal(named, 17); /* IQ2_XXS, TQ1_0, MXFP4 and so on */
    refuse(DM_ARCH_LLAMA, (difference){.typed = "blk.0.attn_norm.weight", .type = DM_TYPE_F16}, "'blk.0.attn_norm.weight'",
           "expected F32");
}

static void scaling_of_positions(void **state) {
    (void)state;
    static const char *const unknown[] = {"longrope", "dynamic", "su", "mrope", ""};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        char named[64];
        snprintf(named, sizeof named, "by '%s' is not supported", unknown[i]);
        refuse(DM_ARCH_LLAMA, (difference){.feature = {"llama.rope.scaling.type", TEXT, 0, unknown[i]}}, named,
               "expected none, linear or yarn");
    }
}

/* Keys of an architecture that change what it computes. */
static void features(void **state) {
    (void)state;
    static const struct {
        dm_arch arch;
        feature feature;
        const char *supported;
    } rows[] = {
        {DM_ARCH_LLAMA, {"llama.leading_dense_block_count", INTEGER, 1, NULL}, "is 1, expected 0"},
        {DM_ARCH_LLAMA, {"llama.expert_group_count", INTEGER, 8, NULL}, "is 8, expected 0"},
        {DM_ARCH_LLAMA, {"llama.expert_group_used_count", INTEGER, 4, NULL}, "is 4, expected 0"},
        {DM_ARCH_LLAMA, {"llama.interleave_moe_layer_step", INTEGER, 2, NULL}, "is 2, expected 0"},
        {DM_ARCH_LLAMA, {"llama.attention.sliding_window_pattern", INTEGER, 6, NULL}, "is 6, expected 0"},
        {DM_ARCH_LLAMA, {"llama.attn_logit_softcapping", REAL, 50, NULL}, "is 50, expected 0"},
        {DM_ARCH_LLAMA, {"llama.final_logit_softcapping", REAL, 30, NULL}, "is 30, expected 0"},
        {DM_ARCH_LLAMA, {"llama.attention.clamp_kqv", REAL, 8, NULL}, "is 8, expected 0"},
        {DM_ARCH_LLAMA, {"llama.attention.max_alibi_bias", REAL, 8, NULL}, "is 8, expected 0"},
        {DM_ARCH_LLAMA, {"llama.attention.scale", REAL, 0.5, NULL}, "is 0.5, expected 0"},
        {DM_ARCH_LLAMA, {"llama.rope.scaling.yarn_log_multiplier", REAL, 0.5, NULL}, "is 0.5, expected 0"},
        {DM_ARCH_LLAMA, {"llama.logit_scale", REAL, 0.25, NULL}, "is 0.25, expected 1"},
        {DM_ARCH_LLAMA, {"llama.embedding_scale", REAL, 12, NULL}, "is 12, expected 1"},
        {DM_ARCH_LLAMA, {"llama.residual_scale", REAL, 0.5, NULL}, "is 0.5, expected 1"},
        {DM_ARCH_LLAMA, {"llama.attention.causal", TRUTH, 0, NULL}, "is false, expected true"},
        {DM_ARCH_LLAMA, {"llama.use_parallel_residual", TRUTH, 1, NULL}, "is true, expected false"},
        {DM_ARCH_QWEN3MOE, {"qwen3moe.expert_gating_func", INTEGER, 2, NULL}, "is 2, expected 1"},
        {DM_ARCH_QWEN3MOE, {"qwen3moe.expert_shared_count", INTEGER, 1, NULL}, "is 1, expected 0"},
        {DM_ARCH_QWEN3MOE, {"qwen3moe.expert_shared_feed_forward_length", INTEGER, 512, NULL}, "is 512, expected 0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        refuse(rows[i].arch, (difference){.feature = rows[i].feature}, rows[i].feature.key, rows[i].supported);
    }
}

static void tensors_of_other_models(void **state) {
    (void)state;
    static const char *const names[] = {"rope_factors_long.weight", "blk.0.attn_sinks.weight", "blk.0.attn_q_norm.weight",
                                        "blk.1.ffn_gate_inp.bias", "blk.2.attn_norm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        refuse(DM_ARCH_LLAMA, (difference){.surplus = names[i]}, names[i], "is not part of this architecture");
    }
}

/* ---- Vocabularies ---- */

static void refuse_tokenizer(const char *kind, const char *rules, const char *named, const char *supported) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_gguf_add_string(writer, "tokenizer.ggml.model", kind);
    dm_gguf_add_string(writer, "tokenizer.ggml.pre", rules);
    assert_int_equal(dm_gguf_writer_finish(writer, test_path(FILE_NAME)), DM_OK);
    dm_gguf_writer_free(writer);
    dm_tokenizer *tokenizer = NULL;
    counted = (counted_memory){0};
    assert_int_equal(dm_tokenizer_open(test_path(FILE_NAME), &tokenizer), DM_ERR_UNSUPPORTED);
    assert_true(counted.bytes < MOST_MEMORY);
    assert_null(tokenizer);
    assert_says(named);
    assert_says(supported);
}

static void tokenizers(void **state) {
    (void)state;
    static const char *const kinds[] = {"bert", "t5", "rwkv", "plamo2", "no_vocab", ""};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char named[64];
        snprintf(named, sizeof named, "of kind '%s'", kinds[i]);
        refuse_tokenizer(kinds[i], "default", named, "'gpt2' (byte-level BPE) and 'llama' (SentencePiece BPE)");
    }
}

/* The message lists all rules that are known, whole. */
static void rules_of_words(void **state) {
    (void)state;
    char known[2000];
    dm_pretokenizer_list(known, sizeof known);
    refuse_tokenizer("gpt2", "of-next-year", "'of-next-year'", known);
    refuse_tokenizer("gpt2", "GPT-2", "'GPT-2'", known);
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rest_is_fine),     cmocka_unit_test(architectures),  cmocka_unit_test(tensor_types),
        cmocka_unit_test(scaling_of_positions), cmocka_unit_test(features),       cmocka_unit_test(tensors_of_other_models),
        cmocka_unit_test(tokenizers),           cmocka_unit_test(rules_of_words),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
