/* What experts cost at their present loads, and Rosenthal's sum over them. Part of the routing game (core/game.h). */
#ifndef DM_CORE_GAME_COSTS_H
#define DM_CORE_GAME_COSTS_H

#include "core/game.h"

/* Costs are computed when a load changes, not when a token looks. */
typedef struct dm_loads {
    const dm_routing_game *game;
    double crowding; /* beta / nbar */
    double *fetch;   /* [E] gamma * spread * tau / tau_disk */
    size_t *users;   /* [E] n_e */
    double *here;    /* [E] c_e(n_e): what each user pays; 0 without users */
    double *join;    /* [E] c_e(n_e + 1): what one more would pay; +INFINITY for experts that are off */
} dm_loads;

/* Nobody uses anything. `game` and the arrays, the caller's, are set before. */
void dm_loads_clear(dm_loads *loads);
/* Costs after users[] was counted by hand. */
void dm_loads_price(dm_loads *loads);
/* One user more, or fewer, of an expert. */
void dm_loads_join(dm_loads *loads, size_t expert);
void dm_loads_leave(dm_loads *loads, size_t expert);

/* sum_e sum_{j=1..n_e} c_e(j): O(E) for the closed forms, O(sum of loads) calls of any other. */
double dm_loads_rosenthal(const dm_loads *loads);

/* False where every c_e is constant. */
bool dm_costs_depend_on_loads(const dm_routing_game_costs *costs);

#endif
