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
static float *logits_in_steps(const dm_model *model, const int32_t *ids, int32_t n, int32_t step) {
    dm_session *session;
    float *logits = malloc((size_t)n * VOCAB * sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(dm_session_create(model, n, &session), DM_OK);
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
    assert_int_equal(dm_session_create(model, n, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, n, false, logits), DM_OK);
    assert_true(largest_difference(logits, expected, VOCAB) < 1e-4);
    dm_session_free(session);
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
        float *logits = logits_in_steps(model, ids, n, steps[s]);
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
    check_last(model, ids, n, whole + (size_t)(n - 1) * VOCAB);
    dm_model_close(model);
    free(whole);
    free(expected);
    free(ids);
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
        cmocka_unit_test(gpt2),  cmocka_unit_test(llama),    cmocka_unit_test(mixtral),
        cmocka_unit_test(olmoe), cmocka_unit_test(qwen2moe), cmocka_unit_test(qwen3moe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
