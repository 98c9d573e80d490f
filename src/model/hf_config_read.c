#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/hf_config.h"

typedef struct reader {
    dm_json_reader json;
    const dm_hf_kind *kind;
} reader;

static dm_status refuse(const reader *r, const char *key, const char *expected) {
    const json_t *value = dm_json_get(&r->json, key);
    char *text = value != NULL ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    dm_status status = dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s' is %.60s, expected %s", r->json.path, key,
                               text != NULL ? text : "missing", expected);
    free(text);
    return status;
}

/* ---- What is refused ---- */

static dm_status expect_bool(const reader *r, const char *key, bool expected) {
    bool value = expected;
    DM_TRY(dm_json_bool_or(&r->json, key, expected, &value));
    return value == expected ? DM_OK : refuse(r, key, expected ? "true" : "false");
}

static dm_status expect_activation(const reader *r, const char *key, const char *name, const char *other) {
    const char *value = name;
    DM_TRY(dm_json_text_or(&r->json, key, name, &value));
    return strcmp(value, name) == 0 || strcmp(value, other) == 0 ? DM_OK : refuse(r, key, name);
}

static dm_status refuse_quantized(const reader *r) {
    const json_t *quantization = dm_json_get(&r->json, "quantization_config");
    if (quantization == NULL) {
        return DM_OK;
    }
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));
    return dm_fail(DM_ERR_UNSUPPORTED,
                   "%s: the weights are quantized (%.40s), expected F32, F16 or BF16; convert the original model", r->json.path,
                   method != NULL ? method : "quantization_config");
}

static dm_status refuse_unknown_computation(const reader *r) {
    static const char *const absent[] = {"clip_qkv", "attn_logit_softcapping", "final_logit_softcapping", "partial_rotary_factor",
                                         "attention_chunk_size"};
    DM_TRY(refuse_quantized(r));
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        float value = 0.0f;
        DM_TRY(dm_json_float_or(&r->json, absent[i], 0.0f, &value));
        if (value != 0.0f && !(value == 1.0f && strcmp(absent[i], "partial_rotary_factor") == 0)) {
            return refuse(r, absent[i], "null");
        }
    }
    DM_TRY(expect_bool(r, "is_encoder_decoder", false));
    DM_TRY(expect_bool(r, "add_cross_attention", false));
    if (r->kind->arch == DM_ARCH_GPT2) {
        DM_TRY(expect_bool(r, "scale_attn_weights", true));
        DM_TRY(expect_bool(r, "scale_attn_by_inverse_layer_idx", false));
        return expect_activation(r, "activation_function", "gelu_new", "gelu_pytorch_tanh");
    }
    return expect_activation(r, "hidden_act", "silu", "swish");
}

/* ---- Rotary positions ---- */

static dm_status read_llama3(const dm_json_reader *from, const dm_config *c, float **factors) {
    dm_llama3_scaling s = {0};
    DM_TRY(dm_json_float_or(from, "factor", 8.0f, &s.factor));
    DM_TRY(dm_json_float_or(from, "low_freq_factor", 1.0f, &s.low));
    DM_TRY(dm_json_float_or(from, "high_freq_factor", 4.0f, &s.high));
    DM_TRY(dm_json_int_or(from, "original_max_position_embeddings", 8192, &s.original_context));
    if (!(s.factor >= 1.0f && s.factor <= 1e6f && s.low > 0.0f && s.high > s.low && s.high <= 1e6f && s.original_context > 0)) {
        return dm_fail(DM_ERR_FORMAT,
                       "%s: the scaling 'llama3' has a factor of %g from %g to %g turns in %" PRId32
                       " positions, which cannot be",
                       from->path, (double)s.factor, (double)s.low, (double)s.high, s.original_context);
    }
    size_t half = c->head_dim > 0 && c->head_dim < INT16_MAX ? (size_t)c->head_dim / 2 : 0; /* others are refused later */
    *factors = malloc((half + 1) * sizeof **factors);
    if (*factors == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory", from->path);
    }
    dm_llama3_factors(&s, c->rope_base, half, *factors);
    return DM_OK;
}

