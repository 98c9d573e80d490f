/* A whole model through the compression game: costs of all tiles, one price, solutions matrix by matrix. */
#include <inttypes.h>
#include <string.h>

#include "base/memory.h"
#include "quantization/compress_prices.h"
#include "quantization/compress_way.h"

_Static_assert((int)DM_COMPRESS_SWEEPS == (int)DM_MOST_SWEEPS && (int)DM_COMPRESS_WIDTHS == (int)DM_CHOICES,
               "the report has room for all of them");

enum { DEFAULT_SWEEPS = 2, SETTLINGS = 4 /* rounds of it, */, MOST_SETTLINGS = 32 /* if it is over the budget then */ };

typedef struct panels {
    dm_compress_model *model;
    dm_market market;
    float *cost;     /* [tiles that play, DM_CHOICES] */
    uint8_t *widths; /* [all tiles] */
    dm_prices prices;
    dm_compress_outcome *out; /* while it is being solved */
} panels;

/* ---- Costs ---- */

static dm_status measure_one(void *user, size_t target, size_t matrix, const dm_compress_task *task) {
    const panels *it = user;
    return dm_compress_costs(task, it->cost + dm_compress_tile(&it->model->targets[target], matrix) * DM_CHOICES);
}

static dm_status open(dm_compress_model *model, void **state) {
    panels *it = dm_alloc(1, sizeof *it);
    *state = it;
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    *it = (panels){
        .model = model, .widths = dm_alloc(model->tiles, 1), .cost = dm_alloc(model->playing * DM_CHOICES, sizeof *it->cost)};
    if (it->widths == NULL || it->cost == NULL) {
        return DM_ERR_MEMORY;
    }
    it->market = (dm_market){model->playing, it->cost, it->widths};
    return dm_compress_each(model, DM_COMPRESS_PLAYING, NULL, measure_one, it);
}

static void close(void *state) {
    panels *it = state;
    dm_free(it->widths);
    dm_free(it->cost);
    dm_free(it);
}

/* ---- The budget ---- */

/* Exact bytes of all matrices at the widths chosen. */
static dm_status panel_bytes(const panels *it, dm_compress_which which, uint64_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < it->model->count; i++) {
        const dm_compress_target *t = &it->model->targets[i];
        const bool counts = !t->kept && (which == DM_COMPRESS_ALL || t->plays);
        for (size_t m = 0; counts && m < t->matrices; m++) {
            const dm_mixed_plan plan = {(size_t)t->spec->dims[1], (size_t)t->spec->dims[0], it->widths + dm_compress_tile(t, m),
                                        it->model->tables.levels};
            size_t own;
            DM_TRY(dm_mixed_bytes(&plan, &own));
            *bytes += own;
        }
    }
    return DM_OK;
}

static void set_embedding_width(const panels *it, uint64_t budget) {
    memset(it->widths + it->model->playing, (int)dm_compress_embedding_bits(it->model, budget),
           it->model->tiles - it->model->playing);
}

/* Panels and matrices end at multiples of 64 bytes, which the market does not see: so what it may spend is found in a few rounds,
 * from what its last choice came to. */
