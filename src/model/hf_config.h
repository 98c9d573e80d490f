/* config.json, in which Hugging Face's folders say what a model is: its shape, read and written. */
#ifndef DM_MODEL_HF_CONFIG_H
#define DM_MODEL_HF_CONFIG_H

#include "base/json.h"
#include "model/config.h"

/* A kind of model as config.json names it, and what is its own in the keys that follow. */
typedef struct dm_hf_kind {
    const char *model_type; /* "qwen3_moe" */
    const char *class_name; /* "Qwen3MoeForCausalLM" */
    dm_arch arch;
    const char *experts_key; /* how many experts; NULL: a dense model */
    const char *width_key;   /* of one */
    bool says_norm;          /* the key norm_topk_prob tells whether gates are divided by their sum; else they are */
    bool own_bias;           /* the key attention_bias gives biases to all four products of attention, mlp_bias to the others */
    bool window;             /* the key sliding_window is in force as it stands ... */
    bool window_switch;      /* ... or where use_sliding_window says so */
    int32_t usual_window;    /* where the file has no such key */
    int32_t usual_head;      /* width of a head where the file has no key; 0: dim / heads */
    float usual_base;        /* of the rotary positions */
} dm_hf_kind;

/* DM_ERR_UNSUPPORTED, naming what is known, for any other; `path` is for the message. */
dm_status dm_hf_kind_of(const char *model_type, const char *path, const dm_hf_kind **out);
/* The kind that a shape is written as; DM_ERR_UNSUPPORTED, saying what stands in the way, where there is none. */
dm_status dm_hf_kind_for(const dm_config *config, const dm_hf_kind **out);

/* The shape in `object`, config.json's. *factors (malloc, [rope_dims / 2], or NULL) divides rotary frequencies, as Llama 3 asks
 * for; the config has DM_PART_ROPE_FACTORS then. */
dm_status dm_hf_config_read(const json_t *object, const char *path, dm_config *out, float **factors);
/* False where only the folder's tensors tell whether the output is tied; above it is not, then. */
bool dm_hf_config_says_tied(const json_t *object);

/* The same as a new object, without what names tokens. `factors` as above; `type` is what most weights are stored in. */
dm_status dm_hf_config_write(const dm_config *config, const float *factors, dm_type type, json_t **out);

/* Llama 3's scaling: how it stretches rotary frequencies (half of them in a head). */
typedef struct dm_llama3_scaling {
    float factor;    /* of the slow ones */
    float low, high; /* turns within the original context: slow below, as they are above */
    int32_t original_context;
} dm_llama3_scaling;

void dm_llama3_factors(const dm_llama3_scaling *scaling, float base, size_t half, float *factors);
/* The scaling that gives these factors; false if there is none. */
bool dm_llama3_find(const float *factors, size_t half, float base, dm_llama3_scaling *out);

#endif
