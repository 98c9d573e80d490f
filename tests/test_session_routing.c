/* Routing of whole models: bit for bit the model's own where nothing costs, causal, the same results whatever path the experts
 * are computed on, several sequences in one game. */
#include "tiny_model.h"

#include <math.h>

enum { N = 120, CHANGED = 110, MOST_VOCAB = 512 };

typedef struct shape {
    const char *name;
    dm_model_info info;
} shape;

static const shape shapes[] = {
    {"llama", {.layers = 2, .dim = 64, .heads = 4, .kv_heads = 2, .context = 200, .experts = 8, .top_k = 2, .expert_dim = 64}},
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
    {"olmoe", {.layers = 2, .dim = 64, .heads = 4, .kv_heads = 4, .context = 200, .experts = 16, .top_k = 4, .expert_dim = 32}},
    {"qwen3moe",
     {.layers = 2, .dim = 64, .heads = 2, .kv_heads = 1, .context = 200, .experts = 12, .top_k = 3, .expert_dim = 64}},
};
static const char *const types[] = {"q8_0", "f32", "f16"};
enum { SHAPES = sizeof shapes / sizeof *shapes, TYPES = DM_EMULATED ? 1 : sizeof types / sizeof *types };

static tiny_model make(const shape *s, const char *type) {
    tiny_model tiny;
    dm_model_info info = s->info;
    snprintf(info.architecture, sizeof info.architecture, "%s", s->name);
    snprintf(tiny.path, sizeof tiny.path, "/tmp/dilmodeli-routing-XXXXXX");
    int descriptor = mkstemp(tiny.path);
    assert_true(descriptor >= 0);
    close(descriptor);
    if (dm_model_create(tiny.path, &info, NULL, false, type, 9, &tiny.info) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(dm_model_open(tiny.path, &tiny.model), DM_OK);
    assert_true(tiny.info.vocab <= MOST_VOCAB);
    return tiny;
}

static dm_session *session_of(const tiny_model *tiny, const dm_router_options *router) {
    const dm_session_options options = {.context = N, .router = router};
    dm_session *session;
    if (dm_session_create_with(tiny->model, &options, &session) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return session;
}

/* Logits of N ids; malloc. */
static float *logits_of(const tiny_model *tiny, const dm_router_options *router, const int32_t *ids, dm_routing_stats *stats) {
    float *logits = malloc((size_t)N * (size_t)tiny->info.vocab * sizeof *logits);
    dm_session *session = session_of(tiny, router);
    assert_non_null(logits);
    assert_int_equal(dm_session_feed(session, ids, N, true, logits), DM_OK);
    dm_session_routing(session, stats);
    dm_session_free(session);
    return logits;
}

static dm_router_options nash(void) {
    dm_router_options o = dm_router_default();
    o.policy = DM_ROUTER_NASH;
    return o;
}

/* Every rule at once that looks back at earlier tokens. */
static dm_router_options busy(const tiny_model *tiny) {
    dm_router_options o = nash();
    o.gamma = 0.4;
    o.resident = tiny->info.experts / 2;
    o.theta = 0.8;
    o.sleep = 0.5;
    o.flock = tiny->info.experts;
    return o;
}

static void free_experts_are_the_models_choice_bit_for_bit(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES * TYPES; i++) {
        tiny_model tiny = make(&shapes[i % SHAPES], types[i / SHAPES]);
        int32_t ids[N];
        tiny_model_ids(&tiny, ids, N);
        dm_router_options o = nash();
        o.flock = tiny.info.experts;
        dm_routing_stats own_stats, stats;
        float *own = logits_of(&tiny, NULL, ids, &own_stats), *played = logits_of(&tiny, &o, ids, &stats);
        assert_memory_equal(own, played, (size_t)N * (size_t)tiny.info.vocab * sizeof *own);
        assert_true(stats.changed == 0.0 && stats.maxvio == own_stats.maxvio && stats.games == (uint64_t)N * 2);
        assert_true(own_stats.games == 0 && isnan(own_stats.hit_rate));
        free(own);
        free(played);
        tiny_model_remove(&tiny);
    }
}

/* Changing a later token changes no earlier logit, to the bit, and does change later ones. */
static void later_tokens_change_nothing_before(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES * TYPES; i++) {
        tiny_model tiny = make(&shapes[i % SHAPES], types[i / SHAPES]);
        dm_router_options o = busy(&tiny);
        o.evict = i % 2 == 0 ? "lru" : "lfu:8:shared";
        int32_t ids[N];
        dm_routing_stats stats;
        tiny_model_ids(&tiny, ids, N);
        float *before = logits_of(&tiny, &o, ids, &stats);
        assert_true(stats.changed > 0.0 && stats.hit_rate > 0.0 && stats.experts_per_token < tiny.info.top_k);
        for (int32_t at = CHANGED; at < N; at += 3) {
            ids[at] = (ids[at] + 1) % tiny.info.vocab;
        }
        float *after = logits_of(&tiny, &o, ids, &stats);
        size_t row = (size_t)tiny.info.vocab;
        assert_memory_equal(before, after, (size_t)CHANGED * row * sizeof *before);
        assert_true(memcmp(before + CHANGED * row, after + CHANGED * row, (size_t)(N - CHANGED) * row * sizeof *before) != 0);
        free(before);
        free(after);
        tiny_model_remove(&tiny);
    }
}

