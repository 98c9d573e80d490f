/* The Nash policy on given logits: the model's own choice where nothing costs, experts that are off, fewer experts, residency,
 * sleep, games between tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "moe/routing.h"

enum { TOKENS = 40, MOST_EXPERTS = 64, MOST_K = 8 };

typedef struct fixture {
    dm_random random;
    float logits[TOKENS * MOST_EXPERTS];
    float bias[MOST_EXPERTS];
    int32_t experts[TOKENS * MOST_K];
} fixture;

static void draw(fixture *f, size_t experts, bool ties) {
    for (size_t i = 0; i < TOKENS * experts; i++) {
        float x = (float)dm_random_normal(&f->random);
        f->logits[i] = ties ? roundf(x) : x;
    }
    for (size_t e = 0; e < experts; e++) {
        f->bias[e] = ties ? 0.0f : 0.3f * (float)dm_random_normal(&f->random);
    }
}

static dm_routing *make(const dm_router_options *o, int32_t experts, int32_t top_k, const float *bias) {
    const dm_routing_shape shape = {.layers = 1, .experts = experts, .top_k = top_k, .bias = bias};
    dm_routing *routing;
    if (dm_routing_create(o, &shape, TOKENS, &routing) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return routing;
}

static void choose(fixture *f, dm_routing *routing, size_t n, bool together) {
    dm_routing_look(routing, 0, f->logits, 0, n / 2);
    dm_routing_look(routing, 0, f->logits, n / 2, n);
    dm_routing_choose(routing, 0, f->logits, n, together, f->experts);
}

static dm_routing_stats report(const dm_routing *routing) {
    dm_routing_stats stats = {.hit_rate = NAN};
    double missed;
    dm_routing_report(routing, &stats, &missed);
    return stats;
}

static dm_router_options nash(void) {
    dm_router_options o = dm_router_default();
    o.policy = DM_ROUTER_NASH;
    return o;
}

/* ---- Nothing costs ---- */

static void free_experts_are_the_models_choice(void **state) {
    fixture *f = *state;
    for (int32_t round = 0; round < 60; round++) {
        int32_t experts = 1 + round, top_k = 1 + round % MOST_K;
        top_k = top_k < experts ? top_k : experts;
        draw(f, (size_t)experts, round % 2 == 1);
        if (round % 3 == 0) { /* what broken weights give is chosen last, and still in the model's order */
            f->logits[0] = NAN;
            f->logits[(size_t)experts] = -INFINITY;
            f->logits[2 * (size_t)experts] = INFINITY;
        }
        dm_router_options o = nash();
        o.flock = round % 4 < 2 ? experts : 0;
        dm_routing *routing = make(&o, experts, top_k, f->bias);
        const dm_router model = {.n_experts = experts, .top_k = top_k, .bias = f->bias};
        int32_t expected[TOKENS * MOST_K];
        dm_router_choose(&model, f->logits, TOKENS, expected);
        for (int together = 0; together < 2; together++) {
            choose(f, routing, TOKENS, together == 1);
            assert_memory_equal(f->experts, expected, TOKENS * (size_t)top_k * sizeof *expected);
        }
        assert_true(report(routing).changed == 0.0);
        dm_routing_free(routing);
    }
}

static void nothing_asked_for_is_nothing_made(void **state) {
    (void)state;
    const dm_router_options o = dm_router_default();
    assert_null(make(&o, 8, 2, NULL));
}

/* ---- Fewer experts ---- */

static void experts_far_below_the_best_are_left_out(void **state) {
    fixture *f = *state;
    const int32_t experts = 16, top_k = 4;
    for (int round = 0; round < 20; round++) {
        dm_router_options o = nash();
        o.theta = 0.02 + 0.04 * round;
        o.beta = round % 2 == 0 ? 0.0 : 1e-3; /* who plays alone crowds nobody; but payoffs are gates then */
        o.min_experts = 1 + round % 3;
        draw(f, (size_t)experts, false);
        dm_routing *routing = make(&o, experts, top_k, NULL);
        const dm_router model = {.n_experts = experts, .top_k = top_k};
        int32_t own[TOKENS * MOST_K];
        dm_router_choose(&model, f->logits, TOKENS, own);
        choose(f, routing, TOKENS, false);
        for (int32_t t = 0; t < TOKENS; t++) {
            const float *logits = f->logits + t * experts;
            for (int32_t j = 0; j < top_k; j++) { /* the ratio of probabilities is that of exponentials */
                int32_t e = own[t * top_k + j];
                bool near = exp((double)logits[e] - (double)logits[own[t * top_k]]) >= o.theta;
                assert_int_equal(f->experts[t * top_k + j], near || j < o.min_experts ? e : -1);
            }
        }
        dm_routing_free(routing);
    }
}

