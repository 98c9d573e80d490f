/*
 * Shapes of the architectures: limits, metadata keys and tensor lists. Key and tensor names are those that GGUF
 * programs agree on, so that what is written here runs elsewhere.
 */
#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- Architectures ---- */

static const char *const arch_names[] = {[DM_ARCH_QWEN3MOE] = "qwen3moe", [DM_ARCH_GPT2] = "gpt2"};

const char *dm_arch_name(dm_arch arch) {
    return arch_names[arch];
}

dm_status dm_arch_from_name(const char *name, dm_arch *out) {
    for (size_t i = 0; i < sizeof arch_names / sizeof *arch_names; i++) {
        if (strcmp(arch_names[i], name) == 0) {
            *out = (dm_arch)i;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_UNSUPPORTED, "the architecture '%.60s' is not supported, expected qwen3moe or gpt2", name);
}

/* ---- Checks ---- */

static dm_status check_range(const char *what, int32_t value, int32_t least, int32_t most) {
    if (value < least || value > most) {
        return dm_fail(DM_ERR_ARGUMENT, "%s is %" PRId32 ", expected %" PRId32 " to %" PRId32, what, value, least, most);
    }
    return DM_OK;
}

static dm_status check_qwen3moe(const dm_config *c) {
    DM_TRY(check_range("the number of experts", c->n_experts, 1, MAX_EXPERTS));
    DM_TRY(check_range("the number of experts per token", c->top_k, 1,
                       c->n_experts < DM_ROUTER_MAX_TOP_K ? c->n_experts : DM_ROUTER_MAX_TOP_K));
    DM_TRY(check_range("the width of an expert", c->expert_dim, 1, MAX_FFN_DIM));
    DM_TRY(check_range("the dense feed-forward width of qwen3moe", c->ffn_dim, 0, 0));
    if (c->head_dim % 2 != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "the width of a head is %" PRId32 ", expected an even number for rotary positions",
                       c->head_dim);
    }
    if (!(c->rope_base >= 1.0f && c->rope_base <= 1e12f)) {
        return dm_fail(DM_ERR_ARGUMENT, "the base of the rotary positions is %g, expected 1 to 1e12", (double)c->rope_base);
    }
    return DM_OK;
}

static dm_status check_gpt2(const dm_config *c) {
    DM_TRY(check_range("the feed-forward width", c->ffn_dim, 1, MAX_FFN_DIM));
    DM_TRY(check_range("the number of experts of gpt2", c->n_experts, 0, 0));
    DM_TRY(check_range("the number of experts per token of gpt2", c->top_k, 0, 0));
    DM_TRY(check_range("the width of an expert of gpt2", c->expert_dim, 0, 0));
    if (c->n_kv_heads != c->n_heads || (int64_t)c->n_heads * c->head_dim != c->dim) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "gpt2 with %" PRId32 " heads of %" PRId32 " and %" PRId32 " key heads for a width of %" PRId32
                       ": expected as many key heads as heads, and heads that make up the width",
                       c->n_heads, c->head_dim, c->n_kv_heads, c->dim);
    }
    if (c->rope_base != 0.0f) {
        return dm_fail(DM_ERR_ARGUMENT, "gpt2 has learned positions, expected no rotary base");
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
    if (c->n_heads % c->n_kv_heads != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%" PRId32 " heads cannot share %" PRId32 " key and value heads evenly", c->n_heads,
                       c->n_kv_heads);
    }
    if (!(c->norm_eps > 0.0f && c->norm_eps < 1.0f)) {
        return dm_fail(DM_ERR_ARGUMENT, "the epsilon of the norms is %g, expected above 0 and below 1", (double)c->norm_eps);
    }
    return c->arch == DM_ARCH_GPT2 ? check_gpt2(c) : check_qwen3moe(c);
}

bool dm_config_equal(const dm_config *a, const dm_config *b) {
    return a->arch == b->arch && a->n_layers == b->n_layers && a->dim == b->dim && a->n_heads == b->n_heads &&
           a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->ffn_dim == b->ffn_dim &&
           a->n_experts == b->n_experts && a->top_k == b->top_k && a->expert_dim == b->expert_dim && a->vocab == b->vocab &&
           a->context == b->context && a->norm_eps == b->norm_eps && a->rope_base == b->rope_base &&
           a->tied_output == b->tied_output;
}

