/* The joined decision of flock, equilibrium and gates (dm_swarm in the public header) against what it is made of. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/flock.h"
#include "dilmodeli.h"
#include "kernels/vector.h"
#include "structured_keys.h"

enum { E = 24, DIM = 16, N = 60, MOST_K = 8, BIG = 2048, BIG_DIM = 64, STARLINGS = 7 };

static float keys[E * DIM], tokens[N * DIM];
static int32_t experts[N * MOST_K], others[N * MOST_K];
static float gates[N * MOST_K], other_gates[N * MOST_K];

static float affinity(size_t token, int32_t expert) {
    return dm_vector()->dot(keys + (size_t)expert * DIM, tokens + token * DIM, DIM);
}

static dm_swarm *small_swarm(void) {
    dm_swarm *swarm;
    dm_random random;
    dm_random_seed(&random, 3);
    for (size_t i = 0; i < E * DIM; i++) {
        keys[i] = (float)dm_random_normal(&random);
    }
    memcpy(keys + 9 * DIM, keys + 4 * DIM, DIM * sizeof *keys); /* experts 4 and 9 are always equal */
    for (size_t i = 0; i < N * DIM; i++) {
        tokens[i] = (float)(0.4 * dm_random_normal(&random) + (i % DIM == 0 ? 0.5 : 0.0)); /* all lean to one side */
    }
    assert_int_equal(dm_swarm_create(keys, E, DIM, &swarm), DM_OK);
    return swarm;
}

