/* Games in strategic form: the reader, textbook games, and hundreds of random and degenerate games, each equilibrium checked by
 * the definition from the payoffs alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/threads.h"
#include "core/linear_system.h"
#include "core/logit_path.h"
#include "core/normal_form.h"

enum { MOST = 5 }; /* players and strategies of the games here */

static dm_game *parse(const char *text) {
    dm_game *game;
    if (dm_game_parse(text, strlen(text), &game) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return game;
}

static dm_nash_result solve(const dm_game *game, dm_nash_method method) {
    dm_nash_result result;
    if (dm_nash_solve(game, &(dm_nash_options){.method = method, .seed = 1}, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return result;
}

/* Largest regret over range of payoffs, by summing over all profiles; probabilities must be some. */
static double regret_by_definition(const dm_game *game, const double *x) {
    int32_t n = dm_game_players(game);
    double worst = 0.0;
    size_t first = 0;
    for (int32_t i = 0; i < n; i++) {
        double value = 0.0, least = INFINITY, most = -INFINITY, sum = 0.0, earned[16] = {0};
        int32_t digits[MOST] = {0};
        for (size_t p = 0; p < game->profiles; p++) {
            double others = 1.0, payoff = dm_game_payoff(game, digits, i);
            for (int32_t j = 0; j < n; j++) {
                others *= j != i ? x[game->first[j] + (size_t)digits[j]] : 1.0;
            }
            earned[digits[i]] += others * payoff;
            least = fmin(least, payoff);
            most = fmax(most, payoff);
            dm_game_next_profile(game, digits);
        }
        double best = -INFINITY;
        for (int32_t s = 0; s < dm_game_strategies(game, i); s++) {
            assert_true(x[first + (size_t)s] >= 0.0);
            sum += x[first + (size_t)s];
            value += x[first + (size_t)s] * earned[s];
            best = fmax(best, earned[s]);
        }
        assert_true(fabs(sum - 1.0) < 1e-12);
        worst = fmax(worst, most > least ? (best - value) / (most - least) : 0.0);
        first += (size_t)dm_game_strategies(game, i);
    }
    return worst;
}

/* Whether an equilibrium with these probabilities is listed. */
static bool lists(const dm_game *game, const dm_nash_result *result, const double *x) {
    for (size_t i = 0; i < result->count; i++) {
        double distance = 0.0;
        for (size_t a = 0; a < game->total; a++) {
            distance = fmax(distance, fabs(result->equilibria[i].probabilities[a] - x[a]));
        }
        if (distance < 1e-12) {
            return true;
        }
    }
    return false;
}

/* ---- Reading ---- */

static void both_layouts_are_one_game(void **state) {
    (void)state;
    dm_game *payoffs = parse("NFG 1 R \"Selten (IJGT, 75), \\\"Figure 2\\\"\" { \"Player 1\" \"Player 2\" } { 3 2 }\n"
                             "\"a comment\"\n1 1 0 2 0 2 1 1 0 3 2 0\n");
    dm_game *outcomes = parse("NFG 1 D \"\" { \"x\" \"y\" }\n{ { \"a\" \"b\" \"c\" } { \"d\" \"e\\\\\" } }\n"
                              "{ { \"one\" 1, 1 } { \"\" 0 2 } { \"\" 0, 3 } { \"\" 4/2, 0.0 } }\n1 2 2 1 3 4");
    assert_string_equal(dm_game_title(payoffs), "Selten (IJGT, 75), \"Figure 2\"");
    assert_string_equal(dm_game_player_name(payoffs, 1), "Player 2");
    assert_string_equal(dm_game_strategy_name(payoffs, 0, 0), "");
    assert_string_equal(dm_game_strategy_name(outcomes, 1, 1), "e\\");
    assert_string_equal(dm_game_strategy_name(outcomes, 1, 2), "");
    assert_int_equal(dm_game_strategies(outcomes, 0), 3);
    assert_memory_equal(payoffs->payoffs, outcomes->payoffs, 12 * sizeof(double));
    assert_true(dm_game_payoff(payoffs, (const int32_t[]){1, 1}, 1) == 3.0); /* the first player's strategy runs fastest */
    assert_true(isnan(dm_game_payoff(payoffs, (const int32_t[]){3, 0}, 1)));
    dm_game_free(payoffs);
    dm_game_free(outcomes);
}

static void numbers_of_every_form(void **state) {
    (void)state;
    static const char text[] =
        "NFG 1 R \"\" { \"\" } { 12 } -7/3 1e3 .5 -0.25e-2 +4. 1/3 2/6 0.1 1/10 12345678901234567890 1e-300 "
        "0.50/1.5E1";
    static const double values[] = {-7.0 / 3, 1e3,     .5, -0.0025, 4, 1.0 / 3, 1.0 / 3, .1, .1, 12345678901234567890.0,
                                    1e-300,   1.0 / 30};
    dm_game *game = parse(text);
    for (int32_t s = 0; s < 12; s++) {
        double payoff = dm_game_payoff(game, &s, 0);
        assert_true(s == 9 || s == 10 ? fabs(payoff / values[s] - 1.0) < 1e-15 : payoff == values[s]);
    }
    dm_game_free(game);
}

static void the_null_outcome_pays_nothing(void **state) {
    (void)state;
    dm_game *game = parse("NFG 1 R \"\" { \"a\" \"b\" } { 1 2 } { { \"\" 5 6 } } 0 1");
    assert_true(game->payoffs[0] == 0.0 && game->payoffs[1] == 0.0 && game->payoffs[2] == 5.0 && game->payoffs[3] == 6.0);
    dm_game_free(game);
    game = parse("NFG 1 R \"\" { \"a\" \"b\" } { 1 2 } { } 0 0");
    assert_true(game->payoffs[3] == 0.0);
    dm_game_free(game);
}

static void what_is_wrong_is_said(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "line 1: expected NFG"},
        {"EFG 2 R \"\"", "line 1: expected NFG"},
        {"NFG 2 R \"\"", "line 1: expected the format's version, 1, found '2'"},
        {"NFG 1 X \"\"", "line 1: expected R, found 'X'"},
        {"NFG 1 R\n\n title", "line 3: expected the title in quotes, found 'title'"},
        {"NFG 1 R \"\" { a }", "expected a player's name in quotes or '}', found 'a'"},
        {"NFG 1 R \"\" { } { }", "expected 1 to 1024 players, found 0"},
        {"NFG 1 R \"\" { \"a\" } { 0 }", "expected 1 to"},
        {"NFG 1 R \"\" { \"a\" } { -1 } 3", "expected a number of strategies from 0 to"},
        {"NFG 1 R \"\" { \"a\" } { { } }", "expected 1 to"},
        {"NFG 1 R \"\" { \"a\" \"b\" } { 2 }", "expected strategies for 2 players, found them for 1"},
        {"NFG 1 R \"\" { \"a\" } { 2 }\n1\n", "line 3: expected a payoff, found the end of the file"},
        {"NFG 1 R \"\" { \"a\" } { 2 } 1 2 3", "expected the end"},
        {"NFG 1 R \"\" { \"a\" } { 1 }\n\n1/0", "line 3: expected a payoff such as"},
        {"NFG 1 R \"\" { \"a\" } { 1 } 1e999", "expected a payoff of 0 or of magnitude"},
        {"NFG 1 R \"\" { \"a\" } { 1 } 1e", "expected a payoff such as"},
        {"NFG 1 R \"\" { \"a\" } { 1 } nan", "expected a payoff, found 'nan'"},
        {"NFG 1 R \"\" { \"a\" } { 1 } { { \"\" 1 } } 2", "expected an outcome's number from 0 to 1, found '2'"},
        {"NFG 1 R \"\" { \"a\" } { 1 } { { \"\" 1 2 } } 1", "expected '}' after one payoff for each player"},
        {"NFG 1 R \"\" { \"a\" } { 1 } { { 1 } } 1", "expected the outcome's name in quotes"},
        {"NFG 1 R \"never ends\n", "line 1: expected a closing '\"'"},
        {"NFG 1 R \"\" { \"a\" \"b\" } { 3000 3000 } 1", "combinations of strategies, but only 1 bytes follow"},
        {"NFG 1 R \"\" { \"a\" \"b\" \"c\" } { 16777216 16777216 16777216 } 1",
         "line 1: the game has more than 16777216 payoffs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_game *game;
        assert_int_not_equal(dm_game_parse(cases[i][0], strlen(cases[i][0]), &game), DM_OK);
        assert_null(game);
        if (strstr(dm_error_message(), cases[i][1]) == NULL) {
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, dm_error_message(), cases[i][1]);
        }
    }
}

static void payoffs_from_memory_are_checked(void **state) {
    (void)state;
    dm_game *game;
    const int32_t many[3] = {1 << 12, 1 << 12, 2}, none[1] = {0};
    assert_int_equal(dm_game_create(3, many, NULL, &game), DM_ERR_UNSUPPORTED);
    assert_int_equal(dm_game_create(1, none, NULL, &game), DM_ERR_ARGUMENT);
    assert_int_equal(dm_game_create(0, none, NULL, &game), DM_ERR_UNSUPPORTED);
    const int32_t two[1] = {2};
    assert_int_equal(dm_game_create(1, two, (const double[]){1.0, NAN}, &game), DM_ERR_ARGUMENT);
    assert_null(game);
}

/* ---- Textbook games ---- */

/* All equilibria of a game for two players: exactly these, in any order. */
static void expect_all(const char *text, const double *expected, size_t n, size_t components) {
    dm_game *game = parse(text);
    dm_nash_result result = solve(game, DM_NASH_AUTO);
    assert_int_equal(result.method, DM_NASH_ALL);
    assert_int_equal(result.count, n);
    assert_int_equal(result.found, n);
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(lists(game, &result, expected + i * game->total));
        assert_true(regret_by_definition(game, result.equilibria[i].probabilities) < 1e-14);
        most = result.equilibria[i].component > most ? result.equilibria[i].component : most;
    }
    assert_int_equal(most + 1, components);
    dm_nash_result_free(&result);
    dm_nash_result one = solve(game, DM_NASH_ONE);
    assert_int_equal(one.count, 1);
    assert_true(lists(game, &one, one.equilibria[0].probabilities) && one.max_regret < 1e-14);
    dm_nash_result_free(&one);
    dm_game_free(game);
}

