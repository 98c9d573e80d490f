/* Lists of equilibria, and the solvers that fill them (see dm_nash_solve() in dilmodeli.h). */
#ifndef DM_CORE_EQUILIBRIA_H
#define DM_CORE_EQUILIBRIA_H

#include "core/normal_form.h"

enum { DM_EQUILIBRIA_MAX_NUMBERS = 1 << 22 /* probabilities that a list holds at most */ };

typedef struct dm_equilibria {
    const dm_game *game;
    double *x;           /* [count, total] */
    int32_t *components; /* [count] */
    size_t count, x_room, components_room;
    uint64_t found; /* at least count */
} dm_equilibria;

/* Start from {.game = game}. Adds an equilibrium x [total], or only counts it where the list is full. */
dm_status dm_equilibria_add(dm_equilibria *list, const double *x, int32_t component);
/* Whether further ones are only counted. */
bool dm_equilibria_full(const dm_equilibria *list);
void dm_equilibria_free(dm_equilibria *list);

/* All pure equilibria, or up to `most` of them, by looking at every profile. Payoffs are compared as they
 * are: equal numbers are ties. */
dm_status dm_pure_equilibria(uint64_t most, dm_equilibria *list);

/* All extreme equilibria of a game for two players that has exact payoffs, in lexicographic order, and which of them hang
 * together: all pairs of vertices of the best response polytopes whose labels are complete (Mangasarian 1964; Avis, Rosenberg,
 * Savani and von Stengel 2010). The set of all equilibria is made of products of convex hulls of them. DM_ERR_UNSUPPORTED where a
 * polytope has more vertices than memory and time are given for. */
dm_status dm_extreme_equilibria(dm_equilibria *list);

/* One equilibrium of such a game by complementary pivoting (Lemke and Howson 1964), starting without strategy number
 * seed % total; ends for every game, as ties are broken lexicographically. */
dm_status dm_lemke_howson(uint64_t seed, dm_equilibria *list);

#endif