static dm_swarm_result decide(dm_swarm *swarm, const dm_swarm_options *options) {
    dm_swarm_result result;
    if (dm_swarm_decide(swarm, tokens, N, options, experts, gates, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return result;
}

/* Expert number `rank` of a token by affinity, of equals the lower one. */
static int32_t ranked(size_t token, int32_t rank) {
    for (int32_t e = 0; e < E; e++) {
        int32_t better = 0;
        for (int32_t other = 0; other < E; other++) {
            float a = affinity(token, e), b = affinity(token, other);
            better += b > a || (b == a && other < e);
        }
        if (better == rank) {
            return e;
        }
    }
    return -1;
}

static bool chosen(const int32_t *row, int32_t top_k, int32_t expert) {
    for (int32_t j = 0; j < top_k; j++) {
        if (row[j] == expert) {
            return true;
        }
    }
    return false;
}

/* ---- The parts ---- */

static void plain_choice(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(3);
    for (options.flock = 0; options.flock <= E; options.flock += E) {
        dm_swarm_result result = decide(swarm, &options);
        for (size_t t = 0; t < N; t++) {
            double sum = 0.0;
            for (int32_t j = 0; j < 3; j++) {
                assert_int_equal(experts[t * 3 + (size_t)j], ranked(t, j));
                sum += exp((double)affinity(t, ranked(t, j)));
            }
            for (int32_t j = 0; j < 3; j++) {
                assert_float_equal(gates[t * 3 + (size_t)j], exp((double)affinity(t, ranked(t, j))) / sum, 1e-5);
            }
        }
        assert_true(result.at_rest && result.moves == 0 && result.max_regret <= 1e-9 && !result.graph);
        assert_true(result.evaluations == E && result.experts_per_token == 3.0 && isnan(result.alignment));
    }
    dm_swarm_free(swarm);
}

/* What a token would gain by the best answer to the others, each expert costing beta n / nbar + fetch / n. */
static double regret(size_t token, int32_t top_k, double beta, double fetch, const double *loads) {
    const int32_t *row = experts + token * (size_t)top_k;
    double values[E], mine = 0.0, best = 0.0;
    for (int32_t e = 0; e < E; e++) {
        bool has = chosen(row, top_k, e);
        double users = loads[e] + (has ? 0.0 : 1.0);
        values[e] = (double)affinity(token, e) - beta * users * E / (top_k * N) - fetch / users;
        mine += has ? values[e] : 0.0;
    }
    for (int32_t j = 0; j < top_k; j++) {
        int32_t at = 0;
        for (int32_t e = 1; e < E; e++) {
            at = values[e] > values[at] ? e : at;
        }
        best += values[at];
        values[at] = -INFINITY;
    }
    return best - mine;
}

/* Of the outcome: the greatest regret, found anew from nothing but the choices. */
static double greatest_regret(int32_t top_k, double beta, double fetch) {
    double loads[E] = {0}, most = 0.0;
    for (size_t i = 0; i < N * (size_t)top_k; i++) {
        loads[experts[i]] += 1.0;
    }
    for (size_t t = 0; t < N; t++) {
        most = fmax(most, regret(t, top_k, beta, fetch, loads));
    }
    return most;
}

static void equilibrium(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(2);
    double before = decide(swarm, &options).maxvio;
    options.flock = E;
    options.keep_top = 0;
    options.sweeps = 100;
    options.beta = 0.7;
    dm_swarm_result result = decide(swarm, &options);
    assert_true(result.at_rest && result.moves > 0 && result.max_regret <= 1e-9 && result.maxvio < before);
    assert_true(greatest_regret(2, 0.7, 0.0) < 1e-6);
    options.gamma = 0.1;
    options.spread = 5.0;
    result = decide(swarm, &options);
    assert_true(result.at_rest && greatest_regret(2, 0.7, 0.5) < 1e-6);
    for (options.sweeps = 0; options.sweeps < 6; options.sweeps++) {
        for (int half = 0; half < 6; half++) {
            options.beta = 0.5 * half;
            result = decide(swarm, &options);
            assert_true(result.potential_after >= result.potential_before && result.max_regret >= 0.0);
            assert_true(result.at_rest || result.sweeps == (options.sweeps > 0 ? (size_t)options.sweeps : 1));
        }
    }
    dm_swarm_free(swarm);
}

/* Those in reach are taken rather than those that have to be fetched. */
static void fetching(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(2);
    float tau[E];
    size_t near[2] = {0};
    for (size_t e = 0; e < E; e++) {
        tau[e] = e < E / 2 ? 0.0f : 0.01f;
    }
    options.tau = tau;
    options.tau_slowest = 0.01;
    for (int with = 0; with < 2; with++) {
        options.gamma = with;
        decide(swarm, &options);
        for (size_t i = 0; i < N * 2; i++) {
            near[with] += experts[i] < E / 2;
        }
    }
    assert_true(near[1] > near[0] && near[1] < (size_t)N * 2);
    dm_swarm_free(swarm);
}

static void off_experts(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(3);
    bool off[E] = {false};
    options.off = off;
    options.beta = 0.2;
    for (int32_t count = 0; count <= E; count += 6) {
        for (int search = DM_SWARM_AUTO; search <= DM_SWARM_GRAPH; search++) {
            options.search = (dm_swarm_search)search;
            dm_swarm_result result = decide(swarm, &options);
            for (size_t i = 0; i < N * 3; i++) {
                assert_true(count == E ? experts[i] == -1 && gates[i] == 0.0f : experts[i] >= count && gates[i] > 0.0f);
            }
            assert_true(result.experts_per_token == (count == E ? 0.0 : 3.0));
        }
        memset(off, true, (size_t)(count + 6 < E ? count + 6 : E));
    }
    memset(off, false, 2);
    decide(swarm, &options);
    for (size_t t = 0; t < N; t++) {
        assert_true(experts[t * 3 + 2] == -1 && gates[t * 3 + 2] == 0.0f && experts[t * 3 + 1] >= 0);
        assert_float_equal(gates[t * 3] + gates[t * 3 + 1], 1.0f, 1e-6f);
    }
    dm_swarm_free(swarm);
}

/* Without costs, a token has those whose gate is at least theta of its best one's. */
static void adaptive_count(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(4);
    options.min_experts = 2;
    options.theta = 0.4;
    dm_swarm_result result = decide(swarm, &options);
    assert_true(result.experts_per_token > 2.0 && result.experts_per_token < 4.0);
    for (size_t t = 0; t < N; t++) {
        for (int32_t j = 0; j < 4; j++) {
            int32_t e = ranked(t, j);
            bool wanted = j < 2 || exp((double)affinity(t, e) - (double)affinity(t, ranked(t, 0))) > 0.4;
            assert_int_equal(experts[t * 4 + (size_t)j], wanted ? e : -1);
        }
    }
    dm_swarm_free(swarm);
}

static void prices(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(2);
    float price[E];
    for (size_t e = 0; e < E; e++) {
        price[e] = e % 2 == 0 ? 1e6f : 1.5f; /* the dear ones fall out of every flock */
    }
    options.price = price;
    options.keep_top = 0;
    decide(swarm, &options);
    for (size_t i = 0; i < N * 2; i++) {
        assert_true(experts[i] % 2 == 1);
    }
    options.keep_top = 1;
    for (int search = DM_SWARM_EXACT; search <= DM_SWARM_GRAPH; search++) {
        options.search = (dm_swarm_search)search;
        decide(swarm, &options);
        for (size_t t = 0; t < N; t++) {
            int32_t best = ranked(t, 0), second = 0;
            while (ranked(t, second) % 2 == 0 || ranked(t, second) == best) {
                second++;
            }
            assert_int_equal(experts[t * 2], best);
            assert_int_equal(experts[t * 2 + 1], ranked(t, second));
        }
    }
    dm_swarm_free(swarm);
}

/* With everybody in the flock it is that of whole router distributions. */
static void alignment(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    dm_swarm_options options = dm_swarm_default(2);
    static float p[N * E], scores[N * STARLINGS], each[N];
    int32_t earlier[N * STARLINGS];
    const dm_keys rows = {.rows = tokens, .n = N, .dim = DIM, .dot = dm_vector()->dot};
    double mean = 0.0;
    for (size_t t = 0; t < N; t++) {
        for (int32_t e = 0; e < E; e++) {
            p[t * E + (size_t)e] = affinity(t, e);
        }
        dm_vector()->softmax(p + t * E, E);
    }
    dm_flock_earlier(&rows, STARLINGS, 1, earlier, scores);
    dm_flock_alignment(p, E, N, E, earlier, STARLINGS, each);
    for (size_t t = 0; t < N; t++) {
        mean += (double)each[t] / N;
    }
    options.flock = E;
    options.alignment = true;
    assert_float_equal(decide(swarm, &options).alignment, mean, 1e-6);
    options.flock = 0;
    double near = decide(swarm, &options).alignment;
    assert_true(near > 0.0 && near < 1.0);
    for (size_t t = 1; t < N; t++) {
        memcpy(tokens + t * DIM, tokens, DIM * sizeof *tokens);
    }
    assert_float_equal(decide(swarm, &options).alignment, 1.0, 1e-6);
    dm_swarm_free(swarm);
}

/* ---- Many experts ---- */

typedef struct big {
    dm_swarm *swarm;
    float *keys, *tokens;
} big;

static big big_swarm(void) {
    big it = {NULL, malloc(BIG * BIG_DIM * sizeof(float)), malloc(N * BIG_DIM * sizeof(float))};
    assert_non_null(it.keys);
    assert_non_null(it.tokens);
    structured_keys(it.keys, BIG, BIG_DIM, 16, 1);
    structured_sequence(it.tokens, N, it.keys, BIG, BIG_DIM, 2);
    for (size_t i = 0; i < N * BIG_DIM; i++) {
        it.tokens[i] *= 3.0f;
    }
    assert_int_equal(dm_swarm_create(it.keys, BIG, BIG_DIM, &it.swarm), DM_OK);
    return it;
}

static void free_big(big *it) {
    dm_swarm_free(it->swarm);
    free(it->keys);
    free(it->tokens);
}

static double agreement(int32_t top_k) {
    size_t same = 0;
    for (size_t t = 0; t < N; t++) {
        for (size_t j = 0; j < (size_t)top_k; j++) {
            same += chosen(others + t * (size_t)top_k, top_k, experts[t * (size_t)top_k + j]);
        }
    }
    return (double)same / (double)(N * top_k);
}

static void graph_like_scan(void **state) {
    (void)state;
    big it = big_swarm();
    dm_swarm_options options = dm_swarm_default(4);
    dm_swarm_result exact, graph, again;
    for (int crowded = 0; crowded < 2; crowded++) {
        options.beta = 0.05 * crowded;
        options.search = DM_SWARM_EXACT;
        assert_int_equal(dm_swarm_decide(it.swarm, it.tokens, N, &options, others, other_gates, &exact), DM_OK);
        options.search = DM_SWARM_AUTO;
        assert_int_equal(dm_swarm_decide(it.swarm, it.tokens, N, &options, experts, gates, &graph), DM_OK);
        print_message("beta %.2f: scan %.0f, graph %.0f evaluations; %.4f of the choices agree\n", options.beta,
                      exact.evaluations, graph.evaluations, agreement(4));
        assert_true(!exact.graph && graph.graph && graph.evaluations < exact.evaluations / 2);
        assert_true(agreement(4) > 0.95 && graph.at_rest && graph.potential_after >= graph.potential_before);
        for (int threads = 1; threads <= 3; threads++) {
            dm_set_threads(threads);
            assert_int_equal(dm_swarm_decide(it.swarm, it.tokens, N, &options, others, other_gates, &again), DM_OK);
            assert_memory_equal(others, experts, N * 4 * sizeof *experts);
            assert_memory_equal(other_gates, gates, N * 4 * sizeof *gates);
        }
        dm_set_threads(0);
    }
    free_big(&it);
}

/* Token by token, as a decoder calls. */
static void going_on(void **state) {
    (void)state;
    big it = big_swarm();
    dm_swarm_options options = dm_swarm_default(4);
    double evaluations[2] = {0};
    for (int with = 0; with < 2; with++) {
        for (size_t t = 0; t < N; t++) {
            dm_swarm_result result;
            options.goes_on = with != 0;
            assert_int_equal(
                dm_swarm_decide(it.swarm, it.tokens + t * BIG_DIM, 1, &options, experts + t * 4, gates + t * 4, &result), DM_OK);
            evaluations[with] += result.evaluations / N;
        }
    }
    options.search = DM_SWARM_EXACT;
    assert_int_equal(dm_swarm_decide(it.swarm, it.tokens, N, &options, others, other_gates, NULL), DM_OK);
    print_message("cold %.0f, going on %.0f evaluations\n", evaluations[0], evaluations[1]);
    assert_true(evaluations[1] < evaluations[0] && agreement(4) > 0.95);
    free_big(&it);
}

/* ---- What callers can do wrong ---- */

static void refused(dm_swarm *swarm, const float *given, size_t n, const dm_swarm_options *options, const char *word) {
    dm_swarm_result result = {.sweeps = 77};
    memset(experts, 5, sizeof experts);
    assert_int_equal(dm_swarm_decide(swarm, given, n, options, experts, gates, &result), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), word));
    assert_true(result.sweeps == 77 && experts[0] == 0x05050505);
}

