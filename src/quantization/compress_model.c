#include "quantization/compress_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- Tensors ---- */

static int32_t expert_of(const dm_compress_target *t, size_t matrix) {
    return dm_role_is_expert(t->spec->role) ? (int32_t)(t->first + matrix) : -1;
}

static dm_status plan(dm_compress_model *it, size_t i) {
    const dm_tensor_spec *spec = &it->specs[i];
    const dm_tensor *tensors = spec->layer < 0 ? it->model->tensors : it->model->layers[spec->layer].tensors;
    dm_compress_target *t = &it->targets[i];
    const bool stack = dm_role_is_expert(spec->role) && spec->expert < 0;
    *t = (dm_compress_target){.spec = spec, .tensor = &tensors[spec->role], .matrices = stack ? (size_t)spec->dims[2] : 1};
    t->first = spec->expert > 0 ? (size_t)spec->expert : 0;
    t->kept = dm_config_stored_type(spec, DM_TYPE_MIXED) != DM_TYPE_MIXED || spec->dims[0] % DM_PANEL_UNIT != 0;
    if (t->kept) {
        return dm_converted_keep(&it->conversion, spec, t->tensor, t->first, t->matrices, &t->copied);
    }
    t->panels = dm_panel_count((size_t)spec->dims[1]);
    t->units = (size_t)(spec->dims[0] / DM_PANEL_UNIT);
    /* What errors of a looked-up row cost is not measured, not even where the same matrix is the output: to the output's
     * statistics rows of rare tokens are nearly free, and their embedding would go with them. */
    t->plays = spec->role != DM_TOKEN_EMBD;
    return DM_OK;
}

static void number_tiles(dm_compress_model *it, bool plays) {
    for (size_t i = 0; i < it->count; i++) {
        dm_compress_target *t = &it->targets[i];
        if (!t->kept && t->plays == plays) {
            t->tile = it->tiles;
            it->tiles += t->matrices * t->panels * t->units;
        }
    }
}

static dm_status list(dm_compress_model *it) {
    DM_TRY(dm_config_tensors(&it->model->config, &it->specs, &it->count));
    if (dm_model_expert_layout(it->model) == DM_LAYOUT_STREAMING) {
        DM_TRY(dm_streaming_order(it->specs, it->count, &it->order));
    }
    it->targets = dm_alloc(it->count, sizeof *it->targets);
    if (it->targets == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < it->count; i++) {
        DM_TRY(plan(it, i));
    }
    number_tiles(it, true);
    it->playing = it->tiles;
    number_tiles(it, false);
    return DM_OK;
}

dm_status dm_compress_model_open(dm_compress_model *it, const char *from, const dm_compress_options *options) {
    *it = (dm_compress_model){.options = options, .conversion = {.from = from}};
    dm_level_tables_make(&it->tables, &dm_mixed_usual_levels);
    DM_TRY(dm_model_open(from, &it->model));
    if (options->calibration != NULL) {
        DM_TRY(dm_calibration_open(options->calibration, it->model, &it->calibration));
    }
    if (options->slopes && (it->calibration == NULL || !dm_calibration_has_slopes(it->calibration))) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "%s: no slopes, by which errors are to be weighed; `dilmodeli calibrate --slopes auto` finds them",
                       options->calibration != NULL ? options->calibration : from);
    }
    return list(it);
}

void dm_compress_model_close(dm_compress_model *it) {
    for (size_t i = 0; it->targets != NULL && i < it->count; i++) {
        dm_free(it->targets[i].copied.parts);
    }
    dm_free(it->targets);
    free(it->order);
    free(it->specs);
    dm_calibration_close(it->calibration);
    dm_model_close(it->model);
}

dm_compress_matrix dm_compress_matrix_of(const dm_compress_target *t, size_t matrix) {
    return (dm_compress_matrix){.name = t->spec->name,
                                .layer = t->spec->layer,
                                .expert = expert_of(t, matrix),
                                .rows = t->spec->dims[1],
                                .columns = t->spec->dims[0]};
}

/* ---- The budget ---- */

