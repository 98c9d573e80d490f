/* The model's own routing, balance figures and balancing rules, against plain arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "core/loss.h"
#include "moe/router.h"

static void top_k_gates_and_ties(void **state) {
    (void)state;
    /* equal logits go to the lower expert, best first */
    float logits[6] = {1.0f, 3.0f, 3.0f, 0.0f, 2.0f, 3.0f};
    int32_t experts[4];
    float gates[4];
    const dm_router router = {.n_experts = 6, .top_k = 4};
    dm_router_route(&router, logits, 1, experts, gates);
    const int32_t expected[4] = {1, 2, 5, 4};
    assert_memory_equal(experts, expected, sizeof expected);
    double total = 3.0 * exp(3.0) + exp(2.0);
    assert_true(fabs((double)gates[0] - exp(3.0) / total) < 1e-6);
    assert_true(fabs((double)gates[3] - exp(2.0) / total) < 1e-6);
    double all = total + exp(1.0) + 1.0;
    assert_true(fabs((double)logits[3] - 1.0 / all) < 1e-6); /* the softmax is left behind */
}

static void bias_steers_the_choice_alone(void **state) {
    (void)state;
    float plain[4] = {0.0f, 1.0f, 2.0f, 3.0f};
    const float bias[4] = {10.0f, 0.0f, 0.0f, -10.0f};
    int32_t experts[2];
    float gates[2];
    const dm_router router = {.n_experts = 4, .top_k = 2, .bias = bias};
    dm_router_route(&router, plain, 1, experts, gates);
    assert_int_equal(experts[0], 0);
    assert_int_equal(experts[1], 2);
    double expected = 1.0 / (1.0 + exp(2.0)); /* from the unbiased logits 0 and 2 */
    assert_true(fabs((double)gates[0] - expected) < 1e-6);
    assert_true(fabs((double)(gates[0] + gates[1]) - 1.0) < 1e-6);
}

static void gates_may_stay_probabilities(void **state) {
    (void)state;
    float logits[3] = {1.0f, 2.0f, 0.0f};
    int32_t experts[2];
    float gates[2];
    const dm_router router = {.n_experts = 3, .top_k = 2, .plain_gates = true, .scale = 2.5f};
    dm_router_route(&router, logits, 1, experts, gates);
    double all = exp(1.0) + exp(2.0) + 1.0;
    assert_true(fabs((double)gates[0] - 2.5 * exp(2.0) / all) < 1e-6);
    assert_true(fabs((double)gates[1] - 2.5 * exp(1.0) / all) < 1e-6);
}

static void not_a_number_is_never_preferred(void **state) {
    (void)state;
    float logits[4] = {NAN, 0.0f, NAN, 1.0f};
    int32_t experts[2];
    float gates[2];
    const dm_router router = {.n_experts = 4, .top_k = 2};
    dm_router_route(&router, logits, 1, experts, gates);
    assert_int_equal(experts[0], 3);
    assert_int_equal(experts[1], 1);
}

static void random_choices_are_the_best(void **state) {
    (void)state;
    enum { E = 37, K = 5, N = 200 };
    dm_random random;
    dm_random_seed(&random, 3);
    static float logits[N * E];
    static float copy[N * E];
    static int32_t experts[N * K];
    static float gates[N * K];
    for (size_t i = 0; i < N * E; i++) {
        logits[i] = copy[i] = (float)dm_random_normal(&random);
    }
    const dm_router router = {.n_experts = E, .top_k = K};
    dm_router_route(&router, logits, N, experts, gates);
    for (size_t t = 0; t < N; t++) {
        for (size_t j = 0; j < K; j++) {
            float mine = copy[t * E + (size_t)experts[t * K + j]];
            size_t better = 0;
            for (size_t e = 0; e < E; e++) {
                better += copy[t * E + e] > mine;
            }
            assert_int_equal(better, j);
        }
    }
}

static void fixed_choices_are_kept(void **state) {
    (void)state;
    float logits[4] = {5.0f, 4.0f, 1.0f, 0.0f};
    int32_t experts[2] = {3, 2};
    float gates[2];
    const dm_router router = {.given = true, .n_experts = 4, .top_k = 2};
    dm_router_route(&router, logits, 1, experts, gates);
    assert_int_equal(experts[0], 3);
    assert_int_equal(experts[1], 2);
    assert_true(fabs((double)gates[1] - 1.0 / (1.0 + exp(-1.0))) < 1e-6);
}

static void maxvio_of_known_loads(void **state) {
    (void)state;
    const uint64_t even[3] = {5, 5, 5};
    const uint64_t one[4] = {12, 0, 0, 0};
    const uint64_t none[2] = {0, 0};
    assert_true(dm_router_maxvio(even, 3) == 0.0);
    assert_true(dm_router_maxvio(one, 4) == 3.0);
    assert_true(dm_router_maxvio(none, 2) == 0.0);
    uint64_t loads[3] = {0, 1, 0};
    const int32_t experts[4] = {2, 0, 2, 1};
    dm_router_count(experts, 2, 2, loads);
    assert_true(loads[0] == 1 && loads[1] == 2 && loads[2] == 2);
}

/* The loss from its definition, and its slopes against finite differences (it is linear in p). */
static void switch_loss_and_slopes(void **state) {
    (void)state;
    enum { E = 5, N = 7, K = 2, STRIDE = 9 };
    dm_random random;
    dm_random_seed(&random, 5);
    float p[N * STRIDE];
    for (size_t i = 0; i < N * STRIDE; i++) {
        p[i] = (float)dm_random_uniform(&random);
    }
    const uint64_t loads[E] = {6, 3, 2, 2, 1};
    float slopes[E];
    double loss = dm_switch_loss(p, STRIDE, N, E, K, loads, slopes);
    double expected = 0.0;
    for (size_t e = 0; e < E; e++) {
        double mean = 0.0;
        for (size_t t = 0; t < N; t++) {
            mean += (double)p[t * STRIDE + e] / N;
        }
        expected += E * ((double)loads[e] / N / K) * mean;
    }
    assert_true(fabs(loss - expected) < 1e-9);
    for (size_t e = 0; e < E; e++) {
        float ignored[E];
        float kept = p[3 * STRIDE + e];
        p[3 * STRIDE + e] = kept + 0.5f;
        double moved = dm_switch_loss(p, STRIDE, N, E, K, loads, ignored);
        assert_true(fabs((moved - loss) / 0.5 - (double)slopes[e]) < 1e-6);
        p[3 * STRIDE + e] = kept;
    }
}

static void loss_free_bias_moves_towards_even(void **state) {
    (void)state;
    float bias[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const uint64_t loads[4] = {1, 2, 3, 2};
    dm_loss_free_update(bias, loads, 4, 0.5f);
    assert_true(bias[0] == 0.5f && bias[1] == 0.0f && bias[2] == -0.5f && bias[3] == 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_k_gates_and_ties),
        cmocka_unit_test(bias_steers_the_choice_alone),
        cmocka_unit_test(gates_may_stay_probabilities),
        cmocka_unit_test(not_a_number_is_never_preferred),
        cmocka_unit_test(random_choices_are_the_best),
        cmocka_unit_test(fixed_choices_are_kept),
        cmocka_unit_test(maxvio_of_known_loads),
        cmocka_unit_test(switch_loss_and_slopes),
        cmocka_unit_test(loss_free_bias_moves_towards_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
