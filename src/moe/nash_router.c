#include "moe/nash_router.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"

struct dm_nash_router {
    dm_nash_rules rules;
    size_t tokens;
    float *affinities;      /* [tokens, flock] best first; -INFINITY: off */
    int32_t *candidates;    /* [tokens, flock] */
    float *ranks;           /* [tokens, flock] affinities less prices, while flocks are found; NULL without prices */
    float *kept_affinities; /* [tokens, keep_top] the best by affinity alone, likewise */
    int32_t *kept;          /* [tokens, keep_top] */
    float *ranges;          /* [tokens] */
    float *prices;          /* [n_experts] what the model's own choice makes experts cost */
    size_t *users;          /* [n_experts] of that choice */
    float *even;            /* [n_experts] the same time to fetch each */
    float *resident_ranks, *resident_affinities; /* [residents] while they are looked for; NULL without */
    int32_t *residents;                          /* [residents] */
    void *scratch;                               /* of the game */
    dm_routing_game_sweep_fn on_sweep;
    void *on_sweep_user;
};

/* ---- Flocks -------------------------------------------------------------- */

/* A finite affinity, so that every expert that is on can be chosen where nothing better is there. */
static float affinity_of(float logit, float bias) {
    float sum = logit + bias;
    return isnan(sum) || sum < -FLT_MAX ? -FLT_MAX : sum;
}

/* Candidates in the order of ranks, best first; of equals the lower expert, as the model chooses. */
typedef struct candidates {
    float *ranks, *affinities;
    int32_t *experts;
    size_t filled, most;
} candidates;

static bool before(float rank, int32_t expert, float other, int32_t other_expert) {
    return rank > other || (rank == other && expert < other_expert);
}

/* The flock is small, so insertion into a sorted list beats sorting. `ranks` may be the affinities. */
static void insert(candidates *c, float rank, float affinity, int32_t expert) {
    size_t last = c->most - 1;
    if (c->most == 0 || (c->filled > last && !before(rank, expert, c->ranks[last], c->experts[last]))) {
        return;
    }
    size_t at = c->filled < c->most ? c->filled++ : last;
    for (; at > 0 && before(rank, expert, c->ranks[at - 1], c->experts[at - 1]); at--) {
        c->ranks[at] = c->ranks[at - 1];
        c->affinities[at] = c->affinities[at - 1];
        c->experts[at] = c->experts[at - 1];
    }
    c->ranks[at] = rank;
    c->affinities[at] = affinity;
    c->experts[at] = expert;
}

static bool holds(const int32_t *experts, size_t n, int32_t expert) {
    for (size_t i = 0; i < n; i++) {
        if (experts[i] == expert) {
            return true;
        }
    }
    return false;
}

/* A token's flock while experts are looked at one after another, in any order. */
typedef struct gathering {
    dm_nash_router *router;
    size_t token;
    candidates flock, kept; /* by affinity less price; and, where there are prices, the best by affinity alone */
    float least, greatest;  /* finite affinity */
} gathering;

static gathering gather(dm_nash_router *it, size_t token) {
    size_t flock_size = (size_t)it->rules.flock, keep = (size_t)it->rules.keep_top;
    float *affinities = it->affinities + token * flock_size;
    candidates flock = {affinities, affinities, it->candidates + token * flock_size, 0, flock_size - (size_t)it->rules.residents};
    candidates kept = {0};
    if (it->rules.price != NULL) {
        flock.ranks = it->ranks + token * flock_size;
        kept = (candidates){it->kept_affinities + token * keep, it->kept_affinities + token * keep, it->kept + token * keep, 0,
                            keep};
    }
    return (gathering){it, token, flock, kept, INFINITY, -INFINITY};
}

static void look_at(gathering *g, int32_t expert, float affinity) {
    const float *price = g->router->rules.price;
    if (fabsf(affinity) < FLT_MAX) {
        g->least = affinity < g->least ? affinity : g->least;
        g->greatest = affinity > g->greatest ? affinity : g->greatest;
    }
    insert(&g->flock, price != NULL ? affinity - price[expert] : affinity, affinity, expert);
    insert(&g->kept, affinity, affinity, expert);
}

/* Takes in those to be kept, in the place of the last; then all go in the order of affinity. */
static void forget_prices(gathering *g) {
    candidates *flock = &g->flock;
    for (size_t i = 0, last = flock->filled; i < g->kept.filled; i++) {
        if (!holds(flock->experts, flock->filled, g->kept.experts[i])) {
            do {
                last--;
            } while (holds(g->kept.experts, g->kept.filled, flock->experts[last]));
            flock->experts[last] = g->kept.experts[i];
            flock->affinities[last] = g->kept.affinities[i];
        }
    }
    candidates sorted = {flock->affinities, flock->affinities, flock->experts, 0, flock->most};
    for (size_t i = 0; i < flock->filled; i++) {
        float affinity = flock->affinities[i];
        insert(&sorted, affinity, affinity, flock->experts[i]);
    }
}

