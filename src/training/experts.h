/*
 * The mixture-of-experts layer: router, SwiGLU experts, weighted sum. Tokens are grouped by expert, so that each
 * expert's weights meet all of its tokens in one product (in cache-sized pieces), and nothing is computed for experts that
 * a token did not choose.
 */
#ifndef DM_TRAINING_EXPERTS_H
#define DM_TRAINING_EXPERTS_H

#include "kernels/matmul.h"
#include "moe/router.h"
#include "training/watch.h"

/* Shapes and weights of one layer; row-major as in the file. */
typedef struct dm_experts {
    size_t dim, expert_dim;
    dm_router router;
    dm_precision precision;
    const dm_gradient_watch *watch; /* of layer number `layer`; NULL: nobody */
    int32_t layer;
    const float *router_weight; /* [n_experts, dim] */
    const float *gate;          /* [n_experts, expert_dim, dim] */
    const float *up;            /* [n_experts, expert_dim, dim] */
    const float *down;          /* [n_experts, dim, expert_dim] */
} dm_experts;

typedef struct dm_experts_gradient {
    float *router_weight, *gate, *up, *down; /* shaped like the weights; accumulate */
} dm_experts_gradient;

/* What the forward pass of one layer keeps for the way back; n tokens, k = top_k, "pair" = one token at one expert. A token
 * may use fewer than k experts: arrays of n k then end before they are full. */
typedef struct dm_experts_state {
    dm_rows p;        /* [n, n_experts] softmax of the router */
    int32_t *experts; /* [n, k], -1 after a token's last */
    float *gates;     /* [n, k], 0 for -1 */
    int32_t *place;   /* [n, k] where the pair lies in expert order, -1 for none */
    int32_t *token;   /* [n k] token of each place */
    int32_t *offsets; /* [n_experts + 1] first place of each expert, and one past the last */
    uint64_t *loads;  /* [n_experts] */
    dm_rows gate_out; /* [n k, expert_dim] in expert order */
    dm_rows up_out;   /* [n k, expert_dim] */
} dm_experts_state;

/* Shared between layers. */
typedef struct dm_experts_scratch {
    dm_rows pairs;     /* [n k, dim] in expert order */
    dm_rows dlogits;   /* [n, n_experts] */
    float *dgates;     /* [n k] in expert order */
    float *weights;    /* [n k] gate weights in expert order */
    float *slopes;     /* [n_experts] */
    int32_t *tasks;    /* [2 * (n k / DM_EXPERT_PIECE + n_experts)] */
    float *per_thread; /* [threads][dm_experts_scratch_floats()] */
} dm_experts_scratch;

/* Tokens of one expert that are handled at a time. */
enum { DM_EXPERT_PIECE = 256 };

/* Floats that one thread needs. */
size_t dm_experts_scratch_floats(size_t dim, size_t expert_dim);

/* What the loss wants of the router beside the cross-entropy. */
typedef struct dm_router_slopes {
    double switch_weight; /* of the Switch loss of this layer's routing; 0: none */
    dm_rows slopes;       /* [n, n_experts] dL/dp of all else, overwritten; data NULL: nothing */
    double scale;         /* multiplies them */
} dm_router_slopes;

/* state->p receives the router's logits for x[n, dim]. */
dm_status dm_experts_score(const dm_experts *layer, dm_experts_state *state, dm_rows x, size_t n);
/* From logits to their softmax, the choice (layer->router.given: state->experts has it), gates and groups. */
void dm_experts_route(const dm_experts *layer, dm_experts_state *state, size_t n);
/* y[n, dim] += the layer's output for x[n, dim], which is scored and routed. */
dm_status dm_experts_forward(const dm_experts *layer, dm_experts_state *state, dm_experts_scratch *scratch, dm_rows y, dm_rows x,
                             size_t n);
/* From dy: dx is overwritten. */
dm_status dm_experts_backward(const dm_experts *layer, const dm_experts_gradient *gradient, const dm_experts_state *state,
                              dm_experts_scratch *scratch, dm_rows dx, dm_rows dy, dm_rows x, size_t n,
                              const dm_router_slopes *slopes);

#endif
