/* A GGUF model as a folder of Hugging Face's. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/hf_config.h"
#include "model/hf_tokenizer.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "quantization/convert.h"
#include "quantization/encode.h"

/* As large as the files of Hugging Face's own programs. */
#define USUAL_SHARD 5000000000u

typedef struct source {
    dm_conversion *conversion;
    dm_model *model;
    const dm_config *config;
    dm_tensor_spec *specs;
    size_t count; /* of specs */
    dm_type type; /* of most weights */
    dm_safetensor_plan *plans;
    dm_converted *converted; /* [n_plans] */
    dm_weights *weights;     /* [n_plans] what they are made from */
    size_t n_plans;
    uint64_t turned;    /* elements of the largest matrix that changes rows and columns */
    size_t *shard_ends; /* [n_shards] number of the plan after each file's last */
    size_t n_shards;
} source;

/* ---- Types ---- */

static dm_status parse_type(const char *name, dm_type *out) {
    if (dm_type_from_name(name, out) && (*out == DM_TYPE_F32 || *out == DM_TYPE_F16 || *out == DM_TYPE_BF16)) {
        return DM_OK;
    }
    return dm_fail(DM_ERR_ARGUMENT, "a folder of Hugging Face's cannot have weights of type '%.40s', expected f32, f16 or bf16",
                   name);
}

static bool is_floats(dm_type type) {
    return type == DM_TYPE_F32 || type == DM_TYPE_F16 || type == DM_TYPE_BF16;
}

static dm_type matrix_type(const source *s, dm_type own) {
    return s->conversion->options.type != NULL ? s->type : is_floats(own) ? own : DM_TYPE_F16;
}

/* True where `type` holds every number of the tensor as it is. */
static bool holds(const dm_converted *it, dm_type type) {
    enum { STEP = 1024 };
    float numbers[STEP], again[STEP], stored[STEP]; /* a number takes 4 bytes at most */
    for (uint64_t first = 0; first < it->part_elements; first += STEP) {
        size_t n = it->part_elements - first < STEP ? (size_t)(it->part_elements - first) : STEP;
        dm_weights_read(it->parts, first, n, NULL, numbers);
        if (dm_encode(type, stored, numbers, NULL, n) != DM_OK) {
            return false;
        }
        dm_type_decoder((uint32_t)type)(again, stored, n);
        if (memcmp(numbers, again, n * sizeof *numbers) != 0) {
            return false;
        }
    }
    return true;
}

/* Norms, biases, routers and positions, F32 in GGUF, take the type of the rest only where nothing is lost. */
static dm_type choose_type(const source *s, const dm_tensor_spec *spec, const dm_converted *it) {
    bool exact = dm_config_stored_type(spec, DM_TYPE_F16) == DM_TYPE_F32;
    if (!exact) {
        return matrix_type(s, it->parts->type);
    }
    return s->type == DM_TYPE_F32 || holds(it, s->type) ? s->type : DM_TYPE_F32;
}

/* ---- Tensors ---- */

/* The part's own bytes in the GGUF tensor that it lies in, and how they are read. */
static void place(const source *s, const dm_tensor_spec *spec, const dm_hf_tensor *as, int32_t part, dm_weights *out) {
    const dm_tensor *tensors = spec->layer < 0 ? s->model->tensors : s->model->layers[spec->layer].tensors;
    const dm_weight own = dm_tensor_matrix(&tensors[spec->role], spec->expert > 0 ? (size_t)spec->expert : (size_t)part);
    *out = (dm_weights){.data = own.data, .type = own.type};
    out->columns = spec->dims[0];
    out->rows = as->elements / spec->dims[0];
    out->turned = as->form == DM_HF_TURNED;
    if (as->form == DM_HF_HALVES) {
        out->head_rows = (uint64_t)s->config->head_dim;
        out->to_halves = true;
        out->rows = spec->n_dims == 1 ? spec->dims[0] : out->rows;
        out->columns = spec->n_dims == 1 ? 1 : out->columns;
    }
}

