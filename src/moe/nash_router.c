#include "moe/nash_router.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"

struct dm_nash_router {
    dm_nash_rules rules;
    size_t tokens;
    float *affinities;   /* [tokens, flock] best first; -INFINITY: off */
    int32_t *candidates; /* [tokens, flock] */
    float *ranges;       /* [tokens] */
    float *prices;       /* [n_experts] what the model's own choice makes experts cost */
    size_t *users;       /* [n_experts] of that choice */
    float *even;         /* [n_experts] the same time to fetch each */
    void *scratch;       /* of the game */
};

/* ---- Flocks -------------------------------------------------------------- */

/* A finite affinity, so that every expert that is on can be chosen where nothing better is there. */
static float affinity_of(float logit, float bias) {
    float sum = logit + bias;
    return isnan(sum) || sum < -FLT_MAX ? -FLT_MAX : sum;
}

/* Of equals the lower expert, as the model chooses. The flock is small, so insertion into a sorted list beats sorting. */
static size_t insert(float *affinities, int32_t *candidates, size_t filled, size_t most, float affinity, int32_t expert) {
    if (filled == most && !(affinity > affinities[most - 1])) {
        return filled;
    }
    size_t at = filled < most ? filled++ : most - 1;
    for (; at > 0 && affinity > affinities[at - 1]; at--) {
        affinities[at] = affinities[at - 1];
        candidates[at] = candidates[at - 1];
    }
    affinities[at] = affinity;
    candidates[at] = expert;
    return filled;
}

/* Experts that are off fill up a flock that lacks others. */
static void fill_up(float *affinities, int32_t *candidates, size_t filled, size_t most, const float *bias) {
    for (int32_t e = 0; filled < most; e++) {
        if (bias[e] == -INFINITY) {
            affinities[filled] = -INFINITY;
            candidates[filled++] = e;
        }
    }
}

static void flock_of(dm_nash_router *it, const float *logits, const float *bias, size_t token) {
    const size_t most = (size_t)it->rules.flock;
    float *affinities = it->affinities + token * most;
    int32_t *candidates = it->candidates + token * most;
    size_t filled = 0;
    float least = INFINITY, greatest = -INFINITY;
    for (int32_t e = 0; e < it->rules.n_experts; e++) {
        float own = bias != NULL ? bias[e] : 0.0f;
        if (own == -INFINITY) {
            continue;
        }
        float affinity = affinity_of(logits[e], own);
        if (fabsf(affinity) < FLT_MAX) {
            least = affinity < least ? affinity : least;
            greatest = affinity > greatest ? affinity : greatest;
        }
        filled = insert(affinities, candidates, filled, most, affinity, e);
    }
    it->ranges[token] = greatest > least ? greatest - least : 0.0f;
    if (filled < most) {
        fill_up(affinities, candidates, filled, most, bias);
    }
}

void dm_nash_router_flock(dm_nash_router *it, const float *logits, size_t stride, const float *bias, size_t begin, size_t end) {
    for (size_t token = begin; token < end; token++) {
        flock_of(it, logits + token * stride, bias, token);
    }
}

float dm_nash_router_range(const dm_nash_router *it, size_t token) {
    return it->ranges[token];
}

const int32_t *dm_nash_router_candidates(const dm_nash_router *it, size_t token) {
    return it->candidates + token * (size_t)it->rules.flock;
}

void dm_nash_router_best(const dm_nash_router *it, size_t token, int32_t *experts) {
    for (size_t j = 0, at = token * (size_t)it->rules.flock; j < (size_t)it->rules.top_k; j++) {
        experts[j] = it->affinities[at + j] > -INFINITY ? it->candidates[at + j] : -1;
    }
}

/* ---- Games --------------------------------------------------------------- */

static dm_routing_game game_of(const dm_nash_router *it, size_t first, size_t n, const dm_nash_state *state) {
    const dm_nash_rules *r = &it->rules;
    size_t at = first * (size_t)r->flock;
    dm_routing_game game = {
        .tokens = n,
        .experts = (size_t)r->n_experts,
        .flock = (size_t)r->flock,
        .affinities = it->affinities + at,
        .candidates = it->candidates + at,
        .min_k = (size_t)r->min_experts,
        .max_k = (size_t)r->top_k,
        .keep_top = (size_t)r->keep_top,
        .theta = r->theta,
        .eps = 1e-9,
        .most_sweeps = (size_t)r->sweeps,
        .threads = 1,
    };
    game.costs.beta = r->beta;
    if (state != NULL && r->gamma > 0.0) {
        game.costs.gamma = r->gamma;
        game.costs.spread = state->spread;
        game.costs.tau = state->tau != NULL ? state->tau : it->even;
        game.costs.tau_disk = state->tau != NULL ? state->tau_slowest : 1.0;
    }
    return game;
}

