/* A GGUF model as another one whose matrices are mixed-width panels, all of one width, rounded to nearest. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/weight.h"
#include "model/mixed_tensor.h"
#include "model/model.h"
#include "quantization/convert.h"
#include "quantization/mixed_writer.h"

#define PREFIX "mixed:"

/* One tensor of the file. */
typedef struct target {
    struct mixing *mixing;
    const dm_tensor *tensor;
    size_t first, matrices; /* of the tensor */
    dm_mixed_plan *plans;   /* [matrices]; NULL: it stays as it is */
    dm_mixed_writer *writer;
    dm_converted copied;
} target;

typedef struct mixing {
    dm_conversion *conversion;
    dm_model *model;
    dm_tensor_spec *specs;
    size_t count;
    const dm_tensor_spec **order; /* [count] of a file laid out for streaming, or NULL */
    target *targets;              /* [count] */
    uint8_t *widths;              /* [tiles of the largest matrix], all the same */
    unsigned bits;
} mixing;

/* ---- What becomes of each tensor ---- */

bool dm_convert_is_mixed(const char *type) {
    return type != NULL && strncmp(type, PREFIX, strlen(PREFIX)) == 0;
}

static dm_status parse_bits(const char *type, unsigned *bits) {
    const char *digit = type + strlen(PREFIX);
    *bits = (unsigned)(unsigned char)digit[0] - '0';
    if (digit[0] == '\0' || digit[1] != '\0' || dm_mixed_number(*bits) < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "the type '%.40s' is not known, expected mixed: and 2, 3, 4, 5, 6 or 8, as in mixed:4",
                       type);
    }
    return DM_OK;
}

static bool becomes_mixed(const dm_tensor_spec *spec) {
    return dm_config_stored_type(spec, DM_TYPE_MIXED) == DM_TYPE_MIXED && spec->dims[0] % DM_PANEL_UNIT == 0;
}

/* Panels [begin, end) of a matrix that is being written. */
typedef struct filling {
    const dm_mixed_plan *plan;
    dm_weight from;
    void *out;
    dm_failure failure;
} filling;

static dm_status fill_panel(const filling *f, size_t panel, float *x, dm_mixed_numbers *numbers) {
    const size_t first = panel * DM_PANEL_ROWS, left = f->plan->rows - first;
    const size_t rows = left < DM_PANEL_ROWS ? left : DM_PANEL_ROWS;
    for (size_t r = 0; r < rows; r++) {
        dm_weight_row(x + r * f->plan->columns, &f->from, first + r);
    }
    DM_TRY(dm_mixed_fit_panel(numbers, &f->plan->levels, x, rows, f->plan->columns, f->plan->widths, NULL));
    dm_mixed_put_panel(f->out, panel, numbers);
    return DM_OK;
}

static void fill_body(void *user, size_t begin, size_t end, int thread) {
    filling *f = user;
    const size_t columns = f->plan->columns;
    (void)thread;
    float *x = dm_alloc(DM_PANEL_ROWS * columns, sizeof *x);
    dm_mixed_numbers numbers = {.scales = dm_alloc(columns / DM_PANEL_UNIT, DM_PANEL_ROWS),
                                .codes = dm_alloc(columns, DM_PANEL_ROWS)};
    bool room = x != NULL && numbers.scales != NULL && numbers.codes != NULL;
    dm_failure_note(&f->failure, room ? DM_OK : DM_ERR_MEMORY);
    for (size_t p = begin; p < end && room; p++) {
        dm_failure_note(&f->failure, fill_panel(f, p, x, &numbers));
    }
    dm_free(x);
    dm_free(numbers.scales);
    dm_free(numbers.codes);
}

/* A dm_mixed_fill_fn. */
static dm_status fill(void *user, size_t matrix, void *out) {
    const target *t = user;
    dm_conversion *conversion = t->mixing->conversion;
    filling f = {.plan = &t->plans[matrix], .out = out};
    if (dm_interrupted()) {
        return dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written");
    }
    f.from = dm_tensor_matrix(t->tensor, t->first + matrix);
    dm_parallel(dm_threads(), dm_panel_count(f.plan->rows), 1, fill_body, &f);
    conversion->done += ((const dm_mixed_header *)out)->bytes;
    if (conversion->on_piece != NULL) {
        conversion->on_piece(conversion->user, conversion->done, conversion->total);
    }
    return dm_failure_raise(&f.failure);
}

static dm_status plan_mixed(mixing *it, const dm_tensor_spec *spec, target *t) {
    t->plans = dm_alloc(t->matrices, sizeof *t->plans);
    for (size_t i = 0; i < t->matrices && t->plans != NULL; i++) {
        t->plans[i] = (dm_mixed_plan){(size_t)spec->dims[1], (size_t)spec->dims[0], it->widths, dm_mixed_usual_levels};
    }
    return t->plans != NULL ? dm_mixed_writer_create(t->plans, t->matrices, fill, t, &t->writer) : DM_ERR_MEMORY;
}

