/* A folder of Hugging Face's as one GGUF file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/hf_config.h"
#include "model/hf_tokenizer.h"
#include "model/safetensors.h"
#include "quantization/convert.h"
#include "quantization/mixture.h"

enum { LARGEST_CONFIG = 1 << 24 };

typedef struct folder {
    dm_conversion *conversion;
    json_t *config_json;
    dm_safetensors *weights;
    dm_config config;
    float *factors; /* of rotary frequencies, or NULL */
    dm_tokenizer *tokenizer;
    char prefix[16]; /* before most tensors' names */
    bool *used;      /* [tensors of the folder] */
    dm_tensor_spec *specs;
    size_t count;
    const dm_tensor_spec **order; /* [count] in which they are written; NULL: their own */
    dm_converted *converted;      /* [count] */
    const dm_mixture *mixture;
} folder;

/* ---- Finding tensors ---- */

/* "[4096, 11008]", as the folder's own programs write shapes. */
static void shape_text(const uint64_t *dims, uint32_t n_dims, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (uint32_t d = n_dims; d > 0; d--) { /* at most 4 of 20 digits: it fits */
        used += (size_t)snprintf(text + used, size - used, "%" PRIu64 "%s", dims[d - 1], d > 1 ? ", " : "");
    }
    snprintf(text + used, size - used, "]");
}

static dm_status check_tensor(const dm_safetensor *found, const dm_hf_tensor *wanted, const char *path) {
    const dm_gguf_tensor *tensor = &found->tensor;
    if (tensor->n_dims != wanted->n_dims || memcmp(tensor->dims, wanted->dims, sizeof wanted->dims) != 0) {
        char is[96], should[96];
        shape_text(tensor->dims, tensor->n_dims, is, sizeof is);
        shape_text(wanted->dims, wanted->n_dims, should, sizeof should);
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' is %s, expected %s", path, tensor->name, is, should);
    }
    return found->known ? DM_OK
                        : dm_fail(DM_ERR_UNSUPPORTED, "%s: tensor '%.80s' is of dtype %s, expected F32, F16 or BF16", path,
                                  tensor->name, found->dtype);
}

static dm_status find_part(folder *f, const dm_tensor_spec *spec, int32_t part, dm_weights *out) {
    dm_hf_tensor wanted;
    char name[160];
    size_t index;
    dm_hf_describe(&f->config, spec, part, &wanted);
    snprintf(name, sizeof name, "%s%s", wanted.bare ? "" : f->prefix, wanted.name);
    const dm_safetensor *found = dm_safetensors_find(f->weights, name, &index);
    if (found == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: the tensor '%s' is missing", f->conversion->from, name);
    }
    DM_TRY(check_tensor(found, &wanted, dm_safetensors_path(f->weights, index)));
    f->used[index] = true;
    *out =
        (dm_weights){.data = found->tensor.data, .type = found->tensor.type, .rows = wanted.dims[1], .columns = wanted.dims[0]};
    if (wanted.form == DM_HF_HALVES) {
        out->head_rows = (uint64_t)f->config.head_dim;
        out->rows = wanted.n_dims == 1 ? wanted.dims[0] : out->rows;
        out->columns = wanted.n_dims == 1 ? 1 : out->columns;
    }
    out->turned = wanted.form == DM_HF_TURNED;
    return DM_OK;
}

static dm_status find_parts(folder *f, const dm_tensor_spec *spec, dm_converted *out) {
    int32_t n = dm_hf_parts(&f->config, spec);
    *out = (dm_converted){.conversion = f->conversion, .n_parts = n > 0 ? n : 1, .columns = (size_t)spec->dims[0]};
    out->part_elements = spec->elements / (uint64_t)out->n_parts;
    out->parts = calloc((size_t)out->n_parts, sizeof *out->parts);
    if (out->parts == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing tensors");
    }
    if (n == 0) { /* Llama 3's factors, made from config.json */
        out->parts[0] =
            (dm_weights){.data = (const uint8_t *)f->factors, .type = DM_TYPE_F32, .rows = 1, .columns = spec->elements};
    }
    for (int32_t i = 0; i < n; i++) {
        DM_TRY(find_part(f, spec, i, &out->parts[i]));
    }
    return DM_OK;
}

