/* Weights on several memory nodes of machines that do not exist: the same logits to the bit, whoever computes what; each node's
 * threads, and no others, do what belongs to it. Of a share of rows a node has nothing else, so a row read elsewhere shows. */
#include <pthread.h>

#include "base/pages.h"
#include "base/parallel.h"
#include "dilmodeli.h"
#include "model/forward.h"
#include "model/placed.h"
#include "quantized_model.h"
#include "test_files.h"
#include "tiny_model.h"

#define FILE_NAME "model.gguf"
#define MIXED_NAME "mixed.gguf"
#define TWO_NODES "pack:2 [numa(memory=64GiB)] core:2 pu:1"
#define THREE_NODES "pack:3 [numa(memory=64GiB)] core:2 pu:1"

enum { TOKENS = 48, PROMPT = 40, MOST_VOCAB = 512 };

/* [TOKENS, vocab] of a sequence, then of its last token again beside another sequence's. */
typedef struct logits {
    float of[(TOKENS + 2) * MOST_VOCAB];
} logits;

static void check(dm_status status) {
    if (status != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
}

static dm_model *open_model(const char *path) {
    dm_model *model = NULL;
    check(dm_model_open(path, &model));
    return model;
}

static dm_status feed(const dm_model *model, logits *out) {
    dm_model_info info;
    dm_model_get_info(model, &info);
    assert_in_range(info.vocab, 1, MOST_VOCAB);
    const size_t vocab = (size_t)info.vocab;
    int32_t ids[TOKENS], counts[2] = {1, 1};
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = (i * 31 + i * i) % info.vocab;
    }
    dm_session *sessions[2];
    DM_TRY(dm_session_create(model, TOKENS, &sessions[0]));
    DM_TRY(dm_session_create(model, TOKENS, &sessions[1]));
    DM_TRY(dm_session_feed(sessions[0], ids, PROMPT, true, out->of));
    for (int32_t i = PROMPT; i < TOKENS; i++) {
        DM_TRY(dm_session_feed(sessions[0], ids + i, 1, true, out->of + (size_t)i * vocab));
    }
    dm_session_truncate(sessions[0], TOKENS - 1);
    DM_TRY(dm_session_feed(sessions[1], ids, 3, false, NULL));
    DM_TRY(dm_session_feed_many(sessions, counts, 2, ids + TOKENS - 2, out->of + TOKENS * vocab));
    dm_session_free(sessions[0]);
    dm_session_free(sessions[1]);
    return DM_OK;
}

static void compare(const dm_model *model, const logits *expected) {
    static logits found;
    dm_model_info info;
    dm_model_get_info(model, &info);
    check(feed(model, &found));
    assert_memory_equal(found.of, expected->of, (TOKENS + 2) * (size_t)info.vocab * sizeof(float));
}

/* Every node works, and none for another. */
static void check_nodes(const dm_model *model, size_t nodes, int threads) {
    dm_model_info info;
    dm_stream_stats stats;
    dm_model_get_info(model, &info);
    uint64_t experts = 0, all = (uint64_t)info.layers * (uint64_t)info.experts;
    int seated = 0;
    assert_int_equal(dm_model_nodes(model), nodes);
    for (size_t i = 0; i < nodes; i++) {
        dm_node_use use;
        dm_model_node(model, i, &use);
        assert_true(use.node == -1 && use.threads > 0 && use.bytes > 0 && use.own_work > 0 && use.foreign_work == 0);
        experts += use.experts;
        seated += use.threads;
    }
    assert_int_equal(experts, dm_model_stream_stats(model, &stats) ? 0 : all);
    assert_int_equal(seated, threads);
}

static void check_placed(const char *path, dm_numa how, const char *machine, int threads, bool streamed, const logits *expected) {
    const dm_stream_options some = {.ram_share = 0.4, .prefetch = 1};
    const int before = dm_threads(), most = strcmp(machine, TWO_NODES) == 0 ? 2 : 3;
    dm_set_threads(threads);
    assert_true(dm_parallel_set_groups(NULL, 0, NULL, 0)); /* counts begin anew */
    dm_model *model = open_model(path);
    check(dm_model_place(model, how, machine));
    if (streamed) {
        check(dm_model_stream(model, &some));
    }
    compare(model, expected);
    assert_int_equal(dm_model_numa(model), how);
    check_nodes(model, (size_t)(threads < most ? threads : most), threads);
    dm_model_close(model);
    dm_set_threads(before);
}

