/* Sequences fed together: each gets the very bits that it gets alone. */
#include "reference.h"
#include "tiny_model.h"

enum { SEQUENCES = 5, LONGEST = 60, CONTEXT = 400 };

static float *buffer(size_t n) {
    float *floats = malloc(n * sizeof *floats);
    assert_non_null(floats);
    return floats;
}

static dm_session *open_session(const dm_model *model, dm_cache_type cache) {
    dm_session *session = NULL;
    const dm_session_options options = {.context = CONTEXT, .cache = cache};
    assert_int_equal(dm_session_create_with(model, &options, &session), DM_OK);
    return session;
}

/* What a sequence is fed: a prompt of a length of its own, then single tokens. */
static int32_t prompt_of(size_t sequence) {
    static const int32_t lengths[SEQUENCES] = {1, 23, 8, 2, 50};
    return lengths[sequence];
}

static int32_t id_of(const tiny_model *tiny, size_t sequence, int32_t position) {
    return (int32_t)((uint32_t)(sequence * 7919 + (size_t)position * 104729 + 13) % (uint32_t)tiny->info.vocab);
}

/* Logits [LONGEST, vocab] after the prompt and after each further token. */
static void alone(const tiny_model *tiny, dm_cache_type cache, size_t sequence, int32_t steps, float *logits) {
    dm_session *session = open_session(tiny->model, cache);
    int32_t ids[LONGEST];
    int32_t n = prompt_of(sequence);
    for (int32_t i = 0; i < n; i++) {
        ids[i] = id_of(tiny, sequence, i);
    }
    assert_int_equal(dm_session_feed(session, ids, n, false, logits), DM_OK);
    for (int32_t s = 0; s < steps; s++) {
        logits += tiny->info.vocab;
        int32_t id = id_of(tiny, sequence, n + s);
        assert_int_equal(dm_session_feed(session, &id, 1, false, logits), DM_OK);
    }
    dm_session_free(session);
}

/* The first round feeds all prompts, the others a token each; sequence number s joins in round s, so that every round is of
 * other company. */
static void together(const tiny_model *tiny, dm_cache_type cache, int32_t rounds, float *const *expected) {
    size_t vocab = (size_t)tiny->info.vocab;
    dm_session *sessions[SEQUENCES];
    float *logits = buffer(SEQUENCES * vocab);
    for (size_t s = 0; s < SEQUENCES; s++) {
        sessions[s] = open_session(tiny->model, cache);
    }
    for (int32_t round = 0; round < rounds; round++) {
        int32_t ids[SEQUENCES * LONGEST], counts[SEQUENCES], fed = 0;
        size_t n = 0;
        for (; n < SEQUENCES && (int32_t)n <= round; n++) {
            int32_t at = dm_session_length(sessions[n]);
            counts[n] = at == 0 ? prompt_of(n) : 1;
            for (int32_t i = 0; i < counts[n]; i++) {
                ids[fed++] = id_of(tiny, n, at + i);
            }
        }
        assert_int_equal(dm_session_feed_many(sessions, counts, n, ids, logits), DM_OK);
        for (size_t s = 0; s < n; s++) {
            const float *own = expected[s] + (size_t)(round - (int32_t)s) * vocab;
            assert_memory_equal(logits + s * vocab, own, vocab * sizeof *own);
        }
    }
    for (size_t s = 0; s < SEQUENCES; s++) {
        dm_session_free(sessions[s]);
    }
    free(logits);
}

static void check_model(const tiny_model *tiny, dm_cache_type cache) {
    enum { ROUNDS = 9 };
    float *expected[SEQUENCES];
    for (size_t s = 0; s < SEQUENCES; s++) {
        expected[s] = buffer(ROUNDS * (size_t)tiny->info.vocab);
        alone(tiny, cache, s, ROUNDS - 1, expected[s]);
    }
    together(tiny, cache, ROUNDS, expected);
    for (size_t s = 0; s < SEQUENCES; s++) {
        free(expected[s]);
    }
}

