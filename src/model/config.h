/* The shape of a model: what the metadata says, and which tensors follow from it. */
#ifndef DM_MODEL_CONFIG_H
#define DM_MODEL_CONFIG_H

#include "model/gguf.h"

typedef enum dm_arch {
    DM_ARCH_QWEN3MOE,
    DM_ARCH_GPT2,
    DM_ARCH_LLAMA, /* Llama, Mistral; Mixtral where it has experts */
    DM_ARCH_OLMOE,
    DM_ARCH_QWEN2,
    DM_ARCH_QWEN2MOE,
    DM_ARCH_QWEN3,
    DM_ARCHS
} dm_arch;

/* What a model is made of; each part brings tensors, see arch.c. */
typedef enum dm_part {
    DM_PART_LAYER_NORM = 1 << 0,   /* LayerNorm, with biases, instead of RMSNorm */
    DM_PART_POSITIONS = 1 << 1,    /* learned positions instead of rotary ones */
    DM_PART_FUSED_QKV = 1 << 2,    /* one product for queries, keys and values */
    DM_PART_SEPARATE_QKV = 1 << 3, /* three */
    DM_PART_QKV_BIAS = 1 << 4,
    DM_PART_OUTPUT_BIAS = 1 << 5,   /* of the product behind attention */
    DM_PART_HEAD_NORM = 1 << 6,     /* RMSNorm of each head's query and key */
    DM_PART_WHOLE_NORM = 1 << 7,    /* RMSNorm of all heads' queries together, and of the keys */
    DM_PART_GATED = 1 << 8,         /* dense feed-forward: SwiGLU; without it GELU */
    DM_PART_FFN_BIAS = 1 << 9,      /* of the dense feed-forward products */
    DM_PART_ROPE_FACTORS = 1 << 10, /* a divisor for each rotary frequency, as Llama 3 has it */
    DM_PART_APART = 1 << 11,        /* an expert's matrices are tensors of their own, see expert_layout.h */
    /* these follow from the shape */
    DM_PART_DENSE = 1 << 12,
    DM_PART_EXPERTS = 1 << 13,
    DM_PART_STACKED = 1 << 14, /* all experts of a layer in one tensor */
    DM_PART_SHARED = 1 << 15,  /* an expert that every token uses, behind a gate of its own */
    DM_PART_OWN_OUTPUT = 1 << 16,
} dm_part;

/* How positions turn a head (Su et al. 2021). */
typedef enum dm_rope_kind {
    DM_ROPE_NONE,
    DM_ROPE_HALVES, /* number i goes with number i + half, as GPT-NeoX */
    DM_ROPE_PAIRS,  /* number 2i goes with number 2i + 1 */
} dm_rope_kind;

typedef enum dm_scaling_kind {
    DM_SCALING_NONE,
    DM_SCALING_LINEAR, /* positions are divided by the factor */
    DM_SCALING_YARN,   /* slow frequencies are, fast ones are not (Peng et al. 2023) */
} dm_scaling_kind;

/* How rotary positions reach past the context that they were trained on. All zero: not at all. */
typedef struct dm_rope_scaling {
    dm_scaling_kind kind;
    float factor;
    float attention;            /* multiplies cosines and sines besides what YaRN does itself; 0: 1 */
    int32_t original_context;   /* YaRN: positions before scaling */
    float beta_fast, beta_slow; /* YaRN: turns within them above which a frequency stays, below which it is divided */
} dm_rope_scaling;

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
    int32_t shared_dim; /* width of the shared expert; 0: none */
    int32_t vocab;
    int32_t context;   /* trained positions */
    int32_t window;    /* newest positions that a token sees, its own included; 0: all */
    float norm_eps;    /* of RMSNorm or LayerNorm */
    float rope_base;   /* theta of the rotary embedding; 0: learned positions */
    int32_t rope_dims; /* leading numbers of a head that turn; 0: all */
    dm_rope_scaling rope_scaling;
    float expert_scale; /* multiplies the experts' gates; 0: 1 */
    bool plain_gates;   /* gates are the router's probabilities as they are, not divided by their sum over the chosen */
    bool tied_output;   /* the output projection is token_embd */
    uint32_t extra;     /* optional parts (dm_part) that this model has */
} dm_config;