static void textbook_games_for_two(void **state) {
    (void)state;
    expect_all("NFG 1 R \"matching pennies\" { \"\" \"\" } { 2 2 } 1 -1 -1 1 -1 1 1 -1", (const double[]){.5, .5, .5, .5}, 1, 1);
    expect_all("NFG 1 R \"battle of the sexes\" { \"\" \"\" } { 2 2 } 3 2 0 0 0 0 2 3",
               (const double[]){1, 0, 1, 0, 0, 1, 0, 1, .6, .4, .4, .6}, 3, 3);
    expect_all("NFG 1 R \"prisoner's dilemma\" { \"\" \"\" } { 2 2 } -1 -1 0 -9 -9 0 -6 -6", (const double[]){0, 1, 0, 1}, 1, 1);
    expect_all("NFG 1 R \"chicken\" { \"\" \"\" } { 2 2 } 0 0 1 -1 -1 1 -10 -10",
               (const double[]){1, 0, 0, 1, 0, 1, 1, 0, .9, .1, .9, .1}, 3, 3);
    expect_all("NFG 1 R \"stag hunt\" { \"\" \"\" } { 2 2 } 4 4 3 1 1 3 2 2",
               (const double[]){1, 0, 1, 0, 0, 1, 0, 1, .5, .5, .5, .5}, 3, 3);
    double third = 1.0 / 3;
    expect_all("NFG 1 R \"rock, paper, scissors\" { \"\" \"\" } { 3 3 } 0 0 1 -1 -1 1 -1 1 0 0 1 -1 1 -1 -1 1 0 0",
               (const double[]){third, third, third, third, third, third}, 1, 1);
    /* von Stengel (2002), example 2.1: three equilibria */
    expect_all("NFG 1 R \"3 x 2\" { \"\" \"\" } { 3 2 } 3 3 2 2 0 3 3 2 5 6 6 1",
               (const double[]){1, 0, 0, 1, 0, .8, .2, 0, 2 * third, third, 0, third, 2 * third, third, 2 * third}, 3, 3);
}