/* Token by token, in pieces and at once: other kernels, the same experts. */
static void any_split_of_the_text_gives_the_same(void **state) {
    (void)state;
    static const int32_t steps[] = {1, 7, 40, N};
    for (int i = 0; i < SHAPES * TYPES; i++) {
        tiny_model tiny = make(&shapes[i % SHAPES], types[i / SHAPES]);
        dm_router_options o = busy(&tiny);
        o.sleep = 0.0; /* decided between passes, so it depends on them */
        o.evict = i % 2 == 0 ? NULL : "stale:shared";
        int32_t ids[N];
        dm_routing_stats stats[4];
        float logits[4][MOST_VOCAB];
        tiny_model_ids(&tiny, ids, N);
        for (int s = 0; s < 4; s++) {
            dm_session *session = session_of(&tiny, &o);
            float *all = malloc((size_t)N * (size_t)tiny.info.vocab * sizeof *all);
            assert_non_null(all);
            for (int32_t at = 0; at < N; at += steps[s]) {
                int32_t m = N - at < steps[s] ? N - at : steps[s];
                assert_int_equal(dm_session_feed(session, ids + at, m, true, all), DM_OK);
                memcpy(logits[s], all + (size_t)(m - 1) * (size_t)tiny.info.vocab, (size_t)tiny.info.vocab * sizeof(float));
            }
            dm_session_routing(session, &stats[s]);
            free(all);
            dm_session_free(session);
        }
        for (int s = 1; s < 4; s++) {
            double difference = 0.0, size = 0.0;
            for (int32_t v = 0; v < tiny.info.vocab; v++) {
                difference += pow((double)logits[s][v] - (double)logits[0][v], 2);
                size += pow((double)logits[0][v], 2);
            }
            /* a rounding may tip a choice, hence no bound per token */
            assert_true(sqrt(difference / size) < 0.2);
            assert_true(fabs(stats[s].experts_per_token - stats[0].experts_per_token) < 0.02);
            assert_true(fabs(stats[s].hit_rate - stats[0].hit_rate) < 0.03);
        }
        tiny_model_remove(&tiny);
    }
}

static void one_expert_two_ways(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES * TYPES; i++) {
        tiny_model tiny = make(&shapes[i % SHAPES], types[i / SHAPES]);
        dm_router_options theta = nash(), most = dm_router_default();
        theta.theta = 1.0;
        most.max_experts = 1;
        int32_t ids[N];
        dm_routing_stats a, b;
        tiny_model_ids(&tiny, ids, N);
        float *one = logits_of(&tiny, &theta, ids, &a), *other = logits_of(&tiny, &most, ids, &b);
        assert_memory_equal(one, other, (size_t)N * (size_t)tiny.info.vocab * sizeof *one);
        assert_true(a.experts_per_token == 1.0 && b.experts_per_token == 1.0);
        free(one);
        free(other);
        tiny_model_remove(&tiny);
    }
}

