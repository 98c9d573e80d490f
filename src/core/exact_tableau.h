/*
 * Best responses of one player of a two-player game as a polytope, and walking its vertices without rounding.
 *
 * One player mixes with weights z >= 0, k of them; the other has `rows` strategies with payoffs G[rows, k] > 0, moved so by a
 * constant, which changes no equilibrium. The polytope is G z + s = 1, z >= 0, s >= 0: a strategy with slack 0 is a best response
 * to z brought to sum 1. Variables are z, then s, each labelled by a strategy of one of the players: z by the mixer's own, s by
 * the other's. At a vertex at least k variables are 0; their labels are the vertex's. Two vertices, not both the origin, whose
 * labels are all strategies together are an equilibrium (von Stengel 2002, "Computing equilibria for two-person games").
 *
 * Entries are whole numbers over a common determinant (Edmonds 1967; Bareiss 1968); ties in the ratio test go to the
 * lexicographically least row, so degenerate games are walked as if their payoffs were moved by infinitely little.
 */
#ifndef DM_CORE_EXACT_TABLEAU_H
#define DM_CORE_EXACT_TABLEAU_H

#include "base/big.h"
#include "core/normal_form.h"

typedef struct dm_tableau {
    size_t rows, k, variables;           /* variables = k + rows; the column after them is the right side */
    dm_big *entries;                     /* [rows, variables + 1] */
    size_t basis[DM_GAME_MAX_EXACT];     /* [rows] variable of each row */
    uint64_t basic;                      /* bit v: variable v has a row */
    uint8_t labels[DM_GAME_MAX_EXACT];   /* [variables] strategy, the first player's first, of each variable */
    uint8_t variable[DM_GAME_MAX_EXACT]; /* the other way round */
    dm_big determinant, product, other;  /* what entries are over; room for products */
    dm_big_divisor divisor;
    uint64_t *limbs; /* of all of them */
} dm_tableau;

/* The polytope of the mixtures of `mixer` (0 or 1), at the origin. DM_ERR_UNSUPPORTED for payoffs that need more than 2048 bits
 * over a common denominator. The game has exact payoffs. Free also after a failure. */
dm_status dm_tableau_create(const dm_game *game, int32_t mixer, dm_tableau *out);
void dm_tableau_free(dm_tableau *tableau);

/* The row whose variable leaves when `entering`, which has no row, enters. */
size_t dm_tableau_leaving(dm_tableau *tableau, size_t entering);
/* Exchanges them. Doing it again with the variable that left goes back. */
void dm_tableau_pivot(dm_tableau *tableau, size_t row, size_t entering);

/* Bit l: a variable with label l is 0 here. A vertex has its own set, whatever basis stands for it. */
uint64_t dm_tableau_labels(const dm_tableau *tableau);
/* probabilities[k]: the vertex brought to sum 1; it is not the origin. */
void dm_tableau_mixture(dm_tableau *tableau, double *probabilities);

#endif
