#include "moe/routing.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

enum { WINDOW = 1024 }; /* tokens over which spreads and wishes are averaged */

struct dm_routing {
    dm_routing_shape shape;
    int32_t most;  /* experts of a token, at most shape.top_k */
    bool welcomes; /* tokens look at experts in memory beside their best */
    double sleep;
    bool no_bias;
    dm_nash_router *router;
    float *bias;            /* [layers, experts] of the model */
    float *now;             /* [layers, experts] what counts: -INFINITY for experts that are disabled or asleep */
    bool *disabled;         /* [layers, experts] */
    bool *asleep;           /* [layers, experts] */
    float *wanted;          /* [layers, experts] share of recent tokens that would choose the expert were all awake */
    double *spreads;        /* [layers] running mean of the range of a token's affinities */
    uint64_t *seen;         /* [layers] tokens in it */
    int32_t *own;           /* [tokens, top_k] the model's own choice */
    float *tau;             /* [experts] */
    int32_t *used;          /* [experts] different experts of a game */
    bool *is_used;          /* [experts] */
    dm_residency residency; /* times NULL: none */
    /* what came of it */
    uint64_t chosen, changed, games, sweeps, asked, hits;
    uint64_t games_of[DM_ROUTING_MOST_SWEEPS + 1]; /* that took so many sweeps, or more */
    double max_regret;
};

/* ---- Options ------------------------------------------------------------- */

dm_router_options dm_router_default(void) {
    return (dm_router_options){.keep_top = 1, .sweeps = 8};
}

static bool is_plain(const dm_router_options *o) {
    return o->policy == DM_ROUTER_MODEL && o->max_experts == 0 && o->resident == 0 && o->sleep == 0.0 && !o->no_bias &&
           o->n_disabled == 0;
}

static dm_status check_counts(const dm_router_options *o, const dm_routing_shape *shape) {
    if (o->policy != DM_ROUTER_MODEL && o->policy != DM_ROUTER_NASH) {
        return dm_fail(DM_ERR_ARGUMENT, "unknown policy %d of the router", (int)o->policy);
    }
    if (o->payoff != DM_PAYOFF_GATE && o->payoff != DM_PAYOFF_AFFINITY) {
        return dm_fail(DM_ERR_ARGUMENT, "unknown payoff %d of the router", (int)o->payoff);
    }
    if (o->max_experts < 0 || o->max_experts > shape->top_k) {
        return dm_fail(DM_ERR_ARGUMENT, "at most %d experts per token: this model was trained with %d, expected 1 to as many",
                       o->max_experts, shape->top_k);
    }
    int32_t most = o->max_experts > 0 ? o->max_experts : shape->top_k;
    if (o->min_experts < 0 || o->min_experts > most) {
        return dm_fail(DM_ERR_ARGUMENT, "at least %d experts per token: expected 1 to %d", o->min_experts, most);
    }
    if (o->flock != 0 && (o->flock < most || o->flock > shape->experts)) {
        return dm_fail(DM_ERR_ARGUMENT, "a flock of %d experts: expected %d (what a token uses) to %d (what a layer has)",
                       o->flock, most, shape->experts);
    }
    if (o->flock_resident < -1 || o->flock_resident > shape->experts) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "%d experts in memory that a token looks at: expected 1 to the layer's %d, 0 for as many as it "
                       "uses, or -1 for none",
                       o->flock_resident, shape->experts);
    }
    if (o->keep_top < 0 || o->sweeps < 0 || o->chunk < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "the experts kept, the sweeps and the chunk of a router are counts: expected 0 or more");
    }
    if (o->resident < 0 || o->resident > shape->experts) {
        return dm_fail(DM_ERR_ARGUMENT, "%d resident experts: expected 1 to the layer's %d, or 0", o->resident, shape->experts);
    }
    if (o->resident > 0 && shape->residency != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "resident experts are simulated where all are in memory: this model's are streamed");
    }
    if (o->evict != NULL && o->resident == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a policy of eviction needs a number of resident experts");
    }
    return DM_OK;
}

