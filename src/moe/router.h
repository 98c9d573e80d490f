/* Which experts a token uses, and with which weights. */
#ifndef DM_MOE_ROUTER_H
#define DM_MOE_ROUTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A policy decides the choice for a batch of tokens. The gate weights never depend on the policy: they are the
 * softmax over all experts, as a rule renormalised over the chosen ones. */
typedef enum dm_router_policy {
    DM_ROUTER_MODEL, /* the model's own top-k of logits + bias, ties to the lower expert */
    DM_ROUTER_FIXED, /* the experts that are given: the loss as a smooth function of the weights, for finite differences */
} dm_router_policy;

/* More experts per token than this are refused when a model's shape is checked. */
#define DM_ROUTER_MAX_TOP_K 64

typedef struct dm_router {
    dm_router_policy policy;
    int32_t n_experts;
    int32_t top_k;
    const float *bias; /* [n_experts] added for the choice only, or NULL */
    bool plain_gates;  /* not renormalised */
    float scale;       /* multiplies the gates; 0: 1 */
} dm_router;

/* A NaN logit is never preferred, and the choice always holds top_k experts.
 * logits [n, n_experts] become the softmax p in place (unbiased); experts [n, top_k] the choice, best first (with DM_ROUTER_FIXED
 * read instead); gates [n, top_k] their weights, summing to 1 unless the fields above say otherwise. Single-threaded: callers
 * split tokens. */
void dm_router_route(const dm_router *router, float *logits, size_t n, int32_t *experts, float *gates);

/* Adds each expert's number of users to loads[n_experts]. */
void dm_router_count(const int32_t *experts, size_t n, int32_t top_k, uint64_t *loads);
/* MaxVio (Wang et al. 2024): max load / mean load - 1; 0 when nothing was routed. */
double dm_router_maxvio(const uint64_t *loads, int32_t n_experts);

#endif
