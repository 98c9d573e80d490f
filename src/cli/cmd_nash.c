/* dilmodeli nash: equilibria of a game in strategic form. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* ---- JSON ---- */

static json_t *json_players(const dm_game *game) {
    json_t *players = json_array();
    for (int32_t i = 0; i < dm_game_players(game); i++) {
        json_t *strategies = json_array();
        for (int32_t s = 0; s < dm_game_strategies(game, i); s++) {
            const char *name = dm_game_strategy_name(game, i, s);
            json_array_append_new(strategies, cli_json_text(name, strlen(name)));
        }
        const char *name = dm_game_player_name(game, i);
        json_array_append_new(players,
                              json_pack("{s:o, s:o}", "name", cli_json_text(name, strlen(name)), "strategies", strategies));
    }
    return players;
}

static json_t *json_reals(const double *values, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++) {
        json_array_append_new(list, json_real(values[i]));
    }
    return list;
}

static json_t *json_equilibrium(const dm_game *game, const dm_nash_result *result, const dm_equilibrium *at) {
    json_t *probabilities = json_array();
    const double *x = at->probabilities;
    for (int32_t i = 0; i < dm_game_players(game); i++) {
        json_array_append_new(probabilities, json_reals(x, dm_game_strategies(game, i)));
        x += dm_game_strategies(game, i);
    }
    json_t *object = json_pack("{s:o, s:o, s:f, s:f, s:b}", "probabilities", probabilities, "payoffs",
                               json_reals(at->payoffs, dm_game_players(game)), "regret", at->regret, "absolute_regret",
                               at->absolute_regret, "pure", (int)at->pure);
    if (result->method == DM_NASH_ALL) {
        json_object_set_new(object, "component", json_integer(at->component + 1));
    }
    return object;
}

static const char *method_name(dm_nash_method method) {
    return method == DM_NASH_ALL ? "all" : method == DM_NASH_PURE ? "pure" : "one";
}

static void print_json(const dm_game *game, const dm_nash_result *result) {
    json_t *equilibria = json_array();
    for (size_t i = 0; i < result->count; i++) {
        json_array_append_new(equilibria, json_equilibrium(game, result, &result->equilibria[i]));
    }
    const char *title = dm_game_title(game);
    cli_print_json(json_pack("{s:o, s:o, s:s, s:I, s:o, s:f, s:f}", "title", cli_json_text(title, strlen(title)), "players",
                             json_players(game), "method", method_name(result->method), "found", (json_int_t)result->found,
                             "equilibria", equilibria, "max_regret", result->max_regret, "max_absolute_regret",
                             result->max_absolute_regret));
}

/* ---- Text ---- */

/* A name of the file, which must not reach the terminal's controls; without one, its number. */
static void print_name(const char *name, const char *kind, int32_t number) {
    if (*name == '\0') {
        printf("%s%" PRId32, kind, number + 1);
    }
    for (; *name != '\0'; name++) {
        putchar((unsigned char)*name < ' ' || *name == 127 ? '?' : *name);
    }
}

static void print_mixture(const dm_game *game, int32_t player, const double *x) {
    bool first = true;
    for (int32_t s = 0; s < dm_game_strategies(game, player); s++) {
        if (x[s] > 0.0) {
            printf("%s", first ? "" : ", ");
            print_name(dm_game_strategy_name(game, player, s), "", s);
            if (x[s] < 1.0) {
                printf(" (%.6g)", x[s]);
            }
            first = false;
        }
    }
}

static void print_equilibrium(const dm_game *game, const dm_nash_result *result, size_t number) {
    const dm_equilibrium *at = &result->equilibria[number];
    printf("\n%zu  %s", number + 1, at->pure ? "pure" : "mixed");
    if (result->method == DM_NASH_ALL) {
        printf(", component %" PRId32, at->component + 1);
    }
    printf(", regret %.2g\n", at->regret);
    const double *x = at->probabilities;
    for (int32_t i = 0; i < dm_game_players(game); i++) {
        printf("   ");
        print_name(dm_game_player_name(game, i), "player ", i);
        printf(" gets %.6g: ", at->payoffs[i]);
        print_mixture(game, i, x);
        printf("\n");
        x += dm_game_strategies(game, i);
    }
}

