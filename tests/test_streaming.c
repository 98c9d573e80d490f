/* Experts read from disk as tokens ask for them: the same results as with all of them in memory, for every budget, type and
 * layout; too small a budget and files that change are said in words. */
#include <math.h>
#include <pthread.h>

#include "dilmodeli.h"
#include "disk_faults.h"
#include "quantized_model.h"
#include "test_files.h"
#include "tiny_model.h"

#define FILE_NAME "model.gguf"

enum { TOKENS = 64 /* of which a piece is long enough for tiles */, SESSIONS = 3, MOST_VOCAB = 512 };

static dm_model *open_streamed(const char *path, const dm_stream_options *options) {
    dm_model *model = NULL;
    if (dm_model_open(path, &model) != DM_OK || (options != NULL && dm_model_stream(model, options) != DM_OK)) {
        fail_msg("%s", dm_error_message());
    }
    return model;
}

static int32_t vocab_of(const dm_model *model) {
    dm_model_info info;
    dm_model_get_info(model, &info);
    assert_in_range(info.vocab, 1, MOST_VOCAB);
    return info.vocab;
}

/* Logits [TOKENS, vocab] of a sequence: its first tokens at once, the rest one by one. */
static dm_status feed(const dm_model *model, const dm_router_options *router, size_t sequence, float *logits) {
    const int32_t vocab = vocab_of(model);
    int32_t ids[TOKENS], at = 47 - (int32_t)sequence;
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)(((size_t)i * 31 + sequence * 17 + (size_t)(i * i)) % (size_t)vocab);
    }
    dm_session *session;
    const dm_session_options how = {.context = TOKENS, .router = router};
    DM_TRY(dm_session_create_with(model, &how, &session));
    dm_status status = dm_session_feed(session, ids, at, true, logits);
    for (; at < TOKENS && status == DM_OK; at++) {
        status = dm_session_feed(session, ids + at, 1, true, logits + (size_t)at * (size_t)vocab);
    }
    dm_session_free(session);
    return status;
}

typedef struct task {
    const dm_model *model;
    size_t sequence;
    dm_status status;
    float logits[TOKENS * MOST_VOCAB];
} task;

static void *feed_body(void *user) {
    task *it = user;
    it->status = feed(it->model, NULL, it->sequence, it->logits);
    return NULL;
}

/* What each sequence gives alone, with all experts in memory, and what they give at once under a budget. */
static void check_budget(const char *path, const dm_stream_options *options, float alone[SESSIONS][TOKENS * MOST_VOCAB]) {
    static task tasks[SESSIONS];
    pthread_t threads[SESSIONS];
    dm_model *model = open_streamed(path, options);
    const size_t compared = TOKENS * (size_t)vocab_of(model) * sizeof(float);
    for (size_t s = 0; s < SESSIONS; s++) {
        tasks[s] = (task){.model = model, .sequence = s};
        assert_int_equal(pthread_create(&threads[s], NULL, feed_body, &tasks[s]), 0);
    }
    for (size_t s = 0; s < SESSIONS; s++) {
        pthread_join(threads[s], NULL);
        assert_int_equal(tasks[s].status, DM_OK);
        assert_memory_equal(tasks[s].logits, alone[s], compared);
    }
    dm_stream_stats stats;
    assert_true(dm_model_stream_stats(model, &stats));
    assert_true(stats.slots > 0 && stats.slots <= stats.experts && stats.read > 0);
    dm_model_close(model);
}

/* Bytes that are too few say how many are enough. */
static uint64_t least_bytes(const char *path) {
    dm_model *model = open_streamed(path, NULL);
    const dm_stream_options none = {.ram = 1};
    assert_int_equal(dm_model_stream(model, &none), DM_ERR_ARGUMENT);
    const char *told = strstr(dm_error_message(), "the least that works is ");
    assert_non_null(told);
    double megabytes = strtod(told + strlen("the least that works is "), NULL);
    dm_model_close(model);
    return (uint64_t)((megabytes + 0.05) * 1e6);
}

