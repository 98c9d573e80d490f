#include "optimization/token_cost.h"

/* Of one of the matrices of a tensor. */
static double mean_bytes(const dm_tensor *tensor, size_t matrices) {
    double sum = 0.0;
    for (size_t i = 0; i < matrices; i++) {
        sum += (double)dm_tensor_matrix_bytes(tensor, i);
    }
    return sum / (double)matrices;
}

/* Adds what one token reads of a tensor, and what it does with it. */
static void add_tensor(const dm_config *c, const dm_tensor *tensor, dm_role role, dm_token_cost *cost) {
    if (tensor->data == NULL || role == DM_POSITION_EMBD || role == DM_TOKEN_EMBD) {
        return;
    }
    double rows = (double)tensor->dims[1], bytes = mean_bytes(tensor, dm_role_is_expert(role) ? (size_t)c->n_experts : 1);
    double matrices = dm_role_is_expert(role) ? (double)c->top_k : (double)tensor->dims[2];
    if (dm_role_is_expert(role)) {
        cost->expert_bytes += bytes / (double)c->n_layers;
    } else {
        cost->shared_bytes += matrices * bytes;
    }
    if (tensor->dims[1] > 1) {
        double operations = 2 * matrices * rows * (double)tensor->dims[0];
        cost->decode_operations += operations;
        cost->prefill_operations += role == DM_OUTPUT ? 0 : operations;
    }
}

dm_token_cost dm_token_cost_of(const dm_model *model) {
    dm_token_cost cost = {0};
    for (int role = 0; role < DM_ROLES; role++) {
        add_tensor(&model->config, &model->tensors[role], (dm_role)role, &cost);
        for (int32_t l = 0; l < model->config.n_layers; l++) {
            add_tensor(&model->config, &model->layers[l].tensors[role], (dm_role)role, &cost);
        }
    }
    return cost;
}
