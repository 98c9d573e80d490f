/* A whole model through the compression game: costs of all tiles, one price, solutions matrix by matrix, the file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/threads.h"
#include "quantization/compress_compat.h"
#include "quantization/compress_model.h"
#include "quantization/compress_prices.h"
#include "quantization/compress_solutions.h"

_Static_assert((int)DM_COMPRESS_SWEEPS == (int)DM_MOST_SWEEPS && (int)DM_COMPRESS_WIDTHS == (int)DM_CHOICES,
               "the report has room for all of them");

enum { DEFAULT_SWEEPS = 2, SETTLINGS = 4 };

typedef struct compression {
    dm_compress_model model;
    const char *to;
    dm_market market;
    float *cost;     /* [tiles that play, DM_CHOICES] */
    uint8_t *widths; /* [all tiles] */
    dm_prices prices;
    dm_solutions solutions; /* matrices, one after another */
    uint64_t done, total;   /* weights, counted twice */
    dm_compress_result *result;
} compression;

static void progress(compression *it, const dm_compress_task *task) {
    const dm_compress_options *o = it->model.options;
    it->done += (uint64_t)task->weight.rows * task->weight.columns;
    if (o->on_progress != NULL) {
        o->on_progress(o->user, it->done, it->total);
    }
}

/* ---- Costs ---- */

static dm_status measure(compression *it) {
    for (size_t i = 0; i < it->model.count; i++) {
        const dm_compress_target *t = &it->model.targets[i];
        for (size_t m = 0; t->plays && m < t->matrices; m++) {
            dm_compress_task task;
            DM_TRY(dm_compress_task_open(&it->model, t, m, NULL, &task));
            dm_status status = dm_compress_costs(&task, it->cost + dm_compress_tile(t, m) * DM_CHOICES);
            progress(it, &task);
            dm_compress_task_close(&task);
            DM_TRY(status);
        }
    }
    return DM_OK;
}

/* ---- The budget ---- */

/* Exact bytes of all matrices at the widths chosen. */
static dm_status panel_bytes(const compression *it, uint64_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < it->model.count; i++) {
        const dm_compress_target *t = &it->model.targets[i];
        for (size_t m = 0; !t->kept && m < t->matrices; m++) {
            const dm_mixed_plan plan = {(size_t)t->spec->dims[1], (size_t)t->spec->dims[0], it->widths + dm_compress_tile(t, m),
                                        it->model.tables.levels};
            size_t own;
            DM_TRY(dm_mixed_bytes(&plan, &own));
            *bytes += own;
        }
    }
    return DM_OK;
}

/* A token embedding is rounded to nearest: measured, 4 bits where the rest has 3.4 cost several times what all the rest does. */
static void set_embedding_width(compression *it, double bpw) {
    const dm_compress_options *o = it->model.options;
    const int bits = o->embedding > 0 ? o->embedding : o->width > 4 || bpw > 4.25 ? 8 : 6;
    memset(it->widths + it->model.playing, bits, it->model.tiles - it->model.playing);
}

/* Bytes that tensors may take: what is asked for. */
static dm_status budget_of(compression *it, uint64_t *budget) {
    const dm_compress_options *o = it->model.options;
    const double params = (double)dm_config_params(&it->model.model->config);
    const uint64_t overhead = dm_compress_overhead(&it->model);
    if (o->bytes == 0) {
        *budget = (uint64_t)(o->bpw * params / 8.0);
    } else if (o->bytes > overhead) {
        *budget = o->bytes - overhead;
    } else {
        return dm_fail(DM_ERR_ARGUMENT, "%s: %" PRIu64 " bytes are too few: all but the weights takes up to %" PRIu64,
                       it->model.conversion.from, o->bytes, overhead);
    }
    set_embedding_width(it, 8.0 * (double)*budget / params);
    return DM_OK;
}

/* Panels and matrices end at multiples of 64 bytes, which the market does not see: so what it may spend is found in a few rounds,
 * from what its last choice came to. */
static dm_status settle(compression *it) {
    const dm_compress_options *o = it->model.options;
    const uint64_t copied = dm_compress_copied_bytes(&it->model);
    dm_market_goal goal = {.pruned = o->pruned, .forced = o->width > 0 ? dm_choice_of((unsigned)o->width) : -1};
    uint64_t budget = 0, bytes = 0;
    DM_TRY(budget_of(it, &budget));
    goal.bytes = budget > copied ? budget - copied : 0;
    for (int round = 0; round < SETTLINGS; round++) {
        DM_TRY(dm_market_settle(&it->market, &goal, &it->prices));
        DM_TRY(panel_bytes(it, &bytes));
        if (goal.forced >= 0) {
            return DM_OK;
        }
        const int64_t spare = (int64_t)(budget - copied) - (int64_t)bytes;
        if (spare >= 0 && spare < (int64_t)(budget / 2000)) {
            return DM_OK;
        }
        const int64_t next = (int64_t)goal.bytes + spare - (spare < 0 ? (int64_t)(budget / 4000) : 0);
        goal.bytes = next > 0 ? (uint64_t)next : 0;
    }
    if (bytes + copied > budget) {
        return dm_fail(DM_ERR_ARGUMENT, "the budget is too small: expected %" PRIu64 " bytes of tensors or more, found %" PRIu64,
                       bytes + copied, budget);
    }
    return DM_OK;
}

