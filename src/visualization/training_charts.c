/* Curves of a training run. */
#include <math.h>

#include "base/memory.h"
#include "visualization/parts.h"

enum { MOST_POINTS = 400, MOST_LINES = 6 };

typedef struct curve {
    const char *name, *title, *note, *y_name, *without;
    bool logarithmic, from_zero;
    struct {
        dm_run_metric metric;
        const char *name;
    } lines[MOST_LINES]; /* up to one without a name */
} curve;

static const curve curves[] = {
    {"loss",
     "Loss",
     "Cross-entropy of each step's batch, and of text that the model does not train on.",
     "nats per token",
     "no step has a loss",
     false,
     false,
     {{DM_RUN_LOSS, "training"}, {DM_RUN_VAL_LOSS, "held-out text"}}},
    {"held-out",
     "Bits per byte of held-out text",
     "The same of text that the model does not train on, in a unit that compares across "
     "vocabularies.",
     "bits per byte",
     "there was no validation yet",
     false,
     false,
     {{DM_RUN_VAL_BPB, "held-out text"}}},
    {"terms",
     "Terms of the loss beside it",
     "Values in the mean over layers, without their weights. Rewards are taken from the loss.",
     "value, no unit",
     "the run had no terms beside the cross-entropy",
     false,
     true,
     {{DM_RUN_SWITCH_LOSS, "Switch loss"},
      {DM_RUN_BALANCE_LOSS, "balance loss"},
      {DM_RUN_CACHE_REWARD, "cache reward"},
      {DM_RUN_SWARM_REWARD, "swarm reward"},
      {DM_RUN_NASH_LOSS, "Nash loss"}}},
    {"learning-rate",
     "Learning rate",
     "What each step's update was scaled by.",
     "learning rate",
     "no step has one",
     false,
     true,
     {{DM_RUN_LR, "learning rate"}}},
    {"gradient",
     "Norm of the gradient",
     "Before it is cut to its greatest norm.",
     "norm, no unit",
     "no step has one",
     true,
     false,
     {{DM_RUN_GRAD_NORM, "norm"}}},
    {"speed",
     "Speed of training",
     "Validations and checkpoints excluded.",
     "tokens per second",
     "no step has one",
     false,
     true,
     {{DM_RUN_TOKENS_PER_S, "speed"}}},
    {"maxvio",
     "Balance of the experts: MaxVio",
     "Greatest load over the mean load, less 1, mean over layers: 0 is even.",
     "MaxVio, no unit",
     "the model has no experts",
     false,
     true,
     {{DM_RUN_MAXVIO, "a step's batch"}, {DM_RUN_VAL_MAXVIO, "held-out text"}}},
    {"training-sweeps",
     "Sweeps of the games in training",
     "In the mean over the layers' games of a step.",
     "sweeps",
     "training's tokens did not play (train --router nash)",
     false,
     true,
     {{DM_RUN_SWEEPS, "sweeps"}}},
    {"training-regret",
     "Regret where those games ended",
     "The most that any token would gain by changing alone; and what play added to "
     "the potential.",
     "affinity, in logits",
     "training's tokens did not play (train --router nash)",
     false,
     true,
     {{DM_RUN_MAX_REGRET, "greatest regret"}, {DM_RUN_POTENTIAL_GAIN, "gain of potential per token"}}},
};

static size_t count_lines(const curve *c) {
    size_t n = 0;
    while (n < MOST_LINES && c->lines[n].name != NULL) {
        n++;
    }
    return n;
}

static bool has_any(const dm_run_metrics *m, const curve *c, size_t row) {
    for (size_t s = 0; s < count_lines(c); s++) {
        if (isfinite(m->values[c->lines[s].metric][row])) {
            return true;
        }
    }
    return false;
}

/* Steps that have any of the lines, `each` of which become a point: the last step, and the mean of what is there. Returns how
 * many; points [1 + lines, MOST_POINTS]. */
static size_t thin(const dm_run_metrics *m, const curve *c, size_t each, double *points) {
    const size_t lines = count_lines(c);
    size_t n = 0, inside = 0, counts[MOST_LINES] = {0};
    for (size_t row = 0; row < m->n; row++) {
        if (!has_any(m, c, row)) {
            continue;
        }
        points[n] = m->values[DM_RUN_STEP][row];
        for (size_t s = 0; s < lines; s++) {
            double *mean = &points[(s + 1) * MOST_POINTS + n], value = m->values[c->lines[s].metric][row];
            counts[s] = inside == 0 ? 0 : counts[s];
            *mean = inside == 0 ? NAN : *mean;
            if (isfinite(value)) {
                *mean = counts[s] == 0 ? value : *mean + (value - *mean) / (double)(counts[s] + 1);
                counts[s]++;
            }
        }
        inside = inside + 1 == each ? 0 : inside + 1;
        n += inside == 0;
    }
    return n + (inside > 0);
}

static size_t count_rows(const dm_run_metrics *m, const curve *c) {
    size_t rows = 0;
    for (size_t row = 0; row < m->n; row++) {
        rows += has_any(m, c, row);
    }
    return rows;
}

/* points: scratch. */
static void draw_curve(dm_page *page, const dm_run_metrics *m, const curve *c, double *points) {
    const size_t rows = count_rows(m, c), each = (rows + MOST_POINTS - 1) / MOST_POINTS;
    char note[512];
    dm_line_chart chart = {{&dm_line_chart_kind, c->name, c->title, note},
                           .x_name = "step",
                           .y_name = c->y_name,
                           .logarithmic = c->logarithmic,
                           .from_zero = c->from_zero,
                           .x = points};
    if (rows == 0) {
        dm_page_leave_out(page, c->title, "because %s", c->without);
        return;
    }
    chart.n = thin(m, c, each, points);
    for (size_t s = 0; s < count_lines(c); s++) {
        if (dm_run_metrics_count(m, c->lines[s].metric) > 0) {
            chart.series[chart.n_series++] = (dm_series){c->lines[s].name, points + (s + 1) * MOST_POINTS};
        }
    }
    snprintf(note, sizeof note, each > 1 ? "%s Each point is the mean of %zu steps." : "%s", c->note, each);
    dm_page_chart(page, &chart.head);
}

dm_status dm_part_training(dm_page *page, const dm_run_metrics *metrics) {
    double *points = dm_alloc((MOST_LINES + 1) * MOST_POINTS, sizeof *points);
    if (points == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_page_section(page, "training", "Training", "From metrics.jsonl, which the run wrote a line a step.");
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
        draw_curve(page, metrics, &curves[i], points);
    }
    dm_free(points);
    return page->status;
}
