/*
 * Games in .nfg. Input: a file. One that opens must be solved or refused, each pure equilibrium must have no regret, and of small
 * games for two players complementary pivoting must end at one of all equilibria.
 */
#include <math.h>

#include "core/normal_form.h"
#include "fuzz.h"

static void check_pure(const dm_game *game) {
    dm_nash_result pure;
    FUZZ_CHECK(dm_nash_solve(game, &(dm_nash_options){.method = DM_NASH_PURE}, &pure) == DM_OK);
    for (size_t i = 0; i < pure.count; i++) {
        FUZZ_CHECK(pure.equilibria[i].pure && pure.equilibria[i].regret == 0.0);
    }
    dm_nash_result_free(&pure);
}

/* The same vertex, but for the last place: the numbers that a mixture is a fraction of depend on the way to it. */
static bool same(const dm_game *game, const double *a, const double *b) {
    for (size_t i = 0; i < game->total; i++) {
        if (fabs(a[i] - b[i]) > 1e-14 * fabs(a[i])) {
            return false;
        }
    }
    return true;
}

static void check_exact(const dm_game *game) {
    dm_nash_result all, one;
    dm_status status = dm_nash_solve(game, &(dm_nash_options){.method = DM_NASH_ALL}, &all);
    FUZZ_CHECK(status == DM_OK || status == DM_ERR_UNSUPPORTED);
    if (status != DM_OK) {
        return;
    }
    FUZZ_CHECK(all.count > 0 && all.max_regret < 1e-9);
    FUZZ_CHECK(dm_nash_solve(game, &(dm_nash_options){.method = DM_NASH_ONE}, &one) == DM_OK);
    bool known = false;
    for (size_t i = 0; i < all.count && !known; i++) {
        known = same(game, all.equilibria[i].probabilities, one.equilibria[0].probabilities);
    }
    FUZZ_CHECK(known || all.found > all.count);
    dm_nash_result_free(&all);
    dm_nash_result_free(&one);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dm_game *game;
    if (dm_game_parse((const char *)data, size, &game) != DM_OK) {
        FUZZ_CHECK(strchr(dm_error_message(), '\n') == NULL);
        return 0;
    }
    if (game->profiles <= 1 << 12) {
        check_pure(game);
    }
    if (game->players == 2 && game->total <= 12) {
        check_exact(game);
    }
    dm_game_free(game);
    return 0;
}

/* ---- Seeds ---- */

static void fuzz_seeds(void) {
    static const char *const seeds[] = {
        "NFG 1 R \"title\" { \"A\" \"B\" } { 2 2 } 1 -1 -1 1 -1 1 1 -1",
        "NFG 1 D \"a \\\"title\\\"\" { \"A\" \"B\" }\n{ { \"x\" \"y\" } { \"z\" } }\n\"comment\"\n1/3 2.5e-3\n-.5 +7/3\n",
        "NFG 1 R \"\" { \"A\" \"B\" } { 3 2 } { { \"one\" 1, 1 } { \"\" 0 2 } } 1 2 2 1 0 2",
        "NFG 1 R \"\" { \"A\" \"B\" \"C\" } { 2 1 2 } 1 2 3 4 5 6 7 8 9 1 2 3",
        "NFG 1 R \"\" { \"A\" } { 3 } 1e300 1e-300 123456789012345678901234567890",
        "NFG 1 R \"\" { \"A\" \"B\" } { 3 3 } 0 0 1 -1 -1 1 -1 1 0 0 1 -1 1 -1 -1 1 0 0",
        "NFG 1 R \"\" { \"A\" \"B\" } { 9999 9999 } 1",
    };
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        char name[16];
        snprintf(name, sizeof name, "game-%zu", i);
        fuzz_seed(name, seeds[i], strlen(seeds[i]));
    }
}
