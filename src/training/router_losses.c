#include "training/router_losses.h"

#include <omp.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "core/flock.h"
#include "core/swarm_loss.h"
#include "kernels/vector.h"

struct dm_router_terms {
    dm_train_routing_rules rules;
    size_t length, dim;
    dm_lru lru;    /* of the cache reward */
    double *sums;  /* [DM_SWARM_LOSS_SCRATCH * n_experts] */
    float *prices; /* [n_experts] of the Nash loss */
    float *packed; /* [threads][length, dim] the rows of a sequence, of the swarm reward */
    float *scores; /* [threads][length, DM_SWARM_NEIGHBOURS] */
};

bool dm_router_terms_asked(const dm_train_routing_rules *rules) {
    const dm_router_losses *w = &rules->weights;
    return w->balance_loss > 0.0 || w->cache_reward > 0.0 || w->swarm_reward > 0.0 || w->nash_loss > 0.0;
}

static dm_status take_memory(dm_router_terms *it) {
    const size_t experts = (size_t)it->rules.game.n_experts;
    const size_t rows = it->rules.weights.swarm_reward > 0.0 ? (size_t)dm_threads() * it->length : 0;
    it->sums = dm_alloc(DM_SWARM_LOSS_SCRATCH * experts, sizeof *it->sums);
    it->prices = dm_alloc(experts, sizeof *it->prices);
    it->packed = dm_alloc(rows, it->dim * sizeof *it->packed);
    it->scores = dm_alloc(rows, DM_SWARM_NEIGHBOURS * sizeof *it->scores);
    if (it->sums == NULL || it->prices == NULL || it->packed == NULL || it->scores == NULL) {
        return DM_ERR_MEMORY;
    }
    bool caches = it->rules.weights.cache_reward > 0.0;
    return caches ? dm_lru_create(it->rules.game.n_experts, it->rules.cache_slots, &it->lru) : DM_OK;
}

dm_status dm_router_terms_create(const dm_train_routing_rules *rules, size_t length, size_t dim, dm_router_terms **out) {
    *out = NULL;
    dm_router_terms *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->rules = *rules;
    it->length = length;
    it->dim = dim;
    dm_status status = take_memory(it);
    if (status != DM_OK) {
        dm_router_terms_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

void dm_router_terms_free(dm_router_terms *it) {
    if (it == NULL) {
        return;
    }
    dm_lru_free(&it->lru);
    dm_free(it->sums);
    dm_free(it->prices);
    dm_free(it->packed);
    dm_free(it->scores);
    dm_free(it);
}

/* ---- What is held fixed ---- */

/* Neighbours of the rows from `first` on, one sequence. */
static void find_neighbours(const dm_router_terms *it, dm_rows x, size_t first, int32_t *neighbours) {
    const size_t thread = (size_t)omp_get_thread_num();
    float *packed = it->packed + thread * it->length * it->dim;
    float *scores = it->scores + thread * it->length * DM_SWARM_NEIGHBOURS;
    for (size_t t = 0; t < it->length; t++) {
        memcpy(packed + t * it->dim, dm_row(x, first + t), it->dim * sizeof *packed);
    }
    const dm_keys tokens = {packed, it->length, it->dim, dm_vector()->dot};
    dm_flock_earlier(&tokens, DM_SWARM_NEIGHBOURS, 1, neighbours, scores);
    for (size_t i = 0; i < it->length * DM_SWARM_NEIGHBOURS; i++) {
        neighbours[i] += neighbours[i] >= 0 ? (int32_t)first : 0;
    }
}

void dm_router_terms_hold(dm_router_terms *it, const dm_layer_terms *layer, dm_rows x, const int32_t *experts, size_t n) {
    if (layer->neighbours != NULL) {
#pragma omp parallel for schedule(dynamic)
        for (size_t first = 0; first < n; first += it->length) {
            find_neighbours(it, x, first, layer->neighbours + first * DM_SWARM_NEIGHBOURS);
        }
    }
    if (layer->resident != NULL) {
        dm_lru_clear(&it->lru);
        dm_cache_residents(&it->lru, experts, n, (size_t)it->rules.game.top_k, layer->resident);
    }
}

/* ---- Values and slopes ---- */

void dm_router_terms_measure(dm_router_terms *it, const dm_layer_terms *layer, dm_rows p, const float *bias, size_t n,
                             double share, dm_router_losses *values) {
    const dm_nash_rules *game = &it->rules.game;
    const dm_router_losses *w = &it->rules.weights;
    const dm_rows slopes = layer->slopes;
    const int32_t experts = game->n_experts;
    for (size_t t = 0; t < n; t++) {
        memset(dm_row(slopes, t), 0, (size_t)experts * sizeof(float));
    }
    if (w->balance_loss > 0.0) {
        values->balance_loss +=
            share * dm_balance_loss(p.data, p.stride, n, experts, w->balance_loss, slopes.data, slopes.stride, it->sums);
    }
    if (w->cache_reward > 0.0) {
        values->cache_reward += share * dm_cache_reward(p.data, p.stride, n, experts, layer->resident, -w->cache_reward,
                                                        slopes.data, slopes.stride, it->sums);
    }
    if (w->swarm_reward > 0.0) {
        values->swarm_reward += share * dm_swarm_reward(p.data, p.stride, n, experts, layer->neighbours, DM_SWARM_NEIGHBOURS,
                                                        -w->swarm_reward, slopes.data, slopes.stride, it->sums);
    }
    if (w->nash_loss > 0.0) {
        for (int32_t e = 0; e < experts; e++) {
            it->prices[e] = -bias[e];
        }
        values->nash_loss +=
            share * dm_nash_loss(p.data, p.stride, n, experts, layer->candidates, (size_t)game->flock, game->top_k, game->beta,
                                 it->prices, w->nash_loss, slopes.data, slopes.stride, it->sums);
    }
}
