/* The search for the largest gamma within a loss, beside evaluations of its own and of gammas around what it found. */
#include "tiny_model.h"

#include <math.h>

#include "model/model.h"

enum { N = 200 };

static const dm_router_options nash_resident = {.policy = DM_ROUTER_NASH, .keep_top = 1, .sweeps = 8, .resident = 3, .flock = 8};

typedef struct watched {
    int32_t pass;      /* the last that was told of */
    int32_t over;      /* passes whose whole text was */
    int32_t interrupt; /* in this pass; 0: none */
    double change;     /* of the last that was over */
} watched;

static void watch(void *user, const dm_max_loss_progress *progress) {
    watched *seen = user;
    assert_true(progress->pass == seen->pass || progress->pass == seen->pass + 1);
    assert_true(progress->done > 0 && progress->done <= progress->total && progress->nll > 0.0);
    assert_true(isnan(progress->gamma) == (progress->pass == 1));
    seen->pass = progress->pass;
    if (progress->done == progress->total) {
        seen->over++;
        seen->change = progress->change;
    }
    if (progress->pass == seen->interrupt) {
        dm_interrupt();
    }
}

static dm_status search(const tiny_model *tiny, const dm_evaluate_options *how, double limit, watched *seen,
                        dm_max_loss_result *out) {
    int32_t ids[N];
    tiny_model_ids(tiny, ids, N);
    return dm_evaluate_max_loss(tiny->model, NULL, ids, N, how, limit, seen != NULL ? watch : NULL, seen, out);
}

