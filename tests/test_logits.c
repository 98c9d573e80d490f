/* Logits against independent implementations, and against themselves however the tokens are fed. */
#include "reference.h"

#include <math.h>

#include "dilmodeli.h"

enum { VOCAB = 512 };

static double largest_difference(const float *a, const float *b, size_t n) {
    double largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        largest = difference > largest || isnan(difference) ? difference : largest;
    }
    return largest;
}

static size_t best(const float *logits) {
    size_t at = 0;
    for (size_t i = 1; i < VOCAB; i++) {
        at = logits[i] > logits[at] ? i : at;
    }
    return at;
}

/* Feeds in pieces of `step` tokens into a fresh session. */
static float *logits_in_steps(const dm_model *model, dm_cache_type cache, const int32_t *ids, int32_t n, int32_t step) {
    dm_session *session;
    float *logits = malloc((size_t)n * VOCAB * sizeof *logits);
    assert_non_null(logits);
    const dm_session_options options = {.context = n, .cache = cache};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    for (int32_t first = 0; first < n; first += step) {
        int32_t m = n - first < step ? n - first : step;
        assert_int_equal(dm_session_feed(session, ids + first, m, true, logits + (size_t)first * VOCAB), DM_OK);
    }
    assert_int_equal(dm_session_length(session), n);
    dm_session_free(session);
    return logits;
}

/* The last position alone must give what `all` gave for it. */
static void check_last(const dm_model *model, const int32_t *ids, int32_t n, const float *expected) {
    dm_session *session;
    float logits[VOCAB];
    const dm_session_options options = {.context = n, .cache = DM_CACHE_F32};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, n, false, logits), DM_OK);
    assert_true(largest_difference(logits, expected, VOCAB) < 1e-4);
    dm_session_free(session);
}

/* Logarithm of the sum of the exponentials of a position's logits. */
static double log_sum_exp(const float *logits) {
    float most = logits[0];
    for (size_t i = 1; i < VOCAB; i++) {
        most = logits[i] > most ? logits[i] : most;
    }
    double sum = 0.0;
    for (size_t i = 0; i < VOCAB; i++) {
        sum += exp((double)logits[i] - (double)most);
    }
    return (double)most + log(sum);
}

/* KL(expected || ours) of one position, nats. */
static double divergence(const float *expected, const float *ours) {
    double expected_sum = log_sum_exp(expected), our_sum = log_sum_exp(ours), kl = 0.0;
    for (size_t i = 0; i < VOCAB; i++) {
        double p = (double)expected[i] - expected_sum;
        kl += exp(p) * (p - ((double)ours[i] - our_sum));
    }
    return kl;
}

/* The same of n positions, on average. */
static double mean_divergence(const float *expected, const float *ours, size_t n) {
    double sum = 0.0;
    for (size_t t = 0; t < n; t++) {
        sum += divergence(expected + t * VOCAB, ours + t * VOCAB);
    }
    return sum / (double)n;
}

/* With fewer bits for keys and values: 16 stay within the bound too, 8 change the distribution hardly. */
static void check_caches(const dm_model *model, const int32_t *ids, int32_t n, const float *expected) {
    for (int32_t step = 1; step <= n; step += n - 1) {
        float *half = logits_in_steps(model, DM_CACHE_F16, ids, n, step);
        float *eight = logits_in_steps(model, DM_CACHE_Q8, ids, n, step);
        double difference = largest_difference(half, expected, (size_t)n * VOCAB);
        double kl = mean_divergence(expected, eight, (size_t)n);
        print_message("by %d: f16 cache %.2e from the reference, q8 cache KL %.1e\n", step, difference, kl);
        assert_true(difference <= 2e-3);
        assert_true(kl < 1e-4 && kl > 1e-12);
        free(half);
        free(eight);
    }
}

static void compare(const char *model_path, const char *logits_path) {
    need(model_path);
    need(logits_path);
    int32_t n;
    int32_t *ids = read_ids(MODELS "ids.txt", &n);
    assert_int_equal(n, 96);
    float *expected = read_npy(logits_path, (size_t)n, VOCAB);
    dm_model *model;
    assert_int_equal(dm_model_open(model_path, &model), DM_OK);
    static const int32_t steps[] = {96, 40, 7, 3, 1};
    float *whole = NULL;
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        float *logits = logits_in_steps(model, DM_CACHE_F32, ids, n, steps[s]);
        double difference = largest_difference(logits, expected, (size_t)n * VOCAB);
        double own = whole != NULL ? largest_difference(logits, whole, (size_t)n * VOCAB) : 0.0;
        print_message("%s by %d: %.2e from the reference, %.2e from fed at once\n", strrchr(model_path, '/') + 1, steps[s],
                      difference, own);
        assert_true(difference <= 2e-3);
        assert_true(own <= 1e-4);
        for (int32_t t = 0; t < n; t++) {
            assert_int_equal(best(logits + (size_t)t * VOCAB), best(expected + (size_t)t * VOCAB));
        }
        if (whole == NULL) {
            whole = logits;
        } else {
            free(logits);
        }
    }
    check_caches(model, ids, n, expected);
    check_last(model, ids, n, whole + (size_t)(n - 1) * VOCAB);
    dm_model_close(model);
    free(whole);
    free(expected);
    free(ids);
}

/* One model in the types of blocks: the peer rounds activations to 8 bits, so distributions are compared, not logits. */
static void quantized(void **state) {
    (void)state;
    static const char *const types[] = {"F16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "Q2_K"};
    static const int32_t steps[] = {96, 5, 1};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char model_path[512], logits_path[512];
        snprintf(model_path, sizeof model_path, MODELS "quant-%s.gguf", types[i]);
        snprintf(logits_path, sizeof logits_path, MODELS "quant-%s.logits.npy", types[i]);
        need(model_path);
        need(logits_path);
        int32_t n;
        int32_t *ids = read_ids(MODELS "ids.txt", &n);
        float *expected = read_npy(logits_path, (size_t)n, VOCAB);
        dm_model *model;
        assert_int_equal(dm_model_open(model_path, &model), DM_OK);
        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            float *logits = logits_in_steps(model, DM_CACHE_F32, ids, n, steps[s]);
            double kl = mean_divergence(expected, logits, (size_t)n);
            print_message("quant-%s by %d: mean KL %.2e\n", types[i], steps[s], kl);
            assert_true(kl < 1e-3);
            free(logits);
        }
        dm_model_close(model);
        free(expected);
        free(ids);
    }
}

#define FIXTURE(name)                                                                                                            \
    static void name(void **state) {                                                                                             \
        (void)state;                                                                                                             \
        compare(MODELS #name "-tiny.gguf", MODELS #name "-tiny.logits.npy");                                                     \
    }

FIXTURE(gpt2)
FIXTURE(llama)
FIXTURE(mixtral)
FIXTURE(olmoe)
FIXTURE(qwen2moe)
FIXTURE(qwen3moe)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2),     cmocka_unit_test(llama),    cmocka_unit_test(mixtral),   cmocka_unit_test(olmoe),
        cmocka_unit_test(qwen2moe), cmocka_unit_test(qwen3moe), cmocka_unit_test(quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
