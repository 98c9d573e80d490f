/* The search for the smallest file within a loss, beside compressions and evaluations of its own. */
#include "tiny_model.h"

#include <math.h>
#include <sys/stat.h>

enum { N = DM_SLOW ? 24 : 150, CONTEXT = 50 };

typedef struct watched {
    int32_t trials;
    size_t matrices, each; /* of the trial under way, and of each before it */
    int32_t interrupt;     /* in this trial; 0: none */
    bool wrong;
} watched;

static void count_matrix(void *user, const dm_compress_matrix *matrix) {
    watched *seen = user;
    seen->wrong |= matrix->bytes == 0;
    if (seen->matrices++ == 0 && seen->trials + 1 == seen->interrupt) {
        dm_interrupt();
    }
}

static void count_trial(void *user, const dm_compress_search *search) {
    watched *seen = user;
    const dm_compress_trial *trial = &search->tried[search->trials - 1];
    seen->trials++;
    seen->each = trial->possible && seen->each == 0 ? seen->matrices : seen->each;
    seen->wrong |= search->trials != seen->trials || seen->matrices != (trial->possible ? seen->each : 0);
    seen->wrong |= search->chosen >= search->trials || !(search->seconds_left >= 0.0);
    seen->matrices = 0;
}

typedef struct problem {
    tiny_model tiny;
    int32_t ids[N];
    char folder[64], to[96];
    dm_compress_options how;
    dm_compress_limit limit;
} problem;

/* Of hardly anything but matrices, so that bits per weight are those of matrices. */
static void make_model(tiny_model *tiny) {
    const dm_model_info shape = {.architecture = "qwen3moe",
                                 .layers = 1,
                                 .dim = DM_SLOW ? 32 : 64,
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .head_dim = DM_SLOW ? 16 : 32,
                                 .context = 400,
                                 .experts = 4,
                                 .top_k = 2,
                                 .expert_dim = DM_SLOW ? 32 : 64};
    snprintf(tiny->path, sizeof tiny->path, "/tmp/dilmodeli-tiny-XXXXXX");
    const int descriptor = mkstemp(tiny->path);
    assert_true(descriptor >= 0);
    close(descriptor);
    assert_int_equal(dm_model_create(tiny->path, &shape, NULL, false, "f32", 31, &tiny->info), DM_OK);
    assert_int_equal(dm_model_open(tiny->path, &tiny->model), DM_OK);
}

