/* Sessions: what they refuse, what they repeat exactly, and how generation ends. */
#include "kernels/tiles.h"
#include "tiny_model.h"

#include <math.h>
#include <stdlib.h>

#include "counted_memory.h"

enum { N = 300 }; /* more than one batch */

static const char *const architectures[] = {"qwen3moe", "gpt2"};
static const char *const types[] = {"f32", "f16", "bf16"};

static float *buffer(size_t n) {
    float *memory = malloc(n * sizeof *memory);
    assert_non_null(memory);
    return memory;
}

static double difference(const float *a, const float *b, size_t n, double *size) {
    double largest = 0.0;
    *size = 0.0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(a[i]) && isfinite(b[i]));
        largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
        *size = fmax(*size, fabs((double)a[i]));
    }
    return largest;
}

static dm_session *open_session(const tiny_model *tiny, int32_t context) {
    dm_session *session;
    const dm_session_options options = {.context = context, .cache = DM_CACHE_F32};
    assert_int_equal(dm_session_create_with(tiny->model, &options, &session), DM_OK);
    return session;
}

static void feed(dm_session *session, const int32_t *ids, int32_t n, float *logits) {
    assert_int_equal(dm_session_feed(session, ids, n, true, logits), DM_OK);
}

/* All at once, in uneven pieces and token by token: the products differ, the results hardly. */
static void check_pieces(const char *architecture, const char *type) {
    tiny_model tiny;
    tiny_model_make(&tiny, architecture, type, 3);
    int32_t ids[N];
    tiny_model_ids(&tiny, ids, N);
    size_t vocab = (size_t)tiny.info.vocab;
    float *whole = buffer(N * vocab);
    float *pieces = buffer(N * vocab);
    dm_session *session = open_session(&tiny, N);
    feed(session, ids, N, whole);
    static const int32_t steps[] = {1, 2, 100};
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        dm_session_truncate(session, 0);
        for (int32_t first = 0; first < N; first += steps[s]) {
            feed(session, ids + first, steps[s], pieces + (size_t)first * vocab);
        }
        double size;
        double largest = difference(whole, pieces, N * vocab, &size);
        assert_true(size > 0.0);
        double allowed = strcmp(type, "f32") == 0 || !dm_tiles() ? 1e-4 : 1e-2; /* tiles round the activations as well */
        assert_true(largest <= allowed * fmax(size, 1.0));
    }
    dm_session_free(session);
    tiny_model_remove(&tiny);
    free(whole);
    free(pieces);
}

static void pieces_agree(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        for (size_t t = 0; t < 3; t++) {
            check_pieces(architectures[a], types[t]);
        }
    }
}

/* Half-precision weights are the float32 ones rounded: the logits are near, and not the same. */
static void types_are_near(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        float *logits[3];
        size_t vocab = 0;
        for (size_t t = 0; t < 3; t++) {
            tiny_model tiny;
            int32_t ids[20];
            tiny_model_make(&tiny, architectures[a], types[t], 5);
            tiny_model_ids(&tiny, ids, 20);
            vocab = (size_t)tiny.info.vocab;
            logits[t] = buffer(20 * vocab);
            dm_session *session = open_session(&tiny, 20);
            feed(session, ids, 20, logits[t]);
            dm_session_free(session);
            tiny_model_remove(&tiny);
        }
        double size;
        double f16 = difference(logits[0], logits[1], 20 * vocab, &size);
        double bf16 = difference(logits[0], logits[2], 20 * vocab, &size);
        print_message("%s: f16 %.2e, bf16 %.2e of %.2e\n", architectures[a], f16 / size, bf16 / size, size);
        assert_true(f16 > 0.0 && f16 < bf16);
        assert_true(bf16 < 0.1 * size);
        for (size_t t = 0; t < 3; t++) {
            free(logits[t]);
        }
    }
}

