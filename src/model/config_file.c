/* Shapes in files: metadata keys, named as GGUF programs agree on. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "model/arch.h"
#include "model/mixed_tensor.h"

/* ---- Keys ---- */

typedef struct reader {
    const dm_gguf *file;
    const dm_arch_row *arch;
} reader;

typedef struct key_name {
    char text[96];
} key_name;

static key_name key_of(const char *arch, const char *name) {
    key_name key;
    snprintf(key.text, sizeof key.text, "%s.%s", arch, name);
    return key;
}

static bool has_key(const reader *r, const char *name) {
    return dm_gguf_has(r->file, key_of(r->arch->name, name).text);
}

/* Sizes beyond int32 are cut to its largest, which every check refuses. */
static int32_t cut(uint64_t value) {
    return value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

static dm_status read_int(const reader *r, const char *name, int32_t *out) {
    uint32_t value = 0;
    DM_TRY(dm_gguf_get_u32(r->file, key_of(r->arch->name, name).text, &value));
    *out = cut(value);
    return DM_OK;
}

static dm_status read_int_or(const reader *r, const char *name, int32_t fallback, int32_t *out) {
    *out = fallback;
    return has_key(r, name) ? read_int(r, name, out) : DM_OK;
}

static dm_status read_float_or(const reader *r, const char *name, float fallback, float *out) {
    return dm_gguf_get_f32_or(r->file, key_of(r->arch->name, name).text, fallback, out);
}

/* ---- What is refused ---- */

/* A number that may be stated but can have one value only. */
static dm_status expect_int(const reader *r, const char *name, int32_t expected) {
    int32_t value = 0;
    DM_TRY(read_int_or(r, name, expected, &value));
    if (value != expected) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s' is %" PRId32 ", expected %" PRId32, dm_gguf_path(r->file),
                       key_of(r->arch->name, name).text, value, expected);
    }
    return DM_OK;
}

static dm_status expect_float(const reader *r, const char *name, float expected) {
    float value = 0.0f;
    DM_TRY(read_float_or(r, name, expected, &value));
    if (value != expected) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s' is %g, expected %g", dm_gguf_path(r->file),
                       key_of(r->arch->name, name).text, (double)value, (double)expected);
    }
    return DM_OK;
}

static dm_status expect_bool(const reader *r, const char *name, bool expected) {
    bool value = expected;
    DM_TRY(dm_gguf_get_bool_or(r->file, key_of(r->arch->name, name).text, expected, &value));
    if (value != expected) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s' is %s, expected %s", dm_gguf_path(r->file),
                       key_of(r->arch->name, name).text, value ? "true" : "false", expected ? "true" : "false");
    }
    return DM_OK;
}

/* Keys of other models that change what is computed: not handled, so they must say nothing. */
static dm_status refuse_unknown_computation(const reader *r) {
    static const char *const ints[] = {"leading_dense_block_count", "expert_group_count", "expert_group_used_count",
                                       "interleave_moe_layer_step", "attention.sliding_window_pattern"};
    static const char *const zeros[] = {"attn_logit_softcapping", "final_logit_softcapping",
                                        "attention.clamp_kqv",    "attention.max_alibi_bias",
                                        "attention.scale",        "rope.scaling.yarn_log_multiplier"};
    static const char *const ones[] = {"logit_scale", "embedding_scale", "residual_scale"};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        DM_TRY(expect_int(r, ints[i], 0));
    }
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        DM_TRY(expect_float(r, zeros[i], 0.0f));
    }
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) {
        DM_TRY(expect_float(r, ones[i], 1.0f));
    }
    DM_TRY(expect_bool(r, "attention.causal", true));
    return expect_bool(r, "use_parallel_residual", false);
}

/* ---- Rotary positions ---- */

