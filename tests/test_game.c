/* The routing game: exact potential, rest, equilibria of small games by brute force, the rules of choice, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "core/game.h"
#include "core/game_costs.h"
#include "dilmodeli.h"
#include "moe/router.h"
#include "strategic_form.h"

/* ---- Random games ---- */

enum { MOST_TOKENS = 4096, MOST_EXPERTS = 256, MOST_K = 8 };
enum { CROWDING = 1, FETCHING = 2, PRICED = 4, TABLE = 8 };

typedef struct arena {
    dm_random random;
    float affinities[MOST_TOKENS * MOST_EXPERTS];
    int32_t candidates[MOST_TOKENS * MOST_EXPERTS];
    int32_t strategies[MOST_TOKENS * MOST_K];
    float tau[MOST_EXPERTS], price[MOST_EXPERTS];
    bool off[MOST_EXPERTS];
    double table[MOST_EXPERTS * 8]; /* cost of 1 to 8 users, beyond which it repeats */
} arena;

static arena a;

static size_t below(size_t n) {
    return (size_t)(dm_random_next(&a.random) % n);
}

static double table_cost(void *user, size_t expert, size_t users) {
    const double *table = user;
    return table[expert * 8 + (users - 1) % 8];
}

/* Affinities in steps of 1/64, so that sums are exact where costs are and ties are frequent. */
static float step_affinity(void) {
    return (float)((double)below(256) / 64.0);
}

static void draw_flocks(dm_routing_game *game) {
    for (size_t i = 0; i < game->tokens; i++) {
        int32_t order[MOST_EXPERTS] = {0};
        for (size_t e = 0; e < game->experts; e++) {
            size_t at = below(e + 1);
            order[e] = order[at];
            order[at] = (int32_t)e;
        }
        memcpy(a.candidates + i * game->flock, order, game->flock * sizeof *order);
    }
    game->candidates = a.candidates;
}

static dm_routing_game draw_game(size_t tokens, size_t experts, size_t flock, size_t k, int kinds) {
    dm_routing_game game = {.tokens = tokens,
                            .experts = experts,
                            .flock = flock,
                            .affinities = a.affinities,
                            .min_k = k,
                            .max_k = k,
                            .keep_top = below(2),
                            .theta = 0.05 + 0.9 * dm_random_uniform(&a.random),
                            .eps = 1e-9,
                            .most_sweeps = 1000,
                            .threads = 1};
    for (size_t i = 0; i < tokens * flock; i++) {
        a.affinities[i] = step_affinity();
    }
    for (size_t e = 0; e < experts; e++) {
        a.tau[e] = below(3) != 0 ? (float)dm_random_uniform(&a.random) : 0.0f;
        a.price[e] = (float)dm_random_normal(&a.random);
        for (size_t n = 0; n < 8; n++) {
            a.table[e * 8 + n] = 2.0 * dm_random_normal(&a.random);
        }
    }
    if (flock < experts) {
        draw_flocks(&game);
    }
    game.costs.beta = (kinds & CROWDING) != 0 ? 2.0 * dm_random_uniform(&a.random) : 0.0;
    if ((kinds & FETCHING) != 0) {
        game.costs.gamma = 0.5;
        game.costs.spread = 4.0;
        game.costs.tau = a.tau;
        game.costs.tau_disk = 0.7;
    }
    game.costs.price = (kinds & PRICED) != 0 ? a.price : NULL;
    game.costs.any = (kinds & TABLE) != 0 ? table_cost : NULL;
    game.costs.any_user = a.table;
    return game;
}

static void *scratch_for(const dm_routing_game *game) {
    size_t bytes;
    assert_int_equal(dm_routing_game_scratch(game, &bytes), DM_OK);
    void *scratch = dm_alloc(bytes, 1);
    assert_non_null(scratch);
    assert_int_equal(dm_routing_game_check(game, scratch), DM_OK);
    return scratch;
}

static dm_routing_game_result play(const dm_routing_game *game, int32_t *strategies) {
    void *scratch = scratch_for(game);
    dm_routing_game_result result;
    dm_routing_game_play(game, strategies, scratch, &result);
    dm_free(scratch);
    return result;
}

