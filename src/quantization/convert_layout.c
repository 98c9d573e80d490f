/*
 * A GGUF model of experts as another GGUF file: the same tensors and metadata, the experts in another layout (see
 * model/expert_layout.h). Every byte of a weight is copied as it is.
 */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "quantization/convert.h"

typedef struct relayout {
    dm_conversion *conversion;
    dm_model *model;
    dm_config config; /* the model's, with experts as they are to lie */
    dm_tensor_spec *specs;
    size_t count;
    const dm_tensor_spec **order; /* [count] in which they are written; NULL: their own */
    dm_converted *converted;      /* [count] */
    dm_weights *matrices;         /* what they are made from: an expert's matrix is one, as is every other tensor */
    size_t n_matrices;
    bool mixed; /* some are mixed-width panels */
} relayout;

/* ---- Where weights lie ---- */

static const dm_tensor *tensor_of(const dm_model *model, const dm_tensor_spec *spec) {
    return spec->layer < 0 ? &model->tensors[spec->role] : &model->layers[spec->layer].tensors[spec->role];
}

/* A tensor, or one expert's part of it; expert -1 for what is none's. */
static dm_weights find(const dm_tensor *tensor, int32_t expert) {
    const dm_weight own = dm_tensor_matrix(tensor, expert >= 0 ? (size_t)expert : 0);
    return (dm_weights){.data = own.data, .type = own.type, .rows = own.rows, .columns = own.columns};
}

/* Bytes of all parts. */
static uint64_t bytes_of(const dm_converted *it) {
    uint64_t bytes = 0;
    for (int32_t i = 0; i < it->n_parts; i++) {
        size_t own;
        dm_converted_part(it, i, &own);
        bytes += own;
    }
    return bytes;
}

/* Experts that lie apart need not be of one type; a stack's are. */
static dm_status check_type(const relayout *r, const dm_tensor_spec *spec, const dm_converted *it, int32_t expert) {
    dm_type type = it->parts[expert].type;
    if (type == it->type) {
        return DM_OK;
    }
    return dm_fail(DM_ERR_UNSUPPORTED,
                   "%s: expert %d of '%s' is of type %s and expert 0 of type %s: experts of several types cannot be stacked, and "
                   "run as they are",
                   r->conversion->from, expert, spec->name, dm_type_name((uint32_t)type), dm_type_name((uint32_t)it->type));
}

static dm_status find_parts(relayout *r, const dm_tensor_spec *spec, dm_converted *it) {
    bool stack = dm_role_is_expert(spec->role) && spec->expert < 0;
    *it = (dm_converted){.conversion = r->conversion,
                         .parts = r->matrices + r->n_matrices,
                         .n_parts = stack ? r->config.n_experts : 1,
                         .columns = (size_t)spec->dims[0]};
    it->part_elements = spec->elements / (uint64_t)it->n_parts;
    for (int32_t i = 0; i < it->n_parts; i++) {
        it->parts[i] = find(tensor_of(r->model, spec), stack ? i : spec->expert);
    }
    r->n_matrices += (size_t)it->n_parts;
    it->type = it->parts[0].type;
    r->conversion->total += bytes_of(it);
    r->mixed = r->mixed || it->type == DM_TYPE_MIXED;
    for (int32_t i = 1; i < it->n_parts; i++) {
        DM_TRY(check_type(r, spec, it, i));
    }
    return DM_OK;
}

static size_t count_matrices(const relayout *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++) {
        bool stack = dm_role_is_expert(r->specs[i].role) && r->specs[i].expert < 0;
        n += stack ? (size_t)r->config.n_experts : 1;
    }
    return n;
}

static dm_status find_tensors(relayout *r) {
    r->converted = calloc(r->count + 1, sizeof *r->converted);
    r->matrices = calloc(count_matrices(r) + 1, sizeof *r->matrices);
    if (r->converted == NULL || r->matrices == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory listing its tensors", r->conversion->from);
    }
    for (size_t i = 0; i < r->count; i++) {
        DM_TRY(find_parts(r, &r->specs[i], &r->converted[i]));
    }
    return DM_OK;
}

/* ---- The file ---- */

static dm_status write_file(const relayout *r) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_gguf_copy_values(writer, r->model->file, "");
    if (r->order != NULL) {
        dm_streaming_write(writer);
    } else if (r->mixed) {
        dm_gguf_set_alignment(writer, DM_MIXED_ALIGNMENT);
    }
    for (size_t i = 0; i < r->count; i++) {
        const dm_tensor_spec *spec = r->order != NULL ? r->order[i] : &r->specs[i];
        dm_converted *it = &r->converted[spec - r->specs];
        const uint64_t bytes = bytes_of(it);
        const bool mixed = it->type == DM_TYPE_MIXED;
        dm_gguf_add_tensor_made(writer, spec->name, mixed ? DM_TYPE_I8 : it->type, mixed ? &bytes : spec->dims,
                                mixed ? 1 : spec->n_dims, dm_convert_piece, it);
    }
    dm_status status = dm_gguf_writer_finish(writer, r->conversion->to);
    dm_gguf_writer_free(writer);
    return status;
}

/* ---- The model ---- */

static dm_status check_options(const dm_conversion *conversion) {
    const dm_convert_options *o = &conversion->options;
    if (o->type == NULL && o->name == NULL && o->shard_bytes == 0) {
        return DM_OK;
    }
    return dm_fail(DM_ERR_ARGUMENT,
                   "%s: a GGUF file whose layout changes keeps its types and its name, and stays one file: leave "
                   "those options out",
                   conversion->from);
}

static dm_status check_layout(const relayout *r) {
    const char *from = r->conversion->from;
    dm_expert_layout is = dm_model_expert_layout(r->model);
    if (is == DM_LAYOUT_NONE) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: is a dense model: only experts have a layout", from);
    }
    if (is == r->conversion->layout) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: its experts have the %s layout already", from, dm_expert_layout_name(is));
    }
    return DM_OK;
}

static dm_status convert(relayout *r, dm_convert_result *result) {
    bool streaming = r->conversion->layout == DM_LAYOUT_STREAMING;
    DM_TRY(check_layout(r));
    r->config = r->model->config;
    r->config.extra = (r->config.extra & ~(uint32_t)DM_PART_APART) | (streaming ? DM_PART_APART : 0);
    DM_TRY(dm_config_tensors(&r->config, &r->specs, &r->count));
    if (streaming) {
        DM_TRY(dm_streaming_order(r->specs, r->count, &r->order));
    }
    DM_TRY(find_tensors(r));
    dm_model_get_info(r->model, &result->info);
    result->tensors = r->count;
    result->bytes = r->conversion->total;
    result->files = 1;
    return r->conversion->options.dry_run ? DM_OK : write_file(r);
}

dm_status dm_convert_layout(dm_conversion *conversion, dm_convert_result *result) {
    relayout r = {.conversion = conversion};
    DM_TRY(check_options(conversion));
    DM_TRY(dm_conversion_check_target(conversion->to));
    DM_TRY(dm_model_open(conversion->from, &r.model));
    dm_status status = convert(&r, result);
    free(r.order);
    free(r.specs);
    free(r.converted);
    free(r.matrices);
    dm_model_close(r.model);
    return status;
}
