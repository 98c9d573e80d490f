/* dm_nash_solve(): which solver a game gets, and what is told about each equilibrium. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "core/equilibria.h"
#include "core/logit_path.h"
#include "core/mixed_payoffs.h"

static const double TOLERANCE = 1e-6; /* regret of what is called an equilibrium */

/* ---- Solving ---- */

static dm_status solve_all(dm_equilibria *list) {
    if (list->game->players != 2) {
        return dm_fail(DM_ERR_UNSUPPORTED,
                       "all equilibria are found for 2 players, and this game has %d; pure ones and one equilibrium "
                       "are found for any number",
                       (int)list->game->players);
    }
    if (list->game->exact == NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED,
                       "all equilibria are found for up to %d strategies of both players, and this game has %zu",
                       DM_GAME_MAX_EXACT, list->game->total);
    }
    return dm_extreme_equilibria(list);
}

static dm_status solve_mixed(uint64_t seed, dm_equilibria *list) {
    double *x = dm_alloc(list->game->total, sizeof *x);
    if (x == NULL) {
        return DM_ERR_MEMORY;
    }
    double regret;
    dm_status status = dm_logit_equilibrium(list->game, seed, x, &regret);
    if (status == DM_OK && !(regret <= TOLERANCE)) {
        status = dm_fail(DM_ERR_UNSUPPORTED,
                         "no equilibrium found; the best profile has a regret of %.3g of the range of payoffs", regret);
    }
    if (status == DM_OK) {
        status = dm_equilibria_add(list, x, 0);
    }
    dm_free(x);
    return status;
}

/* Exact where possible; else a pure equilibrium where there is one. */
static dm_status solve_one(uint64_t seed, dm_equilibria *list) {
    if (list->game->exact != NULL) {
        dm_status status = dm_lemke_howson(seed, list);
        if (status != DM_ERR_UNSUPPORTED) {
            return status;
        }
    }
    DM_TRY(dm_pure_equilibria(1, list));
    return list->count > 0 ? DM_OK : solve_mixed(seed, list);
}

static dm_status solve(const dm_nash_options *options, dm_equilibria *list, dm_nash_method *method) {
    *method = options->method;
    switch (options->method) {
    case DM_NASH_ALL:
        return solve_all(list);
    case DM_NASH_PURE:
        return dm_pure_equilibria(UINT64_MAX, list);
    case DM_NASH_ONE:
        return solve_one(options->seed, list);
    case DM_NASH_AUTO:
        break;
    }
    *method = DM_NASH_ALL;
    dm_status status = solve_all(list);
    if (status != DM_ERR_UNSUPPORTED) {
        return status;
    }
    *method = DM_NASH_PURE;
    DM_TRY(dm_pure_equilibria(UINT64_MAX, list));
    if (list->count > 0) {
        return DM_OK;
    }
    *method = DM_NASH_ONE;
    return solve_one(options->seed, list);
}

/* ---- Telling ---- */

/* The profile that a pure mixture is; false for one that is not pure. at[players]: the strategy that each plays, among all. */
static bool is_pure(const dm_game *game, const double *x, size_t *at, size_t *profile) {
    size_t stride = 1;
    *profile = 0;
    for (size_t i = 0; i < (size_t)game->players; i++) {
        at[i] = game->total;
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            if (x[a] == 1.0) {
                at[i] = a;
            } else if (x[a] != 0.0) {
                return false;
            }
        }
        if (at[i] == game->total) {
            return false;
        }
        *profile += stride * (at[i] - game->first[i]);
        stride *= (size_t)game->strategies[i];
    }
    return true;
}

/* Only the payoffs that one player's change leads to are looked at: lists of pure equilibria of large games are long. */
static void describe_pure(const dm_game *game, const size_t *at, size_t profile, double *payoffs, dm_equilibrium *out) {
    size_t stride = 1, players = (size_t)game->players;
    for (size_t i = 0; i < players; i++) {
        double here = game->scaled[profile * players + i], best = here;
        size_t base = profile - stride * (at[i] - game->first[i]);
        for (size_t s = 0; s < (size_t)game->strategies[i]; s++) {
            best = fmax(best, game->scaled[(base + s * stride) * players + i]);
        }
        payoffs[i] = game->payoffs[profile * players + i];
        out->regret = fmax(out->regret, best - here);
        out->absolute_regret = fmax(out->absolute_regret, game->range[i] * (best - here));
        stride *= (size_t)game->strategies[i];
    }
}

/* Regret and payoffs of a mixture; `numbers` are the probabilities and then room for the payoffs. */
static void describe(const dm_game *game, double *numbers, double *u, int32_t component, dm_equilibrium *out) {
    size_t at[DM_GAME_MAX_PLAYERS], profile;
    double *payoffs = numbers + game->total;
    *out = (dm_equilibrium){.probabilities = numbers, .payoffs = payoffs, .component = component};
    out->pure = is_pure(game, numbers, at, &profile);
    if (out->pure) {
        describe_pure(game, at, profile, payoffs, out);
        return;
    }
    out->regret = fmax(dm_mixed_regret(game, numbers, u), 0.0);
    out->absolute_regret = dm_mixed_value(game, numbers, u, payoffs);
}

static dm_status tell(const dm_equilibria *list, dm_nash_result *result) {
    size_t total = list->game->total, each = total + (size_t)list->game->players;
    result->found = list->found;
    result->count = list->count;
    result->equilibria = dm_alloc(list->count, sizeof *result->equilibria);
    result->numbers = dm_alloc(list->count * each, sizeof *result->numbers);
    double *u = dm_alloc(total, sizeof *u);
    bool room = result->equilibria != NULL && result->numbers != NULL && u != NULL;
    for (size_t i = 0; room && i < list->count; i++) {
        if (dm_interrupted()) {
            dm_free(u);
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted computing the equilibria's payoffs");
        }
        double *numbers = result->numbers + i * each;
        memcpy(numbers, list->x + i * total, total * sizeof *numbers);
        describe(list->game, numbers, u, list->components[i], &result->equilibria[i]);
        result->max_regret = fmax(result->max_regret, result->equilibria[i].regret);
        result->max_absolute_regret = fmax(result->max_absolute_regret, result->equilibria[i].absolute_regret);
    }
    dm_free(u);
    return room ? DM_OK : DM_ERR_MEMORY;
}

dm_status dm_nash_solve(const dm_game *game, const dm_nash_options *options, dm_nash_result *result) {
    const dm_nash_options defaults = {0};
    dm_equilibria list = {.game = game};
    *result = (dm_nash_result){0};
    dm_status status = solve(options != NULL ? options : &defaults, &list, &result->method);
    if (status == DM_OK) {
        status = tell(&list, result);
    }
    dm_equilibria_free(&list);
    if (status != DM_OK) {
        dm_nash_result_free(result);
    }
    return status;
}

void dm_nash_result_free(dm_nash_result *result) {
    dm_free(result->equilibria);
    dm_free(result->numbers);
    *result = (dm_nash_result){0};
}
