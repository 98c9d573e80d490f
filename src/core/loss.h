/* Losses and rules that balance the load of experts. Pure arrays: no model in sight. */
#ifndef DM_CORE_LOSS_H
#define DM_CORE_LOSS_H

#include <stddef.h>
#include <stdint.h>

/*
 * The auxiliary loss of the Switch Transformer (Fedus et al. 2021) for top-k routing:
 * E * sum_e (f_e / k) * P_e, f_e = tokens choosing e over tokens, P_e = mean over tokens of p[t][e]. 1 when even.
 * p [n, n_experts] with rows `stride` apart, loads[n_experts] counts the n * top_k choices. slopes[n_experts] receives
 * dL/dp[t][e], which is the same for every token (f is held fixed, as it has no gradient).
 */
double dm_switch_loss(const float *p, size_t stride, size_t n, int32_t n_experts, int32_t top_k, const uint64_t *loads,
                      float *slopes);

/* Loss-free balancing (Wang et al. 2024, arXiv 2408.15664): the bias of each expert moves by `rate` towards even load:
 * bias[e] += rate * sign(mean load - load[e]). */
void dm_loss_free_update(float *bias, const uint64_t *loads, int32_t n_experts, float rate);

#endif
