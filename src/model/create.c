/* The shape of a new model: what was asked for, and defaults. */
#include "model/create.h"

#include "model/arch.h"

static int32_t or_default(int32_t value, int32_t fallback) {
    return value != 0 ? value : fallback;
}

dm_status dm_config_from_info(const dm_model_info *info, int32_t vocab, bool tied_output, dm_config *out) {
    dm_config c = {.arch = DM_ARCH_QWEN3MOE};
    if (info->architecture[0] != '\0') {
        DM_TRY(dm_arch_from_name(info->architecture, &c.arch));
    }
    const dm_arch_row *row = dm_arch_row_of(c.arch);
    bool rotary = row->rope != DM_ROPE_NONE;
    bool experts = row->experts && (!row->dense || info->experts > 0);
    c.n_layers = or_default(info->layers, rotary ? 6 : 12);
    c.dim = or_default(info->dim, rotary ? 256 : 768);
    c.n_heads = or_default(info->heads, c.dim / 64 > 0 ? c.dim / 64 : 1);
    c.n_kv_heads = or_default(info->kv_heads, c.n_heads);
    c.head_dim = or_default(info->head_dim, c.n_heads > 0 ? c.dim / c.n_heads : 0);
    c.ffn_dim = or_default(info->ffn_dim, experts ? 0 : 4 * (c.dim < INT32_MAX / 4 ? c.dim : 0));
    c.n_experts = or_default(info->experts, experts ? 32 : 0);
    c.top_k = or_default(info->top_k, c.n_experts < 4 ? c.n_experts : 4);
    c.expert_dim = or_default(info->expert_dim, experts ? c.dim / 2 : 0);
    c.shared_dim = or_default(info->shared_dim, c.arch == DM_ARCH_QWEN2MOE ? c.expert_dim : 0);
    c.vocab = or_default(info->vocab, vocab);
    c.context = or_default(info->context, 1024);
    c.window = info->window;
    c.norm_eps = rotary ? 1e-6f : 1e-5f;
    c.rope_base = rotary ? 10000.0f : 0.0f;
    c.plain_gates = experts && row->plain_gates;
    c.tied_output = tied_output;
    DM_TRY(dm_config_check(&c));
    *out = c;
    return DM_OK;
}
