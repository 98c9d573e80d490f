/* The balancing loss's terms: values against plain definitions in double precision, slopes against their central differences,
 * ranges and degenerate routers; and the cache that says which experts are resident, against a plain list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "core/flock.h"
#include "core/swarm_loss.h"

enum { MOST_N = 24, MOST_E = 40, MOST_STRIDE = MOST_E + 9, MOST_NEAR = 7, TOP_K = 3 };

/* A router's output and all that is held fixed beside it. */
typedef struct sample {
    size_t n, stride, slope_stride, near, flock;
    int32_t experts;
    float p[MOST_N * MOST_STRIDE];
    uint8_t resident[MOST_N * MOST_E];
    int32_t neighbours[MOST_N * MOST_NEAR]; /* [n, near] */
    int32_t candidates[MOST_N * MOST_E];    /* [n, flock] */
    double beta;
    float price[MOST_E];
} sample;

static dm_random random_state;
static sample s;
static double scratch[DM_SWARM_LOSS_SCRATCH * MOST_E];

static size_t below(size_t n) {
    return (size_t)(dm_random_next(&random_state) % n);
}

static void draw_p(void) {
    for (size_t t = 0; t < s.n; t++) {
        double total = 0.0, p[MOST_E];
        for (size_t e = 0; e < (size_t)s.experts; e++) {
            p[e] = exp(1.5 * dm_random_normal(&random_state));
            total += p[e];
        }
        for (size_t e = 0; e < s.stride; e++) {
            s.p[t * s.stride + e] = e < (size_t)s.experts ? (float)(p[e] / total) : NAN; /* what lies between rows is nobody's */
        }
    }
}

/* Different experts in random order, some of them missing. */
static void draw_flock(int32_t *flock) {
    int32_t order[MOST_E] = {0};
    for (size_t e = 0; e < (size_t)s.experts; e++) {
        size_t at = below(e + 1);
        order[e] = order[at];
        order[at] = (int32_t)e;
    }
    for (size_t j = 0; j < s.flock; j++) {
        flock[j] = below(8) == 0 ? -1 : order[j];
    }
}

static void draw(size_t n, int32_t experts, size_t near, size_t flock, size_t padding) {
    s = (sample){.n = n, .experts = experts, .near = near, .flock = flock, .stride = (size_t)experts + padding};
    s.slope_stride = (size_t)experts + 2 * padding / 3;
    s.beta = 2.0 * dm_random_uniform(&random_state);
    draw_p();
    for (size_t i = 0; i < n * (size_t)experts; i++) {
        s.resident[i] = below(3) == 0;
    }
    for (size_t i = 0; i < n * near; i++) { /* earlier tokens, later ones, itself, twice: a gradient asks for no order */
        s.neighbours[i] = below(4) == 0 ? -1 : (int32_t)below(n);
    }
    for (size_t t = 0; t < n; t++) {
        draw_flock(s.candidates + t * flock);
    }
    for (size_t e = 0; e < (size_t)experts; e++) {
        s.price[e] = (float)dm_random_normal(&random_state);
    }
}

/* ---- The terms, and their definitions ---- */

typedef double (*term_fn)(double weight, float *slopes);
typedef double (*definition_fn)(const double *p); /* rows s.stride apart */

static double balance(double weight, float *slopes) {
    return dm_balance_loss(s.p, s.stride, s.n, s.experts, weight, slopes, s.slope_stride, scratch);
}

static double cache(double weight, float *slopes) {
    return dm_cache_reward(s.p, s.stride, s.n, s.experts, s.resident, weight, slopes, s.slope_stride, scratch);
}

static double swarm(double weight, float *slopes) {
    return dm_swarm_reward(s.p, s.stride, s.n, s.experts, s.neighbours, s.near, weight, slopes, s.slope_stride, scratch);
}

static double nash(double weight, float *slopes) {
    return dm_nash_loss(s.p, s.stride, s.n, s.experts, s.candidates, s.flock, TOP_K, s.beta, s.price, weight, slopes,
                        s.slope_stride, scratch);
}

static double nash_unpriced(double weight, float *slopes) {
    return dm_nash_loss(s.p, s.stride, s.n, s.experts, s.candidates, s.flock, TOP_K, s.beta, NULL, weight, slopes, s.slope_stride,
                        scratch);
}

