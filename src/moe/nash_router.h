/*
 * The Nash policy of a router: each token looks at its flock, the experts of greatest affinity, and the routing game
 * (core/game.h) between the tokens of a step decides who uses which. What costs there are, and who plays with whom, is the
 * caller's to say.
 */
#ifndef DM_MOE_NASH_ROUTER_H
#define DM_MOE_NASH_ROUTER_H

#include "core/game.h"

typedef struct dm_nash_rules {
    int32_t n_experts;
    int32_t top_k;       /* most experts of a token */
    int32_t min_experts; /* fewest, 1 to top_k */
    int32_t flock;       /* top_k to n_experts */
    int32_t residents;   /* places of the flock that dm_nash_router_welcome() fills, 0 to flock - top_k; none with prices */
    int32_t keep_top;    /* 0 to min_experts */
    int32_t sweeps;      /* most; 0: each token answers once to the prices that everybody's best by affinity make */
    double beta, gamma;  /* of crowding, where two tokens or more play, and of fetching; 0 or more */
    double theta;        /* with min_experts below top_k; in (0, 1] */
    bool gates; /* payoffs are square roots of probabilities, as shares of the best one's, not affinities; without prices */
    const float *price; /* [n_experts] finite, of each expert whatever its load; the caller's, to outlive the router. NULL: 0 */
} dm_nash_rules;

/* How many experts a token looks at where nobody says: 7, as a starling does, or twice what it uses, as far as there are so many.
 */
int32_t dm_nash_usual_flock(int32_t top_k, int32_t n_experts);

/* The rules and room to play by them. */
typedef struct dm_nash_router dm_nash_router;

/* For up to `tokens` tokens in sight at a time. */
dm_status dm_nash_router_create(const dm_nash_rules *rules, size_t tokens, dm_nash_router **out);
void dm_nash_router_free(dm_nash_router *it);

/* The flocks of tokens begin .. end - 1, whose router logits are rows of [tokens, n_experts], `stride` apart: the best by
 * affinity, logit plus bias[n_experts] (NULL: 0), less the price; the keep_top best by affinity alone are always among them. An
 * expert whose bias is -INFINITY is off: nobody may choose it. With `gates` what the game then has as affinities are payoffs,
 * sqrt(p_e / p_best) for probabilities of all experts. Threads may share the tokens. */
void dm_nash_router_flock(dm_nash_router *it, const float *logits, size_t stride, const float *bias, size_t begin, size_t end);

/* The same for one token, of which only some experts may be known: n different ones (NULL: 0 to n - 1) and their affinities;
 * those without a finite one are passed over. `off` [n_experts] or NULL says who may not be chosen. */
void dm_nash_router_offer(dm_nash_router *it, size_t token, const int32_t *experts, const float *affinities, size_t n,
                          const bool *off);

/* What a game's costs depend on. */
typedef struct dm_nash_state {
    const float *tau;   /* [n_experts] seconds to fetch each expert; NULL: all the same */
    double tau_slowest; /* of an expert of the slowest tier; > 0 with tau */
    double spread;      /* range of payoffs that gamma is a share of */
} dm_nash_state;

/* Where fetching costs, a token looks beyond its best by affinity: the last `residents` places of the flocks of tokens begin ..
 * end - 1, which dm_nash_router_flock() has left, go to those of the other experts whose payoff, less what a token alone pays
 * for them, is greatest. With top_k of them no token that plays alone could do better with any other expert. logits, stride and
 * bias as there. */
void dm_nash_router_welcome(dm_nash_router *it, const float *logits, size_t stride, const float *bias, size_t begin, size_t end,
                            const dm_nash_state *state);

/* The range of a token's finite affinities (with `gates`, payoffs) over all experts that are on, and are known; 0 where there is
 * none. */
float dm_nash_router_range(const dm_nash_router *it, size_t token);
/* And over its flock. */
float dm_nash_router_flock_range(const dm_nash_router *it, size_t token);
/* The flock [flock] as the game has it, best affinity first: experts and, -INFINITY for those that are off, affinities. */
const int32_t *dm_nash_router_candidates(const dm_nash_router *it, size_t token);
const float *dm_nash_router_affinities(const dm_nash_router *it, size_t token);

/* Tokens first .. first + n - 1, whose flocks are known, play one game. experts [n, top_k] receives their choices, best first
 * and -1 after the last. */
void dm_nash_router_play(dm_nash_router *it, size_t first, size_t n, const dm_nash_state *state, int32_t *experts,
                         dm_routing_game_result *result);

/* The games from now on tell `on_sweep` (core/game.h); those of 0 sweeps, in which everybody answers once, tell nothing. */
void dm_nash_router_watch(dm_nash_router *it, dm_routing_game_sweep_fn on_sweep, void *user);

#endif
