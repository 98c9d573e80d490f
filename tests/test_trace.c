/* Traces: round trips, what evaluations of whole models record, replays beside the simulation, and damaged files. */
#include "tiny_model.h"

#include <math.h>

#include "base/random.h"
#include "moe/replay.h"
#include "moe/residency.h"
#include "test_files.h"

enum { LAYERS = 3, EXPERTS = 200, TOP_K = 4, GROUPS = EXPERTS / TOP_K, TOKENS = 5, N = 150 };

static const char *const files[] = {"trace", NULL};

static dm_trace read_trace(const char *path) {
    dm_trace trace;
    if (dm_trace_read(path, &trace) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return trace;
}

/* Random choices of TOKENS tokens, some with fewer experts than others: [TOKENS, TOP_K]. */
static void draw(dm_random *random, int32_t *experts) {
    for (int32_t i = 0; i < TOKENS * TOP_K; i++) {
        bool none = i % TOP_K > 0 && (experts[i - 1] < 0 || dm_random_uniform(random) < 0.2);
        int32_t e = (int32_t)(dm_random_uniform(random) * GROUPS);
        experts[i] = none ? -1 : e * TOP_K + i % TOP_K; /* a token's are different */
    }
}

/* ---- Round trips ---- */

static void what_was_noted_is_read(void **state) {
    (void)state;
    const dm_trace_shape shape = {LAYERS, EXPERTS, 123456789012u};
    int32_t noted[2][LAYERS][TOKENS * TOP_K];
    dm_trace_writer *writer;
    dm_random random;
    dm_random_seed(&random, 1);
    assert_int_equal(dm_trace_create(test_path("trace"), &shape, TOKENS * TOP_K, &writer), DM_OK);
    dm_trace_end_pass(writer); /* of a pass without tokens there is nothing */
    for (int together = 0; together < 2; together++) {
        for (int32_t l = 0; l < LAYERS; l += 2) { /* layer 1 has no experts */
            draw(&random, noted[together][l]);
            dm_trace_note(writer, l, noted[together][l], TOKENS, TOP_K, together == 1);
        }
        dm_trace_end_pass(writer);
    }
    assert_int_equal(dm_trace_commit(writer), DM_OK);
    dm_trace t = read_trace(test_path("trace"));
    assert_true(t.shape.layers == LAYERS && t.shape.experts == EXPERTS && t.shape.expert_bytes == 123456789012u);
    assert_true(t.passes == TOKENS + 1 && t.tokens == 2 * TOKENS);
    for (size_t pass = 0; pass <= TOKENS; pass++) {
        bool together = pass == TOKENS;
        for (int32_t l = 0; l < LAYERS; l++) {
            size_t at = t.starts[pass * LAYERS + (size_t)l], end = t.starts[pass * LAYERS + (size_t)l + 1];
            const int32_t *from = noted[together][l] + (together ? 0 : pass * TOP_K);
            for (size_t i = 0; l != 1 && i < (together ? TOKENS * TOP_K : TOP_K); i++) {
                bool first = from[i] >= 0;
                for (size_t before = 0; before < i; before++) {
                    first = first && from[before] != from[i];
                }
                if (first) {
                    assert_true(at < end && t.experts[at] == from[i]);
                    at++;
                }
            }
            assert_true(at == end);
        }
    }
    dm_trace_free(&t);
}

static void what_is_given_up_leaves_nothing(void **state) {
    (void)state;
    const dm_trace_shape shape = {LAYERS, EXPERTS, 1};
    dm_trace_writer *writer;
    test_write(test_path("trace"), "before", 6);
    assert_int_equal(dm_trace_create(test_path("trace"), &shape, TOP_K, &writer), DM_OK);
    dm_trace_abandon(writer);
    uint8_t *bytes;
    assert_int_equal(test_read(test_path("trace"), &bytes), 6);
    free(bytes);
}

/* ---- Evaluations ---- */

static dm_evaluate_result evaluate(const tiny_model *tiny, const dm_evaluate_options *how) {
    int32_t ids[N];
    dm_evaluate_result result;
    tiny_model_ids(tiny, ids, N);
    if (dm_evaluate(tiny->model, NULL, NULL, ids, N, how, NULL, NULL, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return result;
}

/* The same accesses miss as often in the replay as they did in the simulation that went with the evaluation. */
static void replays_are_what_the_simulation_saw(void **state) {
    (void)state;
    static const char *const policies[] = {NULL,   "lru:shared",  "lfu:32", "lfu:shared",  "lfru:0.3:shared",
                                           "slru", "slru:shared", "stale",  "stale:shared"};
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "q8_0", 4);
    for (size_t i = 0; i < 2 * sizeof policies / sizeof *policies; i++) {
        dm_router_options router = dm_router_default();
        router.policy = i % 2 == 0 ? DM_ROUTER_MODEL : DM_ROUTER_NASH;
        router.gamma = i % 2 == 0 ? 0.0 : 0.3;
        router.resident = 3;
        router.evict = policies[i / 2];
        const dm_evaluate_options how = {.context = 64, .overlap = 10, .router = &router, .trace = test_path("trace")};
        const dm_evaluate_result result = evaluate(&tiny, &how);
        dm_trace t = read_trace(how.trace);
        dm_residency_rule rule;
        uint64_t misses, best, different;
        assert_int_equal(dm_residency_parse(router.evict, &rule), DM_OK);
        assert_int_equal(dm_replay(&t, &rule.evict, rule.shared, router.resident, &misses), DM_OK);
        double asked = (double)dm_replay_asked(&t);
        assert_true(fabs(result.routing.hit_rate - (1.0 - (double)misses / asked)) < 1e-12);
        assert_true(t.tokens == t.passes && t.tokens == result.routing.tokens);
        assert_true(fabs(asked / (double)t.tokens / t.shape.layers - result.routing.experts_per_token) < 1e-12);
        const dm_eviction_rule belady = {.policy = DM_EVICT_BELADY};
        assert_int_equal(dm_replay(&t, &belady, rule.shared, router.resident, &best), DM_OK);
        assert_int_equal(dm_replay_different(&t, &different), DM_OK);
        assert_true(best <= misses && different <= best);
        dm_trace_free(&t);
    }
    tiny_model_remove(&tiny);
}

/* A plain evaluation, in pieces of many tokens, leaves the same trace as one that looks at each token. */
static void traces_do_not_depend_on_pieces(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 4);
    dm_trace traces[2];
    for (int kind = 0; kind < 2; kind++) {
        dm_router_options router = dm_router_default();
        router.resident = kind == 0 ? 0 : 3;
        router.evict = kind == 0 ? NULL : "lru:shared";
        const dm_evaluate_options how = {.context = 64, .router = &router, .trace = test_path("trace")};
        evaluate(&tiny, &how);
        traces[kind] = read_trace(how.trace);
    }
    size_t records = traces[0].passes * (size_t)traces[0].shape.layers, same = 0;
    assert_true(traces[0].passes == traces[1].passes && dm_replay_asked(&traces[0]) == dm_replay_asked(&traces[1]));
    for (size_t i = 0; i < traces[0].starts[records]; i++) {
        same += traces[0].experts[i] == traces[1].experts[i];
    }
    assert_true((double)same > 0.98 * (double)traces[0].starts[records]); /* a rounding may tip a choice */
    dm_trace_free(&traces[0]);
    dm_trace_free(&traces[1]);
    tiny_model_remove(&tiny);
}

static void sequences_side_by_side_are_one_pass(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 4);
    const dm_evaluate_options how = {.context = 64, .sequences = 3, .trace = test_path("trace")};
    const dm_evaluate_result result = evaluate(&tiny, &how);
    dm_trace t = read_trace(how.trace);
    assert_true(t.tokens == N - 1 && t.passes == (N - 1 + 2) / 3);
    double each = (double)dm_replay_asked(&t) / (double)t.passes / t.shape.layers;
    assert_true(fabs(each - result.routing.experts_per_step) < 1e-12);
    dm_trace_free(&t);
    tiny_model_remove(&tiny);
}

