/* Policies of eviction beside plain lists on random and skewed sequences, and Belady's optimum beside every choice there is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "core/eviction.h"
#include "core/ranking.h"
#include "moe/residency.h"

enum { MOST = 40, PASSES = 60, STEPS = 3 };

static dm_eviction_rule rule_of(const char *text) {
    dm_eviction_rule rule;
    if (dm_eviction_parse(text, strlen(text), &rule) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return rule;
}

/* ---- The same as plain lists ---- */

typedef struct naive_thing {
    bool kept, in_step, again, in_second; /* in_second: of slru the queue of those used again, of lfru that of the last used */
    int64_t moved;                        /* when it came to its queue */
    int64_t use;                          /* its last */
    double uses[PASSES * STEPS * MOST];   /* passes of all of them */
    int32_t n_uses;
} naive_thing;

typedef struct naive {
    naive_thing things[MOST];
    dm_eviction_rule rule;
    int32_t n, slots, kept;
    int64_t clock, pass_began;
    double pass;
} naive;

static int32_t second_slots(const naive *it) {
    int32_t slots = (int32_t)lround(it->rule.parameter * it->slots);
    return slots > 1 ? slots : 1;
}

/* What a thing's uses count today. */
static double count_of(const naive *it, int32_t thing) {
    double half = it->rule.policy == DM_EVICT_LFU ? it->rule.parameter : 64.0, sum = 0.0;
    for (int32_t i = 0; i < it->things[thing].n_uses; i++) {
        sum += exp2((it->things[thing].uses[i] - it->pass) / half);
    }
    return sum;
}

/* Whether a should go rather than b; both are kept, and not of the step. */
static bool goes_before(const naive *it, int32_t a, int32_t b) {
    const naive_thing *x = &it->things[a], *y = &it->things[b];
    bool counts = it->rule.policy == DM_EVICT_LFU || (it->rule.policy == DM_EVICT_LFRU && !x->in_second);
    if (it->rule.policy == DM_EVICT_STALE) {
        bool x_now = x->use >= it->pass_began, y_now = y->use >= it->pass_began;
        return x_now != y_now ? y_now : x_now ? x->moved > y->moved : x->moved < y->moved;
    }
    if (x->in_second != y->in_second) {
        return y->in_second;
    }
    if (counts) {
        double p = count_of(it, a), q = count_of(it, b);
        if (fabs(p - q) > 1e-9 * q) {
            return p < q;
        }
    }
    return x->moved < y->moved;
}

static int32_t naive_worst(const naive *it, bool in_step) {
    int32_t worst = -1;
    for (int32_t i = 0; i < it->n; i++) {
        if (it->things[i].kept && it->things[i].in_step == in_step &&
            (worst < 0 || (in_step ? it->things[i].use < it->things[worst].use : goes_before(it, i, worst)))) {
            worst = i;
        }
    }
    return worst;
}

static int32_t naive_use(naive *it, int32_t thing) {
    naive_thing *used = &it->things[thing];
    int32_t gone = -1;
    if (!used->kept && it->kept == it->slots) {
        gone = naive_worst(it, false);
        gone = gone >= 0 ? gone : naive_worst(it, true);
        it->things[gone].kept = it->things[gone].in_step = it->things[gone].in_second = false;
        it->kept--;
    }
    it->kept += !used->kept;
    used->again = used->kept;
    used->kept = used->in_step = true;
    used->in_second = false;
    used->use = it->clock++;
    used->uses[used->n_uses++] = it->pass;
    return gone;
}

/* A thing whose step ended joins its queue; the second queue's oldest may have to leave it. */
static void naive_come(naive *it, int32_t thing) {
    naive_thing *came = &it->things[thing];
    const bool slru = it->rule.policy == DM_EVICT_SLRU, lfru = it->rule.policy == DM_EVICT_LFRU;
    int32_t in_second = 0, oldest = -1;
    for (int32_t i = 0; i < it->n; i++) {
        if (it->things[i].in_second) {
            in_second++;
            oldest = oldest < 0 || it->things[i].moved < it->things[oldest].moved ? i : oldest;
        }
    }
    came->in_step = false;
    came->in_second = lfru || (slru && came->again);
    if (came->in_second && in_second == second_slots(it)) {
        it->things[oldest].in_second = false;
        it->things[oldest].moved = it->clock++;
    }
    came->moved = it->clock++;
}