static void degenerate_games_for_two(void **state) {
    (void)state;
    /* Selten's game: player 2 may mix up to one half */
    expect_all("NFG 1 R \"Selten\" { \"\" \"\" } { 3 2 } 1 1 0 2 0 2 1 1 0 3 2 0",
               (const double[]){1, 0, 0, 1, 0, 1, 0, 0, .5, .5}, 2, 1);
    expect_all("NFG 1 R \"nothing\" { \"\" \"\" } { 2 2 } 0 0 0 0 0 0 0 0",
               (const double[]){1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1}, 4, 1);
    /* twice the same strategy of player 1 in matching pennies */
    expect_all("NFG 1 R \"twins\" { \"\" \"\" } { 3 2 } 1 -1 1 -1 -1 1 -1 1 -1 1 1 -1",
               (const double[]){.5, 0, .5, .5, .5, 0, .5, .5, .5, .5}, 2, 1);
    /* two components: a dot, and an edge (the entry game) */
    expect_all("NFG 1 R \"entry\" { \"\" \"\" } { 2 2 } 1 1 0 5 -1 -1 0 5",
               (const double[]){1, 0, 1, 0, 0, 1, 0, 1, 0, 1, .5, .5}, 3, 2);
    expect_all("NFG 1 R \"alone\" { \"\" \"\" } { 1 1 } 3 4", (const double[]){1, 1}, 1, 1);
}

