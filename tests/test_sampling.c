/* The sets that sampling draws from, the distribution it draws by, and what makes it repeatable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "dilmodeli.h"
#include "model/sampling.h"

enum { VOCAB = 6 };

/* Logarithms of 0.25, 0.05, 0.4, 0.1, 0.15, 0.05: the order by probability is 2 0 4 3 1 5, where 1 and 5 are equals. */
static const float probabilities[VOCAB] = {0.25f, 0.05f, 0.4f, 0.1f, 0.15f, 0.05f};

static void fill(float *logits) {
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = logf(probabilities[i]) + 3.0f;
    }
}

static dm_sampling plain(void) {
    return (dm_sampling){.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .penalty_window = 64};
}

static void expect_set(const dm_sampling *options, const int32_t *ids, int32_t n) {
    float logits[VOCAB];
    fill(logits);
    dm_sampler sampler;
    assert_int_equal(dm_sampler_init(&sampler, options, VOCAB), DM_OK);
    dm_sampler_candidates(&sampler, logits);
    assert_int_equal(sampler.n_candidates, n);
    double total = 0.0;
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(sampler.candidates[i].id, ids[i]);
        total += (double)sampler.candidates[i].p;
    }
    assert_true(fabs(total - 1.0) < 1e-6);
    dm_sampler_free(&sampler);
}

static void sets(void **state) {
    (void)state;
    static const int32_t order[VOCAB] = {2, 0, 4, 3, 1, 5};
    dm_sampling o = plain();
    expect_set(&o, order, 6);
    for (o.top_k = 1; o.top_k <= VOCAB + 1; o.top_k++) {
        expect_set(&o, order, o.top_k < VOCAB ? o.top_k : VOCAB);
    }
    o = plain();
    static const struct {
        float top_p;
        int32_t n;
    } nuclei[] = {{0.01f, 1}, {0.39f, 1}, {0.41f, 2}, {0.64f, 2}, {0.66f, 3}, {0.79f, 3}, {0.81f, 4}, {0.96f, 6}};
    for (size_t i = 0; i < sizeof nuclei / sizeof *nuclei; i++) {
        o.top_p = nuclei[i].top_p;
        expect_set(&o, order, nuclei[i].n);
    }
    o = plain(); /* thresholds 0.4 min_p */
    static const struct {
        float min_p;
        int32_t n;
    } floors[] = {{0.1f, 6}, {0.13f, 4}, {0.26f, 3}, {0.4f, 2}, {0.7f, 1}, {1.0f, 1}};
    for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
        o.min_p = floors[i].min_p;
        expect_set(&o, order, floors[i].n);
    }
    o = plain(); /* top-p counts within the top-k: 0.4 of 0.65 is 0.615 */
    o.top_k = 2;
    o.top_p = 0.61f;
    expect_set(&o, order, 1);
    o.top_p = 0.62f;
    expect_set(&o, order, 2);
}

/* Logits with many equals, and what is no number among them. */
static void fill_with_ties(dm_random *random, float *logits, int32_t n) {
    static const float others[] = {NAN, INFINITY, -INFINITY};
    for (int32_t i = 0; i < n; i++) {
        const uint64_t drawn = dm_random_next(random);
        logits[i] = drawn % 16 < 3 ? others[drawn % 16] : (float)(drawn >> 32 & 0x3ff) / 64.0f;
    }
}

/* The best that is not taken yet, of equals the first; -1: none. */
static int32_t best_left(const float *logits, const bool *taken, int32_t n) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        if (!taken[i] && isfinite(logits[i]) && (best < 0 || logits[i] > logits[best])) {
            best = i;
        }
    }
    return best;
}

static void the_best_are_found_in_vocabularies_of_any_size(void **state) {
    (void)state;
    enum { MOST = 3000 };
    static const int32_t sizes[] = {1, 2, 3, 15, 16, 17, 63, 160, 161, 1000, MOST}, tops[] = {0, 1, 2, 5, 40, 700};
    static float logits[MOST];
    dm_random random;
    dm_random_seed(&random, 11);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t t = 0; t < sizeof tops / sizeof *tops; t++) {
            bool taken[MOST] = {false};
            dm_sampling o = plain();
            dm_sampler sampler;
            int32_t greedy, n = 0;
            o.top_k = tops[t];
            fill_with_ties(&random, logits, sizes[s]);
            assert_int_equal(dm_sampler_init(&sampler, &o, sizes[s]), DM_OK);
            dm_sampler_candidates(&sampler, logits);
            for (int32_t best; (o.top_k == 0 || n < o.top_k) && (best = best_left(logits, taken, sizes[s])) >= 0; n++) {
                assert_true(n < sampler.n_candidates);
                assert_int_equal(sampler.candidates[n].id, best);
                taken[best] = true;
            }
            assert_int_equal(sampler.n_candidates, n);
            sampler.options.temperature = 0.0f;
            const dm_status status = dm_sampler_next(&sampler, logits, NULL, 0, &greedy);
            assert_int_equal(status, n > 0 ? DM_OK : DM_ERR_FORMAT);
            assert_true(n == 0 || greedy == sampler.candidates[0].id);
            dm_sampler_free(&sampler);
        }
    }
}

