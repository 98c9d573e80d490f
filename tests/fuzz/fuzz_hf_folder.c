/*
 * The JSON files of Hugging Face's folders. Input: how many bytes of text, two bytes; the text; a line that says which file;
 * its JSON. A config.json that is taken is a shape that holds together and comes back from what is written of it; a
 * tokenizer.json that is taken gives ids within the vocabulary, the text back, and itself again.
 */
#include <sys/stat.h>

#include "fuzz.h"
#include "model/hf_config.h"
#include "model/hf_tokenizer.h"

enum { VOCAB = 64 };

/* ---- config.json ---- */

static void check_config(const json_t *object) {
    dm_config config, again;
    float *factors, *factors_again;
    if (dm_hf_config_read(object, "config.json", &config, &factors) != DM_OK) {
        return;
    }
    FUZZ_CHECK(dm_config_check(&config) == DM_OK);
    FUZZ_CHECK((factors != NULL) == ((config.extra & DM_PART_ROPE_FACTORS) != 0));
    json_t *written;
    if (dm_hf_config_write(&config, factors, DM_TYPE_BF16, &written) == DM_OK) {
        FUZZ_CHECK(dm_hf_config_read(written, "again", &again, &factors_again) == DM_OK);
        FUZZ_CHECK(again.n_layers == config.n_layers && again.head_dim == config.head_dim && again.window == config.window &&
                   again.n_experts == config.n_experts && again.plain_gates == config.plain_gates &&
                   again.extra == config.extra && again.rope_base == config.rope_base && again.norm_eps == config.norm_eps);
        json_decref(written);
        free(factors_again);
    }
    free(factors);
}

/* ---- tokenizer.json ---- */

static void check_text(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags) {
    int32_t *ids;
    size_t n, back;
    char *again;
    if (dm_tokenizer_encode(tokenizer, text, length, flags, &ids, &n) != DM_OK) {
        FUZZ_CHECK(tokenizer->lacks_bytes);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < VOCAB);
    }
    FUZZ_CHECK(dm_tokenizer_decode(tokenizer, ids, n, (flags & DM_ENCODE_SPECIAL) != 0, &again, &back) == DM_OK);
    if (!(tokenizer->lacks_bytes && tokenizer->unknown >= 0)) {
        FUZZ_CHECK(back == length && memcmp(again, text, length) == 0);
    }
    free(again);
    free(ids);
}

static void check_tokenizer(const json_t *object, const char *folder, const char *text, size_t length) {
    dm_tokenizer *tokenizer, *again;
    if (dm_hf_tokenizer_parse(object, "tokenizer.json", VOCAB, &tokenizer) != DM_OK) {
        return;
    }
    FUZZ_CHECK(dm_special_find_ends(tokenizer) == DM_OK && dm_vocabulary_finish(tokenizer) == DM_OK);
    FUZZ_CHECK(dm_tokenizer_vocab(tokenizer) == VOCAB);
    check_text(tokenizer, text, length, 0);
    check_text(tokenizer, text, length, DM_ENCODE_SPECIAL);
    if (dm_hf_tokenizer_write(tokenizer, 128, folder) == DM_OK) {
        FUZZ_CHECK(dm_hf_tokenizer_read(folder, NULL, VOCAB, &again) == DM_OK);
        FUZZ_CHECK(dm_tokenizer_vocab(again) == VOCAB && again->kind == tokenizer->kind &&
                   again->n_merges == tokenizer->n_merges);
        dm_tokenizer_close(again);
    }
    dm_tokenizer_close(tokenizer);
}

/* ---- Input ---- */

static const char *folder_of_process(void) {
    static char folder[64];
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "%s/dilmodeli-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        FUZZ_CHECK(mkdtemp(folder) != NULL);
    }
    return folder;
}

static void leave(void) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder_of_process(), names[i]);
        unlink(path);
    }
    rmdir(folder_of_process());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool registered;
    if (!registered) {
        registered = atexit(leave) == 0;
    }
    if (size < 3) {
        return 0;
    }
    size_t length = (size_t)(data[0] | data[1] << 8);
    length = length < size - 3 ? length : size - 3;
    const char *text = (const char *)data + 2;
    bool config = data[2 + length] == 'c';
    json_t *object;
    if (dm_json_parse("input", text + length + 1, size - 3 - length, &object) == DM_OK) {
        if (config) {
            check_config(object);
        } else {
            check_tokenizer(object, folder_of_process(), text, length);
        }
        json_decref(object);
    }
    return 0;
}

