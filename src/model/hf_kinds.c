#include <string.h>

#include "model/hf_config.h"

static const dm_hf_kind kinds[] = {
    {.model_type = "llama", .class_name = "LlamaForCausalLM", .arch = DM_ARCH_LLAMA, .own_bias = true, .usual_base = 10000.0f},
    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .arch = DM_ARCH_LLAMA,
     .window = true,
     .usual_window = 4096,
     .usual_base = 10000.0f},
    {.model_type = "mixtral",
     .class_name = "MixtralForCausalLM",
     .arch = DM_ARCH_LLAMA,
     .experts_key = "num_local_experts",
     .width_key = "intermediate_size",
     .window = true,
     .usual_base = 1e6f},
    {.model_type = "olmoe",
     .class_name = "OlmoeForCausalLM",
     .arch = DM_ARCH_OLMOE,
     .experts_key = "num_experts",
     .width_key = "intermediate_size",
     .says_norm = true,
     .usual_base = 10000.0f},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .arch = DM_ARCH_QWEN2,
     .window_switch = true,
     .usual_base = 10000.0f},
    {.model_type = "qwen2_moe",
     .class_name = "Qwen2MoeForCausalLM",
     .arch = DM_ARCH_QWEN2MOE,
     .experts_key = "num_experts",
     .width_key = "moe_intermediate_size",
     .says_norm = true,
     .window_switch = true,
     .usual_base = 10000.0f},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .arch = DM_ARCH_QWEN3,
     .window_switch = true,
     .usual_head = 128,
     .usual_base = 10000.0f},
    {.model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .arch = DM_ARCH_QWEN3MOE,
     .experts_key = "num_experts",
     .width_key = "moe_intermediate_size",
     .says_norm = true,
     .window_switch = true,
     .usual_base = 10000.0f},
    {.model_type = "gpt2", .class_name = "GPT2LMHeadModel", .arch = DM_ARCH_GPT2},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

dm_status dm_hf_kind_of(const char *model_type, const char *path, const dm_hf_kind **out) {
    char known[160];
    size_t used = 0;
    for (size_t i = 0; i < N_KINDS; i++) {
        if (strcmp(kinds[i].model_type, model_type) == 0 || strcmp(kinds[i].class_name, model_type) == 0) {
            *out = &kinds[i];
            return DM_OK;
        }
        const char *separator = i == 0 ? "" : i + 1 < N_KINDS ? ", " : " or ";
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", separator, kinds[i].model_type); /* it fits */
    }
    return dm_fail(DM_ERR_UNSUPPORTED, "%s: the model type '%.60s' is not supported, expected %s", path, model_type, known);
}

/* What of a shape no config.json of that kind can say; NULL: nothing. */
static const char *unsaid(const dm_config *c, const dm_hf_kind *kind) {
    uint32_t biases = DM_PART_QKV_BIAS | DM_PART_OUTPUT_BIAS;
    uint32_t extra = c->extra & (biases | DM_PART_FFN_BIAS);
    if (extra != 0 && !kind->own_bias) {
        return "biases";
    }
    if ((extra & biases) != 0 && (extra & biases) != biases) {
        return "biases of some products of attention and not of others";
    }
    if (c->window > 0 && !kind->window && !kind->window_switch) {
        return "a sliding window";
    }
    if (c->rope_dims != 0) {
        return "heads of which a part turns with the position";
    }
    if (c->rope_scaling.kind != DM_SCALING_YARN && c->rope_scaling.attention != 0.0f) {
        return "an attention factor without YaRN";
    }
    if (c->expert_scale != 0.0f) {
        return "a scale of the experts' gates";
    }
    return c->n_experts > 0 && c->plain_gates && !kind->says_norm ? "gates that are not divided by their sum" : NULL;
}

static bool fits(const dm_config *c, const dm_hf_kind *kind) {
    bool windowed = kind->window && kind->experts_key == NULL; /* Mistral is Llama with a window */
    return kind->arch == c->arch && (kind->experts_key != NULL) == (c->n_experts > 0) && (!windowed || c->window > 0) &&
           (c->arch != DM_ARCH_LLAMA || windowed || c->n_experts > 0 || c->window == 0);
}

dm_status dm_hf_kind_for(const dm_config *c, const dm_hf_kind **out) {
    for (size_t i = 0; i < N_KINDS; i++) {
        if (!fits(c, &kinds[i])) {
            continue;
        }
        const char *problem = unsaid(c, &kinds[i]);
        if (problem != NULL) {
            return dm_fail(DM_ERR_UNSUPPORTED, "the model has %s, which %s cannot have in Hugging Face's format", problem,
                           kinds[i].model_type);
        }
        *out = &kinds[i];
        return DM_OK;
    }
    return dm_fail(DM_ERR_UNSUPPORTED, "the architecture %s has no kind in Hugging Face's format", dm_arch_name(c->arch));
}
