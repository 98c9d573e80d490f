/* Small routing games in strategic form: every strategy of every token, and every token's payoff in every profile, all from
 * the definitions, for comparing with play and with solvers of normal-form games. */
#ifndef DM_TESTS_STRATEGIC_FORM_H
#define DM_TESTS_STRATEGIC_FORM_H

#include <math.h>
#include <stdlib.h>

#include "core/game.h"

enum { FORM_MOST_PLAYERS = 8 };

/* Profile number: player 0's strategy counts fastest, as the outcomes of an .nfg file do. */
typedef struct strategic_form {
    size_t players, experts;
    size_t n_strategies[FORM_MOST_PLAYERS];
    uint32_t *strategies; /* malloc [players, 2^experts] each player's sets of experts as bits, in ascending order */
    size_t profiles;
    double *payoffs;   /* malloc [profiles, players] */
    double *potential; /* malloc [profiles] Rosenthal's, from the definition */
} strategic_form;

static inline int32_t form_expert(const dm_routing_game *game, size_t i, size_t j) {
    return game->candidates != NULL ? game->candidates[i * game->flock + j] : (int32_t)j;
}

/* Affinity of expert e for token i; -INFINITY where it may not be chosen. */
static inline double form_affinity(const dm_routing_game *game, size_t i, size_t e) {
    for (size_t j = 0; j < game->flock; j++) {
        float a = game->affinities[i * game->flock + j];
        if ((size_t)form_expert(game, i, j) == e && !isnan(a) && !(game->off != NULL && game->off[e])) {
            return (double)a;
        }
    }
    return -INFINITY;
}

/* c_e(n) by definition. */
static inline double form_cost(const dm_routing_game *game, size_t e, size_t n) {
    const dm_routing_game_costs *c = &game->costs;
    double cost = c->beta * (double)n / ((double)game->max_k * (double)game->tokens / (double)game->experts);
    cost += c->tau != NULL ? c->gamma * c->spread * ((double)c->tau[e] / c->tau_disk) / (double)n : 0.0;
    cost += c->price != NULL ? (double)c->price[e] : 0.0;
    return cost + (c->any != NULL ? c->any(c->any_user, e, n) : 0.0);
}

static inline uint32_t *form_strategies(const strategic_form *form, size_t i) {
    return form->strategies + (i << form->experts);
}

/* What the adaptive count adds to each payoff of token i. */
static inline double form_offset(const dm_routing_game *game, size_t i) {
    double best = -INFINITY;
    for (size_t e = 0; e < game->experts; e++) {
        best = fmax(best, form_affinity(game, i, e));
    }
    return game->min_k < game->max_k ? log(1.0 / game->theta) - best : 0.0;
}

/* Payoff of token i; sets[T] are the experts of each token as bits. */
static inline double form_payoff(const dm_routing_game *game, const uint32_t *sets, size_t i) {
    double payoff = 0.0;
    for (size_t e = 0; e < game->experts; e++) {
        size_t users = 0;
        for (size_t t = 0; t < game->tokens; t++) {
            users += sets[t] >> e & 1;
        }
        payoff += (sets[i] >> e & 1) != 0 ? form_affinity(game, i, e) + form_offset(game, i) - form_cost(game, e, users) : 0.0;
    }
    return payoff;
}

static inline double form_potential(const dm_routing_game *game, const uint32_t *sets) {
    double potential = 0.0;
    for (size_t e = 0; e < game->experts; e++) {
        size_t users = 0;
        for (size_t t = 0; t < game->tokens; t++) {
            if ((sets[t] >> e & 1) != 0) {
                potential += form_affinity(game, t, e) + form_offset(game, t) - form_cost(game, e, ++users);
            }
        }
    }
    return potential;
}

/* How many experts of token i rank before e: greater affinity, or the same and a lower number. */
static inline size_t form_rank(const dm_routing_game *game, size_t i, size_t e) {
    size_t before = 0;
    double mine = form_affinity(game, i, e);
    for (size_t other = 0; other < game->experts; other++) {
        double a = form_affinity(game, i, other);
        before += a > mine || (a == mine && other < e);
    }
    return before;
}

