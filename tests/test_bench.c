/* What a bench counts: times by kind of operation, experts, bytes. How fast it is depends on the machine. */
#include <math.h>

#include "tiny_model.h"

enum { IDS = 97 };

static dm_bench_result measure(const tiny_model *tiny, dm_bench_options how) {
    int32_t ids[IDS];
    dm_bench_result result;
    tiny_model_ids(tiny, ids, IDS);
    how.ids = ids;
    how.n_ids = IDS;
    how.rounds = 3;
    if (dm_bench(tiny->model, &how, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return result;
}

/* Checks that the kinds which a model has take time and the others none; returns their share of what a token takes. */
static double share_of_kinds(const dm_bench_speed *speed, const bool *has) {
    double sum = 0;
    for (int i = 0; i < DM_OPERATIONS; i++) {
        assert_true(has[i] ? speed->times[i] > 0 : speed->times[i] == 0);
        sum += speed->times[i];
    }
    assert_true(sum <= speed->seconds * (1 + 1e-9));
    assert_true(speed->slowest <= speed->tps && speed->tps <= speed->fastest);
    return sum / speed->seconds;
}

/* Together the kinds take what a token takes, but for a little: in one of several runs, for in between the machine may turn
 * to something else. */
static void check(const char *architecture, const bool *has) {
    enum { RUNS = 20 };
    static const dm_bench_options ways[] = {{.prompt = 40, .decode = 10, .depth = 40, .sequences = 1},
                                            {.prompt = 40, .decode = 10, .depth = 60, .sequences = 5}};
    tiny_model tiny;
    tiny_model_make(&tiny, architecture, "f32", 3);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        double prefill = 0, decode = 0;
        for (int i = 0; i < RUNS && (prefill < 0.8 || decode < 0.8); i++) {
            dm_bench_result result = measure(&tiny, ways[w]);
            prefill = fmax(prefill, share_of_kinds(&result.prefill, has));
            decode = fmax(decode, share_of_kinds(&result.decode, has));
        }
        assert_true(prefill >= 0.8 && decode >= 0.8);
    }
    tiny_model_remove(&tiny);
}

static void what_was_not_asked_for(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "gpt2", "f32", 3);
    dm_bench_result result = measure(&tiny, (dm_bench_options){.decode = 2, .sequences = 1});
    assert_true(isnan(result.prefill.tps) && result.decode.tps > 0);
    result = measure(&tiny, (dm_bench_options){.prompt = 2, .sequences = 1});
    assert_true(isnan(result.decode.tps) && result.prefill.tps > 0);
    tiny_model_remove(&tiny);
}

static void times_add_up(void **state) {
    (void)state;
    bool has[DM_OPERATIONS] = {false};
    has[DM_OPERATION_EMBEDDING] = has[DM_OPERATION_NORMS] = has[DM_OPERATION_PROJECTIONS] = has[DM_OPERATION_ATTENTION] = true;
    has[DM_OPERATION_OUTPUT] = has[DM_OPERATION_FEED_FORWARD] = true;
    check("gpt2", has);
    check("llama", has);
    has[DM_OPERATION_FEED_FORWARD] = false;
    has[DM_OPERATION_ROUTER] = has[DM_OPERATION_EXPERTS] = true;
    check("qwen3moe", has);
    has[DM_OPERATION_SHARED_EXPERT] = true;
    check("qwen2moe", has);
}

static void operations_have_names(void **state) {
    (void)state;
    for (int i = 0; i < DM_OPERATIONS; i++) {
        assert_non_null(dm_operation_name((dm_operation)i));
    }
    assert_string_equal(dm_operation_name(DM_OPERATION_SHARED_EXPERT), "shared_expert");
}