static double balance_by_definition(const double *p) {
    double load[MOST_E] = {0}, mean = 0.0, variance = 0.0;
    for (size_t e = 0; e < (size_t)s.experts; e++) {
        for (size_t t = 0; t < s.n; t++) {
            load[e] += p[t * s.stride + e];
        }
        mean += load[e] / s.experts;
    }
    for (size_t e = 0; e < (size_t)s.experts; e++) {
        variance += (load[e] - mean) * (load[e] - mean) / s.experts;
    }
    return variance / (mean * mean);
}

static double cache_by_definition(const double *p) {
    double share = 0.0;
    for (size_t t = 0; t < s.n; t++) {
        for (size_t e = 0; e < (size_t)s.experts; e++) {
            share += s.resident[t * (size_t)s.experts + e] * p[t * s.stride + e];
        }
    }
    return share / (double)s.n;
}

static double alignment_by_definition(const double *p, size_t t) {
    double mean[MOST_E] = {0}, dot = 0.0, mine = 0.0, theirs = 0.0, count = 0.0;
    for (size_t j = 0; j < s.near; j++) {
        int32_t other = s.neighbours[t * s.near + j];
        count += other >= 0;
        for (size_t e = 0; e < (size_t)s.experts && other >= 0; e++) {
            mean[e] += p[(size_t)other * s.stride + e];
        }
    }
    for (size_t e = 0; e < (size_t)s.experts && count > 0.0; e++) {
        dot += p[t * s.stride + e] * mean[e] / count;
        mine += p[t * s.stride + e] * p[t * s.stride + e];
        theirs += mean[e] / count * mean[e] / count;
    }
    return count > 0.0 ? dot / sqrt(mine * theirs) : 1.0;
}

static double swarm_by_definition(const double *p) {
    double reward = 0.0;
    for (size_t t = 0; t < s.n; t++) {
        reward += (1.0 + alignment_by_definition(p, t)) / 2.0 / (double)s.n;
    }
    return reward;
}

/* q [experts] of token t; false where its flock has no mass. */
static bool play_of(const double *p, size_t t, double *q) {
    double mass = 0.0;
    memset(q, 0, MOST_E * sizeof *q);
    for (size_t j = 0; j < s.flock; j++) {
        int32_t e = s.candidates[t * s.flock + j];
        mass += e >= 0 ? p[t * s.stride + (size_t)e] : 0.0;
    }
    for (size_t j = 0; j < s.flock && mass > 0.0; j++) {
        int32_t e = s.candidates[t * s.flock + j];
        if (e >= 0) {
            q[e] = p[t * s.stride + (size_t)e] / mass;
        }
    }
    return mass > 0.0;
}

static void costs_by_definition(const double *p, bool priced, double *costs) {
    const double nbar = (double)TOP_K * (double)s.n / s.experts;
    double users[MOST_E] = {0}, q[MOST_E];
    for (size_t t = 0; t < s.n; t++) {
        play_of(p, t, q);
        for (size_t e = 0; e < (size_t)s.experts; e++) {
            users[e] += TOP_K * q[e];
        }
    }
    for (size_t e = 0; e < (size_t)s.experts; e++) {
        costs[e] = s.beta * users[e] / nbar + (priced ? (double)s.price[e] : 0.0);
    }
}

/* Where tokens stand: the q in the logarithm, which differences hold fixed. */
static double standing[MOST_N * MOST_STRIDE];

static double regret_by_definition(const double *p, bool priced) {
    double costs[MOST_E], q[MOST_E], fixed[MOST_E], regret = 0.0;
    costs_by_definition(p, priced, costs);
    for (size_t t = 0; t < s.n; t++) {
        if (play_of(p, t, q) && play_of(standing, t, fixed)) {
            double paid = 0.0, sum = 0.0;
            for (size_t e = 0; e < (size_t)s.experts; e++) {
                paid += q[e] * costs[e];
                sum += fixed[e] * exp(-costs[e]);
            }
            regret += (paid + log(sum)) / (double)s.n;
        }
    }
    return regret;
}

static double nash_by_definition(const double *p) {
    return regret_by_definition(p, true);
}

