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
    int32_t keep_top;    /* 0 to min_experts */
    int32_t sweeps;      /* most; 0: each token answers once to the prices that everybody's best by affinity make */
    double beta, gamma;  /* of crowding and of fetching, 0 or more */
    double theta;        /* with min_experts below top_k; in (0, 1] */
} dm_nash_rules;

/* The rules and room to play by them. */
typedef struct dm_nash_router dm_nash_router;

/* For up to `tokens` tokens in sight at a time. */
dm_status dm_nash_router_create(const dm_nash_rules *rules, size_t tokens, dm_nash_router **out);
void dm_nash_router_free(dm_nash_router *router);

/* The flocks of tokens begin .. end - 1, whose router logits are rows of [tokens, n_experts], `stride` apart: the best by
 * affinity, logit plus bias[n_experts] (NULL: 0). An expert whose bias is -INFINITY is off: nobody may choose it. Threads may
 * share the tokens. */
void dm_nash_router_flock(dm_nash_router *router, const float *logits, size_t stride, const float *bias, size_t begin,
                          size_t end);

/* The range of a token's finite affinities over all experts that are on; 0 where there is none. */
float dm_nash_router_range(const dm_nash_router *router, size_t token);
/* Token's flock [flock], best first; the next token's follows. */
const int32_t *dm_nash_router_candidates(const dm_nash_router *router, size_t token);
/* Token's best top_k by affinity, best first; fewer where fewer are on, then -1. */
void dm_nash_router_best(const dm_nash_router *router, size_t token, int32_t *experts);

/* What a game's costs depend on. */
typedef struct dm_nash_state {
    const float *tau;   /* [n_experts] seconds to fetch each expert; NULL: all the same */
    double tau_slowest; /* of an expert of the slowest tier; > 0 with tau */
    double spread;      /* range of affinities that gamma is a share of */
} dm_nash_state;

/* Tokens first .. first + n - 1, whose flocks are known, play one game. experts [n, top_k] receives their choices, best first
 * and -1 after the last. */
void dm_nash_router_play(dm_nash_router *router, size_t first, size_t n, const dm_nash_state *state, int32_t *experts,
                         dm_routing_game_result *result);

#endif