/* What else there is, and may not be chosen, fills up a flock that lacks others. */
static void fill_up(candidates *flock) {
    for (int32_t e = 0, known = (int32_t)flock->filled; flock->filled < flock->most; e++) {
        if (!holds(flock->experts, (size_t)known, e)) {
            flock->affinities[flock->filled] = -INFINITY;
            flock->experts[flock->filled++] = e;
        }
    }
}

/* What an expert is worth to a token whose best by affinity has `greatest`. */
static float payoff_of(const dm_nash_router *it, float affinity, float greatest) {
    if (!it->rules.gates) {
        return affinity;
    }
    return greatest > -FLT_MAX ? expf(0.5f * (affinity - greatest)) : 0.0f; /* not one that is a number: all the same */
}

static void finish(gathering *g) {
    const dm_nash_router *it = g->router;
    candidates *flock = &g->flock;
    if (it->rules.price != NULL) {
        forget_prices(g);
    }
    float greatest = payoff_of(it, g->greatest, g->greatest), least = payoff_of(it, g->least, g->greatest);
    g->router->ranges[g->token] = g->greatest > g->least ? greatest - least : 0.0f;
    for (size_t i = 0; i < flock->filled; i++) {
        flock->affinities[i] = payoff_of(it, flock->affinities[i], g->greatest);
    }
    fill_up(flock);
}

static void flock_of(dm_nash_router *it, const float *logits, const float *bias, size_t token) {
    gathering g = gather(it, token);
    for (int32_t e = 0; e < it->rules.n_experts; e++) {
        float own = bias != NULL ? bias[e] : 0.0f;
        if (own != -INFINITY) {
            look_at(&g, e, affinity_of(logits[e], own));
        }
    }
    finish(&g);
}

void dm_nash_router_offer(dm_nash_router *it, size_t token, const int32_t *experts, const float *affinities, size_t n,
                          const bool *off) {
    gathering g = gather(it, token);
    for (size_t j = 0; j < n; j++) {
        int32_t expert = experts != NULL ? experts[j] : (int32_t)j;
        if (isfinite(affinities[j]) && (off == NULL || !off[expert])) {
            look_at(&g, expert, affinities[j]);
        }
    }
    finish(&g);
}

void dm_nash_router_flock(dm_nash_router *it, const float *logits, size_t stride, const float *bias, size_t begin, size_t end) {
    for (size_t token = begin; token < end; token++) {
        flock_of(it, logits + token * stride, bias, token);
    }
}

/* What a token that plays alone pays for an expert, as the game has it. */
static double fetch_price(const dm_nash_router *it, const dm_nash_state *state, int32_t expert) {
    double share = state->tau != NULL ? (double)state->tau[expert] / state->tau_slowest : 1.0;
    return it->rules.gamma * state->spread * share;
}

static void welcome(dm_nash_router *it, const float *logits, const float *bias, size_t token, const dm_nash_state *state) {
    gathering g = gather(it, token);
    candidates *flock = &g.flock;
    candidates residents = {it->resident_ranks, it->resident_affinities, it->residents, 0, (size_t)it->rules.residents};
    const int32_t best = flock->experts[0];
    const float greatest = affinity_of(logits[best], bias != NULL ? bias[best] : 0.0f);
    while (flock->filled < flock->most && flock->affinities[flock->filled] > -INFINITY) {
        flock->filled++; /* dm_nash_router_flock() has found them */
    }
    for (int32_t e = 0; e < it->rules.n_experts; e++) {
        float own = bias != NULL ? bias[e] : 0.0f;
        if (own != -INFINITY && !holds(flock->experts, flock->filled, e)) {
            float payoff = payoff_of(it, affinity_of(logits[e], own), greatest);
            insert(&residents, (float)((double)payoff - fetch_price(it, state, e)), payoff, e);
        }
    }
    flock->most = (size_t)it->rules.flock;
    for (size_t i = 0; i < residents.filled; i++) {
        insert(flock, residents.affinities[i], residents.affinities[i], residents.experts[i]);
    }
    fill_up(flock);
}

void dm_nash_router_welcome(dm_nash_router *it, const float *logits, size_t stride, const float *bias, size_t begin, size_t end,
                            const dm_nash_state *state) {
    for (size_t token = begin; token < end; token++) {
        welcome(it, logits + token * stride, bias, token, state);
    }
}

