/* Shapes: what is possible, and what the public API is told. */
#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "model/arch.h"
#include "moe/router.h"

/* Generous for any model known, small enough that no product of them overflows 63 bits. */
#define MAX_LAYERS 1024
#define MAX_DIM (1 << 17)
#define MAX_HEADS (1 << 12)
#define MAX_HEAD_DIM (1 << 12)
#define MAX_FFN_DIM (1 << 18)
#define MAX_EXPERTS (1 << 13)
#define MAX_VOCAB (1 << 24)
#define MAX_CONTEXT (1 << 24)

static dm_status check_range(const char *what, int32_t value, int32_t least, int32_t most) {
    if (value < least || value > most) {
        return dm_fail(DM_ERR_ARGUMENT, "%s is %" PRId32 ", expected %" PRId32 " to %" PRId32, what, value, least, most);
    }
    return DM_OK;
}

/* The limits are those of numbers that mean anything; NaN is outside all of them. */
static dm_status check_number(const char *what, float value, float least, float most) {
    if (!(value >= least && value <= most)) {
        return dm_fail(DM_ERR_ARGUMENT, "%s is %g, expected %g to %g", what, (double)value, (double)least, (double)most);
    }
    return DM_OK;
}

static dm_status check_scaling(const dm_config *c) {
    const dm_rope_scaling *s = &c->rope_scaling;
    if (s->attention != 0.0f) {
        DM_TRY(check_number("the attention factor of the rotary scaling", s->attention, 1e-3f, 1e3f));
    }
    if (s->kind == DM_SCALING_NONE) {
        return DM_OK;
    }
    DM_TRY(check_number("the factor of the rotary scaling", s->factor, 1e-3f, 1e6f));
    if (s->kind == DM_SCALING_LINEAR) {
        return DM_OK;
    }
    DM_TRY(check_range("the original context of the rotary scaling", s->original_context, 1, MAX_CONTEXT));
    DM_TRY(check_number("the slow beta of the rotary scaling", s->beta_slow, 1e-3f, 1e6f));
    return check_number("the fast beta of the rotary scaling", s->beta_fast, s->beta_slow, 1e6f);
}

static dm_status check_positions(const dm_config *c) {
    if (dm_arch_row_of(c->arch)->rope == DM_ROPE_NONE) {
        if (c->rope_base != 0.0f || c->rope_dims != 0 || c->rope_scaling.kind != DM_SCALING_NONE) {
            return dm_fail(DM_ERR_ARGUMENT, "%s has learned positions, expected nothing about rotary ones",
                           dm_arch_name(c->arch));
        }
        return DM_OK;
    }
    DM_TRY(check_range("the width of a head that rotary positions turn", c->rope_dims, 0, c->head_dim));
    if (dm_config_rope_dims(c) % 2 != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%" PRId32 " numbers of a head turn with the position, expected an even number",
                       dm_config_rope_dims(c));
    }
    DM_TRY(check_number("the base of the rotary positions", c->rope_base, 1.0f, 1e12f));
    return check_scaling(c);
}

static dm_status check_fused(const dm_config *c) {
    if (c->n_kv_heads != c->n_heads || (int64_t)c->n_heads * c->head_dim != c->dim) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "%s with %" PRId32 " heads of %" PRId32 " and %" PRId32 " key heads for a width of %" PRId32
                       ": expected as many key heads as heads, and heads that make up the width",
                       dm_arch_name(c->arch), c->n_heads, c->head_dim, c->n_kv_heads, c->dim);
    }
    return DM_OK;
}

