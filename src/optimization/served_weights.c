#include "optimization/served_weights.h"

#include <stdint.h>

#include "base/memory.h"

static uint64_t matrix_bytes(const dm_tensor *tensor) {
    return tensor->data != NULL ? dm_tensor_matrix_bytes(tensor, 0) : 0;
}

static void measure_layer(const dm_layer *layer, uint64_t *before, uint64_t *matrices, uint64_t *after) {
    for (int role = 0; role < DM_ROLES; role++) {
        const dm_tensor *tensor = &layer->tensors[role];
        if (dm_role_is_expert((dm_role)role)) {
            matrices[role - DM_FFN_GATE_EXPS] = matrix_bytes(tensor);
        } else {
            *(role >= DM_FFN_ROUTER_SHEXP ? after : before) += tensor->dims[2] * matrix_bytes(tensor);
        }
    }
}

dm_status dm_served_weights_of(const dm_model *model, dm_served_weights *out) {
    const size_t layers = (size_t)model->config.n_layers;
    uint64_t *before = dm_alloc(layers, sizeof *before), *matrices = dm_alloc(3 * layers, sizeof *matrices);
    uint64_t *after = dm_alloc(layers, sizeof *after);
    *out = (dm_served_weights){before, matrices, after, 0};
    if (before == NULL || matrices == NULL || after == NULL) {
        dm_served_weights_free(out);
        return DM_ERR_MEMORY;
    }
    for (size_t l = 0; l < layers; l++) {
        measure_layer(&model->layers[l], &before[l], &matrices[3 * l], &after[l]);
    }
    for (int role = 0; role < DM_ROLES; role++) {
        const dm_tensor *tensor = &model->tensors[role];
        out->output += role != DM_TOKEN_EMBD && role != DM_POSITION_EMBD ? tensor->dims[2] * matrix_bytes(tensor) : 0;
    }
    return DM_OK;
}

void dm_served_weights_free(dm_served_weights *weights) {
    dm_free((void *)(uintptr_t)weights->before);
    dm_free((void *)(uintptr_t)weights->matrices);
    dm_free((void *)(uintptr_t)weights->after);
    *weights = (dm_served_weights){0};
}
