/* A model ready to run: its shape and where each tensor lies. */
#ifndef DM_MODEL_MODEL_H
#define DM_MODEL_MODEL_H

#include "kernels/weight.h"
#include "model/config.h"
#include "model/mixed_tensor.h"
#include "model/tokenizer.h"

/* One of a layer's experts that is a tensor of its own. */
typedef struct dm_expert_tensor {
    const void *data;
    dm_type type;
} dm_expert_tensor;

typedef struct dm_tensor {
    const void *data; /* NULL: the model has none of this role; of DM_TYPE_MIXED its tables in memory */
    dm_type type;     /* one that has a decoder, or DM_TYPE_MIXED; F32 for vectors */
    uint64_t dims[DM_MAX_DIMS];
    dm_expert_tensor *experts; /* [n_experts] where they lie apart, or are of DM_TYPE_MIXED: data and type above are then the
                                * first one's */
} dm_tensor;

/* An expert's matrix, or number 0 of a tensor that has one alone, without panels of another form. */
dm_weight dm_tensor_matrix(const dm_tensor *tensor, size_t number);
/* Bytes of it in its file. */
uint64_t dm_tensor_matrix_bytes(const dm_tensor *tensor, size_t number);

typedef struct dm_layer {
    dm_tensor tensors[DM_ROLES]; /* those of the roles with a layer */
} dm_layer;

struct dm_model {
    dm_config config;
    dm_tensor tensors[DM_ROLES];    /* those outside the layers; DM_OUTPUT is token_embd when tied */
    dm_layer *layers;               /* [n_layers] */
    dm_expert_tensor *experts;      /* [n_layers, 3, n_experts] what some of the layers' tensors point to, or NULL */
    float *expert_bias;             /* [n_layers, n_experts] added to router logits for the choice only, or NULL */
    dm_gguf *file;                  /* NULL for a model made from memory */
    dm_mixed_tables mixed;          /* of the matrices of DM_TYPE_MIXED */
    struct dm_repacked *repacked;   /* panels of the matrices, once a session asks */
    struct dm_placed *placed;       /* weights near groups of threads; NULL: all threads are alike */
    struct dm_streaming *streaming; /* NULL: all experts are in memory, or mapped */
    char name[128];
};

/* Wraps weights that live in memory, float32, in the order of dm_config_tensors(): weights[i] belongs to spec i. They
 * and `expert_bias` (copied; may be NULL) stay the caller's and must outlive the model. Close with dm_model_close(). */
dm_status dm_model_from_memory(const dm_config *config, const float *const *weights, const float *expert_bias, dm_model **out);

/* Metadata key of the router's selection biases, float32 [n_layers * n_experts]. Metadata, not a tensor: programs that
 * do not know it still load the model. */
#define DM_KEY_EXPERT_BIAS "dilmodeli.router.bias"

#endif