/* A small game with every rule in it now and then. */
static dm_routing_game draw_small(size_t round) {
    size_t tokens = 1 + below(3), experts = 2 + below(4), flock = 1 + below(experts), k = 1 + below(flock < 3 ? flock : 3);
    dm_routing_game game = draw_game(tokens, experts, flock, k, (int)(round % 16));
    game.min_k = 1 + below(k);
    game.propose = below(2) != 0;
    for (size_t e = 0; e < experts; e++) {
        a.off[e] = below(6) == 0;
    }
    game.off = below(2) != 0 ? a.off : NULL;
    for (size_t i = 0; i < tokens * flock; i++) {
        a.affinities[i] = below(20) == 0 ? -INFINITY : a.affinities[i];
    }
    return game;
}

/* ---- The potential ---- */

typedef struct witness {
    const dm_routing_game *game;
    uint32_t sets[FORM_MOST_PLAYERS];
    double potential;
    size_t moves;
} witness;

static void set_of(uint32_t *set, const int32_t *experts, size_t count) {
    *set = 0;
    for (size_t q = 0; q < count; q++) {
        *set |= experts[q] >= 0 ? 1u << experts[q] : 0;
    }
}

static void check_move(void *user, size_t token, const int32_t *experts, size_t count, double gain) {
    witness *w = user;
    double payoff = form_payoff(w->game, w->sets, token);
    set_of(&w->sets[token], experts, count);
    double potential = form_potential(w->game, w->sets);
    assert_true(gain > w->game->eps);
    assert_true(fabs(form_payoff(w->game, w->sets, token) - payoff - gain) < 1e-12);
    assert_true(fabs(potential - w->potential - gain) < 1e-12);
    w->potential = potential;
    w->moves++;
}

/* Looked at without a sweep, the start is what comes out. */
static void watch(dm_routing_game *game, witness *w, dm_routing_game_result *start) {
    size_t sweeps = game->most_sweeps;
    game->most_sweeps = 0;
    *start = play(game, a.strategies);
    game->most_sweeps = sweeps;
    *w = (witness){.game = game};
    for (size_t i = 0; i < game->tokens; i++) {
        set_of(&w->sets[i], a.strategies + i * game->max_k, game->max_k);
    }
    w->potential = form_potential(game, w->sets);
    assert_true(fabs(w->potential - start->potential_before) < 1e-11);
    assert_true(start->sweeps == 0 && start->moves == 0);
}

static void every_move_lifts_the_potential_by_its_gain(void **state) {
    (void)state;
    dm_random_seed(&a.random, 11);
    size_t moves = 0;
    for (size_t round = 0; round < (DM_SLOW ? 100 : 1000); round++) {
        dm_routing_game game = draw_game(1 + below(FORM_MOST_PLAYERS), 9, 3 + below(7), 1 + below(3), (int)(round % 16));
        game.min_k = 1 + below(game.max_k);
        game.propose = below(2) != 0;
        witness w;
        dm_routing_game_result start;
        watch(&game, &w, &start);
        game.on_move = check_move;
        game.on_move_user = &w;
        dm_routing_game_result result = play(&game, a.strategies);
        assert_true(result.at_rest && result.max_regret <= game.eps && result.moves == w.moves);
        assert_true(fabs(w.potential - result.potential_after) < 1e-11);
        assert_true(result.potential_before == start.potential_before);
        for (size_t i = 0; i < game.tokens; i++) {
            uint32_t set;
            set_of(&set, a.strategies + i * game.max_k, game.max_k);
            assert_int_equal(set, w.sets[i]);
        }
        moves += w.moves;
    }
    assert_true(moves > (DM_SLOW ? 100 : 1000));
}

/* ---- Sweeps ---- */

typedef struct sweeps {
    size_t told, tokens;
    dm_routing_game_sweep first, last;
} sweeps;

static void check_sweep(void *user, const dm_routing_game_sweep *sweep) {
    sweeps *s = user;
    assert_int_equal(sweep->sweeps, s->told);
    assert_int_equal(sweep->tokens, s->tokens);
    if (s->told == 0) {
        s->first = *sweep;
    } else {
        assert_true(sweep->potential >= s->last.potential - 1e-11 && sweep->moves >= s->last.moves);
    }
    s->last = *sweep;
    s->told++;
}

