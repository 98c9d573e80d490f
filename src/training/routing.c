#include "training/routing.h"

#include <string.h>

#include "base/memory.h"
#include "base/threads.h"

struct dm_train_routing {
    dm_train_routing_rules rules;
    dm_nash_router *game;  /* of all tokens of a layer; its flocks where there is only the Nash loss */
    dm_nash_router *alone; /* tokens among themselves, without costs; NULL where that is the model's own choice */
    dm_train_routing_figures figures;
};

static dm_status create_routers(dm_train_routing *it, size_t tokens) {
    const dm_nash_rules *rules = &it->rules.game;
    if (it->rules.plays || it->rules.weights.nash_loss > 0.0) {
        DM_TRY(dm_nash_router_create(rules, tokens, &it->game));
    }
    if (it->rules.plays && rules->min_experts < rules->top_k) {
        dm_nash_rules free_of_costs = *rules;
        free_of_costs.flock = rules->top_k;
        free_of_costs.beta = 0.0;
        free_of_costs.gamma = 0.0;
        free_of_costs.sweeps = 1;
        DM_TRY(dm_nash_router_create(&free_of_costs, tokens, &it->alone));
    }
    return DM_OK;
}

dm_status dm_train_routing_create(const dm_train_routing_rules *rules, size_t tokens, dm_train_routing **out) {
    *out = NULL;
    dm_train_routing *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->rules = *rules;
    dm_status status = create_routers(it, tokens);
    if (status != DM_OK) {
        dm_train_routing_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

void dm_train_routing_free(dm_train_routing *it) {
    if (it == NULL) {
        return;
    }
    dm_nash_router_free(it->game);
    dm_nash_router_free(it->alone);
    dm_free(it);
}

static void find_flocks(dm_nash_router *router, dm_rows logits, const float *bias, size_t n) {
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++) {
        dm_nash_router_flock(router, logits.data, logits.stride, bias, t, t + 1);
    }
}

static double mean_range(const dm_nash_router *router, size_t n) {
    double sum = 0.0;
    for (size_t t = 0; t < n; t++) {
        sum += (double)dm_nash_router_range(router, t);
    }
    return sum / (double)n;
}

static void play(dm_train_routing *it, size_t n, int32_t *experts) {
    const dm_nash_state state = {.spread = it->rules.game.gamma > 0.0 ? mean_range(it->game, n) : 0.0};
    dm_routing_game_result result;
    dm_nash_router_play(it->game, 0, n, &state, experts, &result);
    it->figures.games++;
    it->figures.sweeps += (double)result.sweeps;
    it->figures.potential_gain += (result.potential_after - result.potential_before) / (double)n;
    it->figures.max_regret = result.max_regret > it->figures.max_regret ? result.max_regret : it->figures.max_regret;
}

bool dm_train_routing_choose(dm_train_routing *it, dm_rows logits, const float *bias, size_t n, bool trains, int32_t *experts,
                             int32_t *candidates) {
    if (!trains && it->alone != NULL) {
        dm_routing_game_result ignored;
        find_flocks(it->alone, logits, bias, n);
        dm_nash_router_play(it->alone, 0, n, NULL, experts, &ignored);
        return true;
    }
    if (!trains || it->game == NULL) {
        return false;
    }
    double began = dm_seconds();
    find_flocks(it->game, logits, bias, n);
    if (candidates != NULL) {
        memcpy(candidates, dm_nash_router_candidates(it->game, 0), n * (size_t)it->rules.game.flock * sizeof *candidates);
    }
    if (it->rules.plays) {
        play(it, n, experts);
    }
    it->figures.seconds += dm_seconds() - began;
    return it->rules.plays;
}

const dm_train_routing_figures *dm_train_routing_figures_of(const dm_train_routing *it) {
    return &it->figures;
}

void dm_train_routing_clear_figures(dm_train_routing *it) {
    it->figures = (dm_train_routing_figures){0};
}

void dm_train_routing_persist(float *bias, const uint64_t *loads, size_t tokens, const dm_nash_rules *rules, double rate) {
    const double experts = (double)rules->n_experts;
    const double nbar = (double)rules->top_k * (double)tokens / experts;
    double mean = 0.0;
    for (int32_t e = 0; e < rules->n_experts; e++) {
        mean += (double)loads[e] / experts;
    }
    for (int32_t e = 0; e < rules->n_experts; e++) {
        bias[e] -= (float)(rate * rules->beta * ((double)loads[e] - mean) / nbar);
    }
}