static void naive_end_step(naive *it) {
    for (int32_t next; (next = naive_worst(it, true)) >= 0;) {
        naive_come(it, next);
    }
}

/* ---- Sequences ---- */

/* One of n things: evenly, or the first much more often than the last, whose order turns every 20 passes. */
static int32_t draw(dm_random *random, int32_t n, bool skewed, int32_t pass) {
    double u = dm_random_uniform(random);
    int32_t thing = (int32_t)((skewed ? u * u * u : u) * n);
    return skewed ? (thing + pass / 20 * 5) % n : thing;
}

static void compare(const char *policy, int32_t n, int32_t slots, bool skewed, uint64_t seed) {
    const dm_eviction_rule rule = rule_of(policy);
    naive *plain = calloc(1, sizeof *plain);
    dm_eviction *it;
    dm_random random;
    dm_random_seed(&random, seed);
    assert_non_null(plain);
    plain->rule = rule;
    plain->n = n;
    plain->slots = slots;
    assert_int_equal(dm_eviction_create(n, slots, &rule, NULL, &it), DM_OK);
    for (int32_t pass = 0; pass < PASSES; pass++) {
        for (int32_t step = 0; step < STEPS; step++) {
            int32_t uses = (int32_t)(dm_random_uniform(&random) * 6.0);
            for (int32_t i = 0; i < uses; i++) {
                int32_t thing = draw(&random, n, skewed, pass);
                assert_int_equal(dm_eviction_has(it, thing), plain->things[thing].kept);
                int32_t gone = dm_eviction_use(it, thing), expected = naive_use(plain, thing);
                if (gone != expected) {
                    fail_msg("%s, %d slots for %d: %d went, expected %d", policy, slots, n, gone, expected);
                }
            }
            naive_end_step(plain);
            dm_eviction_end_step(it);
        }
        plain->pass++;
        plain->pass_began = plain->clock;
        dm_eviction_end_pass(it);
    }
    dm_eviction_free(it);
    free(plain);
}

static void policies_are_those_of_plain_lists(void **state) {
    (void)state;
    static const char *const policies[] = {"lru",       "lfu",    "lfu:7.3", "lfu:2.9",  "lfru",
                                           "lfru:0.01", "lfru:1", "slru",    "slru:0.8", "stale"};
    for (size_t p = 0; p < sizeof policies / sizeof *policies; p++) {
        for (int32_t slots = 1; slots <= MOST; slots += slots < 8 ? 1 : 7) {
            for (int32_t n = slots; n <= MOST; n = n < MOST && n + 11 > MOST ? MOST : n + 11) {
                compare(policies[p], n, slots, false, (uint64_t)(100 * n + slots));
                compare(policies[p], n, slots, true, (uint64_t)(100 * n + slots));
            }
        }
    }
}

static void some_policies_are_others(void **state) {
    (void)state;
    const char *const pairs[][2] = {{"lfru:1", "lru"}, {"lfu:0.001", "lru"}};
    for (size_t p = 0; p < 2; p++) {
        const dm_eviction_rule a = rule_of(pairs[p][0]), b = rule_of(pairs[p][1]);
        dm_eviction *x, *y;
        dm_random random;
        dm_random_seed(&random, 3);
        assert_int_equal(dm_eviction_create(20, 8, &a, NULL, &x), DM_OK);
        assert_int_equal(dm_eviction_create(20, 8, &b, NULL, &y), DM_OK);
        for (int32_t i = 0; i < 2000; i++) { /* a use is a pass, so that the newest use outweighs all before */
            int32_t thing = draw(&random, 20, true, i);
            assert_int_equal(dm_eviction_use(x, thing), dm_eviction_use(y, thing));
            dm_eviction_end_pass(x);
            dm_eviction_end_pass(y);
        }
        dm_eviction_free(x);
        dm_eviction_free(y);
    }
}