static dm_status check_prices(const dm_router_options *o) {
    if (!(o->gamma >= 0.0 && o->beta >= 0.0 && isfinite(o->gamma) && isfinite(o->beta))) {
        return dm_fail(DM_ERR_ARGUMENT, "gamma and beta are prices: expected 0 or more");
    }
    if (!(o->theta >= 0.0 && o->theta <= 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "theta is %g, a share of the best expert's probability: expected 0 to 1", o->theta);
    }
    if (o->theta == 0.0 && o->min_experts > 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a least number of experts needs theta, the share of the best one's probability below "
                                        "which the others are left out");
    }
    if (!(o->sleep >= 0.0 && o->sleep < 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "experts that are wanted by less than %g of the mean cannot sleep: expected 0 to below 1",
                       o->sleep);
    }
    return DM_OK;
}

static dm_nash_rules rules_of(const dm_router_options *o, const dm_routing_shape *shape) {
    bool nash = o->policy == DM_ROUTER_NASH;
    dm_nash_rules r = {.n_experts = shape->experts, .top_k = o->max_experts > 0 ? o->max_experts : shape->top_k};
    r.flock = !nash ? r.top_k : o->flock > 0 ? o->flock : dm_nash_usual_flock(r.top_k, shape->experts);
    r.theta = nash ? o->theta : 0.0;
    r.min_experts = r.theta == 0.0 ? r.top_k : o->min_experts > 0 ? o->min_experts : 1;
    r.keep_top = nash && o->keep_top < r.min_experts ? o->keep_top : nash ? r.min_experts : 0;
    r.sweeps = !nash ? 1 : o->sweeps < DM_ROUTING_MOST_SWEEPS ? o->sweeps : DM_ROUTING_MOST_SWEEPS;
    r.beta = nash ? o->beta : 0.0;
    r.gamma = nash ? o->gamma : 0.0;
    r.gates = o->payoff == DM_PAYOFF_GATE && (r.beta > 0.0 || r.gamma > 0.0); /* without costs: the model's choice to the bit */
    if (r.gamma > 0.0 && (o->resident > 0 || shape->residency != NULL) && o->flock_resident >= 0) {
        int32_t wanted = o->flock_resident > 0 ? o->flock_resident : r.top_k, room = shape->experts - r.flock;
        r.residents = wanted < room ? wanted : room;
        r.flock += r.residents;
    }
    return r;
}

/* ---- Experts that are off ------------------------------------------------ */

static size_t at(const dm_routing *it, int32_t layer) {
    return (size_t)layer * (size_t)it->shape.experts;
}

static dm_status disable(dm_routing *it, dm_expert_id id) {
    if (id.layer < -1 || id.layer >= it->shape.layers || id.expert < 0 || id.expert >= it->shape.experts) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no expert %d:%d to disable: this model has layers 0 to %d with experts 0 to %d",
                       id.layer, id.expert, it->shape.layers - 1, it->shape.experts - 1);
    }
    int32_t first = id.layer >= 0 ? id.layer : 0, last = id.layer >= 0 ? id.layer : it->shape.layers - 1;
    for (int32_t l = first; l <= last; l++) {
        it->disabled[at(it, l) + (size_t)id.expert] = true;
    }
    return DM_OK;
}

static int32_t count_awake(const dm_routing *it, int32_t layer) {
    int32_t awake = 0;
    for (int32_t e = 0; e < it->shape.experts; e++) {
        size_t i = at(it, layer) + (size_t)e;
        awake += !it->disabled[i] && !it->asleep[i];
    }
    return awake;
}

