/* Conversion between Hugging Face's folders and GGUF: every architecture there and back, what the layout means, what is refused.
 */
#include <dirent.h>
#include <math.h>

#include "base/file.h"
#include "dilmodeli.h"
#include "model/safetensors.h"
#include "reference.h"
#include "reference_forward.h"
#include "test_files.h"

enum { VOCAB = 50, CONTEXT = 64, TOKENS = 24 };

#define FIRST "first.gguf"
#define SECOND "second.gguf"
#define FOLDER "folder"
#define AGAIN "again"

/* ---- Helpers ---- */

static void remove_folder(const char *name) {
    char path[600];
    DIR *entries = opendir(test_path(name));
    for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", test_path(name), entry->d_name);
        unlink(path);
    }
    if (entries != NULL) {
        closedir(entries);
    }
    rmdir(test_path(name));
}

static void clean(void) {
    remove_folder(FOLDER);
    remove_folder(AGAIN);
    unlink(test_path(FIRST));
    unlink(test_path(SECOND));
}

static const char *inside(const char *name) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", test_path(FOLDER), name);
    return path;
}

static dm_convert_result convert(const char *from, const char *to, const dm_convert_options *options) {
    dm_convert_result made;
    if (dm_convert(from, to, options, NULL, NULL, &made) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return made;
}

static void refuse(const char *from, const char *to, const dm_convert_options *options, dm_status expected, const char *word) {
    dm_status status = dm_convert(from, to, options, NULL, NULL, NULL);
    if (status != expected || strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' (%d) in (%d): %s", word, (int)expected, (int)status, dm_error_message());
    }
}

static dm_config shape_of(dm_arch arch) {
    return reference_shape(arch, VOCAB, CONTEXT);
}

static dm_config expert_shape_of(dm_arch arch) {
    return reference_expert_shape(arch, VOCAB, CONTEXT);
}

static dm_config gpt2_shape(void) {
    dm_config c = shape_of(DM_ARCH_GPT2);
    c.head_dim = 6;
    c.n_kv_heads = 6;
    c.rope_base = 0.0f;
    return c;
}

/* Logits [TOKENS, VOCAB] of the same ids for any model. */
static void run(const char *path, float *logits) {
    dm_model *model = NULL;
    dm_session *session = NULL;
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = (i * 17 + 5) % VOCAB;
    }
    if (dm_model_open(path, &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    const dm_session_options options = {.context = TOKENS, .cache = DM_CACHE_F32};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, TOKENS, true, logits), DM_OK);
    dm_session_free(session);
    dm_model_close(model);
}

static void same_file(const char *a, const char *b) {
    uint8_t *left, *right;
    size_t n = test_read(a, &left), m = test_read(b, &right);
    assert_int_equal(n, m);
    assert_memory_equal(left, right, n);
    free(left);
    free(right);
}

