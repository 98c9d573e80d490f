#include "quantization/compress_compat.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "model/mixed_tensor.h"
#include "quantization/compat_rows.h"
#include "quantization/compat_types.h"
#include "quantization/compress_solutions.h"
#include "quantization/mixture.h"

enum { DEFAULT_SWEEPS = 4, SAMPLED_ROWS = 64 /* of a matrix, that costs are estimated from */ };

typedef struct compat {
    dm_compress_model *model;
    const char *to;
    dm_compat_offer *offers; /* [tensors that play] */
    dm_type *types;          /* [tensors] that are not kept */
    dm_solutions solutions;
    uint64_t done, total; /* weights, counted twice */
    dm_compress_result *result;
} compat;

static void progress(compat *it, const dm_compress_task *task) {
    const dm_compress_options *o = it->model->options;
    it->done += (uint64_t)task->weight.rows * task->weight.columns;
    if (o->on_progress != NULL) {
        o->on_progress(o->user, it->done, it->total);
    }
}

static bool whole_blocks(dm_type type, uint64_t columns) {
    uint32_t block = 1, bytes = 0;
    dm_type_block((uint32_t)type, &block, &bytes);
    return columns % block == 0;
}

static dm_compat_task task_of(const compat *it, const dm_compress_task *task, bool plays) {
    const dm_compress_options *o = it->model->options;
    const size_t sweeps = o->sweeps > 0 ? (size_t)o->sweeps : DEFAULT_SWEEPS;
    return (dm_compat_task){.weight = task->weight,
                            .moments = task->moments,
                            .d = task->d,
                            .compensate = o->method <= DM_COMPRESS_GPTQ,
                            .sweeps = plays && o->method == DM_COMPRESS_GAME ? sweeps : 0};
}

/* ---- Costs and types ---- */

/* Adds what one matrix loses in each type, estimated from rows that lie evenly over it. */
static dm_status offer_matrix(const compat *it, const dm_compress_target *t, const dm_compress_task *task,
                              dm_compat_offer *offer) {
    const dm_compat_task own = task_of(it, task, false);
    const size_t rows = task->weight.rows, step = (rows + SAMPLED_ROWS - 1) / SAMPLED_ROWS, sampled = (rows + step - 1) / step;
    for (int k = 0; k < DM_COMPAT_TYPES; k++) {
        const dm_type type = dm_compat_types[k];
        dm_compat_counts counts;
        if (whole_blocks(type, t->spec->dims[0])) {
            DM_TRY(dm_compat_encode(&own, type, step, NULL, &counts));
            offer->cost[k] += counts.after * (double)rows / (double)sampled;
            offer->bytes[k] = dm_type_bytes(type, (size_t)t->spec->elements);
        }
    }
    return DM_OK;
}

static dm_status offer_all(compat *it) {
    size_t n = 0;
    for (size_t i = 0; i < it->model->count; i++) {
        const dm_compress_target *t = &it->model->targets[i];
        for (size_t m = 0; t->plays && m < t->matrices; m++) {
            dm_compress_task task;
            DM_TRY(dm_compress_task_open(it->model, t, m, NULL, &task));
            dm_status status = offer_matrix(it, t, &task, &it->offers[n]);
            progress(it, &task);
            dm_compress_task_close(&task);
            DM_TRY(status);
        }
        n += t->plays;
    }
    return DM_OK;
}

/* Errors of looked-up rows are not in the statistics: 6 bits or more where the embedding is also the output, else about as many
 * as the model has. */
static dm_type embedding_type(const compat *it, const dm_compress_target *t, double bpw) {
    const bool tied = it->model->model->config.tied_output;
    const dm_type wanted = bpw > 7.0 ? DM_TYPE_Q8_0 : tied || bpw > 5.0 ? DM_TYPE_Q6_K : DM_TYPE_Q4_K;
    if (whole_blocks(wanted, t->spec->dims[0])) {
        return wanted;
    }
    return wanted == DM_TYPE_Q4_K ? DM_TYPE_Q5_0 : DM_TYPE_Q8_0;
}