static void check_file(const char *path) {
    static logits expected;
    dm_model_info info;
    dm_model *model = open_model(path);
    dm_model_get_info(model, &info);
    check(feed(model, &expected));
    dm_model_close(model);
    for (int threads = DM_SLOW ? 3 : 2; threads <= (DM_SLOW ? 3 : 4); threads++) {
        for (int streamed = 0; streamed < (info.experts > 0 ? 2 : 1); streamed++) {
            check_placed(path, DM_NUMA_SPREAD, TWO_NODES, threads, streamed, &expected);
            check_placed(path, DM_NUMA_MIRROR, TWO_NODES, threads, streamed, &expected);
            check_placed(path, DM_NUMA_SPREAD, THREE_NODES, threads, streamed, &expected);
            check_placed(path, DM_NUMA_MIRROR, THREE_NODES, threads, streamed, &expected);
        }
    }
}

static void plain(void **state) {
    static const char *const architectures[] = {"qwen3moe", "qwen2moe", "llama", "gpt2"};
    static const char *const types[] = {"f32", "bf16", "f16", "f32"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        tiny_model tiny;
        tiny_model_make(&tiny, architectures[i], types[i], 7 + i);
        check_file(tiny.path);
        tiny_model_remove(&tiny);
    }
}

static void quantized(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) { /* dense; stacked, apart, of several types */
        const dm_config config = quantized_shape(kind > 0, kind > 1);
        quantized_model_write(test_path(FILE_NAME), &config, kind == 3 ? quantized_unevenly : quantized_mixture, 3);
        if (kind < 3) {
            check_file(test_path(FILE_NAME));
            continue;
        }
        static logits expected; /* cannot be streamed */
        dm_model *model = open_model(test_path(FILE_NAME));
        check(feed(model, &expected));
        dm_model_close(model);
        check_placed(test_path(FILE_NAME), DM_NUMA_SPREAD, TWO_NODES, 3, false, &expected);
    }
}

static void mixed(void **state) {
    (void)state;
    for (int dense = 0; dense < 2; dense++) {
        const dm_config config = quantized_shape(dense == 0, false);
        const dm_convert_options options = {.type = "mixed:3"};
        quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 5);
        check(dm_convert(test_path(FILE_NAME), test_path(MIXED_NAME), &options, NULL, NULL, NULL));
        check_file(test_path(MIXED_NAME));
    }
}

/* ---- Homes ---- */

/* Where what a node has of experts begins and ends. */
typedef struct range {
    uintptr_t begin, end;
} range;

static void note(range *r, const dm_weight_copy *copy) {
    const uintptr_t at = (uintptr_t)(copy->panels != NULL ? copy->panels : copy->data);
    r->begin = r->begin == 0 || at < r->begin ? at : r->begin;
    r->end = at > r->end ? at : r->end;
}

/* Experts are dealt out to their homes, each once and in their order, and lie there. */
static void check_homes(const dm_model *model, size_t nodes) {
    const int32_t n = model->config.n_experts;
    range ranges[3] = {{0, 0}};
    dm_session *session;
    check(dm_session_create(model, TOKENS, &session));
    for (int32_t l = 0; l < model->config.n_layers; l++) {
        const dm_expert_run run = {session, &session->layers[l], 1};
        int32_t all[64], listed = 0;
        dm_expert_lists lists;
        for (int32_t e = 0; e < n; e++) {
            all[e] = e;
            note(&ranges[dm_placed_home(model, l, e)], dm_placed_expert(model, l, DM_FFN_DOWN_EXPS, e));
        }
        dm_forward_deal_out(&run, all, (size_t)n, &lists);
        assert_true(lists.n == nodes && lists.starts[0] == 0 && lists.starts[nodes] == (size_t)n);
        for (size_t list = 0; list < nodes; list++) {
            for (size_t i = lists.starts[list]; i < lists.starts[list + 1]; i++, listed++) {
                assert_int_equal(dm_placed_home(model, l, lists.experts[i]), list);
                assert_true(i == lists.starts[list] || lists.experts[i] > lists.experts[i - 1]);
            }
        }
        assert_int_equal(listed, n);
    }
    for (size_t a = 0; a < nodes; a++) {
        assert_true(ranges[a].begin > 0 && ranges[a].end - ranges[a].begin < dm_placed_bytes(model, a));
        for (size_t b = 0; b < a; b++) { /* apart */
            assert_true(ranges[a].end < ranges[b].begin || ranges[b].end < ranges[a].begin);
        }
    }
    dm_session_free(session);
}