static void plan_part(source *s, const dm_tensor_spec *spec, int32_t part) {
    dm_safetensor_plan *plan = &s->plans[s->n_plans];
    dm_converted *it = &s->converted[s->n_plans];
    dm_hf_tensor as;
    dm_hf_describe(s->config, spec, part, &as);
    place(s, spec, &as, part, &s->weights[s->n_plans]);
    *it = (dm_converted){.conversion = s->conversion,
                         .parts = &s->weights[s->n_plans],
                         .n_parts = 1,
                         .part_elements = as.elements,
                         .columns = (size_t)as.dims[0]};
    it->type = choose_type(s, spec, it);
    *plan = (dm_safetensor_plan){.type = it->type,
                                 .n_dims = as.n_dims,
                                 .elements = as.elements,
                                 .bytes = dm_type_bytes(it->type, (size_t)as.elements),
                                 .maker = dm_convert_piece,
                                 .user = it};
    memcpy(plan->dims, as.dims, sizeof plan->dims);
    snprintf(plan->name, sizeof plan->name, "%s%s", as.bare ? "" : dm_hf_prefix(s->config->arch), as.name);
    s->turned = it->parts->turned && as.elements > s->turned ? as.elements : s->turned;
    s->conversion->total += plan->bytes;
    s->n_plans++;
}

static dm_status plan_tensors(source *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        n += (size_t)dm_hf_parts(s->config, &s->specs[i]);
    }
    s->plans = calloc(n + 1, sizeof *s->plans);
    s->converted = calloc(n + 1, sizeof *s->converted);
    s->weights = calloc(n + 1, sizeof *s->weights);
    s->shard_ends = calloc(n + 1, sizeof *s->shard_ends);
    if (s->plans == NULL || s->converted == NULL || s->weights == NULL || s->shard_ends == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory for %zu tensors", s->conversion->from, n);
    }
    for (size_t i = 0; i < s->count; i++) {
        for (int32_t part = 0; part < dm_hf_parts(s->config, &s->specs[i]); part++) {
            plan_part(s, &s->specs[i], part);
        }
    }
    return DM_OK;
}

/* Wider types first, so that each lies at a multiple of its size. */
static int by_width(const void *a, const void *b) {
    const dm_safetensor_plan *x = a, *y = b;
    if ((x->type == DM_TYPE_F32) != (y->type == DM_TYPE_F32)) {
        return x->type == DM_TYPE_F32 ? -1 : 1;
    }
    const dm_converted *i = x->user, *k = y->user; /* their addresses are in order */
    return (i > k) - (i < k);
}

/* Files of at most the size asked for, but one that a single tensor is larger than. */
static void plan_shards(source *s) {
    uint64_t most = s->conversion->options.shard_bytes != 0 ? s->conversion->options.shard_bytes : USUAL_SHARD;
    uint64_t bytes = 0;
    size_t start = 0;
    for (size_t i = 0; i < s->n_plans; i++) {
        if (i > start && (s->plans[i].bytes > most || bytes > most - s->plans[i].bytes)) {
            s->shard_ends[s->n_shards++] = start = i;
            bytes = 0;
        }
        bytes += s->plans[i].bytes;
    }
    s->shard_ends[s->n_shards++] = s->n_plans;
    for (size_t k = 0; k < s->n_shards; k++) {
        size_t first = k > 0 ? s->shard_ends[k - 1] : 0;
        qsort(s->plans + first, s->shard_ends[k] - first, sizeof *s->plans, by_width);
    }
}

/* ---- Files ---- */

static void shard_name(const source *s, size_t shard, char *name, size_t size) {
    if (s->n_shards == 1) {
        snprintf(name, size, "model.safetensors");
    } else {
        snprintf(name, size, "model-%05zu-of-%05zu.safetensors", shard + 1, s->n_shards);
    }
}

static dm_status write_shard(const source *s, size_t shard, const char *folder, json_t *map) {
    char name[64];
    shard_name(s, shard, name, sizeof name);
    size_t first = shard > 0 ? s->shard_ends[shard - 1] : 0;
    for (size_t i = first; i < s->shard_ends[shard]; i++) {
        json_object_set_new(map, s->plans[i].name, json_string(name));
    }
    char *path = dm_path_join(folder, name);
    dm_status status = path != NULL ? dm_safetensors_write(path, s->plans + first, s->shard_ends[shard] - first)
                                    : dm_fail(DM_ERR_MEMORY, "%s: out of memory", folder);
    free(path);
    return status;
}