/* Bytes of tensors that are asked for. */
static dm_status budget_of(const compat *it, uint64_t *budget) {
    const dm_compress_options *o = it->model->options;
    const uint64_t overhead = dm_compress_overhead(it->model);
    if (o->bytes > 0 && o->bytes <= overhead) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: %" PRIu64 " bytes are too few: all but the weights takes up to %" PRIu64,
                       it->model->conversion.from, o->bytes, overhead);
    }
    *budget = o->bytes > 0 ? o->bytes - overhead : (uint64_t)(o->bpw * (double)dm_config_params(&it->model->model->config) / 8.0);
    return DM_OK;
}

static dm_status settle(compat *it) {
    const dm_compress_model *model = it->model;
    const double params = (double)dm_config_params(&model->model->config);
    uint64_t budget = 0, fixed = dm_compress_copied_bytes(model);
    size_t n = 0;
    DM_TRY(budget_of(it, &budget));
    for (size_t i = 0; i < model->count; i++) {
        const dm_compress_target *t = &model->targets[i];
        if (!t->kept && !t->plays) {
            it->types[i] = embedding_type(it, t, 8.0 * (double)budget / params);
            fixed += dm_type_bytes(it->types[i], (size_t)t->spec->elements);
        }
        n += t->plays;
    }
    DM_TRY(dm_compat_settle(it->offers, n, budget > fixed ? budget - fixed : 0, &it->result->price));
    n = 0;
    for (size_t i = 0; i < model->count; i++) {
        if (model->targets[i].plays) {
            it->types[i] = dm_compat_types[it->offers[n++].chosen];
        }
    }
    return DM_OK;
}

/* ---- Solutions ---- */

static void note_matrix(const compat *it, size_t i, size_t m, size_t bytes, const dm_compat_counts *counts) {
    const dm_compress_options *o = it->model->options;
    const dm_compress_target *t = &it->model->targets[i];
    const dm_compress_matrix matrix = {.name = t->spec->name,
                                       .layer = t->spec->layer,
                                       .expert = dm_role_is_expert(t->spec->role) ? (int32_t)(t->first + m) : -1,
                                       .rows = t->spec->dims[1],
                                       .columns = t->spec->dims[0],
                                       .bytes = bytes,
                                       .error_before = counts->before,
                                       .error_after = counts->after,
                                       .type = dm_type_name((uint32_t)it->types[i])};
    it->result->error_before += t->plays ? counts->before : 0.0; /* others' are not comparable */
    it->result->error_after += t->plays ? counts->after : 0.0;
    if (o->on_matrix != NULL) {
        o->on_matrix(o->user, &matrix);
    }
}

static dm_status solve_one(compat *it, size_t i, size_t m, const dm_compress_task *task) {
    dm_compress_target *t = &it->model->targets[i];
    const dm_compat_task own = task_of(it, task, t->plays);
    const size_t bytes = dm_type_bytes(it->types[i], task->weight.rows * task->weight.columns);
    dm_compat_counts counts;
    void *data = dm_alloc(bytes, 1);
    dm_status status = data != NULL ? dm_compat_encode(&own, it->types[i], 1, data, &counts) : DM_ERR_MEMORY;
    if (status == DM_OK) {
        status = dm_solutions_add(&it->solutions, data, bytes);
    }
    if (status == DM_OK) {
        note_matrix(it, i, m, bytes, &counts);
    }
    dm_free(data);
    return status;
}

static dm_status solve(compat *it) {
    for (size_t i = 0; i < it->model->count; i++) {
        dm_compress_target *t = &it->model->targets[i];
        t->offset = it->solutions.written;
        for (size_t m = 0; !t->kept && m < t->matrices; m++) {
            dm_compress_task task;
            DM_TRY(dm_compress_task_open(it->model, t, m, NULL, &task));
            dm_status status = solve_one(it, i, m, &task);
            progress(it, &task);
            dm_compress_task_close(&task);
            DM_TRY(status);
        }
    }
    return DM_OK;
}

/* ---- The file ---- */

typedef struct source {
    const dm_solutions *solutions;
    uint64_t offset;
    dm_type type;
} source;