static double nash_unpriced_by_definition(const double *p) {
    return regret_by_definition(p, false);
}

/* ---- Values and slopes ---- */

static double central_difference(definition_fn definition, double *p, size_t at) {
    const double kept = p[at], step = 1e-4 * kept;
    p[at] = kept + step;
    double above = definition(p);
    p[at] = kept - step;
    double below_it = definition(p);
    p[at] = kept;
    return (above - below_it) / (2.0 * step);
}

static void check(term_fn term, definition_fn definition) {
    static double p[MOST_N * MOST_STRIDE], expected[MOST_N * MOST_E];
    static float slopes[MOST_N * MOST_STRIDE];
    const size_t experts = (size_t)s.experts;
    const double weight = -0.75, before = 1.0 / 64;
    double largest = 0.0;
    for (size_t i = 0; i < s.n * s.stride; i++) {
        p[i] = standing[i] = (double)s.p[i];
    }
    for (size_t i = 0; i < s.n * experts; i++) {
        expected[i] = central_difference(definition, p, i / experts * s.stride + i % experts);
        largest = fmax(largest, fabs(expected[i]));
    }
    for (size_t i = 0; i < s.n * s.slope_stride; i++) {
        slopes[i] = (float)before;
    }
    assert_true(fabs(term(weight, slopes) - definition(p)) < 1e-12 * (double)(s.n + experts));
    for (size_t i = 0; i < s.n * s.slope_stride; i++) {
        size_t t = i / s.slope_stride, e = i % s.slope_stride;
        double slope = e < experts ? weight * expected[t * experts + e] : 0.0; /* between rows nothing is added */
        assert_true(fabs((double)slopes[i] - before - slope) < 1e-6 * largest + 1e-8);
    }
}

static void every_term_is_its_definition_and_its_slopes(void **state) {
    (void)state;
    dm_random_seed(&random_state, 21);
    static const size_t shapes[][5] = {{1, 1, 1, 1, 0}, {1, 8, 2, 3, 0},  {2, 1, 3, 1, 6},   {2, 2, 1, 2, 1},
                                       {5, 7, 0, 0, 3}, {16, 8, 7, 7, 0}, {24, 40, 7, 8, 9}, {9, 33, 3, 33, 4}};
    for (size_t round = 0; round < (DM_EMULATED ? 1 : 10); round++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const size_t *shape = shapes[i];
            draw(shape[0], (int32_t)shape[1], shape[2], shape[3], shape[4]);
            check(balance, balance_by_definition);
            check(cache, cache_by_definition);
            check(swarm, swarm_by_definition);
            check(nash, nash_by_definition);
            check(nash_unpriced, nash_unpriced_by_definition);
        }
    }
}

static void without_tokens_nothing_happens(void **state) {
    (void)state;
    dm_random_seed(&random_state, 22);
    draw(1, 6, 2, 3, 0);
    s.n = 0;
    float slopes[6] = {0};
    assert_true(balance(1.0, slopes) == 0.0 && cache(1.0, slopes) == 0.0 && swarm(1.0, slopes) == 1.0);
    assert_true(nash(1.0, slopes) == 0.0);
    for (size_t e = 0; e < 6; e++) {
        assert_true(slopes[e] == 0.0f);
    }
}

/* ---- What bears on others ---- */

/* Row 0 has no neighbours of its own, so that all its slope is what it is pulled with. */
static void neighbours_are_pulled_too(void **state) {
    (void)state;
    static const float p[2 * 3] = {0.7f, 0.2f, 0.1f, 0.1f, 0.3f, 0.6f};
    static const int32_t neighbours[2] = {-1, 0};
    float slopes[2 * 3] = {0};
    double reward = dm_swarm_reward(p, 3, 2, 3, neighbours, 1, 1.0, slopes, 3, scratch);
    /* cosine 0.19 / sqrt(0.54 * 0.46); its slope in row 0 is row 1 over the norms less row 0 times cosine / 0.54, over 2n */
    const double norms = sqrt(0.54 * 0.46), cosine = 0.19 / norms;
    assert_true(fabs(reward - (1.0 + (1.0 + cosine) / 2.0) / 2.0) < 1e-7);
    for (size_t e = 0; e < 3; e++) {
        double slope = ((double)p[3 + e] / norms - (double)p[e] * cosine / 0.54) / 4.0;
        assert_true(fabs((double)slopes[e] - slope) < 1e-6 && fabs(slope) > 0.01);
    }
}