static void problem_open(problem *p, bool compat, dm_loss loss) {
    make_model(&p->tiny);
    tiny_model_ids(&p->tiny, p->ids, N);
    snprintf(p->folder, sizeof p->folder, "/tmp/dilmodeli-within-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->to, sizeof p->to, "%s/out.gguf", p->folder);
    p->how = (dm_compress_options){.method = DM_COMPRESS_RTN, .compat = compat};
    p->limit = (dm_compress_limit){.loss = loss, .ids = p->ids, .n = N, .context = CONTEXT};
}

static void problem_close(problem *p) {
    unlink(p->to);
    assert_int_equal(rmdir(p->folder), 0); /* nothing else is in it */
    tiny_model_remove(&p->tiny);
}

static double loss_of(const problem *p, const char *path) {
    const dm_evaluate_options how = {.context = CONTEXT};
    dm_model *model;
    dm_evaluate_result own, original;
    assert_int_equal(dm_model_open(path, &model), DM_OK);
    assert_int_equal(dm_evaluate(model, p->tiny.model, NULL, p->ids, N, &how, NULL, NULL, &own), DM_OK);
    assert_int_equal(dm_evaluate(p->tiny.model, NULL, NULL, p->ids, N, &how, NULL, NULL, &original), DM_OK);
    dm_model_close(model);
    return p->limit.loss == DM_LOSS_KL ? own.kl_mean : own.perplexity / original.perplexity - 1.0;
}

/* Loss of an ordinary compression; infinity where there is no file so small. */
static double loss_at(const problem *p, double bpw) {
    char path[112];
    dm_compress_options how = p->how;
    how.bpw = bpw;
    snprintf(path, sizeof path, "%s.own", p->to);
    if (dm_compress(p->tiny.path, path, &how, NULL) != DM_OK) {
        return INFINITY;
    }
    const double loss = loss_of(p, path);
    unlink(path);
    return loss;
}

static dm_status search(problem *p, watched *seen, dm_compress_search *out) {
    dm_compress_options how = p->how;
    how.on_matrix = count_matrix;
    how.user = seen;
    const dm_status status = dm_compress_within(p->tiny.path, p->to, &how, &p->limit, count_trial, out);
    dm_interrupt_clear();
    return status;
}

static uint64_t size_of(const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long size = ftell(file);
    fclose(file);
    return (uint64_t)size;
}

static void check_found(problem *p) {
    dm_compress_search found;
    watched seen = {0};
    if (search(p, &seen, &found) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    const dm_compress_trial *chosen = &found.tried[found.chosen];
    assert_true(seen.trials == found.trials && !seen.wrong && seen.each > 0);
    assert_true(found.trials > 2 && found.trials <= DM_COMPRESS_TRIALS);
    assert_true(chosen->possible && chosen->loss <= p->limit.most);
    assert_true(loss_of(p, p->to) == chosen->loss);
    assert_true(loss_at(p, chosen->bpw) == chosen->loss);
    assert_true(size_of(p->to) == chosen->result.bytes_out);
    assert_true(loss_at(p, found.bound) > p->limit.most);
    assert_true(fmin(chosen->bpw, chosen->result.bpw) - found.bound < 0.07);
    for (int32_t i = 0; i < found.trials; i++) { /* of those within it is the smallest */
        const dm_compress_trial *t = &found.tried[i];
        assert_true(!t->possible || t->loss > p->limit.most || t->result.bytes_out >= chosen->result.bytes_out);
    }
}

/* Limits that are what some size loses, so that there is one to be found. */
static void the_smallest_within_is_written(void **state) {
    (void)state;
    static const double sizes[] = {6.5, 8.0, 5.0};
    for (int way = 0; way < 2; way++) {
        for (size_t i = 0; i < (DM_SLOW ? 1 : 3); i++) {
            problem p;
            problem_open(&p, way == 1, DM_LOSS_KL);
            p.limit.most = loss_at(&p, sizes[i]);
            if (isfinite(p.limit.most)) {
                check_found(&p);
            }
            assert_true(i > 0 || isfinite(p.limit.most));
            problem_close(&p);
        }
    }
    problem p;
    problem_open(&p, false, DM_LOSS_PERPLEXITY);
    p.limit.most = 0.5; /* a random model has little to lose */
    check_found(&p);
    problem_close(&p);
}

static void what_is_there_stays_where_none_is_within(void **state) {
    (void)state;
    for (int way = 0; way < 2; way++) {
        problem p;
        dm_compress_search found;
        watched seen = {0};
        problem_open(&p, way == 1, DM_LOSS_KL);
        p.limit.most = 1e-12;
        assert_int_equal(search(&p, &seen, &found), DM_ERR_ARGUMENT);
        assert_non_null(strstr(dm_error_message(), "even at"));
        assert_true(found.chosen == -1 && found.trials > 1 && access(p.to, F_OK) != 0);
        dm_compress_options how = p.how;
        how.bpw = 8.0;
        assert_int_equal(dm_compress(p.tiny.path, p.to, &how, NULL), DM_OK);
        const double loss = loss_of(&p, p.to);
        assert_int_equal(search(&p, &(watched){0}, &found), DM_ERR_ARGUMENT);
        assert_true(loss_of(&p, p.to) == loss);
        problem_close(&p);
    }
}

static void an_interruption_leaves_nothing(void **state) {
    (void)state;
    problem p;
    dm_compress_search found;
    problem_open(&p, false, DM_LOSS_KL);
    p.limit.most = loss_at(&p, 6.5);
    for (int32_t trial = 1; trial <= 4; trial += DM_SLOW ? 3 : 1) {
        watched seen = {.interrupt = trial};
        assert_int_equal(search(&p, &seen, &found), DM_ERR_INTERRUPTED);
        assert_true(found.trials == trial - 1 && access(p.to, F_OK) != 0);
        assert_int_equal(rmdir(p.folder), 0);
        assert_int_equal(mkdir(p.folder, 0700), 0);
    }
    problem_close(&p);
}

static void misuse_is_refused(void **state) {
    (void)state;
    problem p;
    dm_compress_search found;
    problem_open(&p, false, DM_LOSS_PERPLEXITY);
    const dm_compress_limit fine = {.most = 0.1, .ids = p.ids, .n = N, .context = CONTEXT};
    static const double limits[] = {-0.1, 1.0, NAN, INFINITY};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        p.limit = fine;
        p.limit.most = limits[i];
        assert_int_equal(search(&p, &(watched){0}, &found), DM_ERR_ARGUMENT);
    }
    const dm_compress_options plain = p.how, bad[] = {{.bpw = 4.0, .method = DM_COMPRESS_RTN},
                                                      {.bytes = 100000, .method = DM_COMPRESS_RTN},
                                                      {.width = 4, .method = DM_COMPRESS_RTN},
                                                      {.method = DM_COMPRESS_GAME},
                                                      {.method = DM_COMPRESS_RTN, .pruned = 1.0},
                                                      {.method = DM_COMPRESS_RTN, .compat = true, .pruned = 0.5}};
    p.limit = fine;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p.how = bad[i];
        assert_int_equal(search(&p, &(watched){0}, &found), DM_ERR_ARGUMENT);
        assert_true(found.trials == 0);
    }
    p.how = plain;
    p.limit.n = 1;
    assert_int_equal(search(&p, &(watched){0}, &found), DM_ERR_ARGUMENT);
    p.limit.n = N;
    p.ids[3] = p.tiny.info.vocab;
    assert_int_equal(search(&p, &(watched){0}, &found), DM_ERR_ARGUMENT);
    problem_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_within_is_written),
        cmocka_unit_test(what_is_there_stays_where_none_is_within),
        cmocka_unit_test(an_interruption_leaves_nothing),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