static void no_more_than_asked_for(void **state) {
    fixture *f = *state;
    for (int32_t most = 1; most <= 4; most++) {
        for (int policy = 0; policy < 2; policy++) {
            dm_router_options o = policy == 0 ? dm_router_default() : nash();
            o.max_experts = most;
            draw(f, 12, false);
            dm_routing *routing = make(&o, 12, 4, f->bias);
            const dm_router model = {.n_experts = 12, .top_k = 4, .bias = f->bias};
            int32_t own[TOKENS * MOST_K];
            dm_router_choose(&model, f->logits, TOKENS, own);
            choose(f, routing, TOKENS, policy == 1);
            for (int32_t i = 0; i < TOKENS * 4; i++) {
                assert_int_equal(f->experts[i], i % 4 < most ? own[i] : -1);
            }
            dm_routing_free(routing);
        }
    }
}

/* ---- Experts that are off ---- */

static void disabled_experts_are_never_used(void **state) {
    fixture *f = *state;
    const dm_expert_id off[] = {{0, 3}, {-1, 7}, {0, 0}};
    for (int policy = 0; policy < 2; policy++) {
        dm_router_options o = policy == 0 ? dm_router_default() : nash();
        o.disabled = off;
        o.n_disabled = 3;
        o.flock = policy == 0 ? 0 : 10; /* those that are off fill up the flock */
        draw(f, 10, true);
        f->logits[3] = f->logits[7] = 1e9f;
        f->logits[10] = NAN;
        dm_routing *routing = make(&o, 10, 4, NULL);
        choose(f, routing, TOKENS, policy == 1);
        for (size_t i = 0; i < (size_t)TOKENS * 4; i++) {
            assert_true(f->experts[i] > 0 && f->experts[i] != 3 && f->experts[i] != 7);
        }
        assert_true(report(routing).changed > 0.0);
        dm_routing_free(routing);
    }
}

/* Logits by which every token wants experts `first` and the one after it. */
static void all_want(fixture *f, size_t experts, size_t first) {
    for (size_t i = 0; i < TOKENS * experts; i++) {
        size_t e = i % experts;
        f->logits[i] = (e == first || e == first + 1 ? 5.0f : 0.0f) - 0.01f * (float)e;
    }
}

static void idle_experts_sleep_and_wake(void **state) {
    fixture *f = *state;
    dm_router_options o = dm_router_default();
    o.sleep = 0.2;
    dm_routing *routing = make(&o, 8, 2, NULL);
    all_want(f, 8, 0);
    for (int pass = 0; pass < 200; pass++) {
        choose(f, routing, TOKENS, false);
    }
    assert_true(fabs(report(routing).asleep - 6.0 / 8.0) < 1e-12); /* as many as a token uses stay awake */
    all_want(f, 8, 4);
    choose(f, routing, TOKENS, false);
    assert_true(f->experts[0] == 0 && f->experts[1] == 1); /* those who sleep are served by the next best */
    for (int pass = 0; pass < 20; pass++) {
        choose(f, routing, TOKENS, false);
    }
    assert_true(f->experts[0] == 4 && f->experts[1] == 5);
    dm_routing_free(routing);
}

/* ---- Residency ---- */

/* Hits of an LRU kept as a plain list, newest first. */
static size_t naive_hits(const int32_t *experts, size_t n, int32_t slots) {
    int32_t list[MOST_EXPERTS];
    int32_t kept = 0;
    size_t hits = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t at = 0;
        while (at < kept && list[at] != experts[i]) {
            at++;
        }
        hits += at < kept;
        kept += at == kept && kept < slots;
        at = at < kept ? at : kept - 1;
        memmove(list + 1, list, (size_t)at * sizeof *list);
        list[0] = experts[i];
    }
    return hits;
}

static void hits_are_those_of_an_lru(void **state) {
    fixture *f = *state;
    for (int32_t slots = 1; slots <= 16; slots += 3) {
        dm_router_options o = dm_router_default();
        o.resident = slots;
        draw(f, 16, false);
        dm_routing *routing = make(&o, 16, 3, NULL);
        choose(f, routing, TOKENS, false);
        double expected = (double)naive_hits(f->experts, (size_t)TOKENS * 3, slots) / (TOKENS * 3.0);
        assert_true(fabs(report(routing).hit_rate - expected) < 1e-12);
        dm_routing_free(routing);
    }
}