static void print_text(const dm_game *game, const dm_nash_result *result) {
    static const char *const what[] = {[DM_NASH_PURE] = "all pure equilibria",
                                       [DM_NASH_ALL] = "all extreme equilibria",
                                       [DM_NASH_ONE] = "one equilibrium of perhaps more"};
    if (*dm_game_title(game) != '\0') {
        print_name(dm_game_title(game), "", 0);
        printf("\n");
    }
    printf("%s: %" PRIu64 "\n", what[result->method], result->found);
    for (size_t i = 0; i < result->count; i++) {
        print_equilibrium(game, result, i);
    }
    if (result->found > result->count) {
        printf("\nthe first %zu are listed\n", result->count);
    }
    if (result->count > 0) {
        printf("\nlargest regret %.2g of the range of payoffs, %.2g in their units\n", result->max_regret,
               result->max_absolute_regret);
    }
}

/* ---- The command ---- */

static dm_status read_game(const char *path, dm_game **game, bool *told) {
    if (strcmp(path, "-") != 0) {
        return dm_game_open(path, game);
    }
    size_t length;
    char *text = cli_read_text(path, &length);
    *told = text == NULL;
    dm_status status = text != NULL ? dm_game_parse(text, length, game) : DM_ERR_IO;
    free(text);
    return status;
}

static int solve(const dm_game *game, const dm_nash_options *options) {
    dm_nash_result result;
    if (dm_nash_solve(game, options, &result) != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        print_json(game, &result);
    } else {
        print_text(game, &result);
    }
    dm_nash_result_free(&result);
    return CLI_DONE;
}

int cmd_nash(int argc, char **argv) {
    bool pure = false, all = false, one = false, told = false;
    int64_t seed = 0;
    const cli_option options[] = {
        {"pure", 0, CLI_FLAG, &pure, NULL, "all pure equilibria, of any game"},
        {"all", 0, CLI_FLAG, &all, NULL, "all equilibria, of a small game for two players; exact"},
        {"one", 0, CLI_FLAG, &one, NULL, "one equilibrium, of any game"},
        {"seed", 0, CLI_INT, &seed, "N", "where --one starts to look; the same seed finds the same"},
    };
    const cli_usage usage = {
        .synopsis = "dilmodeli nash GAME.nfg [--pure | --all | --one] [options]",
        .summary =
            "Finds Nash equilibria of a game in strategic form: a file in Gambit's .nfg format, with payoffs or with outcomes,\n"
            "or \"-\" for standard input. Without --pure, --all or --one: all equilibria where --all can; else all pure ones, "
            "or\n"
            "where there are none, a mixed one.\n\n"
            "Of a degenerate game, which may have infinitely many equilibria, --all lists the extreme ones: every other is a\n"
            "mixture of extreme ones of the same component.\n\n"
            "The regret of an equilibrium is what a player could still gain by another strategy, as a share of the difference\n"
            "between that player's largest and smallest payoff: the largest over players.",
        .example = "  dilmodeli nash game.nfg\n"
                   "  echo 'NFG 1 R \"pennies\" { \"A\" \"B\" } { 2 2 } 1 -1 -1 1 -1 1 1 -1' | dilmodeli nash - --one --json",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if (pure + all + one > 1) {
        return cli_usage_error("nash takes one of --pure, --all and --one");
    }
    dm_game *game;
    if (read_game(argv[0], &game, &told) != DM_OK) {
        return told ? CLI_FAILED : cli_fail_status();
    }
    dm_nash_method method = pure ? DM_NASH_PURE : all ? DM_NASH_ALL : one ? DM_NASH_ONE : DM_NASH_AUTO;
    status = solve(game, &(dm_nash_options){.method = method, .seed = (uint64_t)seed});
    dm_game_free(game);
    return status;
}
