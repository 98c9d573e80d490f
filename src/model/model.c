/* Opening a model: every tensor that its shape calls for is found and checked before anything computes with it. */
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/placed.h"
#include "model/repack.h"
#include "model/streaming.h"

/* "512 x 128", rows last as GGUF has it. */
static void shape_text(const uint64_t *dims, uint32_t n_dims, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t d = 0; d < n_dims && used < size; d++) {
        int wrote = snprintf(text + used, size - used, "%s%" PRIu64, d == 0 ? "" : " x ", dims[d]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static dm_status check_tensor(const dm_gguf *file, const dm_gguf_tensor *found, const dm_tensor_spec *spec) {
    const char *path = dm_gguf_path(file);
    if (memcmp(found->dims, spec->dims, sizeof spec->dims) != 0) {
        char is[96], should[96];
        shape_text(found->dims, found->n_dims, is, sizeof is);
        shape_text(spec->dims, spec->n_dims, should, sizeof should);
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%s' is %s, expected %s", path, spec->name, is, should);
    }
    bool vector = spec->n_dims == 1; /* norms and biases, which every program keeps in float32 */
    if (vector ? found->type != DM_TYPE_F32 : dm_type_decoder((uint32_t)found->type) == NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: tensor '%s' is of type %s, expected %s%s", path, spec->name,
                       dm_type_name((uint32_t)found->type), vector ? "" : "one of ", vector ? "F32" : dm_type_names());
    }
    return DM_OK;
}

static const dm_role expert_roles[] = {DM_FFN_GATE_EXPS, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};

/* A layer's three kinds of expert matrices, where each expert has a place of its own, share one table. */
static bool allocate_experts(dm_model *model) {
    const dm_config *c = &model->config;
    model->experts = calloc((size_t)c->n_layers * 3 * (size_t)c->n_experts, sizeof *model->experts);
    return model->experts != NULL;
}

/* Those of number `role` of expert_roles. */
static dm_expert_tensor *experts_of(const dm_model *model, int32_t layer, int role) {
    return model->experts + ((size_t)layer * 3 + (size_t)role) * (size_t)model->config.n_experts;
}

static bool prepare_experts(dm_model *model) {
    if ((dm_config_parts(&model->config) & DM_PART_APART) == 0) {
        return true;
    }
    if (!allocate_experts(model)) {
        return false;
    }
    for (int32_t i = 0; i < model->config.n_layers * 3; i++) {
        model->layers[i / 3].tensors[expert_roles[i % 3]].experts = experts_of(model, i / 3, i % 3);
    }
    return true;
}

static dm_status allocate(const dm_config *config, dm_model **out) {
    dm_model *model = calloc(1, sizeof *model);
    if (model != NULL) {
        model->config = *config;
        model->layers = calloc((size_t)config->n_layers, sizeof *model->layers);
    }
    if (model == NULL || model->layers == NULL || !prepare_experts(model)) {
        dm_model_close(model);
        return dm_fail(DM_ERR_MEMORY, "out of memory for a model of %" PRId32 " layers", config->n_layers);
    }
    dm_status status = dm_repacked_create(&model->repacked);
    if (status != DM_OK) {
        dm_model_close(model);
        return status;
    }
    *out = model;
    return DM_OK;
}

static void place(dm_model *model, const dm_tensor_spec *spec, dm_type type, const void *data) {
    dm_tensor *tensor = spec->layer < 0 ? &model->tensors[spec->role] : &model->layers[spec->layer].tensors[spec->role];
    if (tensor->experts != NULL) {
        tensor->experts[spec->expert] = (dm_expert_tensor){data, type};
    }
    if (spec->expert <= 0) {
        tensor->data = data;
        tensor->type = type;
        memcpy(tensor->dims, spec->dims, sizeof tensor->dims);
    }
}

/* An expert of a stack has a size of its own, so it gets a place of its own. */
static dm_status place_mixed(dm_model *model, const dm_tensor_spec *spec, size_t first) {
    const void *data = model->mixed.of[first];
    if (dm_role_is_expert(spec->role) && spec->expert < 0) {
        if (model->experts == NULL && !allocate_experts(model)) {
            return dm_fail(DM_ERR_MEMORY, "out of memory for a model of %" PRId32 " layers", model->config.n_layers);
        }
        const int role = spec->role == DM_FFN_GATE_EXPS ? 0 : spec->role == DM_FFN_UP_EXPS ? 1 : 2;
        dm_expert_tensor *experts = experts_of(model, spec->layer, role);
        for (int32_t e = 0; e < model->config.n_experts; e++) {
            experts[e] = (dm_expert_tensor){model->mixed.of[first + (size_t)e], DM_TYPE_MIXED};
        }
        place(model, spec, DM_TYPE_MIXED, data);
        model->layers[spec->layer].tensors[spec->role].experts = experts;
        return DM_OK;
    }
    place(model, spec, DM_TYPE_MIXED, data);
    return DM_OK;
}

static void tie_output(dm_model *model) {
    if (model->config.tied_output) {
        model->tensors[DM_OUTPUT] = model->tensors[DM_TOKEN_EMBD];
    }
}

/* A tensor that the architecture does not have, such as a bias, would change what the model computes. */
static dm_status refuse_surplus(const dm_gguf *file, const dm_tensor_spec *specs, size_t count) {
    size_t n = dm_gguf_n_tensors(file);
    bool *known = calloc(n + 1, sizeof *known);
    if (known == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory checking its tensors", dm_gguf_path(file));
    }
    const dm_gguf_tensor *first = n > 0 ? dm_gguf_tensor_at(file, 0) : NULL;
    for (size_t i = 0; i < count; i++) {
        known[dm_gguf_find_tensor(file, specs[i].name) - first] = true;
    }
    dm_status status = DM_OK;
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        if (!known[i]) {
            status = dm_fail(DM_ERR_UNSUPPORTED, "%s: the tensor '%.80s' is not part of this architecture", dm_gguf_path(file),
                             dm_gguf_tensor_at(file, i)->name);
        }
    }
    free(known);
    return status;
}