/* ---- Tensors ---- */

/* Which number of the config a dimension is. */
typedef enum extent { NONE, DIM, VOCAB, CONTEXT, HEAD_DIM, Q_ROWS, KV_ROWS, QKV_ROWS, FFN, EXPERTS, EXPERT_DIM, EXTENTS } extent;

typedef struct layout {
    dm_role role;
    const char *name; /* after "blk.N." for those of a layer */
    extent dims[3];   /* GGUF order */
} layout;

static const layout qwen3moe_outside[] = {
    {DM_TOKEN_EMBD, "token_embd.weight", {DIM, VOCAB}},
    {DM_OUTPUT_NORM, "output_norm.weight", {DIM}},
    {DM_OUTPUT, "output.weight", {DIM, VOCAB}},
};

static const layout qwen3moe_layer[] = {
    {DM_ATTN_NORM, "attn_norm.weight", {DIM}},
    {DM_ATTN_Q, "attn_q.weight", {DIM, Q_ROWS}},
    {DM_ATTN_K, "attn_k.weight", {DIM, KV_ROWS}},
    {DM_ATTN_V, "attn_v.weight", {DIM, KV_ROWS}},
    {DM_ATTN_OUTPUT, "attn_output.weight", {Q_ROWS, DIM}},
    {DM_ATTN_Q_NORM, "attn_q_norm.weight", {HEAD_DIM}},
    {DM_ATTN_K_NORM, "attn_k_norm.weight", {HEAD_DIM}},
    {DM_FFN_NORM, "ffn_norm.weight", {DIM}},
    {DM_FFN_ROUTER, "ffn_gate_inp.weight", {DIM, EXPERTS}},
    {DM_FFN_GATE_EXPS, "ffn_gate_exps.weight", {DIM, EXPERT_DIM, EXPERTS}},
    {DM_FFN_UP_EXPS, "ffn_up_exps.weight", {DIM, EXPERT_DIM, EXPERTS}},
    {DM_FFN_DOWN_EXPS, "ffn_down_exps.weight", {EXPERT_DIM, DIM, EXPERTS}},
};

static const layout gpt2_outside[] = {
    {DM_TOKEN_EMBD, "token_embd.weight", {DIM, VOCAB}}, {DM_POSITION_EMBD, "position_embd.weight", {DIM, CONTEXT}},
    {DM_OUTPUT_NORM, "output_norm.weight", {DIM}},      {DM_OUTPUT_NORM_B, "output_norm.bias", {DIM}},
    {DM_OUTPUT, "output.weight", {DIM, VOCAB}},
};

static const layout gpt2_layer[] = {
    {DM_ATTN_NORM, "attn_norm.weight", {DIM}},
    {DM_ATTN_NORM_B, "attn_norm.bias", {DIM}},
    {DM_ATTN_QKV, "attn_qkv.weight", {DIM, QKV_ROWS}},
    {DM_ATTN_QKV_B, "attn_qkv.bias", {QKV_ROWS}},
    {DM_ATTN_OUTPUT, "attn_output.weight", {DIM, DIM}},
    {DM_ATTN_OUTPUT_B, "attn_output.bias", {DIM}},
    {DM_FFN_NORM, "ffn_norm.weight", {DIM}},
    {DM_FFN_NORM_B, "ffn_norm.bias", {DIM}},
    {DM_FFN_UP, "ffn_up.weight", {DIM, FFN}},
    {DM_FFN_UP_B, "ffn_up.bias", {FFN}},
    {DM_FFN_DOWN, "ffn_down.weight", {FFN, DIM}},
    {DM_FFN_DOWN_B, "ffn_down.bias", {DIM}},
};

typedef struct tensor_list {
    const layout *outside, *layer;
    size_t n_outside, n_layer;
} tensor_list;

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const tensor_list lists[] = {
    [DM_ARCH_QWEN3MOE] = {qwen3moe_outside, qwen3moe_layer, COUNT(qwen3moe_outside), COUNT(qwen3moe_layer)},
    [DM_ARCH_GPT2] = {gpt2_outside, gpt2_layer, COUNT(gpt2_outside), COUNT(gpt2_layer)},
};