static void sweeps_are_told_and_change_nothing(void **state) {
    (void)state;
    dm_random_seed(&a.random, 13);
    for (size_t round = 0; round < 300; round++) {
        dm_routing_game game = draw_game(1 + below(FORM_MOST_PLAYERS), 9, 3 + below(7), 1 + below(3), (int)(round % 16));
        game.propose = below(2) != 0;
        game.most_sweeps = round % 5 == 0 ? 1 : game.most_sweeps;
        int32_t alone[FORM_MOST_PLAYERS * 3];
        const size_t n = game.tokens * game.max_k;
        dm_routing_game_result without = play(&game, a.strategies);
        memcpy(alone, a.strategies, n * sizeof *alone);
        sweeps s = {.tokens = game.tokens};
        game.on_sweep = check_sweep;
        game.on_sweep_user = &s;
        dm_routing_game_result result = play(&game, a.strategies);
        assert_memory_equal(&result, &without, sizeof result);
        assert_memory_equal(a.strategies, alone, n * sizeof *alone);
        assert_int_equal(s.told, result.sweeps + 1);
        assert_true(s.first.potential == result.potential_before && s.first.moves == 0);
        assert_true(s.last.potential == result.potential_after && s.last.moves == result.moves);
        assert_true(result.at_rest == !(s.last.max_regret > game.eps));
    }
}

/* ---- Brute force ---- */

static void write_form(const dm_routing_game *game, strategic_form *form) {
    if (!form_write(game, form)) {
        abort();
    }
}

/* Minus the payoffs of all, counted from each token's best affinity so that it is a cost: theory's b plus c. */
static double social_cost(const dm_routing_game *game, const strategic_form *form, size_t profile) {
    uint32_t sets[FORM_MOST_PLAYERS] = {0};
    form_sets(form, profile, sets);
    double cost = 0.0;
    for (size_t i = 0; i < game->tokens; i++) {
        double best = 0.0;
        for (size_t e = 0; e < game->experts; e++) {
            best = fmax(best, form_affinity(game, i, e));
        }
        cost += best * (double)__builtin_popcount(sets[i]) - form->payoffs[profile * form->players + i];
    }
    return cost;
}

static double least_cost(const dm_routing_game *game, const strategic_form *form, bool equilibria, double eps) {
    double least = INFINITY;
    for (size_t p = 0; p < form->profiles; p++) {
        if (!equilibria || form_regret(form, p) <= eps) {
            least = fmin(least, social_cost(game, form, p));
        }
    }
    return least;
}

static void small_games_end_in_equilibria(void **state) {
    (void)state;
    dm_random_seed(&a.random, 12);
    for (size_t round = 0; round < 600; round++) {
        dm_routing_game game = draw_small(round);
        strategic_form form;
        write_form(&game, &form);
        dm_routing_game_result result = play(&game, a.strategies);
        size_t profile = form_profile(&form, a.strategies, game.max_k);
        assert_true(profile != SIZE_MAX);
        assert_true(result.at_rest);
        assert_true(fabs(form_regret(&form, profile) - result.max_regret) <= 1e-12);
        assert_true(fabs(form.potential[profile] - result.potential_after) < 1e-11);
        /* whoever stops at the first sweep knows how far it is from rest */
        game.most_sweeps = below(2);
        result = play(&game, a.strategies);
        profile = form_profile(&form, a.strategies, game.max_k);
        assert_true(fabs(form_regret(&form, profile) - result.max_regret) <= 1e-12);
        assert_true(result.at_rest == (result.max_regret <= game.eps));
        form_free(&form);
    }
}

/* Fetching alone: the best equilibrium costs at most H(T) times the optimum, the found one at most T times; and from the
 * model's own choice at most H(T) times what that costs. */
static void equilibria_of_fetching_beside_the_optimum(void **state) {
    (void)state;
    dm_random_seed(&a.random, 13);
    double worst = 1.0, sum = 0.0, worst_best = 1.0;
    enum { ROUNDS = DM_SLOW ? 30 : 300, TOKENS = 4, ROUGH = 3 };
    for (size_t round = 0; round < ROUNDS; round++) {
        dm_routing_game game = draw_game(TOKENS, 5, 5, 2, FETCHING);
        game.keep_top = 0;
        game.costs.gamma = 0.3 * (double)(1 + round % ROUGH);
        strategic_form form;
        write_form(&game, &form);
        game.most_sweeps = 0;
        play(&game, a.strategies);
        double before = social_cost(&game, &form, form_profile(&form, a.strategies, game.max_k));
        game.most_sweeps = 1000;
        play(&game, a.strategies);
        double found = social_cost(&game, &form, form_profile(&form, a.strategies, game.max_k));
        double optimum = least_cost(&game, &form, false, game.eps), best = least_cost(&game, &form, true, game.eps);
        const double h = 1.0 + 1.0 / 2 + 1.0 / 3 + 1.0 / 4;
        assert_true(best <= h * optimum + 1e-9);
        assert_true(found <= TOKENS * optimum + 1e-9 && found <= h * before + 1e-9);
        double ratio = optimum > 0.0 ? found / optimum : 1.0;
        worst = fmax(worst, ratio);
        worst_best = fmax(worst_best, optimum > 0.0 ? best / optimum : 1.0);
        sum += ratio;
        form_free(&form);
    }
    print_message("fetching, %d tokens: cost of the equilibrium found over the optimum: mean %.4f, worst %.4f; of the best "
                  "equilibrium: worst %.4f\n",
                  TOKENS, sum / ROUNDS, worst, worst_best);
}