/* Whether a set of experts is a strategy of token i: of its flock, not off, of the right size, with those always kept. */
static inline bool form_is_strategy(const dm_routing_game *game, uint32_t set, size_t i) {
    size_t size = 0, available = 0;
    for (size_t e = 0; e < game->experts; e++) {
        bool can = form_affinity(game, i, e) > -INFINITY, in = (set >> e & 1) != 0;
        if ((in && !can) || (can && !in && form_rank(game, i, e) < game->keep_top)) {
            return false;
        }
        size += in;
        available += can;
    }
    size_t least = game->min_k < available ? game->min_k : available;
    return size >= least && size <= game->max_k;
}

static inline void form_sets(const strategic_form *form, size_t profile, uint32_t *sets) {
    for (size_t i = 0; i < form->players; i++) {
        /* form_write() lets no 0 through, which an analyzer that does not follow its loops cannot see */
        size_t n = form->n_strategies[i] > 0 ? form->n_strategies[i] : 1;
        sets[i] = form_strategies(form, i)[profile % n];
        profile /= n;
    }
}

static inline void form_free(strategic_form *form) {
    free(form->strategies);
    free(form->payoffs);
    free(form->potential);
}

/* False when memory is short, or for other games than of 1 to FORM_MOST_PLAYERS tokens; for some ten experts. */
static inline bool form_write(const dm_routing_game *game, strategic_form *form) {
    *form = (strategic_form){.players = game->tokens, .experts = game->experts, .profiles = 1};
    if (game->tokens < 1 || game->tokens > FORM_MOST_PLAYERS) {
        return false;
    }
    form->strategies = malloc((sizeof *form->strategies * form->players) << form->experts);
    if (form->strategies == NULL) {
        return false;
    }
    for (size_t i = 0; i < game->tokens; i++) {
        for (uint32_t set = 0; set < 1u << game->experts; set++) {
            if (form_is_strategy(game, set, i)) {
                form_strategies(form, i)[form->n_strategies[i]++] = set;
            }
        }
        if (form->n_strategies[i] == 0) { /* not while playing nothing counts where nothing can be played */
            return false;
        }
        form->profiles *= form->n_strategies[i];
    }
    form->payoffs = malloc(form->profiles * form->players * sizeof *form->payoffs);
    form->potential = malloc(form->profiles * sizeof *form->potential);
    if (form->payoffs == NULL || form->potential == NULL) {
        return false;
    }
    for (size_t p = 0; p < form->profiles; p++) {
        uint32_t sets[FORM_MOST_PLAYERS] = {0};
        form_sets(form, p, sets);
        for (size_t i = 0; i < form->players; i++) {
            form->payoffs[p * form->players + i] = form_payoff(game, sets, i);
        }
        form->potential[p] = form_potential(game, sets);
    }
    return true;
}

/* The most that any player gains by another strategy of its own. */
static inline double form_regret(const strategic_form *form, size_t profile) {
    double regret = 0.0;
    size_t step = 1;
    for (size_t i = 0; i < form->players; i++) {
        size_t mine = profile / step % form->n_strategies[i];
        for (size_t s = 0; s < form->n_strategies[i]; s++) {
            size_t other = profile - mine * step + s * step;
            regret = fmax(regret, form->payoffs[other * form->players + i] - form->payoffs[profile * form->players + i]);
        }
        step *= form->n_strategies[i];
    }
    return regret;
}

/* The profile in which each token plays its row of strategies [T, max_k]; SIZE_MAX where one is no strategy. */
static inline size_t form_profile(const strategic_form *form, const int32_t *strategies, size_t max_k) {
    size_t profile = 0, step = 1;
    for (size_t i = 0; i < form->players; i++) {
        uint32_t set = 0;
        size_t s = 0;
        for (size_t q = 0; q < max_k; q++) {
            set |= strategies[i * max_k + q] >= 0 ? 1u << strategies[i * max_k + q] : 0;
        }
        while (s < form->n_strategies[i] && form_strategies(form, i)[s] != set) {
            s++;
        }
        if (s == form->n_strategies[i]) {
            return SIZE_MAX;
        }
        profile += s * step;
        step *= form->n_strategies[i];
    }
    return profile;
}

#endif