static void truncating_and_feeding_again_repeats_exactly(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        tiny_model tiny;
        tiny_model_make(&tiny, architectures[a], "f32", 4);
        int32_t ids[N], others[N];
        tiny_model_ids(&tiny, ids, N);
        for (int32_t i = 0; i < N; i++) {
            others[i] = (ids[i] + 1) % tiny.info.vocab;
        }
        size_t vocab = (size_t)tiny.info.vocab;
        float *first = buffer(N * vocab);
        float *second = buffer(N * vocab);
        dm_session *session = open_session(&tiny, N);
        feed(session, ids, 40, first);
        feed(session, ids + 40, 20, first + 40 * vocab);
        dm_session_truncate(session, 40);
        assert_int_equal(dm_session_length(session), 40);
        feed(session, others, 30, second);
        dm_session_truncate(session, 40);
        feed(session, ids + 40, 20, second + 40 * vocab);
        assert_memory_equal(first + 40 * vocab, second + 40 * vocab, 20 * vocab * sizeof *first);

        dm_session_truncate(session, 1000); /* more than there is changes nothing */
        assert_int_equal(dm_session_length(session), 60);
        dm_session_truncate(session, -5);
        assert_int_equal(dm_session_length(session), 0);
        feed(session, ids, N, first);
        dm_session_truncate(session, 0);
        feed(session, ids, N, second);
        assert_memory_equal(first, second, N * vocab * sizeof *first);
        dm_session_free(session);
        tiny_model_remove(&tiny);
        free(first);
        free(second);
    }
}

static void keeping_leaves_what_is_shared(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 6);
    int32_t ids[N], others[N];
    tiny_model_ids(&tiny, ids, N);
    memcpy(others, ids, sizeof others);
    others[25] ^= 1;
    size_t vocab = (size_t)tiny.info.vocab;
    float *fresh = buffer(N * vocab), *after = buffer(N * vocab);
    dm_session *session = open_session(&tiny, N);
    assert_int_equal(dm_session_keep(session, ids, N), 0);
    feed(session, others, N, fresh);
    dm_session_truncate(session, 0);
    feed(session, ids, 40, after);
    assert_int_equal(dm_session_keep(session, others, N), 25);
    assert_int_equal(dm_session_length(session), 25);
    feed(session, others + 25, N - 25, after + 25 * vocab);
    double size;
    double largest = difference(fresh + 25 * vocab, after + 25 * vocab, (N - 25) * vocab, &size);
    assert_true(largest <= 1e-4 * fmax(size, 1.0));
    assert_int_equal(dm_session_keep(session, others, N), N - 1); /* one is left to feed */
    assert_int_equal(dm_session_keep(session, others, 10), 9);
    assert_int_equal(dm_session_keep(session, others, 0), 0);
    dm_session_free(session);
    tiny_model_remove(&tiny);
    free(fresh);
    free(after);
}

static void refuses(dm_session *session, const int32_t *ids, int32_t n) {
    int32_t before = dm_session_length(session);
    assert_int_equal(dm_session_feed(session, ids, n, false, NULL), DM_ERR_ARGUMENT);
    assert_true(strlen(dm_error_message()) > 10);
    assert_int_equal(dm_session_length(session), before);
}