/* ---- Solutions ---- */

static void note_matrix(compression *it, const dm_compress_target *t, size_t m, const dm_compress_solution *s) {
    const dm_compress_options *o = it->model.options;
    const size_t tiles = t->panels * t->units;
    const uint8_t *widths = it->widths + dm_compress_tile(t, m);
    dm_compress_matrix matrix = {.name = t->spec->name,
                                 .layer = t->spec->layer,
                                 .expert = dm_role_is_expert(t->spec->role) ? (int32_t)(t->first + m) : -1,
                                 .rows = t->spec->dims[1],
                                 .columns = t->spec->dims[0],
                                 .bytes = s->bytes,
                                 .error_before = s->error_before,
                                 .error_after = s->error_after};
    for (size_t i = 0; i < tiles; i++) {
        matrix.tiles[dm_choice_of(widths[i])]++;
        it->result->tiles[dm_choice_of(widths[i])]++;
    }
    if (o->on_matrix != NULL) {
        o->on_matrix(o->user, &matrix);
    }
}

static void add_result(dm_compress_result *r, const dm_compress_target *t, const dm_compress_solution *s, bool played) {
    r->error_before += t->plays ? s->error_before : 0.0; /* others' are not comparable */
    r->error_after += t->plays ? s->error_after : 0.0;
    if (!played) {
        return;
    }
    r->sweeps = (int32_t)s->counts.sweeps > r->sweeps ? (int32_t)s->counts.sweeps : r->sweeps;
    r->panels += t->panels;
    r->panels_at_rest += s->at_rest;
    for (size_t i = 0; i < DM_MOST_SWEEPS; i++) {
        r->proposals[i] += s->counts.proposals[i];
        r->moves[i] += s->counts.moves[i];
    }
    for (size_t i = 0; i <= DM_MOST_SWEEPS; i++) {
        r->payoff[i] += s->counts.payoff[i];
    }
}

static dm_status solve_one(compression *it, dm_compress_target *t, size_t m, const dm_compress_task *task) {
    const dm_compress_options *o = it->model.options;
    const bool plays = t->plays && o->method == DM_COMPRESS_GAME;
    const size_t sweeps = !plays ? 0 : o->sweeps > 0 ? (size_t)o->sweeps : DEFAULT_SWEEPS;
    dm_compress_solution s;
    dm_status status = dm_compress_solve(task, it->widths + dm_compress_tile(t, m), &it->prices, sweeps, &s);
    if (status == DM_OK) {
        status = dm_solutions_add(&it->solutions, s.data, s.bytes);
    }
    if (status == DM_OK) {
        t->bytes += s.bytes;
        note_matrix(it, t, m, &s);
        add_result(it->result, t, &s, plays);
    }
    dm_free(s.data);
    return status;
}

static dm_status solve(compression *it) {
    const dm_compress_options *o = it->model.options;
    const dm_neighbour_choice neighbours = {(size_t)o->neighbours, o->random_neighbours, o->seed};
    for (size_t i = 0; i < it->model.count; i++) {
        dm_compress_target *t = &it->model.targets[i];
        t->offset = it->solutions.written;
        for (size_t m = 0; !t->kept && m < t->matrices; m++) {
            dm_compress_task task;
            DM_TRY(dm_compress_task_open(&it->model, t, m, &neighbours, &task));
            dm_status status = solve_one(it, t, m, &task);
            progress(it, &task);
            dm_compress_task_close(&task);
            DM_TRY(status);
        }
    }
    return DM_OK;
}

/* ---- The file ---- */

typedef struct source {
    compression *compression;
    const dm_compress_target *target;
} source;

/* A dm_gguf_maker. */
static dm_status read_solution(void *user, uint64_t first, size_t n, void *out) {
    const source *s = user;
    return dm_solutions_read(&s->compression->solutions, s->target->offset + first, out, n);
}

static void add_tensors(compression *it, dm_gguf_writer *writer, source *sources) {
    for (size_t i = 0; i < it->model.count; i++) {
        const dm_tensor_spec *spec = it->model.order != NULL ? it->model.order[i] : &it->model.specs[i];
        dm_compress_target *t = &it->model.targets[spec - it->model.specs];
        sources[i] = (source){it, t};
        if (t->kept) {
            dm_gguf_add_tensor_made(writer, spec->name, t->copied.type, spec->dims, spec->n_dims, dm_convert_piece, &t->copied);
        } else {
            dm_gguf_add_tensor_made(writer, spec->name, DM_TYPE_I8, &t->bytes, 1, read_solution, &sources[i]);
        }
    }
}

