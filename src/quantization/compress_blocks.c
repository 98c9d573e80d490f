/* A model as blocks that every GGUF program reads: a type for each tensor under one price of a byte. */
#include "base/memory.h"
#include "model/mixed_tensor.h"
#include "quantization/compat_rows.h"
#include "quantization/compat_types.h"
#include "quantization/compress_way.h"
#include "quantization/mixture.h"

enum { DEFAULT_SWEEPS = 4, SAMPLED_ROWS = 64 /* of a matrix, that costs are estimated from */ };

/* A target in one type, which does not depend on what others become: it serves every size that gives it this type. */
typedef struct solved {
    dm_compress_part part;    /* bytes 0: not solved yet */
    dm_compat_counts *counts; /* [matrices] */
} solved;

typedef struct blocks {
    dm_compress_model *model;
    dm_compat_offer *offers;  /* [playing] */
    size_t playing;           /* targets */
    size_t *offer_of;         /* [targets] that play: number of the offer */
    dm_solutions solutions;   /* of all sizes together */
    solved *solved;           /* [targets, DM_TYPES] */
    dm_compress_outcome *out; /* while it is being solved */
} blocks;

static bool whole_blocks(dm_type type, uint64_t columns) {
    uint32_t block = 1, bytes = 0;
    dm_type_block((uint32_t)type, &block, &bytes);
    return columns % block == 0;
}

static dm_compat_task task_of(const blocks *it, const dm_compress_task *task, bool plays) {
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
static dm_status offer_one(void *user, size_t target, size_t matrix, const dm_compress_task *task) {
    const blocks *it = user;
    const dm_tensor_spec *spec = it->model->targets[target].spec;
    dm_compat_offer *offer = &it->offers[it->offer_of[target]];
    const dm_compat_task own = task_of(it, task, false);
    const size_t rows = task->weight.rows, step = (rows + SAMPLED_ROWS - 1) / SAMPLED_ROWS, sampled = (rows + step - 1) / step;
    (void)matrix;
    for (int k = 0; k < DM_COMPAT_TYPES; k++) {
        const dm_type type = dm_compat_types[k];
        dm_compat_counts counts;
        if (whole_blocks(type, spec->dims[0])) {
            DM_TRY(dm_compat_encode(&own, type, step, NULL, &counts));
            offer->cost[k] += counts.after * (double)rows / (double)sampled;
            offer->bytes[k] = dm_type_bytes(type, (size_t)spec->elements);
        }
    }
    return DM_OK;
}

static dm_status open(dm_compress_model *model, void **state) {
    blocks *it = dm_alloc(1, sizeof *it);
    *state = it;
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    *it = (blocks){.model = model,
                   .offers = dm_alloc(model->count, sizeof *it->offers),
                   .offer_of = dm_alloc(model->count, sizeof *it->offer_of),
                   .solved = dm_alloc(model->count * DM_TYPES, sizeof *it->solved)};
    if (it->offers == NULL || it->offer_of == NULL || it->solved == NULL) {
        return DM_ERR_MEMORY;
    }
    if (dm_gguf_has(model->model->file, DM_KEY_FORMAT) || model->order != NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: is mixed-width or laid out for streaming, expected a standard GGUF file",
                       model->conversion.from);
    }
    for (size_t i = 0; i < model->count; i++) {
        it->offer_of[i] = it->playing;
        it->playing += model->targets[i].plays;
    }
    return dm_compress_each(model, DM_COMPRESS_PLAYING, NULL, offer_one, it);
}

static void close(void *state) {
    blocks *it = state;
    for (size_t i = 0; it->solved != NULL && i < it->model->count * DM_TYPES; i++) {
        dm_free(it->solved[i].counts);
    }
    dm_solutions_close(&it->solutions);
    dm_free(it->solved);
    dm_free(it->offers);
    dm_free(it->offer_of);
    dm_free(it);
}

/* The type of so many bits; where rows are no whole blocks of it, the next one of blocks of 32 weights. */
static dm_type embedding_type(unsigned bits, uint64_t columns) {
    static const dm_type types[][2] = {
        [2] = {DM_TYPE_Q2_K, DM_TYPE_Q4_0}, [3] = {DM_TYPE_Q3_K, DM_TYPE_Q4_0}, [4] = {DM_TYPE_Q4_K, DM_TYPE_Q4_1},
        [5] = {DM_TYPE_Q5_K, DM_TYPE_Q5_1}, [6] = {DM_TYPE_Q6_K, DM_TYPE_Q8_0}, [8] = {DM_TYPE_Q8_0, DM_TYPE_Q8_0}};
    return types[bits][whole_blocks(types[bits][0], columns) ? 0 : 1];
}

