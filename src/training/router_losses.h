/* The terms of the loss that look at a layer's router distribution, with all that they hold fixed. */
#ifndef DM_TRAINING_ROUTER_LOSSES_H
#define DM_TRAINING_ROUTER_LOSSES_H

#include "training/routing.h"

/* A token's nearest earlier ones of its sequence (Ballerini et al. 2008). */
enum { DM_SWARM_NEIGHBOURS = 7 };

/* One layer's; what no weight asks for is NULL. The caller's memory. */
typedef struct dm_layer_terms {
    int32_t *neighbours; /* [n, DM_SWARM_NEIGHBOURS] rows of the batch, -1 after the last; of the swarm reward */
    uint8_t *resident;   /* [n, n_experts] of the cache reward */
    int32_t *candidates; /* [n, flock] of the Nash loss; filled by dm_train_routing_choose() */
    dm_rows slopes;      /* [n, n_experts] weighted d(terms but the Switch loss)/dp */
} dm_layer_terms;

/* True where the rules ask for more than the Switch loss. */
bool dm_router_terms_asked(const dm_train_routing_rules *rules);

/* What layers share. */
typedef struct dm_router_terms dm_router_terms;

/* For sequences of `length` rows of `dim` numbers. */
dm_status dm_router_terms_create(const dm_train_routing_rules *rules, size_t length, size_t dim, dm_router_terms **out);
void dm_router_terms_free(dm_router_terms *it);

/* Fills neighbours, by the router's input x [n, dim] in whole sequences, and residents: the LRU is empty before the pass, and
 * runs over the choices experts [n, top_k] sequence after sequence. */
void dm_router_terms_hold(dm_router_terms *it, const dm_layer_terms *layer, dm_rows x, const int32_t *experts, size_t n);

/* Fills the slopes, from the distribution p [n, n_experts] and prices, which are the bias [n_experts] with its sign turned, and
 * adds `share` of each term, without its weight, to *values. */
void dm_router_terms_measure(dm_router_terms *it, const dm_layer_terms *layer, dm_rows p, const float *bias, size_t n,
                             double share, dm_router_losses *values);

#endif