static void temperature_reshapes_but_keeps_the_set(void **state) {
    (void)state;
    float logits[VOCAB];
    fill(logits);
    dm_sampling o = plain();
    o.top_p = 0.64f;
    o.temperature = 0.5f;
    dm_sampler sampler;
    assert_int_equal(dm_sampler_init(&sampler, &o, VOCAB), DM_OK);
    dm_sampler_candidates(&sampler, logits);
    assert_int_equal(sampler.n_candidates, 2);
    double expected = 0.4 * 0.4 / (0.4 * 0.4 + 0.25 * 0.25);
    assert_true(fabs((double)sampler.candidates[0].p - expected) < 1e-6);
    dm_sampler_free(&sampler);
}

static void draws_follow_the_distribution(void **state) {
    (void)state;
    enum { DRAWS = 100000 };
    dm_sampling o = plain();
    o.seed = 7;
    dm_sampler sampler;
    assert_int_equal(dm_sampler_init(&sampler, &o, VOCAB), DM_OK);
    int counts[VOCAB] = {0};
    for (int i = 0; i < DRAWS; i++) {
        float logits[VOCAB];
        int32_t id;
        fill(logits);
        assert_int_equal(dm_sampler_next(&sampler, logits, NULL, 0, &id), DM_OK);
        counts[id]++;
    }
    for (int i = 0; i < VOCAB; i++) { /* within five standard deviations */
        double p = (double)probabilities[i];
        assert_true(fabs(counts[i] - DRAWS * p) < 5.0 * sqrt(DRAWS * p * (1.0 - p)));
    }
    dm_sampler_free(&sampler);
}

static void draw_many(uint64_t seed, int32_t *ids, int n) {
    dm_sampling o = plain();
    o.seed = seed;
    dm_sampler sampler;
    assert_int_equal(dm_sampler_init(&sampler, &o, VOCAB), DM_OK);
    for (int i = 0; i < n; i++) {
        float logits[VOCAB];
        fill(logits);
        assert_int_equal(dm_sampler_next(&sampler, logits, NULL, 0, &ids[i]), DM_OK);
    }
    dm_sampler_free(&sampler);
}

static void seeds_repeat(void **state) {
    (void)state;
    int32_t first[64], again[64], other[64];
    draw_many(1, first, 64);
    draw_many(1, again, 64);
    draw_many(2, other, 64);
    assert_memory_equal(first, again, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
}

static void greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    dm_sampling o = plain();
    o.temperature = 0.0f;
    o.top_k = 1;
    dm_sampler sampler;
    assert_int_equal(dm_sampler_init(&sampler, &o, VOCAB), DM_OK);
    float ties[VOCAB] = {-1.0f, NAN, 2.5f, -INFINITY, 2.5f, 2.5f};
    int32_t id;
    assert_int_equal(dm_sampler_next(&sampler, ties, NULL, 0, &id), DM_OK);
    assert_int_equal(id, 2);
    float none[VOCAB] = {NAN, NAN, NAN, -INFINITY, NAN, NAN};
    assert_int_equal(dm_sampler_next(&sampler, none, NULL, 0, &id), DM_ERR_FORMAT);
    dm_sampler_free(&sampler);
}

static void penalty_counts_each_recent_token_once(void **state) {
    (void)state;
    float logits[VOCAB] = {4.0f, -1.0f, 3.9f, 1.0f, 0.0f, 2.0f};
    static const int32_t recent[] = {5, 0, 1, 0, 0};
    dm_sampling_penalize(logits, VOCAB, recent, 5, 2.0f);
    static const float expected[VOCAB] = {2.0f, -2.0f, 3.9f, 1.0f, 0.0f, 1.0f};
    assert_memory_equal(logits, expected, sizeof expected);

    dm_sampling o = plain();
    o.temperature = 0.0f;
    o.repetition_penalty = 2.0f;
    o.penalty_window = 2; /* sees 3 and 2, not 0 */
    static const int32_t history[] = {0, 3, 2};
    float fresh[VOCAB] = {4.0f, -1.0f, 5.0f, 1.0f, 0.0f, 2.0f};
    dm_sampler sampler;
    int32_t id;
    assert_int_equal(dm_sampler_init(&sampler, &o, VOCAB), DM_OK);
    assert_int_equal(dm_sampler_next(&sampler, fresh, history, 3, &id), DM_OK);
    assert_int_equal(id, 0);
    assert_true(fresh[0] == 4.0f && fresh[2] == 2.5f && fresh[3] == 0.5f);
    dm_sampler_free(&sampler);
}

static void bad_options_are_refused(void **state) {
    (void)state;
    dm_sampling bad[9];
    for (int i = 0; i < 9; i++) {
        bad[i] = plain();
    }
    bad[0].temperature = -0.1f;
    bad[1].temperature = NAN;
    bad[2].top_k = -1;
    bad[3].top_p = 0.0f;
    bad[4].top_p = 1.5f;
    bad[5].min_p = -0.5f;
    bad[6].min_p = 2.0f;
    bad[7].repetition_penalty = 0.0f;
    bad[8].penalty_window = -1;
    for (int i = 0; i < 9; i++) {
        dm_sampler sampler;
        assert_int_equal(dm_sampler_init(&sampler, &bad[i], VOCAB), DM_ERR_ARGUMENT);
        assert_true(strlen(dm_error_message()) > 10);
        dm_sampler_free(&sampler);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets),
        cmocka_unit_test(the_best_are_found_in_vocabularies_of_any_size),
        cmocka_unit_test(temperature_reshapes_but_keeps_the_set),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(penalty_counts_each_recent_token_once),
        cmocka_unit_test(bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