/* What each expert would cost if everybody chose its best by affinity: to one who does, or to the first one. */
static void price_model_choice(dm_nash_router *it, const dm_routing_game *game, size_t first) {
    const size_t experts = game->experts;
    const dm_routing_game_costs *c = &game->costs;
    double mean = (double)(game->max_k * game->tokens) / (double)experts;
    memset(it->users, 0, experts * sizeof *it->users);
    for (size_t i = 0; i < game->tokens; i++) {
        for (size_t j = 0, at = (first + i) * game->flock; j < game->max_k; j++) {
            it->users[it->candidates[at + j]] += it->affinities[at + j] > -INFINITY;
        }
    }
    for (size_t e = 0; e < experts; e++) {
        double users = it->users[e] > 0 ? (double)it->users[e] : 1.0;
        double fetch = c->tau != NULL ? c->gamma * c->spread * (double)c->tau[e] / c->tau_disk : 0.0;
        it->prices[e] = (float)(c->beta * users / mean + fetch / users);
    }
}

/* Everybody answers the same prices once; then the regret is looked for against the costs as they have become. */
static void answer_once(dm_nash_router *it, const dm_routing_game *game, size_t first, int32_t *experts,
                        dm_routing_game_result *result) {
    dm_routing_game fixed = *game, after = *game;
    price_model_choice(it, game, first);
    fixed.costs = (dm_routing_game_costs){.price = it->prices};
    fixed.most_sweeps = 1;
    dm_routing_game_play(&fixed, experts, it->scratch, result);
    after.warm = true;
    after.most_sweeps = 0;
    size_t moves = result->moves;
    dm_routing_game_play(&after, experts, it->scratch, result);
    result->moves = moves;
    result->sweeps = 1;
}

void dm_nash_router_play(dm_nash_router *it, size_t first, size_t n, const dm_nash_state *state, int32_t *experts,
                         dm_routing_game_result *result) {
    const dm_routing_game game = game_of(it, first, n, state);
    if (game.most_sweeps == 0) {
        answer_once(it, &game, first, experts, result);
    } else {
        dm_routing_game_play(&game, experts, it->scratch, result);
    }
}

/* ---- Memory -------------------------------------------------------------- */

static bool take_memory(dm_nash_router *it) {
    size_t pairs = 0, bytes = 0;
    if (!dm_mul_size(it->tokens, (size_t)it->rules.flock, &pairs)) {
        dm_fail(DM_ERR_MEMORY, "a router for %zu tokens does not fit into memory", it->tokens);
        return false;
    }
    it->affinities = dm_alloc(pairs, sizeof *it->affinities);
    it->candidates = dm_alloc(pairs, sizeof *it->candidates);
    it->ranges = dm_alloc(it->tokens, sizeof *it->ranges);
    it->prices = dm_alloc((size_t)it->rules.n_experts, sizeof *it->prices);
    it->users = dm_alloc((size_t)it->rules.n_experts, sizeof *it->users);
    it->even = dm_alloc((size_t)it->rules.n_experts, sizeof *it->even);
    const dm_routing_game largest = game_of(it, 0, it->tokens, NULL);
    if (dm_routing_game_scratch(&largest, &bytes) != DM_OK) {
        return false;
    }
    it->scratch = dm_alloc(bytes, 1);
    return it->affinities != NULL && it->candidates != NULL && it->ranges != NULL && it->prices != NULL && it->users != NULL &&
           it->even != NULL && it->scratch != NULL;
}

static dm_status check(const dm_nash_rules *r, size_t tokens) {
    bool good = tokens > 0 && r->top_k >= 1 && r->flock >= r->top_k && r->flock <= r->n_experts && r->min_experts >= 1 &&
                r->min_experts <= r->top_k && r->keep_top >= 0 && r->keep_top <= r->min_experts && r->sweeps >= 0 &&
                r->beta >= 0.0 && r->gamma >= 0.0 && isfinite(r->beta) && isfinite(r->gamma) && r->theta >= 0.0 &&
                r->theta <= 1.0 && (r->min_experts == r->top_k || r->theta > 0.0);
    return good ? DM_OK : dm_fail(DM_ERR_INTERNAL, "a router's rules do not go together");
}

dm_status dm_nash_router_create(const dm_nash_rules *rules, size_t tokens, dm_nash_router **out) {
    *out = NULL;
    DM_TRY(check(rules, tokens));
    dm_nash_router *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->rules = *rules;
    it->tokens = tokens;
    if (!take_memory(it)) {
        dm_nash_router_free(it);
        return DM_ERR_MEMORY;
    }
    for (int32_t e = 0; e < rules->n_experts; e++) {
        it->even[e] = 1.0f;
    }
    *out = it;
    return DM_OK;
}

void dm_nash_router_free(dm_nash_router *it) {
    if (it == NULL) {
        return;
    }
    dm_free(it->affinities);
    dm_free(it->candidates);
    dm_free(it->ranges);
    dm_free(it->prices);
    dm_free(it->users);
    dm_free(it->even);
    dm_free(it->scratch);
    dm_free(it);
}
