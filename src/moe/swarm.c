/* The joined decision (include/dilmodeli.h): flock, game and gates, one call. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/vector.h"
#include "moe/router.h"
#include "moe/swarm_flocks.h"

enum {
    GRAPH_FROM = 400,    /* experts; measured with keys of 1,024 numbers (dm-bench-flock) */
    FLOCKS_OF_GRAPH = 8, /* as many flocks must fit into the experts, or a walk looks at most of them */
};

dm_swarm_options dm_swarm_default(int32_t top_k) {
    return (dm_swarm_options){.top_k = top_k, .min_experts = top_k, .keep_top = 1, .sweeps = 8};
}

/* ---- Checks ---- */

static dm_status check_counts(const dm_swarm_options *o, int32_t experts) {
    if (o->top_k < 1 || o->top_k > experts) {
        return dm_fail(DM_ERR_ARGUMENT, "top_k is %d: expected 1 to %d experts", o->top_k, experts);
    }
    if (o->min_experts < 1 || o->min_experts > o->top_k) {
        return dm_fail(DM_ERR_ARGUMENT, "min_experts is %d: expected 1 to top_k, %d", o->min_experts, o->top_k);
    }
    if (o->keep_top < 0 || o->keep_top > o->min_experts) {
        return dm_fail(DM_ERR_ARGUMENT, "keep_top is %d: expected 0 to min_experts, %d", o->keep_top, o->min_experts);
    }
    if (o->flock != 0 && (o->flock < o->top_k || o->flock > experts)) {
        return dm_fail(DM_ERR_ARGUMENT, "a flock of %d: expected 0, or top_k to all experts, %d to %d", o->flock, o->top_k,
                       experts);
    }
    if (o->sweeps < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "sweeps is %d: expected 0 or more", o->sweeps);
    }
    if (o->search != DM_SWARM_AUTO && o->search != DM_SWARM_EXACT && o->search != DM_SWARM_GRAPH) {
        return dm_fail(DM_ERR_ARGUMENT, "%d is no way to search", (int)o->search);
    }
    return DM_OK;
}

/* Names what is not finite and 0 or more. */
static dm_status check_amount(const char *name, double value) {
    return value >= 0.0 && isfinite(value) ? DM_OK
                                           : dm_fail(DM_ERR_ARGUMENT, "%s is %g: expected a number of 0 or more", name, value);
}

static dm_status check_costs(const dm_swarm_options *o, size_t experts) {
    DM_TRY(check_amount("beta", o->beta));
    DM_TRY(check_amount("gamma", o->gamma));
    DM_TRY(check_amount("spread", o->spread));
    if (o->min_experts < o->top_k && !(o->theta > 0.0 && o->theta <= 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "theta is %g: expected more than 0 and up to 1, with min_experts below top_k", o->theta);
    }
    if (o->tau != NULL && !(o->tau_slowest > 0.0 && isfinite(o->tau_slowest))) {
        return dm_fail(DM_ERR_ARGUMENT, "tau_slowest is %g: expected more than 0 seconds, with tau", o->tau_slowest);
    }
    for (size_t e = 0; e < experts; e++) {
        if (o->tau != NULL && !(o->tau[e] >= 0.0f && isfinite(o->tau[e]))) {
            return dm_fail(DM_ERR_ARGUMENT, "tau of expert %zu is %g: expected 0 seconds or more", e, (double)o->tau[e]);
        }
        if (o->price != NULL && !isfinite(o->price[e])) {
            return dm_fail(DM_ERR_ARGUMENT, "the price of expert %zu is not finite", e);
        }
    }
    return DM_OK;
}

static dm_status check_tokens(const float *tokens, size_t n, size_t dim, size_t top_k) {
    size_t numbers, choices;
    if (n > INT32_MAX || !dm_mul_size(n, dim * sizeof *tokens, &numbers) || !dm_mul_size(n, top_k * sizeof(float), &choices)) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu tokens at once are too many", n);
    }
    for (size_t i = 0; i < n * dim; i++) {
        if (!isfinite(tokens[i])) {
            return dm_fail(DM_ERR_ARGUMENT, "number %zu of token %zu is not finite", i % dim, i / dim);
        }
    }
    return DM_OK;
}

/* ---- The decision ---- */

/* What it is made of. */
typedef struct decision {
    dm_swarm *swarm;
    const dm_swarm_options *options;
    dm_swarm_query query;
    dm_nash_router *router;
    uint64_t *loads; /* [experts] */
    dm_swarm_result result;
} decision;

static size_t flock_size(const dm_swarm_options *o, size_t experts) {
    const size_t wanted = (size_t)o->flock;
    return o->flock == 0 ? (size_t)dm_nash_usual_flock(o->top_k, (int32_t)experts) : wanted < experts ? wanted : experts;
}

static dm_swarm_query query_of(const dm_swarm *swarm, const float *tokens, size_t n, const dm_swarm_options *o) {
    size_t able = swarm->keys.n;
    for (size_t e = 0; e < swarm->keys.n && o->off != NULL; e++) {
        able -= o->off[e];
    }
    dm_swarm_query query = {.tokens = tokens, .n = n, .off = o->off, .goes_on = o->goes_on};
    query.flock = flock_size(o, swarm->keys.n);
    query.least = (size_t)o->top_k < able ? (size_t)o->top_k : able;
    return query;
}

