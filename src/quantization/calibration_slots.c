#include "quantization/calibration_slots.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Which of a layer's slots are the first of a kind. */
enum { ATTENTION_IN, ATTENTION_OUT, FEED_FORWARD };

static size_t shared_slots(const dm_config *c) {
    return c->shared_dim > 0 ? 2 : 0;
}

static size_t slots_of_layer(const dm_config *c) {
    return FEED_FORWARD + 2 * (size_t)(c->n_experts > 0 ? c->n_experts : 1) + shared_slots(c);
}

size_t dm_calibration_slots(const dm_config *c) {
    return (size_t)c->n_layers * slots_of_layer(c) + 1;
}

static bool is_fused(const dm_config *c) {
    return (dm_config_parts(c) & DM_PART_FUSED_QKV) != 0;
}

static size_t columns_of(const dm_config *c, dm_role role) {
    switch (role) {
    case DM_ATTN_OUTPUT:
        return (size_t)c->n_heads * (size_t)c->head_dim;
    case DM_FFN_DOWN:
        return (size_t)c->ffn_dim;
    case DM_FFN_DOWN_EXPS:
        return (size_t)c->expert_dim;
    case DM_FFN_DOWN_SHEXP:
        return (size_t)c->shared_dim;
    default:
        return (size_t)c->dim;
    }
}

static dm_calibration_slot slot(const dm_config *c, int32_t layer, dm_role role, int32_t expert) {
    return (dm_calibration_slot){layer, role, expert, columns_of(c, role)};
}

dm_calibration_slot dm_calibration_slot_at(const dm_config *c, size_t index) {
    const size_t each = slots_of_layer(c), at = index % each, experts = (size_t)c->n_experts;
    const int32_t layer = (int32_t)(index / each);
    if (layer == c->n_layers) {
        return slot(c, -1, DM_OUTPUT, -1);
    }
    if (at < FEED_FORWARD) {
        return slot(c, layer, at == ATTENTION_OUT ? DM_ATTN_OUTPUT : is_fused(c) ? DM_ATTN_QKV : DM_ATTN_Q, -1);
    }
    if (at >= each - shared_slots(c)) {
        return slot(c, layer, at + 1 < each ? DM_FFN_UP_SHEXP : DM_FFN_DOWN_SHEXP, -1);
    }
    const size_t inner = at - FEED_FORWARD;
    if (experts == 0) {
        return slot(c, layer, inner == 0 ? DM_FFN_UP : DM_FFN_DOWN, -1);
    }
    return slot(c, layer, inner < experts ? DM_FFN_UP_EXPS : DM_FFN_DOWN_EXPS, (int32_t)(inner % experts));
}

/* Place in a layer; SIZE_MAX for roles that have none. */
static size_t place(const dm_config *c, dm_role role) {
    const size_t experts = (size_t)c->n_experts, shared = slots_of_layer(c) - shared_slots(c);
    switch (role) {
    case DM_ATTN_QKV:
        return is_fused(c) ? ATTENTION_IN : SIZE_MAX;
    case DM_ATTN_Q:
    case DM_ATTN_K:
    case DM_ATTN_V:
        return is_fused(c) ? SIZE_MAX : ATTENTION_IN;
    case DM_ATTN_OUTPUT:
        return ATTENTION_OUT;
    case DM_FFN_GATE:
        return experts == 0 && (dm_config_parts(c) & DM_PART_GATED) != 0 ? FEED_FORWARD : SIZE_MAX;
    case DM_FFN_UP:
        return experts == 0 ? FEED_FORWARD : SIZE_MAX;
    case DM_FFN_DOWN:
        return experts == 0 ? FEED_FORWARD + 1 : SIZE_MAX;
    case DM_FFN_GATE_EXPS:
    case DM_FFN_UP_EXPS:
        return experts > 0 ? FEED_FORWARD : SIZE_MAX;
    case DM_FFN_DOWN_EXPS:
        return experts > 0 ? FEED_FORWARD + experts : SIZE_MAX;
    case DM_FFN_GATE_SHEXP:
    case DM_FFN_UP_SHEXP:
        return shared_slots(c) > 0 ? shared : SIZE_MAX;
    case DM_FFN_DOWN_SHEXP:
        return shared_slots(c) > 0 ? shared + 1 : SIZE_MAX;
    default:
        return SIZE_MAX;
    }
}

