/*
 * The architectures and their tensors. Names of tensors are those that GGUF programs agree on, so that what is written
 * here runs elsewhere. A new architecture is a row of `rows`, and of `layouts` where it brings a tensor of a new kind.
 */
#include "model/arch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Architectures ---- */

#define LLAMA_LIKE (DM_PART_SEPARATE_QKV | DM_PART_GATED)

static const dm_arch_row rows[DM_ARCHS] = {
    [DM_ARCH_QWEN3MOE] = {.name = "qwen3moe",
                          .parts = LLAMA_LIKE | DM_PART_HEAD_NORM,
                          .optional = DM_PART_APART,
                          .rope = DM_ROPE_HALVES,
                          .experts = true,
                          .expert_key = true},
    [DM_ARCH_GPT2] = {.name = "gpt2",
                      .parts = DM_PART_LAYER_NORM | DM_PART_POSITIONS | DM_PART_FUSED_QKV | DM_PART_QKV_BIAS |
                               DM_PART_OUTPUT_BIAS | DM_PART_FFN_BIAS,
                      .rope = DM_ROPE_NONE,
                      .dense = true},
    [DM_ARCH_LLAMA] = {.name = "llama",
                       .parts = LLAMA_LIKE,
                       .optional =
                           DM_PART_QKV_BIAS | DM_PART_OUTPUT_BIAS | DM_PART_FFN_BIAS | DM_PART_ROPE_FACTORS | DM_PART_APART,
                       .rope = DM_ROPE_PAIRS,
                       .dense = true,
                       .experts = true},
    [DM_ARCH_OLMOE] = {.name = "olmoe",
                       .parts = LLAMA_LIKE | DM_PART_WHOLE_NORM,
                       .optional = DM_PART_APART,
                       .rope = DM_ROPE_HALVES,
                       .experts = true,
                       .plain_gates = true},
    [DM_ARCH_QWEN2] = {.name = "qwen2", .parts = LLAMA_LIKE | DM_PART_QKV_BIAS, .rope = DM_ROPE_HALVES, .dense = true},
    [DM_ARCH_QWEN2MOE] = {.name = "qwen2moe",
                          .parts = LLAMA_LIKE | DM_PART_QKV_BIAS,
                          .optional = DM_PART_APART,
                          .rope = DM_ROPE_HALVES,
                          .experts = true,
                          .plain_gates = true,
                          .expert_key = true},
    [DM_ARCH_QWEN3] = {.name = "qwen3", .parts = LLAMA_LIKE | DM_PART_HEAD_NORM, .rope = DM_ROPE_HALVES, .dense = true},
};

const dm_arch_row *dm_arch_row_of(dm_arch arch) {
    return &rows[arch];
}

const char *dm_arch_name(dm_arch arch) {
    return rows[arch].name;
}

dm_status dm_arch_from_name(const char *name, dm_arch *out) {
    char known[128];
    size_t used = 0;
    for (size_t i = 0; i < DM_ARCHS; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            *out = (dm_arch)i;
            return DM_OK;
        }
        const char *separator = i == 0 ? "" : i + 1 < DM_ARCHS ? ", " : " or ";
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", separator, rows[i].name); /* it fits */
    }
    return dm_fail(DM_ERR_UNSUPPORTED, "the architecture '%.60s' is not supported, expected %s", name, known);
}

/* ---- Tensors ---- */

/* Which number of the config a dimension is. */
typedef enum extent {
    NONE,
    DIM,
    VOCAB,
    CONTEXT,
    HEAD_DIM,
    ROPE_HALF,
    Q_ROWS,
    KV_ROWS,
    QKV_ROWS,
    FFN,
    EXPERTS,
    EXPERT_DIM,
    SHARED_DIM,
    EXTENTS
} extent;

typedef struct layout {
    dm_role role;
    const char *name; /* after "blk.N." for those of a layer */
    extent dims[3];   /* GGUF order */
    uint32_t needs;   /* there when the model has all of these parts */
} layout;

