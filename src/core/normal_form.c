#include "core/normal_form.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

/* ---- Exact payoffs ---- */

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void reduce(dm_exact *exact) {
    uint64_t size = exact->numerator < 0 ? 0 - (uint64_t)exact->numerator : (uint64_t)exact->numerator;
    int64_t shared = (int64_t)common_divisor(size, (uint64_t)exact->denominator);
    exact->numerator /= shared;
    exact->denominator /= shared;
}

/* Takes as much of base^*power as fits into the fraction. */
static void fold(dm_exact *exact, int32_t *power, int64_t base) {
    while (*power != 0) {
        int64_t *grows = *power > 0 ? &exact->numerator : &exact->denominator;
        int64_t *shrinks = *power > 0 ? &exact->denominator : &exact->numerator;
        int64_t step = (int64_t)common_divisor((uint64_t)base, (uint64_t)llabs(*shrinks % base));
        int64_t grown;
        if (__builtin_mul_overflow(*grows, base / step, &grown)) {
            return;
        }
        *grows = grown;
        *shrinks /= step;
        *power += *power > 0 ? -1 : 1;
    }
}

bool dm_exact_value(dm_exact *exact, double *value) {
    if (exact->numerator == 0) {
        *exact = (dm_exact){0, 1, 0, 0};
        *value = 0.0;
        return true;
    }
    reduce(exact);
    fold(exact, &exact->two, 2);
    fold(exact, &exact->ten, 10);
    *value = (double)exact->numerator / (double)exact->denominator;
    if (exact->ten != 0 || exact->two != 0) {
        long double scaled = (long double)*value * powl(10.0L, (long double)exact->ten);
        *value = (double)ldexpl(scaled, exact->two);
    }
    return fabs(*value) >= 1e-300 && fabs(*value) <= 1e300;
}

static bool exact_from_double(double value, dm_exact *exact) {
    int exponent;
    double mantissa = frexp(value, &exponent);
    double kept;
    *exact = (dm_exact){(int64_t)ldexp(mantissa, 53), 1, 0, exponent - 53};
    return isfinite(value) && dm_exact_value(exact, &kept);
}

/* ---- Making and freeing ---- */

static dm_status check_shape(int32_t players, const int32_t *strategies, size_t *profiles, size_t *total) {
    if (players < 1 || players > DM_GAME_MAX_PLAYERS) {
        return dm_fail(DM_ERR_UNSUPPORTED, "a game has 1 to %d players, not %d", DM_GAME_MAX_PLAYERS, (int)players);
    }
    size_t entries = (size_t)players;
    *total = 0;
    for (int32_t i = 0; i < players; i++) {
        if (strategies[i] < 1) {
            return dm_fail(DM_ERR_ARGUMENT, "player %d has no strategy", (int)i + 1);
        }
        if (!dm_mul_size(entries, (size_t)strategies[i], &entries) || entries > DM_GAME_MAX_PAYOFFS) {
            return dm_fail(DM_ERR_UNSUPPORTED, "the game has more than %d payoffs (players times combinations of strategies)",
                           DM_GAME_MAX_PAYOFFS);
        }
        *total += (size_t)strategies[i];
    }
    *profiles = entries / (size_t)players;
    return DM_OK;
}

static dm_status allocate_tables(dm_game *game, const int32_t *strategies) {
    size_t players = (size_t)game->players, entries = game->profiles * players;
    bool exact = players == 2 && game->total <= DM_GAME_MAX_EXACT;
    game->strategies = dm_alloc(players, sizeof *game->strategies);
    game->first = dm_alloc(players + 1, sizeof *game->first);
    game->payoffs = dm_alloc(entries, sizeof *game->payoffs);
    game->scaled = dm_alloc(entries, sizeof *game->scaled);
    game->least = dm_alloc(players, sizeof *game->least);
    game->range = dm_alloc(players, sizeof *game->range);
    game->exact = exact ? dm_alloc(entries, sizeof *game->exact) : NULL;
    if (game->strategies == NULL || game->first == NULL || game->payoffs == NULL || game->scaled == NULL || game->least == NULL ||
        game->range == NULL || (exact && game->exact == NULL)) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < players; i++) {
        game->strategies[i] = strategies[i];
        game->first[i + 1] = game->first[i] + (size_t)strategies[i];
    }
    return DM_OK;
}