static uint64_t extent_of(const dm_config *c, extent which) {
    const uint64_t q_rows = (uint64_t)c->n_heads * (uint64_t)c->head_dim;
    const uint64_t values[EXTENTS] = {
        [NONE] = 1,
        [DIM] = (uint64_t)c->dim,
        [VOCAB] = (uint64_t)c->vocab,
        [CONTEXT] = (uint64_t)c->context,
        [HEAD_DIM] = (uint64_t)c->head_dim,
        [Q_ROWS] = q_rows,
        [KV_ROWS] = (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim,
        [QKV_ROWS] = 3 * (uint64_t)c->dim,
        [FFN] = (uint64_t)c->ffn_dim,
        [EXPERTS] = (uint64_t)c->n_experts,
        [EXPERT_DIM] = (uint64_t)c->expert_dim,
    };
    return values[which];
}

static dm_tensor_spec make_spec(const dm_config *c, const layout *from, int32_t layer) {
    dm_tensor_spec spec = {.role = from->role, .layer = layer, .elements = 1};
    if (layer < 0) {
        snprintf(spec.name, sizeof spec.name, "%s", from->name);
    } else {
        snprintf(spec.name, sizeof spec.name, "blk.%" PRId32 ".%s", layer, from->name);
    }
    for (uint32_t d = 0; d < DM_MAX_DIMS; d++) {
        extent which = d < COUNT(from->dims) ? from->dims[d] : NONE;
        spec.dims[d] = extent_of(c, which);
        spec.elements *= spec.dims[d];
        spec.n_dims += which != NONE;
    }
    return spec;
}

static size_t count_tensors(const dm_config *config) {
    const tensor_list *list = &lists[config->arch];
    return list->n_outside - config->tied_output + (size_t)config->n_layers * list->n_layer;
}

dm_status dm_config_tensors(const dm_config *config, dm_tensor_spec **specs, size_t *count) {
    const tensor_list *list = &lists[config->arch];
    *count = 0;
    *specs = malloc(count_tensors(config) * sizeof **specs);
    if (*specs == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing %zu tensors", count_tensors(config));
    }
    for (size_t i = 0; i < list->n_outside; i++) {
        if (list->outside[i].role != DM_OUTPUT || !config->tied_output) {
            (*specs)[(*count)++] = make_spec(config, &list->outside[i], -1);
        }
    }
    for (int32_t layer = 0; layer < config->n_layers; layer++) {
        for (size_t i = 0; i < list->n_layer; i++) {
            (*specs)[(*count)++] = make_spec(config, &list->layer[i], layer);
        }
    }
    return DM_OK;
}

dm_type dm_config_stored_type(const dm_tensor_spec *spec, dm_type matrices) {
    bool exact = spec->n_dims == 1 || spec->role == DM_FFN_ROUTER || spec->role == DM_POSITION_EMBD;
    return exact ? DM_TYPE_F32 : matrices;
}

/* ---- Reading ---- */

typedef struct reader {
    const dm_gguf *file;
    const char *arch;
} reader;

typedef struct key_name {
    char text[96];
} key_name;

static key_name key_of(const char *arch, const char *name) {
    key_name key;
    snprintf(key.text, sizeof key.text, "%s.%s", arch, name);
    return key;
}

/* Sizes beyond int32 are cut to its largest, which every check refuses. */
static int32_t cut(uint64_t value) {
    return value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

static dm_status read_int(const reader *r, const char *name, int32_t *out) {
    uint32_t value = 0;
    DM_TRY(dm_gguf_get_u32(r->file, key_of(r->arch, name).text, &value));
    *out = cut(value);
    return DM_OK;
}

static dm_status read_int_or(const reader *r, const char *name, int32_t fallback, int32_t *out) {
    *out = fallback;
    return dm_gguf_has(r->file, key_of(r->arch, name).text) ? read_int(r, name, out) : DM_OK;
}

/* A key that may be there but can have one value only. */
static dm_status expect_int(const reader *r, const char *name, int32_t expected) {
    int32_t value = 0;
    DM_TRY(read_int_or(r, name, expected, &value));
    if (value != expected) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s' is %" PRId32 ", expected %" PRId32, dm_gguf_path(r->file),
                       key_of(r->arch, name).text, value, expected);
    }
    return DM_OK;
}