static void check_file(const char *path) {
    static float alone[SESSIONS][TOKENS * MOST_VOCAB];
    dm_model *model = open_streamed(path, NULL);
    for (size_t s = 0; s < SESSIONS; s++) {
        assert_int_equal(feed(model, NULL, s, alone[s]), DM_OK);
        assert_true(isfinite(alone[s][0]));
    }
    dm_model_close(model);
    const dm_stream_options ways[] = {{.ram = least_bytes(path)},
                                      {.ram_share = 0.4, .evict = "lru", .prefetch = 4},
                                      {.ram_share = 0.4, .evict = "lru"},
                                      {.ram_share = 0.6, .prefetch = 1},
                                      {.ram_share = 1.0, .evict = "slru:0.5"},
                                      {.memory = (uint64_t)1 << 32, .prefetch = 1}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        check_budget(path, &ways[i], alone);
    }
}

static void test_plain(void **state) {
    static const char *const architectures[] = {"qwen3moe", "qwen2moe", "olmoe"};
    static const char *const types[] = {"f32", "f16", "bf16"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        tiny_model tiny;
        tiny_model_make(&tiny, architectures[i], types[i], 7 + i);
        check_file(tiny.path);
        tiny_model_remove(&tiny);
    }
}

static void check_quantized(bool apart, quantized_type type_of) {
    const dm_config config = quantized_shape(true, apart);
    quantized_model_write(test_path(FILE_NAME), &config, type_of, 3);
    check_file(test_path(FILE_NAME));
}

static void test_quantized(void **state) {
    (void)state;
    check_quantized(false, quantized_mixture);
    check_quantized(true, quantized_mixture);
}

/* Logits of a sequence, and what the store counted, with so many layers read ahead. */
static void feed_ahead(const char *path, const dm_router_options *router, int32_t ahead, float *logits, dm_stream_stats *stats) {
    const dm_stream_options half = {.ram_share = 0.5, .evict = "lru", .prefetch = ahead};
    dm_model *model = open_streamed(path, &half);
    assert_int_equal(feed(model, router, 0, logits), DM_OK);
    assert_true(dm_model_stream_stats(model, stats));
    dm_model_close(model);
}

/* Panels that are kept in a file are read from there right into slots, and nothing else changes; damaged ones are refused. */
static void test_kept(void **state) {
    static float with[TOKENS * MOST_VOCAB], without[TOKENS * MOST_VOCAB];
    char path[4096];
    uint64_t bytes;
    dm_stream_stats packed, kept;
    (void)state;
    const dm_config config = quantized_shape(true, true);
    quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 4);
    feed_ahead(test_path(FILE_NAME), NULL, 1, without, &packed);
    dm_model *model = open_streamed(test_path(FILE_NAME), NULL);
    const dm_status status = dm_model_keep(model, path, sizeof path, &bytes);
    dm_model_close(model);
    if (status == DM_ERR_UNSUPPORTED) {
        skip(); /* this machine packs nothing */
    }
    assert_int_equal(status, DM_OK);
    feed_ahead(test_path(FILE_NAME), NULL, 1, with, &kept);
    assert_memory_equal(with, without, sizeof with);
    assert_true(kept.slots == packed.slots && kept.bytes < packed.bytes); /* no buffers to pack from */
    check_file(test_path(FILE_NAME));

    FILE *file = fopen(path, "r+b"); /* all of it but the header */
    assert_non_null(file);
    for (long at = 4096; (uint64_t)at < 4096 + bytes; at += 512) {
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        const int was = fgetc(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fputc(was ^ 1, file), was ^ 1);
    }
    assert_int_equal(fclose(file), 0);
    const dm_stream_options half = {.ram_share = 0.5};
    model = open_streamed(test_path(FILE_NAME), &half);
    for (int i = 0; i < 2; i++) { /* again: nothing hangs, nothing is believed */
        assert_int_equal(feed(model, NULL, 0, with), DM_ERR_FORMAT);
        assert_non_null(strstr(dm_error_message(), "is damaged; delete it"));
    }
    dm_model_close(model);
    assert_int_equal(unlink(path), 0);
}

/* A long piece wants all experts, more than there are slots; those that are there serve it all the same. */
static void test_pieces(void **state) {
    static float logits[TOKENS * MOST_VOCAB];
    (void)state;
    const dm_config config = quantized_shape(true, false);
    quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 5);
    const dm_stream_options most = {.ram_share = 0.8, .evict = "lru"};
    dm_model *model = open_streamed(test_path(FILE_NAME), &most);
    dm_session *session;
    dm_routing_stats routing;
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = i % config.vocab;
    }
    assert_int_equal(dm_session_create(model, TOKENS, &session), DM_OK);
    for (int round = 0; round < 3; round++) {
        dm_session_truncate(session, 0);
        assert_int_equal(dm_session_feed(session, ids, TOKENS, false, logits), DM_OK);
        dm_session_routing(session, &routing);
        assert_true(round == 0 ? routing.hit_rate == 0.0 : routing.hit_rate > 0.1);
    }
    dm_session_free(session);
    dm_model_close(model);
}

