/* Finding the flocks of a swarm's tokens: the inside of dm_swarm (include/dilmodeli.h). */
#ifndef DM_MOE_SWARM_FLOCKS_H
#define DM_MOE_SWARM_FLOCKS_H

#include "core/flock_graph.h"
#include "moe/nash_router.h"

struct dm_swarm {
    float *rows; /* [experts, dim] the keys */
    dm_keys keys;
    dm_flock_graph *graph;     /* NULL: not wanted yet */
    dm_flock_walker **walkers; /* [n_walkers] one of each thread, NULL: not wanted yet */
    int n_walkers;
    size_t beam;     /* of the walkers */
    int32_t *before; /* [experts] the first n_before are the flock of the last token that was decided for */
    size_t n_before;
};

/* What is asked of a search. The router receives the flocks. */
typedef struct dm_swarm_query {
    const float *tokens; /* [n, dim] */
    size_t n;
    const bool *off;     /* [experts] or NULL */
    size_t flock, least; /* experts wanted of each token; and those without which the graph was not good enough */
    bool goes_on;
} dm_swarm_query;

/* Each returns the inner products with keys that it took, in *evaluations. */
dm_status dm_swarm_scan(const dm_swarm *swarm, const dm_swarm_query *query, dm_nash_router *router, size_t *evaluations);
dm_status dm_swarm_walk(dm_swarm *swarm, const dm_swarm_query *query, dm_nash_router *router, size_t *evaluations);

/* Keeps the flock of token `last` for a call that goes on. */
void dm_swarm_remember(dm_swarm *swarm, const dm_nash_router *router, size_t flock, size_t last);

/* Mean alignment of the tokens with their 7 nearest earlier ones, as dm_swarm_result has it. */
dm_status dm_swarm_alignment(const dm_swarm *swarm, const dm_swarm_query *query, const dm_nash_router *router, double *alignment);

#endif