static dm_status read_scaling_kind(const reader *r, dm_scaling_kind *out) {
    static const char *const names[] = {[DM_SCALING_NONE] = "none", [DM_SCALING_LINEAR] = "linear", [DM_SCALING_YARN] = "yarn"};
    key_name key = key_of(r->arch->name, "rope.scaling.type");
    *out = DM_SCALING_LINEAR; /* a factor without a type */
    if (!dm_gguf_has(r->file, key.text)) {
        return DM_OK;
    }
    dm_gguf_string stated = {0};
    DM_TRY(dm_gguf_get_string(r->file, key.text, &stated));
    char text[32];
    dm_gguf_clean_text(stated, text, sizeof text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (dm_scaling_kind)i;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_UNSUPPORTED,
                   "%s: key '%s': scaling rotary positions by '%s' is not supported, expected none, linear or yarn",
                   dm_gguf_path(r->file), key.text, text);
}

static dm_status read_scaling(const reader *r, const dm_config *c, dm_rope_scaling *s) {
    float older = 0.0f;
    DM_TRY(read_scaling_kind(r, &s->kind));
    DM_TRY(read_float_or(r, "rope.scale_linear", 0.0f, &older));
    DM_TRY(read_float_or(r, "rope.scaling.factor", older, &s->factor));
    DM_TRY(read_float_or(r, "rope.scaling.attn_factor", 0.0f, &s->attention));
    DM_TRY(read_float_or(r, "rope.scaling.yarn_attn_factor", s->attention, &s->attention));
    if (s->factor == 0.0f || (s->factor == 1.0f && s->kind == DM_SCALING_LINEAR)) {
        s->kind = DM_SCALING_NONE;
    }
    s->attention = s->attention == 1.0f ? 0.0f : s->attention;
    if (s->kind == DM_SCALING_NONE) {
        *s = (dm_rope_scaling){.attention = s->attention};
    } else if (s->kind == DM_SCALING_YARN) {
        DM_TRY(expect_float(r, "rope.scaling.yarn_ext_factor", 1.0f));
        DM_TRY(read_int_or(r, "rope.scaling.original_context_length", c->context, &s->original_context));
        DM_TRY(read_float_or(r, "rope.scaling.yarn_beta_fast", 32.0f, &s->beta_fast));
        DM_TRY(read_float_or(r, "rope.scaling.yarn_beta_slow", 1.0f, &s->beta_slow));
    }
    return DM_OK;
}

static dm_status read_rope(const reader *r, dm_config *c) {
    DM_TRY(read_float_or(r, "rope.freq_base", 10000.0f, &c->rope_base));
    DM_TRY(read_int_or(r, "rope.dimension_count", c->head_dim, &c->rope_dims));
    if (c->rope_dims <= 0) { /* in memory that means all */
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is %" PRId32 ", expected 2 or more", dm_gguf_path(r->file),
                       key_of(r->arch->name, "rope.dimension_count").text, c->rope_dims);
    }
    c->rope_dims = c->rope_dims == c->head_dim ? 0 : c->rope_dims;
    return read_scaling(r, c, &c->rope_scaling);
}

/* ---- The rest of the shape ---- */

static dm_status read_attention(const reader *r, dm_config *c) {
    DM_TRY(read_int_or(r, "attention.head_count_kv", c->n_heads, &c->n_kv_heads));
    DM_TRY(read_int_or(r, "attention.key_length", c->n_heads > 0 ? c->dim / c->n_heads : 0, &c->head_dim));
    DM_TRY(expect_int(r, "attention.value_length", c->head_dim));
    DM_TRY(read_int_or(r, "attention.sliding_window", 0, &c->window));
    const char *eps =
        (r->arch->parts & DM_PART_LAYER_NORM) != 0 ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    DM_TRY(dm_gguf_get_f32(r->file, key_of(r->arch->name, eps).text, &c->norm_eps));
    return r->arch->rope != DM_ROPE_NONE ? read_rope(r, c) : DM_OK;
}