static void bad_feeds_leave_the_session_alone(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 4);
    size_t vocab = (size_t)tiny.info.vocab;
    int32_t ids[40];
    tiny_model_ids(&tiny, ids, 40);
    float *clean = buffer(32 * vocab);
    float *disturbed = buffer(32 * vocab);
    dm_session *session = open_session(&tiny, 32);
    feed(session, ids, 20, clean);
    feed(session, ids + 20, 12, clean + 20 * vocab);
    dm_session_truncate(session, 0);

    feed(session, ids, 20, disturbed);
    refuses(session, ids, 13);
    refuses(session, ids, 0);
    refuses(session, ids, -1);
    refuses(session, (int32_t[]){1, -1, 2}, 3);
    refuses(session, (int32_t[]){1, 2, tiny.info.vocab}, 3);
    feed(session, ids + 20, 12, disturbed + 20 * vocab);
    assert_memory_equal(clean, disturbed, 32 * vocab * sizeof *clean);
    refuses(session, ids, 1);
    dm_session_free(session);

    assert_int_equal(dm_session_create(tiny.model, -1, &session), DM_ERR_ARGUMENT);
    assert_null(session);
    tiny_model_remove(&tiny);
    tiny_model_make(&tiny, "gpt2", "f32", 4);
    assert_int_equal(dm_session_create(tiny.model, tiny.info.context + 1, &session), DM_ERR_ARGUMENT);
    assert_null(session);
    tiny_model_remove(&tiny);
    free(clean);
    free(disturbed);
}

static void feeding_allocates_nothing(void **state) {
    (void)state;
    for (size_t a = 0; a < 2; a++) {
        for (size_t t = 0; t < 3; t++) {
            tiny_model tiny;
            int32_t ids[N];
            tiny_model_make(&tiny, architectures[a], types[t], 4);
            tiny_model_ids(&tiny, ids, N);
            float *logits = buffer((size_t)tiny.info.vocab);
            counted = (counted_memory){0};
            dm_session *session = open_session(&tiny, N);
            assert_true(counted.calls > 0);
            counted = (counted_memory){0};
            assert_int_equal(dm_session_feed(session, ids, N - 20, false, logits), DM_OK);
            for (int32_t i = N - 20; i < N; i++) {
                assert_int_equal(dm_session_feed(session, ids + i, 1, false, logits), DM_OK);
            }
            assert_int_equal(counted.calls, 0);
            dm_session_free(session);
            tiny_model_remove(&tiny);
            free(logits);
        }
    }
}

static void routing_is_counted(void **state) {
    (void)state;
    tiny_model tiny;
    dm_routing_stats routing;
    int32_t ids[N];
    tiny_model_make(&tiny, "qwen3moe", "f32", 4);
    tiny_model_ids(&tiny, ids, N);
    dm_session *session = open_session(&tiny, N);
    dm_session_routing(session, &routing);
    assert_true(routing.tokens == 0 && routing.experts_per_token == 0.0 && routing.maxvio == 0.0);
    assert_int_equal(dm_session_feed(session, ids, N - 1, false, NULL), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, 1, false, NULL), DM_OK);
    dm_session_routing(session, &routing);
    assert_int_equal(routing.tokens, N);
    assert_true(fabs(routing.experts_per_token - 2.0) < 1e-12);
    assert_true(routing.maxvio >= 0.0 && routing.maxvio <= 3.0); /* 8 experts, 2 each: at most 8 / 2 - 1 */
    dm_session_free(session);
    tiny_model_remove(&tiny);

    tiny_model_make(&tiny, "gpt2", "f32", 4);
    session = open_session(&tiny, N);
    assert_int_equal(dm_session_feed(session, ids, N, false, NULL), DM_OK);
    dm_session_routing(session, &routing);
    assert_true(routing.tokens == 0 && routing.experts_per_token == 0.0 && routing.maxvio == 0.0);
    dm_session_free(session);
    tiny_model_remove(&tiny);
}

/* ---- Generation ---- */

typedef struct collected {
    char text[4096];
    size_t length;
    int pieces, stop_after; /* stop_after 0: never */
} collected;

static bool collect(void *user, const char *bytes, size_t length) {
    collected *c = user;
    assert_true(length > 0 && c->length + length <= sizeof c->text);
    memcpy(c->text + c->length, bytes, length);
    c->length += length;
    return ++c->pieces != c->stop_after;
}