static const layout outside[] = {
    {DM_TOKEN_EMBD, "token_embd.weight", {DIM, VOCAB}, 0},
    {DM_POSITION_EMBD, "position_embd.weight", {DIM, CONTEXT}, DM_PART_POSITIONS},
    {DM_OUTPUT_NORM, "output_norm.weight", {DIM}, 0},
    {DM_OUTPUT_NORM_B, "output_norm.bias", {DIM}, DM_PART_LAYER_NORM},
    {DM_OUTPUT, "output.weight", {DIM, VOCAB}, DM_PART_OWN_OUTPUT},
    {DM_ROPE_FACTORS, "rope_freqs.weight", {ROPE_HALF}, DM_PART_ROPE_FACTORS},
};

static const layout inside[] = {
    {DM_ATTN_NORM, "attn_norm.weight", {DIM}, 0},
    {DM_ATTN_NORM_B, "attn_norm.bias", {DIM}, DM_PART_LAYER_NORM},
    {DM_ATTN_QKV, "attn_qkv.weight", {DIM, QKV_ROWS}, DM_PART_FUSED_QKV},
    {DM_ATTN_QKV_B, "attn_qkv.bias", {QKV_ROWS}, DM_PART_FUSED_QKV | DM_PART_QKV_BIAS},
    {DM_ATTN_Q, "attn_q.weight", {DIM, Q_ROWS}, DM_PART_SEPARATE_QKV},
    {DM_ATTN_K, "attn_k.weight", {DIM, KV_ROWS}, DM_PART_SEPARATE_QKV},
    {DM_ATTN_V, "attn_v.weight", {DIM, KV_ROWS}, DM_PART_SEPARATE_QKV},
    {DM_ATTN_Q_B, "attn_q.bias", {Q_ROWS}, DM_PART_SEPARATE_QKV | DM_PART_QKV_BIAS},
    {DM_ATTN_K_B, "attn_k.bias", {KV_ROWS}, DM_PART_SEPARATE_QKV | DM_PART_QKV_BIAS},
    {DM_ATTN_V_B, "attn_v.bias", {KV_ROWS}, DM_PART_SEPARATE_QKV | DM_PART_QKV_BIAS},
    {DM_ATTN_OUTPUT, "attn_output.weight", {Q_ROWS, DIM}, 0},
    {DM_ATTN_OUTPUT_B, "attn_output.bias", {DIM}, DM_PART_OUTPUT_BIAS},
    {DM_ATTN_Q_NORM, "attn_q_norm.weight", {HEAD_DIM}, DM_PART_HEAD_NORM},
    {DM_ATTN_K_NORM, "attn_k_norm.weight", {HEAD_DIM}, DM_PART_HEAD_NORM},
    {DM_ATTN_Q_NORM, "attn_q_norm.weight", {Q_ROWS}, DM_PART_WHOLE_NORM},
    {DM_ATTN_K_NORM, "attn_k_norm.weight", {KV_ROWS}, DM_PART_WHOLE_NORM},
    {DM_FFN_NORM, "ffn_norm.weight", {DIM}, 0},
    {DM_FFN_NORM_B, "ffn_norm.bias", {DIM}, DM_PART_LAYER_NORM},
    {DM_FFN_GATE, "ffn_gate.weight", {DIM, FFN}, DM_PART_DENSE | DM_PART_GATED},
    {DM_FFN_GATE_B, "ffn_gate.bias", {FFN}, DM_PART_DENSE | DM_PART_GATED | DM_PART_FFN_BIAS},
    {DM_FFN_UP, "ffn_up.weight", {DIM, FFN}, DM_PART_DENSE},
    {DM_FFN_UP_B, "ffn_up.bias", {FFN}, DM_PART_DENSE | DM_PART_FFN_BIAS},
    {DM_FFN_DOWN, "ffn_down.weight", {FFN, DIM}, DM_PART_DENSE},
    {DM_FFN_DOWN_B, "ffn_down.bias", {DIM}, DM_PART_DENSE | DM_PART_FFN_BIAS},
    {DM_FFN_ROUTER, "ffn_gate_inp.weight", {DIM, EXPERTS}, DM_PART_EXPERTS},
    {DM_FFN_GATE_EXPS, "ffn_gate_exps.weight", {DIM, EXPERT_DIM, EXPERTS}, DM_PART_STACKED},
    {DM_FFN_UP_EXPS, "ffn_up_exps.weight", {DIM, EXPERT_DIM, EXPERTS}, DM_PART_STACKED},
    {DM_FFN_DOWN_EXPS, "ffn_down_exps.weight", {EXPERT_DIM, DIM, EXPERTS}, DM_PART_STACKED},
    {DM_FFN_GATE_EXPS, "ffn_gate", {DIM, EXPERT_DIM}, DM_PART_APART}, /* ffn_gate.E.weight, for each expert */
    {DM_FFN_UP_EXPS, "ffn_up", {DIM, EXPERT_DIM}, DM_PART_APART},
    {DM_FFN_DOWN_EXPS, "ffn_down", {EXPERT_DIM, DIM}, DM_PART_APART},
    {DM_FFN_ROUTER_SHEXP, "ffn_gate_inp_shexp.weight", {DIM}, DM_PART_SHARED},
    {DM_FFN_GATE_SHEXP, "ffn_gate_shexp.weight", {DIM, SHARED_DIM}, DM_PART_SHARED},
    {DM_FFN_UP_SHEXP, "ffn_up_shexp.weight", {DIM, SHARED_DIM}, DM_PART_SHARED},
    {DM_FFN_DOWN_SHEXP, "ffn_down_shexp.weight", {SHARED_DIM, DIM}, DM_PART_SHARED},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

uint32_t dm_config_parts(const dm_config *c) {
    uint32_t experts = DM_PART_EXPERTS | ((c->extra & DM_PART_APART) != 0 ? 0 : DM_PART_STACKED);
    return rows[c->arch].parts | c->extra | (c->n_experts > 0 ? experts : DM_PART_DENSE) |
           (c->shared_dim > 0 ? DM_PART_SHARED : 0) | (c->tied_output ? 0 : DM_PART_OWN_OUTPUT);
}

int32_t dm_config_rope_dims(const dm_config *c) {
    return rows[c->arch].rope == DM_ROPE_NONE ? 0 : c->rope_dims > 0 ? c->rope_dims : c->head_dim;
}

static bool has(uint32_t parts, const layout *tensor) {
    return (tensor->needs & parts) == tensor->needs;
}

static uint64_t extent_of(const dm_config *c, extent which) {
    const uint64_t values[EXTENTS] = {
        [NONE] = 1,
        [DIM] = (uint64_t)c->dim,
        [VOCAB] = (uint64_t)c->vocab,
        [CONTEXT] = (uint64_t)c->context,
        [HEAD_DIM] = (uint64_t)c->head_dim,
        [ROPE_HALF] = (uint64_t)dm_config_rope_dims(c) / 2,
        [Q_ROWS] = (uint64_t)c->n_heads * (uint64_t)c->head_dim,
        [KV_ROWS] = (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim,
        [QKV_ROWS] = 3 * (uint64_t)c->dim,
        [FFN] = (uint64_t)c->ffn_dim,
        [EXPERTS] = (uint64_t)c->n_experts,
        [EXPERT_DIM] = (uint64_t)c->expert_dim,
        [SHARED_DIM] = (uint64_t)c->shared_dim,
    };
    return values[which];
}

static void name_tensor(const char *name, int32_t layer, int32_t expert, char *out, size_t size) {
    if (layer < 0) {
        snprintf(out, size, "%s", name);
    } else if (expert < 0) {
        snprintf(out, size, "blk.%" PRId32 ".%s", layer, name);
    } else {
        snprintf(out, size, "blk.%" PRId32 ".%s.%" PRId32 ".weight", layer, name, expert);
    }
}

static dm_tensor_spec make_spec(const dm_config *c, const layout *from, int32_t layer, int32_t expert) {
    dm_tensor_spec spec = {.role = from->role, .layer = layer, .expert = expert, .elements = 1};
    name_tensor(from->name, layer, expert, spec.name, sizeof spec.name);
    for (uint32_t d = 0; d < DM_MAX_DIMS; d++) {
        extent which = d < COUNT(from->dims) ? from->dims[d] : NONE;
        spec.dims[d] = extent_of(c, which);
        spec.elements *= spec.dims[d];
        spec.n_dims += which != NONE;
    }
    return spec;
}

/* How many tensors a line of the list stands for in one layer. */
static int32_t copies(const dm_config *c, const layout *tensor) {
    return (tensor->needs & DM_PART_APART) != 0 ? c->n_experts : 1;
}

size_t dm_config_n_tensors(const dm_config *c) {
    uint32_t parts = dm_config_parts(c);
    size_t once = 0, each = 0;
    for (size_t i = 0; i < COUNT(outside); i++) {
        once += has(parts, &outside[i]);
    }
    for (size_t i = 0; i < COUNT(inside); i++) {
        each += has(parts, &inside[i]) ? (size_t)copies(c, &inside[i]) : 0;
    }
    return once + (size_t)c->n_layers * each;
}

static size_t list_layer(const dm_config *c, int32_t layer, dm_tensor_spec *specs) {
    uint32_t parts = dm_config_parts(c);
    size_t count = 0;
    for (size_t i = 0; i < COUNT(inside); i++) {
        if (!has(parts, &inside[i])) {
            continue;
        }
        bool apart = (inside[i].needs & DM_PART_APART) != 0;
        for (int32_t e = 0; e < copies(c, &inside[i]); e++) {
            specs[count++] = make_spec(c, &inside[i], layer, apart ? e : -1);
        }
    }
    return count;
}

dm_status dm_config_tensors(const dm_config *c, dm_tensor_spec **specs, size_t *count) {
    uint32_t parts = dm_config_parts(c);
    *count = 0;
    *specs = malloc(dm_config_n_tensors(c) * sizeof **specs);
    if (*specs == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing %zu tensors", dm_config_n_tensors(c));
    }
    for (size_t i = 0; i < COUNT(outside); i++) {
        if (has(parts, &outside[i])) {
            (*specs)[(*count)++] = make_spec(c, &outside[i], -1, -1);
        }
    }
    for (int32_t layer = 0; layer < c->n_layers; layer++) {
        *count += list_layer(c, layer, *specs + *count);
    }
    return DM_OK;
}

/* A part is there when the first layer has one of its tensors; one that is then missing elsewhere is named later. */
static uint32_t shown_parts(const layout *list, size_t n, int32_t layer, uint32_t optional, const dm_gguf *file) {
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++) {
        char name[sizeof((dm_tensor_spec){0}).name];
        int32_t expert = (list[i].needs & DM_PART_APART) != 0 ? 0 : -1;
        name_tensor(list[i].name, layer, expert, name, sizeof name);
        if ((list[i].needs & optional) != 0 && dm_gguf_find_tensor(file, name) != NULL) {
            found |= list[i].needs & optional;
        }
    }
    return found;
}

uint32_t dm_arch_extra_parts(dm_arch arch, const dm_gguf *file) {
    uint32_t optional = rows[arch].optional;
    return shown_parts(outside, COUNT(outside), -1, optional, file) | shown_parts(inside, COUNT(inside), 0, optional, file);
}

dm_type dm_config_stored_type(const dm_tensor_spec *spec, dm_type matrices) {
    bool exact = spec->n_dims == 1 || spec->role == DM_FFN_ROUTER || spec->role == DM_POSITION_EMBD;
    return exact ? DM_TYPE_F32 : matrices;
}

/* ---- Totals ---- */

static uint64_t sum_of(const dm_config *c, const layout *tensors, size_t n) {
    uint32_t parts = dm_config_parts(c);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (has(parts, &tensors[i])) {
            sum += make_spec(c, &tensors[i], -1, -1).elements * (uint64_t)copies(c, &tensors[i]);
        }
    }
    return sum;
}

uint64_t dm_config_params(const dm_config *c) {
    return sum_of(c, outside, COUNT(outside)) + (uint64_t)c->n_layers * sum_of(c, inside, COUNT(inside));
}

/* Embeddings count whole, as the field counts them; only experts are left out. */
uint64_t dm_config_active_params(const dm_config *c) {
    uint64_t idle = (uint64_t)(c->n_experts - c->top_k) * 3 * (uint64_t)c->expert_dim * (uint64_t)c->dim;
    return dm_config_params(c) - (uint64_t)c->n_layers * idle;
}