static dm_status settle(panels *it) {
    const dm_compress_options *o = it->model->options;
    const dm_compress_which which = o->players ? DM_COMPRESS_PLAYING : DM_COMPRESS_ALL; /* has the budget to itself */
    const uint64_t copied = o->players ? 0 : dm_compress_copied_bytes(it->model);
    dm_market_goal goal = {.pruned = o->pruned, .forced = o->width > 0 ? dm_choice_of((unsigned)o->width) : -1};
    uint64_t budget = 0, bytes = 0;
    DM_TRY(dm_compress_budget(it->model, &budget));
    set_embedding_width(it, budget);
    goal.bytes = budget > copied ? budget - copied : 0;
    for (int round = 1; round <= MOST_SETTLINGS; round++) {
        DM_TRY(dm_market_settle(&it->market, &goal, &it->prices));
        DM_TRY(panel_bytes(it, which, &bytes));
        if (goal.forced >= 0) {
            return DM_OK;
        }
        const int64_t spare = (int64_t)budget - (int64_t)copied - (int64_t)bytes;
        if (spare >= 0 && (spare < (int64_t)(budget / 2000) || round >= SETTLINGS)) {
            return DM_OK;
        }
        const int64_t margin = (int64_t)(budget / 4000) * (round > SETTLINGS ? round : 1);
        const int64_t next = (int64_t)goal.bytes + spare - (spare < 0 ? margin : 0);
        goal.bytes = next > 0 ? (uint64_t)next : 0;
    }
    return dm_fail(DM_ERR_ARGUMENT, "the budget is too small: expected %" PRIu64 " bytes of tensors or more, found %" PRIu64,
                   bytes + copied, budget);
}

/* ---- Solutions ---- */

static void note_matrix(const panels *it, const dm_compress_target *t, size_t m, const dm_compress_solution *s) {
    const dm_compress_options *o = it->model->options;
    const size_t tiles = t->panels * t->units;
    const uint8_t *widths = it->widths + dm_compress_tile(t, m);
    dm_compress_matrix matrix = dm_compress_matrix_of(t, m);
    matrix.bytes = s->bytes;
    matrix.error_before = s->error_before;
    matrix.error_after = s->error_after;
    for (size_t i = 0; i < tiles; i++) {
        matrix.tiles[dm_choice_of(widths[i])]++;
        it->out->result.tiles[dm_choice_of(widths[i])]++;
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

static dm_status solve_one(void *user, size_t target, size_t matrix, const dm_compress_task *task) {
    const panels *it = user;
    const dm_compress_options *o = it->model->options;
    const dm_compress_target *t = &it->model->targets[target];
    const bool plays = t->plays && o->method == DM_COMPRESS_GAME;
    const size_t sweeps = !plays ? 0 : o->sweeps > 0 ? (size_t)o->sweeps : DEFAULT_SWEEPS;
    dm_compress_solution s;
    dm_status status = dm_compress_solve(task, it->widths + dm_compress_tile(t, matrix), &it->prices, sweeps, &s);
    if (status == DM_OK) {
        it->out->parts[target].type = DM_TYPE_MIXED;
        status = dm_compress_outcome_add(it->out, target, matrix, s.data, s.bytes);
    }
    if (status == DM_OK) {
        note_matrix(it, t, matrix, &s);
        add_result(&it->out->result, t, &s, plays);
    }
    dm_free(s.data);
    return status;
}

static dm_status solve(void *state, const char *to, dm_compress_outcome *out) {
    panels *it = state;
    const dm_compress_options *o = it->model->options;
    const dm_neighbour_choice neighbours = {(size_t)o->neighbours, o->random_neighbours, o->seed};
    dm_compress_result *r = &out->result;
    uint64_t tiles = 0;
    it->out = out;
    DM_TRY(dm_compress_outcome_open(out, it->model, to, NULL));
    DM_TRY(settle(it));
    DM_TRY(dm_compress_each(it->model, DM_COMPRESS_ALL, &neighbours, solve_one, it));
    for (int i = 0; i < DM_CHOICES; i++) {
        tiles += r->tiles[i];
    }
    r->pruned = tiles > 0 ? (double)r->tiles[0] / (double)tiles : 0.0;
    r->price = it->prices.byte;
    r->kept_price = it->prices.kept;
    return DM_OK;
}

/* ---- The file ---- */

static dm_status describe(const void *state, const dm_compress_outcome *outcome, dm_gguf_writer *writer) {
    const panels *it = state;
    (void)outcome;
    dm_mixed_values(writer, it->model->model->file, it->model->order != NULL);
    return DM_OK;
}

const dm_compress_way dm_compress_to_panels = {open, close, solve, describe};