static float largest_difference(const float *a, const float *b, size_t n) {
    float most = 0.0f;
    for (size_t i = 0; i < n; i++) {
        float d = fabsf(a[i] - b[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

/* ---- There and back ---- */

static void make(const dm_config *config) {
    reference_model m;
    clean();
    reference_make(&m, config, 7);
    reference_write(&m, test_path(FIRST));
    reference_free(&m);
}

/* A model of random weights, norms and biases to a folder, from there to a model, and that to a folder once more. */
static void check(const char *name, const dm_config *config) {
    static float before[TOKENS * VOCAB], after[TOKENS * VOCAB];
    char again[600];
    make(config);
    dm_convert_result there = convert(test_path(FIRST), test_path(FOLDER), NULL);
    dm_convert_result back = convert(test_path(FOLDER), test_path(SECOND), NULL);
    assert_false(there.to_gguf);
    assert_true(back.to_gguf);
    assert_string_equal(there.info.architecture, back.info.architecture);
    assert_int_equal(there.info.params, back.info.params);
    run(test_path(FIRST), before);
    run(test_path(SECOND), after);
    float difference = largest_difference(before, after, TOKENS * VOCAB);
    print_message("%s: %llu tensors, %.1e apart\n", name, (unsigned long long)there.tensors, (double)difference);
    assert_true(difference <= ((config->extra & DM_PART_ROPE_FACTORS) != 0 ? 1e-5f : 0.0f));
    convert(test_path(SECOND), test_path(AGAIN), NULL);
    snprintf(again, sizeof again, "%s/model.safetensors", test_path(AGAIN));
    same_file(inside("model.safetensors"), again);
    snprintf(again, sizeof again, "%s/config.json", test_path(AGAIN));
    same_file(inside("config.json"), again);
}

static void architectures(void **state) {
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
    dm_config c = gpt2_shape();
    check("gpt2", &c);
}

static void variants(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    c.tied_output = true;
    c.extra = DM_PART_QKV_BIAS | DM_PART_OUTPUT_BIAS | DM_PART_FFN_BIAS;
    check("llama, tied, with biases", &c);
    c = shape_of(DM_ARCH_LLAMA);
    c.window = 9;
    check("mistral", &c);
    c = shape_of(DM_ARCH_QWEN2);
    c.window = 9;
    check("qwen2 with a window", &c);
    c = gpt2_shape();
    c.tied_output = true;
    check("gpt2, tied", &c);
    c = expert_shape_of(DM_ARCH_QWEN3MOE);
    c.plain_gates = true;
    check("qwen3moe, gates as they are", &c);
    c = expert_shape_of(DM_ARCH_OLMOE);
    c.plain_gates = false;
    check("olmoe, gates divided", &c);
    c = expert_shape_of(DM_ARCH_LLAMA);
    c.extra = DM_PART_APART;
    c.tied_output = true;
    make(&c);
    convert(test_path(FIRST), test_path(FOLDER), NULL); /* experts apart are stacked on the way back */
    convert(test_path(FOLDER), test_path(SECOND), NULL);
    static float before[TOKENS * VOCAB], after[TOKENS * VOCAB];
    run(test_path(FIRST), before);
    run(test_path(SECOND), after);
    assert_true(largest_difference(before, after, TOKENS * VOCAB) < 1e-5f);
}

static void scaled_positions(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    c.rope_scaling = (dm_rope_scaling){.kind = DM_SCALING_LINEAR, .factor = 4.0f};
    check("linear", &c);
    c = shape_of(DM_ARCH_QWEN2);
    c.head_dim = 32;
    c.rope_scaling =
        (dm_rope_scaling){.kind = DM_SCALING_YARN, .factor = 8.0f, .original_context = 24, .beta_fast = 4.0f, .beta_slow = 1.0f};
    check("yarn", &c);
    c.arch = DM_ARCH_LLAMA;
    c.rope_scaling.attention = 0.8f;
    check("yarn with an attention factor", &c);
    c.rope_scaling = (dm_rope_scaling){.attention = 0.8f};
    make(&c);
    refuse(test_path(FIRST), test_path(FOLDER), NULL, DM_ERR_UNSUPPORTED, "attention factor without YaRN");
}

/* ---- Models of others ---- */

/* Logits [*n, vocab] (malloc) of ids.txt, fed at once. */
static float *logits_of(const char *path, size_t *n) {
    dm_model *model = NULL;
    dm_session *session = NULL;
    dm_model_info info;
    int32_t count;
    int32_t *ids = read_ids(MODELS "ids.txt", &count);
    if (dm_model_open(path, &model) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    dm_model_get_info(model, &info);
    *n = (size_t)count * (size_t)info.vocab;
    float *logits = malloc(*n * sizeof *logits);
    assert_non_null(logits);
    const dm_session_options options = {.context = count, .cache = DM_CACHE_F32};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, count, true, logits), DM_OK);
    dm_session_free(session);
    dm_model_close(model);
    free(ids);
    return logits;
}

/* Every tensor of one file is in the other, with the same numbers in whatever type. */
static void same_numbers(const char *a, const char *b) {
    dm_gguf *left, *right;
    assert_int_equal(dm_gguf_open(a, &left), DM_OK);
    assert_int_equal(dm_gguf_open(b, &right), DM_OK);
    assert_int_equal(dm_gguf_n_tensors(left), dm_gguf_n_tensors(right));
    for (size_t i = 0; i < dm_gguf_n_tensors(left); i++) {
        const dm_gguf_tensor *one = dm_gguf_tensor_at(left, i), *other = dm_gguf_find_tensor(right, one->name);
        assert_non_null(other);
        assert_int_equal(one->elements, other->elements);
        size_t n = (size_t)one->elements;
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        assert_true(x != NULL && y != NULL);
        dm_type_decoder((uint32_t)one->type)(x, one->data, n);
        dm_type_decoder((uint32_t)other->type)(y, other->data, n);
        assert_memory_equal(x, y, n * sizeof *x);
        free(x);
        free(y);
    }
    dm_gguf_close(left);
    dm_gguf_close(right);
}

/* Models that other programs made: the same logits there and back; of quantized ones, whose kernels round besides, the same
 * weights. */
static void shared_models(void **state) {
    (void)state;
    static const char *const names[] = {"gpt2-tiny", "llama-tiny", "mixtral-tiny", "olmoe-tiny", "qwen2moe-tiny", "qwen3moe-tiny",
                                        "quant-F16", "quant-Q8_0", "quant-Q6_K",   "quant-Q4_0", "quant-Q4_K_M",  "quant-Q2_K"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool blocks = strncmp(names[i], "quant-Q", 7) == 0;
        char path[512];
        size_t n, m;
        snprintf(path, sizeof path, MODELS "%s.gguf", names[i]);
        need(path);
        clean();
        convert(path, test_path(FOLDER), &(dm_convert_options){.type = blocks ? "f32" : NULL});
        convert(test_path(FOLDER), test_path(SECOND), NULL);
        same_numbers(path, test_path(SECOND));
        if (!blocks) {
            float *before = logits_of(path, &n), *after = logits_of(test_path(SECOND), &m);
            assert_int_equal(n, m);
            assert_memory_equal(before, after, n * sizeof *before);
            free(before);
            free(after);
        }
    }
}

/* ---- A folder written by hand ---- */

typedef struct by_hand {
    char header[20000];
    size_t length, bytes;
    float data[60000];
} by_hand;

static by_hand hand;

static void begin(void) {
    clean();
    assert_int_equal(mkdir(test_path(FOLDER), 0777), 0);
    hand = (by_hand){0};
    hand.length = (size_t)snprintf(hand.header, sizeof hand.header, "{\"__metadata__\":{\"format\":\"pt\"}");
}

static void add(const char *name, size_t rows, size_t columns, const float *values) {
    size_t n = rows * columns;
    char shape[64];
    snprintf(shape, sizeof shape, columns > 1 ? "%zu,%zu" : "%zu", rows, columns);
    hand.length += (size_t)snprintf(hand.header + hand.length, sizeof hand.header - hand.length,
                                    ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name, shape,
                                    hand.bytes, hand.bytes + n * sizeof(float));
    memcpy((char *)hand.data + hand.bytes, values, n * sizeof(float));
    hand.bytes += n * sizeof(float);
}

static void finish(const char *config) {
    FILE *stream = fopen(inside("model.safetensors"), "wb");
    assert_non_null(stream);
    hand.header[hand.length++] = '}';
    uint64_t length = hand.length;
    fwrite(&length, sizeof length, 1, stream);
    fwrite(hand.header, 1, hand.length, stream);
    fwrite(hand.data, 1, hand.bytes, stream);
    assert_int_equal(fclose(stream), 0);
    test_write(inside("config.json"), config, strlen(config));
}

static const float *weights_of(const reference_model *m, const char *name) {
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->specs[i].name, name) == 0) {
            return m->weights[i];
        }
    }
    fail_msg("%s is missing", name);
    return NULL;
}