/* At the same costs, once as prices and once as crowding, the regret is the same but not its slopes: a token that stays on a
 * crowded expert raises what the others pay. */
static void every_token_bears_on_the_crowd(void **state) {
    (void)state;
    dm_random_seed(&random_state, 23);
    draw(MOST_N, 8, 1, 8, 0);
    s.beta = 2.0;
    double p[MOST_N * 8], costs[MOST_E];
    float frozen[MOST_N * 8] = {0}, moving[MOST_N * 8] = {0};
    for (size_t i = 0; i < MOST_N * 8; i++) {
        p[i] = (double)s.p[i];
    }
    double regret = nash_unpriced(1.0, moving), apart = 0.0, largest = 0.0;
    costs_by_definition(p, false, costs);
    for (size_t e = 0; e < 8; e++) {
        s.price[e] = (float)costs[e];
    }
    s.beta = 0.0;
    assert_true(fabs(nash(1.0, frozen) - regret) < 1e-6);
    for (size_t i = 0; i < MOST_N * 8; i++) {
        apart = fmax(apart, fabs((double)(frozen[i] - moving[i])));
        largest = fmax(largest, fabs((double)moving[i]));
    }
    assert_true(apart > 0.1 * largest);
}

static void top_k_is_a_unit(void **state) {
    (void)state;
    dm_random_seed(&random_state, 24);
    draw(7, 6, 1, 5, 0);
    float slopes[7 * 6] = {0};
    double regret = nash(1.0, slopes);
    double other = dm_nash_loss(s.p, s.stride, s.n, s.experts, s.candidates, s.flock, 1, s.beta, s.price, 1.0, slopes,
                                s.slope_stride, scratch);
    assert_true(fabs(regret - other) < 1e-13);
}

static void rewards_agree_with_the_flock(void **state) {
    (void)state;
    dm_random_seed(&random_state, 25);
    for (size_t round = 0; round < 50; round++) {
        draw(1 + below(MOST_N), 1 + (int32_t)below(MOST_E), below(MOST_NEAR + 1), 1, below(5));
        memset(s.p, 0, (size_t)s.experts * sizeof *s.p); /* a zero row is aligned with nobody, in either */
        float slopes[MOST_N * MOST_STRIDE] = {0}, alignment[MOST_N];
        dm_flock_alignment(s.p, s.stride, s.n, (size_t)s.experts, s.neighbours, s.near, alignment);
        double reward = 0.0;
        for (size_t t = 0; t < s.n; t++) {
            reward += (1.0 + (double)alignment[t]) / 2.0 / (double)s.n;
        }
        assert_true(fabs(swarm(1.0, slopes) - reward) < 1e-7);
        for (size_t e = 0; e < (size_t)s.experts; e++) {
            assert_true(isfinite(slopes[e]));
        }
    }
}

/* ---- Ranges ---- */

static void terms_stay_within_their_ranges(void **state) {
    (void)state;
    dm_random_seed(&random_state, 26);
    static float slopes[MOST_N * MOST_STRIDE];
    for (size_t round = 0; round < 500; round++) {
        size_t experts = 1 + below(MOST_E);
        draw(1 + below(MOST_N), (int32_t)experts, below(MOST_NEAR + 1), below(experts + 1), 0);
        double l = balance(1.0, slopes), c = cache(1.0, slopes), w = swarm(1.0, slopes);
        assert_true(l >= 0.0 && l <= (double)experts - 1.0 + 1e-6);
        assert_true(c >= 0.0 && c <= 1.0 + 1e-6);
        assert_true(w >= 0.5 && w <= 1.0);
        assert_true(nash(1.0, slopes) >= 0.0);
        for (size_t e = 0; e < experts; e++) { /* equal costs */
            s.price[e] = 3.25f;
        }
        s.beta = 0.0;
        assert_true(nash(1.0, slopes) < 1e-14);
    }
}

