#include <math.h>
#include <stdlib.h>

#include "model/hf_config.h"

/* ---- Keys ---- */

/* Remembers, in `failed`, what memory was short for. */
typedef struct target {
    json_t *object;
    bool failed;
} target;

static void add(target *to, const char *key, json_t *value) {
    to->failed |= json_object_set_new(to->object, key, value) != 0;
}

static void add_int(target *to, const char *key, int32_t value) {
    add(to, key, json_integer(value));
}

/* The shortest number that reads back as the same float: 1e-06, not 9.99999997e-07. */
static void add_float(target *to, const char *key, float value) {
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) {
            break;
        }
    }
    add(to, key, json_real(strtod(text, NULL)));
}

static void add_bool(target *to, const char *key, bool value) {
    add(to, key, json_boolean(value));
}

static void add_text(target *to, const char *key, const char *value) {
    add(to, key, json_string(value));
}

static void add_scaling(target *to, const dm_config *c, const dm_llama3_scaling *llama3) {
    const dm_rope_scaling *s = &c->rope_scaling;
    target scaling = {json_object(), false};
    add_text(&scaling, "rope_type", llama3 != NULL ? "llama3" : s->kind == DM_SCALING_YARN ? "yarn" : "linear");
    add_float(&scaling, "factor", llama3 != NULL ? llama3->factor : s->factor);
    if (llama3 != NULL) {
        add_float(&scaling, "low_freq_factor", llama3->low);
        add_float(&scaling, "high_freq_factor", llama3->high);
        add_int(&scaling, "original_max_position_embeddings", llama3->original_context);
    } else if (s->kind == DM_SCALING_YARN) {
        float own = 1.0f + 0.1f * logf(s->factor);
        add_int(&scaling, "original_max_position_embeddings", s->original_context);
        add_float(&scaling, "beta_fast", s->beta_fast);
        add_float(&scaling, "beta_slow", s->beta_slow);
        add_float(&scaling, "attention_factor", own * (s->attention != 0.0f ? s->attention : 1.0f));
    }
    to->failed |= scaling.failed;
    add(to, "rope_scaling", scaling.object);
}

static dm_status add_rope(target *to, const dm_config *c, const float *factors) {
    dm_llama3_scaling llama3;
    add_float(to, "rope_theta", c->rope_base);
    if (factors != NULL) {
        if (c->rope_scaling.kind != DM_SCALING_NONE || !dm_llama3_find(factors, (size_t)c->head_dim / 2, c->rope_base, &llama3)) {
            return dm_fail(DM_ERR_UNSUPPORTED,
                           "the factors in 'rope_freqs.weight' are no scaling that Hugging Face's format can express");
        }
        add_scaling(to, c, &llama3);
    } else if (c->rope_scaling.kind != DM_SCALING_NONE) {
        add_scaling(to, c, NULL);
    } else {
        add(to, "rope_scaling", json_null());
    }
    return DM_OK;
}

static void add_window(target *to, const dm_config *c, const dm_hf_kind *kind) {
    if (kind->window || kind->window_switch) {
        add(to, "sliding_window", c->window > 0 ? json_integer(c->window) : json_null());
    }
    if (kind->window_switch) {
        add_bool(to, "use_sliding_window", c->window > 0);
        add_int(to, "max_window_layers", c->window > 0 ? 0 : c->n_layers);
    }
}

static void add_feed_forward(target *to, const dm_config *c, const dm_hf_kind *kind) {
    if (kind->experts_key == NULL) {
        add_int(to, "intermediate_size", c->ffn_dim);
        return;
    }
    add_int(to, kind->experts_key, c->n_experts);
    add_int(to, "num_experts_per_tok", c->top_k);
    add_int(to, kind->width_key, c->expert_dim);
    if (kind->says_norm) {
        add_bool(to, "norm_topk_prob", !c->plain_gates);
    }
    if (c->shared_dim > 0) {
        add_int(to, "shared_expert_intermediate_size", c->shared_dim);
    }
    if (c->arch == DM_ARCH_QWEN2MOE || c->arch == DM_ARCH_QWEN3MOE) {
        add_int(to, "decoder_sparse_step", 1);
        add(to, "mlp_only_layers", json_array());
        add_int(to, "intermediate_size", c->expert_dim); /* of dense layers, of which there are none */
    }
}

static dm_status add_rotary_model(target *to, const dm_config *c, const dm_hf_kind *kind, const float *factors) {
    add_int(to, "num_hidden_layers", c->n_layers);
    add_int(to, "hidden_size", c->dim);
    add_int(to, "num_attention_heads", c->n_heads);
    add_int(to, "num_key_value_heads", c->n_kv_heads);
    add_int(to, "head_dim", c->head_dim);
    add_int(to, "max_position_embeddings", c->context);
    add_float(to, "rms_norm_eps", c->norm_eps);
    add_text(to, "hidden_act", "silu");
    add_feed_forward(to, c, kind);
    add_window(to, c, kind);
    if (kind->own_bias) {
        add_bool(to, "attention_bias", (c->extra & DM_PART_QKV_BIAS) != 0);
        add_bool(to, "mlp_bias", (c->extra & DM_PART_FFN_BIAS) != 0);
    }
    return add_rope(to, c, factors);
}

static void add_gpt2(target *to, const dm_config *c) {
    add_int(to, "n_layer", c->n_layers);
    add_int(to, "n_embd", c->dim);
    add_int(to, "n_head", c->n_heads);
    add_int(to, "n_positions", c->context);
    add_int(to, "n_inner", c->ffn_dim);
    add_float(to, "layer_norm_epsilon", c->norm_eps);
    add_text(to, "activation_function", "gelu_new");
}

dm_status dm_hf_config_write(const dm_config *c, const float *factors, dm_type type, json_t **out) {
    const dm_hf_kind *kind;
    *out = NULL;
    DM_TRY(dm_hf_kind_for(c, &kind));
    target to = {json_object(), false};
    add(&to, "architectures", json_pack("[s]", kind->class_name));
    add_text(&to, "model_type", kind->model_type);
    add_text(&to, "torch_dtype", type == DM_TYPE_F32 ? "float32" : type == DM_TYPE_F16 ? "float16" : "bfloat16");
    add_int(&to, "vocab_size", c->vocab);
    add_bool(&to, "tie_word_embeddings", c->tied_output);
    dm_status status = DM_OK;
    if (c->arch == DM_ARCH_GPT2) {
        add_gpt2(&to, c);
    } else {
        status = add_rotary_model(&to, c, kind, factors);
    }
    if (status == DM_OK && to.failed) {
        status = dm_fail(DM_ERR_MEMORY, "out of memory writing config.json");
    }
    if (status != DM_OK) {
        json_decref(to.object);
        return status;
    }
    *out = to.object;
    return DM_OK;
}