/* ---- Beside the solver of games in strategic form ---- */

enum sort {
    TIED,   /* equal payoffs, which rounding may set apart by less than eps */
    EXACT,  /* equal payoffs, which doubles hold exactly; eps is 0 */
    UNTIED, /* no equal payoffs */
    SORTS,
};

static float noise(void) {
    return (float)dm_random_normal(&a.random);
}

static dm_routing_game draw_solvable(size_t round, enum sort sort) {
    dm_routing_game game = draw_small(sort == EXACT ? round % 4 * PRICED : round);
    for (size_t e = 0; e < MOST_EXPERTS && sort == EXACT; e++) {
        a.price[e] = (float)below(3);
        for (size_t n = 0; n < 8; n++) {
            a.table[e * 8 + n] = (double)below(4);
        }
    }
    for (size_t i = 0; i < game.tokens * game.flock; i++) { /* so near each other that costs decide */
        float step = a.affinities[i] / 4.0f;
        a.affinities[i] = sort == EXACT ? floorf(2.0f * step) : sort == UNTIED ? step + 0.01f * noise() : step;
    }
    game.theta = sort == EXACT ? 1.0 : game.theta;
    game.eps = sort == EXACT ? 0.0 : game.eps;
    game.warm = true;
    return game;
}

/* Marks in listed [profiles] the pure equilibria that the public solver finds in the game's table; returns how many. */
static size_t solve_pure(const strategic_form *form, bool *listed) {
    int32_t strategies[FORM_MOST_PLAYERS];
    for (size_t i = 0; i < form->players; i++) {
        strategies[i] = (int32_t)form->n_strategies[i];
    }
    dm_game *table;
    dm_nash_result result;
    assert_int_equal(dm_game_create((int32_t)form->players, strategies, form->payoffs, &table), DM_OK);
    assert_int_equal(dm_nash_solve(table, &(dm_nash_options){.method = DM_NASH_PURE}, &result), DM_OK);
    for (size_t q = 0; q < result.count; q++) {
        const double *x = result.equilibria[q].probabilities;
        size_t profile = 0, step = 1;
        for (size_t i = 0; i < form->players; x += form->n_strategies[i], step *= form->n_strategies[i], i++) {
            for (size_t s = 0; s < form->n_strategies[i]; s++) {
                profile += x[s] == 1.0 ? s * step : 0;
            }
        }
        assert_true(result.equilibria[q].pure && !listed[profile]);
        listed[profile] = true;
    }
    size_t count = result.count;
    assert_true(result.found == count);
    dm_nash_result_free(&result);
    dm_game_free(table);
    return count;
}

/* Each token's experts in a profile, as a warm start. */
static void start_from(const dm_routing_game *game, const strategic_form *form, size_t profile) {
    uint32_t sets[FORM_MOST_PLAYERS] = {0};
    form_sets(form, profile, sets);
    for (size_t i = 0; i < game->tokens; i++) {
        size_t count = 0;
        for (size_t e = 0; e < game->experts; e++) {
            if ((sets[i] >> e & 1) != 0) {
                a.strategies[i * game->max_k + count++] = (int32_t)e;
            }
        }
        for (; count < game->max_k; count++) {
            a.strategies[i * game->max_k + count] = -1;
        }
    }
}