static void prompts_in_chunks_play_together(void **state) {
    (void)state;
    tiny_model tiny = make(&shapes[1], "q8_0");
    int32_t ids[N];
    double per_step[2];
    tiny_model_ids(&tiny, ids, N);
    for (int kind = 0; kind < 2; kind++) {
        dm_router_options o = nash();
        o.chunk = 8;
        o.gamma = kind == 0 ? 0.0 : 0.5;
        dm_session *session = session_of(&tiny, &o);
        assert_int_equal(dm_session_feed(session, ids, N, false, NULL), DM_OK);
        dm_routing_stats stats;
        dm_session_routing(session, &stats);
        assert_int_equal(stats.games, 2 * N / 8);
        assert_true(stats.max_regret <= 1e-9 && stats.sweeps >= 1.0);
        per_step[kind] = stats.experts_per_step;
        dm_session_free(session);
    }
    assert_true(per_step[1] < 0.8 * per_step[0]);
    tiny_model_remove(&tiny);
}

static void sequences_play_together(void **state) {
    (void)state;
    enum { SEQUENCES = 6, STEPS = 20 };
    tiny_model tiny = make(&shapes[1], "q8_0");
    int32_t ids[SEQUENCES * STEPS], counts[SEQUENCES];
    double per_step[2];
    tiny_model_ids(&tiny, ids, SEQUENCES * STEPS);
    for (int kind = 0; kind < 2; kind++) {
        dm_router_options o = nash();
        dm_session *sessions[SEQUENCES];
        o.gamma = kind == 0 ? 0.0 : 0.5;
        for (int s = 0; s < SEQUENCES; s++) {
            sessions[s] = session_of(&tiny, &o);
            counts[s] = 1;
        }
        for (int step = 0; step < STEPS; step++) {
            assert_int_equal(dm_session_feed_many(sessions, counts, SEQUENCES, ids + step * SEQUENCES, NULL), DM_OK);
        }
        dm_routing_stats stats;
        dm_session_routing(sessions[0], &stats);
        assert_int_equal(stats.games, 2 * STEPS);
        per_step[kind] = stats.experts_per_step;
        for (int s = 0; s < SEQUENCES; s++) {
            dm_session_free(sessions[s]);
        }
    }
    assert_true(per_step[1] < 0.8 * per_step[0]);
    tiny_model_remove(&tiny);
}

/* Parts of a text side by side are scored as each is alone. */
static void parts_of_a_text_side_by_side(void **state) {
    (void)state;
    tiny_model tiny = make(&shapes[3], "q8_0");
    enum { PARTS = 4, EACH = 25 };
    int32_t ids[PARTS * EACH + 1];
    tiny_model_ids(&tiny, ids, PARTS * EACH + 1);
    dm_evaluate_options how = {.context = 10, .overlap = 3, .sequences = PARTS};
    dm_evaluate_result together, alone;
    if (dm_evaluate(tiny.model, NULL, NULL, ids, PARTS * EACH + 1, &how, NULL, NULL, &together) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_int_equal(together.tokens, PARTS * EACH);
    assert_true(together.routing.tokens > PARTS * EACH); /* those that windows repeat too */
    double nll = 0.0;
    how.sequences = 1;
    for (int part = 0; part < PARTS; part++) {
        assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids + part * EACH, EACH + 1, &how, NULL, NULL, &alone), DM_OK);
        nll += alone.nll / PARTS;
    }
    assert_true(fabs(nll - together.nll) < 2e-3 * nll); /* prompts may meet other kernels than single tokens */
    how.sequences = PARTS * EACH + 1;
    assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids, PARTS * EACH + 1, &how, NULL, NULL, &alone), DM_ERR_ARGUMENT);
    tiny_model_remove(&tiny);
}

static void refused_options_make_no_session(void **state) {
    (void)state;
    tiny_model tiny = make(&shapes[0], "f32");
    dm_router_options o = nash();
    o.flock = 9;
    const dm_session_options options = {.context = N, .router = &o};
    dm_session *session;
    assert_int_equal(dm_session_create_with(tiny.model, &options, &session), DM_ERR_ARGUMENT);
    assert_null(session);
    tiny_model_remove(&tiny);
    tiny_model_make(&tiny, "llama", "f32", 1); /* a dense model has nothing to choose */
    session = session_of(&tiny, &o);
    dm_session_free(session);
    tiny_model_remove(&tiny);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_experts_are_the_models_choice_bit_for_bit),
        cmocka_unit_test(later_tokens_change_nothing_before),
        cmocka_unit_test(any_split_of_the_text_gives_the_same),
        cmocka_unit_test(one_expert_two_ways),
        cmocka_unit_test(prompts_in_chunks_play_together),
        cmocka_unit_test(sequences_play_together),
        cmocka_unit_test(parts_of_a_text_side_by_side),
        cmocka_unit_test(refused_options_make_no_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
