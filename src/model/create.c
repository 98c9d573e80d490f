/* `dilmodeli new`: a freshly initialised model, written as its numbers are drawn, so that memory does not limit its size. */
#include "model/create.h"

#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/tokenizer.h"

dm_status dm_float_type_from_name(const char *name, dm_type *out) {
    static const struct {
        const char *name;
        dm_type type;
    } types[] = {{"f32", DM_TYPE_F32}, {"f16", DM_TYPE_F16}, {"bf16", DM_TYPE_BF16}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *out = types[i].type;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_ARGUMENT, "the type '%.40s' is unknown, expected f32, f16 or bf16", name);
}

/* ---- Shape ---- */

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

/* ---- Writing ---- */

typedef struct source {
    const dm_config *config;
    const dm_tensor_spec *spec;
    uint64_t seed;
} source;

static dm_status make_piece(void *user, uint64_t first, size_t n, float *out) {
    const source *from = user;
    if (dm_interrupted()) {
        return dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written");
    }
    dm_init_piece(from->config, from->spec, from->seed, first, n, out);
    return DM_OK;
}

/* general.file_type, which other programs show to their users. */
static uint32_t file_type(dm_type type) {
    return type == DM_TYPE_F32 ? 0 : type == DM_TYPE_F16 ? 1 : 32;
}

static dm_status write_model(const dm_config *config, const char *name, const dm_tokenizer *tokenizer, dm_type type,
                             uint64_t seed, const char *path) {
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    DM_TRY(dm_config_tensors(config, &specs, &count));
    source *sources = calloc(count, sizeof *sources);
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_status status = DM_ERR_MEMORY;
    if (sources == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory for %zu tensors", count);
    } else if (writer != NULL) {
        dm_config_write(config, writer);
        if (name[0] != '\0') {
            dm_gguf_add_string(writer, "general.name", name);
        }
        dm_gguf_add_u32(writer, "general.file_type", file_type(type));
        dm_tokenizer_write(tokenizer, writer);
        for (size_t i = 0; i < count; i++) {
            sources[i] = (source){config, &specs[i], seed};
            dm_gguf_add_tensor_from(writer, specs[i].name, dm_config_stored_type(&specs[i], type), specs[i].dims, specs[i].n_dims,
                                    make_piece, &sources[i]);
        }
        status = dm_gguf_writer_finish(writer, path);
    }
    dm_gguf_writer_free(writer);
    free(sources);
    free(specs);
    return status;
}

static dm_status create_with(const dm_tokenizer *tokenizer, const char *path, const dm_model_info *shape, bool tied_output,
                             dm_type type, uint64_t seed, dm_model_info *info) {
    dm_config config = {0};
    int32_t vocab = dm_tokenizer_vocab(tokenizer);
    DM_TRY(dm_config_from_info(shape, vocab, tied_output, &config));
    if (config.vocab != vocab) {
        return dm_fail(DM_ERR_ARGUMENT, "the vocabulary is to have %d tokens, but the tokenizer has %d", (int)config.vocab,
                       (int)vocab);
    }
    DM_TRY(write_model(&config, shape->name, tokenizer, type, seed, path));
    if (info != NULL) {
        dm_config_info(&config, info);
        memcpy(info->name, shape->name, sizeof info->name);
    }
    return DM_OK;
}

dm_status dm_model_create(const char *path, const dm_model_info *shape, const char *tokenizer_from, bool tied_output,
                          const char *type, uint64_t seed, dm_model_info *info) {
    dm_type stored = DM_TYPE_F32;
    dm_config config = {0}; /* the shape is checked before anything is made of its numbers */
    DM_TRY(dm_config_from_info(shape, 257, tied_output, &config));
    DM_TRY(dm_float_type_from_name(type, &stored));
    dm_tokenizer *tokenizer = NULL;
    DM_TRY(tokenizer_from != NULL ? dm_tokenizer_open(tokenizer_from, &tokenizer)
                                  : dm_tokenizer_bytes_padded(shape->vocab, &tokenizer));
    dm_status status = create_with(tokenizer, path, shape, tied_output, stored, seed, info);
    dm_tokenizer_close(tokenizer);
    return status;
}