static void homes(void **state) {
    (void)state;
    const int before = dm_threads();
    dm_set_threads(3);
    for (int apart = 0; apart < 2; apart++) {
        const dm_config config = quantized_shape(true, apart);
        quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 9);
        dm_model *model = open_model(test_path(FILE_NAME));
        for (size_t nodes = 2; nodes <= 3; nodes++) {
            check(dm_model_place(model, DM_NUMA_SPREAD, nodes == 2 ? TWO_NODES : THREE_NODES));
            check_homes(model, nodes);
        }
        dm_model_close(model);
    }
    dm_set_threads(before);
}

/* A slot belongs to one node as long as the store lives, and experts to that of theirs. */
static void slots(void **state) {
    static logits found;
    (void)state;
    const int before = dm_threads();
    const dm_stream_options all = {.ram_share = 1.0};
    dm_set_threads(3);
    const dm_config config = quantized_shape(true, false);
    quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 9);
    dm_model *model = open_model(test_path(FILE_NAME));
    check(dm_model_place(model, DM_NUMA_SPREAD, TWO_NODES));
    check(dm_model_stream(model, &all));
    check(feed(model, &found));
    dm_expert_store *store;
    check(dm_streaming_start(model, &store));
    dm_expert_store_enter(store);
    for (int32_t l = 0; l < config.n_layers; l++) {
        range ranges[2] = {{0, 0}};
        int32_t every[8] = {0, 1, 2, 3, 4, 5, 6, 7};
        int count[2] = {0};
        const int32_t *next;
        size_t n;
        check(dm_expert_store_begin(store, l, every, 8, false)); /* so that each has a slot */
        do {
            check(dm_expert_store_next(store, &next, &n));
        } while (n > 0);
        dm_expert_store_end(store);
        for (int32_t e = 0; e < config.n_experts; e++) {
            const size_t home = dm_expert_store_home(store, l, e);
            const dm_weight_copy copy = {dm_expert_store_matrix(store, l, e, 0), NULL};
            assert_in_range(home, 0, 1);
            note(&ranges[home], &copy);
            count[home]++;
        }
        assert_true(count[0] >= config.n_experts / 2 && count[1] >= config.n_experts / 3 - 1); /* two threads to one */
        assert_true(ranges[0].end < ranges[1].begin || ranges[1].end < ranges[0].begin);
    }
    dm_expert_store_leave(store);
    dm_model_close(model);
    dm_set_threads(before);
}

/* ---- What is refused, and what is done again ---- */

