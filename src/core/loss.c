#include "core/loss.h"

double dm_switch_loss(const float *p, size_t stride, size_t n, int32_t n_experts, int32_t top_k, const uint64_t *loads,
                      float *slopes) {
    double loss = 0.0;
    if (n == 0) {
        return loss;
    }
    const double tokens = (double)n;
    for (int32_t e = 0; e < n_experts; e++) {
        double mass = 0.0;
        for (size_t t = 0; t < n; t++) {
            mass += p[t * stride + (size_t)e];
        }
        double slope = (double)n_experts * ((double)loads[e] / tokens / top_k) / tokens;
        loss += slope * mass;
        slopes[e] = (float)slope;
    }
    return loss;
}

void dm_loss_free_update(float *bias, const uint64_t *loads, int32_t n_experts, float rate) {
    uint64_t total = 0;
    for (int32_t e = 0; e < n_experts; e++) {
        total += loads[e];
    }
    for (int32_t e = 0; e < n_experts; e++) {
        /* load against total / n_experts, without the division's rounding */
        uint64_t scaled = loads[e] * (uint64_t)n_experts;
        bias[e] += scaled < total ? rate : scaled > total ? -rate : 0.0f;
    }
}