static float mscale(float factor, float scale) {
    return factor > 1.0f ? 0.1f * scale * logf(factor) + 1.0f : 1.0f;
}

static dm_status read_yarn(const dm_json_reader *from, dm_config *c) {
    dm_rope_scaling *s = &c->rope_scaling;
    float stated = 0.0f, part = 0.0f, all = 0.0f;
    DM_TRY(dm_json_int_or(from, "original_max_position_embeddings", c->context, &s->original_context));
    DM_TRY(dm_json_float_or(from, "beta_fast", 32.0f, &s->beta_fast));
    DM_TRY(dm_json_float_or(from, "beta_slow", 1.0f, &s->beta_slow));
    DM_TRY(dm_json_float_or(from, "attention_factor", 0.0f, &stated));
    DM_TRY(dm_json_float_or(from, "mscale", 0.0f, &part));
    DM_TRY(dm_json_float_or(from, "mscale_all_dim", 0.0f, &all));
    if (stated == 0.0f && part != 0.0f && all != 0.0f) {
        stated = mscale(s->factor, part) / mscale(s->factor, all);
    }
    stated = stated != 0.0f ? stated : mscale(s->factor, 1.0f);
    float beside = stated / (1.0f + 0.1f * logf(s->factor)); /* that one is YaRN's own */
    s->attention = fabsf(beside - 1.0f) < 1e-6f ? 0.0f : beside;
    return DM_OK;
}

/* The kind of scaling, "type" in older files. */
static dm_status read_scaling(const dm_json_reader *from, dm_config *c, float **factors) {
    const char *type = NULL;
    DM_TRY(dm_json_text_or(from, "type", "default", &type));
    DM_TRY(dm_json_text_or(from, "rope_type", type, &type));
    DM_TRY(dm_json_float_or(from, "factor", 1.0f, &c->rope_scaling.factor));
    if (strcmp(type, "llama3") == 0 && c->arch == DM_ARCH_LLAMA) {
        c->rope_scaling.factor = 0.0f;
        return read_llama3(from, c, factors);
    }
    if (strcmp(type, "linear") == 0 && c->rope_scaling.factor != 1.0f) {
        c->rope_scaling.kind = DM_SCALING_LINEAR;
        return DM_OK;
    }
    if (strcmp(type, "yarn") == 0) {
        c->rope_scaling.kind = DM_SCALING_YARN;
        return read_yarn(from, c);
    }
    c->rope_scaling.factor = 0.0f;
    if (strcmp(type, "default") != 0 && strcmp(type, "linear") != 0) {
        return dm_fail(DM_ERR_UNSUPPORTED,
                       "%s: scaling rotary positions by '%.30s' is not supported for %s, expected default, "
                       "linear, yarn%s",
                       from->path, type, dm_arch_name(c->arch), c->arch == DM_ARCH_LLAMA ? " or llama3" : "");
    }
    return DM_OK;
}

/* "rope_parameters" in files of 2025 on, with the base inside; before, "rope_scaling" or null beside it. */
static dm_status read_rope(const reader *r, dm_config *c, float **factors) {
    const json_t *object = dm_json_get(&r->json, "rope_parameters");
    object = object != NULL ? object : dm_json_get(&r->json, "rope_scaling");
    DM_TRY(dm_json_float_or(&r->json, "rope_theta", r->kind->usual_base, &c->rope_base));
    if (object == NULL) {
        return DM_OK;
    }
    if (!json_is_object(object)) {
        return dm_fail(DM_ERR_FORMAT, "%s: the scaling of rotary positions is no object", r->json.path);
    }
    const dm_json_reader inside = {object, r->json.path};
    DM_TRY(dm_json_float_or(&inside, "rope_theta", c->rope_base, &c->rope_base));
    float partial = 1.0f;
    DM_TRY(dm_json_float_or(&inside, "partial_rotary_factor", 1.0f, &partial));
    if (partial != 1.0f) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: key 'partial_rotary_factor' is %g, expected 1", r->json.path, (double)partial);
    }
    return read_scaling(&inside, c, factors);
}