static dm_generate_result generate(const tiny_model *tiny, int32_t context, int32_t n_prompt, int32_t n, uint64_t seed,
                                   collected *text, int32_t *made) {
    int32_t ids[N];
    dm_generate_result result;
    dm_sampling how = dm_sampling_default();
    how.temperature = 1.5f;
    how.seed = seed;
    tiny_model_ids(tiny, ids, N);
    dm_session *session = open_session(tiny, context);
    dm_status status = dm_generate(session, ids, (size_t)n_prompt, n, &how, collect, text, made, &result);
    if (status != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(result.prompt_tokens, n_prompt);
    dm_session_free(session);
    return result;
}

static void generation_ends(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 9);
    int32_t made[N], again[N];
    collected text = {.length = 0};
    dm_generate_result result = generate(&tiny, 100, 10, 50, 1, &text, made);
    assert_true(result.tokens > 0 && result.tokens <= 50 && !result.interrupted);

    /* the text is the tokens' bytes, in order and complete */
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(tiny.path, &tokenizer), DM_OK);
    size_t at = 0;
    for (int32_t i = 0; i < result.tokens; i++) {
        size_t length;
        const char *bytes = dm_tokenizer_bytes(tokenizer, made[i], &length);
        assert_memory_equal(text.text + at, bytes, length);
        at += length;
    }
    assert_int_equal(at, text.length);
    dm_tokenizer_close(tokenizer);

    collected same = {.length = 0};
    dm_generate_result repeated = generate(&tiny, 100, 10, 50, 1, &same, again);
    assert_int_equal(repeated.tokens, result.tokens);
    assert_memory_equal(made, again, (size_t)result.tokens * sizeof *made);

    collected stopped = {.stop_after = 2};
    result = generate(&tiny, 100, 10, 50, 1, &stopped, made);
    assert_true(result.interrupted && result.tokens < 50);
    assert_int_equal(stopped.pieces, 2);

    collected full = {.length = 0};
    result = generate(&tiny, 12, 10, 50, 1, &full, made);
    assert_int_equal(result.tokens, 3); /* two fit, and the full context still predicts one */
    collected nothing = {.length = 0};
    result = generate(&tiny, 12, 10, 0, 1, &nothing, made);
    assert_int_equal(result.tokens, 0);

    dm_interrupt();
    collected interrupted = {.length = 0};
    result = generate(&tiny, 100, 10, 50, 1, &interrupted, made);
    dm_interrupt_clear();
    assert_true(result.interrupted && result.tokens <= 1);
    tiny_model_remove(&tiny);
}

static void bad_prompts_are_refused(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "gpt2", "f32", 9);
    dm_session *session = open_session(&tiny, 8);
    dm_sampling how = dm_sampling_default();
    int32_t ids[9] = {0};
    assert_int_equal(dm_generate(session, ids, 0, 5, &how, NULL, NULL, NULL, NULL), DM_ERR_ARGUMENT);
    assert_int_equal(dm_generate(session, ids, 9, 5, &how, NULL, NULL, NULL, NULL), DM_ERR_ARGUMENT);
    assert_int_equal(dm_generate(session, ids, 2, -1, &how, NULL, NULL, NULL, NULL), DM_ERR_ARGUMENT);
    how.top_p = -1.0f;
    assert_int_equal(dm_generate(session, ids, 2, 5, &how, NULL, NULL, NULL, NULL), DM_ERR_ARGUMENT);
    assert_int_equal(dm_session_length(session), 0);
    dm_session_free(session);
    tiny_model_remove(&tiny);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_agree),
        cmocka_unit_test(types_are_near),
        cmocka_unit_test(truncating_and_feeding_again_repeats_exactly),
        cmocka_unit_test(keeping_leaves_what_is_shared),
        cmocka_unit_test(bad_feeds_leave_the_session_alone),
        cmocka_unit_test(feeding_allocates_nothing),
        cmocka_unit_test(routing_is_counted),
        cmocka_unit_test(generation_ends),
        cmocka_unit_test(bad_prompts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