static dm_status read_experts(const reader *r, dm_config *c) {
    int32_t width = 0; /* of an expert; where that has a key, older files give the width of all that a token uses together */
    bool norm = !r->arch->plain_gates;
    DM_TRY(read_int(r, "expert_used_count", &c->top_k));
    DM_TRY(read_int_or(r, "feed_forward_length", 0, &width));
    int32_t fallback = r->arch->expert_key ? (c->top_k > 0 ? width / c->top_k : 0) : width;
    DM_TRY(read_int_or(r, "expert_feed_forward_length", fallback, &c->expert_dim));
    if (c->arch == DM_ARCH_QWEN2MOE) {
        DM_TRY(read_int_or(r, "expert_shared_feed_forward_length", width, &c->shared_dim));
    } else {
        DM_TRY(expect_int(r, "expert_shared_feed_forward_length", 0));
        DM_TRY(expect_int(r, "expert_shared_count", 0));
    }
    DM_TRY(expect_int(r, "expert_gating_func", 1)); /* softmax */
    DM_TRY(dm_gguf_get_bool_or(r->file, key_of(r->arch->name, "expert_weights_norm").text, norm, &norm));
    c->plain_gates = !norm;
    DM_TRY(read_float_or(r, "expert_weights_scale", 0.0f, &c->expert_scale));
    c->expert_scale = c->expert_scale == 1.0f ? 0.0f : c->expert_scale;
    return DM_OK;
}

static dm_status read_feed_forward(const reader *r, dm_config *c) {
    DM_TRY(read_int_or(r, "expert_count", 0, &c->n_experts));
    if (c->n_experts > 0) {
        return read_experts(r, c);
    }
    return r->arch->dense ? read_int(r, "feed_forward_length", &c->ffn_dim) : read_int(r, "expert_count", &c->n_experts);
}

/* The vocabulary is what the embedding holds; whatever else states its size must agree. */
static dm_status read_vocabulary(const reader *r, dm_config *c) {
    const dm_gguf_tensor *embedding = dm_gguf_find_tensor(r->file, "token_embd.weight");
    if (embedding == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: holds no model: the tensor 'token_embd.weight' is missing", dm_gguf_path(r->file));
    }
    const uint64_t rows = dm_tensor_is_mixed(embedding) ? ((const dm_mixed_header *)embedding->data)->rows : embedding->dims[1];
    c->vocab = cut(rows);
    if (dm_gguf_has(r->file, "tokenizer.ggml.tokens")) {
        uint64_t tokens = 0;
        DM_TRY(dm_gguf_count(r->file, "tokenizer.ggml.tokens", &tokens));
        if (tokens != rows) {
            return dm_fail(DM_ERR_FORMAT, "%s: the vocabulary has %" PRIu64 " tokens, but 'token_embd.weight' %" PRIu64 " rows",
                           dm_gguf_path(r->file), tokens, rows);
        }
    }
    c->tied_output = dm_gguf_find_tensor(r->file, "output.weight") == NULL;
    int32_t stated = c->vocab;
    DM_TRY(read_int_or(r, "vocab_size", c->vocab, &stated));
    if (stated != c->vocab) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is %" PRId32 ", but 'token_embd.weight' has %" PRId32 " rows",
                       dm_gguf_path(r->file), key_of(r->arch->name, "vocab_size").text, stated, c->vocab);
    }
    return DM_OK;
}

static dm_status read_arch(const dm_gguf *file, dm_arch *out) {
    dm_gguf_string name;
    DM_TRY(dm_gguf_get_string(file, "general.architecture", &name));
    char text[64];
    dm_gguf_clean_text(name, text, sizeof text);
    dm_status status = dm_arch_from_name(text, out);
    return status == DM_OK ? DM_OK : dm_fail_in(status, dm_gguf_path(file));
}

dm_status dm_config_read(const dm_gguf *file, dm_config *out) {
    dm_config c = {0};
    DM_TRY(read_arch(file, &c.arch));
    reader r = {file, dm_arch_row_of(c.arch)};
    DM_TRY(refuse_unknown_computation(&r));
    DM_TRY(read_int(&r, "block_count", &c.n_layers));
    DM_TRY(read_int(&r, "embedding_length", &c.dim));
    DM_TRY(read_int(&r, "attention.head_count", &c.n_heads));
    DM_TRY(read_int(&r, "context_length", &c.context));
    DM_TRY(read_attention(&r, &c));
    DM_TRY(read_feed_forward(&r, &c));
    DM_TRY(read_vocabulary(&r, &c));
    c.extra = dm_arch_extra_parts(c.arch, file);
    if (dm_config_check(&c) != DM_OK) {
        return dm_fail_in(DM_ERR_FORMAT, dm_gguf_path(file));
    }
    size_t needed = dm_config_n_tensors(&c);
    if (dm_gguf_n_tensors(file) < needed / 2) { /* before anything is sized by the number of layers; a few are named later */
        return dm_fail(DM_ERR_FORMAT, "%s: has %zu tensors, expected %zu for its %" PRId32 " layers", dm_gguf_path(file),
                       dm_gguf_n_tensors(file), needed, c.n_layers);
    }
    *out = c;
    return DM_OK;
}

