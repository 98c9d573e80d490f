/*
 * The routing game: T tokens choose among E experts, each from a flock of g candidates, and what an expert costs depends on
 * how many tokens use it. A token's payoff is the sum over its experts e of a[i][e] - c_e(n_e): affinity less cost.
 *
 * It is a congestion game with player-specific constants, so it has Rosenthal's exact potential (Rosenthal 1973; Monderer and
 * Shapley 1996): Phi = sum of the chosen affinities - sum_e sum_{j=1..n_e} c_e(j). One token's change moves Phi by what that
 * token gains, for any c_e at all that depends on n_e alone. Each accepted change gains more than eps, so play stops, and
 * where it stops nobody gains more than eps by changing alone: a pure eps-equilibrium. Shared costs of fetching make it the
 * fair cost-sharing game of Anshelevich et al. 2004, whose worst equilibrium can cost T times the best; from the model's own
 * choice the potential bounds the end by the start.
 *
 * The best response of a token to all others is the top k of a - c_e(n_e without it, plus 1) over its flock: O(g). Of equal
 * payoffs the greater affinity is taken, of equal affinities the lower expert, as the model does; and a token that gains
 * nothing stays. Arithmetic is in double precision and in one fixed order: the same game gives the same result.
 */
#ifndef DM_CORE_GAME_H
#define DM_CORE_GAME_H

#include "base/status.h"

/* Any cost of expert `expert` for each of its `users` (1 or more) users. Must always answer the same; called by the thread
 * that plays, and no other. Beyond +-1e30 it counts as +-1e30, and NaN as 1e30. */
typedef double (*dm_routing_game_cost_fn)(void *user, size_t expert, size_t users);

/* c_e(n) is the sum of what is set; all zero: experts are free. */
typedef struct dm_routing_game_costs {
    double beta;                 /* crowding: beta * n / nbar, nbar = max_k * T / E */
    double gamma;                /* fetching: gamma * spread * (tau[e] / tau_disk) / n */
    double spread;               /* range of affinities that gamma is a share of */
    double tau_disk;             /* seconds; > 0 with tau */
    const float *tau;            /* [E] seconds to fetch each expert, 0 in cache; NULL: all 0 */
    const float *price;          /* [E] a price that does not depend on n, persisted from earlier games; or NULL */
    dm_routing_game_cost_fn any; /* or NULL */
    void *any_user;
} dm_routing_game_costs;

/* Told of each accepted change: the `count` experts that the token plays from now on, in no order, and what it gains. */
typedef void (*dm_routing_game_move_fn)(void *user, size_t token, const int32_t *experts, size_t count, double gain);

/* How far play has come. Looking costs as much as a sweep, so only those who ask are told. */
typedef struct dm_routing_game_sweep {
    size_t tokens;     /* T */
    size_t sweeps;     /* done; 0: the start */
    double potential;  /* Phi now */
    double max_regret; /* greatest gain of any token by changing alone now */
    size_t moves;      /* accepted changes so far */
} dm_routing_game_sweep;

typedef void (*dm_routing_game_sweep_fn)(void *user, const dm_routing_game_sweep *sweep);

typedef struct dm_routing_game {
    size_t tokens;             /* T */
    size_t experts;            /* E, 1 or more */
    size_t flock;              /* g, 1 to E */
    const float *affinities;   /* [T, g] of the candidates; -INFINITY and NaN are never chosen, +INFINITY counts as FLT_MAX */
    const int32_t *candidates; /* [T, g] experts, different ones in a row; NULL with g = E: candidate j is expert j */
    const bool *off;           /* [E] experts that nobody may choose, or NULL */
    size_t min_k, max_k;       /* experts of a token, 1 <= min_k <= max_k <= g; fewer only where fewer can be chosen */
    size_t keep_top;           /* a token's best by affinity are always among them, this many; 0 to min_k */
    double theta;              /* with min_k < max_k: payoffs count from ln(1/theta) below the token's best affinity; in (0, 1] */
    dm_routing_game_costs costs;
    double eps;         /* only gains above it are worth a change; the rounding of payoffs, some 1e-12, or more */
    size_t most_sweeps; /* 0: the start is only looked at */
    bool warm;          /* start from the strategies given; without, or where no cost depends on n, from the top max_k
                         * by affinity */
    bool propose;       /* how to sweep, see dm_routing_game_play() */
    int threads;        /* for proposals, 1 or more; results do not depend on it */
    dm_routing_game_move_fn on_move; /* or NULL */
    void *on_move_user;
    dm_routing_game_sweep_fn on_sweep; /* told of the start and after each sweep; or NULL */
    void *on_sweep_user;
} dm_routing_game;

typedef struct dm_routing_game_result {
    double potential_before, potential_after; /* Phi of the start and of the end */
    double max_regret;                        /* greatest gain of any token by changing alone from the end; at most eps at rest */
    size_t sweeps;                            /* begun; at rest, the last found nobody to change */
    size_t moves;                             /* accepted changes */
    bool at_rest;                             /* false where most_sweeps ended play */
} dm_routing_game_result;

/* Bytes of scratch that playing takes, for the caller to have 64-byte aligned (dm_alloc). DM_ERR_ARGUMENT where sizes do not
 * go together, and DM_ERR_MEMORY where there are too many of them. */
dm_status dm_routing_game_scratch(const dm_routing_game *game, size_t *bytes);

/* Whether everything in the game is as the fields above want it, arrays included: O(T g). */
dm_status dm_routing_game_check(const dm_routing_game *game, void *scratch);

/*
 * Plays a game that dm_routing_game_check() accepts. strategies [T, max_k] receives each token's experts, best affinity first and
 * -1 after the last. With `warm` it holds the start on entry, in any order: ids that the flock lacks (left, off, negative, twice)
 * give way to the best by affinity, and as many experts are played as entries were 0 or more, within min_k to max_k.
 *
 * In turn (propose = false), each token in the order of rows answers all others' present choices; O(T g) a sweep. With
 * `propose`, threads first find, against loads that stand still, who would gain; then those tokens alone, in the order of
 * rows, answer the loads as they have become and change where they still gain. Every accepted change is thus a unilateral one
 * against the true loads, which keeps the potential argument; the first proposer of a sweep always still gains, so no sweep
 * is idle; and a sweep without proposals has checked every token against the true loads, so it is rest.
 */
void dm_routing_game_play(const dm_routing_game *game, int32_t *strategies, void *scratch, dm_routing_game_result *result);

#endif
