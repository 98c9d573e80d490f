#include "model/hf_tensors.h"

#include <inttypes.h>
#include <string.h>

#include "model/arch.h"

typedef struct naming {
    dm_role role;
    const char *name; /* %d stands for the layer, a second one for the expert */
    const char *gpt2; /* the same there, NULL: it has none */
} naming;

static const naming names[] = {
    {DM_TOKEN_EMBD, "embed_tokens.weight", "wte.weight"},
    {DM_POSITION_EMBD, NULL, "wpe.weight"},
    {DM_OUTPUT_NORM, "norm.weight", "ln_f.weight"},
    {DM_OUTPUT_NORM_B, NULL, "ln_f.bias"},
    {DM_OUTPUT, "lm_head.weight", "lm_head.weight"},
    {DM_ATTN_NORM, "layers.%d.input_layernorm.weight", "h.%d.ln_1.weight"},
    {DM_ATTN_NORM_B, NULL, "h.%d.ln_1.bias"},
    {DM_ATTN_QKV, NULL, "h.%d.attn.c_attn.weight"},
    {DM_ATTN_QKV_B, NULL, "h.%d.attn.c_attn.bias"},
    {DM_ATTN_Q, "layers.%d.self_attn.q_proj.weight", NULL},
    {DM_ATTN_K, "layers.%d.self_attn.k_proj.weight", NULL},
    {DM_ATTN_V, "layers.%d.self_attn.v_proj.weight", NULL},
    {DM_ATTN_Q_B, "layers.%d.self_attn.q_proj.bias", NULL},
    {DM_ATTN_K_B, "layers.%d.self_attn.k_proj.bias", NULL},
    {DM_ATTN_V_B, "layers.%d.self_attn.v_proj.bias", NULL},
    {DM_ATTN_Q_NORM, "layers.%d.self_attn.q_norm.weight", NULL},
    {DM_ATTN_K_NORM, "layers.%d.self_attn.k_norm.weight", NULL},
    {DM_ATTN_OUTPUT, "layers.%d.self_attn.o_proj.weight", "h.%d.attn.c_proj.weight"},
    {DM_ATTN_OUTPUT_B, "layers.%d.self_attn.o_proj.bias", "h.%d.attn.c_proj.bias"},
    {DM_FFN_NORM, "layers.%d.post_attention_layernorm.weight", "h.%d.ln_2.weight"},
    {DM_FFN_NORM_B, NULL, "h.%d.ln_2.bias"},
    {DM_FFN_GATE, "layers.%d.mlp.gate_proj.weight", NULL},
    {DM_FFN_GATE_B, "layers.%d.mlp.gate_proj.bias", NULL},
    {DM_FFN_UP, "layers.%d.mlp.up_proj.weight", "h.%d.mlp.c_fc.weight"},
    {DM_FFN_UP_B, "layers.%d.mlp.up_proj.bias", "h.%d.mlp.c_fc.bias"},
    {DM_FFN_DOWN, "layers.%d.mlp.down_proj.weight", "h.%d.mlp.c_proj.weight"},
    {DM_FFN_DOWN_B, "layers.%d.mlp.down_proj.bias", "h.%d.mlp.c_proj.bias"},
    {DM_FFN_ROUTER, "layers.%d.mlp.gate.weight", NULL},
    {DM_FFN_GATE_EXPS, "layers.%d.mlp.experts.%d.gate_proj.weight", NULL},
    {DM_FFN_UP_EXPS, "layers.%d.mlp.experts.%d.up_proj.weight", NULL},
    {DM_FFN_DOWN_EXPS, "layers.%d.mlp.experts.%d.down_proj.weight", NULL},
    {DM_FFN_ROUTER_SHEXP, "layers.%d.mlp.shared_expert_gate.weight", NULL},
    {DM_FFN_GATE_SHEXP, "layers.%d.mlp.shared_expert.gate_proj.weight", NULL},
    {DM_FFN_UP_SHEXP, "layers.%d.mlp.shared_expert.up_proj.weight", NULL},
    {DM_FFN_DOWN_SHEXP, "layers.%d.mlp.shared_expert.down_proj.weight", NULL},
};