/* ---- The window ---- */

/* Layers of several kinds are not handled: all slide or none does. *slides is left alone where the file has no list. */
static dm_status read_layer_types(const reader *r, bool *slides) {
    const json_t *types = dm_json_get(&r->json, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool sliding = type != NULL && strcmp(type, "sliding_attention") == 0;
        bool full = type != NULL && strcmp(type, "full_attention") == 0;
        if ((!sliding && !full) || (i > 0 && sliding != *slides)) {
            return refuse(r, "layer_types", "the same attention in all layers, full or sliding");
        }
        *slides = sliding;
    }
    return DM_OK;
}

static dm_status read_window(const reader *r, dm_config *c) {
    const dm_hf_kind *kind = r->kind;
    bool slides = kind->window, used = false;
    int32_t full = c->n_layers;
    bool said = json_object_get(r->json.object, "sliding_window") != NULL; /* null is a word too */
    if (kind->window_switch) {
        DM_TRY(dm_json_bool_or(&r->json, "use_sliding_window", false, &used));
        DM_TRY(dm_json_int_or(&r->json, "max_window_layers", 28, &full));
        slides = used && full < c->n_layers;
        if (slides && full > 0 && dm_json_get(&r->json, "layer_types") == NULL) {
            return refuse(r, "max_window_layers", "0: the same attention in all layers");
        }
    }
    DM_TRY(read_layer_types(r, &slides));
    if (slides) {
        DM_TRY(dm_json_int_or(&r->json, "sliding_window", said ? 0 : kind->usual_window, &c->window));
    }
    return DM_OK;
}

/* ---- The rest of the shape ---- */

static dm_status read_experts(const reader *r, dm_config *c) {
    bool norm = false;
    int32_t sparse = 1;
    DM_TRY(dm_json_int(&r->json, r->kind->experts_key, &c->n_experts));
    DM_TRY(dm_json_int(&r->json, "num_experts_per_tok", &c->top_k));
    DM_TRY(dm_json_int(&r->json, r->kind->width_key, &c->expert_dim));
    if (r->kind->says_norm) {
        DM_TRY(dm_json_bool_or(&r->json, "norm_topk_prob", false, &norm));
        c->plain_gates = !norm;
    }
    if (c->arch == DM_ARCH_QWEN2MOE) {
        DM_TRY(dm_json_int(&r->json, "shared_expert_intermediate_size", &c->shared_dim));
    }
    DM_TRY(dm_json_int_or(&r->json, "decoder_sparse_step", 1, &sparse));
    if (sparse != 1) {
        return refuse(r, "decoder_sparse_step", "1: experts in every layer");
    }
    return json_array_size(dm_json_get(&r->json, "mlp_only_layers")) == 0
               ? DM_OK
               : refuse(r, "mlp_only_layers", "none: experts in every layer");
}

static dm_status read_biases(const reader *r, dm_config *c) {
    bool attention = false, ffn = false, qkv = true;
    DM_TRY(dm_json_bool_or(&r->json, "attention_bias", false, &attention));
    DM_TRY(dm_json_bool_or(&r->json, "mlp_bias", false, &ffn));
    DM_TRY(dm_json_bool_or(&r->json, "qkv_bias", true, &qkv));
    if (!r->kind->own_bias && attention) {
        return refuse(r, "attention_bias", "false");
    }
    if (!r->kind->own_bias && ffn) {
        return refuse(r, "mlp_bias", "false");
    }
    if (!qkv) {
        return refuse(r, "qkv_bias", "true");
    }
    c->extra = (attention ? DM_PART_QKV_BIAS | DM_PART_OUTPUT_BIAS : 0) | (ffn ? DM_PART_FFN_BIAS : 0);
    return DM_OK;
}

