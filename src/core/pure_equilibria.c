/* Pure equilibria: profiles at which nobody earns more by another strategy. */
#include <string.h>

#include "base/memory.h"
#include "core/equilibria.h"

/* Whether the player earns more at profile p than at q. Both tables round the payoffs, each in another place. */
static bool earns_more(const dm_game *game, size_t player, size_t p, size_t q) {
    size_t players = (size_t)game->players, a = p * players + player, b = q * players + player;
    return game->payoffs[a] > game->payoffs[b] || (game->payoffs[a] == game->payoffs[b] && game->scaled[a] > game->scaled[b]);
}

/* Marks the profiles of one line, in which `player` alone changes, that are not the player's best. */
static void refute_line(const dm_game *game, size_t base, size_t player, size_t stride, uint8_t *refuted) {
    size_t count = (size_t)game->strategies[player], best = base;
    for (size_t s = 1; s < count; s++) {
        best = earns_more(game, player, base + s * stride, best) ? base + s * stride : best;
    }
    for (size_t s = 0; s < count; s++) {
        refuted[base + s * stride] |= earns_more(game, player, best, base + s * stride);
    }
}

static dm_status refute(const dm_game *game, uint8_t *refuted) {
    size_t stride = 1;
    for (size_t i = 0; i < (size_t)game->players; i++) {
        size_t count = (size_t)game->strategies[i];
        for (size_t high = 0; high < game->profiles && count > 1; high += stride * count) {
            if (dm_interrupted()) {
                return dm_fail(DM_ERR_INTERRUPTED, "interrupted looking for pure equilibria");
            }
            for (size_t low = 0; low < stride; low++) {
                refute_line(game, high + low, i, stride, refuted);
            }
        }
        stride *= count;
    }
    return DM_OK;
}

static dm_status add_profile(dm_equilibria *list, size_t profile, double *x) {
    const dm_game *game = list->game;
    if (dm_equilibria_full(list)) {
        list->found++;
        return DM_OK;
    }
    memset(x, 0, game->total * sizeof *x);
    for (size_t i = 0; i < (size_t)game->players; i++) {
        x[game->first[i] + profile % (size_t)game->strategies[i]] = 1.0;
        profile /= (size_t)game->strategies[i];
    }
    return dm_equilibria_add(list, x, 0);
}

dm_status dm_pure_equilibria(uint64_t most, dm_equilibria *list) {
    const dm_game *game = list->game;
    double *x = dm_alloc(game->total, sizeof *x);
    uint8_t *refuted = dm_alloc(game->profiles, 1);
    dm_status status = x != NULL && refuted != NULL ? refute(game, refuted) : DM_ERR_MEMORY;
    for (size_t p = 0; status == DM_OK && p < game->profiles && list->found < most; p++) {
        if (!refuted[p]) {
            status = add_profile(list, p, x);
        }
    }
    dm_free(x);
    dm_free(refuted);
    return status;
}