static dm_status check_feed_forward(const dm_config *c) {
    const dm_arch_row *row = dm_arch_row_of(c->arch);
    char what[96];
    snprintf(what, sizeof what, "the number of experts of %s", row->name);
    DM_TRY(check_range(what, c->n_experts, row->dense ? 0 : 1, row->experts ? MAX_EXPERTS : 0));
    bool experts = c->n_experts > 0;
    int32_t most = c->n_experts < DM_ROUTER_MAX_TOP_K ? c->n_experts : DM_ROUTER_MAX_TOP_K;
    DM_TRY(check_range("the number of experts per token", c->top_k, experts, most));
    DM_TRY(check_range("the width of an expert", c->expert_dim, experts, experts ? MAX_FFN_DIM : 0));
    DM_TRY(check_range("the dense feed-forward width", c->ffn_dim, !experts, experts ? 0 : MAX_FFN_DIM));
    bool shared = c->arch == DM_ARCH_QWEN2MOE; /* the only one whose shared expert has the gate that is computed here */
    DM_TRY(check_range("the width of the shared expert", c->shared_dim, shared, shared ? MAX_FFN_DIM : 0));
    if (c->expert_scale != 0.0f) {
        DM_TRY(check_number("the scale of the experts' gates", c->expert_scale, 1e-6f, 1e6f));
    }
    return DM_OK;
}

dm_status dm_config_check(const dm_config *c) {
    DM_TRY(check_range("the number of layers", c->n_layers, 1, MAX_LAYERS));
    DM_TRY(check_range("the width of the model", c->dim, 1, MAX_DIM));
    DM_TRY(check_range("the number of heads", c->n_heads, 1, MAX_HEADS));
    DM_TRY(check_range("the number of key and value heads", c->n_kv_heads, 1, c->n_heads));
    DM_TRY(check_range("the width of a head", c->head_dim, 1, MAX_HEAD_DIM));
    DM_TRY(check_range("the vocabulary", c->vocab, 1, MAX_VOCAB));
    DM_TRY(check_range("the context", c->context, 1, MAX_CONTEXT));
    DM_TRY(check_range("the sliding window", c->window, 0, MAX_CONTEXT));
    if (c->n_heads % c->n_kv_heads != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%" PRId32 " heads cannot share %" PRId32 " key and value heads evenly", c->n_heads,
                       c->n_kv_heads);
    }
    if (!(c->norm_eps > 0.0f && c->norm_eps < 1.0f)) {
        return dm_fail(DM_ERR_ARGUMENT, "the epsilon of the norms is %g, expected above 0 and below 1", (double)c->norm_eps);
    }
    if ((dm_config_parts(c) & DM_PART_FUSED_QKV) != 0) {
        DM_TRY(check_fused(c));
    }
    DM_TRY(check_positions(c));
    return check_feed_forward(c);
}

static bool scaling_equal(const dm_rope_scaling *a, const dm_rope_scaling *b) {
    return a->kind == b->kind && a->factor == b->factor && a->attention == b->attention &&
           a->original_context == b->original_context && a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow;
}

bool dm_config_equal(const dm_config *a, const dm_config *b) {
    return a->arch == b->arch && a->n_layers == b->n_layers && a->dim == b->dim && a->n_heads == b->n_heads &&
           a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->ffn_dim == b->ffn_dim &&
           a->n_experts == b->n_experts && a->top_k == b->top_k && a->expert_dim == b->expert_dim &&
           a->shared_dim == b->shared_dim && a->vocab == b->vocab && a->context == b->context && a->window == b->window &&
           a->norm_eps == b->norm_eps && a->rope_base == b->rope_base && dm_config_rope_dims(a) == dm_config_rope_dims(b) &&
           scaling_equal(&a->rope_scaling, &b->rope_scaling) && a->expert_scale == b->expert_scale &&
           a->plain_gates == b->plain_gates && a->tied_output == b->tied_output && a->extra == b->extra;
}

void dm_config_info(const dm_config *c, dm_model_info *out) {
    *out = (dm_model_info){
        .params = dm_config_params(c),
        .active_params = dm_config_active_params(c),
        .layers = c->n_layers,
        .dim = c->dim,
        .heads = c->n_heads,
        .kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .ffn_dim = c->ffn_dim,
        .experts = c->n_experts,
        .top_k = c->top_k,
        .expert_dim = c->expert_dim,
        .shared_dim = c->shared_dim,
        .window = c->window,
        .vocab = c->vocab,
        .context = c->context,
    };
    snprintf(out->architecture, sizeof out->architecture, "%s", dm_arch_name(c->arch));
}