/* A dm_gguf_maker. */
static dm_status read_solution(void *user, uint64_t first, size_t n, void *out) {
    const source *s = user;
    return dm_solutions_read(s->solutions, s->offset + dm_type_bytes(s->type, (size_t)first), out, dm_type_bytes(s->type, n));
}

/* The type of most weights, by which other programs call the file. */
static dm_type most_common(const compat *it) {
    uint64_t weights[DM_TYPES] = {0};
    uint32_t most = DM_TYPE_Q4_K;
    for (size_t i = 0; i < it->model->count; i++) {
        const dm_compress_target *t = &it->model->targets[i];
        if (!t->kept) {
            weights[it->types[i]] += t->spec->elements;
            most = weights[it->types[i]] > weights[most] ? (uint32_t)it->types[i] : most;
        }
    }
    return (dm_type)most;
}

static void add_tensors(const compat *it, dm_gguf_writer *writer, source *sources) {
    for (size_t i = 0; i < it->model->count; i++) {
        const dm_tensor_spec *spec = &it->model->specs[i];
        dm_compress_target *t = &it->model->targets[i];
        sources[i] = (source){&it->solutions, t->offset, it->types[i]};
        if (t->kept) {
            dm_gguf_add_tensor_made(writer, spec->name, t->copied.type, spec->dims, spec->n_dims, dm_convert_piece, &t->copied);
        } else {
            dm_gguf_add_tensor_made(writer, spec->name, it->types[i], spec->dims, spec->n_dims, read_solution, &sources[i]);
        }
    }
}

static dm_status write_file(const compat *it) {
    static const char *const own[] = {"general.file_type", "general.quantization_version", NULL};
    const dm_mixture *mixture;
    DM_TRY(dm_mixture_from_name(dm_type_name((uint32_t)most_common(it)), &mixture));
    dm_gguf_writer *writer = dm_gguf_writer_create();
    source *sources = dm_alloc(it->model->count, sizeof *sources);
    dm_status status = writer != NULL && sources != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        dm_gguf_copy_values_but(writer, it->model->model->file, "", own);
        dm_mixture_write(mixture, writer);
        add_tensors(it, writer, sources);
        status = dm_gguf_writer_finish(writer, it->to);
    }
    dm_gguf_writer_free(writer);
    dm_free(sources);
    return status;
}

/* ---- All together ---- */

static void summarize(const compat *it) {
    dm_compress_result *r = it->result;
    struct stat made;
    r->bytes_in = dm_gguf_size(it->model->model->file);
    r->bytes_out = stat(it->to, &made) == 0 ? (uint64_t)made.st_size : 0;
    r->bpw = 8.0 * (double)(it->solutions.written + dm_compress_copied_bytes(it->model)) /
             (double)dm_config_params(&it->model->model->config);
}

static dm_status prepare(compat *it) {
    const dm_compress_model *model = it->model;
    size_t n = 0;
    if (dm_gguf_has(model->model->file, DM_KEY_FORMAT) || model->order != NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: is mixed-width or laid out for streaming, expected a standard GGUF file",
                       model->conversion.from);
    }
    for (size_t i = 0; i < model->count; i++) {
        const dm_compress_target *t = &model->targets[i];
        n += t->plays;
        it->total += t->kept ? 0 : (uint64_t)t->spec->elements * (t->plays ? 2u : 1u);
    }
    it->offers = dm_alloc(n, sizeof *it->offers);
    it->types = dm_alloc(model->count, sizeof *it->types);
    if (it->offers == NULL || it->types == NULL) {
        return DM_ERR_MEMORY;
    }
    return dm_conversion_prepare(&it->model->conversion, 0);
}

static dm_status compress(compat *it) {
    DM_TRY(prepare(it));
    DM_TRY(offer_all(it));
    DM_TRY(settle(it));
    DM_TRY(dm_solutions_open(&it->solutions, it->to));
    DM_TRY(solve(it));
    DM_TRY(write_file(it));
    summarize(it);
    return DM_OK;
}

dm_status dm_compress_compat(dm_compress_model *model, const char *to, dm_compress_result *result) {
    compat it = {.model = model, .to = to, .result = result};
    dm_status status = compress(&it);
    dm_solutions_close(&it.solutions);
    dm_free(it.offers);
    dm_free(it.types);
    return status;
}