static double payoff(dm_router_payoff what, float affinity, float best) {
    return what == DM_PAYOFF_GATE ? exp(0.5 * ((double)affinity - (double)best)) : (double)affinity;
}

/* What each of 12 experts is worth to a token: its payoff, less 0.3 spreads where five others were used later. */
static void price_by_recency(dm_router_payoff what, const float *a, float best, const int32_t *newest, double spread,
                             double *worth) {
    for (int32_t e = 0; e < 12; e++) {
        int32_t newer = 0;
        for (int32_t other = 0; other < 12; other++) {
            newer += newest[other] > newest[e] ? 1 : 0;
        }
        worth[e] = payoff(what, a[e], best) - (newest[e] >= 0 && newer < 5 ? 0.0 : 0.3 * spread);
    }
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* A token alone takes the top k of payoff less the price of fetching what is not resident: of all experts, though its flock may
 * be as small as what it uses and as many residents. */
static void check_prices(fixture *f, dm_router_payoff what, int32_t flock) {
    dm_router_options o = nash();
    o.resident = 5;
    o.gamma = 0.3;
    o.flock = flock;
    o.payoff = what;
    draw(f, 12, false);
    dm_routing *routing = make(&o, 12, 3, NULL);
    choose(f, routing, TOKENS, false);
    int32_t newest[MOST_EXPERTS]; /* [12] when each was used last; -1: never */
    memset(newest, -1, sizeof newest);
    double spread = 0.0;
    int32_t clock = 0;
    for (int32_t t = 0; t < TOKENS; t++) {
        const float *a = f->logits + t * 12;
        float sorted[12];
        double worth[12], least = INFINITY;
        memcpy(sorted, a, sizeof sorted);
        qsort(sorted, 12, sizeof *sorted, by_value);
        spread += (payoff(what, sorted[11], sorted[11]) - payoff(what, sorted[0], sorted[11]) - spread) / (t + 1);
        price_by_recency(what, a, sorted[11], newest, spread, worth);
        int32_t top = 0;
        while (a[top] < sorted[11]) {
            top++;
        }
        assert_int_equal(f->experts[t * 3], top); /* keep_top; best affinity first */
        for (int32_t j = 1; j < 3; j++) {
            least = fmin(least, worth[f->experts[t * 3 + j]]);
        }
        for (int32_t e = 0; e < 12; e++) {
            bool in = e == top || e == f->experts[t * 3 + 1] || e == f->experts[t * 3 + 2];
            assert_true(in || worth[e] <= least + (what == DM_PAYOFF_GATE ? 1e-6 : 1e-9)); /* gates are floats */
        }
        int32_t in_order[3];
        memcpy(in_order, f->experts + t * 3, sizeof in_order);
        for (int32_t j = 0; j < 3; j++) {
            newest[in_order[j]] = clock++;
        }
    }
    assert_true(report(routing).changed > 0.05);
    dm_routing_free(routing);
}

static void fetching_is_priced(void **state) {
    for (int what = DM_PAYOFF_GATE; what <= DM_PAYOFF_AFFINITY; what++) {
        check_prices(*state, (dm_router_payoff)what, 12);
        check_prices(*state, (dm_router_payoff)what, 3);
        check_prices(*state, (dm_router_payoff)what, 0);
    }
}

/* ---- Games between tokens ---- */

static size_t different(const fixture *f, size_t n) {
    bool used[MOST_EXPERTS] = {false};
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += !used[f->experts[i]];
        used[f->experts[i]] = true;
    }
    return count;
}

static void tokens_together_share_fetches(void **state) {
    fixture *f = *state;
    size_t apart = 0, shared = 0, greedy = 0;
    for (int round = 0; round < 20; round++) {
        draw(f, 32, false);
        for (int kind = 0; kind < 3; kind++) {
            dm_router_options o = nash();
            o.gamma = kind == 0 ? 0.0 : 0.3;
            o.sweeps = kind == 2 ? 0 : 50;
            dm_routing *routing = make(&o, 32, 4, NULL);
            choose(f, routing, 8, true);
            size_t *sum = kind == 0 ? &apart : kind == 1 ? &shared : &greedy;
            *sum += different(f, 32);
            dm_routing_stats stats = report(routing);
            assert_true(stats.games == 1);
            assert_true(kind == 2 || stats.max_regret <= 1e-9);
            dm_routing_free(routing);
        }
    }
    assert_true(shared < 0.8 * (double)apart);
    assert_true(greedy < apart && shared < greedy);
}