static dm_status find_tensor(dm_model *model, const dm_gguf *file, const dm_tensor_spec *spec) {
    const dm_gguf_tensor *found = dm_gguf_find_tensor(file, spec->name);
    if (found == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: the tensor '%s' is missing", dm_gguf_path(file), spec->name);
    }
    if (dm_tensor_is_mixed(found)) {
        size_t first;
        DM_TRY(dm_tensor_read_mixed(file, found, spec, &model->mixed, &first));
        return place_mixed(model, spec, first);
    }
    DM_TRY(check_tensor(file, found, spec));
    place(model, spec, found->type, found->data);
    return DM_OK;
}

static dm_status find_tensors(dm_model *model, const dm_gguf *file) {
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    DM_TRY(dm_config_tensors(&model->config, &specs, &count));
    dm_status status = DM_OK;
    for (size_t i = 0; i < count && status == DM_OK; i++) {
        status = find_tensor(model, file, &specs[i]);
    }
    if (status == DM_OK && dm_gguf_n_tensors(file) != count) {
        status = refuse_surplus(file, specs, count);
    }
    free(specs);
    tie_output(model);
    return status;
}

static dm_status copy_bias(dm_model *model, const void *bias) {
    size_t count = (size_t)model->config.n_layers * (size_t)model->config.n_experts;
    model->expert_bias = dm_alloc(count, sizeof *model->expert_bias);
    if (model->expert_bias == NULL) {
        return DM_ERR_MEMORY;
    }
    memcpy(model->expert_bias, bias, count * sizeof *model->expert_bias);
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(model->expert_bias[i])) {
            return dm_fail(DM_ERR_FORMAT, "the router's bias number %zu is not a number", i);
        }
    }
    return DM_OK;
}