static dm_status make_room(decision *d) {
    const dm_swarm_options *o = d->options;
    const dm_nash_rules rules = {
        .n_experts = (int32_t)d->swarm->keys.n,
        .top_k = o->top_k,
        .min_experts = o->min_experts,
        .flock = (int32_t)d->query.flock,
        .keep_top = o->keep_top,
        .sweeps = o->sweeps,
        .beta = o->beta,
        .gamma = o->gamma,
        .theta = o->min_experts < o->top_k ? o->theta : 0.0,
        .price = o->price,
    };
    DM_TRY(dm_nash_router_create(&rules, d->query.n, &d->router));
    d->loads = dm_alloc(d->swarm->keys.n, sizeof *d->loads);
    return d->loads != NULL ? DM_OK : DM_ERR_MEMORY;
}

static dm_status find_flocks(decision *d) {
    size_t experts = d->swarm->keys.n, evaluations;
    d->result.graph = d->options->search == DM_SWARM_AUTO ? experts >= GRAPH_FROM && d->query.flock <= experts / FLOCKS_OF_GRAPH
                                                          : d->options->search == DM_SWARM_GRAPH;
    DM_TRY(d->result.graph ? dm_swarm_walk(d->swarm, &d->query, d->router, &evaluations)
                           : dm_swarm_scan(d->swarm, &d->query, d->router, &evaluations));
    d->result.evaluations = (double)evaluations / (double)d->query.n;
    d->result.alignment = NAN;
    return d->options->alignment ? dm_swarm_alignment(d->swarm, &d->query, d->router, &d->result.alignment) : DM_OK;
}

static double spread_of(const decision *d) {
    double sum = 0.0;
    for (size_t t = 0; t < d->query.n; t++) {
        sum += (double)dm_nash_router_flock_range(d->router, t);
    }
    return d->options->spread > 0.0 ? d->options->spread : sum / (double)d->query.n;
}

static void play(decision *d, int32_t *experts) {
    const dm_nash_state state = {d->options->tau, d->options->tau_slowest, spread_of(d)};
    dm_routing_game_result game;
    dm_nash_router_play(d->router, 0, d->query.n, &state, experts, &game);
    d->result.potential_before = game.potential_before;
    d->result.potential_after = game.potential_after;
    d->result.max_regret = game.max_regret;
    d->result.sweeps = game.sweeps;
    d->result.moves = game.moves;
    d->result.at_rest = game.at_rest;
}

/* gates [top_k] = the softmax of a token's affinities over the experts it has; both are in the order of affinity. */
static size_t weigh(const decision *d, size_t token, const int32_t *experts, float *gates) {
    const int32_t *candidates = dm_nash_router_candidates(d->router, token);
    const float *affinities = dm_nash_router_affinities(d->router, token);
    size_t top_k = (size_t)d->options->top_k, n = 0;
    memset(gates, 0, top_k * sizeof *gates);
    for (size_t j = 0; j < d->query.flock && n < top_k; j++) {
        if (candidates[j] == experts[n]) {
            gates[n++] = affinities[j];
        }
    }
    if (n > 0) {
        dm_vector()->softmax(gates, n);
    }
    return n;
}

static void settle(decision *d, const int32_t *experts, float *gates) {
    size_t top_k = (size_t)d->options->top_k, chosen = 0;
    for (size_t t = 0; t < d->query.n; t++) {
        chosen += weigh(d, t, experts + t * top_k, gates + t * top_k);
    }
    dm_router_count(experts, d->query.n, d->options->top_k, d->loads);
    d->result.maxvio = dm_router_maxvio(d->loads, (int32_t)d->swarm->keys.n);
    d->result.experts_per_token = (double)chosen / (double)d->query.n;
    dm_swarm_remember(d->swarm, d->router, d->query.flock, d->query.n - 1);
}

static dm_status decide(decision *d, int32_t *experts, float *gates) {
    DM_TRY(make_room(d));
    DM_TRY(find_flocks(d));
    play(d, experts);
    settle(d, experts, gates);
    return DM_OK;
}

dm_status dm_swarm_decide(dm_swarm *swarm, const float *tokens, size_t n, const dm_swarm_options *options, int32_t *experts,
                          float *gates, dm_swarm_result *result) {
    if (swarm == NULL || options == NULL || (n > 0 && (tokens == NULL || experts == NULL || gates == NULL))) {
        return dm_fail(DM_ERR_ARGUMENT, "a decision needs a swarm, options, tokens, and places for experts and gates");
    }
    DM_TRY(check_counts(options, (int32_t)swarm->keys.n));
    DM_TRY(check_costs(options, swarm->keys.n));
    DM_TRY(check_tokens(tokens, n, swarm->keys.dim, (size_t)options->top_k));
    decision d = {.swarm = swarm, .options = options, .query = query_of(swarm, tokens, n, options)};
    d.result = (dm_swarm_result){.at_rest = true, .alignment = NAN};
    dm_status status = n > 0 ? decide(&d, experts, gates) : DM_OK;
    dm_nash_router_free(d.router);
    dm_free(d.loads);
    if (status == DM_OK && result != NULL) {
        *result = d.result;
    }
    return status;
}