/* Decimals that have no double are exact all the same: 0.1 + 0.2 against 0.3. */
static void ties_are_exact(void **state) {
    (void)state;
    dm_game *game = parse("NFG 1 R \"\" { \"\" \"\" } { 3 2 } 0.2 1 0 1 0.1 1 0 1 0.2 1 0.1 1");
    dm_nash_result result = solve(game, DM_NASH_ALL);
    /* at (1/2, 1/2) the third strategy earns as much as the others */
    assert_true(lists(game, &result, (const double[]){0, 0, 1, .5, .5}));
    assert_int_equal(result.equilibria[0].component, 0);
    dm_nash_result_free(&result);
    dm_game_free(game);
}

/* Differences that doubles do not see: matching pennies on top of 10^17, whose neighbours among doubles are 16 apart. */
static void small_differences_of_large_payoffs(void **state) {
    (void)state;
    dm_game *game = parse("NFG 1 R \"\" { \"\" \"\" } { 2 2 } 100000000000000001 -1 99999999999999999 1 99999999999999999 1 "
                          "100000000000000001 -1");
    dm_nash_result all = solve(game, DM_NASH_ALL), pure = solve(game, DM_NASH_PURE);
    assert_int_equal(pure.count, 0);
    assert_int_equal(all.count, 1);
    assert_true(lists(game, &all, (const double[]){.5, .5, .5, .5}) && all.max_regret < 1e-15);
    dm_nash_result_free(&all);
    dm_nash_result_free(&pure);
    dm_game_free(game);
}

static void expect_one(const char *text, const double *expected, double tolerance) {
    dm_game *game = parse(text);
    dm_nash_result result = solve(game, DM_NASH_ONE);
    assert_int_equal(result.count, 1);
    for (size_t a = 0; a < game->total; a++) {
        assert_true(fabs(result.equilibria[0].probabilities[a] - expected[a]) < tolerance);
    }
    assert_true(result.max_regret < 1e-10);
    dm_nash_result_free(&result);
    dm_game_free(game);
}

