#include "quantization/compress_matrix.h"

#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

/* What a panel leaves behind until all widths are known. */
typedef struct solved {
    uint16_t row_scales[ROWS];
    double before, after;
    dm_play_counts counts;
} solved;

typedef struct work {
    const dm_compress_task *task;
    float *cost; /* costs are asked for; or NULL: */
    uint8_t *widths;
    const dm_prices *prices;
    size_t sweeps;
    solved *solved; /* [panels] */
    int8_t *scales; /* [panels, units, 16] */
    uint8_t *codes; /* [panels, 16, columns] */
    dm_failure failure;
} work;

static void load(const dm_compress_task *task, dm_panel *panel, size_t number, float *x) {
    const size_t first = number * ROWS, left = task->weight.rows - first, rows = left < ROWS ? left : ROWS;
    for (size_t r = 0; r < rows; r++) {
        dm_weight_row(x + r * task->weight.columns, &task->weight, first + r);
    }
    dm_panel_load(panel, x, task->d + first, rows);
}

static void price(const work *w, dm_panel *panel, size_t number, double *cost) {
    const size_t n = w->task->moments->units * DM_CHOICES;
    dm_panel_costs(panel, cost);
    for (size_t i = 0; i < n; i++) {
        w->cost[number * n + i] = (float)cost[i];
    }
}

static void solve(const work *w, dm_panel *panel, size_t number) {
    const size_t units = w->task->moments->units, columns = w->task->weight.columns;
    solved *out = &w->solved[number];
    memcpy(panel->widths, w->widths + number * units, units);
    dm_panel_construct(panel);
    out->before = dm_panel_error(panel);
    if (w->sweeps > 0) {
        dm_panel_play(panel, w->prices, dm_widths_bytes(panel->widths, units), w->sweeps, &out->counts);
    }
    out->after = dm_panel_error(panel);
    dm_panel_finish(panel);
    memcpy(w->widths + number * units, panel->widths, units);
    memcpy(out->row_scales, panel->numbers.row_scales, sizeof out->row_scales);
    memcpy(w->scales + number * units * ROWS, panel->numbers.scales, units * ROWS);
    memcpy(w->codes + number * columns * ROWS, panel->numbers.codes, columns * ROWS);
}

static void body(void *user, size_t begin, size_t end, int thread) {
    work *w = user;
    const dm_compress_moments *m = w->task->moments;
    dm_panel panel = {0};
    (void)thread;
    float *x = dm_alloc(m->columns * ROWS, sizeof *x);
    double *cost = dm_alloc(m->units * DM_CHOICES, sizeof *cost);
    const bool room = x != NULL && cost != NULL && dm_panel_create(&panel, m, w->task->tables) == DM_OK;
    dm_failure_note(&w->failure, room ? DM_OK : DM_ERR_MEMORY);
    for (size_t p = begin; p < end && room && !dm_interrupted(); p++) {
        load(w->task, &panel, p, x);
        if (w->cost != NULL) {
            price(w, &panel, p, cost);
        } else {
            solve(w, &panel, p);
        }
    }
    dm_panel_free(&panel);
    dm_free(x);
    dm_free(cost);
}

static dm_status run(work *w) {
    dm_parallel(dm_threads(), dm_panel_count(w->task->weight.rows), 1, body, w);
    DM_TRY(dm_failure_raise(&w->failure));
    return dm_interrupted() ? dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written") : DM_OK;
}

dm_status dm_compress_costs(const dm_compress_task *task, float *cost) {
    work w = {.task = task, .cost = cost};
    return run(&w);
}

static dm_status put_all(const work *w, dm_compress_solution *out) {
    const size_t units = w->task->moments->units, columns = w->task->weight.columns;
    const dm_mixed_plan plan = {w->task->weight.rows, columns, w->widths, w->task->tables->levels};
    DM_TRY(dm_mixed_bytes(&plan, &out->bytes));
    out->data = dm_alloc(out->bytes, 1);
    if (out->data == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_mixed_lay_out(out->data, &plan);
    for (size_t p = 0; p < dm_panel_count(plan.rows); p++) {
        dm_mixed_numbers numbers = {.scales = w->scales + p * units * ROWS, .codes = w->codes + p * columns * ROWS};
        memcpy(numbers.row_scales, w->solved[p].row_scales, sizeof numbers.row_scales);
        dm_mixed_put_panel(out->data, p, &numbers);
    }
    return DM_OK;
}

static void add_up(const work *w, dm_compress_solution *out) {
    for (size_t p = 0; p < dm_panel_count(w->task->weight.rows); p++) {
        const solved *s = &w->solved[p];
        out->error_before += s->before;
        out->error_after += s->after;
        out->at_rest += s->counts.at_rest;
        out->counts.sweeps = s->counts.sweeps > out->counts.sweeps ? s->counts.sweeps : out->counts.sweeps;
        for (size_t i = 0; i <= DM_MOST_SWEEPS; i++) {
            out->counts.payoff[i] += s->counts.payoff[i];
        }
        for (size_t i = 0; i < DM_MOST_SWEEPS; i++) {
            out->counts.proposals[i] += s->counts.proposals[i];
            out->counts.moves[i] += s->counts.moves[i];
        }
    }
}

dm_status dm_compress_solve(const dm_compress_task *task, uint8_t *widths, const dm_prices *prices, size_t sweeps,
                            dm_compress_solution *out) {
    const size_t panels = dm_panel_count(task->weight.rows), columns = task->weight.columns;
    work w = {.task = task, .widths = widths, .prices = prices, .sweeps = sweeps};
    *out = (dm_compress_solution){0};
    w.solved = dm_alloc(panels, sizeof *w.solved);
    w.scales = dm_alloc(panels * columns / UNIT, ROWS);
    w.codes = dm_alloc(panels * columns, ROWS);
    dm_status status = w.solved != NULL && w.scales != NULL && w.codes != NULL ? run(&w) : DM_ERR_MEMORY;
    if (status == DM_OK) {
        status = put_all(&w, out);
        add_up(&w, out);
    }
    dm_free(w.solved);
    dm_free(w.scales);
    dm_free(w.codes);
    return status;
}