static void check_solved(dm_routing_game *game, const strategic_form *form, const bool *listed, bool rounded) {
    for (size_t p = 0; p < form->profiles; p++) {
        assert_true(listed[p] == (form_regret(form, p) == 0.0));
        if (listed[p] && dm_costs_depend_on_loads(&game->costs)) { /* a warm start is not looked at otherwise */
            game->most_sweeps = 0;
            start_from(game, form, p);
            dm_routing_game_result result = play(game, a.strategies);
            assert_true(result.at_rest && result.max_regret <= game->eps);
            assert_int_equal(form_profile(form, a.strategies, game->max_k), p);
        }
    }
    game->most_sweeps = 1000;
    for (size_t start = 0; start < 20; start++) {
        game->propose = start % 2 != 0;
        start_from(game, form, below(form->profiles));
        assert_true(play(game, a.strategies).at_rest);
        size_t end = form_profile(form, a.strategies, game->max_k);
        assert_true(end != SIZE_MAX && (listed[end] || (rounded && form_regret(form, end) <= game->eps)));
    }
}

static void both_solvers_find_the_same_equilibria(void **state) {
    (void)state;
    dm_random_seed(&a.random, 21);
    size_t equilibria[SORTS] = {0};
    enum { ROUNDS = DM_SLOW ? 30 : 300 };
    for (size_t round = 0; round < ROUNDS * (size_t)SORTS; round++) {
        enum sort sort = (enum sort)(round % SORTS);
        dm_routing_game game = draw_solvable(round / SORTS, sort);
        strategic_form form;
        write_form(&game, &form);
        bool *listed = dm_alloc(form.profiles, sizeof *listed);
        assert_non_null(listed);
        size_t count = solve_pure(&form, listed);
        assert_true(count > 0 || sort == TIED); /* where the potential is greatest, unless rounding hides it */
        check_solved(&game, &form, listed, sort == TIED);
        equilibria[sort] += count;
        dm_free(listed);
        form_free(&form);
    }
    print_message("pure equilibria of %d small games each: %zu where payoffs tie, %zu exactly, %zu where none do\n", ROUNDS,
                  equilibria[TIED], equilibria[EXACT], equilibria[UNTIED]);
    assert_true(equilibria[EXACT] > ROUNDS && equilibria[UNTIED] > ROUNDS); /* many have several */
}

/* Costs and affinities that doubles hold exactly: nobody gains anything at rest. */
static void exact_costs_leave_no_regret(void **state) {
    (void)state;
    dm_random_seed(&a.random, 14);
    for (size_t round = 0; round < 200; round++) {
        dm_routing_game game = draw_game(1 + below(200), 32, 32, 4, 0);
        game.eps = 0.0;
        for (size_t e = 0; e < 32 * 8; e++) {
            a.table[e] = (double)below(256) / 64.0 * (round % 2 != 0 ? 1.0 : (double)(e % 8)); /* arbitrary, or rising */
        }
        game.costs.any = table_cost;
        game.propose = below(2) != 0;
        dm_routing_game_result result = play(&game, a.strategies);
        assert_true(result.at_rest && result.max_regret == 0.0);
    }
}

/* ---- Rules of choice ---- */

static void free_experts_are_the_models_own(void **state) {
    (void)state;
    enum { T = 300, E = 40, K = 6 };
    dm_random_seed(&a.random, 15);
    dm_routing_game game = draw_game(T, E, E, K, 0);
    game.warm = true; /* is not looked at: nothing depends on loads */
    memset(a.strategies, 0, sizeof a.strategies);
    static float logits[T * E], gates[T * K];
    static int32_t expected[T * K];
    for (size_t i = 0; i < (size_t)T * E; i++) {
        a.affinities[i] = below(50) == 0 ? NAN : floorf(a.affinities[i] * 4.0f); /* 16 values: ties everywhere */
        logits[i] = a.affinities[i];
    }
    const dm_router router = {.n_experts = E, .top_k = K};
    dm_router_route(&router, logits, T, expected, gates);
    for (int propose = 0; propose < 2; propose++) {
        game.propose = propose != 0;
        dm_routing_game_result result = play(&game, a.strategies);
        assert_memory_equal(a.strategies, expected, sizeof expected);
        assert_true(result.sweeps == 1 && result.moves == 0 && result.max_regret == 0.0);
        assert_true(result.potential_before == result.potential_after);
    }
}