/* ---- The optimum ---- */

enum { TINY = 6, TINY_STEPS = 9, TINY_USES = 2 };

typedef struct search {
    int32_t steps[TINY_STEPS][TINY_USES], slots;
    int32_t known[TINY_STEPS][1 << TINY]; /* fewest misses from a step on with these things (bits) there; -1: not looked at yet */
} search;

/* Every set that a step may leave is tried. */
static int32_t fewest(search *it, int32_t step, uint32_t kept) {
    if (step == TINY_STEPS || it->known[step][kept] >= 0) {
        return step == TINY_STEPS ? 0 : it->known[step][kept];
    }
    uint32_t needed = 0;
    int32_t best = INT32_MAX;
    for (int32_t i = 0; i < TINY_USES; i++) {
        needed |= 1u << it->steps[step][i];
    }
    for (uint32_t after = 0; after < 1u << TINY; after++) {
        if ((after & needed) == needed && (after & ~(kept | needed)) == 0 && __builtin_popcount(after) <= it->slots) {
            int32_t rest = fewest(it, step + 1, after);
            best = rest < best ? rest : best;
        }
    }
    it->known[step][kept] = best + __builtin_popcount(needed & ~kept);
    return it->known[step][kept];
}

static int32_t misses_of(const dm_eviction_rule *rule, const search *asked) {
    const dm_eviction_future future = {asked->steps[0], TINY_STEPS * TINY_USES};
    dm_eviction *it;
    int32_t misses = 0;
    assert_int_equal(dm_eviction_create(TINY, asked->slots, rule, rule->policy == DM_EVICT_BELADY ? &future : NULL, &it), DM_OK);
    for (int32_t s = 0; s < TINY_STEPS; s++) {
        for (int32_t i = 0; i < TINY_USES; i++) {
            misses += !dm_eviction_has(it, asked->steps[s][i]);
            dm_eviction_use(it, asked->steps[s][i]);
        }
        dm_eviction_end_pass(it);
    }
    dm_eviction_free(it);
    return misses;
}

static void belady_is_the_optimum(void **state) {
    (void)state;
    const dm_eviction_rule belady = {.policy = DM_EVICT_BELADY};
    static const char *const others[] = {"lru", "lfu", "lfru", "slru", "stale"};
    dm_random random;
    dm_random_seed(&random, 11);
    for (int round = 0; round < 60; round++) {
        search asked = {.slots = 2 + round % 3};
        memset(asked.known, -1, sizeof asked.known);
        for (int32_t s = 0; s < TINY_STEPS; s++) { /* two different ones each */
            asked.steps[s][0] = (int32_t)(dm_random_uniform(&random) * TINY);
            asked.steps[s][1] = (asked.steps[s][0] + 1 + (int32_t)(dm_random_uniform(&random) * (TINY - 1))) % TINY;
        }
        int32_t best = misses_of(&belady, &asked);
        assert_int_equal(best, fewest(&asked, 0, 0));
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            const dm_eviction_rule other = rule_of(others[i]);
            assert_true(misses_of(&other, &asked) >= best);
        }
    }
}

/* ---- Where a pass does not fit ---- */

/* Layers in a circle with the same experts in every pass: lru misses all, stale keeps most of what fits. */
static void stale_survives_a_circle(void **state) {
    (void)state;
    uint64_t misses[2] = {0, 0};
    for (int kind = 0; kind < 2; kind++) {
        const dm_eviction_rule rule = rule_of(kind == 0 ? "lru" : "stale");
        dm_eviction *it;
        assert_int_equal(dm_eviction_create(20, 16, &rule, NULL, &it), DM_OK);
        for (int32_t i = 0; i < 20 * 100; i++) {
            misses[kind] += !dm_eviction_has(it, i % 20);
            dm_eviction_use(it, i % 20);
            dm_eviction_end_step(it);
            if (i % 20 == 19) {
                dm_eviction_end_pass(it);
            }
        }
        dm_eviction_free(it);
    }
    assert_true(misses[0] == 20 * 100 && misses[1] < misses[0] / 3);
}