static dm_status disable_all(dm_routing *it, const dm_router_options *o, int32_t most) {
    for (size_t i = 0; i < o->n_disabled; i++) {
        DM_TRY(disable(it, o->disabled[i]));
    }
    for (int32_t l = 0; l < it->shape.layers; l++) {
        if (count_awake(it, l) < most) {
            return dm_fail(DM_ERR_ARGUMENT, "layer %d has %d experts left after the disabled ones, a token uses %d", l,
                           count_awake(it, l), most);
        }
    }
    return DM_OK;
}

static void set_biases(dm_routing *it, int32_t layer) {
    for (size_t i = at(it, layer), end = i + (size_t)it->shape.experts; i < end; i++) {
        it->now[i] = it->disabled[i] || it->asleep[i] ? -INFINITY : it->no_bias ? 0.0f : it->bias[i];
    }
}

/* Who has been wanted too little sleeps, as long as enough are awake; who is wanted twice as much again wakes. */
static void change_sleepers(dm_routing *it, int32_t layer) {
    const double even = (double)it->shape.top_k / it->shape.experts;
    int32_t awake = count_awake(it, layer);
    for (size_t i = at(it, layer), end = i + (size_t)it->shape.experts; i < end; i++) {
        double share = (double)it->wanted[i] / even;
        if (it->asleep[i] && share > 2 * it->sleep) {
            it->asleep[i] = false;
            awake++;
        } else if (!it->asleep[i] && !it->disabled[i] && share < it->sleep && awake > it->shape.top_k) {
            it->asleep[i] = true;
            awake--;
        }
    }
    set_biases(it, layer);
}

static void note_wishes(dm_routing *it, int32_t layer, size_t n) {
    float *wanted = it->wanted + at(it, layer);
    for (size_t t = 0; t < n; t++) {
        for (int32_t e = 0; e < it->shape.experts; e++) {
            wanted[e] -= wanted[e] / (float)WINDOW;
        }
        for (int32_t j = 0; j < it->shape.top_k; j++) {
            wanted[it->own[t * (size_t)it->shape.top_k + (size_t)j]] += 1.0f / (float)WINDOW;
        }
    }
}

/* ---- Choosing ------------------------------------------------------------ */

void dm_routing_look(dm_routing *it, int32_t layer, const float *logits, size_t begin, size_t end) {
    const size_t experts = (size_t)it->shape.experts, top_k = (size_t)it->shape.top_k;
    const dm_router model = {.n_experts = it->shape.experts, .top_k = it->shape.top_k, .bias = it->bias + at(it, layer)};
    dm_router_choose(&model, logits + begin * experts, end - begin, it->own + begin * top_k);
    dm_nash_router_flock(it->router, logits, experts, it->now + at(it, layer), begin, end);
}

static void note_spread(dm_routing *it, int32_t layer, size_t token) {
    uint64_t seen = it->seen[layer] < WINDOW ? ++it->seen[layer] : WINDOW;
    it->spreads[layer] += ((double)dm_nash_router_range(it->router, token) - it->spreads[layer]) / (double)seen;
}

static void count_changes(dm_routing *it, size_t token, const int32_t *experts) {
    const int32_t *own = it->own + token * (size_t)it->shape.top_k;
    for (int32_t j = 0; j < it->shape.top_k && experts[j] >= 0; j++) {
        bool same = false;
        for (int32_t i = 0; i < it->shape.top_k; i++) {
            same = same || own[i] == experts[j];
        }
        it->changed += !same;
        it->chosen++;
    }
}

/* The different experts of a game in the order of their first use go to the residency. */
static void use_experts(dm_routing *it, int32_t layer, const int32_t *experts, size_t n) {
    size_t used = 0;
    memset(it->is_used, 0, (size_t)it->shape.experts * sizeof *it->is_used);
    for (size_t i = 0; i < n * (size_t)it->shape.top_k; i++) {
        if (experts[i] >= 0 && !it->is_used[experts[i]]) {
            it->is_used[experts[i]] = true;
            it->used[used++] = experts[i];
        }
    }
    it->hits += it->residency.use(it->residency.user, layer, it->used, used);
    it->asked += used;
}