static dm_status find_tensors(folder *f) {
    f->converted = calloc(f->count + 1, sizeof *f->converted);
    f->used = calloc(dm_safetensors_count(f->weights) + 1, sizeof *f->used);
    if (f->converted == NULL || f->used == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing tensors");
    }
    for (size_t i = 0; i < f->count; i++) {
        DM_TRY(find_parts(f, &f->specs[i], &f->converted[i]));
    }
    return DM_OK;
}

/* A tensor that the architecture does not have, such as a bias, would change what the model computes. */
static dm_status refuse_surplus(const folder *f) {
    size_t prefix = strlen(f->prefix);
    for (size_t i = 0; i < dm_safetensors_count(f->weights); i++) {
        const char *name = dm_safetensors_at(f->weights, i)->tensor.name;
        const char *bare = strncmp(name, f->prefix, prefix) == 0 ? name + prefix : name;
        bool tied = f->config.tied_output && strcmp(name, "lm_head.weight") == 0;
        if (!f->used[i] && !tied && !dm_hf_is_buffer(bare)) {
            return dm_fail(DM_ERR_UNSUPPORTED, "%s: the tensor '%.80s' is not part of this architecture",
                           dm_safetensors_path(f->weights, i), name);
        }
    }
    return DM_OK;
}

/* ---- Types ---- */

/* What all parts have, F32 where they differ. */
static dm_type source_type(const dm_converted *it) {
    dm_type type = DM_TYPE_F32;
    for (int32_t i = 0; i < it->n_parts; i++) {
        if (i > 0 && it->parts[i].type != type) {
            return DM_TYPE_F32;
        }
        type = it->parts[i].type;
    }
    return type;
}

/* As asked for, or as the folder has it. The file's type is then named after the embedding's, the first tensor. */
static dm_status choose_types(folder *f) {
    const char *type = f->conversion->options.type;
    DM_TRY(dm_mixture_from_name(type != NULL ? type : dm_type_name((uint32_t)source_type(&f->converted[0])), &f->mixture));
    for (size_t i = 0; i < f->count; i++) {
        dm_converted *it = &f->converted[i];
        it->type = type != NULL ? dm_mixture_type(f->mixture, &f->config, &f->specs[i])
                                : dm_config_stored_type(&f->specs[i], source_type(it));
        f->conversion->total += dm_type_bytes(it->type, (size_t)f->specs[i].elements);
    }
    return DM_OK;
}

/* ---- The file ---- */

/* The folder's own name, whatever way it was given, unless another one was. */
static void name_model(const dm_conversion *conversion, char *name, size_t size) {
    char *whole = realpath(conversion->from, NULL);
    const char *slash = whole != NULL ? strrchr(whole, '/') : NULL;
    const char *chosen = conversion->options.name != NULL ? conversion->options.name : slash != NULL ? slash + 1 : "";
    dm_gguf_clean_text((dm_gguf_string){chosen, strlen(chosen)}, name, size);
    free(whole);
}

static dm_status write_file(folder *f, const char *name) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_config_write(&f->config, writer);
    if (name[0] != '\0') {
        dm_gguf_add_string(writer, "general.name", name);
    }
    dm_mixture_write(f->mixture, writer);
    if (f->tokenizer != NULL) {
        dm_tokenizer_write(f->tokenizer, writer);
    }
    if (f->order != NULL) {
        dm_streaming_write(writer);
    }
    for (size_t i = 0; i < f->count; i++) {
        const dm_tensor_spec *spec = f->order != NULL ? f->order[i] : &f->specs[i];
        dm_converted *it = &f->converted[spec - f->specs];
        dm_gguf_add_tensor_made(writer, spec->name, it->type, spec->dims, spec->n_dims, dm_convert_piece, it);
    }
    dm_status status = dm_gguf_writer_finish(writer, f->conversion->to);
    dm_gguf_writer_free(writer);
    return status;
}

static uint64_t largest_turned(const folder *f) {
    uint64_t most = 0;
    for (size_t i = 0; i < f->count; i++) {
        const dm_converted *it = &f->converted[i];
        most = it->parts[0].turned && it->part_elements > most ? it->part_elements : most;
    }
    return most;
}