/* What a tensor is for; with the layer it identifies one. Shapes as the code reads them, row-major [rows, columns]. */
typedef enum dm_role {
    DM_TOKEN_EMBD,       /* [vocab, dim] */
    DM_POSITION_EMBD,    /* [context, dim] */
    DM_OUTPUT_NORM,      /* [dim] */
    DM_OUTPUT_NORM_B,    /* [dim] */
    DM_OUTPUT,           /* [vocab, dim], absent when tied */
    DM_ROPE_FACTORS,     /* [rope_dims / 2] */
    DM_ATTN_NORM,        /* [dim] */
    DM_ATTN_NORM_B,      /* [dim] */
    DM_ATTN_QKV,         /* [3 dim, dim] */
    DM_ATTN_QKV_B,       /* [3 dim] */
    DM_ATTN_Q,           /* [n_heads * head_dim, dim] */
    DM_ATTN_K,           /* [n_kv_heads * head_dim, dim] */
    DM_ATTN_V,           /* [n_kv_heads * head_dim, dim] */
    DM_ATTN_Q_B,         /* [n_heads * head_dim] */
    DM_ATTN_K_B,         /* [n_kv_heads * head_dim] */
    DM_ATTN_V_B,         /* [n_kv_heads * head_dim] */
    DM_ATTN_Q_NORM,      /* [head_dim], or of all heads [n_heads * head_dim] */
    DM_ATTN_K_NORM,      /* [head_dim], or of all heads [n_kv_heads * head_dim] */
    DM_ATTN_OUTPUT,      /* [dim, n_heads * head_dim] */
    DM_ATTN_OUTPUT_B,    /* [dim] */
    DM_FFN_NORM,         /* [dim] */
    DM_FFN_NORM_B,       /* [dim] */
    DM_FFN_GATE,         /* [ffn_dim, dim] */
    DM_FFN_GATE_B,       /* [ffn_dim] */
    DM_FFN_UP,           /* [ffn_dim, dim] */
    DM_FFN_UP_B,         /* [ffn_dim] */
    DM_FFN_DOWN,         /* [dim, ffn_dim] */
    DM_FFN_DOWN_B,       /* [dim] */
    DM_FFN_ROUTER,       /* [n_experts, dim] */
    DM_FFN_GATE_EXPS,    /* [n_experts, expert_dim, dim] */
    DM_FFN_UP_EXPS,      /* [n_experts, expert_dim, dim] */
    DM_FFN_DOWN_EXPS,    /* [n_experts, dim, expert_dim] */
    DM_FFN_ROUTER_SHEXP, /* [dim], the shared expert's gate is the sigmoid of this times the input */
    DM_FFN_GATE_SHEXP,   /* [shared_dim, dim] */
    DM_FFN_UP_SHEXP,     /* [shared_dim, dim] */
    DM_FFN_DOWN_SHEXP,   /* [dim, shared_dim] */
    DM_ROLES
} dm_role;

/* True for the three matrices of the experts that a router chooses from. */
static inline bool dm_role_is_expert(dm_role role) {
    return role == DM_FFN_GATE_EXPS || role == DM_FFN_UP_EXPS || role == DM_FFN_DOWN_EXPS;
}

typedef struct dm_tensor_spec {
    char name[64]; /* as in the GGUF file */
    dm_role role;
    int32_t layer;  /* -1 for those outside the layers */
    int32_t expert; /* -1 but for one of experts that lie apart, of which this is one's matrix */
    uint32_t n_dims;
    uint64_t dims[DM_MAX_DIMS]; /* GGUF order: dims[0] is a row's length */
    uint64_t elements;
} dm_tensor_spec;

const char *dm_arch_name(dm_arch arch);
/* DM_ERR_UNSUPPORTED, naming what is supported, for any other. */
dm_status dm_arch_from_name(const char *name, dm_arch *out);

/* Reads and checks the shape; refuses anything inconsistent or absurd before it is used in a size, and by name what
 * would change the computation and is not handled. */
dm_status dm_config_read(const dm_gguf *file, dm_config *out);
/* The same checks for a shape that did not come from a file. */
dm_status dm_config_check(const dm_config *config);
bool dm_config_equal(const dm_config *a, const dm_config *b);
/* Adds general.architecture and the shape's keys. */
void dm_config_write(const dm_config *config, dm_gguf_writer *writer);

/* Bits of dm_part. */
uint32_t dm_config_parts(const dm_config *config);
/* How many numbers of a head turn, 0 without rotary positions. */
int32_t dm_config_rope_dims(const dm_config *config);

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