static dm_status read_qwen3moe(const reader *r, dm_config *c) {
    DM_TRY(read_int_or(r, "attention.head_count_kv", c->n_heads, &c->n_kv_heads));
    DM_TRY(read_int_or(r, "attention.key_length", c->n_heads > 0 ? c->dim / c->n_heads : 0, &c->head_dim));
    DM_TRY(expect_int(r, "attention.value_length", c->head_dim));
    DM_TRY(expect_int(r, "rope.dimension_count", c->head_dim));
    DM_TRY(dm_gguf_get_f32(r->file, key_of(r->arch, "attention.layer_norm_rms_epsilon").text, &c->norm_eps));
    DM_TRY(dm_gguf_get_f32_or(r->file, key_of(r->arch, "rope.freq_base").text, 10000.0f, &c->rope_base));
    DM_TRY(read_int(r, "expert_count", &c->n_experts));
    DM_TRY(read_int(r, "expert_used_count", &c->top_k));
    int32_t shared_width = 0; /* older files give the width of all the experts that a token uses together */
    DM_TRY(read_int_or(r, "feed_forward_length", 0, &shared_width));
    DM_TRY(read_int_or(r, "expert_feed_forward_length", c->top_k > 0 ? shared_width / c->top_k : 0, &c->expert_dim));
    dm_gguf_string scaling = {0};
    key_name scaling_key = key_of(r->arch, "rope.scaling.type");
    if (dm_gguf_has(r->file, scaling_key.text)) {
        DM_TRY(dm_gguf_get_string(r->file, scaling_key.text, &scaling));
        if (scaling.length != 4 || memcmp(scaling.bytes, "none", 4) != 0) {
            return dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s': scaled rotary positions are not supported", dm_gguf_path(r->file),
                           scaling_key.text);
        }
    }
    return DM_OK;
}

static dm_status read_gpt2(const reader *r, dm_config *c) {
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    DM_TRY(expect_int(r, "attention.head_count_kv", c->n_heads));
    DM_TRY(dm_gguf_get_f32(r->file, key_of(r->arch, "attention.layer_norm_epsilon").text, &c->norm_eps));
    return read_int(r, "feed_forward_length", &c->ffn_dim);
}

/* The vocabulary is what the embedding holds; whatever else states its size must agree. */
static dm_status read_vocabulary(const reader *r, dm_config *c) {
    const dm_gguf_tensor *embedding = dm_gguf_find_tensor(r->file, "token_embd.weight");
    if (embedding == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: holds no model: the tensor 'token_embd.weight' is missing", dm_gguf_path(r->file));
    }
    c->vocab = cut(embedding->dims[1]);
    if (dm_gguf_has(r->file, "tokenizer.ggml.tokens")) {
        uint64_t tokens = 0;
        DM_TRY(dm_gguf_count(r->file, "tokenizer.ggml.tokens", &tokens));
        if (tokens != embedding->dims[1]) {
            return dm_fail(DM_ERR_FORMAT, "%s: the vocabulary has %" PRIu64 " tokens, but 'token_embd.weight' %" PRIu64 " rows",
                           dm_gguf_path(r->file), tokens, embedding->dims[1]);
        }
    }
    c->tied_output = dm_gguf_find_tensor(r->file, "output.weight") == NULL;
    int32_t stated = c->vocab;
    DM_TRY(read_int_or(r, "vocab_size", c->vocab, &stated));
    if (stated != c->vocab) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is %" PRId32 ", but 'token_embd.weight' has %" PRId32 " rows",
                       dm_gguf_path(r->file), key_of(r->arch, "vocab_size").text, stated, c->vocab);
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
    reader r = {file, dm_arch_name(c.arch)};
    DM_TRY(read_int(&r, "block_count", &c.n_layers));
    DM_TRY(read_int(&r, "embedding_length", &c.dim));
    DM_TRY(read_int(&r, "attention.head_count", &c.n_heads));
    DM_TRY(read_int(&r, "context_length", &c.context));
    DM_TRY(c.arch == DM_ARCH_GPT2 ? read_gpt2(&r, &c) : read_qwen3moe(&r, &c));
    DM_TRY(read_vocabulary(&r, &c));
    if (dm_config_check(&c) != DM_OK) {
        return dm_fail_in(DM_ERR_FORMAT, dm_gguf_path(file));
    }
    size_t needed = count_tensors(&c);
    if (dm_gguf_n_tensors(file) < needed / 2) { /* before anything is sized by the number of layers; a few are named later */
        return dm_fail(DM_ERR_FORMAT, "%s: has %zu tensors, expected %zu for its %" PRId32 " layers", dm_gguf_path(file),
                       dm_gguf_n_tensors(file), needed, c.n_layers);
    }
    *out = c;
    return DM_OK;
}

