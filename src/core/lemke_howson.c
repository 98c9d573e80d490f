#include "core/equilibria.h"
#include "core/exact_tableau.h"

/* From the origin, a variable enters in one polytope; the label that this gives up twice enters in the other, until the label
 * that was missing comes. */
static dm_status walk(dm_tableau pair[2], uint8_t missing) {
    int side = missing < pair[0].k ? 0 : 1; /* the polytope of the player whose strategy it is */
    for (uint8_t label = missing;; side = 1 - side) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted looking for an equilibrium");
        }
        dm_tableau *t = &pair[side];
        size_t entering = t->variable[label];
        size_t row = dm_tableau_leaving(t, entering);
        label = t->labels[t->basis[row]];
        dm_tableau_pivot(t, row, entering);
        if (label == missing) {
            return DM_OK;
        }
    }
}

dm_status dm_lemke_howson(uint64_t seed, dm_equilibria *list) {
    const dm_game *game = list->game;
    dm_tableau pair[2] = {{0}, {0}};
    double x[DM_GAME_MAX_EXACT];
    dm_status status = dm_tableau_create(game, 0, &pair[0]);
    if (status == DM_OK) {
        status = dm_tableau_create(game, 1, &pair[1]);
    }
    if (status == DM_OK) {
        status = walk(pair, (uint8_t)(seed % game->total));
    }
    if (status == DM_OK) {
        dm_tableau_mixture(&pair[0], x);
        dm_tableau_mixture(&pair[1], x + pair[0].k);
        status = dm_equilibria_add(list, x, 0);
    }
    dm_tableau_free(&pair[0]);
    dm_tableau_free(&pair[1]);
    return status;
}