/* The tensors of GGUF under the names of the other side, numbers as they are. */
static void add_layers(const reference_model *m) {
    static const struct {
        const char *ours, *theirs;
    } names[] = {
        {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
        {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"},
    };
    for (size_t i = 0; i < m->count; i++) {
        const dm_tensor_spec *spec = &m->specs[i];
        char ours[64], theirs[128];
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            snprintf(ours, sizeof ours, "blk.%d.%s.weight", (int)spec->layer, names[k].ours);
            snprintf(theirs, sizeof theirs, "model.layers.%d.%s.weight", (int)spec->layer, names[k].theirs);
            if (strcmp(spec->name, ours) == 0) {
                add(theirs, spec->dims[1] * (spec->n_dims > 1 ? 1 : spec->dims[0]), spec->n_dims > 1 ? spec->dims[0] : 1,
                    m->weights[i]);
            }
        }
    }
}

#define LLAMA_CONFIG(more)                                                                                                       \
    "{\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":36,\"num_attention_heads\":6,"                            \
    "\"num_key_value_heads\":2,\"head_dim\":10,\"intermediate_size\":44,\"vocab_size\":50,"                                      \
    "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0" more "}"

/* The weights of a qwen2 without biases as a llama folder, where both mean the same model: heads turn by halves. */
static void write_llama(const reference_model *m, const char *config) {
    begin();
    add("model.embed_tokens.weight", VOCAB, 36, weights_of(m, "token_embd.weight"));
    add_layers(m);
    add("model.norm.weight", 36, 1, weights_of(m, "output_norm.weight"));
    add("lm_head.weight", VOCAB, 36, weights_of(m, "output.weight"));
    finish(config);
}

static void make_qwen2(reference_model *m) {
    dm_config c = shape_of(DM_ARCH_QWEN2);
    reference_make(m, &c, 3);
    for (size_t i = 0; i < m->count; i++) {
        if (strstr(m->specs[i].name, ".bias") != NULL) {
            memset(m->weights[i], 0, m->specs[i].elements * sizeof(float));
        }
    }
}

static void heads_turn_alike(void **state) {
    (void)state;
    static float expected[TOKENS * VOCAB], got[TOKENS * VOCAB];
    reference_model m;
    make_qwen2(&m);
    write_llama(&m, LLAMA_CONFIG(""));
    reference_write(&m, test_path(FIRST));
    convert(test_path(FOLDER), test_path(SECOND), NULL);
    run(test_path(FIRST), expected);
    run(test_path(SECOND), got);
    float difference = largest_difference(expected, got, TOKENS * VOCAB);
    print_message("llama by halves: %.1e from qwen2\n", (double)difference);
    assert_true(difference < 2e-5f);
    reference_free(&m);
}

/* A scaling as Llama 3.1's, with numbers that matter in a short context; found again from the factors alone. */
static void llama3_scaling(void **state) {
    (void)state;
    static float first[TOKENS * VOCAB], second[TOKENS * VOCAB];
    reference_model m;
    make_qwen2(&m);
    write_llama(&m, LLAMA_CONFIG(",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                                 "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":100}"));
    convert(test_path(FOLDER), test_path(FIRST), NULL);
    dm_gguf *file;
    assert_int_equal(dm_gguf_open(test_path(FIRST), &file), DM_OK);
    const dm_gguf_tensor *factors = dm_gguf_find_tensor(file, "rope_freqs.weight");
    assert_non_null(factors);
    const float *f = factors->data;
    assert_int_equal(factors->elements, 5);
    assert_true(f[0] == 1.0f && f[1] > 1.0f && f[1] < 8.0f && f[4] == 8.0f);
    dm_gguf_close(file);
    convert(test_path(FIRST), test_path(AGAIN), NULL);
    convert(test_path(AGAIN), test_path(SECOND), NULL);
    run(test_path(FIRST), first);
    run(test_path(SECOND), second);
    assert_true(largest_difference(first, second, TOKENS * VOCAB) < 1e-5f);
    reference_free(&m);
}

/* GPT-2's products lie with columns as rows. */
static void gpt2_is_turned(void **state) {
    (void)state;
    dm_config c = gpt2_shape();
    make(&c);
    convert(test_path(FIRST), test_path(FOLDER), NULL);
    dm_safetensors *folder;
    dm_gguf *file;
    assert_int_equal(dm_safetensors_open_folder(test_path(FOLDER), &folder), DM_OK);
    assert_int_equal(dm_gguf_open(test_path(FIRST), &file), DM_OK);
    const dm_safetensor *theirs = dm_safetensors_find(folder, "transformer.h.1.mlp.c_fc.weight", NULL);
    const dm_gguf_tensor *ours = dm_gguf_find_tensor(file, "blk.1.ffn_up.weight");
    assert_true(theirs != NULL && ours != NULL && theirs->tensor.dims[0] == 44 && theirs->tensor.dims[1] == 36);
    const float *a = theirs->tensor.data, *b = ours->data;
    for (size_t in = 0; in < 36; in++) {
        for (size_t out = 0; out < 44; out++) {
            assert_true(a[in * 44 + out] == b[out * 36 + in]);
        }
    }
    dm_gguf_close(file);
    dm_safetensors_close(folder);
}

/* ---- Types and files ---- */

/* `user` is where the last word of progress goes: nothing is done twice, nothing left out. */
static void note(void *user, uint64_t done, uint64_t total) {
    uint64_t *last = user;
    assert_true(done > last[0] && done <= total && (last[1] == 0 || total == last[1]));
    last[0] = done;
    last[1] = total;
}

static void types_and_shards(void **state) {
    (void)state;
    uint64_t last[2] = {0};
    static float before[TOKENS * VOCAB], after[TOKENS * VOCAB];
    dm_config c = expert_shape_of(DM_ARCH_QWEN3MOE);
    make(&c);
    dm_convert_options options = {.type = "bf16", .shard_bytes = 20000};
    dm_convert_result made;
    assert_int_equal(dm_convert(test_path(FIRST), test_path(FOLDER), &options, note, last, &made), DM_OK);
    assert_true(last[0] == last[1] && last[0] == made.bytes);
    assert_true(made.files > 3);
    assert_int_equal(access(inside("model.safetensors"), F_OK), -1);
    assert_int_equal(access(inside("model.safetensors.index.json"), F_OK), 0);
    dm_safetensors *folder;
    assert_int_equal(dm_safetensors_open_folder(test_path(FOLDER), &folder), DM_OK);
    assert_int_equal(dm_safetensors_count(folder), made.tensors);
    assert_string_equal(dm_safetensors_find(folder, "model.layers.0.mlp.experts.6.up_proj.weight", NULL)->dtype, "BF16");
    assert_string_equal(dm_safetensors_find(folder, "model.norm.weight", NULL)->dtype, "F32"); /* its numbers are no bfloat16 */
    dm_safetensors_close(folder);
    convert(test_path(FOLDER), test_path(SECOND), &(dm_convert_options){.name = "a name"});
    dm_model *model;
    dm_model_info info;
    assert_int_equal(dm_model_open(test_path(SECOND), &model), DM_OK);
    dm_model_get_info(model, &info);
    assert_string_equal(info.name, "a name");
    dm_model_close(model);
    run(test_path(FIRST), before);
    run(test_path(SECOND), after);
    float difference = largest_difference(before, after, TOKENS * VOCAB);
    print_message("bf16: %.1e apart\n", (double)difference);
    assert_true(difference > 0.0f && difference < 0.5f);
    remove_folder(AGAIN);
    convert(test_path(SECOND), test_path(AGAIN), &(dm_convert_options){.dry_run = true});
    assert_int_equal(access(test_path(AGAIN), F_OK), -1);
}

static void quantized(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    c.dim = 256;
    c.ffn_dim = 256;
    make(&c);
    convert(test_path(FIRST), test_path(FOLDER), NULL);
    convert(test_path(FOLDER), test_path(SECOND), &(dm_convert_options){.type = "q4_k_m"});
    dm_gguf *file;
    assert_int_equal(dm_gguf_open(test_path(SECOND), &file), DM_OK);
    assert_int_equal(dm_gguf_find_tensor(file, "blk.0.ffn_up.weight")->type, DM_TYPE_Q4_K);
    uint32_t type;
    assert_int_equal(dm_gguf_get_u32(file, "general.file_type", &type), DM_OK);
    assert_int_equal(type, 15);
    dm_gguf_close(file);
    convert(test_path(SECOND), test_path(AGAIN), NULL);
    dm_safetensors *folder;
    assert_int_equal(dm_safetensors_open_folder(test_path(AGAIN), &folder), DM_OK);
    assert_string_equal(dm_safetensors_find(folder, "model.layers.0.mlp.up_proj.weight", NULL)->dtype, "F16");
    dm_safetensors_close(folder);
}

static void targets_are_kept(void **state) {
    (void)state;
    dm_config c = shape_of(DM_ARCH_LLAMA);
    make(&c);
    convert(test_path(FIRST), test_path(FOLDER), NULL);
    refuse(test_path(FIRST), test_path(FOLDER), NULL, DM_ERR_ARGUMENT, "is not empty");
    refuse(test_path(FIRST), test_path(FIRST), NULL, DM_ERR_ARGUMENT, "is no folder");
    refuse(test_path(FOLDER), test_path(FOLDER), NULL, DM_ERR_ARGUMENT, "is a folder");
    refuse(test_path(FOLDER), inside("config.json"), NULL, DM_ERR_ARGUMENT, "is no GGUF file");
    refuse(test_path(FOLDER), test_path(SECOND), &(dm_convert_options){.type = "q9"}, DM_ERR_ARGUMENT, "q4_k_m");
    refuse(test_path(FIRST), test_path(AGAIN), &(dm_convert_options){.type = "q4_k_m"}, DM_ERR_ARGUMENT, "f32, f16 or bf16");
    refuse(test_path("nowhere"), test_path(AGAIN), NULL, DM_ERR_IO, "nowhere");
    assert_int_equal(mkdir(test_path(AGAIN), 0777), 0); /* an empty folder will do */
    convert(test_path(FIRST), test_path(AGAIN), NULL);
    remove_folder(AGAIN);
    dm_interrupt();
    refuse(test_path(FIRST), test_path(AGAIN), NULL, DM_ERR_INTERRUPTED, "interrupted");
    refuse(test_path(FOLDER), test_path(SECOND), NULL, DM_ERR_INTERRUPTED, "interrupted");
    dm_interrupt_clear();
    assert_int_equal(access(test_path(SECOND), F_OK), -1);
    char **files; /* nothing half-made under any name */
    size_t count;
    const char *const whole[] = {test_path("")};
    assert_int_equal(dm_list_files(whole, 1, &files, &count), DM_OK);
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(files[i], ".tmp-"));
    }
    dm_free_list(files, count);
}