static void games_for_three(void **state) {
    (void)state;
    /* Player 1 wants to match 2, 2 to match 3, and 3 to differ from 1: the only equilibrium is even. */
    expect_one("NFG 1 R \"\" { \"\" \"\" \"\" } { 2 2 2 } 1 1 0 0 1 1 0 0 0 1 0 1 1 0 1 0 0 0 0 1 1 1 1 0",
               (const double[]){.5, .5, .5, .5, .5, .5}, 1e-9);
    /* With three players rational payoffs may need irrational mixtures (Nash 1951 has a game of poker). Here each plays the first
     * strategy with probability t, t^2 - 3 t + 1 = 0: the first one earns y z - 3 y + 1 where the next two players play their
     * first ones with y and z, the second one nothing. */
    double t = (3.0 - sqrt(5.0)) / 2;
    expect_one("NFG 1 R \"\" { \"\" \"\" \"\" } { 2 2 2 } -1 -1 -1 0 -2 1 1 0 -2 0 0 1 -2 1 0 0 1 0 1 0 0 0 0 0",
               (const double[]){t, 1 - t, t, 1 - t, t, 1 - t}, 1e-10);
    /* Three firms enter or stay out of a market for one: staying out pays 0, entering alone 1, with others -1; pure equilibria
     * are those with one firm (El Farol's bar with one seat). */
    dm_game *game = parse("NFG 1 R \"\" { \"\" \"\" \"\" } { 2 2 2 } 0 0 0 1 0 0 0 1 0 -1 -1 0 0 0 1 -1 0 -1 0 -1 -1 -1 -1 -1");
    dm_nash_result result = solve(game, DM_NASH_PURE);
    assert_int_equal(result.count, 3);
    dm_nash_result_free(&result);
    dm_nash_result all;
    assert_int_equal(dm_nash_solve(game, &(dm_nash_options){.method = DM_NASH_ALL}, &all), DM_ERR_UNSUPPORTED);
    assert_null(all.equilibria);
    dm_game_free(game);
}

/* A jury of three convicts unanimously; each has a signal, right with probability 0.8, and a strategy for each signal. Every one
 * dislikes convicting the innocent (0.9) and freeing the guilty (0.1), as in Feddersen and Pesendorfer (1998). */
static void a_jury(void **state) {
    (void)state;
    const int32_t strategies[3] = {4, 4, 4}; /* bit 0: convict after an innocent signal; bit 1: after a guilty one */
    double payoffs[64 * 3];
    for (int p = 0; p < 64; p++) {
        double convict[2]; /* the innocent, the guilty */
        for (int guilty = 0; guilty < 2; guilty++) {
            convict[guilty] = 1.0;
            for (int i = 0, rest = p; i < 3; i++, rest /= 4) {
                double right = guilty ? 0.8 : 0.2;
                convict[guilty] *= (rest & 2 ? right : 0.0) + (rest & 1 ? 1.0 - right : 0.0);
            }
        }
        for (int i = 0; i < 3; i++) {
            payoffs[3 * p + i] = -0.5 * (0.9 * convict[0] + 0.1 * (1.0 - convict[1]));
        }
    }
    dm_game *game;
    assert_int_equal(dm_game_create(3, strategies, payoffs, &game), DM_OK);
    dm_nash_result result = solve(game, DM_NASH_PURE);
    assert_true(result.count > 0);
    for (size_t i = 0; i < result.count; i++) {
        assert_true(regret_by_definition(game, result.equilibria[i].probabilities) < 1e-14);
    }
    dm_nash_result_free(&result);
    double x[12], regret;
    assert_int_equal(dm_logit_equilibrium(game, 1, x, &regret), DM_OK);
    assert_true(regret_by_definition(game, x) < 1e-10);
    dm_game_free(game);
}

/* ---- Many games ---- */

typedef enum kind {
    UNIFORM,
    BITS,
    TERNARY,
    NEARLY_TIED,
    SPARSE,
    SCALES,
    CONSTANT_SUM,
    COORDINATION,
    CONGESTION,
    AUCTION,
    TWINS,
    KINDS
} kind;