static void crowds_are_dispersed(void **state) {
    fixture *f = *state;
    uint64_t loads[2][16] = {{0}};
    draw(f, 16, false);
    for (size_t t = 0; t < TOKENS; t++) { /* two favourites */
        f->logits[t * 16] += 2.0f;
        f->logits[t * 16 + 1] += 2.0f;
    }
    for (int kind = 0; kind < 2; kind++) {
        dm_router_options o = nash();
        o.beta = kind == 0 ? 0.0 : 4.0;
        o.keep_top = 0;
        o.flock = 16;
        dm_routing *routing = make(&o, 16, 2, NULL);
        choose(f, routing, TOKENS, true);
        dm_router_count(f->experts, TOKENS, 2, loads[kind]);
        dm_routing_free(routing);
    }
    assert_true(dm_router_maxvio(loads[1], 16) < 0.5 && dm_router_maxvio(loads[0], 16) > 2.0);
}

/* ---- Options ---- */

typedef struct refusal {
    dm_router_options o;
    const char *word;
} refusal;

static void options_that_do_not_fit_are_refused(void **state) {
    (void)state;
    const dm_expert_id none[] = {{0, 8}}, most[] = {{-1, 0}, {-1, 1}, {-1, 2}, {-1, 3}, {-1, 4}, {-1, 5}, {-1, 6}};
    const refusal refusals[] = {
        {{.policy = DM_ROUTER_NASH, .flock = 1}, "flock"},
        {{.policy = DM_ROUTER_NASH, .flock = 9}, "flock"},
        {{.policy = DM_ROUTER_NASH, .flock_resident = -2}, "in memory"},
        {{.policy = DM_ROUTER_NASH, .flock_resident = 9}, "in memory"},
        {{.policy = DM_ROUTER_NASH, .payoff = (dm_router_payoff)2}, "payoff"},
        {{.policy = DM_ROUTER_NASH, .gamma = -1}, "gamma"},
        {{.policy = DM_ROUTER_NASH, .beta = NAN}, "beta"},
        {{.policy = DM_ROUTER_NASH, .theta = 1.5}, "theta"},
        {{.policy = DM_ROUTER_NASH, .min_experts = 1}, "theta"},
        {{.policy = DM_ROUTER_NASH, .min_experts = 3, .theta = 0.5}, "at least 3"},
        {{.policy = DM_ROUTER_NASH, .keep_top = -1}, "0 or more"},
        {{.policy = DM_ROUTER_NASH, .sweeps = -1}, "0 or more"},
        {{.max_experts = 3}, "at most 3"},
        {{.resident = 9}, "resident"},
        {{.evict = "lru"}, "resident"},
        {{.resident = 2, .evict = "fifo"}, "fifo"},
        {{.sleep = 1.0}, "sleep"},
        {{.disabled = none, .n_disabled = 1}, "0:8"},
        {{.disabled = most, .n_disabled = 7}, "1 experts left"},
        {{.policy = (dm_router_policy)7}, "policy"},
    };
    const dm_routing_shape shape = {.layers = 2, .experts = 8, .top_k = 2};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        dm_routing *routing;
        assert_int_equal(dm_routing_create(&refusals[i].o, &shape, TOKENS, &routing), DM_ERR_ARGUMENT);
        assert_null(routing);
        if (strstr(dm_error_message(), refusals[i].word) == NULL) {
            fail_msg("'%s' does not say '%s'", dm_error_message(), refusals[i].word);
        }
    }
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    dm_random_seed(&f->random, 5);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    free(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_experts_are_the_models_choice),
        cmocka_unit_test(nothing_asked_for_is_nothing_made),
        cmocka_unit_test(experts_far_below_the_best_are_left_out),
        cmocka_unit_test(no_more_than_asked_for),
        cmocka_unit_test(disabled_experts_are_never_used),
        cmocka_unit_test(idle_experts_sleep_and_wake),
        cmocka_unit_test(hits_are_those_of_an_lru),
        cmocka_unit_test(fetching_is_priced),
        cmocka_unit_test(tokens_together_share_fetches),
        cmocka_unit_test(crowds_are_dispersed),
        cmocka_unit_test(options_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