/* ---- Writing ---- */

typedef struct target {
    dm_gguf_writer *writer;
    const char *arch;
} target;

static void write_int(const target *to, const char *name, int32_t value) {
    dm_gguf_add_u32(to->writer, key_of(to->arch, name).text, (uint32_t)value);
}

static void write_float(const target *to, const char *name, float value) {
    dm_gguf_add_f32(to->writer, key_of(to->arch, name).text, value);
}

static void write_scaling(const dm_rope_scaling *s, const target *to) {
    if (s->attention != 0.0f) {
        write_float(to, "rope.scaling.attn_factor", s->attention);
    }
    if (s->kind == DM_SCALING_NONE) {
        return;
    }
    bool yarn = s->kind == DM_SCALING_YARN;
    dm_gguf_add_string(to->writer, key_of(to->arch, "rope.scaling.type").text, yarn ? "yarn" : "linear");
    write_float(to, "rope.scaling.factor", s->factor);
    if (yarn) {
        write_int(to, "rope.scaling.original_context_length", s->original_context);
        write_float(to, "rope.scaling.yarn_beta_fast", s->beta_fast);
        write_float(to, "rope.scaling.yarn_beta_slow", s->beta_slow);
    }
}

static void write_rotary(const dm_config *c, const target *to) {
    write_int(to, "attention.head_count_kv", c->n_kv_heads);
    write_int(to, "attention.key_length", c->head_dim);
    write_int(to, "attention.value_length", c->head_dim);
    write_float(to, "rope.freq_base", c->rope_base);
    write_int(to, "rope.dimension_count", dm_config_rope_dims(c));
    write_scaling(&c->rope_scaling, to);
    write_int(to, "vocab_size", c->vocab);
}

static void write_experts(const dm_config *c, const target *to) {
    const dm_arch_row *row = dm_arch_row_of(c->arch);
    write_int(to, "expert_count", c->n_experts);
    write_int(to, "expert_used_count", c->top_k);
    if (row->expert_key) {
        write_int(to, "expert_feed_forward_length", c->expert_dim);
    }
    if (c->shared_dim > 0) {
        write_int(to, "expert_shared_feed_forward_length", c->shared_dim);
    }
    if (c->plain_gates != row->plain_gates) {
        dm_gguf_add_bool(to->writer, key_of(to->arch, "expert_weights_norm").text, !c->plain_gates);
    }
    if (c->expert_scale != 0.0f) {
        write_float(to, "expert_weights_scale", c->expert_scale);
    }
}

void dm_config_write(const dm_config *c, dm_gguf_writer *writer) {
    const target to = {writer, dm_arch_name(c->arch)};
    uint32_t parts = dm_config_parts(c);
    dm_gguf_add_string(writer, "general.architecture", to.arch);
    write_int(&to, "context_length", c->context);
    write_int(&to, "embedding_length", c->dim);
    write_int(&to, "block_count", c->n_layers);
    write_int(&to, "feed_forward_length", c->n_experts > 0 ? c->expert_dim : c->ffn_dim);
    write_int(&to, "attention.head_count", c->n_heads);
    write_float(&to, (parts & DM_PART_LAYER_NORM) != 0 ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
                c->norm_eps);
    if (c->window > 0) {
        write_int(&to, "attention.sliding_window", c->window);
    }
    if (dm_config_rope_dims(c) > 0) {
        write_rotary(c, &to);
    }
    if (c->n_experts > 0) {
        write_experts(c, &to);
    }
}