#define REFUSED(field, value, word)                                                                                              \
    do {                                                                                                                         \
        dm_swarm_options options = dm_swarm_default(3);                                                                          \
        options.field = value;                                                                                                   \
        refused(swarm, tokens, N, &options, word);                                                                               \
    } while (0)

static void errors(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm(), *none = swarm;
    const dm_swarm_options good = dm_swarm_default(3);
    float costs[E] = {0};
    REFUSED(top_k, 0, "top_k");
    REFUSED(top_k, E + 1, "top_k");
    REFUSED(top_k, INT32_MAX, "top_k");
    REFUSED(min_experts, 0, "min_experts");
    REFUSED(min_experts, 4, "min_experts");
    REFUSED(min_experts, 2, "theta");
    REFUSED(keep_top, -1, "keep_top");
    REFUSED(keep_top, 4, "keep_top");
    REFUSED(flock, 2, "flock");
    REFUSED(flock, E + 1, "flock");
    REFUSED(sweeps, -1, "sweeps");
    REFUSED(search, (dm_swarm_search)9, "search");
    REFUSED(beta, -1.0, "beta");
    REFUSED(gamma, (double)NAN, "gamma");
    REFUSED(spread, (double)INFINITY, "spread");
    REFUSED(tau, costs, "tau_slowest");
    costs[7] = NAN;
    REFUSED(price, costs, "price of expert 7");
    refused(swarm, NULL, N, &good, "tokens");
    refused(NULL, tokens, N, &good, "swarm");
    refused(swarm, tokens, SIZE_MAX / 8, &good, "too many");
    refused(swarm, tokens, N, NULL, "options");
    tokens[5 * DIM + 2] = -INFINITY;
    refused(swarm, tokens, N, &good, "number 2 of token 5");
    dm_swarm_free(swarm);
    keys[3 * DIM + 1] = NAN;
    assert_int_equal(dm_swarm_create(keys, E, DIM, &none), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "number 1 of the key of expert 3"));
    assert_null(none);
    assert_int_equal(dm_swarm_create(NULL, E, DIM, &none), DM_ERR_ARGUMENT);
    assert_int_equal(dm_swarm_create(keys, 0, DIM, &none), DM_ERR_ARGUMENT);
    assert_int_equal(dm_swarm_create(keys, E, -1, &none), DM_ERR_ARGUMENT);
    assert_int_equal(dm_swarm_create(keys, E, DIM, NULL), DM_ERR_ARGUMENT);
    dm_swarm_free(NULL);
}