size_t dm_calibration_slot_of(const dm_config *c, int32_t layer, dm_role role, int32_t expert) {
    if (role == DM_OUTPUT) {
        return layer == -1 && expert == -1 ? dm_calibration_slots(c) - 1 : SIZE_MAX;
    }
    const size_t at = place(c, role);
    const bool of_expert = dm_role_is_expert(role);
    if (at == SIZE_MAX || layer < 0 || layer >= c->n_layers ||
        (of_expert ? expert < 0 || expert >= c->n_experts : expert != -1)) {
        return SIZE_MAX;
    }
    return (size_t)layer * slots_of_layer(c) + at + (of_expert ? (size_t)expert : 0);
}

size_t dm_calibration_rows(const dm_config *c, dm_role role) {
    switch (role) {
    case DM_OUTPUT:
        return (size_t)c->vocab;
    case DM_ATTN_QKV:
        return is_fused(c) ? 3 * (size_t)c->dim : 0;
    case DM_ATTN_Q:
        return is_fused(c) ? 0 : (size_t)c->n_heads * (size_t)c->head_dim;
    case DM_ATTN_K:
    case DM_ATTN_V:
        return is_fused(c) ? 0 : (size_t)c->n_kv_heads * (size_t)c->head_dim;
    case DM_FFN_GATE:
    case DM_FFN_UP:
        return place(c, role) != SIZE_MAX ? (size_t)c->ffn_dim : 0;
    case DM_FFN_GATE_EXPS:
    case DM_FFN_UP_EXPS:
        return place(c, role) != SIZE_MAX ? (size_t)c->expert_dim : 0;
    case DM_FFN_GATE_SHEXP:
    case DM_FFN_UP_SHEXP:
        return (size_t)c->shared_dim;
    default: /* what writes to the residual stream */
        return place(c, role) != SIZE_MAX ? (size_t)c->dim : 0;
    }
}

/* ---- Names ---- */

static const char *const names[DM_ROLES] = {
    [DM_OUTPUT] = "output",
    [DM_ATTN_QKV] = "attn_qkv",
    [DM_ATTN_Q] = "attn_q",
    [DM_ATTN_K] = "attn_k",
    [DM_ATTN_V] = "attn_v",
    [DM_ATTN_OUTPUT] = "attn_output",
    [DM_FFN_GATE] = "ffn_gate",
    [DM_FFN_UP] = "ffn_up",
    [DM_FFN_DOWN] = "ffn_down",
    [DM_FFN_GATE_EXPS] = "ffn_gate_exps",
    [DM_FFN_UP_EXPS] = "ffn_up_exps",
    [DM_FFN_DOWN_EXPS] = "ffn_down_exps",
    [DM_FFN_GATE_SHEXP] = "ffn_gate_shexp",
    [DM_FFN_UP_SHEXP] = "ffn_up_shexp",
    [DM_FFN_DOWN_SHEXP] = "ffn_down_shexp",
};

void dm_calibration_name(int32_t layer, dm_role role, char *out, size_t size) {
    if (layer < 0) {
        snprintf(out, size, "%s", names[role]);
    } else {
        snprintf(out, size, "blk.%" PRId32 ".%s", layer, names[role]);
    }
}

/* "blk.N." at the start of a name: returns its length, 0 where there is none. */
static size_t parse_layer(const char *name, size_t length, int32_t n_layers, int32_t *layer) {
    size_t at = 4;
    int32_t number = 0;
    if (length < 6 || memcmp(name, "blk.", 4) != 0) {
        return 0;
    }
    for (; at < length && name[at] >= '0' && name[at] <= '9' && number < n_layers; at++) {
        number = 10 * number + (name[at] - '0');
    }
    if (at == 4 || at == length || name[at] != '.' || number >= n_layers) {
        return 0;
    }
    *layer = number;
    return at + 1;
}

bool dm_calibration_parse(const dm_config *c, const char *name, size_t length, int32_t *layer, dm_role *role) {
    *layer = -1;
    size_t at = parse_layer(name, length, c->n_layers, layer);
    for (int r = 0; r < DM_ROLES; r++) {
        const dm_role candidate = (dm_role)r;
        if (names[r] != NULL && strlen(names[r]) == length - at && memcmp(names[r], name + at, length - at) == 0) {
            *role = candidate;
            return dm_calibration_slot_of(c, *layer, candidate, dm_role_is_expert(candidate) ? 0 : -1) != SIZE_MAX;
        }
    }
    return false;
}