static void again(void **state) {
    static logits expected;
    char path[4096];
    uint64_t bytes;
    tiny_model tiny;
    (void)state;
    const int before = dm_threads();
    dm_set_threads(3);
    tiny_model_make(&tiny, "qwen3moe", "f32", 21);
    check(feed(tiny.model, &expected));
    for (int i = 0; i < 2; i++) {
        check(dm_model_place(tiny.model, DM_NUMA_SPREAD, i == 0 ? TWO_NODES : THREE_NODES));
        assert_int_equal(dm_model_nodes(tiny.model), 2 + i);
        compare(tiny.model, &expected);
        assert_int_equal(dm_model_keep(tiny.model, path, sizeof path, &bytes), DM_ERR_UNSUPPORTED);
    }
    dm_model *other = open_model(tiny.path);
    assert_int_equal(dm_model_place(other, DM_NUMA_SPREAD, TWO_NODES), DM_ERR_ARGUMENT);
    assert_int_equal(dm_model_nodes(other), 0);
    compare(other, &expected); /* beside one that is placed */
    check(dm_model_place(other, DM_NUMA_MIRROR, THREE_NODES));
    compare(other, &expected);
    compare(tiny.model, &expected);
    dm_model_close(other);
    assert_int_equal(dm_model_place(tiny.model, DM_NUMA_SPREAD, "moon:2"), DM_ERR_ARGUMENT);
    assert_int_equal(dm_model_numa(tiny.model), DM_NUMA_OFF);
    compare(tiny.model, &expected);
    check(dm_model_place(tiny.model, DM_NUMA_MIRROR, "pack:1 [numa(memory=64GiB)] core:4 pu:1")); /* one node */
    assert_int_equal(dm_model_nodes(tiny.model), 0);
    check(dm_model_place(tiny.model, DM_NUMA_AUTO, TWO_NODES)); /* it is small */
    assert_int_equal(dm_model_numa(tiny.model), DM_NUMA_MIRROR);
    check(dm_model_place(tiny.model, DM_NUMA_AUTO, "numa:2(memory=65536) core:2 pu:1")); /* no longer */
    assert_int_equal(dm_model_numa(tiny.model), DM_NUMA_SPREAD);
    dm_set_threads(DM_MOST_GROUPS + 1);
    assert_int_equal(dm_model_place(tiny.model, DM_NUMA_SPREAD, "numa:65(memory=1GiB) core:1 pu:1"), DM_ERR_UNSUPPORTED);
    check(dm_model_place(tiny.model, DM_NUMA_AUTO, "numa:65(memory=1GiB) core:1 pu:1"));
    assert_int_equal(dm_model_numa(tiny.model), DM_NUMA_OFF);
    dm_set_threads(1);
    check(dm_model_place(tiny.model, DM_NUMA_SPREAD, TWO_NODES)); /* one thread is on one node */
    assert_int_equal(dm_model_nodes(tiny.model), 0);
    compare(tiny.model, &expected);
    dm_numa how;
    assert_int_equal(dm_numa_from_name("moon", &how), DM_ERR_ARGUMENT);
    for (int i = DM_NUMA_AUTO; i <= DM_NUMA_MIRROR; i++) {
        check(dm_numa_from_name(dm_numa_name((dm_numa)i), &how));
        assert_int_equal(how, i);
    }
    tiny_model_remove(&tiny);
    dm_set_threads(before);
}

/* Panels that are kept in a file are of no use to nodes, and do no harm; slots are read from there, if that was asked for first.
 */
static void kept(void **state) {
    static logits expected;
    char path[4096];
    uint64_t bytes;
    (void)state;
    const int before = dm_threads();
    dm_set_threads(3);
    const dm_config config = quantized_shape(true, false);
    const dm_stream_options some = {.ram_share = 0.4};
    quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 10);
    dm_model *model = open_model(test_path(FILE_NAME));
    check(feed(model, &expected));
    const dm_status status = dm_model_keep(model, path, sizeof path, &bytes);
    dm_model_close(model);
    for (int i = 0; i < 4 && status == DM_OK; i++) {
        model = open_model(test_path(FILE_NAME));
        check(i == 2 ? dm_model_stream(model, &some) : DM_OK);
        check(dm_model_place(model, i == 1 ? DM_NUMA_MIRROR : DM_NUMA_SPREAD, TWO_NODES));
        check(i == 3 ? dm_model_stream(model, &some) : DM_OK);
        compare(model, &expected);
        check_nodes(model, 2, 3);
        dm_model_close(model);
    }
    assert_true(status == DM_OK ? unlink(path) == 0 : status == DM_ERR_UNSUPPORTED);
    dm_set_threads(before);
}

