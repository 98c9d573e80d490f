/*
 * Routing as asked for by dm_router_options: the choice of experts of one sequence's tokens, or of several sequences' in one
 * step, layer by layer, with what is remembered from token to token: the spread of affinities, which experts are resident, and
 * which sleep. What is remembered comes from earlier tokens alone.
 */
#ifndef DM_MOE_ROUTING_H
#define DM_MOE_ROUTING_H

#include "moe/nash_router.h"
#include "moe/residency.h"
#include "moe/router.h"

enum { DM_ROUTING_MOST_SWEEPS = 64 };

typedef struct dm_routing dm_routing;

/* What the model brings. */
typedef struct dm_routing_shape {
    int32_t layers, experts, top_k;
    const float *bias;             /* [layers, experts] for the choice only, or NULL; copied */
    const dm_residency *residency; /* where experts are, or NULL; copied, what it points to stays its owner's */
} dm_routing_shape;

/* DM_ERR_ARGUMENT where options do not go together, or with the model. *out is NULL where the options ask for nothing beyond the
 * model's own choice. `tokens` are the most that are in sight at a time. */
dm_status dm_routing_create(const dm_router_options *options, const dm_routing_shape *shape, size_t tokens, dm_routing **out);
void dm_routing_free(dm_routing *it);

/* Whether a token has to pass all layers before the next one passes any, as in decode: where layers share the memory, what one of
 * them finds there is what the others left. */
bool dm_routing_token_by_token(const dm_routing *it);

/* The flocks of tokens begin .. end - 1 of `layer`; logits [tokens, experts]. Threads may share the tokens. */
void dm_routing_look(dm_routing *it, int32_t layer, const float *logits, size_t begin, size_t end);
/* Then the choices of tokens 0 .. n - 1, of the same logits: together in one game, or one token after another. experts [n,
 * top_k], best first, -1 after the last. */
void dm_routing_choose(dm_routing *it, int32_t layer, const float *logits, size_t n, bool together, int32_t *experts);

/* Fields of *out that routing knows: changed, games, sweeps, mean_sweeps, max_regret, hit_rate, asleep. *missed receives how many
 * experts were not resident; unchanged where residency is not known. */
void dm_routing_report(const dm_routing *it, dm_routing_stats *out, double *missed);

/* The games from now on tell `on_sweep`, as dm_nash_router_watch() says: those of a pass layer by layer. */
void dm_routing_watch(dm_routing *it, dm_routing_game_sweep_fn on_sweep, void *user);

#endif