/* ---- What is refused ---- */

static void config_refusals(void **state) {
    (void)state;
    reference_model m;
    make_qwen2(&m);
    write_llama(&m, LLAMA_CONFIG(""));
    static const struct {
        const char *config, *word;
        dm_status status;
    } cases[] = {
        {LLAMA_CONFIG(",\"quantization_config\":{\"quant_method\":\"gptq\"}"), "quantized (gptq)", DM_ERR_UNSUPPORTED},
        {LLAMA_CONFIG(",\"hidden_act\":\"gelu\""), "hidden_act", DM_ERR_UNSUPPORTED},
        {LLAMA_CONFIG(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}"), "'dynamic'", DM_ERR_UNSUPPORTED},
        {LLAMA_CONFIG(",\"attention_bias\":true"), "q_proj.bias' is missing", DM_ERR_FORMAT},
        {LLAMA_CONFIG(",\"partial_rotary_factor\":0.5"), "partial_rotary_factor", DM_ERR_UNSUPPORTED},
        {LLAMA_CONFIG(",\"num_hidden_layers\":2"), "duplicate", DM_ERR_FORMAT},
        {"{\"model_type\":\"mamba\"}", "'mamba' is not supported, expected llama, mistral", DM_ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\"}", "'num_hidden_layers' is missing", DM_ERR_FORMAT},
        {"{\"model_type\":\"llama\",\"num_hidden_layers\":1.5}", "a whole number", DM_ERR_FORMAT},
        {"[]", "no JSON object", DM_ERR_FORMAT},
        {"{", "no JSON", DM_ERR_FORMAT},
        {"{}", "'model_type' is missing", DM_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_write(inside("config.json"), cases[i].config, strlen(cases[i].config));
        refuse(test_path(FOLDER), test_path(SECOND), NULL, cases[i].status, cases[i].word);
    }
    begin();
    add_layers(&m);
    add("model.embed_tokens.weight", VOCAB, 35, weights_of(&m, "token_embd.weight"));
    finish(LLAMA_CONFIG(""));
    refuse(test_path(FOLDER), test_path(SECOND), NULL, DM_ERR_FORMAT, "is [50, 35], expected [50, 36]");
    write_llama(&m, LLAMA_CONFIG(""));
    begin();
    add("model.layers.0.self_attn.surplus.weight", 1, 1, weights_of(&m, "token_embd.weight"));
    add("model.embed_tokens.weight", VOCAB, 36, weights_of(&m, "token_embd.weight"));
    add_layers(&m);
    add("model.norm.weight", 36, 1, weights_of(&m, "output_norm.weight"));
    finish(LLAMA_CONFIG(""));
    refuse(test_path(FOLDER), test_path(SECOND), NULL, DM_ERR_UNSUPPORTED, "surplus.weight' is not part");
    unlink(inside("model.safetensors"));
    refuse(test_path(FOLDER), test_path(SECOND), NULL, DM_ERR_IO, "has neither model.safetensors");
    reference_free(&m);
}

static void bad_file(const char *header, size_t data, const char *word) {
    uint8_t bytes[2048];
    uint64_t length = strlen(header);
    memcpy(bytes, &length, sizeof length);
    memcpy(bytes + 8, header, length);
    memset(bytes + 8 + length, 0, data);
    test_write(test_path(FIRST), bytes, 8 + length + data);
    dm_safetensors *file;
    assert_int_not_equal(dm_safetensors_open(test_path(FIRST), &file), DM_OK);
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
}

#define TENSOR(name, dtype, shape, offsets)                                                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"

static void hostile_safetensors(void **state) {
    (void)state;
    clean();
    bad_file("{" TENSOR("a", "F32", "2", "0,8"), 8, "no JSON");
    bad_file("{" TENSOR("a", "F32", "2", "0,8") "}", 4, "past its end");
    bad_file("{" TENSOR("a", "F32", "2", "0,8") "}", 12, "has 12 bytes of data, but its tensors take 8");
    bad_file("{" TENSOR("a", "F32", "3", "0,8") "}", 8, "has 8 bytes, but its shape and dtype need 12");
    bad_file("{" TENSOR("a", "F32", "2", "8,0") "}", 8, "no data_offsets");
    bad_file("{" TENSOR("a", "F32", "2", "0,-8") "}", 8, "no data_offsets");
    bad_file("{" TENSOR("a", "F32", "-2", "0,8") "}", 8, "cannot be");
    bad_file("{" TENSOR("a", "F32", "4294967296,4294967296,4294967296", "0,8") "}", 8, "cannot be");
    bad_file("{" TENSOR("a", "F32", "4611686018427387904,2", "0,8") "}", 8, "cannot be");
    bad_file("{" TENSOR("a", "F32", "1,1,1,1,1", "0,4") "}", 4, "up to 4 dimensions");
    bad_file("{" TENSOR("a", "Q9", "2", "0,8") "}", 8, "'Q9'");
    bad_file("{" TENSOR("a", "F32", "2", "0,8") "," TENSOR("a", "F32", "2", "0,8") "}", 8, "duplicate");
    bad_file("{" TENSOR("a", "F32", "2", "0,8") "," TENSOR("b", "F32", "2", "4,12") "}", 12, "overlaps");
    bad_file("{" TENSOR("a", "F32", "2", "0,8") "," TENSOR("b", "F32", "2", "12,20") "}", 20, "leaves a gap");
    bad_file("{" TENSOR("a\\n", "F32", "2", "0,8") "}", 8, "printable ASCII");
    bad_file("{\"a\":7}", 0, "dtype");
    bad_file("7", 0, "no JSON");
    uint64_t long_header = 1u << 30;
    test_write(test_path(FIRST), &long_header, sizeof long_header);
    dm_safetensors *file;
    assert_int_equal(dm_safetensors_open(test_path(FIRST), &file), DM_ERR_FORMAT);
    test_write(test_path(FIRST), "{}", 2);
    assert_int_equal(dm_safetensors_open(test_path(FIRST), &file), DM_ERR_FORMAT);
}

static void hostile_index(void **state) {
    (void)state;
    static const struct {
        const char *index, *word;
    } cases[] = {
        {"{}", "'weight_map' names no tensors"},
        {"{\"weight_map\":{\"a\":\"../first.gguf\"}}", "expected the name of a file in the folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "expected the name of a file in the folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "expected the name of a file in the folder"},
        {"{\"weight_map\":{\"a\":7}}", "expected the name of a file in the folder"},
        {"{\"weight_map\":{\"a\":\"nowhere.safetensors\"}}", "nowhere.safetensors: cannot open"},
        {"{\"weight_map\":{\"b\":\"part.safetensors\"}}", "tensor 'b' is not in 'part.safetensors'"},
    };
    begin();
    float one = 1.0f;
    add("a", 1, 1, &one);
    finish("{}");
    char part[600];
    snprintf(part, sizeof part, "%s", inside("part.safetensors"));
    assert_int_equal(rename(inside("model.safetensors"), part), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_write(inside("model.safetensors.index.json"), cases[i].index, strlen(cases[i].index));
        dm_safetensors *file;
        assert_int_not_equal(dm_safetensors_open_folder(test_path(FOLDER), &file), DM_OK);
        if (strstr(dm_error_message(), cases[i].word) == NULL) {
            fail_msg("expected '%s' in: %s", cases[i].word, dm_error_message());
        }
    }
}

static int clean_up(void **state) {
    (void)state;
    clean();
    test_remove((const char *const[]){NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(architectures),    cmocka_unit_test(variants),         cmocka_unit_test(scaled_positions),
        cmocka_unit_test(heads_turn_alike), cmocka_unit_test(shared_models),    cmocka_unit_test(llama3_scaling),
        cmocka_unit_test(gpt2_is_turned),   cmocka_unit_test(types_and_shards), cmocka_unit_test(quantized),
        cmocka_unit_test(targets_are_kept), cmocka_unit_test(config_refusals),  cmocka_unit_test(hostile_safetensors),
        cmocka_unit_test(hostile_index),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