/* Rows of `most` experts become rows of top_k, the rest of each -1. */
static void widen_rows(const dm_routing *it, size_t n, int32_t *experts) {
    const size_t most = (size_t)it->most, top_k = (size_t)it->shape.top_k;
    for (size_t t = n; most < top_k && t-- > 0;) {
        memmove(experts + t * top_k, experts + t * most, most * sizeof *experts);
        for (size_t j = most; j < top_k; j++) {
            experts[t * top_k + j] = -1;
        }
    }
}

static void play(dm_routing *it, int32_t layer, const float *logits, size_t first, size_t n, int32_t *experts) {
    const bool known = it->residency.times != NULL;
    dm_nash_state state = {.spread = it->spreads[layer]};
    dm_routing_game_result result;
    if (known) {
        it->residency.times(it->residency.user, layer, it->tau);
        state.tau = it->tau;
        state.tau_slowest = it->residency.slowest;
    }
    if (it->welcomes) {
        dm_nash_router_welcome(it->router, logits, (size_t)it->shape.experts, it->now + at(it, layer), first, first + n, &state);
    }
    dm_nash_router_play(it->router, first, n, &state, experts, &result);
    widen_rows(it, n, experts);
    it->games++;
    it->sweeps += result.sweeps;
    it->games_of[result.sweeps < DM_ROUTING_MOST_SWEEPS ? result.sweeps : DM_ROUTING_MOST_SWEEPS]++;
    it->max_regret = result.max_regret > it->max_regret ? result.max_regret : it->max_regret;
    if (known) {
        use_experts(it, layer, experts, n);
    }
}

void dm_routing_choose(dm_routing *it, int32_t layer, const float *logits, size_t n, bool together, int32_t *experts) {
    const size_t top_k = (size_t)it->shape.top_k;
    for (size_t t = 0; t < n; t++) {
        note_spread(it, layer, t);
        if (!together) {
            play(it, layer, logits, t, 1, experts + t * top_k);
        }
    }
    if (together) {
        play(it, layer, logits, 0, n, experts);
    }
    for (size_t t = 0; t < n; t++) {
        count_changes(it, t, experts + t * top_k);
    }
    if (it->sleep > 0.0) { /* for the passes after this one, whose tokens are all later */
        note_wishes(it, layer, n);
        change_sleepers(it, layer);
    }
}

void dm_routing_watch(dm_routing *it, dm_routing_game_sweep_fn on_sweep, void *user) {
    dm_nash_router_watch(it->router, on_sweep, user);
}

/* ---- Figures ------------------------------------------------------------- */

static double median_sweeps(const dm_routing *it) {
    uint64_t below = 0;
    for (int i = 0; i <= DM_ROUTING_MOST_SWEEPS; i++) {
        below += it->games_of[i];
        if (2 * below >= it->games) {
            return i;
        }
    }
    return 0.0;
}

void dm_routing_report(const dm_routing *it, dm_routing_stats *out, double *missed) {
    size_t all = (size_t)it->shape.layers * (size_t)it->shape.experts, asleep = 0;
    for (size_t i = 0; i < all; i++) {
        asleep += it->asleep[i];
    }
    out->changed = it->chosen > 0 ? (double)it->changed / (double)it->chosen : 0.0;
    out->games = it->games;
    out->sweeps = it->games > 0 ? median_sweeps(it) : 0.0;
    out->mean_sweeps = it->games > 0 ? (double)it->sweeps / (double)it->games : 0.0;
    out->max_regret = it->max_regret;
    out->asleep = (double)asleep / (double)all;
    if (it->residency.times != NULL) {
        out->hit_rate = it->asked > 0 ? (double)it->hits / (double)it->asked : 0.0;
        *missed = (double)(it->asked - it->hits);
    }
}

