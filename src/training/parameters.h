/* The weights of a model in training with their gradients and AdamW's moments, each one flat array. */
#ifndef DM_TRAINING_PARAMETERS_H
#define DM_TRAINING_PARAMETERS_H

#include "base/status.h"
#include "model/model.h"

typedef struct dm_parameters {
    dm_config config;
    dm_tensor_spec *specs; /* [count] in file order */
    size_t count;
    size_t *offsets;    /* [count] where tensor i starts in each array below, 64-byte aligned */
    size_t total;       /* floats in each array, gaps included */
    float *weights;     /* [total] */
    float *gradients;   /* [total], NULL without an optimizer */
    float *momentum;    /* [total] AdamW's first moment, NULL without an optimizer */
    float *variance;    /* [total] AdamW's second moment, NULL without an optimizer */
    float *expert_bias; /* [n_layers * n_experts] for the choice of experts only; NULL for dense models */
} dm_parameters;

typedef enum dm_parameter_use {
    DM_FOR_GRADIENTS, /* weights and gradients */
    DM_FOR_TRAINING,  /* the moments too */
} dm_parameter_use;

/* DM_ERR_UNSUPPORTED, with the reason, for shapes that the backward pass is not written for. */
dm_status dm_parameters_check(const dm_config *config);

/* All zero. On failure *out is empty; else free it with dm_parameters_free(). */
dm_status dm_parameters_create(const dm_config *config, dm_parameter_use use, dm_parameters *out);
void dm_parameters_free(dm_parameters *parameters);

/* Copies the weights of an open model of any type of weights, whose config is that of the parameters but that its experts may be
 * tensors of their own. */
void dm_parameters_copy(dm_parameters *parameters, const dm_model *model);

/* Copies the weights (F32, F16 or BF16) and selection biases of a model file of exactly this shape. */
dm_status dm_parameters_load(dm_parameters *parameters, const dm_gguf *file);

/* Tensor `role` of `layer` (-1 outside layers); NULL if the model has none. */
float *dm_parameter_weight(const dm_parameters *parameters, dm_role role, int32_t layer);
float *dm_parameter_gradient(const dm_parameters *parameters, dm_role role, int32_t layer);

#endif
