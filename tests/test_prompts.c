/* Prompts in big pieces, where they meet tiles: near what single tokens give, causal and independent of threads to the bit. */
#include "tiny_model.h"

#include <math.h>

#include "model/session.h"

enum { N = 150, CHANGED = 149, MOST_TOKENS = 20 };

typedef struct shape {
    const char *name;
    dm_model_info info;
} shape;

static const shape shapes[] = {
    {"gpt2", {.layers = 2, .dim = 64, .heads = 4, .context = 200, .ffn_dim = 160}},
    {"llama", {.layers = 2, .dim = 64, .heads = 4, .kv_heads = 2, .head_dim = 20, .context = 200, .ffn_dim = 160}},
    {"llama",
     {.layers = 2,
      .dim = 64,
      .heads = 4,
      .kv_heads = 1,
      .head_dim = 32,
      .context = 200,
      .experts = 8,
      .top_k = 2,
      .expert_dim = 96}},
    {"qwen2moe",
     {.layers = 2,
      .dim = 64,
      .heads = 2,
      .kv_heads = 2,
      .context = 200,
      .experts = 16,
      .top_k = 4,
      .expert_dim = 32,
      .shared_dim = 64}},
    {"qwen3moe",
     {.layers = 2,
      .dim = 64,
      .heads = 2,
      .kv_heads = 1,
      .head_dim = 48,
      .context = 200,
      .experts = 6,
      .top_k = 3,
      .expert_dim = 64}},
};
static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q5_1"};

static tiny_model make(const shape *s, const char *type) {
    tiny_model tiny;
    dm_model_info info = s->info;
    snprintf(info.architecture, sizeof info.architecture, "%s", s->name);
    snprintf(tiny.path, sizeof tiny.path, "/tmp/dilmodeli-prompt-XXXXXX");
    int descriptor = mkstemp(tiny.path);
    assert_true(descriptor >= 0);
    close(descriptor);
    if (dm_model_create(tiny.path, &info, NULL, false, type, 9, &tiny.info) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(dm_model_open(tiny.path, &tiny.model), DM_OK);
    return tiny;
}

/* logits [N, vocab] of ids fed `step` at a time. */
static void run(const tiny_model *tiny, const int32_t *ids, int32_t step, int threads, float *logits) {
    dm_session *session;
    dm_set_threads(threads);
    assert_int_equal(dm_session_create(tiny->model, N, &session), DM_OK);
    for (int32_t at = 0; at < N; at += step) {
        int32_t n = N - at < step ? N - at : step;
        assert_int_equal(dm_session_feed(session, ids + at, n, true, logits + (size_t)at * (size_t)tiny->info.vocab), DM_OK);
    }
    dm_session_free(session);
    dm_set_threads(0);
}

/* Mean KL divergence of b's distributions from a's. */
static double divergence(const float *a, const float *b, size_t vocab) {
    double sum = 0.0;
    for (size_t t = 0; t < N; t++, a += vocab, b += vocab) {
        double total_a = 0.0, total_b = 0.0;
        for (size_t i = 0; i < vocab; i++) {
            total_a += exp((double)a[i]);
            total_b += exp((double)b[i]);
        }
        for (size_t i = 0; i < vocab; i++) {
            sum += exp((double)a[i]) / total_a * ((double)a[i] - log(total_a) - (double)b[i] + log(total_b)) / N;
        }
    }
    return sum;
}

static void check(const shape *s, const char *type) {
    tiny_model tiny = make(s, type);
    size_t vocab = (size_t)tiny.info.vocab;
    float *whole = malloc(N * vocab * sizeof *whole), *other = malloc(N * vocab * sizeof *other);
    int32_t ids[N];
    assert_true(whole != NULL && other != NULL);
    tiny_model_ids(&tiny, ids, N);
    run(&tiny, ids, N, 1, whole);
    run(&tiny, ids, 1, 1, other);
    double kl = divergence(other, whole, vocab);
    print_message("%s %s: KL %.1e\n", s->name, type, kl);
    assert_true(isfinite(kl) && kl < 1e-4);
    for (int threads = 2; threads <= 3; threads++) {
        run(&tiny, ids, N, threads, other);
        assert_memory_equal(other, whole, N * vocab * sizeof *whole);
    }
    ids[CHANGED] ^= 1;
    run(&tiny, ids, N, 2, other);
    assert_memory_equal(other, whole, CHANGED * vocab * sizeof *whole);
    assert_memory_not_equal(other + CHANGED * vocab, whole + CHANGED * vocab, vocab * sizeof *whole);
    tiny_model_remove(&tiny);
    free(whole);
    free(other);
}

/* ---- What an expert's other tokens are must not matter ---- */

/* Logits [n, vocab] of ids fed at once, and how many tokens each expert of each layer got. */
static void run_once(const tiny_model *tiny, const int32_t *ids, int32_t n, float *logits, uint64_t *loads) {
    dm_session *session;
    assert_int_equal(dm_session_create(tiny->model, n, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, n, true, logits), DM_OK);
    memcpy(loads, session->loads, (size_t)(tiny->info.layers * tiny->info.experts) * sizeof *loads);
    dm_session_free(session);
}

/* Notes that some expert had so many tokens, up to MOST_TOKENS, before and another number after. */
static void note_changes(bool *changed, const uint64_t *before, const uint64_t *after, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (before[i] != after[i] && before[i] <= MOST_TOKENS) {
            changed[before[i]] = true;
        }
    }
}