static void no_tokens(void **state) {
    (void)state;
    dm_swarm *swarm = small_swarm();
    const dm_swarm_options options = dm_swarm_default(3);
    dm_swarm_result result;
    assert_int_equal(dm_swarm_decide(swarm, NULL, 0, &options, NULL, NULL, &result), DM_OK);
    assert_true(result.at_rest && result.sweeps == 0 && result.experts_per_token == 0.0 && isnan(result.alignment));
    dm_swarm_free(swarm);
}

static float any_float(dm_random *random) {
    double size = pow(10.0, 80.0 * dm_random_uniform(random) - 40.0);
    return (float)fmin(fmax(size * dm_random_normal(random), -FLT_MAX), FLT_MAX);
}

static double any_amount(dm_random *random) {
    return dm_random_uniform(random) < 0.3 ? 0.0 : pow(10.0, 600.0 * dm_random_uniform(random) - 300.0);
}

static dm_swarm_options any_options(dm_random *random, int32_t n_experts, float *costs, bool *off) {
    dm_swarm_options o =
        dm_swarm_default(1 + (int32_t)(dm_random_next(random) % (uint64_t)(n_experts < MOST_K ? n_experts : MOST_K)));
    o.min_experts = 1 + (int32_t)(dm_random_next(random) % (uint64_t)o.top_k);
    o.keep_top = (int32_t)(dm_random_next(random) % (uint64_t)(o.min_experts + 1));
    o.theta = 1.0 - dm_random_uniform(random);
    o.flock =
        dm_random_uniform(random) < 0.5 ? 0 : o.top_k + (int32_t)(dm_random_next(random) % (uint64_t)(n_experts - o.top_k + 1));
    o.beta = any_amount(random);
    o.gamma = any_amount(random);
    o.spread = any_amount(random);
    o.sweeps = (int32_t)(dm_random_next(random) % 4);
    o.search = (dm_swarm_search)(dm_random_next(random) % 3);
    o.goes_on = dm_random_next(random) % 2 == 0;
    o.alignment = dm_random_next(random) % 2 == 0;
    for (int32_t e = 0; e < n_experts; e++) {
        costs[e] = fabsf(any_float(random));
        off[e] = dm_random_uniform(random) < 0.3;
    }
    o.price = dm_random_next(random) % 2 == 0 ? costs : NULL;
    o.tau = dm_random_next(random) % 2 == 0 ? costs : NULL;
    o.tau_slowest = 1e-3;
    o.off = dm_random_next(random) % 2 == 0 ? off : NULL;
    return o;
}