float dm_nash_router_range(const dm_nash_router *it, size_t token) {
    return it->ranges[token];
}

float dm_nash_router_flock_range(const dm_nash_router *it, size_t token) {
    const float *affinities = dm_nash_router_affinities(it, token);
    float least = INFINITY, greatest = -INFINITY;
    for (int32_t j = 0; j < it->rules.flock; j++) {
        if (fabsf(affinities[j]) < FLT_MAX) {
            least = affinities[j];
            greatest = greatest > least ? greatest : least;
        }
    }
    return greatest > least ? greatest - least : 0.0f;
}

const int32_t *dm_nash_router_candidates(const dm_nash_router *it, size_t token) {
    return it->candidates + token * (size_t)it->rules.flock;
}

const float *dm_nash_router_affinities(const dm_nash_router *it, size_t token) {
    return it->affinities + token * (size_t)it->rules.flock;
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
        .theta = r->gates ? exp(sqrt(r->theta) - 1.0) : r->theta, /* ln(1/theta) below the best: there, 1 - sqrt(theta) */
        .eps = 1e-9,
        .most_sweeps = (size_t)r->sweeps,
        .threads = 1,
        .on_sweep = it->on_sweep,
        .on_sweep_user = it->on_sweep_user,
    };
    game.costs.beta = n > 1 ? r->beta : 0.0; /* who plays alone crowds nobody */
    game.costs.price = r->price;
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
        double own = c->price != NULL ? (double)c->price[e] : 0.0;
        it->prices[e] = (float)(c->beta * users / mean + fetch / users + own);
    }
}

/* Everybody answers the same prices once; then the regret is looked for against the costs as they have become. */
static void answer_once(dm_nash_router *it, const dm_routing_game *game, size_t first, int32_t *experts,
                        dm_routing_game_result *result) {
    dm_routing_game fixed = *game, after = *game;
    price_model_choice(it, game, first);
    fixed.costs = (dm_routing_game_costs){.price = it->prices};
    fixed.most_sweeps = 1;
    fixed.on_sweep = after.on_sweep = NULL; /* what they play is no game of its own */
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

void dm_nash_router_watch(dm_nash_router *it, dm_routing_game_sweep_fn on_sweep, void *user) {
    it->on_sweep = on_sweep;
    it->on_sweep_user = user;
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
    if (it->rules.price != NULL) {
        it->ranks = dm_alloc(pairs, sizeof *it->ranks);
        size_t kept = it->tokens * (size_t)it->rules.keep_top; /* no more than pairs */
        it->kept_affinities = dm_alloc(kept, sizeof *it->kept_affinities);
        it->kept = dm_alloc(kept, sizeof *it->kept);
        if (it->ranks == NULL || it->kept_affinities == NULL || it->kept == NULL) {
            return false;
        }
    }
    if (it->rules.residents > 0) {
        size_t residents = (size_t)it->rules.residents;
        it->resident_ranks = dm_alloc(residents, sizeof *it->resident_ranks);
        it->resident_affinities = dm_alloc(residents, sizeof *it->resident_affinities);
        it->residents = dm_alloc(residents, sizeof *it->residents);
        if (it->resident_ranks == NULL || it->resident_affinities == NULL || it->residents == NULL) {
            return false;
        }
    }
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
                r->residents >= 0 && r->residents <= r->flock - r->top_k && (!r->gates || r->price == NULL) &&
                (r->residents == 0 || r->price == NULL) && r->min_experts <= r->top_k && r->keep_top >= 0 &&
                r->keep_top <= r->min_experts && r->sweeps >= 0 && r->beta >= 0.0 && r->gamma >= 0.0 && isfinite(r->beta) &&
                isfinite(r->gamma) && r->theta >= 0.0 && r->theta <= 1.0 && (r->min_experts == r->top_k || r->theta > 0.0);
    return good ? DM_OK : dm_fail(DM_ERR_INTERNAL, "a router's rules do not go together");
}

int32_t dm_nash_usual_flock(int32_t top_k, int32_t n_experts) {
    enum { STARLINGS = 7 /* Ballerini et al. 2008 */ };
    const int32_t wanted = 2 * top_k > STARLINGS ? 2 * top_k : STARLINGS;
    return wanted < n_experts ? wanted : n_experts;
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
    dm_free(it->ranks);
    dm_free(it->kept_affinities);
    dm_free(it->kept);
    dm_free(it->ranges);
    dm_free(it->prices);
    dm_free(it->users);
    dm_free(it->even);
    dm_free(it->resident_ranks);
    dm_free(it->resident_affinities);
    dm_free(it->residents);
    dm_free(it->scratch);
    dm_free(it);
}