static dm_status read_shape(folder *f, const char *config_path) {
    const char *from = f->conversion->from;
    DM_TRY(dm_json_load(config_path, LARGEST_CONFIG, &f->config_json));
    DM_TRY(dm_hf_config_read(f->config_json, config_path, &f->config, &f->factors)); /* refuses before any weight is looked at */
    DM_TRY(dm_safetensors_open_folder(from, &f->weights));
    if (!dm_hf_config_says_tied(f->config_json)) {
        f->config.tied_output = dm_safetensors_find(f->weights, "lm_head.weight", NULL) == NULL;
    }
    char name[96];
    snprintf(name, sizeof name, "%s%s", dm_hf_prefix(f->config.arch), dm_hf_embedding(f->config.arch));
    bool bare = dm_safetensors_find(f->weights, name, NULL) == NULL &&
                dm_safetensors_find(f->weights, dm_hf_embedding(f->config.arch), NULL) != NULL;
    snprintf(f->prefix, sizeof f->prefix, "%s", bare ? "" : dm_hf_prefix(f->config.arch));
    return DM_OK;
}

/* Nothing is sized by the number of layers or experts before the folder has about as many tensors. */
static dm_status check_count(const folder *f) {
    uint64_t least = (uint64_t)f->config.n_layers * (uint64_t)(f->config.n_experts > 0 ? 3 * f->config.n_experts : 4);
    if (dm_safetensors_count(f->weights) < least) {
        return dm_fail(DM_ERR_FORMAT, "%s: has %zu tensors, expected more than %" PRIu64 " for its %" PRId32 " layers",
                       f->conversion->from, dm_safetensors_count(f->weights), least, f->config.n_layers);
    }
    return DM_OK;
}

/* Lists the tensors, those of experts in the layout asked for. */
static dm_status list_tensors(folder *f) {
    bool streaming = f->conversion->layout == DM_LAYOUT_STREAMING;
    if (f->conversion->layout != DM_LAYOUT_NONE && f->config.n_experts == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: is a dense model: only experts have a layout", f->conversion->from);
    }
    f->config.extra |= streaming ? DM_PART_APART : 0;
    DM_TRY(dm_config_tensors(&f->config, &f->specs, &f->count));
    return streaming ? dm_streaming_order(f->specs, f->count, &f->order) : DM_OK;
}

static dm_status convert(folder *f, const char *config_path, dm_convert_result *result) {
    DM_TRY(read_shape(f, config_path));
    DM_TRY(check_count(f));
    DM_TRY(list_tensors(f));
    DM_TRY(find_tensors(f));
    DM_TRY(refuse_surplus(f));
    DM_TRY(choose_types(f));
    DM_TRY(dm_hf_tokenizer_read(f->conversion->from, f->config_json, f->config.vocab, &f->tokenizer));
    dm_config_info(&f->config, &result->info);
    name_model(f->conversion, result->info.name, sizeof result->info.name);
    result->tensors = f->count;
    result->bytes = f->conversion->total;
    result->files = 1;
    if (f->conversion->options.dry_run) {
        return DM_OK;
    }
    DM_TRY(dm_conversion_prepare(f->conversion, largest_turned(f)));
    return write_file(f, result->info.name);
}

static void free_folder(folder *f) {
    for (size_t i = 0; i < f->count && f->converted != NULL; i++) {
        free(f->converted[i].parts);
    }
    free(f->converted);
    free(f->order);
    free(f->specs);
    free(f->used);
    free(f->factors);
    dm_tokenizer_close(f->tokenizer);
    dm_safetensors_close(f->weights);
    json_decref(f->config_json);
}

dm_status dm_convert_to_gguf(dm_conversion *conversion, dm_convert_result *result) {
    const dm_mixture *mixture;
    if (conversion->options.type != NULL) {
        DM_TRY(dm_mixture_from_name(conversion->options.type, &mixture));
    }
    DM_TRY(dm_conversion_check_target(conversion->to));
    folder f = {.conversion = conversion};
    char *config_path = dm_path_join(conversion->from, "config.json");
    dm_status status = config_path != NULL ? convert(&f, config_path, result) : dm_fail(DM_ERR_MEMORY, "out of memory");
    free_folder(&f);
    free(config_path);
    return status;
}
