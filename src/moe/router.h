/* Which experts a token uses, and with which weights. */
#ifndef DM_MOE_ROUTER_H
#define DM_MOE_ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More experts per token than this are refused when a model's shape is checked. */
#define DM_ROUTER_MAX_TOP_K 64

typedef struct dm_router {
    int32_t n_experts;
    int32_t top_k;
    const float *bias; /* [n_experts] added for the choice only, or NULL */
    bool given;        /* the choice is made: by a game, or, for finite differences, by an earlier pass */
    bool plain_gates;  /* not renormalised */
    float scale;       /* multiplies the gates; 0: 1 */
} dm_router;

/* The model's own choice: experts [n, top_k] of greatest logit + bias, best first, ties to the lower expert. A NaN logit is never
 * preferred, and the choice always holds top_k experts. logits [n, n_experts]. */
void dm_router_choose(const dm_router *router, const float *logits, size_t n, int32_t *experts);

/* The choice, and the gate weights, which do not depend on who chose: the softmax over all experts, as a rule renormalised over
 * the chosen ones.
 * logits [n, n_experts] become the softmax p in place (unbiased); experts [n, top_k] the choice, best first (with `given`
 * read instead, -1 after a token's last); gates [n, top_k] their weights, 0 for -1, summing to 1 unless the fields above say
 * otherwise. Single-threaded: callers split tokens. */
void dm_router_route(const dm_router *router, float *logits, size_t n, int32_t *experts, float *gates);

/* Adds each expert's number of users to loads[n_experts]; entries of -1 are nobody. */
void dm_router_count(const int32_t *experts, size_t n, int32_t top_k, uint64_t *loads);
/* MaxVio (Wang et al. 2024): largest load / mean load - 1; 0 when nothing was routed. */
double dm_maxvio(uint64_t largest, uint64_t total, int32_t n_experts);
double dm_router_maxvio(const uint64_t *loads, int32_t n_experts);

#endif