/* ---- Memory -------------------------------------------------------------- */

static bool take_memory(dm_routing *it, size_t tokens) {
    size_t layers = (size_t)it->shape.layers, experts = (size_t)it->shape.experts, own = 0;
    if (!dm_mul_size(tokens, (size_t)it->shape.top_k, &own)) {
        dm_fail(DM_ERR_MEMORY, "routing %zu tokens at a time does not fit into memory", tokens);
        return false;
    }
    it->bias = dm_alloc(layers * experts, sizeof *it->bias);
    it->now = dm_alloc(layers * experts, sizeof *it->now);
    it->disabled = dm_alloc(layers * experts, sizeof *it->disabled);
    it->asleep = dm_alloc(layers * experts, sizeof *it->asleep);
    it->wanted = dm_alloc(layers * experts, sizeof *it->wanted);
    it->spreads = dm_alloc(layers, sizeof *it->spreads);
    it->seen = dm_alloc(layers, sizeof *it->seen);
    it->own = dm_alloc(own, sizeof *it->own);
    it->tau = dm_alloc(experts, sizeof *it->tau);
    it->used = dm_alloc(experts, sizeof *it->used);
    it->is_used = dm_alloc(experts, sizeof *it->is_used);
    return it->bias != NULL && it->now != NULL && it->disabled != NULL && it->asleep != NULL && it->wanted != NULL &&
           it->spreads != NULL && it->seen != NULL && it->own != NULL && it->tau != NULL && it->used != NULL &&
           it->is_used != NULL;
}

static dm_status build(dm_routing *it, const dm_router_options *o, size_t tokens) {
    const dm_nash_rules rules = rules_of(o, &it->shape);
    it->most = rules.top_k;
    it->welcomes = rules.residents > 0;
    if (!take_memory(it, tokens)) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < (size_t)it->shape.layers * (size_t)it->shape.experts; i++) {
        it->bias[i] = it->shape.bias != NULL ? it->shape.bias[i] : 0.0f;
        it->wanted[i] = (float)it->shape.top_k / (float)it->shape.experts;
    }
    if (it->shape.residency != NULL) {
        it->residency = *it->shape.residency;
    }
    it->shape.bias = NULL;
    it->shape.residency = NULL;
    DM_TRY(disable_all(it, o, rules.top_k));
    for (int32_t l = 0; l < it->shape.layers; l++) {
        set_biases(it, l);
    }
    if (o->resident > 0) {
        dm_residency_rule rule;
        DM_TRY(dm_residency_parse(o->evict, &rule));
        DM_TRY(dm_residency_simulate(it->shape.layers, it->shape.experts, o->resident, &rule, &it->residency));
    }
    return dm_nash_router_create(&rules, tokens, &it->router);
}

dm_status dm_routing_create(const dm_router_options *options, const dm_routing_shape *shape, size_t tokens, dm_routing **out) {
    *out = NULL;
    DM_TRY(check_counts(options, shape));
    DM_TRY(check_prices(options));
    if (is_plain(options)) {
        return DM_OK;
    }
    dm_routing *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->shape = *shape;
    it->sleep = options->sleep;
    it->no_bias = options->no_bias;
    dm_status status = build(it, options, tokens);
    if (status != DM_OK) {
        dm_routing_free(it);
        return status;
    }
    *out = it;
    return DM_OK;
}

bool dm_routing_token_by_token(const dm_routing *it) {
    return it->residency.shared;
}

void dm_routing_free(dm_routing *it) {
    if (it == NULL) {
        return;
    }
    if (it->residency.free != NULL) {
        it->residency.free(it->residency.user);
    }
    dm_nash_router_free(it->router);
    void *const owned[] = {it->bias, it->now, it->disabled, it->asleep, it->wanted, it->spreads,
                           it->seen, it->own, it->tau,      it->used,   it->is_used};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        dm_free(owned[i]);
    }
    dm_free(it);
}