static dm_max_loss_result found(const tiny_model *tiny, const dm_evaluate_options *how, double limit) {
    dm_max_loss_result result;
    watched seen = {0};
    if (search(tiny, how, limit, &seen, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_true(seen.over == result.passes && seen.pass == result.passes && !result.interrupted);
    assert_true(result.passes <= DM_MAX_LOSS_PASSES && result.chosen > 0 && result.chosen < result.passes);
    assert_true(fabs(seen.change - result.tried[result.passes - 1].change) < 1e-12);
    return result;
}

static dm_evaluate_result evaluate(const tiny_model *tiny, const dm_evaluate_options *how, double gamma) {
    int32_t ids[N];
    tiny_model_ids(tiny, ids, N);
    dm_router_options router = *how->router;
    router.policy = isnan(gamma) ? DM_ROUTER_MODEL : DM_ROUTER_NASH;
    router.gamma = isnan(gamma) ? 0.0 : gamma;
    dm_evaluate_options all = *how;
    all.router = &router;
    dm_evaluate_result result;
    if (dm_evaluate(tiny->model, NULL, NULL, ids, N, &all, NULL, NULL, &result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return result;
}

/* Every pass is what an evaluation of that gamma is, as it would be typed. */
static void check_passes(const tiny_model *tiny, const dm_evaluate_options *how, const dm_max_loss_result *r) {
    for (int32_t i = 0; i < r->passes; i++) {
        char text[32];
        snprintf(text, sizeof text, "%.4g", r->tried[i].gamma);
        const double typed = i == 0 ? NAN : strtod(text, NULL);
        const dm_evaluate_result same = evaluate(tiny, how, typed);
        assert_true(i == 0 ? isnan(r->tried[i].gamma) : r->tried[i].gamma == typed);
        assert_true(same.nll == r->tried[i].result.nll);
        assert_true(same.perplexity / r->tried[0].result.perplexity - 1.0 == r->tried[i].change);
    }
    assert_true(r->tried[1].gamma == 8.0 && r->tried[0].change == 0.0);
}

/* The next gamma above the one chosen, of those tried. */
static const dm_max_loss_pass *next_above(const dm_max_loss_result *r) {
    const dm_max_loss_pass *next = &r->tried[1];
    for (int32_t i = 1; i < r->passes; i++) {
        const dm_max_loss_pass *pass = &r->tried[i];
        next = pass->gamma > r->tried[r->chosen].gamma && pass->gamma < next->gamma ? pass : next;
    }
    return next;
}

/* ---- The three ends ---- */

/* Limits between what two gammas lose: the gamma found lies between theirs, and what is just above it loses too much. */
static void a_limit_is_met(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 31);
    int ends = 0;
    for (int32_t sequences = 1; sequences <= 4; sequences += 3) {
        dm_router_options router = nash_resident;
        router.resident = sequences > 1 ? 0 : 3;
        const dm_evaluate_options how = {.context = 50, .router = &router, .sequences = sequences};
        const double own = evaluate(&tiny, &how, NAN).perplexity;
        for (int i = 1; i < 8; i++) {
            const double limit = fabs(evaluate(&tiny, &how, 8.0).perplexity / own - 1.0) * i / 8;
            const dm_max_loss_result r = found(&tiny, &how, limit);
            const dm_max_loss_pass *chosen = &r.tried[r.chosen];
            check_passes(&tiny, &how, &r);
            if (r.end == DM_MAX_LOSS_FOUND) {
                ends++;
                assert_true(chosen->change <= limit && next_above(&r)->change > limit);
                assert_true(next_above(&r)->gamma <= 1.06 * chosen->gamma);
            }
        }
    }
    assert_true(ends > 3);
    tiny_model_remove(&tiny);
}

static void where_all_are_within_the_smallest_alike_is_taken(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 31);
    const dm_evaluate_options how = {.context = 50, .router = &nash_resident};
    const dm_max_loss_result r = found(&tiny, &how, 0.99);
    const dm_max_loss_pass *chosen = &r.tried[r.chosen];
    assert_true(r.end == DM_MAX_LOSS_ALL && chosen->gamma > 0.0 && chosen->gamma < 8.0);
    assert_true(chosen->result.nll == r.tried[1].result.nll);
    assert_true(chosen->result.routing.hit_rate == r.tried[1].result.routing.hit_rate);
    assert_true(chosen->result.routing.hit_rate > r.tried[0].result.routing.hit_rate);
    assert_true(evaluate(&tiny, &how, chosen->gamma / 1.1).nll != chosen->result.nll);
    check_passes(&tiny, &how, &r);

    dm_router_options all = nash_resident; /* nothing is missed but for the first time, and no token can avoid that */
    all.flock = 2;
    all.flock_resident = -1;
    const dm_evaluate_options alike = {.context = 50, .router = &all};
    const dm_max_loss_result none = found(&tiny, &alike, 0.01);
    assert_true(none.end == DM_MAX_LOSS_ALL && none.tried[none.chosen].gamma == 0.0);
    assert_true(none.tried[none.chosen].change == 0.0);
    tiny_model_remove(&tiny);
}

/* Few experts, which theta leaves, lose something at any price. */
static void where_none_is_within_there_is_no_price(void **state) {
    (void)state;
    tiny_model tiny;
    bool seen = false;
    for (uint64_t seed = 31; seed < 40 && !seen; seed++) {
        tiny_model_make(&tiny, "qwen3moe", "f32", seed);
        dm_router_options router = nash_resident;
        router.theta = 1.0;
        router.min_experts = 1;
        const dm_evaluate_options how = {.context = 50, .router = &router};
        const double own = evaluate(&tiny, &how, NAN).perplexity;
        if (evaluate(&tiny, &how, 0.0).perplexity > own && evaluate(&tiny, &how, 8.0).perplexity > own) {
            const dm_max_loss_result r = found(&tiny, &how, 0.0);
            const dm_max_loss_pass *chosen = &r.tried[r.chosen];
            check_passes(&tiny, &how, &r);
            seen = r.end == DM_MAX_LOSS_NONE && chosen->gamma == 0.0 && chosen->change > 0.0;
        }
        tiny_model_remove(&tiny);
    }
    assert_true(seen);
}

/* ---- Interruption and misuse ---- */

static void an_interruption_leaves_the_best_so_far(void **state) {
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 31);
    const dm_evaluate_options how = {.context = 50, .router = &nash_resident};
    const dm_max_loss_result whole = found(&tiny, &how, 0.99);
    for (int32_t pass = 1; pass <= whole.passes; pass++) {
        dm_max_loss_result r;
        watched seen = {.interrupt = pass};
        dm_status status = search(&tiny, &how, 0.99, &seen, &r);
        dm_interrupt_clear();
        assert_true(seen.pass == pass && r.passes == pass - 1);
        if (pass <= 2) {
            assert_int_equal(status, DM_ERR_INTERRUPTED);
            assert_non_null(strstr(dm_error_message(), "99%"));
        } else {
            assert_true(status == DM_OK && r.interrupted && r.end == DM_MAX_LOSS_ALL);
            assert_true(r.tried[r.chosen].change <= 0.99);
        }
    }
    tiny_model_remove(&tiny);
}

static void misuse_is_refused(void **state) {
    (void)state;
    tiny_model tiny, dense;
    tiny_model_make(&tiny, "qwen3moe", "f32", 31);
    tiny_model_make(&dense, "llama", "f32", 31);
    dm_max_loss_result r;
    const dm_evaluate_options fine = {.context = 50, .router = &nash_resident}, none = {.context = 50};
    dm_router_options model = nash_resident, given = nash_resident, free_of_price = nash_resident;
    model.policy = DM_ROUTER_MODEL;
    given.gamma = 0.1;
    free_of_price.resident = 0;
    free_of_price.chunk = 8; /* whose tokens are all scored */
    const dm_evaluate_options bad[] = {{.context = 50, .router = &model},
                                       {.context = 50, .router = &given},
                                       {.context = 50, .router = &free_of_price},
                                       {.context = 50, .router = &nash_resident, .trace = "/nowhere/at/all"},
                                       none};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(search(&tiny, &bad[i], 0.01, NULL, &r), DM_ERR_ARGUMENT);
    }
    static const double limits[] = {-0.01, 1.0, NAN, INFINITY};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        assert_int_equal(search(&tiny, &fine, limits[i], NULL, &r), DM_ERR_ARGUMENT);
    }
    assert_int_equal(search(&dense, &fine, 0.01, NULL, &r), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "no experts"));
    tiny_model_remove(&tiny);
    tiny_model_remove(&dense);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_is_met),
        cmocka_unit_test(where_all_are_within_the_smallest_alike_is_taken),
        cmocka_unit_test(where_none_is_within_there_is_no_price),
        cmocka_unit_test(an_interruption_leaves_the_best_so_far),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