static void costs_are_counted(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 3);
    dm_bench_options how = {.decode = 9, .depth = 20, .sequences = 1, .cache = DM_CACHE_F32};
    dm_bench_result one = measure(&tiny, how);
    assert_true(one.experts_per_step == tiny.info.top_k);
    /* keys and values of two layers, two heads of 16; 21 to 29 positions are seen */
    assert_true(one.cache_bytes_per_token == 2.0 * 2 * 2 * 16 * 4 * 25);
    assert_true(one.memory.cache == 2ULL * 2 * 2 * 16 * 4 * 29);
    assert_true(one.memory.resident > 0 && one.memory.file_size > 0 && one.memory.scratch > 0);
    how.sequences = 4;
    dm_bench_result four = measure(&tiny, how);
    assert_true(four.experts_per_step >= tiny.info.top_k && four.experts_per_step <= 4 * tiny.info.top_k);
    assert_true(four.bytes_per_token < one.bytes_per_token); /* what is outside the experts is read once for all */
    assert_true(four.memory.cache == 4 * one.memory.cache);
    tiny_model_remove(&tiny);
}

static void what_makes_no_bench(void **state) {
    (void)state;
    static const dm_bench_options wrong[] = {
        {.prompt = 0, .decode = 0, .sequences = 1, .rounds = 1}, {.prompt = -1, .decode = 1, .sequences = 1, .rounds = 1},
        {.prompt = 4, .decode = 1, .sequences = 0, .rounds = 1}, {.prompt = 4, .decode = 1, .sequences = 1, .rounds = 0},
        {.depth = -1, .decode = 1, .sequences = 1, .rounds = 1}, {.depth = INT32_MAX, .decode = 1, .sequences = 1, .rounds = 1},
        {.prompt = 4, .cache = 9, .sequences = 1, .rounds = 1},
    };
    tiny_model tiny;
    tiny_model_make(&tiny, "llama", "f32", 3);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const int32_t id = 7;
        dm_bench_options how = wrong[i];
        dm_bench_result result;
        how.ids = &id;
        how.n_ids = 1;
        assert_int_equal(dm_bench(tiny.model, &how, &result), DM_ERR_ARGUMENT);
    }
    tiny_model_remove(&tiny);
}

static void count_point(void *user, const dm_tune_point *point) {
    assert_true(point->threads >= 1 && point->sequences >= 1 && isnan(point->decode_tps));
    ++*(int *)user;
}

/* What is advised follows from what was measured, whatever that was. */
static void advice_follows_from_measurements(void **state) {
    (void)state;
    tiny_model tiny;
    int32_t ids[IDS];
    dm_tune_result r;
    int told = 0;
    const int threads = dm_threads();
    tiny_model_make(&tiny, "qwen3moe", "f32", 3);
    tiny_model_ids(&tiny, ids, IDS);
    dm_bench_options how = {.ids = ids, .n_ids = IDS, .prompt = 8, .decode = 4, .depth = 8, .rounds = 2};
    dm_set_threads(3);
    assert_int_equal(dm_tune(tiny.model, &how, count_point, &told, &r), DM_OK);
    assert_true(told == r.points && r.points == 7 && dm_threads() == r.threads);
    static const int32_t expected[] = {1, 2, 3};
    double least = INFINITY, most = 0.0, advised = 0.0, chosen = 0.0;
    for (int i = 0; i < 3; i++) {
        const double seconds = 8 / r.measured[i].prefill_tps + 4 / r.measured[i].decode_tps;
        assert_true(r.measured[i].threads == expected[i] && r.measured[i].sequences == 1);
        least = fmin(least, seconds);
        advised = r.measured[i].threads == r.threads ? seconds : advised;
        most = r.measured[i].threads == r.threads ? r.measured[i].decode_tps : most;
    }
    assert_true(advised > 0.0 && advised <= 1.021 * least);
    chosen = r.sequences == 1 ? most : chosen;
    for (int i = 3; i < 7; i++) {
        assert_true(r.measured[i].threads == r.threads && r.measured[i].sequences == 2 << (i - 3));
        most = fmax(most, r.measured[i].decode_tps);
        chosen = r.measured[i].sequences == r.sequences ? r.measured[i].decode_tps : chosen;
    }
    assert_true(chosen >= 0.949 * most);
    how.prompt = 0;
    assert_int_equal(dm_tune(tiny.model, &how, NULL, NULL, &r), DM_ERR_ARGUMENT);
    dm_set_threads(threads);
    tiny_model_remove(&tiny);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_add_up),          cmocka_unit_test(what_was_not_asked_for),
        cmocka_unit_test(operations_have_names), cmocka_unit_test(costs_are_counted),
        cmocka_unit_test(what_makes_no_bench),   cmocka_unit_test(advice_follows_from_measurements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