/* ---- Names ---- */

/* Of a step that takes all slots, what is not needed any more goes first, the last of it before all. */
static void released_ones_go_first(void **state) {
    (void)state;
    dm_eviction *cache;
    const dm_eviction_rule rule = rule_of("lru");
    assert_int_equal(dm_eviction_create(8, 4, &rule, NULL, &cache), DM_OK);
    for (int32_t thing = 0; thing < 4; thing++) {
        assert_int_equal(dm_eviction_use(cache, thing), -1);
    }
    dm_eviction_release(cache, 1);
    dm_eviction_release(cache, 2);
    dm_eviction_release(cache, 7); /* is not there */
    assert_int_equal(dm_eviction_use(cache, 4), 2);
    assert_int_equal(dm_eviction_use(cache, 5), 1);
    assert_int_equal(dm_eviction_use(cache, 6), 0);
    dm_eviction_end_pass(cache);
    assert_int_equal(dm_eviction_use(cache, 0), 3);
    dm_eviction_free(cache);
}

static void names_are_read(void **state) {
    (void)state;
    dm_residency_rule rule;
    assert_int_equal(dm_residency_parse(NULL, &rule), DM_OK);
    assert_true(rule.evict.policy == DM_EVICT_LRU && !rule.shared);
    assert_int_equal(dm_residency_parse("lfu:64:shared", &rule), DM_OK);
    assert_true(rule.evict.policy == DM_EVICT_LFU && rule.evict.parameter == 64.0 && rule.shared);
    assert_int_equal(dm_residency_parse("slru:0.25:layers", &rule), DM_OK);
    assert_true(rule.evict.policy == DM_EVICT_SLRU && rule.evict.parameter == 0.25 && !rule.shared);
    static const char *const wrong[] = {"",
                                        ":",
                                        ":shared",
                                        "lr",
                                        "lru:2",
                                        "lru:",
                                        "lfu:",
                                        "lfu:0",
                                        "lfu:x",
                                        "lfu:1x",
                                        "lfu:nan",
                                        "lfru:1.5",
                                        "lfru:-1",
                                        "stale:1",
                                        "lru:shared:shared",
                                        "lru:shared:layers",
                                        "belady",
                                        "lfu:1111111111111111111111111111111111111111111111111",
                                        "LRU"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (dm_residency_parse(wrong[i], &rule) != DM_ERR_ARGUMENT) {
            fail_msg("'%s' was taken", wrong[i]);
        }
    }
}

/* ---- The heap ---- */

static void rankings_are_in_order(void **state) {
    (void)state;
    dm_ranking ranking;
    dm_random random;
    int32_t order[MOST]; /* those in it as they came */
    int32_t count = 0;
    double key[MOST];
    dm_random_seed(&random, 9);
    assert_int_equal(dm_ranking_create(MOST, &ranking), DM_OK);
    for (int round = 0; round < 20000; round++) {
        int32_t thing = (int32_t)(dm_random_uniform(&random) * MOST), least = -1;
        if (dm_ranking_has(&ranking, thing)) {
            dm_ranking_remove(&ranking, thing);
            int32_t at = 0;
            while (order[at] != thing) {
                at++;
            }
            memmove(order + at, order + at + 1, (size_t)(--count - at) * sizeof *order);
        } else {
            key[thing] = floor(dm_random_uniform(&random) * 8.0);
            dm_ranking_add(&ranking, thing, key[thing]);
            order[count++] = thing;
        }
        for (int32_t i = 0; i < count; i++) {
            least = least < 0 || key[order[i]] < key[least] ? order[i] : least;
        }
        assert_int_equal(dm_ranking_least(&ranking), least);
    }
    dm_ranking_free(&ranking);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_are_those_of_plain_lists),
        cmocka_unit_test(some_policies_are_others),
        cmocka_unit_test(belady_is_the_optimum),
        cmocka_unit_test(stale_survives_a_circle),
        cmocka_unit_test(names_are_read),
        cmocka_unit_test(released_ones_go_first),
        cmocka_unit_test(rankings_are_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
