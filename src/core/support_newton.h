/*
 * The last digits of an equilibrium. On guessed supports (the strategies that are played at all) an equilibrium solves a square
 * system of polynomials: all strategies of a support earn the same, and probabilities add up to 1.
 */
#ifndef DM_CORE_SUPPORT_NEWTON_H
#define DM_CORE_SUPPORT_NEWTON_H

#include "core/normal_form.h"

/* Moves x [total], which plays about like an equilibrium, onto one whose supports are the strategies with a probability above
 * one of several thresholds. True where the result's regret, computed directly, is at most `tolerance`; else x is as it was. */
dm_status dm_support_newton(const dm_game *game, double *x, double tolerance, bool *found);

#endif