/* ---- Writing ---- */

static void write_int(dm_gguf_writer *writer, const char *arch, const char *name, int32_t value) {
    dm_gguf_add_u32(writer, key_of(arch, name).text, (uint32_t)value);
}

static void write_float(dm_gguf_writer *writer, const char *arch, const char *name, float value) {
    dm_gguf_add_f32(writer, key_of(arch, name).text, value);
}

static void write_qwen3moe(const dm_config *c, const char *arch, dm_gguf_writer *writer) {
    write_int(writer, arch, "attention.head_count_kv", c->n_kv_heads);
    write_int(writer, arch, "attention.key_length", c->head_dim);
    write_int(writer, arch, "attention.value_length", c->head_dim);
    write_float(writer, arch, "attention.layer_norm_rms_epsilon", c->norm_eps);
    write_float(writer, arch, "rope.freq_base", c->rope_base);
    write_int(writer, arch, "rope.dimension_count", c->head_dim);
    write_int(writer, arch, "vocab_size", c->vocab);
    write_int(writer, arch, "expert_count", c->n_experts);
    write_int(writer, arch, "expert_used_count", c->top_k);
    write_int(writer, arch, "expert_feed_forward_length", c->expert_dim);
}

void dm_config_write(const dm_config *c, dm_gguf_writer *writer) {
    const char *arch = dm_arch_name(c->arch);
    dm_gguf_add_string(writer, "general.architecture", arch);
    write_int(writer, arch, "context_length", c->context);
    write_int(writer, arch, "embedding_length", c->dim);
    write_int(writer, arch, "block_count", c->n_layers);
    write_int(writer, arch, "feed_forward_length", c->n_experts > 0 ? c->expert_dim : c->ffn_dim);
    write_int(writer, arch, "attention.head_count", c->n_heads);
    if (c->arch == DM_ARCH_GPT2) {
        write_float(writer, arch, "attention.layer_norm_epsilon", c->norm_eps);
    } else {
        write_qwen3moe(c, arch, writer);
    }
}

/* ---- Totals ---- */

static uint64_t sum_of(const dm_config *c, const layout *tensors, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].role != DM_OUTPUT || !c->tied_output) {
            sum += make_spec(c, &tensors[i], -1).elements;
        }
    }
    return sum;
}

uint64_t dm_config_params(const dm_config *c) {
    const tensor_list *list = &lists[c->arch];
    return sum_of(c, list->outside, list->n_outside) + (uint64_t)c->n_layers * sum_of(c, list->layer, list->n_layer);
}

/* Embeddings count whole, as the field counts them; only experts are left out. */
uint64_t dm_config_active_params(const dm_config *c) {
    uint64_t idle = (uint64_t)(c->n_experts - c->top_k) * 3 * (uint64_t)c->expert_dim * (uint64_t)c->dim;
    return dm_config_params(c) - (uint64_t)c->n_layers * idle;
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
        .vocab = c->vocab,
        .context = c->context,
    };
    snprintf(out->architecture, sizeof out->architecture, "%s", dm_arch_name(c->arch));
}