static dm_status write_file(compression *it) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    source *sources = dm_alloc(it->model.count, sizeof *sources);
    dm_status status = writer != NULL && sources != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        dm_mixed_values(writer, it->model.model->file, it->model.order != NULL);
        add_tensors(it, writer, sources);
        status = dm_gguf_writer_finish(writer, it->to);
    }
    dm_gguf_writer_free(writer);
    dm_free(sources);
    return status;
}

/* ---- All together ---- */

static void summarize(const compression *it) {
    dm_compress_result *r = it->result;
    uint64_t tiles = 0;
    for (int i = 0; i < DM_CHOICES; i++) {
        tiles += r->tiles[i];
    }
    struct stat made;
    r->bytes_in = dm_gguf_size(it->model.model->file);
    r->bytes_out = stat(it->to, &made) == 0 ? (uint64_t)made.st_size : 0;
    r->bpw = 8.0 * (double)(it->solutions.written + dm_compress_copied_bytes(&it->model)) /
             (double)dm_config_params(&it->model.model->config);
    r->pruned = tiles > 0 ? (double)r->tiles[0] / (double)tiles : 0.0;
    r->price = it->prices.byte;
    r->kept_price = it->prices.kept;
}

static void count_work(compression *it) {
    for (size_t i = 0; i < it->model.count; i++) {
        const dm_compress_target *t = &it->model.targets[i];
        it->total += t->kept ? 0 : (uint64_t)t->spec->elements * (t->plays ? 2u : 1u);
    }
}

static dm_status compress(compression *it) {
    DM_TRY(dm_conversion_prepare(&it->model.conversion, 0));
    it->widths = dm_alloc(it->model.tiles, 1);
    it->cost = dm_alloc(it->model.playing * DM_CHOICES, sizeof *it->cost);
    if (it->widths == NULL || it->cost == NULL) {
        return DM_ERR_MEMORY;
    }
    it->market = (dm_market){it->model.playing, it->cost, it->widths};
    count_work(it);
    DM_TRY(measure(it));
    DM_TRY(settle(it));
    DM_TRY(dm_solutions_open(&it->solutions, it->to));
    DM_TRY(solve(it));
    DM_TRY(write_file(it));
    summarize(it);
    return DM_OK;
}

static dm_status check(const dm_compress_options *o, const char *to) {
    if (!(o->bpw > 0.0) && o->bytes == 0 && o->width == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "expected bits per weight, bytes of the file, or a width");
    }
    if (!(o->pruned >= 0.0 && o->pruned < 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "a share of %g cannot be pruned, expected 0 to below 1", o->pruned);
    }
    if (o->embedding != 0 && (o->embedding < 0 || dm_mixed_number((unsigned)o->embedding) < 0)) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no width of %d bits, expected 2, 3, 4, 5, 6 or 8", o->embedding);
    }
    if (o->width != 0 && (o->width < 0 || dm_mixed_number((unsigned)o->width) < 0)) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no width of %d bits, expected 2, 3, 4, 5, 6 or 8", o->width);
    }
    if (o->neighbours < 0 || o->sweeps < 0 || o->sweeps > DM_COMPRESS_SWEEPS) {
        return dm_fail(DM_ERR_ARGUMENT, "expected 0 neighbours or more, and up to %d sweeps", DM_COMPRESS_SWEEPS);
    }
    if (o->calibration == NULL && o->method != DM_COMPRESS_RTN && o->method != DM_COMPRESS_MAGNITUDE) {
        return dm_fail(DM_ERR_ARGUMENT, "this method needs a calibration: make one with `dilmodeli calibrate`");
    }
    if (o->compat && (o->width != 0 || o->pruned > 0.0)) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "common GGUF types have neither one width for all nor pruned tiles: expected bits or bytes");
    }
    return dm_conversion_check_target(to);
}

dm_status dm_compress(const char *from, const char *to, const dm_compress_options *options, dm_compress_result *result) {
    const double start = dm_seconds();
    dm_compress_result made = {0};
    compression it = {.to = to, .result = &made};
    DM_TRY(check(options, to));
    dm_status status = dm_compress_model_open(&it.model, from, options);
    if (status == DM_OK && options->compat) {
        status = dm_compress_compat(&it.model, to, &made);
    } else if (status == DM_OK) {
        status = compress(&it);
    }
    dm_solutions_close(&it.solutions);
    dm_free(it.widths);
    dm_free(it.cost);
    free(it.model.conversion.piece);
    dm_compress_model_close(&it.model);
    made.seconds = dm_seconds() - start;
    if (status == DM_OK && result != NULL) {
        *result = made;
    }
    return status;
}
