#include "training/settle.h"

#include <string.h>

#include "base/memory.h"
#include "base/threads.h"

/* No load counts as more than this above the mean: before prices are near, loads say little of how far to go. */
static const double most_above = 3.0;

static void move_prices(float *bias, const uint64_t *loads, size_t experts, double gain) {
    double mean = 0.0;
    for (size_t e = 0; e < experts; e++) {
        mean += (double)loads[e] / (double)experts;
    }
    for (size_t e = 0; e < experts && mean > 0.0; e++) {
        double above = (double)loads[e] / mean - 1.0;
        bias[e] -= (float)(gain * (above < most_above ? above : most_above));
    }
}

static dm_status settle(const dm_network *network, const dm_config *config, float *bias, double *sum, int64_t passes,
                        dm_settle_read_fn read, void *user) {
    const size_t experts = (size_t)config->n_experts, all = (size_t)config->n_layers * experts;
    const int64_t averaged = passes - passes / 2; /* the last ones */
    for (int64_t pass = 0; pass < passes; pass++) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted while prices settled");
        }
        DM_TRY(read(user));
        for (size_t l = 0; l < (size_t)config->n_layers; l++) {
            move_prices(bias + l * experts, dm_network_loads(network) + l * experts, experts, 0.5 / (1.0 + 0.25 * (double)pass));
        }
        for (size_t i = 0; i < all && pass >= passes - averaged; i++) {
            sum[i] += (double)bias[i] / (double)averaged;
        }
    }
    for (size_t i = 0; i < all; i++) {
        bias[i] = (float)sum[i];
    }
    return DM_OK;
}

dm_status dm_settle_prices(const dm_network *network, const dm_config *config, float *bias, int64_t passes,
                           dm_settle_read_fn read, void *user) {
    const size_t all = (size_t)config->n_layers * (size_t)config->n_experts;
    if (passes <= 0 || all == 0) {
        return DM_OK;
    }
    float *before = dm_alloc(all, sizeof *before);
    double *sum = dm_alloc(all, sizeof *sum);
    dm_status status = before != NULL && sum != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        memcpy(before, bias, all * sizeof *before);
        status = settle(network, config, bias, sum, passes, read, user);
    }
    if (status != DM_OK && before != NULL) {
        memcpy(bias, before, all * sizeof *before);
    }
    dm_free(before);
    dm_free(sum);
    return status;
}
