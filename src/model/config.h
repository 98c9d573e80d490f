/* The shape of a model: what the metadata says, and which tensors follow from it. */
#ifndef DM_MODEL_CONFIG_H
#define DM_MODEL_CONFIG_H

#include "model/gguf.h"

typedef enum dm_arch {
    DM_ARCH_QWEN3MOE,
    DM_ARCH_GPT2,
} dm_arch;

typedef struct dm_config {
    dm_arch arch;
    int32_t n_layers;
    int32_t dim;        /* residual stream */
    int32_t n_heads;    /* query heads */
    int32_t n_kv_heads; /* divides n_heads */
    int32_t head_dim;   /* even where rotary */
    int32_t ffn_dim;    /* dense feed-forward width; 0 where experts do it */
    int32_t n_experts;  /* 0: dense */
    int32_t top_k;
    int32_t expert_dim;
    int32_t vocab;
    int32_t context;  /* trained positions */
    float norm_eps;   /* of RMSNorm or LayerNorm */
    float rope_base;  /* theta of the rotary embedding; 0: learned positions */
    bool tied_output; /* the output projection is token_embd */
} dm_config;

/* What a tensor is for; with the layer it identifies one. Shapes as the code reads them, row-major [rows, columns]. */
typedef enum dm_role {
    DM_TOKEN_EMBD,    /* [vocab, dim] */
    DM_POSITION_EMBD, /* [context, dim], gpt2 */
    DM_OUTPUT_NORM,   /* [dim] */
    DM_OUTPUT_NORM_B, /* [dim], gpt2 */
    DM_OUTPUT,        /* [vocab, dim], absent when tied */
    DM_ATTN_NORM,     /* [dim] */
    DM_ATTN_NORM_B,   /* [dim], gpt2 */
    DM_ATTN_QKV,      /* [3 dim, dim], gpt2 */
    DM_ATTN_QKV_B,    /* [3 dim], gpt2 */
    DM_ATTN_Q,        /* [n_heads * head_dim, dim] */
    DM_ATTN_K,        /* [n_kv_heads * head_dim, dim] */
    DM_ATTN_V,        /* [n_kv_heads * head_dim, dim] */
    DM_ATTN_Q_NORM,   /* [head_dim] */
    DM_ATTN_K_NORM,   /* [head_dim] */
    DM_ATTN_OUTPUT,   /* [dim, n_heads * head_dim] */
    DM_ATTN_OUTPUT_B, /* [dim], gpt2 */
    DM_FFN_NORM,      /* [dim] */
    DM_FFN_NORM_B,    /* [dim], gpt2 */
    DM_FFN_UP,        /* [ffn_dim, dim], gpt2 */
    DM_FFN_UP_B,      /* [ffn_dim], gpt2 */
    DM_FFN_DOWN,      /* [dim, ffn_dim], gpt2 */
    DM_FFN_DOWN_B,    /* [dim], gpt2 */
    DM_FFN_ROUTER,    /* [n_experts, dim] */
    DM_FFN_GATE_EXPS, /* [n_experts, expert_dim, dim] */
    DM_FFN_UP_EXPS,   /* [n_experts, expert_dim, dim] */
    DM_FFN_DOWN_EXPS, /* [n_experts, dim, expert_dim] */
    DM_ROLES
} dm_role;

typedef struct dm_tensor_spec {
    char name[64]; /* as in the GGUF file */
    dm_role role;
    int32_t layer; /* -1 for those outside the layers */
    uint32_t n_dims;
    uint64_t dims[DM_MAX_DIMS]; /* GGUF order: dims[0] is a row's length */
    uint64_t elements;
} dm_tensor_spec;

const char *dm_arch_name(dm_arch arch);
/* DM_ERR_UNSUPPORTED, naming what is supported, for any other. */
dm_status dm_arch_from_name(const char *name, dm_arch *out);

/* Reads and checks the shape; refuses anything inconsistent or absurd before it is used in a size. */
dm_status dm_config_read(const dm_gguf *file, dm_config *out);
/* The same checks for a shape that did not come from a file. */
dm_status dm_config_check(const dm_config *config);
bool dm_config_equal(const dm_config *a, const dm_config *b);
/* Adds general.architecture and the shape's keys. */
void dm_config_write(const dm_config *config, dm_gguf_writer *writer);

/* The tensors of a model in file order. *specs (malloc) is the caller's to free(). */
dm_status dm_config_tensors(const dm_config *config, dm_tensor_spec **specs, size_t *count);

/* How a tensor is stored in a file whose matrices are `matrices`: vectors, routers and positions stay float32, as
 * other GGUF programs expect. */
dm_type dm_config_stored_type(const dm_tensor_spec *spec, dm_type matrices);

/* Weights in all, and those that one token uses: all but the experts it is not sent to. */
uint64_t dm_config_params(const dm_config *config);
uint64_t dm_config_active_params(const dm_config *config);

/* The shape as the public API gives it, without a name. */
void dm_config_info(const dm_config *config, dm_model_info *out);

#endif