static void ends_of_the_ranges(void **state) {
    (void)state;
    dm_random_seed(&random_state, 27);
    draw(8, 8, 1, 8, 0);
    float slopes[8 * 8] = {0};
    for (size_t t = 0; t < 8; t++) { /* each token for one expert, all of them even */
        for (size_t e = 0; e < 8; e++) {
            s.p[t * 8 + e] = e == t ? 1.0f : 0.0f;
            s.resident[t * 8 + e] = e == t;
        }
        s.neighbours[t] = (int32_t)(t + 1) % 8;
    }
    assert_true(balance(1.0, slopes) == 0.0 && cache(1.0, slopes) == 1.0 && swarm(1.0, slopes) == 0.5);
    for (size_t t = 0; t < 8; t++) { /* all for the first */
        for (size_t e = 0; e < 8; e++) {
            s.p[t * 8 + e] = e == 0 ? 1.0f : 0.0f;
            s.resident[t * 8 + e] = e != 0;
        }
    }
    assert_true(balance(1.0, slopes) == 7.0 && cache(1.0, slopes) == 0.0 && swarm(1.0, slopes) == 1.0);
    s.beta = 1.0;
    assert_true(nash(1.0, slopes) == 0.0); /* sure of one expert, whatever it costs */
}

/* ---- What overflows and underflows ---- */

static void flocks_without_mass_are_passed_over(void **state) {
    (void)state;
    static const float tiny[] = {0.0f, 1e-45f, 1e-38f, 9e-31f};
    static const int32_t flock[2 * 2] = {0, 1, 0, 1};
    const float price[3] = {1.0f, 2.0f, 3.0f};
    for (size_t i = 0; i < sizeof tiny / sizeof *tiny; i++) {
        const float p[2 * 3] = {tiny[i], tiny[i], 1.0f, 0.5f, 0.25f, 0.25f};
        float slopes[2 * 3] = {0}, alone[3] = {0};
        double regret = dm_nash_loss(p, 3, 2, 3, flock, 2, 1, 0.0, price, 1.0, slopes, 3, scratch);
        double second = dm_nash_loss(p + 3, 3, 1, 3, flock, 2, 1, 0.0, price, 0.5, alone, 3, scratch);
        assert_true(fabs(regret - second / 2.0) < 1e-15);
        for (size_t e = 0; e < 3; e++) {
            assert_true(slopes[e] == 0.0f && fabsf(slopes[3 + e] - alone[e]) < 1e-7f);
        }
    }
}

/* Finite, and nothing once a softmax has multiplied them by p. */
static void extreme_prices_and_masses_stay_finite(void **state) {
    (void)state;
    dm_random_seed(&random_state, 28);
    static const float prices[] = {0.0f, 1e4f, -1e4f, 700.0f, -700.0f, 1e-30f};
    static const float masses[] = {1.0f, 0.5f, 1e-10f, 1e-29f, 1e-31f, 1e-44f, 0.0f};
    for (size_t round = 0; round < 3000; round++) {
        draw(4, 6, 1, 5, 0);
        float slopes[4 * 6] = {0};
        for (size_t e = 0; e < 6; e++) {
            s.price[e] = prices[below(6)];
        }
        for (size_t i = 0; i < 4 * 6; i++) {
            s.p[i] = masses[below(7)];
        }
        double regret = nash(1.0, slopes);
        assert_true(isfinite(regret) && regret >= 0.0);
        for (size_t i = 0; i < 4 * 6; i++) {
            assert_true(isfinite(slopes[i]) && fabsf(slopes[i] * s.p[i]) < 1e5f);
        }
    }
    static const float p[2] = {0.5f, 0.5f}, apart[2] = {0.0f, 2000.0f}; /* half of 2000 too much, and ln 2 for the mixture */
    static const int32_t both[2] = {0, 1};
    float slopes[2] = {0};
    double regret = dm_nash_loss(p, 2, 1, 2, both, 2, 1, 0.0, apart, 1.0, slopes, 2, scratch);
    assert_true(fabs(regret - (1000.0 - log(2.0))) < 1e-9);
}

/* ---- The cache ---- */

/* Most recent first. */
typedef struct plain_list {
    int32_t things[MOST_E];
    size_t count, slots;
} plain_list;