/* Fewer threads than the model was placed for: what nobody is there for is done all the same, and counted. */
static void fewer_threads(void **state) {
    static logits expected;
    tiny_model tiny;
    dm_node_use use;
    (void)state;
    const int before = dm_threads();
    dm_set_threads(4);
    tiny_model_make(&tiny, "qwen3moe", "f32", 22);
    check(feed(tiny.model, &expected));
    assert_true(dm_parallel_set_groups(NULL, 0, NULL, 0));
    check(dm_model_place(tiny.model, DM_NUMA_SPREAD, THREE_NODES));
    dm_set_threads(2);
    compare(tiny.model, &expected);
    dm_model_node(tiny.model, 2, &use);
    assert_true(use.own_work < use.foreign_work && use.threads == 0);
    dm_set_threads(1);
    compare(tiny.model, &expected);
    tiny_model_remove(&tiny);
    dm_set_threads(before);
}

/* ---- Several at once ---- */

typedef struct task {
    const dm_model *model;
    const logits *expected;
} task;

static void *compare_body(void *user) {
    const task *it = user;
    dm_model_info info;
    dm_model_get_info(it->model, &info);
    logits *found = calloc(1, sizeof *found);
    const bool same = found != NULL && feed(it->model, found) == DM_OK &&
                      memcmp(found->of, it->expected->of, (TOKENS + 2) * (size_t)info.vocab * sizeof(float)) == 0;
    free(found);
    return same ? user : NULL;
}

static void at_once(void **state) {
    static logits expected;
    (void)state;
    const int before = dm_threads();
    dm_set_threads(3);
    const dm_config config = quantized_shape(true, false);
    quantized_model_write(test_path(FILE_NAME), &config, quantized_mixture, 8);
    dm_model *model = open_model(test_path(FILE_NAME));
    check(feed(model, &expected));
    for (int i = 0; i < 2; i++) {
        check(dm_model_place(model, i == 0 ? DM_NUMA_SPREAD : DM_NUMA_MIRROR, TWO_NODES));
        task it = {model, &expected};
        pthread_t threads[3];
        for (int t = 0; t < 3; t++) {
            assert_int_equal(pthread_create(&threads[t], NULL, compare_body, &it), 0);
        }
        for (int t = 0; t < 3; t++) {
            void *same;
            pthread_join(threads[t], &same);
            assert_non_null(same);
        }
    }
    dm_model_close(model);
    dm_set_threads(before);
}

/* ---- Pages ---- */

static void pages_near(void **state) {
    (void)state;
    enum { BYTES = 3 * DM_HUGE_PAGE + 5000, TOUCHED = DM_HUGE_PAGE };
    dm_pages p;
    uint64_t there, elsewhere, none;
    for (int node = -1; node < 3000; node += 1500) {
        assert_int_equal(dm_pages_map_near(BYTES, node, &p), DM_OK); /* nodes that are not there too */
        p.data[BYTES - 1] = 1;
        dm_pages_unmap(&p);
    }
    dm_set_huge_pages(false);
    assert_int_equal(dm_pages_map_near(BYTES, 0, &p), DM_OK);
    memset(p.data, 1, TOUCHED);
    dm_pages_count(&p, BYTES, 0, &there, &elsewhere);
    if (there + elsewhere > 0) { /* the system tells */
        assert_int_equal(there + elsewhere, TOUCHED / 4096);
        assert_true(there > 0); /* node 0 has memory on any machine that has this many pages free there */
        dm_pages_count(&p, BYTES, 1000, &none, &elsewhere);
        assert_true(none == 0 && elsewhere == TOUCHED / 4096);
    }
    dm_pages_unmap(&p);
    dm_set_huge_pages(true);
}

static int clean_up(void **state) {
    static const char *const names[] = {FILE_NAME, MIXED_NAME, NULL};
    (void)state;
    test_remove(names);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),   cmocka_unit_test(quantized),  cmocka_unit_test(mixed), cmocka_unit_test(homes),
        cmocka_unit_test(slots),   cmocka_unit_test(again),      cmocka_unit_test(kept),  cmocka_unit_test(fewer_threads),
        cmocka_unit_test(at_once), cmocka_unit_test(pages_near),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