static void dense_models_have_nothing_to_trace(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "llama", "f32", 4);
    const dm_evaluate_options how = {.context = 64, .trace = test_path("none")};
    const int32_t ids[] = {1, 2, 3};
    dm_evaluate_result result;
    assert_int_equal(dm_evaluate(tiny.model, NULL, NULL, ids, 3, &how, NULL, NULL, &result), DM_ERR_ARGUMENT);
    assert_int_not_equal(access(how.trace, F_OK), 0);
    tiny_model_remove(&tiny);
}

/* ---- Damaged files ---- */

static void put_trace(test_bytes *b, uint32_t layers, uint32_t experts, uint64_t passes, const char *records, size_t size) {
    b->size = 0;
    put(b, DM_TRACE_MAGIC, 8);
    put_u32(b, layers);
    put_u32(b, experts);
    put_u64(b, 1000);
    put_u64(b, passes);
    put(b, records, size);
}

static dm_status status_of(const test_bytes *b) {
    dm_trace trace;
    test_write(test_path("trace"), b->data, b->size);
    dm_status status = dm_trace_read(test_path("trace"), &trace);
    assert_true(status == DM_OK || (trace.starts == NULL && trace.experts == NULL));
    dm_trace_free(&trace);
    return status;
}

static void damaged_traces_are_refused(void **state) {
    (void)state;
    static const char good[] = {1, 2, 0, 4, 1, 3, 1, 0, 2, 1, 2}; /* two passes of two layers of five experts */
    static const struct {
        uint32_t layers, experts;
        uint64_t passes;
        char records[16];
        size_t size;
    } wrong[] = {
        {2, 5, 2, {1, 2, 0, 5, 1, 3, 1, 0, 2, 1, 2}, 11},                                 /* an expert that is not there */
        {2, 5, 2, {1, 6, 0, 1, 2, 3, 4, 0, 1, 0, 0}, 11},                                 /* more than there are */
        {2, 5, 2, {1, 2, 4, 4, 1, 3, 1, 0, 2, 1, 2}, 11},                                 /* one twice */
        {2, 5, 2, {1, 2, 0, 4, 1, 3, 1, 0, 2, 1, 2, 0}, 12},                              /* too long */
        {2, 5, 1, {1, 2, 0, 4, 1, 3, 1, 0, 2, 1, 2}, 11},                                 /* more passes than said */
        {2, 5, 4, {1, 2, 0, 4, 1, 3, 1, 0, 2, 1, 2}, 11},                                 /* fewer */
        {2, 5, UINT64_MAX, {1, 2, 0, 4, 1, 3, 1, 0, 2, 1, 2}, 11},                        /* many fewer */
        {0, 5, 2, {1, 1}, 2},                                                             /* no layers */
        {1u << 17, 5, 0, {0}, 0},                                                         /* too many */
        {2, 0, 2, {1, 0, 0, 1, 0, 0}, 6},                                                 /* no experts */
        {2, UINT32_MAX, 2, {1, 0, 0, 1, 0, 0}, 6},                                        /* too many */
        {1, 5, 1, {1, (char)0x80, (char)0x80, (char)0x80, (char)0x80, (char)0x80, 0}, 7}, /* a number without end */
        {1, 5, 1, {1, (char)0x81}, 2},                                                    /* one cut off */
        {1, 5, 1, {(char)0xff, (char)0xff, (char)0xff, (char)0xff, (char)0x1f, 0}, 6},    /* too large for 32 bits */
    };
    static test_bytes b;
    put_trace(&b, 2, 5, 2, good, sizeof good);
    assert_int_equal(status_of(&b), DM_OK);
    for (size_t size = b.size; size-- > 0;) {
        b.size = size;
        assert_int_equal(status_of(&b), DM_ERR_FORMAT);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_trace(&b, wrong[i].layers, wrong[i].experts, wrong[i].passes, wrong[i].records, wrong[i].size);
        if (status_of(&b) != DM_ERR_FORMAT) {
            fail_msg("damaged trace number %zu was read", i);
        }
    }
    dm_random random;
    dm_random_seed(&random, 6);
    for (int round = 0; round < 3000; round++) { /* any byte: whatever is read can be replayed */
        put_trace(&b, 2, 5, 2, good, sizeof good);
        b.data[(size_t)(dm_random_uniform(&random) * (double)b.size)] = (uint8_t)dm_random_next(&random);
        test_write(test_path("trace"), b.data, b.size);
        dm_trace trace;
        if (dm_trace_read(test_path("trace"), &trace) == DM_OK) {
            uint64_t different;
            assert_int_equal(dm_replay_different(&trace, &different), DM_OK);
            dm_trace_free(&trace);
        }
    }
    dm_trace trace;
    assert_int_equal(dm_trace_read(test_path("none"), &trace), DM_ERR_IO);
}

static int clean(void **state) {
    (void)state;
    test_remove(files);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_noted_is_read),
        cmocka_unit_test(what_is_given_up_leaves_nothing),
        cmocka_unit_test(replays_are_what_the_simulation_saw),
        cmocka_unit_test(traces_do_not_depend_on_pieces),
        cmocka_unit_test(sequences_side_by_side_are_one_pass),
        cmocka_unit_test(dense_models_have_nothing_to_trace),
        cmocka_unit_test(damaged_traces_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