static void check(const char *architecture, const char *type, dm_cache_type cache) {
    tiny_model tiny;
    tiny_model_make(&tiny, architecture, type, 11);
    check_model(&tiny, cache);
    tiny_model_remove(&tiny);
}

static void company_does_not_matter(void **state) {
    (void)state;
    static const char *const architectures[] = {"llama", "qwen2moe", "qwen3moe", "gpt2"};
    static const char *const types[] = {"f32", "f16", "bf16"};
    for (size_t a = 0; a < sizeof architectures / sizeof *architectures; a++) {
        for (size_t t = 0; t < (DM_EMULATED ? 1 : sizeof types / sizeof *types); t++) {
            check(architectures[a], types[t], DM_CACHE_F16);
        }
        check(architectures[a], "f32", DM_CACHE_Q8);
    }
}

/* The same with weights in blocks of 8 bits, of 4 and of 2 to 6, as panels. */
static void packed_weights(void **state) {
    (void)state;
    static const char *const paths[] = {MODELS "quant-Q8_0.gguf", MODELS "quant-Q4_0.gguf", MODELS "quant-Q4_K_M.gguf"};
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        tiny_model tiny;
        need(paths[p]);
        assert_int_equal(dm_model_open(paths[p], &tiny.model), DM_OK);
        dm_model_get_info(tiny.model, &tiny.info);
        check_model(&tiny, DM_CACHE_F16);
        dm_model_close(tiny.model);
    }
}

static void routing_is_each_sequences_own(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 1);
    dm_session *sessions[2] = {open_session(tiny.model, DM_CACHE_F16), open_session(tiny.model, DM_CACHE_F16)};
    const int32_t counts[2] = {1, 1}, ids[2] = {5, 6};
    assert_int_equal(dm_session_feed_many(sessions, counts, 2, ids, NULL), DM_OK);
    assert_int_equal(dm_session_feed_many(sessions, counts, 1, ids, NULL), DM_OK);
    for (uint64_t s = 0; s < 2; s++) {
        dm_routing_stats stats;
        dm_session_routing(sessions[s], &stats);
        assert_int_equal(stats.tokens, 2 - s);
        assert_true(stats.experts_per_token == (double)tiny.info.top_k);
        dm_session_free(sessions[s]);
    }
    tiny_model_remove(&tiny);
}

static void bad_batches_change_nothing(void **state) {
    (void)state;
    tiny_model tiny, other;
    tiny_model_make(&tiny, "llama", "f32", 1);
    tiny_model_make(&other, "llama", "f32", 2);
    dm_session *sessions[2] = {open_session(tiny.model, DM_CACHE_F16), open_session(tiny.model, DM_CACHE_F16)};
    dm_session *stranger = open_session(other.model, DM_CACHE_F16);
    const int32_t counts[2] = {1, 2}, ids[3] = {1, 2, 3}, bad[3] = {1, 2, -3}, none[2] = {1, 0};
    assert_int_equal(dm_session_feed_many(sessions, counts, 2, ids, NULL), DM_OK);
    assert_int_equal(dm_session_feed_many(sessions, counts, 2, bad, NULL), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "session number 2"));
    assert_int_equal(dm_session_feed_many(sessions, none, 2, ids, NULL), DM_ERR_ARGUMENT);
    assert_int_equal(dm_session_feed_many((dm_session *[]){sessions[0], sessions[0]}, counts, 2, ids, NULL), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "twice"));
    assert_int_equal(dm_session_feed_many((dm_session *[]){sessions[0], stranger}, counts, 2, ids, NULL), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "another model"));
    assert_int_equal(dm_session_feed_many(sessions, counts, 0, ids, NULL), DM_OK);
    assert_int_equal(dm_session_length(sessions[0]), 1);
    assert_int_equal(dm_session_length(sessions[1]), 2);
    dm_session_free(sessions[0]);
    dm_session_free(sessions[1]);
    dm_session_free(stranger);
    tiny_model_remove(&tiny);
    tiny_model_remove(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(company_does_not_matter),
        cmocka_unit_test(packed_weights),
        cmocka_unit_test(routing_is_each_sequences_own),
        cmocka_unit_test(bad_batches_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
