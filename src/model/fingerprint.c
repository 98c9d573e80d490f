#include "model/fingerprint.h"

#include "base/hash.h"
#include "kernels/weight.h"

enum { SAMPLE = 256 }; /* bytes at each end of a tensor */

static uint64_t add(uint64_t hash, const void *data, size_t size) {
    return dm_hash_bytes(data, size, hash);
}

static uint64_t add_config(uint64_t hash, const dm_config *c) {
    const int64_t whole[] = {(int64_t)c->arch,
                             c->n_layers,
                             c->dim,
                             c->n_heads,
                             c->n_kv_heads,
                             c->head_dim,
                             c->ffn_dim,
                             c->n_experts,
                             c->top_k,
                             c->expert_dim,
                             c->shared_dim,
                             c->vocab,
                             c->window,
                             c->rope_dims,
                             (int64_t)c->rope_scaling.kind,
                             c->rope_scaling.original_context,
                             c->plain_gates,
                             c->tied_output,
                             (int64_t)c->extra};
    const float numbers[] = {c->norm_eps,
                             c->rope_base,
                             c->expert_scale,
                             c->rope_scaling.factor,
                             c->rope_scaling.attention,
                             c->rope_scaling.beta_fast,
                             c->rope_scaling.beta_slow};
    return add(add(hash, whole, sizeof whole), numbers, sizeof numbers);
}

static uint64_t add_weights(uint64_t hash, const void *data, dm_type type, const uint64_t *dims) {
    const dm_weight matrix = {.data = data, .type = type, .rows = dims[1] * dims[2] * dims[3], .columns = dims[0]};
    size_t bytes;
    data = dm_weight_stored(&matrix, &bytes);
    size_t sample = bytes < SAMPLE ? bytes : SAMPLE;
    hash = dm_hash_mix(hash, (uint64_t)type + 1);
    return add(add(hash, data, sample), (const char *)data + bytes - sample, sample);
}

static uint64_t add_tensors(uint64_t hash, const dm_tensor *tensors, size_t n_experts) {
    for (int role = 0; role < DM_ROLES; role++) {
        const dm_tensor *tensor = &tensors[role];
        if (tensor->data == NULL) {
            continue;
        }
        hash = add_weights(dm_hash_mix(hash, (uint64_t)role), tensor->data, tensor->type, tensor->dims);
        for (size_t e = 1; tensor->experts != NULL && e < n_experts; e++) { /* the first was above */
            hash = add_weights(hash, tensor->experts[e].data, tensor->experts[e].type, tensor->dims);
        }
    }
    return hash;
}

uint64_t dm_model_fingerprint(const dm_model *model) {
    const dm_config *c = &model->config;
    size_t experts = (size_t)c->n_experts;
    uint64_t hash = add_tensors(add_config(1, c), model->tensors, experts);
    for (int32_t l = 0; l < c->n_layers; l++) {
        hash = add_tensors(hash, model->layers[l].tensors, experts);
    }
    if (model->expert_bias != NULL) {
        hash = add(hash, model->expert_bias, (size_t)c->n_layers * experts * sizeof *model->expert_bias);
    }
    return hash;
}
