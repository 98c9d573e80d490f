#include "core/mixed_payoffs.h"

#include <math.h>
#include <string.h>

/* Strategies, among all of them, of a profile whose digits are known. */
static void locate(const dm_game *game, const int32_t *digits, size_t *at) {
    for (int32_t i = 0; i < game->players; i++) {
        at[i] = game->first[i] + (size_t)digits[i];
    }
}

void dm_deviation_payoffs(const dm_game *game, const double *x, double *u) {
    enum { MOST = DM_GAME_MAX_PLAYERS };
    int32_t digits[MOST] = {0};
    size_t at[MOST];
    double after[MOST + 1]; /* product of the probabilities of players i and later */
    size_t n = (size_t)game->players;
    memset(u, 0, game->total * sizeof *u);
    after[n] = 1.0;
    for (size_t p = 0; p < game->profiles; p++) {
        locate(game, digits, at);
        for (size_t i = n; i-- > 0;) {
            after[i] = after[i + 1] * x[at[i]];
        }
        double before = 1.0;
        for (size_t i = 0; i < n && before > 0.0; i++) {
            u[at[i]] += before * after[i + 1] * game->scaled[p * n + i];
            before *= x[at[i]];
        }
        dm_game_next_profile(game, digits);
    }
}

/* One profile's part of the slopes: for each pair of players, the probability of the others' strategies. */
static void add_slopes(const dm_game *game, const double *x, const size_t *at, const double *payoffs, double *slopes) {
    size_t n = (size_t)game->players, total = game->total;
    double after[DM_MIXED_MAX_PLAYERS + 1];
    after[n] = 1.0;
    for (size_t i = n; i-- > 0;) {
        after[i] = after[i + 1] * x[at[i]];
    }
    double before = 1.0;
    for (size_t i = 0; i < n; i++) {
        double between = before;
        for (size_t j = i + 1; j < n; j++) {
            double others = between * after[j + 1];
            slopes[at[i] * total + at[j]] += others * payoffs[i];
            slopes[at[j] * total + at[i]] += others * payoffs[j];
            between *= x[at[j]];
        }
        before *= x[at[i]];
    }
}

void dm_deviation_slopes(const dm_game *game, const double *x, double *u, double *slopes) {
    int32_t digits[DM_MIXED_MAX_PLAYERS] = {0};
    size_t at[DM_MIXED_MAX_PLAYERS];
    size_t n = (size_t)game->players, total = game->total;
    memset(slopes, 0, total * total * sizeof *slopes);
    for (size_t p = 0; p < game->profiles; p++) {
        locate(game, digits, at);
        add_slopes(game, x, at, game->scaled + p * n, slopes);
        dm_game_next_profile(game, digits);
    }
    for (size_t i = 0; i < n; i++) {
        size_t other = i == 0 ? 1 : 0; /* payoffs are linear in any one other player's mixture */
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            u[a] = 0.0;
            for (size_t b = game->first[other]; b < game->first[other + 1]; b++) {
                u[a] += slopes[a * total + b] * x[b];
            }
        }
    }
}

/* A player's expected scaled payoff, and the best strategy's. */
static double expected(const dm_game *game, size_t player, const double *x, const double *u, double *best) {
    double value = 0.0;
    *best = u[game->first[player]];
    for (size_t a = game->first[player]; a < game->first[player + 1]; a++) {
        value += x[a] * u[a];
        *best = fmax(*best, u[a]);
    }
    return value;
}

double dm_mixed_regret(const dm_game *game, const double *x, double *u) {
    double regret = 0.0, best;
    dm_deviation_payoffs(game, x, u);
    for (size_t i = 0; i < (size_t)game->players; i++) {
        double value = expected(game, i, x, u, &best);
        regret = fmax(regret, best - value);
    }
    return regret;
}

double dm_mixed_value(const dm_game *game, const double *x, const double *u, double *payoffs) {
    double regret = 0.0, best;
    for (size_t i = 0; i < (size_t)game->players; i++) {
        double value = expected(game, i, x, u, &best);
        payoffs[i] = game->least[i] + game->range[i] * value;
        regret = fmax(regret, game->range[i] * (best - value));
    }
    return regret;
}