static void the_count_adapts(void **state) {
    (void)state;
    const float affinities[2 * 5] = {5.0f, 4.5f, 1.0f, 4.8f, 0.0f, 3.0f, 3.0f, 3.0f, 3.0f, 3.0f};
    dm_routing_game game = {.tokens = 2,
                            .experts = 5,
                            .flock = 5,
                            .affinities = affinities,
                            .min_k = 1,
                            .max_k = 4,
                            .most_sweeps = 9,
                            .theta = 0.5,
                            .threads = 1};
    int32_t strategies[8];
    dm_routing_game_result result = play(&game, strategies); /* ln 2 = 0.69 below the best still counts */
    const int32_t expected[8] = {0, 3, 1, -1, 0, 1, 2, 3};
    assert_memory_equal(strategies, expected, sizeof expected);
    assert_true(result.at_rest);
    game.theta = 1.0;
    game.min_k = 2;
    play(&game, strategies); /* payoffs below 0 only as many as must be; those of 0 stay */
    const int32_t fewest[8] = {0, 3, -1, -1, 0, 1, 2, 3};
    assert_memory_equal(strategies, fewest, sizeof fewest);
}

static void crowds_spread_and_kept_experts_stay(void **state) {
    (void)state;
    enum { T = 64, E = 8 };
    dm_random_seed(&a.random, 16);
    dm_routing_game game = draw_game(T, E, E, 2, CROWDING);
    for (size_t i = 0; i < (size_t)T * E; i++) {
        a.affinities[i] = i % E == 3 ? 2.0f : (float)(i % E) * 0.01f;
    }
    game.costs.beta = 2.0;
    for (size_t keep = 0; keep <= 2; keep++) {
        game.keep_top = keep;
        dm_routing_game_result result = play(&game, a.strategies);
        size_t users[E] = {0};
        for (size_t i = 0; i < (size_t)T * 2; i++) {
            users[a.strategies[i]]++;
        }
        assert_true(result.at_rest);
        assert_true(keep == 0 ? users[3] < T && users[0] > 0 : users[3] == T); /* the favourite of all */
        assert_true(keep < 2 ? users[7] < T : users[7] == T);                  /* the second, which all had to keep */
    }
}

static void what_is_off_is_never_chosen(void **state) {
    (void)state;
    const float affinities[2 * 4] = {-INFINITY, 3.0f, NAN, 1.0f, INFINITY, 2.0f, 9.0f, -INFINITY};
    const int32_t candidates[2 * 4] = {0, 1, 2, 3, 4, 5, 6, 7};
    const bool off[8] = {[6] = true};
    dm_routing_game game = {.tokens = 2,
                            .experts = 8,
                            .flock = 4,
                            .affinities = affinities,
                            .candidates = candidates,
                            .off = off,
                            .min_k = 3,
                            .max_k = 3,
                            .keep_top = 1,
                            .most_sweeps = 9,
                            .threads = 1,
                            .costs = {.beta = 0.1}};
    int32_t strategies[6];
    for (int propose = 0; propose < 2; propose++) {
        game.propose = propose != 0;
        dm_routing_game_result result = play(&game, strategies);
        const int32_t expected[6] = {1, 3, -1, 4, 5, -1};
        assert_memory_equal(strategies, expected, sizeof expected);
        assert_true(result.at_rest && isfinite(result.potential_after) && result.max_regret == 0.0);
    }
    const bool all[8] = {true, true, true, true, true, true, true, true};
    game.off = all;
    dm_routing_game_result result = play(&game, strategies);
    assert_true(result.at_rest && result.potential_after == 0.0);
    for (size_t q = 0; q < 6; q++) {
        assert_int_equal(strategies[q], -1);
    }
}

static double broken_cost(void *user, size_t expert, size_t users) {
    (void)user;
    const double costs[4] = {NAN, INFINITY, -INFINITY, DBL_MAX};
    return costs[(expert + users) % 4];
}

static void broken_costs_break_nothing(void **state) {
    (void)state;
    dm_random_seed(&a.random, 17);
    dm_routing_game game = draw_game(20, 10, 10, 3, CROWDING);
    game.costs.any = broken_cost;
    game.costs.beta = DBL_MAX;
    dm_routing_game_result result = play(&game, a.strategies);
    assert_true(!isnan(result.potential_after) && !isnan(result.max_regret));
    for (size_t q = 0; q < 60; q++) {
        assert_in_range(a.strategies[q], 0, 9);
    }
    game.tokens = 0;
    result = play(&game, a.strategies);
    assert_true(result.at_rest && result.max_regret == 0.0 && result.potential_after == 0.0);
}