/* ---- Seeds ---- */

static void add_seed(const char *name, char kind, const char *json) {
    static const char text[] = "ab ab<x> a\xc3\xa9";
    uint8_t bytes[8192];
    size_t length = sizeof text - 1, n = strlen(json);
    bytes[0] = (uint8_t)length;
    bytes[1] = 0;
    memcpy(bytes + 2, text, length);
    bytes[2 + length] = (uint8_t)kind;
    memcpy(bytes + 3 + length, json, n);
    fuzz_seed(name, bytes, 3 + length + n);
}

#define ROTARY                                                                                                                   \
    "\"num_hidden_layers\":2,\"hidden_size\":36,\"num_attention_heads\":6,\"num_key_value_heads\":2,\"head_dim\":10,"            \
    "\"vocab_size\":50,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"intermediate_size\":44,"   \
    "\"tie_word_embeddings\":false"
#define EXPERTS ",\"num_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":22,\"norm_topk_prob\":true"

static void seed_configs(void) {
    add_seed("llama", 'c',
             "{\"model_type\":\"llama\"," ROTARY
             ",\"attention_bias\":true,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
             "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":100}}");
    add_seed("mistral", 'c', "{\"architectures\":[\"MistralForCausalLM\"]," ROTARY ",\"sliding_window\":9}");
    add_seed("mixtral", 'c',
             "{\"model_type\":\"mixtral\"," ROTARY ",\"num_local_experts\":8,\"num_experts_per_tok\":2,\"sliding_window\":null}");
    add_seed("qwen2", 'c',
             "{\"model_type\":\"qwen2\"," ROTARY ",\"use_sliding_window\":true,\"max_window_layers\":0,\"sliding_window\":8,"
             "\"layer_types\":[\"sliding_attention\",\"sliding_attention\"],\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
             "\"mscale\":1.0,\"mscale_all_dim\":0.7,\"original_max_position_embeddings\":16}}");
    add_seed("qwen2_moe", 'c', "{\"model_type\":\"qwen2_moe\"," ROTARY EXPERTS ",\"shared_expert_intermediate_size\":30}");
    add_seed("qwen3_moe", 'c',
             "{\"model_type\":\"qwen3_moe\"," ROTARY EXPERTS ",\"decoder_sparse_step\":1,\"mlp_only_layers\":[],"
             "\"rope_parameters\":{\"rope_type\":\"linear\",\"rope_theta\":5000,\"factor\":2}}");
    add_seed(
        "gpt2", 'c',
        "{\"model_type\":\"gpt2\",\"n_layer\":2,\"n_embd\":36,\"n_head\":6,\"n_positions\":64,\"n_inner\":null,\"vocab_size\":50,"
        "\"layer_norm_epsilon\":1e-05,\"activation_function\":\"gelu_new\"}");
    add_seed("gptq", 'c', "{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"gptq\"}}");
}

#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"
#define REGEX(text) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" text "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define ADDED                                                                                                                    \
    "\"added_tokens\":[{\"id\":6,\"content\":\"<x>\",\"special\":true},{\"id\":7,\"content\":\"<u>\",\"special\":false}]"

static void fuzz_seeds(void) {
    seed_configs();
    add_seed("bytes", 't',
             "{" ADDED ",\"pre_tokenizer\":" BYTES
             ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xc4\xa0\":3},"
             "\"merges\":[\"a b\"]}}");
    add_seed(
        "pairs", 't',
        "{" ADDED
        ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," BYTES
        "]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xc4\xa0\":3},\"merges\":[[\"a\",\"b\"]]}}");
    add_seed("words", 't',
             "{" ADDED ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" REGEX(
                 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
                 "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
                 "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") ",{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_"
                                                               "regex\":false}]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
                                                               "\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}");
    add_seed(
        "pieces", 't',
        "{" ADDED ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<x>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\"}}]},"
        "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<u>\",\"byte_fallback\":true,\"vocab\":{\"<0x61>\":0,\"\xe2\x96\x81\":1,"
        "\"a\":2,"
        "\"b\":3,\"ab\":4,\"\xe2\x96\x81"
        "ab\":5},\"merges\":[\"a b\",\"\xe2\x96\x81 ab\"]}}");
    add_seed("metaspace", 't',
             "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"always\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
             "\"a\":0},"
             "\"merges\":[]}}");
}