/* The game with real slots plays as with as many simulated ones, where experts go by the same policy. */
static void test_routing(void **state) {
    static float simulated[TOKENS * MOST_VOCAB], streamed[TOKENS * MOST_VOCAB], own[TOKENS * MOST_VOCAB];
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 11);
    dm_router_options router = dm_router_default();
    assert_int_equal(feed(tiny.model, &router, 0, own), DM_OK);
    router.policy = DM_ROUTER_NASH;
    router.gamma = 0.5;
    router.keep_top = 0;
    const dm_stream_options half = {.ram_share = 0.5, .evict = "lru"};
    dm_model *model = open_streamed(tiny.path, &half);
    assert_int_equal(feed(model, &router, 0, streamed), DM_OK);
    router.resident = 4;
    assert_int_equal(feed(model, &router, 0, simulated), DM_ERR_ARGUMENT); /* one or the other */
    assert_int_equal(feed(tiny.model, &router, 0, simulated), DM_OK);
    /* the first tokens are a chunk, whose experts are all read whatever happens: it is priced otherwise */
    assert_memory_not_equal(streamed, own, sizeof own);
    assert_memory_not_equal(simulated, own, sizeof own);
    dm_model_close(model);
    tiny_model_remove(&tiny);
}

/* Reading ahead changes when bytes come: not what is computed, what the game chooses, nor what counts as missed. */
static void test_ahead(void **state) {
    static float with[TOKENS * MOST_VOCAB], without[TOKENS * MOST_VOCAB];
    (void)state;
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 19);
    dm_router_options router = dm_router_default();
    for (int nash = 0; nash < 2; nash++) {
        dm_stream_stats none, one, again;
        router.policy = nash ? DM_ROUTER_NASH : DM_ROUTER_MODEL;
        router.gamma = nash ? 0.5 : 0.0;
        router.keep_top = 0;
        feed_ahead(tiny.path, &router, 0, without, &none);
        assert_true(none.guessed == 0 && none.used == 0 && none.ahead == 0 && none.wasted == 0 && none.missed > 0);
        feed_ahead(tiny.path, &router, 1, with, &one);
        assert_memory_equal(with, without, sizeof with);
        assert_true(one.used > 0 && one.used <= one.guessed && one.slots == none.slots);
        assert_true(one.ahead > 0 && one.ahead <= one.missed && one.missed == none.missed);
        /* experts of this model have one size, and the last step leaves no guess behind */
        assert_true(one.wasted * one.used == one.ahead * (one.guessed - one.used));
        assert_true(one.bytes > none.bytes && one.read >= one.missed + one.wasted);
        feed_ahead(tiny.path, &router, 4, with, &again);
        assert_memory_equal(with, without, sizeof with);
        assert_true(again.missed == none.missed);
    }
    tiny_model_remove(&tiny);
}

/* A file that is cut short fails the feed and nothing else. */
static void check_faults(bool ahead) {
    static float logits[TOKENS * MOST_VOCAB];
    tiny_model tiny;
    tiny_model_make(&tiny, "qwen3moe", "f32", 13);
    const dm_stream_options least = {.ram = least_bytes(tiny.path)}, some = {.ram_share = 0.4, .prefetch = 2};
    dm_model *model = open_streamed(tiny.path, ahead ? &some : &least);
    dm_session *session;
    int32_t ids[TOKENS];
    tiny_model_ids(&tiny, ids, TOKENS);
    assert_int_equal(dm_session_create(model, TOKENS, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, 5, false, logits), DM_OK);
    FILE *file = fopen(tiny.path, "r+b"); /* written by another program: the same bytes, at another time */
    assert_non_null(file);
    int first = fgetc(file);
    rewind(file);
    assert_int_equal(fputc(first, file), first);
    assert_int_equal(fclose(file), 0);
    dm_status status = DM_OK;
    for (int32_t i = 5; i < TOKENS && status == DM_OK; i++) {
        const int32_t before = dm_session_length(session);
        status = dm_session_feed(session, ids + i, 1, false, logits);
        assert_int_equal(dm_session_length(session), before + (status == DM_OK));
    }
    assert_int_equal(status, DM_ERR_IO);
    assert_non_null(strstr(dm_error_message(), "has changed"));
    assert_int_equal(dm_session_feed(session, ids, 1, false, logits), DM_ERR_IO); /* again: nothing hangs */
    dm_session_free(session);
    dm_model_close(model);
    tiny_model_remove(&tiny);
}

