/* How routing games come to rest: real ones, of a text's tokens in pieces. */
#include <math.h>

#include "base/memory.h"
#include "model/session.h"
#include "visualization/parts.h"

enum { TOGETHER = 64 /* tokens of a game */, MOST_SWEEPS = 32 };

/* Of one game, as it is told. */
typedef struct game {
    size_t sweeps, tokens;
    double potential[MOST_SWEEPS + 1], regret[MOST_SWEEPS + 1];
    size_t moves[MOST_SWEEPS + 1];
} game;

/* Of all of them by sweep: sums over games, those that are at rest included. */
typedef struct games {
    size_t count, longest;
    game now;
    double missing[MOST_SWEEPS + 1];     /* potential still to be gained, per token */
    double regret[MOST_SWEEPS + 1];      /* greatest of any token */
    double most_regret[MOST_SWEEPS + 1]; /* of any game */
    double moved[MOST_SWEEPS + 1];       /* share of tokens that changed in this sweep */
    double ended[MOST_SWEEPS + 1];       /* games whose last change was in this sweep */
} games;

/* ---- Watching ---- */

static void finish_game(games *all) {
    const game *g = &all->now;
    const size_t last = g->sweeps;
    size_t rest = last;
    if (g->tokens == 0) {
        return;
    }
    while (rest > 0 && g->moves[rest] == g->moves[rest - 1]) { /* the last sweeps found nobody to change */
        rest--;
    }
    for (size_t s = 0; s <= MOST_SWEEPS; s++) {
        const size_t at = s < last ? s : last;
        all->missing[s] += (g->potential[last] - g->potential[at]) / (double)g->tokens;
        all->regret[s] += g->regret[at];
        all->most_regret[s] = fmax(all->most_regret[s], g->regret[at]);
        all->moved[s] += s > 0 && s <= last ? (double)(g->moves[s] - g->moves[s - 1]) / (double)g->tokens : 0.0;
    }
    all->ended[rest] += 1.0;
    all->count++;
    all->longest = last > all->longest ? last : all->longest;
    all->now.tokens = 0;
}

static void note_sweep(void *user, const dm_routing_game_sweep *sweep) {
    games *all = user;
    if (sweep->sweeps == 0) {
        finish_game(all);
    }
    if (sweep->sweeps <= MOST_SWEEPS) {
        all->now.tokens = sweep->tokens;
        all->now.sweeps = sweep->sweeps;
        all->now.potential[sweep->sweeps] = sweep->potential;
        all->now.regret[sweep->sweeps] = sweep->max_regret;
        all->now.moves[sweep->sweeps] = sweep->moves;
    }
}

/* Prices with room for half of a layer's experts, as many sweeps as it takes. */
static dm_router_options rules_of(const dm_run_over *run) {
    dm_router_options rules = dm_router_default();
    rules.policy = DM_ROUTER_NASH;
    rules.beta = run->beta;
    rules.gamma = run->gamma;
    rules.sweeps = MOST_SWEEPS;
    rules.chunk = TOGETHER;
    rules.resident = run->gamma > 0.0 ? (run->model->config.n_experts + 1) / 2 : 0;
    return rules;
}

static dm_status play(const dm_run_over *run, games *all) {
    const dm_router_options rules = rules_of(run);
    const dm_session_options how = {.context = (int32_t)run->n, .router = &rules};
    dm_session *session;
    DM_TRY(dm_session_create_with(run->model, &how, &session));
    dm_routing_watch(session->routing, note_sweep, all);
    dm_status status = dm_session_feed(session, run->ids, (int32_t)run->n, false, NULL);
    finish_game(all);
    dm_session_free(session);
    return status;
}

/* ---- Drawing ---- */

static void draw_convergence(dm_page *page, const games *all, const char *how, const double *x) {
    char note[256];
    snprintf(note, sizeof note, "Mean over %zu games. %s", all->count, how);
    const size_t points = all->longest + 1;
    const dm_line_chart potential = {{&dm_line_chart_kind, "potential", "Potential still to be gained", note},
                                     .x_name = "sweeps done",
                                     .y_name = "affinity per token, in logits",
                                     .from_zero = true,
                                     .n = points,
                                     .n_series = 1,
                                     .x = x,
                                     .series = {{"potential below its value at rest", all->missing}}};
    dm_page_chart(page, &potential.head);
    const dm_line_chart regret = {
        {&dm_line_chart_kind, "regret", "Regret",
         "What a token would gain by changing alone. At 0 nobody does: a Nash equilibrium."},
        .x_name = "sweeps done",
        .y_name = "affinity, in logits",
        .from_zero = true,
        .n = points,
        .n_series = 2,
        .x = x,
        .series = {{"greatest of a game, mean", all->regret}, {"greatest of any game", all->most_regret}}};
    dm_page_chart(page, &regret.head);
}

static void draw_sweeps(dm_page *page, const games *all, const double *x) {
    const size_t points = all->longest + 1;
    const dm_line_chart moved = {{&dm_line_chart_kind, "moves", "Tokens that change in a sweep",
                                  "In the mean over games; a token that gains nothing stays."},
                                 .x_name = "sweep",
                                 .y_name = "% of tokens",
                                 .from_zero = true,
                                 .n = points - 1,
                                 .n_series = 1,
                                 .x = x + 1,
                                 .series = {{"changed", all->moved + 1}}};
    char texts[MOST_SWEEPS + 1][DM_NUMBER_TEXT];
    const char *labels[MOST_SWEEPS + 1];
    for (size_t s = 0; s < points; s++) {
        snprintf(texts[s], sizeof texts[s], "%zu", s);
        labels[s] = texts[s];
    }
    const dm_bar_chart ended = {{&dm_bar_chart_kind, "sweeps", "Sweeps until a game is at rest",
                                 "Games by the last sweep in which somebody changed; 0: the model's own choice is at rest."},
                                .row_name = "sweeps",
                                .value_name = "games",
                                .rows = points,
                                .n_series = 1,
                                .labels = labels,
                                .series = {"games"},
                                .values = all->ended};
    if (points > 1) {
        dm_page_chart(page, &moved.head);
    }
    dm_page_chart(page, &ended.head);
}

static void draw(dm_page *page, const dm_run_over *run, games *all) {
    char how[128];
    double x[MOST_SWEEPS + 1];
    for (size_t s = 0; s <= MOST_SWEEPS; s++) {
        x[s] = (double)s;
        all->missing[s] /= (double)all->count;
        all->regret[s] /= (double)all->count;
        all->moved[s] *= 100.0 / (double)all->count;
    }
    snprintf(how, sizeof how, "Each of up to %d tokens in a layer; crowding %g, fetching %g%s.", TOGETHER, run->beta, run->gamma,
             run->gamma > 0.0 ? ", room for half of the experts" : "");
    dm_page_section(
        page, "games", "Games come to rest",
        "The text's tokens play the routing game in pieces: each sweep, every token in turn takes its best experts at the "
        "prices that the others make. Every change raises the potential, so play ends.");
    draw_convergence(page, all, how, x);
    draw_sweeps(page, all, x);
}

dm_status dm_part_games(dm_page *page, const dm_run_over *run) {
    if (run->model->config.n_experts == 0) {
        dm_page_leave_out(page, "Games", "because the model has no experts");
        return page->status;
    }
    games *all = dm_alloc(1, sizeof *all);
    if (all == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_status status = play(run, all);
    if (status == DM_OK && all->count > 0) {
        draw(page, run, all);
        status = page->status;
    }
    dm_free(all);
    return status;
}