static dm_status read_rotary_model(const reader *r, dm_config *c, float **factors) {
    DM_TRY(dm_json_int(&r->json, "num_hidden_layers", &c->n_layers));
    DM_TRY(dm_json_int(&r->json, "hidden_size", &c->dim));
    DM_TRY(dm_json_int(&r->json, "num_attention_heads", &c->n_heads));
    DM_TRY(dm_json_int_or(&r->json, "num_key_value_heads", c->n_heads, &c->n_kv_heads));
    int32_t usual = r->kind->usual_head != 0 ? r->kind->usual_head : c->n_heads > 0 ? c->dim / c->n_heads : 0;
    DM_TRY(dm_json_int_or(&r->json, "head_dim", usual, &c->head_dim));
    DM_TRY(dm_json_int(&r->json, "max_position_embeddings", &c->context));
    DM_TRY(dm_json_float_or(&r->json, "rms_norm_eps", 1e-6f, &c->norm_eps));
    DM_TRY(r->kind->experts_key != NULL ? read_experts(r, c) : dm_json_int(&r->json, "intermediate_size", &c->ffn_dim));
    DM_TRY(read_biases(r, c));
    DM_TRY(read_window(r, c));
    return read_rope(r, c, factors);
}

static dm_status read_gpt2(const reader *r, dm_config *c) {
    DM_TRY(dm_json_int(&r->json, "n_layer", &c->n_layers));
    DM_TRY(dm_json_int(&r->json, "n_embd", &c->dim));
    DM_TRY(dm_json_int(&r->json, "n_head", &c->n_heads));
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    DM_TRY(dm_json_int(&r->json, "n_positions", &c->context));
    DM_TRY(dm_json_int_or(&r->json, "n_inner", c->dim < INT32_MAX / 4 ? 4 * c->dim : 0, &c->ffn_dim));
    return dm_json_float_or(&r->json, "layer_norm_epsilon", 1e-5f, &c->norm_eps);
}

static dm_status read_kind(const dm_json_reader *json, const dm_hf_kind **kind) {
    const char *type = json_string_value(json_array_get(dm_json_get(json, "architectures"), 0));
    DM_TRY(dm_json_text_or(json, "model_type", type, &type));
    if (type == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: the key 'model_type' is missing", json->path);
    }
    return dm_hf_kind_of(type, json->path, kind);
}

static dm_status read_all(const reader *r, dm_config *c, float **factors) {
    DM_TRY(refuse_unknown_computation(r));
    DM_TRY(r->kind->arch == DM_ARCH_GPT2 ? read_gpt2(r, c) : read_rotary_model(r, c, factors));
    DM_TRY(dm_json_int(&r->json, "vocab_size", &c->vocab));
    DM_TRY(dm_json_bool_or(&r->json, "tie_word_embeddings", false, &c->tied_output));
    c->extra |= *factors != NULL ? DM_PART_ROPE_FACTORS : 0;
    return dm_config_check(c) == DM_OK ? DM_OK : dm_fail_in(DM_ERR_FORMAT, r->json.path);
}

bool dm_hf_config_says_tied(const json_t *object) {
    return json_is_boolean(json_object_get(object, "tie_word_embeddings"));
}

dm_status dm_hf_config_read(const json_t *object, const char *path, dm_config *out, float **factors) {
    reader r = {.json = {object, path}};
    *factors = NULL;
    DM_TRY(read_kind(&r.json, &r.kind));
    *out = (dm_config){.arch = r.kind->arch};
    dm_status status = read_all(&r, out, factors);
    if (status != DM_OK) {
        free(*factors);
        *factors = NULL;
    }
    return status;
}