uint64_t dm_compress_copied_bytes(const dm_compress_model *it) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < it->count; i++) {
        const dm_compress_target *t = &it->targets[i];
        bytes += t->kept ? dm_type_bytes(t->copied.type, (size_t)t->spec->elements) : 0;
    }
    return bytes;
}

uint64_t dm_compress_bytes_in(const dm_compress_model *it) {
    const dm_gguf *file = it->model->file;
    uint64_t bytes = 0;
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        bytes += dm_gguf_tensor_at(file, i)->bytes;
    }
    return bytes;
}

uint64_t dm_compress_overhead(const dm_compress_model *it) {
    const uint64_t tensors = dm_compress_bytes_in(it), whole = dm_gguf_size(it->model->file);
    const uint64_t alignment = it->order != NULL ? DM_GGUF_MOST_ALIGNMENT : DM_MIXED_ALIGNMENT;
    return (whole > tensors ? whole - tensors : 0) + (it->count + 4) * alignment;
}

/* Weights that the bits asked for are the mean of. */
static double budget_weights(const dm_compress_model *it) {
    return it->options->players ? (double)dm_compress_weights(it, DM_COMPRESS_PLAYING)
                                : (double)dm_config_params(&it->model->config);
}

dm_status dm_compress_budget(const dm_compress_model *it, uint64_t *bytes) {
    const dm_compress_options *o = it->options;
    const uint64_t overhead = dm_compress_overhead(it);
    if (o->bytes > 0 && o->bytes <= overhead) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: %" PRIu64 " bytes are too few: all but the weights takes up to %" PRIu64,
                       it->conversion.from, o->bytes, overhead);
    }
    *bytes = o->bytes > 0 ? o->bytes - overhead : (uint64_t)(o->bpw * budget_weights(it) / 8.0);
    return DM_OK;
}

/* Rounded to nearest: measured, 4 bits where the rest has 3.4 cost several times what all the rest does. */
unsigned dm_compress_embedding_bits(const dm_compress_model *it, uint64_t budget) {
    const dm_compress_options *o = it->options;
    const double playing = (double)dm_compress_weights(it, DM_COMPRESS_PLAYING);
    const double others = o->players ? 0.0 : (double)dm_compress_weights(it, DM_COMPRESS_ALL) - playing;
    const double left = (8.0 * (double)budget - 8.0 * others) / playing; /* bits of the layers' weights beside 8 of the others' */
    return o->embedding > 0 ? (unsigned)o->embedding : o->width > 4 || left > 4.1 ? 8 : 6;
}

/* ---- What errors cost ---- */

/* Without statistics all inputs are alike, and an error is a share of the matrix's own size: so one for methods that mind
 * neither, and for slopes that are not known. */
static void ones(float *to, size_t n) {
    for (size_t i = 0; i < n; i++) {
        to[i] = 1.0f;
    }
}

/* d = one over the mean over rows of sum diagonal w^2: errors are relative. */
static dm_status relative_slopes(const dm_weight *weight, const float *diagonal, float *d) {
    float *row = dm_alloc(weight->columns, sizeof *row);
    double sum = 0.0;
    if (row == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t r = 0; r < weight->rows; r++) {
        dm_weight_row(row, weight, r);
        for (size_t j = 0; j < weight->columns; j++) {
            const double term = (double)diagonal[j] * row[j] * row[j];
            sum += isfinite(term) ? term : 0.0;
        }
    }
    for (size_t r = 0; r < weight->rows; r++) {
        d[r] = (float)(1.0 / (sum + 1e-30));
    }
    dm_free(row);
    return DM_OK;
}

typedef struct room {
    float *d, *diagonal;
    dm_compress_moments *moments;
} room;

