/*
 * The terms of L = L_ce + l1 L_balance - l2 R_cache - l3 R_swarm + l4 L_nash that look at a router: its distribution p alone,
 * with flocks, neighbours and the resident set held fixed. Pure arrays, one order of sums: the same input gives the same bits.
 *
 * What all terms share: p [n, n_experts] with rows `stride` apart, distributions; slopes [n, n_experts] with rows
 * `slope_stride` apart, to which weight * d(term)/dp is ADDED (a reward takes a negative weight to be maximised); scratch
 * [DM_SWARM_LOSS_SCRATCH * n_experts], overwritten. Each returns its term, unweighted; without tokens that is 0, or 1 for
 * R_swarm, and no slope moves.
 */
#ifndef DM_CORE_SWARM_LOSS_H
#define DM_CORE_SWARM_LOSS_H

#include "core/lru.h"

enum { DM_SWARM_LOSS_SCRATCH = 4 };

/* L_balance: variance over squared mean of the soft loads l_e = sum_t p[t][e]. 0 when even, n_experts - 1 when one has all. */
double dm_balance_loss(const float *p, size_t stride, size_t n, int32_t n_experts, double weight, float *slopes,
                       size_t slope_stride, double *scratch);

/* resident [n, n_experts] receives, for each token, 1 where an expert is kept before the token's own experts [n, k] (-1: none)
 * are used, in order. `lru` is of n_experts things; it goes on where the last call left it. */
void dm_cache_residents(dm_lru *lru, const int32_t *experts, size_t n, size_t k, uint8_t *resident);

/* R_cache: the router's mass on resident experts, mean over tokens; 0 to 1. resident [n, n_experts] is 0 or 1. */
double dm_cache_reward(const float *p, size_t stride, size_t n, int32_t n_experts, const uint8_t *resident, double weight,
                       float *slopes, size_t slope_stride, double *scratch);

/* R_swarm: mean over tokens of (1 + alignment) / 2, alignment as dm_flock_alignment() has it; 0.5 to 1. neighbours [n, k] are
 * rows of p, -1 for none. A token pulls its neighbours as they pull it: slopes reach their rows too. */
double dm_swarm_reward(const float *p, size_t stride, size_t n, int32_t n_experts, const int32_t *neighbours, size_t k,
                       double weight, float *slopes, size_t slope_stride, double *scratch);

/*
 * L_nash, the entropy-regularised regret: mean over tokens of sum_e q c_e + log sum_e q exp(-c_e), q = p[t] over its sum on the
 * token's flock candidates [n, g] (different experts, -1 for none; g at most n_experts). That is how far the token's play q is
 * from its best answer to the costs when leaving q costs KL divergence: >= 0, and 0 when its experts cost the same or it is
 * sure of one. Costs are c_e = beta m_e / nbar + price[e], m_e = top_k sum_t q[t][e], nbar = top_k n / n_experts (top_k, the
 * unit of m, cancels); price [n_experts] or NULL. Slopes go through q and through m_e, on which every token bears, but not
 * through the q in the logarithm: that is where the token stands, and were it to move along, being sure of a dear expert would be
 * an answer too. Where p on the flock is below 1e-30 it counts as 0: its slope would not fit a float, and a softmax passes
 * nothing of it on.
 */
double dm_nash_loss(const float *p, size_t stride, size_t n, int32_t n_experts, const int32_t *candidates, size_t g,
                    int32_t top_k, double beta, const float *price, double weight, float *slopes, size_t slope_stride,
                    double *scratch);

#endif