static void profile_payoffs(dm_random *random, kind what, int32_t n, const int32_t *digits, double *payoffs) {
    double sum = 0.0;
    int32_t most = 0;
    for (int32_t i = 0; i < n; i++) {
        most = digits[i] > most ? digits[i] : most;
    }
    for (int32_t i = 0; i < n; i++) {
        double u = dm_random_uniform(random);
        int32_t same = 0;
        for (int32_t j = 0; j < n; j++) {
            same += digits[j] == digits[i];
        }
        const double values[KINDS] = {
            [UNIFORM] = u,
            [BITS] = floor(2 * u),
            [TERNARY] = floor(3 * u),
            [NEARLY_TIED] = floor(3 * u) + 1e-8 * dm_random_normal(random),
            [SPARSE] = u > 0.9,
            [SCALES] = dm_random_normal(random) * exp(40 * u - 20),
            [CONSTANT_SUM] = i + 1 < n ? floor(9 * u) : 7 - sum,
            [COORDINATION] = same == n ? digits[i] + 1 : 0,
            [CONGESTION] = i % 2 == 0 ? same : -same,
            [AUCTION] = (digits[i] == most ? 3.0 / same : 0.0) - digits[i], /* who pays most wins, all pay */
            [TWINS] = sin(3.0 * (digits[i] >> 1) + 5.0 * (digits[(i + 1) % n] >> 1) + i),
        };
        payoffs[i] = values[what];
        sum += payoffs[i];
    }
}

static dm_game *random_game(dm_random *random, kind what, int32_t n, const int32_t *strategies) {
    size_t profiles = 1;
    for (int32_t i = 0; i < n; i++) {
        profiles *= (size_t)strategies[i];
    }
    double *payoffs = malloc(profiles * (size_t)n * sizeof *payoffs);
    assert_non_null(payoffs);
    for (size_t p = 0; p < profiles; p++) {
        int32_t digits[MOST];
        size_t rest = p;
        for (int32_t i = 0; i < n; i++) {
            digits[i] = (int32_t)(rest % (size_t)strategies[i]);
            rest /= (size_t)strategies[i];
        }
        profile_payoffs(random, what, n, digits, payoffs + p * (size_t)n);
    }
    dm_game *game;
    assert_int_equal(dm_game_create(n, strategies, payoffs, &game), DM_OK);
    free(payoffs);
    return game;
}

static void random_shape(dm_random *random, int32_t n, int32_t *strategies) {
    for (int32_t i = 0; i < n; i++) {
        strategies[i] = (int32_t)(1 + dm_random_next(random) % 4);
    }
}

/* Every kind of game in every number of players: the path alone, also where a pure equilibrium would do. */
static void one_equilibrium_of_any_game(void **state) {
    (void)state;
    int rounds = DM_SLOW ? 1 : 12;
    dm_random random;
    dm_random_seed(&random, 11);
    double worst = 0.0, longest = 0.0;
    int games = 0;
    for (int32_t n = 2; n <= MOST; n++) {
        for (int32_t what = 0; what < KINDS; what++) {
            for (int round = 0; round < rounds; round++, games++) {
                int32_t strategies[MOST] = {4, 4, 4, 4, 4};
                if (round > 0) {
                    random_shape(&random, n, strategies);
                }
                dm_game *game = random_game(&random, (kind)what, n, strategies);
                double x[4 * MOST], regret, start = dm_seconds();
                assert_int_equal(dm_logit_equilibrium(game, (uint64_t)round, x, &regret), DM_OK);
                longest = fmax(longest, dm_seconds() - start);
                worst = fmax(worst, regret_by_definition(game, x));
                assert_true(worst <= 1e-8);
                dm_game_free(game);
            }
        }
    }
    print_message("%d games, largest regret %.2g, longest %.3f s\n", games, worst, longest);
}

/* Payoffs moved and stretched by any amount give the same relative regret, and the absolute one in their units. */
static void units_do_not_matter(void **state) {
    (void)state;
    static const double units[][2] = {{1e-200, 0}, {1e250, 0}, {1e-6, 1e6}, {3e7, -1e9}};
    for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
        dm_random random;
        dm_random_seed(&random, 5 + k);
        double payoffs[27 * 3];
        for (size_t i = 0; i < 27 * 3; i++) {
            payoffs[i] = units[k][1] + units[k][0] * (1.0 + dm_random_uniform(&random));
        }
        dm_game *game;
        assert_int_equal(dm_game_create(3, (const int32_t[]){3, 3, 3}, payoffs, &game), DM_OK);
        dm_nash_result result = solve(game, DM_NASH_ONE);
        assert_true(result.max_regret <= 1e-9 && result.max_absolute_regret <= 1e-9 * units[k][0]);
        dm_nash_result_free(&result);
        dm_game_free(game);
    }
}