/* Whatever the numbers, a token has different experts that are on, and gates that add up. */
static void check_row(const dm_swarm_options *o, int32_t n_experts, const int32_t *row, const float *weights) {
    double sum = 0.0;
    for (int32_t j = 0; j < o->top_k; j++) {
        assert_true(row[j] >= -1 && row[j] < n_experts && (row[j] >= 0 || weights[j] == 0.0f));
        assert_true(row[j] < 0 || (!chosen(row, j, row[j]) && (o->off == NULL || !o->off[row[j]])));
        assert_true(weights[j] >= 0.0f && (j == 0 || row[j] < 0 || row[j - 1] >= 0));
        sum += (double)weights[j];
    }
    assert_true(row[0] < 0 || fabs(sum - 1.0) < 1e-5);
}

static void any_numbers(void **state) {
    (void)state;
    enum { ROUNDS = DM_EMULATED ? 40 : 400 };
    dm_random random;
    dm_random_seed(&random, 11);
    for (int round = 0; round < ROUNDS; round++) {
        int32_t n_experts = 1 + (int32_t)(dm_random_next(&random) % E), dim = 1 + (int32_t)(dm_random_next(&random) % DIM);
        float costs[E];
        bool off[E];
        dm_swarm *swarm;
        for (size_t i = 0; i < E * DIM; i++) {
            keys[i] = any_float(&random);
            tokens[i] = any_float(&random);
        }
        assert_int_equal(dm_swarm_create(keys, n_experts, dim, &swarm), DM_OK);
        for (int call = 0; call < 4; call++) {
            const dm_swarm_options o = any_options(&random, n_experts, costs, off);
            dm_swarm_result result;
            size_t n = 1 + dm_random_next(&random) % E;
            if (dm_swarm_decide(swarm, tokens, n, &o, experts, gates, &result) != DM_OK) {
                fail_msg("%s", dm_error_message());
            }
            for (size_t t = 0; t < n; t++) {
                check_row(&o, n_experts, experts + t * (size_t)o.top_k, gates + t * (size_t)o.top_k);
            }
            assert_true(isfinite(result.evaluations) && isfinite(result.maxvio) && isfinite(result.max_regret));
        }
        dm_swarm_free(swarm);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_choice), cmocka_unit_test(equilibrium),     cmocka_unit_test(fetching),
        cmocka_unit_test(off_experts),  cmocka_unit_test(adaptive_count),  cmocka_unit_test(prices),
        cmocka_unit_test(alignment),    cmocka_unit_test(graph_like_scan), cmocka_unit_test(going_on),
        cmocka_unit_test(errors),       cmocka_unit_test(no_tokens),       cmocka_unit_test(any_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