static dm_status plan(mixing *it, size_t i) {
    const dm_tensor_spec *spec = &it->specs[i];
    const dm_tensor *tensors = spec->layer < 0 ? it->model->tensors : it->model->layers[spec->layer].tensors;
    target *t = &it->targets[i];
    const bool stack = dm_role_is_expert(spec->role) && spec->expert < 0;
    *t = (target){.mixing = it, .tensor = &tensors[spec->role], .matrices = stack ? (size_t)it->model->config.n_experts : 1};
    t->first = spec->expert > 0 ? (size_t)spec->expert : 0;
    if (becomes_mixed(spec)) {
        DM_TRY(plan_mixed(it, spec, t));
        it->conversion->total += dm_mixed_writer_bytes(t->writer);
        return DM_OK;
    }
    DM_TRY(dm_converted_keep(it->conversion, spec, t->tensor, t->first, t->matrices, &t->copied));
    it->conversion->total += dm_type_bytes(t->copied.type, (size_t)spec->elements);
    return DM_OK;
}

/* One array of widths serves all. */
static dm_status make_widths(mixing *it) {
    size_t most = 1;
    for (size_t i = 0; i < it->count; i++) {
        size_t tiles = dm_panel_count((size_t)it->specs[i].dims[1]) * (size_t)(it->specs[i].dims[0] / DM_PANEL_UNIT);
        most = becomes_mixed(&it->specs[i]) && tiles > most ? tiles : most;
    }
    it->widths = dm_alloc(most, 1);
    if (it->widths == NULL) {
        return DM_ERR_MEMORY;
    }
    memset(it->widths, (int)it->bits, most);
    return DM_OK;
}

/* ---- The file ---- */

void dm_mixed_values(dm_gguf_writer *writer, const dm_gguf *from, bool streaming) {
    dm_gguf_copy_values(writer, from, "");
    if (streaming) {
        dm_streaming_write(writer);
    } else {
        dm_gguf_set_alignment(writer, DM_MIXED_ALIGNMENT);
    }
    if (!dm_gguf_has(from, DM_KEY_FORMAT)) {
        dm_gguf_add_u32(writer, DM_KEY_FORMAT, DM_MIXED_VERSION);
    }
}

static dm_status write_file(const mixing *it) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_mixed_values(writer, it->model->file, it->order != NULL);
    for (size_t i = 0; i < it->count; i++) {
        const dm_tensor_spec *spec = it->order != NULL ? it->order[i] : &it->specs[i];
        target *t = &it->targets[spec - it->specs];
        if (t->writer != NULL) {
            dm_mixed_writer_add(t->writer, writer, spec->name);
        } else {
            dm_gguf_add_tensor_made(writer, spec->name, t->copied.type, spec->dims, spec->n_dims, dm_convert_piece, &t->copied);
        }
    }
    dm_status status = dm_gguf_writer_finish(writer, it->conversion->to);
    dm_gguf_writer_free(writer);
    return status;
}

static dm_status convert(mixing *it, dm_convert_result *result) {
    const dm_config *c = &it->model->config;
    DM_TRY(dm_config_tensors(c, &it->specs, &it->count));
    if (dm_model_expert_layout(it->model) == DM_LAYOUT_STREAMING) {
        DM_TRY(dm_streaming_order(it->specs, it->count, &it->order));
    }
    it->targets = dm_alloc(it->count, sizeof *it->targets);
    if (it->targets == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(make_widths(it));
    for (size_t i = 0; i < it->count; i++) {
        DM_TRY(plan(it, i));
    }
    dm_model_get_info(it->model, &result->info);
    result->tensors = it->count;
    result->bytes = it->conversion->total;
    result->files = 1;
    return it->conversion->options.dry_run ? DM_OK : write_file(it);
}

static void drop(mixing *it) {
    for (size_t i = 0; it->targets != NULL && i < it->count; i++) {
        dm_mixed_writer_free(it->targets[i].writer);
        dm_free(it->targets[i].plans);
        dm_free(it->targets[i].copied.parts);
    }
    dm_free(it->targets);
    dm_free(it->widths);
    free(it->order);
    free(it->specs);
    dm_model_close(it->model);
}

static dm_status check_options(const dm_conversion *conversion) {
    const dm_convert_options *o = &conversion->options;
    if (dm_is_folder(conversion->from)) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: is a folder; make a GGUF file of it first, then one of type %s", conversion->from,
                       o->type);
    }
    if (o->name != NULL || o->shard_bytes != 0) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "%s: a GGUF file of mixed-width panels keeps its name and stays one file: leave those "
                       "options out",
                       conversion->from);
    }
    return DM_OK;
}

dm_status dm_convert_mixed(dm_conversion *conversion, dm_convert_result *result) {
    mixing it = {.conversion = conversion};
    DM_TRY(parse_bits(conversion->options.type, &it.bits));
    DM_TRY(check_options(conversion));
    DM_TRY(dm_conversion_check_target(conversion->to));
    DM_TRY(dm_model_open(conversion->from, &it.model));
    dm_status status = convert(&it, result);
    drop(&it);
    return status;
}