static dm_status write_weights(const source *s, const char *folder) {
    json_t *map = json_object();
    dm_status status = DM_OK;
    for (size_t i = 0; i < s->n_shards && status == DM_OK; i++) {
        status = write_shard(s, i, folder, map);
    }
    if (status != DM_OK || s->n_shards == 1) {
        json_decref(map);
        return status;
    }
    return dm_json_save(
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)s->conversion->total, "weight_map", map), folder,
        "model.safetensors.index.json");
}

static dm_status write_vocabulary(const source *s, const char *folder) {
    const dm_gguf *file = s->model->file;
    if (!dm_gguf_has(file, "tokenizer.ggml.tokens")) {
        dm_log("%s: has no vocabulary; the folder gets no tokenizer.json", dm_gguf_path(file));
        return DM_OK;
    }
    dm_tokenizer *tokenizer;
    DM_TRY(dm_tokenizer_read(file, &tokenizer));
    dm_status status = dm_hf_tokenizer_write(tokenizer, s->config->context, folder);
    dm_tokenizer_close(tokenizer);
    return status;
}

static dm_status write_folder(const source *s, json_t *config, const char *folder) {
    DM_TRY(dm_json_save(json_incref(config), folder, "config.json"));
    DM_TRY(write_vocabulary(s, folder));
    return write_weights(s, folder);
}

/* ---- The model ---- */

static dm_status refuse_bias(const dm_model *model) {
    size_t n = (size_t)model->config.n_layers * (size_t)model->config.n_experts;
    for (size_t i = 0; i < n && model->expert_bias != NULL; i++) {
        if (model->expert_bias[i] != 0.0f) {
            return dm_fail(DM_ERR_UNSUPPORTED,
                           "its router has biases for the choice of experts, which no such model has in Hugging "
                           "Face's format");
        }
    }
    return DM_OK;
}

static dm_status make_config(const source *s, json_t **out) {
    const float *factors = s->model->tensors[DM_ROPE_FACTORS].data;
    dm_status status = refuse_bias(s->model);
    if (status == DM_OK) {
        status = dm_hf_config_write(s->config, factors, s->type, out);
    }
    return status == DM_OK ? DM_OK : dm_fail_in(status, s->conversion->from);
}

static dm_status convert(source *s, dm_convert_result *result, json_t **config) {
    const char *type = s->conversion->options.type;
    s->config = &s->model->config;
    if (type == NULL) {
        s->type = matrix_type(s, s->model->tensors[DM_TOKEN_EMBD].type);
    }
    DM_TRY(make_config(s, config));
    DM_TRY(dm_config_tensors(s->config, &s->specs, &s->count));
    DM_TRY(plan_tensors(s));
    plan_shards(s);
    DM_TRY(dm_conversion_prepare(s->conversion, s->turned));
    dm_model_get_info(s->model, &result->info);
    result->tensors = s->n_plans;
    result->bytes = s->conversion->total;
    result->files = (uint32_t)s->n_shards;
    return DM_OK;
}

static dm_status write_new_folder(source *s, json_t *config) {
    dm_new_folder folder;
    DM_TRY(dm_new_folder_open(s->conversion->to, &folder));
    dm_status status = write_folder(s, config, folder.temporary);
    if (status != DM_OK) {
        dm_new_folder_abandon(&folder);
        return status;
    }
    return dm_new_folder_commit(&folder);
}

static void free_source(source *s) {
    free(s->plans);
    free(s->converted);
    free(s->weights);
    free(s->shard_ends);
    free(s->specs);
    dm_model_close(s->model);
}

dm_status dm_convert_to_folder(dm_conversion *conversion, dm_convert_result *result) {
    source s = {.conversion = conversion};
    json_t *config = NULL;
    if (conversion->options.type != NULL) {
        DM_TRY(parse_type(conversion->options.type, &s.type));
    }
    DM_TRY(dm_model_open(conversion->from, &s.model));
    dm_status status = convert(&s, result, &config);
    if (status == DM_OK && !conversion->options.dry_run) {
        status = write_new_folder(&s, config);
    }
    json_decref(config);
    free_source(&s);
    return status;
}