static size_t place_in(const plain_list *list, int32_t thing) {
    size_t at = 0;
    while (at < list->count && list->things[at] != thing) {
        at++;
    }
    return at;
}

static int32_t use_in(plain_list *list, int32_t thing) {
    size_t at = place_in(list, thing);
    int32_t gone = -1;
    if (at == list->count && list->count == list->slots) {
        gone = list->things[--at];
    } else if (at == list->count) {
        list->count++;
    }
    memmove(list->things + 1, list->things, at * sizeof *list->things);
    list->things[0] = thing;
    return gone;
}

static void check_kept(const dm_lru *lru, const plain_list *list) {
    assert_int_equal(lru->kept, list->count);
    for (int32_t e = 0; e < lru->things; e++) {
        assert_int_equal(dm_lru_has(lru, e), place_in(list, e) < list->count);
    }
}

static void the_least_recently_used_goes(void **state) {
    (void)state;
    dm_random_seed(&random_state, 29);
    for (size_t round = 0; round < 200; round++) {
        size_t things = round < 4 ? 1 + round : 1 + below(MOST_E);
        plain_list list = {.slots = 1 + below(things)};
        dm_lru lru;
        assert_int_equal(dm_lru_create((int32_t)things, (int32_t)list.slots, &lru), DM_OK);
        for (size_t i = 0; i < 300; i++) {
            int32_t thing = (int32_t)below(things);
            assert_int_equal(dm_lru_use(&lru, thing), use_in(&list, thing));
            if (below(100) == 0) {
                dm_lru_clear(&lru);
                list.count = 0;
            }
            check_kept(&lru, &list);
        }
        dm_lru_free(&lru);
    }
    dm_lru lru;
    assert_int_equal(dm_lru_create(0, 1, &lru), DM_ERR_ARGUMENT);
    assert_int_equal(dm_lru_create(3, 0, &lru), DM_ERR_ARGUMENT);
    assert_int_equal(dm_lru_create(3, 4, &lru), DM_ERR_ARGUMENT);
    dm_lru_free(&lru);
}

static void residents_are_what_earlier_tokens_left(void **state) {
    (void)state;
    enum { E = 12, K = 3, N = 40 };
    dm_random_seed(&random_state, 30);
    plain_list list = {.slots = 5};
    dm_lru lru;
    assert_int_equal(dm_lru_create(E, 5, &lru), DM_OK);
    for (size_t call = 0; call < 20; call++) { /* the cache goes on from call to call */
        int32_t experts[N * K];
        uint8_t resident[N * E];
        size_t n = below(N + 1);
        for (size_t i = 0; i < n * K; i++) {
            experts[i] = (int32_t)below(E + 2) - 2;
            experts[i] = experts[i] < 0 ? -1 : experts[i];
        }
        dm_cache_residents(&lru, experts, n, K, resident);
        for (size_t t = 0; t < n; t++) {
            for (int32_t e = 0; e < E; e++) {
                assert_int_equal(resident[t * E + (size_t)e], place_in(&list, e) < list.count);
            }
            for (size_t j = 0; j < K; j++) {
                if (experts[t * K + j] >= 0) {
                    use_in(&list, experts[t * K + j]);
                }
            }
        }
        check_kept(&lru, &list);
    }
    dm_lru_free(&lru);
}

/* ---- What descending on the Nash term alone leads to ---- */

enum { CROWD = 512, CROWD_E = 16, CROWD_FLOCK = 7 };

typedef struct crowd {
    double logits[CROWD * CROWD_E];
    float p[CROWD * CROWD_E], slopes[CROWD * CROWD_E];
    int32_t flocks[CROWD * CROWD_FLOCK];
} crowd;

/* Logits that favour the lower experts, and the flocks that they give. */
static void gather_crowd(crowd *c, double scale, double skew) {
    for (size_t i = 0; i < (size_t)CROWD * CROWD_E; i++) {
        double lower = 1.0 - 2.0 * (double)(i % CROWD_E) / (CROWD_E - 1);
        c->logits[i] = scale * dm_random_normal(&random_state) + skew * lower;
    }
    for (size_t t = 0; t < CROWD; t++) {
        bool used[CROWD_E] = {false};
        for (size_t j = 0; j < CROWD_FLOCK; j++) {
            size_t best = CROWD_E;
            for (size_t e = 0; e < CROWD_E; e++) {
                bool better = best == CROWD_E || c->logits[t * CROWD_E + e] > c->logits[t * CROWD_E + best];
                best = !used[e] && better ? e : best;
            }
            used[best] = true;
            c->flocks[t * CROWD_FLOCK + j] = (int32_t)best;
        }
    }
}

