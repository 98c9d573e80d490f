#include "training/parameters.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/vector.h"
#include "kernels/weight.h"

static dm_status lay_out(dm_parameters *p) {
    p->offsets = dm_alloc(p->count, sizeof *p->offsets);
    if (p->offsets == NULL) {
        return DM_ERR_MEMORY;
    }
    const size_t step = DM_ALIGNMENT / sizeof(float);
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++) {
        p->offsets[i] = total;
        if (p->specs[i].elements > SIZE_MAX / 8 || !dm_add_size(total, p->specs[i].elements + step - 1, &total)) {
            return dm_fail(DM_ERR_MEMORY, "%s has more weights than this machine can address", p->specs[i].name);
        }
        total -= total % step;
    }
    p->total = total;
    return DM_OK;
}

dm_status dm_parameters_check(const dm_config *c) {
    if (c->arch != DM_ARCH_QWEN3MOE && c->arch != DM_ARCH_GPT2) {
        return dm_fail(DM_ERR_UNSUPPORTED, "models of the architecture %s can be run, but not trained; qwen3moe and gpt2 can",
                       dm_arch_name(c->arch));
    }
    bool scaled = c->rope_scaling.kind != DM_SCALING_NONE || c->rope_scaling.attention != 0.0f;
    if (scaled || c->rope_dims != 0 || c->window != 0 || c->plain_gates || c->expert_scale != 0.0f) {
        return dm_fail(DM_ERR_UNSUPPORTED,
                       "models with scaled or partial rotary positions, a sliding window or gates that are not "
                       "renormalised can be run, but not trained");
    }
    if ((c->extra & DM_PART_APART) != 0) {
        return dm_fail(DM_ERR_UNSUPPORTED, "models whose experts are tensors of their own can be run, but not trained: "
                                           "convert with --layout standard stacks them");
    }
    return DM_OK;
}

dm_status dm_parameters_create(const dm_config *config, dm_parameter_use use, dm_parameters *out) {
    *out = (dm_parameters){.config = *config};
    DM_TRY(dm_parameters_check(config));
    dm_status status = dm_config_tensors(config, &out->specs, &out->count);
    if (status == DM_OK) {
        status = lay_out(out);
    }
    float **arrays[] = {&out->weights, &out->gradients, &out->momentum, &out->variance};
    size_t n = use == DM_FOR_TRAINING ? 4 : 2;
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        *arrays[i] = dm_alloc(out->total, sizeof(float));
        status = *arrays[i] != NULL ? DM_OK : DM_ERR_MEMORY;
    }
    if (status == DM_OK && config->n_experts > 0) {
        out->expert_bias = dm_alloc((size_t)config->n_layers * (size_t)config->n_experts, sizeof(float));
        status = out->expert_bias != NULL ? DM_OK : DM_ERR_MEMORY;
    }
    if (status != DM_OK) {
        dm_parameters_free(out);
    }
    return status;
}

void dm_parameters_free(dm_parameters *p) {
    free(p->specs);
    dm_free(p->offsets);
    dm_free(p->weights);
    dm_free(p->gradients);
    dm_free(p->momentum);
    dm_free(p->variance);
    dm_free(p->expert_bias);
    *p = (dm_parameters){0};
}

static dm_status load_tensor(const dm_gguf *file, const dm_tensor_spec *spec, float *out) {
    const dm_gguf_tensor *tensor = dm_gguf_find_tensor(file, spec->name);
    if (tensor == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor %s is missing", dm_gguf_path(file), spec->name);
    }
    if (tensor->elements != spec->elements || memcmp(tensor->dims, spec->dims, sizeof spec->dims) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor %s has another shape than the model's metadata say", dm_gguf_path(file),
                       spec->name);
    }
    switch (tensor->type) {
    case DM_TYPE_F32:
        memcpy(out, tensor->data, spec->elements * sizeof(float));
        return DM_OK;
    case DM_TYPE_F16:
        dm_vector()->f16_to_f32(out, tensor->data, spec->elements);
        return DM_OK;
    case DM_TYPE_BF16:
        dm_vector()->bf16_to_f32(out, tensor->data, spec->elements);
        return DM_OK;
    default:
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: tensor %s is %s; training starts from F32, F16 or BF16", dm_gguf_path(file),
                       spec->name, dm_type_name(tensor->type));
    }
}

dm_status dm_parameters_load(dm_parameters *p, const dm_gguf *file) {
    for (size_t i = 0; i < p->count; i++) {
        DM_TRY(load_tensor(file, &p->specs[i], p->weights + p->offsets[i]));
    }
    if (p->expert_bias != NULL && dm_gguf_has(file, DM_KEY_EXPERT_BIAS)) {
        const void *data;
        uint64_t count;
        uint64_t expected = (uint64_t)p->config.n_layers * (uint64_t)p->config.n_experts;
        DM_TRY(dm_gguf_get_array(file, DM_KEY_EXPERT_BIAS, DM_GGUF_F32, &data, &count));
        if (count != expected) {
            return dm_fail(DM_ERR_FORMAT, "%s: %s has %llu values, expected %llu", dm_gguf_path(file), DM_KEY_EXPERT_BIAS,
                           (unsigned long long)count, (unsigned long long)expected);
        }
        memcpy(p->expert_bias, data, count * sizeof(float));
    }
    return DM_OK;
}

static void copy_tensor(const dm_tensor *tensor, const dm_tensor_spec *spec, size_t n_experts, float *out) {
    dm_weight weight = {.data = tensor->data, .type = tensor->type, .columns = spec->dims[0]};
    const size_t matrices = tensor->experts != NULL ? n_experts : 1;
    weight.rows = spec->elements / spec->dims[0] / matrices;
    for (size_t e = 0; e < matrices; e++) {
        if (tensor->experts != NULL) {
            weight.data = tensor->experts[e].data;
            weight.type = tensor->experts[e].type;
        }
        dm_weight_widen(out + e * weight.rows * weight.columns, &weight);
    }
}

void dm_parameters_copy(dm_parameters *p, const dm_model *model) {
    const size_t experts = (size_t)model->config.n_experts;
    for (size_t i = 0; i < p->count; i++) {
        const dm_tensor_spec *spec = &p->specs[i];
        const dm_tensor *tensors = spec->layer < 0 ? model->tensors : model->layers[spec->layer].tensors;
        copy_tensor(&tensors[spec->role], spec, experts, p->weights + p->offsets[i]);
    }
    if (p->expert_bias != NULL && model->expert_bias != NULL) {
        memcpy(p->expert_bias, model->expert_bias, (size_t)model->config.n_layers * experts * sizeof *p->expert_bias);
    }
}

static float *find(const dm_parameters *p, float *array, dm_role role, int32_t layer) {
    for (size_t i = 0; i < p->count; i++) {
        if (p->specs[i].role == role && p->specs[i].layer == layer) {
            return array + p->offsets[i];
        }
    }
    return NULL;
}

float *dm_parameter_weight(const dm_parameters *p, dm_role role, int32_t layer) {
    return find(p, p->weights, role, layer);
}

float *dm_parameter_gradient(const dm_parameters *p, dm_role role, int32_t layer) {
    return find(p, p->gradients, role, layer);
}
