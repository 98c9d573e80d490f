/* Each player's payoffs brought to 0 .. 1. */
#include <math.h>

#include "core/exact_payoffs.h"
#include "core/normal_form.h"

static void scale_rounded(dm_game *game, size_t player) {
    size_t players = (size_t)game->players;
    double least = game->payoffs[player], most = least;
    for (size_t p = 1; p < game->profiles; p++) {
        least = fmin(least, game->payoffs[p * players + player]);
        most = fmax(most, game->payoffs[p * players + player]);
    }
    game->least[player] = least;
    game->range[player] = most - least;
    for (size_t p = 0; p < game->profiles && most > least; p++) {
        game->scaled[p * players + player] = (game->payoffs[p * players + player] - least) / (most - least);
    }
}

/* The same from exact payoffs: small differences of large payoffs keep their digits. */
static void scale_exact(dm_game *game, size_t player) {
    dm_wholes wholes;
    if (dm_wholes_create(game, (int32_t)player, &wholes) == DM_OK) {
        uint64_t one_limb;
        dm_big one = {&one_limb, 0, 0}, *most = &wholes.values[0];
        dm_big_set(&one, 1);
        for (size_t p = 0; p < game->profiles; p++) {
            dm_big_subtract(&wholes.values[p], &one);
            most = dm_big_compare(&wholes.values[p], most) > 0 ? &wholes.values[p] : most;
        }
        for (size_t p = 0; p < game->profiles && most->sign > 0; p++) {
            game->scaled[p * 2 + player] = dm_big_ratio(&wholes.values[p], most);
        }
    }
    dm_wholes_free(&wholes);
}

void dm_game_scale(dm_game *game) {
    for (size_t i = 0; i < (size_t)game->players; i++) {
        scale_rounded(game, i);
        if (game->exact != NULL) {
            scale_exact(game, i);
        }
    }
}
