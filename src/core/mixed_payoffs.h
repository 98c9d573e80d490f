/*
 * What mixed strategies earn. A mixed profile x [total] is each player's probabilities, one player's after the other's; N = total
 * below. Payoffs are the scaled ones, 0 .. 1 for each player.
 */
#ifndef DM_CORE_MIXED_PAYOFFS_H
#define DM_CORE_MIXED_PAYOFFS_H

#include "core/normal_form.h"

/* u[N]: what each strategy earns against the others' mixtures. */
void dm_deviation_payoffs(const dm_game *game, const double *x, double *u);

/* The same and how it changes: slopes[N, N] holds d u[a] / d x[b], 0 where a and b are the same player's. Needs 2 players or
 * more, and at most DM_MIXED_MAX_PLAYERS. */
enum { DM_MIXED_MAX_PLAYERS = 32 };
void dm_deviation_slopes(const dm_game *game, const double *x, double *u, double *slopes);

/* Regret of a mixed profile, over the range of each player's payoffs; u [N] receives what dm_deviation_payoffs() gives. */
double dm_mixed_regret(const dm_game *game, const double *x, double *u);

/* Regret and expected payoffs [players] in the game's own units, from u of the same profile. */
double dm_mixed_value(const dm_game *game, const double *x, const double *u, double *payoffs);

#endif
