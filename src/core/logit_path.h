/*
 * One equilibrium of any game, by following the path of quantal responses (McKelvey and Palfrey 1995; as an algorithm Turocy
 * 2005).
 *
 * Take a prior q: a mixture for each player with every probability above 0. For a precision L >= 0 the responses to a profile x
 * are proportional to q_a * exp(L * u_a(x)), u in units of each player's range of payoffs. At L = 0 the only fixed point is q; at
 * a fixed point for L no player's regret is above log(1 / least q) / L, so far out on the path is an equilibrium to any
 * precision. The derivative of the fixed point's equations by log q is the identity, hence for almost every q, and for EVERY
 * game, degenerate or not, the fixed points form smooth curves (Chow, Mallet-Paret and Yorke 1978), and the one that starts at q
 * goes on to L without end. Priors are drawn at random; should rounding lose a path, the next is tried.
 */
#ifndef DM_CORE_LOGIT_PATH_H
#define DM_CORE_LOGIT_PATH_H

#include "core/normal_form.h"

enum { DM_LOGIT_MAX_STRATEGIES = 1024 /* of all players: the equations are a dense matrix */ };

/* x [total] receives the profile with the least regret that was found; *regret is that, computed directly. It ends at the first
 * that is an equilibrium but for rounding. The same seed gives the same profile. Fails for 1 player, for more than
 * DM_MIXED_MAX_PLAYERS or DM_LOGIT_MAX_STRATEGIES, without memory, and when interrupted. */
dm_status dm_logit_equilibrium(const dm_game *game, uint64_t seed, double *x, double *regret);

#endif