static void take_softmax(crowd *c) {
    for (size_t t = 0; t < CROWD; t++) {
        double sum = 0.0;
        for (size_t e = 0; e < CROWD_E; e++) {
            sum += exp(c->logits[t * CROWD_E + e]);
        }
        for (size_t e = 0; e < CROWD_E; e++) {
            c->p[t * CROWD_E + e] = (float)(exp(c->logits[t * CROWD_E + e]) / sum);
        }
    }
}

static void descend(crowd *c, double rate) {
    memset(c->slopes, 0, sizeof c->slopes);
    dm_nash_loss(c->p, CROWD_E, CROWD, CROWD_E, c->flocks, CROWD_FLOCK, 4, 1.0, NULL, 1.0, c->slopes, CROWD_E, scratch);
    for (size_t t = 0; t < CROWD; t++) {
        const float *p = c->p + t * CROWD_E, *slopes = c->slopes + t * CROWD_E;
        double mean = 0.0;
        for (size_t e = 0; e < CROWD_E; e++) {
            mean += (double)p[e] * (double)slopes[e];
        }
        for (size_t e = 0; e < CROWD_E; e++) {
            c->logits[t * CROWD_E + e] -= rate * (double)p[e] * ((double)slopes[e] - mean);
        }
    }
}

/* Largest over mean soft load on the flocks, less 1. */
static double crowding_of(const crowd *c) {
    double loads[CROWD_E] = {0}, largest = 0.0;
    for (size_t t = 0; t < CROWD; t++) {
        const int32_t *flock = c->flocks + t * CROWD_FLOCK;
        double mass = 0.0;
        for (size_t j = 0; j < CROWD_FLOCK; j++) {
            mass += (double)c->p[t * CROWD_E + (size_t)flock[j]];
        }
        for (size_t j = 0; j < CROWD_FLOCK; j++) {
            loads[flock[j]] += (double)c->p[t * CROWD_E + (size_t)flock[j]] / mass;
        }
    }
    for (size_t e = 0; e < CROWD_E; e++) {
        largest = fmax(largest, loads[e]);
    }
    return largest * CROWD_E / CROWD - 1.0;
}

static void descending_evens_the_loads(void **state) {
    (void)state;
    static const double starts[][2] = {{4, 4}, {8, 4}, {1, 2}, {4, 1}};
    static crowd c;
    dm_random_seed(&random_state, 1);
    for (size_t i = 0; i < (DM_EMULATED ? 1 : sizeof starts / sizeof *starts); i++) {
        gather_crowd(&c, starts[i][0], starts[i][1]);
        take_softmax(&c);
        double before = crowding_of(&c);
        for (int step = 0; step < 400; step++) {
            descend(&c, 400.0);
            take_softmax(&c);
        }
        print_message("crowding %.2f before, %.3f after\n", before, crowding_of(&c));
        assert_true(before > 0.4 && crowding_of(&c) < 0.25);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_term_is_its_definition_and_its_slopes),
        cmocka_unit_test(without_tokens_nothing_happens),
        cmocka_unit_test(neighbours_are_pulled_too),
        cmocka_unit_test(every_token_bears_on_the_crowd),
        cmocka_unit_test(top_k_is_a_unit),
        cmocka_unit_test(rewards_agree_with_the_flock),
        cmocka_unit_test(terms_stay_within_their_ranges),
        cmocka_unit_test(ends_of_the_ranges),
        cmocka_unit_test(flocks_without_mass_are_passed_over),
        cmocka_unit_test(extreme_prices_and_masses_stay_finite),
        cmocka_unit_test(the_least_recently_used_goes),
        cmocka_unit_test(residents_are_what_earlier_tokens_left),
        cmocka_unit_test(descending_evens_the_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