/* Mixtral's own. */
static const naming mixtral[] = {
    {DM_FFN_ROUTER, "layers.%d.block_sparse_moe.gate.weight", NULL},
    {DM_FFN_GATE_EXPS, "layers.%d.block_sparse_moe.experts.%d.w1.weight", NULL},
    {DM_FFN_UP_EXPS, "layers.%d.block_sparse_moe.experts.%d.w3.weight", NULL},
    {DM_FFN_DOWN_EXPS, "layers.%d.block_sparse_moe.experts.%d.w2.weight", NULL},
};

static const char *find(const naming *list, size_t n, dm_arch arch, dm_role role) {
    for (size_t i = 0; i < n; i++) {
        if (list[i].role == role) {
            return arch == DM_ARCH_GPT2 ? list[i].gpt2 : list[i].name;
        }
    }
    return NULL;
}

/* Every role that an architecture here has, but for factors, has a name. */
static const char *name_of(dm_arch arch, dm_role role) {
    const char *own = arch == DM_ARCH_LLAMA ? find(mixtral, sizeof mixtral / sizeof *mixtral, arch, role) : NULL;
    own = own != NULL ? own : find(names, sizeof names / sizeof *names, arch, role);
    return own != NULL ? own : "";
}

/* "layers.%d.mlp.experts.%d.w1" with its numbers. */
static void fill_in(const char *name, int32_t layer, int32_t expert, char *out, size_t size) {
    int32_t numbers[] = {layer, expert};
    size_t used = 0, next = 0;
    while (*name != '\0' && used + 1 < size) {
        if (strncmp(name, "%d", 2) == 0 && next < 2) {
            int wrote = snprintf(out + used, size - used, "%" PRId32, numbers[next++]);
            used += wrote > 0 ? (size_t)wrote : 0;
            name += 2;
        } else {
            out[used++] = *name++;
        }
    }
    out[used < size ? used : size - 1] = '\0';
}

static bool stacked(const dm_tensor_spec *spec) {
    return spec->expert < 0 && dm_role_is_expert(spec->role);
}

int32_t dm_hf_parts(const dm_config *config, const dm_tensor_spec *spec) {
    return spec->role == DM_ROPE_FACTORS ? 0 : stacked(spec) ? config->n_experts : 1;
}

static dm_hf_form form_of(dm_arch arch, const dm_tensor_spec *spec) {
    bool turns = spec->role == DM_ATTN_Q || spec->role == DM_ATTN_K || spec->role == DM_ATTN_Q_B || spec->role == DM_ATTN_K_B;
    if (arch == DM_ARCH_GPT2) {
        bool embedding = spec->role == DM_TOKEN_EMBD || spec->role == DM_POSITION_EMBD || spec->role == DM_OUTPUT;
        return spec->n_dims > 1 && !embedding ? DM_HF_TURNED : DM_HF_SAME;
    }
    return turns && dm_arch_row_of(arch)->rope == DM_ROPE_PAIRS ? DM_HF_HALVES : DM_HF_SAME;
}

void dm_hf_describe(const dm_config *config, const dm_tensor_spec *spec, int32_t part, dm_hf_tensor *out) {
    *out = (dm_hf_tensor){.bare = spec->role == DM_OUTPUT, .form = form_of(config->arch, spec), .n_dims = spec->n_dims};
    fill_in(name_of(config->arch, spec->role), spec->layer, spec->expert >= 0 ? spec->expert : part, out->name, sizeof out->name);
    memcpy(out->dims, spec->dims, sizeof out->dims);
    out->elements = spec->elements;
    if (stacked(spec)) {
        out->n_dims = 2;
        out->elements /= out->dims[2];
        out->dims[2] = 1;
    }
    if (spec->role == DM_FFN_ROUTER_SHEXP) {
        out->n_dims = 2; /* a matrix of one row */
    }
    if (out->form == DM_HF_TURNED) {
        out->dims[0] = spec->dims[1];
        out->dims[1] = spec->dims[0];
    }
}

const char *dm_hf_prefix(dm_arch arch) {
    return arch == DM_ARCH_GPT2 ? "transformer." : "model.";
}

const char *dm_hf_embedding(dm_arch arch) {
    return name_of(arch, DM_TOKEN_EMBD);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

bool dm_hf_is_buffer(const char *name) {
    return ends_with(name, ".rotary_emb.inv_freq") ||
           (strncmp(name, "h.", 2) == 0 && (ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias")));
}