static void a_price_alone_steers_the_choice(void **state) {
    (void)state;
    const float affinities[4] = {4.0f, 3.0f, 2.0f, 1.0f}, price[4] = {0.0f, 2.5f, 0.0f, -9.0f};
    dm_routing_game game = {.tokens = 1,
                            .experts = 4,
                            .flock = 4,
                            .affinities = affinities,
                            .min_k = 2,
                            .max_k = 2,
                            .most_sweeps = 9,
                            .threads = 1,
                            .costs = {.price = price}};
    int32_t strategies[2];
    dm_routing_game_result result = play(&game, strategies);
    assert_true(strategies[0] == 0 && strategies[1] == 3 && result.moves == 1 && result.sweeps == 1);
    assert_true(result.potential_after == 4.0 + 10.0);
}

/* ---- Starts ---- */

static void warm_starts_are_taken_up(void **state) {
    (void)state;
    dm_random_seed(&a.random, 18);
    dm_routing_game game = draw_game(500, 64, 16, 4, CROWDING | FETCHING);
    dm_routing_game_result cold = play(&game, a.strategies);
    static int32_t kept[500 * 4];
    memcpy(kept, a.strategies, sizeof kept);
    game.warm = true;
    dm_routing_game_result warm = play(&game, a.strategies);
    assert_true(warm.moves == 0 && warm.sweeps == 1);
    assert_true(fabs(warm.potential_before - cold.potential_after) < 1e-9);
    assert_memory_equal(a.strategies, kept, sizeof kept);
}

static void ids_that_left_the_flock_give_way(void **state) {
    (void)state;
    const float affinities[5] = {1.0f, 5.0f, 3.0f, 2.0f, 4.0f};
    const int32_t candidates[5] = {10, 11, 12, 13, 14};
    const bool off[20] = {[12] = true};
    dm_routing_game game = {.tokens = 1,
                            .experts = 20,
                            .flock = 5,
                            .affinities = affinities,
                            .candidates = candidates,
                            .off = off,
                            .min_k = 3,
                            .max_k = 3,
                            .threads = 1,
                            .warm = true,
                            .costs = {.beta = 1.0}};
    int32_t row[3] = {10, 3, 12}; /* 3 left, 12 is off: 11 and 14 are the best there are */
    play(&game, row);
    const int32_t replaced[3] = {11, 14, 10};
    assert_memory_equal(row, replaced, sizeof row);
    int32_t wild[3] = {10, 10, INT32_MAX}; /* twice, and no expert at all */
    play(&game, wild);
    assert_memory_equal(wild, replaced, sizeof wild);
    game.keep_top = 1; /* the best comes in whatever was given */
    int32_t others[3] = {13, 10, 14};
    play(&game, others);
    const int32_t with_best[3] = {11, 13, 10};
    assert_memory_equal(others, with_best, sizeof others);
    game.min_k = 1;
    game.theta = 0.5;
    int32_t fewer[3] = {-1, 14, -1}; /* an adaptive start keeps its count */
    game.keep_top = 0;
    play(&game, fewer);
    const int32_t one[3] = {14, -1, -1};
    assert_memory_equal(fewer, one, sizeof fewer);
}

/* ---- Threads ---- */

static void proposals_are_the_same_on_any_number_of_threads(void **state) {
    (void)state;
    static int32_t expected[MOST_TOKENS * MOST_K];
    dm_random_seed(&a.random, 19);
    int before = dm_threads();
    dm_set_threads(5);
    for (size_t round = 0; round < 12; round++) {
        size_t tokens = round % 3 == 0 ? 1500 : 200, flock = round % 2 != 0 ? 64 : 16;
        dm_routing_game game = draw_game(tokens, 64, flock, 4, 1 + (int)(round % 15));
        game.min_k = 2;
        game.propose = true;
        dm_routing_game_result first = {0};
        for (int threads = 1; threads <= 5; threads += 2) {
            game.threads = threads;
            dm_routing_game_result result = play(&game, a.strategies);
            assert_true(result.at_rest && result.max_regret <= game.eps);
            if (threads == 1) {
                first = result;
                memcpy(expected, a.strategies, tokens * 4 * sizeof *expected);
            }
            assert_memory_equal(a.strategies, expected, tokens * 4 * sizeof *expected);
            assert_true(result.potential_after == first.potential_after && result.sweeps == first.sweeps &&
                        result.moves == first.moves && result.max_regret == first.max_regret);
        }
        /* in turn, the same game rests too, and where proposals ended nobody moves */
        game.propose = false;
        game.warm = true;
        dm_routing_game_result again = play(&game, a.strategies);
        assert_true(again.at_rest && (again.moves == 0 || !dm_costs_depend_on_loads(&game.costs)));
        game.warm = false;
        assert_true(play(&game, a.strategies).at_rest);
    }
    dm_set_threads(before);
}