static dm_status read_bias(dm_model *model, const dm_gguf *file) {
    if (!dm_gguf_has(file, DM_KEY_EXPERT_BIAS)) {
        return DM_OK;
    }
    const void *bias = NULL;
    uint64_t count = 0;
    DM_TRY(dm_gguf_get_array(file, DM_KEY_EXPERT_BIAS, DM_GGUF_F32, &bias, &count));
    uint64_t expected = (uint64_t)model->config.n_layers * (uint64_t)model->config.n_experts;
    if (count != expected || count == 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s' has %" PRIu64 " numbers, expected %" PRIu64 " (one per layer and expert)",
                       dm_gguf_path(file), DM_KEY_EXPERT_BIAS, count, expected);
    }
    dm_status status = copy_bias(model, bias);
    return status == DM_OK ? DM_OK : dm_fail_in(status, dm_gguf_path(file));
}

static dm_status read_name(dm_model *model, const dm_gguf *file) {
    if (!dm_gguf_has(file, "general.name")) {
        return DM_OK;
    }
    dm_gguf_string name = {0};
    DM_TRY(dm_gguf_get_string(file, "general.name", &name));
    dm_gguf_clean_text(name, model->name, sizeof model->name);
    return DM_OK;
}

/* On success the model owns the file. */
static dm_status open_file(dm_gguf *file, dm_model **out) {
    dm_config config = {0};
    DM_TRY(dm_config_read(file, &config));
    dm_model *model = NULL;
    DM_TRY(allocate(&config, &model));
    dm_status status = find_tensors(model, file);
    if (status == DM_OK) {
        status = read_bias(model, file);
    }
    if (status == DM_OK) {
        status = read_name(model, file);
    }
    if (status != DM_OK) {
        dm_model_close(model);
        return status;
    }
    model->file = file;
    *out = model;
    return DM_OK;
}

dm_status dm_model_open(const char *path, dm_model **out) {
    *out = NULL;
    dm_gguf *file = NULL;
    DM_TRY(dm_gguf_open(path, &file));
    dm_status status = open_file(file, out);
    if (status != DM_OK) {
        dm_gguf_close(file);
    }
    return status;
}

dm_status dm_model_from_memory(const dm_config *config, const float *const *weights, const float *expert_bias, dm_model **out) {
    *out = NULL;
    DM_TRY(dm_config_check(config));
    dm_tensor_spec *specs = NULL;
    size_t count = 0;
    DM_TRY(dm_config_tensors(config, &specs, &count));
    dm_model *model = NULL;
    dm_status status = allocate(config, &model);
    for (size_t i = 0; i < count && status == DM_OK; i++) {
        place(model, &specs[i], DM_TYPE_F32, weights[i]);
    }
    free(specs);
    if (status == DM_OK) {
        tie_output(model);
        status = expert_bias != NULL && config->n_experts > 0 ? copy_bias(model, expert_bias) : DM_OK;
    }
    if (status != DM_OK) {
        dm_model_close(model);
        return status;
    }
    *out = model;
    return DM_OK;
}

dm_weight dm_tensor_matrix(const dm_tensor *tensor, size_t number) {
    dm_weight out = {.data = tensor->data, .type = tensor->type, .rows = tensor->dims[1], .columns = tensor->dims[0]};
    if (tensor->experts != NULL) {
        out.data = tensor->experts[number].data;
        out.type = tensor->experts[number].type;
    } else if (number > 0) {
        out.data = (const uint8_t *)tensor->data + number * out.rows * dm_type_bytes(out.type, out.columns);
    }
    return out;
}

uint64_t dm_tensor_matrix_bytes(const dm_tensor *tensor, size_t number) {
    const dm_weight one = dm_tensor_matrix(tensor, number);
    size_t bytes;
    dm_weight_stored(&one, &bytes);
    return bytes;
}

void dm_model_close(dm_model *model) {
    if (model == NULL) {
        return;
    }
    dm_streaming_free(model->streaming);
    dm_placed_free(model->placed);
    dm_repacked_free(model->repacked);
    dm_gguf_close(model->file);
    dm_mixed_tables_free(&model->mixed);
    dm_free(model->expert_bias);
    free(model->experts);
    free(model->layers);
    free(model);
}

void dm_model_get_info(const dm_model *model, dm_model_info *out) {
    dm_config_info(&model->config, out);
    memcpy(out->name, model->name, sizeof out->name);
}