/* The mixture over `own` strategies of the player `mixer` at which all in `other` of the opponent earn the same, by Cramer's
 * equations in doubles; false where there is none that is positive. Supports are bit sets of the same size. */
static bool equalise(const dm_game *game, int32_t mixer, unsigned own, unsigned other, double *x) {
    int32_t mine[4], theirs[4], n = 0, k = 0;
    for (int32_t s = 0; s < 4; s++) {
        mine[n] = s;
        n += own >> s & 1;
    }
    for (int32_t s = 0; s < 4; s++) {
        theirs[k] = s;
        k += other >> s & 1;
    }
    double a[25] = {0}, b[5] = {0};
    size_t d = (size_t)n + 1; /* probabilities, and what the opponent earns */
    for (int32_t r = 0; r < n; r++) {
        for (int32_t c = 0; c < n; c++) {
            const int32_t profile[2] = {mixer == 0 ? mine[c] : theirs[r], mixer == 0 ? theirs[r] : mine[c]};
            a[(size_t)r * d + (size_t)c] = dm_game_payoff(game, profile, 1 - mixer);
        }
        a[(size_t)r * d + (size_t)n] = -1.0;
        a[(size_t)n * d + (size_t)r] = 1.0;
    }
    b[n] = 1.0;
    if (!dm_linear_solve(a, b, d)) {
        return false;
    }
    for (int32_t c = 0; c < n; c++) {
        x[mine[c]] = b[c];
        if (b[c] <= 0.0) {
            return false;
        }
    }
    return true;
}

/* Of a game without degeneracy: every pair of supports of the same size has one equilibrium or none. */
static size_t count_by_supports(const dm_game *game) {
    size_t count = 0;
    unsigned first = 1u << dm_game_strategies(game, 0), second = 1u << dm_game_strategies(game, 1);
    for (unsigned s = 1; s < first; s++) {
        for (unsigned t = 1; t < second; t++) {
            double x[8] = {0};
            if (__builtin_popcount(s) == __builtin_popcount(t) && equalise(game, 0, s, t, x) &&
                equalise(game, 1, t, s, x + dm_game_strategies(game, 0)) && regret_by_definition(game, x) < 1e-9) {
                count++;
            }
        }
    }
    return count;
}

static void none_is_missing(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 21);
    for (int round = 0; round < (DM_SLOW ? 5 : 100); round++) {
        int32_t strategies[2] = {4, 4};
        if (round % 2 == 0) {
            random_shape(&random, 2, strategies);
        }
        dm_game *game = random_game(&random, UNIFORM, 2, strategies);
        dm_nash_result all = solve(game, DM_NASH_ALL);
        assert_int_equal(all.count, count_by_supports(game));
        dm_nash_result_free(&all);
        dm_game_free(game);
    }
}

/* Of games for two players: all that are listed are equilibria, the pure ones among them are those of the direct search, and what
 * the two other solvers find is in the listed set. */
static void all_equilibria_of_games_for_two(void **state) {
    (void)state;
    int rounds = DM_SLOW ? 2 : 40;
    dm_random random;
    dm_random_seed(&random, 12);
    size_t listed = 0;
    for (int32_t what = 0; what < KINDS; what++) {
        for (int round = 0; round < rounds; round++) {
            int32_t strategies[2];
            random_shape(&random, 2, strategies);
            dm_game *game = random_game(&random, (kind)what, 2, strategies);
            dm_nash_result all = solve(game, DM_NASH_ALL), pure = solve(game, DM_NASH_PURE), one = solve(game, DM_NASH_ONE);
            size_t n_pure = 0;
            for (size_t i = 0; i < all.count; i++) {
                assert_true(regret_by_definition(game, all.equilibria[i].probabilities) < 1e-12);
                n_pure += all.equilibria[i].pure;
            }
            assert_int_equal(n_pure, pure.count); /* a pure equilibrium is always extreme */
            for (size_t i = 0; i < pure.count; i++) {
                assert_true(lists(game, &all, pure.equilibria[i].probabilities));
            }
            assert_true(lists(game, &all, one.equilibria[0].probabilities)); /* complementary pivoting ends at vertices */
            assert_true(what != UNIFORM || all.count % 2 == 1);              /* generic games have an odd number */
            listed += all.count;
            dm_nash_result_free(&all);
            dm_nash_result_free(&pure);
            dm_nash_result_free(&one);
            dm_game_free(game);
        }
    }
    print_message("%d games, %zu extreme equilibria\n", rounds * KINDS, listed);
}