static void test_faults(void **state) {
    (void)state;
    check_faults(false);
    check_faults(true);
}

/* A disk that does not answer fails feeds in good time, one after another; once it answers, all is as it was, though what was
 * read for the failed ones arrives late. */
static void check_stall(const char *path, int32_t ahead) {
    static float alone[TOKENS * MOST_VOCAB], logits[TOKENS * MOST_VOCAB];
    dm_model *model = open_streamed(path, NULL);
    assert_int_equal(feed(model, NULL, 1, alone), DM_OK);
    dm_model_close(model);
    const dm_stream_options some = {.ram_share = 0.4, .evict = "lru", .prefetch = ahead, .patience = 0.1};
    model = open_streamed(path, &some);
    assert_int_equal(feed(model, NULL, 0, logits), DM_OK);
    disk_faults_hold(true);
    for (size_t sequence = 0; sequence < 3; sequence++) {
        assert_int_equal(feed(model, NULL, sequence, logits), DM_ERR_IO);
        assert_non_null(strstr(dm_error_message(), "the disk has not answered for 0.1 seconds"));
        assert_memory_equal(dm_error_message(), path, strlen(path));
    }
    disk_faults_hold(false);
    dm_status status = DM_ERR_IO;
    for (int tries = 0; tries < 100 && status != DM_OK; tries++) { /* a slow machine may be late once more */
        status = feed(model, NULL, 1, logits);
    }
    assert_int_equal(status, DM_OK);
    assert_memory_equal(logits, alone, TOKENS * (size_t)vocab_of(model) * sizeof *logits);
    disk_faults_hold(true); /* closed meanwhile: nobody waits for long */
    assert_int_equal(feed(model, NULL, 2, logits), DM_ERR_IO);
    dm_model_close(model);
    disk_faults_hold(false);
}

static void test_stall(void **state) {
    (void)state;
    const dm_config config = quantized_shape(true, false);
    for (int32_t ahead = 0; ahead < 2; ahead++) {
        tiny_model tiny;
        tiny_model_make(&tiny, "qwen3moe", "f32", 23); /* into slots */
        check_stall(tiny.path, ahead);
        tiny_model_remove(&tiny);
        quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 6); /* into buffers */
        check_stall(test_path(FILE_NAME), ahead);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const dm_stream_options wrong[] = {{0},
                                              {.ram = 1, .memory = 1},
                                              {.ram_share = 1.5},
                                              {.ram_share = NAN},
                                              {.ram_share = 0.5, .evict = "lru:shared"},
                                              {.ram_share = 0.5, .evict = "belady"},
                                              {.ram_share = 0.5, .prefetch = 5},
                                              {.ram_share = 0.5, .prefetch = -1},
                                              {.ram_share = 0.5, .patience = -1.0},
                                              {.ram_share = 0.5, .patience = NAN}};
    tiny_model tiny, dense;
    tiny_model_make(&tiny, "qwen3moe", "f32", 17);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(dm_model_stream(tiny.model, &wrong[i]), DM_ERR_ARGUMENT);
    }
    const dm_stream_options half = {.ram_share = 0.5}, little = {.memory = 1 << 20};
    assert_int_equal(dm_model_stream(tiny.model, &half), DM_OK);
    assert_int_equal(dm_model_stream(tiny.model, &half), DM_ERR_ARGUMENT); /* twice */
    tiny_model_make(&dense, "llama", "f32", 17);
    assert_int_equal(dm_model_stream(dense.model, &half), DM_ERR_ARGUMENT);
    tiny_model_remove(&dense);
    static float logits[TOKENS * MOST_VOCAB];
    dm_model *model = open_streamed(tiny.path, &little); /* noticed with the first token */
    assert_int_equal(feed(model, NULL, 0, logits), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "too little"));
    dm_model_close(model);
    tiny_model_remove(&tiny);
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, NULL});
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),  cmocka_unit_test(test_quantized), cmocka_unit_test(test_kept),
        cmocka_unit_test(test_pieces), cmocka_unit_test(test_routing),   cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_stall),     cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