static dm_status settle(blocks *it) {
    const dm_compress_model *model = it->model;
    const bool players = model->options->players; /* the budget is theirs alone */
    uint64_t budget = 0, fixed = players ? 0 : dm_compress_copied_bytes(model);
    DM_TRY(dm_compress_budget(model, &budget));
    for (size_t i = 0; i < model->count; i++) {
        const dm_compress_target *t = &model->targets[i];
        if (!t->kept && !t->plays) {
            it->out->parts[i].type = embedding_type(dm_compress_embedding_bits(model, budget), t->spec->dims[0]);
            fixed += players ? 0 : dm_type_bytes(it->out->parts[i].type, (size_t)t->spec->elements);
        }
    }
    DM_TRY(dm_compat_settle(it->offers, it->playing, budget > fixed ? budget - fixed : 0, &it->out->result.price));
    for (size_t i = 0; i < model->count; i++) {
        if (model->targets[i].plays) {
            it->out->parts[i].type = dm_compat_types[it->offers[it->offer_of[i]].chosen];
        }
    }
    return DM_OK;
}

/* ---- Solutions ---- */

static void note_matrix(const blocks *it, size_t target, size_t m, size_t bytes, const dm_compat_counts *counts) {
    const dm_compress_options *o = it->model->options;
    const dm_compress_target *t = &it->model->targets[target];
    dm_compress_result *r = &it->out->result;
    dm_compress_matrix matrix = dm_compress_matrix_of(t, m);
    matrix.bytes = bytes;
    matrix.error_before = counts->before;
    matrix.error_after = counts->after;
    matrix.type = dm_type_name((uint32_t)it->out->parts[target].type);
    r->error_before += t->plays ? counts->before : 0.0; /* others' are not comparable */
    r->error_after += t->plays ? counts->after : 0.0;
    if (o->on_matrix != NULL) {
        o->on_matrix(o->user, &matrix);
    }
}

static solved *solved_of(const blocks *it, size_t target) {
    return &it->solved[target * DM_TYPES + it->out->parts[target].type];
}

static dm_status solve_one(void *user, size_t target, size_t matrix, const dm_compress_task *task) {
    const blocks *it = user;
    const dm_type type = it->out->parts[target].type;
    const dm_compat_task own = task_of(it, task, it->model->targets[target].plays);
    const size_t bytes = dm_type_bytes(type, task->weight.rows * task->weight.columns);
    void *data = dm_alloc(bytes, 1);
    dm_status status =
        data != NULL ? dm_compat_encode(&own, type, 1, data, &solved_of(it, target)->counts[matrix]) : DM_ERR_MEMORY;
    if (status == DM_OK) {
        status = dm_compress_outcome_add(it->out, target, matrix, data, bytes);
    }
    dm_free(data);
    return status;
}

static dm_status solve_target(blocks *it, size_t target) {
    const dm_compress_target *t = &it->model->targets[target];
    solved *s = solved_of(it, target);
    if (s->counts == NULL) {
        s->counts = dm_alloc(t->matrices, sizeof *s->counts);
    }
    if (s->counts == NULL) {
        return DM_ERR_MEMORY;
    }
    if (s->part.bytes == 0) {
        DM_TRY(dm_compress_each_of(it->model, target, NULL, solve_one, it));
        s->part = it->out->parts[target];
    } else {
        it->out->parts[target] = s->part;
        dm_compress_progress(it->model, t->spec->elements);
    }
    for (size_t m = 0; m < t->matrices; m++) {
        note_matrix(it, target, m, (size_t)(s->part.bytes / t->matrices), &s->counts[m]);
    }
    return DM_OK;
}

static dm_status solve(void *state, const char *to, dm_compress_outcome *out) {
    blocks *it = state;
    it->out = out;
    if (it->solutions.stream == NULL) {
        DM_TRY(dm_solutions_open(&it->solutions, to));
    }
    DM_TRY(dm_compress_outcome_open(out, it->model, to, &it->solutions));
    DM_TRY(settle(it));
    for (size_t i = 0; i < it->model->count; i++) {
        if (!it->model->targets[i].kept) {
            DM_TRY(solve_target(it, i));
        }
    }
    return DM_OK;
}

/* ---- The file ---- */

/* The type of most weights, by which other programs call the file. */
static dm_type most_common(const dm_compress_model *model, const dm_compress_outcome *outcome) {
    uint64_t weights[DM_TYPES] = {0};
    uint32_t most = DM_TYPE_Q4_K;
    for (size_t i = 0; i < model->count; i++) {
        const dm_compress_target *t = &model->targets[i];
        if (!t->kept) {
            const uint32_t type = outcome->parts[i].type;
            weights[type] += t->spec->elements;
            most = weights[type] > weights[most] ? type : most;
        }
    }
    return (dm_type)most;
}

static dm_status describe(const void *state, const dm_compress_outcome *outcome, dm_gguf_writer *writer) {
    static const char *const own[] = {"general.file_type", "general.quantization_version", NULL};
    const blocks *it = state;
    const dm_mixture *mixture;
    DM_TRY(dm_mixture_from_name(dm_type_name((uint32_t)most_common(it->model, outcome)), &mixture));
    dm_gguf_copy_values_but(writer, it->model->model->file, "", own);
    dm_mixture_write(mixture, writer);
    return DM_OK;
}

const dm_compress_way dm_compress_to_blocks = {open, close, solve, describe};