/* For prompts of growing length, which pass by every number of tokens an expert can have: other tokens in the last third, one
 * of them or all, leave the logits before them as they were. */
static void check_later(const shape *s, const char *type, bool *changed) {
    tiny_model tiny = make(s, type);
    size_t vocab = (size_t)tiny.info.vocab, counts = (size_t)(tiny.info.layers * tiny.info.experts);
    float *first = malloc(N * vocab * sizeof *first), *other = malloc(N * vocab * sizeof *other);
    uint64_t *loads = malloc(counts * sizeof *loads), *others = malloc(counts * sizeof *others);
    assert_non_null(first);
    assert_non_null(other);
    assert_non_null(loads);
    assert_non_null(others);
    for (int32_t n = 9; n <= N; n += n / 3) {
        int32_t ids[N], from = n - n / 3;
        tiny_model_ids(&tiny, ids, n);
        run_once(&tiny, ids, n, first, loads);
        for (int32_t change = 1; change <= 3; change++) {
            for (int32_t t = from; t < (change < 3 ? from + 1 : n); t++) {
                ids[t] = (ids[t] + change) % tiny.info.vocab;
            }
            run_once(&tiny, ids, n, other, others);
            assert_memory_equal(other, first, (size_t)from * vocab * sizeof *first);
            note_changes(changed, loads, others, counts);
        }
    }
    tiny_model_remove(&tiny);
    free(first);
    free(other);
    free(loads);
    free(others);
}

/* The numbers around which products of float32 and 16-bit weights went about it in another way must be among them. */
static void later_tokens(void **state) {
    (void)state;
    static const size_t wanted[] = {5, 6, 7, 20};
    for (size_t t = 0; t < sizeof types / sizeof *types; t += DM_SLOW ? 5 : 1) {
        bool changed[MOST_TOKENS + 1] = {false};
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            if (shapes[s].info.experts > 0) {
                check_later(&shapes[s], types[t], changed);
            }
        }
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
            assert_true(changed[wanted[i]]);
        }
    }
}

static void prompts(void **state) {
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s += DM_SLOW ? 2 : 1) {
        for (size_t t = 0; t < sizeof types / sizeof *types; t += DM_SLOW ? 2 : 1) {
            check(&shapes[s], types[t]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompts), cmocka_unit_test(later_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