/* 2^n - 1 equilibria of the n x n game in which both want to meet. */
static void coordination_has_them_all(void **state) {
    (void)state;
    enum { N = 7 };
    double payoffs[N * N * 2] = {0};
    for (size_t i = 0; i < N; i++) {
        payoffs[2 * (i * N + i)] = payoffs[2 * (i * N + i) + 1] = 1.0;
    }
    dm_game *game;
    assert_int_equal(dm_game_create(2, (const int32_t[]){N, N}, payoffs, &game), DM_OK);
    dm_nash_result result = solve(game, DM_NASH_ALL);
    assert_int_equal(result.count, (1 << N) - 1);
    assert_int_equal(result.equilibria[result.count - 1].component, (1 << N) - 2);
    dm_nash_result_free(&result);
    dm_game_free(game);
}

static void the_same_seed_finds_the_same(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 13);
    dm_game *game = random_game(&random, UNIFORM, 3, (const int32_t[]){4, 4, 4});
    double first[12], second[12], regret;
    assert_int_equal(dm_logit_equilibrium(game, 9, first, &regret), DM_OK);
    assert_int_equal(dm_logit_equilibrium(game, 9, second, &regret), DM_OK);
    assert_memory_equal(first, second, sizeof first);
    dm_game_free(game);
}

/* Long lists are cut, and counted in full. */
static void long_lists_are_counted(void **state) {
    (void)state;
    const int32_t strategies[1] = {1 << 12};
    double *payoffs = calloc(1 << 12, sizeof *payoffs);
    dm_game *game;
    assert_int_equal(dm_game_create(1, strategies, payoffs, &game), DM_OK);
    dm_nash_result result = solve(game, DM_NASH_AUTO);
    assert_true(result.found == 1 << 12 && result.count == 1 << 10 && result.max_regret == 0.0);
    dm_nash_result_free(&result);
    dm_game_free(game);
    free(payoffs);
}

static void solving_can_be_interrupted(void **state) {
    (void)state;
    dm_game *game = parse("NFG 1 R \"\" { \"\" \"\" } { 2 2 } 1 -1 -1 1 -1 1 1 -1");
    dm_nash_result result;
    dm_interrupt();
    for (int method = DM_NASH_AUTO; method <= DM_NASH_ONE; method++) {
        assert_int_equal(dm_nash_solve(game, &(dm_nash_options){.method = (dm_nash_method)method}, &result), DM_ERR_INTERRUPTED);
        assert_null(result.equilibria);
    }
    double x[4], regret;
    assert_int_equal(dm_logit_equilibrium(game, 0, x, &regret), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
    dm_game_free(game);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_layouts_are_one_game),
        cmocka_unit_test(numbers_of_every_form),
        cmocka_unit_test(the_null_outcome_pays_nothing),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(payoffs_from_memory_are_checked),
        cmocka_unit_test(textbook_games_for_two),
        cmocka_unit_test(degenerate_games_for_two),
        cmocka_unit_test(ties_are_exact),
        cmocka_unit_test(small_differences_of_large_payoffs),
        cmocka_unit_test(games_for_three),
        cmocka_unit_test(a_jury),
        cmocka_unit_test(one_equilibrium_of_any_game),
        cmocka_unit_test(units_do_not_matter),
        cmocka_unit_test(all_equilibria_of_games_for_two),
        cmocka_unit_test(none_is_missing),
        cmocka_unit_test(coordination_has_them_all),
        cmocka_unit_test(the_same_seed_finds_the_same),
        cmocka_unit_test(long_lists_are_counted),
        cmocka_unit_test(solving_can_be_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
