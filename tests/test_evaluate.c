/* Evaluation against sums made by hand, the logits file, and a trained model's known figure. */
#include "reference.h"
#include "tiny_model.h"

#include <math.h>

enum { N = 50 };

static double log_softmax(const float *logits, int32_t vocab, int32_t id) {
    double peak = -INFINITY, total = 0.0;
    for (int32_t i = 0; i < vocab; i++) {
        peak = logits[i] > peak ? logits[i] : peak;
    }
    for (int32_t i = 0; i < vocab; i++) {
        total += exp((double)logits[i] - peak);
    }
    return (double)logits[id] - peak - log(total);
}

/* Logits of ids[n] as one sequence, to be freed. */
static float *logits_of(const dm_model *model, int32_t vocab, const int32_t *ids, int32_t n) {
    float *logits = malloc((size_t)n * (size_t)vocab * sizeof *logits);
    assert_non_null(logits);
    dm_session *session;
    assert_int_equal(dm_session_create(model, n, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, n, true, logits), DM_OK);
    dm_session_free(session);
    return logits;
}

static dm_evaluate_result evaluate(const tiny_model *tiny, const dm_model *base, const dm_tokenizer *tokenizer,
                                   const int32_t *ids, int32_t context, int32_t overlap) {
    dm_evaluate_result result;
    dm_evaluate_options options = {.context = context, .overlap = overlap};
    if (dm_evaluate(tiny->model, base, tokenizer, ids, N, &options, NULL, NULL, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(result.tokens, N - 1);
    assert_true(fabs(result.perplexity - exp(result.nll)) < 1e-9 * result.perplexity);
    return result;
}

/* Windows of `context` ids, each `context - overlap` after the last; every id but the first scored once. */
static double nll_by_hand(const tiny_model *tiny, const int32_t *ids, int32_t context, int32_t overlap) {
    double total = 0.0;
    int32_t scored = 1;
    for (int32_t start = 0; scored < N; start += context - overlap) {
        int32_t m = start + context < N - 1 ? context : N - 1 - start;
        float *logits = logits_of(tiny->model, tiny->info.vocab, ids + start, m);
        for (; scored <= start + m; scored++) {
            total -= log_softmax(logits + (size_t)(scored - 1 - start) * (size_t)tiny->info.vocab, tiny->info.vocab, ids[scored]);
        }
        free(logits);
    }
    return total / (N - 1);
}

static void perplexity(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 21);
    int32_t ids[N];
    tiny_model_ids(&tiny, ids, N);
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(tiny.path, &tokenizer), DM_OK);
    static const int32_t shapes[][2] = {{400, 0}, {49, 0}, {16, 0}, {16, 8}, {16, 15}, {1, 0}, {7, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        dm_evaluate_result result = evaluate(&tiny, NULL, tokenizer, ids, shapes[i][0], shapes[i][1]);
        int32_t context = shapes[i][0] < N ? shapes[i][0] : N;
        assert_true(fabs(result.nll - nll_by_hand(&tiny, ids, context, shapes[i][1])) < 1e-5);
        uint64_t bytes = 0;
        for (int32_t t = 1; t < N; t++) {
            size_t length;
            dm_tokenizer_bytes(tokenizer, ids[t], &length);
            bytes += length;
        }
        assert_int_equal(result.bytes, bytes);
        assert_true(fabs(result.bits_per_byte - result.nll * (N - 1) / log(2.0) / (double)bytes) < 1e-9);
    }
    dm_evaluate_result result = evaluate(&tiny, NULL, NULL, ids, 16, 0);
    assert_true(result.bytes == 0 && result.bits_per_byte == 0.0);
    assert_int_equal(result.routing.tokens, N - 1);
    dm_tokenizer_close(tokenizer);
    tiny_model_remove(&tiny);
}

static void distance_from_a_base(void **state) {
    (void)state;
    tiny_model tiny, other;
    tiny_model_make(&tiny, "qwen3moe", "f32", 21);
    tiny_model_make(&other, "gpt2", "f32", 22);
    int32_t ids[N];
    tiny_model_ids(&tiny, ids, N);
    dm_evaluate_result same = evaluate(&tiny, tiny.model, NULL, ids, N, 0);
    assert_true(fabs(same.kl_mean) < 1e-6);
    assert_true(same.top1_agreement == 1.0);

    dm_evaluate_result apart = evaluate(&tiny, other.model, NULL, ids, N, 0);
    float *q = logits_of(tiny.model, tiny.info.vocab, ids, N - 1);
    float *p = logits_of(other.model, tiny.info.vocab, ids, N - 1);
    double kl = 0.0;
    for (size_t t = 0; t < N - 1; t++) {
        const float *a = p + t * (size_t)tiny.info.vocab, *b = q + t * (size_t)tiny.info.vocab;
        for (int32_t i = 0; i < tiny.info.vocab; i++) {
            double log_p = log_softmax(a, tiny.info.vocab, i);
            kl += exp(log_p) * (log_p - log_softmax(b, tiny.info.vocab, i)) / (N - 1);
        }
    }
    assert_true(kl > 0.0 && fabs(apart.kl_mean - kl) < 1e-5);
    assert_true(apart.top1_agreement < 1.0);
    free(p);
    free(q);
    tiny_model_remove(&tiny);
    tiny_model_remove(&other);
}

static void logits_file(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "gpt2", "f32", 23);
    int32_t ids[150];
    tiny_model_ids(&tiny, ids, 150);
    char path[80];
    snprintf(path, sizeof path, "%s.npy", tiny.path);
    assert_int_equal(dm_evaluate_logits(tiny.model, ids, 150, DM_CACHE_F32, path), DM_OK);
    float *written = read_npy(path, 150, (size_t)tiny.info.vocab);
    float *expected = logits_of(tiny.model, tiny.info.vocab, ids, 150);
    for (size_t i = 0; i < 150 * (size_t)tiny.info.vocab; i++) {
        assert_true(fabsf(written[i] - expected[i]) < 1e-4f);
    }
    free(written);
    ids[140] = -3; /* a failure half way leaves the old file as it was */
    assert_int_equal(dm_evaluate_logits(tiny.model, ids, 150, DM_CACHE_F32, path), DM_ERR_ARGUMENT);
    written = read_npy(path, 150, (size_t)tiny.info.vocab);
    free(written);
    assert_int_equal(dm_evaluate_logits(tiny.model, ids, 10, DM_CACHE_F32, "/nowhere/at/all.npy"), DM_ERR_IO);
    assert_int_equal(dm_evaluate_logits(tiny.model, ids, 0, DM_CACHE_F32, path), DM_ERR_ARGUMENT);
    free(expected);
    unlink(path);
    tiny_model_remove(&tiny);
}