static dm_status fill(dm_compress_model *it, const dm_compress_target *t, size_t matrix, const dm_neighbour_choice *neighbours,
                      const dm_compress_task *task, const room *to) {
    static const dm_neighbour_choice nobody = {0};
    const dm_compress_method method = it->options->method;
    const int32_t expert = expert_of(t, matrix);
    const dm_role role = t->spec->role;
    dm_moments m = {0};
    const bool known = it->calibration != NULL && dm_calibration_has(it->calibration, t->spec->layer, role, expert);
    if (known) {
        DM_TRY(dm_calibration_get(it->calibration, t->spec->layer, role, expert, &m));
    }
    ones(to->diagonal, task->weight.columns);
    ones(to->d, task->weight.rows);
    if (known && method != DM_COMPRESS_MAGNITUDE) {
        memcpy(to->diagonal, m.diagonal, task->weight.columns * sizeof *to->diagonal);
    }
    if (method <= DM_COMPRESS_RTN && m.d != NULL && it->options->slopes) {
        memcpy(to->d, m.d, task->weight.rows * sizeof *to->d);
    } else if (method <= DM_COMPRESS_RTN) {
        DM_TRY(relative_slopes(&task->weight, to->diagonal, to->d));
    }
    return dm_compress_moments_make(to->moments, method <= DM_COMPRESS_GPTQ ? m.h : NULL, to->diagonal, task->weight.columns,
                                    neighbours != NULL ? neighbours : &nobody);
}

dm_status dm_compress_task_open(dm_compress_model *it, const dm_compress_target *t, size_t matrix,
                                const dm_neighbour_choice *neighbours, dm_compress_task *task) {
    *task = (dm_compress_task){.weight = dm_tensor_matrix(t->tensor, t->first + matrix), .tables = &it->tables};
    room to = {.d = dm_alloc(task->weight.rows, sizeof *to.d),
               .diagonal = dm_alloc(task->weight.columns, sizeof *to.diagonal),
               .moments = dm_alloc(1, sizeof *to.moments)};
    const bool had = to.d != NULL && to.diagonal != NULL && to.moments != NULL;
    dm_status status = had ? fill(it, t, matrix, neighbours, task, &to) : DM_ERR_MEMORY;
    dm_free(to.diagonal);
    task->d = to.d;
    task->moments = to.moments;
    if (status != DM_OK) {
        dm_free(to.d);
        dm_free(to.moments);
        *task = (dm_compress_task){0};
    }
    return status;
}

void dm_compress_task_close(dm_compress_task *task) {
    if (task->moments != NULL) {
        dm_compress_moments_free(task->moments);
    }
    dm_free(task->moments);
    dm_free(task->d);
    *task = (dm_compress_task){0};
}

/* ---- One after another ---- */

static bool is_one(const dm_compress_target *t, dm_compress_which which) {
    return !t->kept && (t->plays || which == DM_COMPRESS_ALL);
}

uint64_t dm_compress_weights(const dm_compress_model *it, dm_compress_which which) {
    uint64_t weights = 0;
    for (size_t i = 0; i < it->count; i++) {
        weights += is_one(&it->targets[i], which) ? it->targets[i].spec->elements : 0;
    }
    return weights;
}

void dm_compress_progress(dm_compress_model *it, uint64_t weights) {
    it->done += weights;
    if (it->options->on_progress != NULL) {
        it->options->on_progress(it->options->user, it->done, it->total);
    }
}

dm_status dm_compress_each_of(dm_compress_model *it, size_t target, const dm_neighbour_choice *neighbours, dm_compress_each_fn fn,
                              void *user) {
    const dm_compress_target *t = &it->targets[target];
    for (size_t m = 0; m < t->matrices; m++) {
        dm_compress_task task;
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written");
        }
        DM_TRY(dm_compress_task_open(it, t, m, neighbours, &task));
        dm_status status = fn(user, target, m, &task);
        dm_compress_progress(it, (uint64_t)task.weight.rows * task.weight.columns);
        dm_compress_task_close(&task);
        DM_TRY(status);
    }
    return DM_OK;
}

dm_status dm_compress_each(dm_compress_model *it, dm_compress_which which, const dm_neighbour_choice *neighbours,
                           dm_compress_each_fn fn, void *user) {
    for (size_t i = 0; i < it->count; i++) {
        if (is_one(&it->targets[i], which)) {
            DM_TRY(dm_compress_each_of(it, i, neighbours, fn, user));
        }
    }
    return DM_OK;
}
