#include "moe/router.h"

#include <math.h>

#include "kernels/vector.h"

/* The top_k experts of one token by logit + bias, best first; of equals the lower expert. top_k is small, so insertion
 * into a short sorted list beats sorting. */
static void choose_one(const dm_router *router, const float *logits, int32_t *experts) {
    float scores[DM_ROUTER_MAX_TOP_K];
    int32_t k = router->top_k;
    int32_t filled = 0;
    for (int32_t e = 0; e < router->n_experts; e++) {
        float score = logits[e] + (router->bias != NULL ? router->bias[e] : 0.0f);
        score = isnan(score) ? -INFINITY : score;
        if (filled == k && !(score > scores[k - 1])) {
            continue;
        }
        int32_t at = filled < k ? filled++ : k - 1;
        while (at > 0 && score > scores[at - 1]) {
            scores[at] = scores[at - 1];
            experts[at] = experts[at - 1];
            at--;
        }
        scores[at] = score;
        experts[at] = e;
    }
}

void dm_router_choose(const dm_router *router, const float *logits, size_t n, int32_t *experts) {
    for (size_t t = 0; t < n; t++) {
        choose_one(router, logits + t * (size_t)router->n_experts, experts + t * (size_t)router->top_k);
    }
}

void dm_router_route(const dm_router *router, float *logits, size_t n, int32_t *experts, float *gates) {
    const dm_vector_table *vector = dm_vector();
    for (size_t t = 0; t < n; t++) {
        float *p = logits + t * (size_t)router->n_experts;
        int32_t *chosen = experts + t * (size_t)router->top_k;
        float *gate = gates + t * (size_t)router->top_k;
        if (!router->given) {
            choose_one(router, p, chosen);
        }
        vector->softmax(p, (size_t)router->n_experts);
        float total = 0.0f;
        for (int32_t j = 0; j < router->top_k; j++) {
            total += chosen[j] >= 0 ? p[chosen[j]] : 0.0f;
        }
        for (int32_t j = 0; j < router->top_k; j++) {
            gate[j] = chosen[j] >= 0 ? p[chosen[j]] / (router->plain_gates ? 1.0f : total) : 0.0f;
            gate[j] *= router->scale != 0.0f ? router->scale : 1.0f;
        }
    }
}

void dm_router_count(const int32_t *experts, size_t n, int32_t top_k, uint64_t *loads) {
    for (size_t i = 0; i < n * (size_t)top_k; i++) {
        if (experts[i] >= 0) {
            loads[experts[i]]++;
        }
    }
}

double dm_maxvio(uint64_t largest, uint64_t total, int32_t n_experts) {
    return total == 0 ? 0.0 : (double)largest * n_experts / (double)total - 1.0;
}

double dm_router_maxvio(const uint64_t *loads, int32_t n_experts) {
    uint64_t largest = 0;
    uint64_t total = 0;
    for (int32_t e = 0; e < n_experts; e++) {
        total += loads[e];
        largest = loads[e] > largest ? loads[e] : largest;
    }
    return dm_maxvio(largest, total, n_experts);
}