static void bad_evaluations_are_refused(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "gpt2", "f32", 23);
    int32_t ids[N];
    tiny_model_ids(&tiny, ids, N);
    dm_evaluate_result result;
    static const dm_evaluate_options bad[] = {{.context = -1}, {.context = 16, .overlap = 16}, {.context = 16, .overlap = -1}};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids, N, &bad[i], NULL, NULL, &result), DM_ERR_ARGUMENT);
    }
    dm_evaluate_options fine = {.context = 16};
    assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids, 1, &fine, NULL, NULL, &result), DM_ERR_ARGUMENT);
    ids[30] = tiny.info.vocab;
    assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids, N, &fine, NULL, NULL, &result), DM_ERR_ARGUMENT);
    ids[30] = 0;
    ids[N - 1] = -1; /* is only predicted, never fed */
    assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids, N, &fine, NULL, NULL, &result), DM_ERR_ARGUMENT);
    tiny_model_remove(&tiny);
}

/* The first 256 tokens of the validation text: llama.cpp (node-llama-cpp 3.22.1) gives 2.34090 nats over the 255 predicted. */
static void trained_model(void **state) {
    (void)state;
    need(MODELS "ref-moe.gguf");
    need(DM_SHARED_DIR "/data/corpus-valid.txt");
    static char text[3000];
    FILE *stream = fopen(DM_SHARED_DIR "/data/corpus-valid.txt", "rb");
    assert_non_null(stream);
    assert_int_equal(fread(text, 1, sizeof text, stream), sizeof text);
    fclose(stream);
    dm_model *model;
    dm_tokenizer *tokenizer;
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_model_open(MODELS "ref-moe.gguf", &model), DM_OK);
    assert_int_equal(dm_tokenizer_open(MODELS "ref-moe.gguf", &tokenizer), DM_OK);
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, sizeof text, false, &ids, &n), DM_OK);
    assert_true(n > 256);
    dm_evaluate_options options = {.context = 256};
    dm_evaluate_result result;
    assert_int_equal(dm_evaluate(model, NULL, tokenizer, ids, 256, &options, NULL, NULL, &result), DM_OK);
    print_message("ref-moe: %.5f nats per token, %.4f bits per byte\n", result.nll, result.bits_per_byte);
    assert_true(fabs(result.nll - 2.3409) < 1e-3);
    free(ids);
    dm_tokenizer_close(tokenizer);
    dm_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perplexity),    cmocka_unit_test(distance_from_a_base),
        cmocka_unit_test(logits_file),   cmocka_unit_test(bad_evaluations_are_refused),
        cmocka_unit_test(trained_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