static void large_games_rest_soon(void **state) {
    (void)state;
    dm_random_seed(&a.random, 20);
    for (int kinds = CROWDING; kinds <= (CROWDING | FETCHING); kinds++) {
        dm_routing_game game = draw_game(DM_SLOW ? 256 : 4096, 256, 16, 8, kinds);
        for (int propose = 0; propose < 2; propose++) {
            game.propose = propose != 0;
            dm_routing_game_result result = play(&game, a.strategies);
            print_message("%s%s, %s: %zu sweeps, %zu moves, potential %.3f to %.3f\n", (kinds & CROWDING) != 0 ? "crowding " : "",
                          (kinds & FETCHING) != 0 ? "fetching" : "", propose != 0 ? "proposals" : "in turn", result.sweeps,
                          result.moves, result.potential_before, result.potential_after);
            assert_true(result.at_rest && result.potential_after >= result.potential_before);
        }
    }
}

/* ---- What is refused ---- */

static void refuse(const dm_routing_game *game) {
    static _Alignas(64) uint8_t scratch[1 << 16];
    assert_int_equal(dm_routing_game_check(game, scratch), DM_ERR_ARGUMENT);
}

static void senseless_games_are_refused(void **state) {
    (void)state;
    const float affinities[4] = {0}, nan[2] = {NAN, 0.0f};
    const int32_t twice[4] = {0, 1, 1, 1}, outside[4] = {0, 1, 2, 0}, negative[4] = {0, -1, 0, 1};
    const dm_routing_game fine = {
        .tokens = 2, .experts = 2, .flock = 2, .affinities = affinities, .min_k = 1, .max_k = 1, .threads = 1};
    dm_routing_game game = fine;
    dm_free(scratch_for(&game));
#define REFUSE(field, value) (game = fine, game.field = (value), refuse(&game))
    REFUSE(experts, 0);
    REFUSE(experts, (size_t)INT32_MAX + 1);
    REFUSE(flock, 0);
    REFUSE(flock, 3);
    REFUSE(flock, 1); /* without ids */
    REFUSE(affinities, NULL);
    REFUSE(candidates, twice);
    REFUSE(candidates, outside);
    REFUSE(candidates, negative);
    REFUSE(min_k, 0);
    REFUSE(min_k, 2);
    REFUSE(max_k, 3);
    REFUSE(max_k, 2); /* without theta */
    REFUSE(keep_top, 2);
    REFUSE(eps, -1.0);
    REFUSE(eps, (double)NAN);
    REFUSE(threads, 0);
    REFUSE(costs.beta, (double)INFINITY);
    REFUSE(costs.gamma, (double)NAN);
    REFUSE(costs.tau, affinities); /* without tau_disk */
    REFUSE(costs.price, nan);
    game = fine;
    game.tokens = SIZE_MAX / 4;
    size_t bytes;
    assert_int_equal(dm_routing_game_scratch(&game, &bytes), DM_ERR_MEMORY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_move_lifts_the_potential_by_its_gain),
        cmocka_unit_test(sweeps_are_told_and_change_nothing),
        cmocka_unit_test(small_games_end_in_equilibria),
        cmocka_unit_test(equilibria_of_fetching_beside_the_optimum),
        cmocka_unit_test(both_solvers_find_the_same_equilibria),
        cmocka_unit_test(exact_costs_leave_no_regret),
        cmocka_unit_test(free_experts_are_the_models_own),
        cmocka_unit_test(the_count_adapts),
        cmocka_unit_test(crowds_spread_and_kept_experts_stay),
        cmocka_unit_test(what_is_off_is_never_chosen),
        cmocka_unit_test(broken_costs_break_nothing),
        cmocka_unit_test(a_price_alone_steers_the_choice),
        cmocka_unit_test(warm_starts_are_taken_up),
        cmocka_unit_test(ids_that_left_the_flock_give_way),
        cmocka_unit_test(proposals_are_the_same_on_any_number_of_threads),
        cmocka_unit_test(large_games_rest_soon),
        cmocka_unit_test(senseless_games_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