dm_status dm_game_allocate(int32_t players, const int32_t *strategies, dm_game **out) {
    *out = NULL;
    size_t profiles = 0, total = 0;
    DM_TRY(check_shape(players, strategies, &profiles, &total));
    dm_game *game = dm_alloc(1, sizeof *game);
    if (game == NULL) {
        return DM_ERR_MEMORY;
    }
    game->players = players;
    game->profiles = profiles;
    game->total = total;
    dm_status status = allocate_tables(game, strategies);
    if (status != DM_OK) {
        dm_game_free(game);
        return status;
    }
    *out = game;
    return DM_OK;
}

dm_status dm_game_create(int32_t players, const int32_t *strategies, const double *payoffs, dm_game **out) {
    DM_TRY(dm_game_allocate(players, strategies, out));
    dm_game *game = *out;
    size_t entries = game->profiles * (size_t)players;
    for (size_t k = 0; k < entries; k++) {
        dm_exact exact;
        if (!exact_from_double(payoffs[k], &exact)) {
            dm_game_free(game);
            *out = NULL;
            return dm_fail(DM_ERR_ARGUMENT, "payoff number %zu is %g; payoffs are 0 or of magnitude 1e-300 to 1e300", k + 1,
                           payoffs[k]);
        }
        game->payoffs[k] = payoffs[k];
        if (game->exact != NULL) {
            game->exact[k] = exact;
        }
    }
    dm_game_scale(game);
    return DM_OK;
}

static void free_names(char **names, size_t n) {
    for (size_t i = 0; names != NULL && i < n; i++) {
        free(names[i]);
    }
    dm_free((void *)names);
}

void dm_game_free(dm_game *game) {
    if (game == NULL) {
        return;
    }
    free_names(game->player_names, (size_t)game->players);
    free_names(game->strategy_names, game->total);
    free(game->title);
    dm_free(game->strategies);
    dm_free(game->first);
    dm_free(game->payoffs);
    dm_free(game->scaled);
    dm_free(game->least);
    dm_free(game->range);
    dm_free(game->exact);
    dm_free(game);
}

/* ---- What is in a game ---- */

void dm_game_next_profile(const dm_game *game, int32_t *digits) {
    for (int32_t i = 0; i < game->players; i++) {
        if (++digits[i] < game->strategies[i]) {
            return;
        }
        digits[i] = 0;
    }
}

const char *dm_game_title(const dm_game *game) {
    return game->title != NULL ? game->title : "";
}

int32_t dm_game_players(const dm_game *game) {
    return game->players;
}

int32_t dm_game_strategies(const dm_game *game, int32_t player) {
    return player >= 0 && player < game->players ? game->strategies[player] : 0;
}

const char *dm_game_player_name(const dm_game *game, int32_t player) {
    bool named = game->player_names != NULL && player >= 0 && player < game->players;
    return named ? game->player_names[player] : "";
}

const char *dm_game_strategy_name(const dm_game *game, int32_t player, int32_t strategy) {
    bool named = game->strategy_names != NULL && strategy >= 0 && strategy < dm_game_strategies(game, player);
    return named ? game->strategy_names[game->first[player] + (size_t)strategy] : "";
}

double dm_game_payoff(const dm_game *game, const int32_t *profile, int32_t player) {
    size_t at = 0, stride = 1;
    for (int32_t i = 0; i < game->players; i++) {
        if (profile[i] < 0 || profile[i] >= game->strategies[i]) {
            return NAN;
        }
        at += stride * (size_t)profile[i];
        stride *= (size_t)game->strategies[i];
    }
    return player >= 0 && player < game->players ? game->payoffs[at * (size_t)game->players + (size_t)player] : NAN;
}
