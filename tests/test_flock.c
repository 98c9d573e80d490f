/* The nearest keys: exact scans against plain ones, alignment, and the graph: recall, growth, threads, broken keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "core/flock_graph.h"
#include "kernels/vector.h"
#include "structured_keys.h"

enum { K = 7 };

static dm_keys keys_of(const float *rows, size_t n, size_t dim) {
    return (dm_keys){.rows = rows, .n = n, .dim = dim, .dot = dm_vector()->dot};
}

static float *numbers(size_t n) {
    float *x = dm_alloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

/* ---- Exact scans ---- */

/* True where key x comes before key y for a query. */
static bool before(float x_score, int32_t x, float y_score, int32_t y) {
    return x_score > y_score || (x_score == y_score && x < y);
}

/* That ids and scores [k] are what sorting the first n keys gives. */
static void check_nearest(const dm_keys *keys, size_t n, const float *query, size_t k, const int32_t *ids, const float *scores) {
    size_t finite = 0;
    for (size_t e = 0; e < n; e++) {
        finite += isfinite(keys->dot(keys->rows + e * keys->dim, query, keys->dim)) != 0;
    }
    for (size_t j = 0; j < k; j++) {
        if (j >= finite) {
            assert_true(ids[j] == -1 && scores[j] == -INFINITY);
            continue;
        }
        assert_in_range(ids[j], 0, n - 1);
        assert_true(scores[j] == keys->dot(keys->rows + (size_t)ids[j] * keys->dim, query, keys->dim));
        size_t rank = 0;
        for (size_t e = 0; e < n; e++) {
            float score = keys->dot(keys->rows + e * keys->dim, query, keys->dim);
            rank += isfinite(score) && before(score, (int32_t)e, scores[j], ids[j]);
        }
        assert_int_equal(rank, j);
    }
}

/* Small whole numbers: ties, and dot products that are exact. */
static void fill_coarse(float *x, size_t n, dm_random *random) {
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(int)(dm_random_next(random) % 5) - 2.0f;
    }
}

static void scans_find_what_sorting_finds(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 1);
    int threads = dm_threads();
    dm_set_threads(3);
    for (size_t round = 0; round < 60; round++) {
        size_t n = 1 + (size_t)(dm_random_next(&random) % 150), dim = 1 + (size_t)(dm_random_next(&random) % 40);
        size_t k = 1 + (size_t)(dm_random_next(&random) % 12), queries = (size_t)(dm_random_next(&random) % 150);
        float *rows = numbers(n * dim), *x = numbers(queries * dim), *scores = numbers(queries * k);
        int32_t *ids = dm_alloc(queries * k, sizeof *ids);
        fill_coarse(rows, n * dim, &random);
        fill_coarse(x, queries * dim, &random);
        if (round % 3 == 0) {
            rows[(size_t)(dm_random_next(&random) % (n * dim))] = NAN;
            rows[(size_t)(dm_random_next(&random) % (n * dim))] = INFINITY;
        }
        const dm_keys keys = keys_of(rows, n, dim);
        dm_flock_exact(&keys, x, queries, k, 1 + (int)(round % 3), ids, scores);
        for (size_t q = 0; q < queries; q++) {
            check_nearest(&keys, n, x + q * dim, k, ids + q * k, scores + q * k);
        }
        dm_free(rows);
        dm_free(x);
        dm_free(scores);
        dm_free(ids);
    }
    dm_set_threads(threads);
}

static void earlier_tokens_alone_are_neighbours(void **state) {
    (void)state;
    enum { T = 100, DIM = 12 };
    dm_random random;
    dm_random_seed(&random, 2);
    static float x[T * DIM], scores[T * K];
    static int32_t ids[T * K];
    fill_coarse(x, (size_t)T * DIM, &random);
    const dm_keys tokens = keys_of(x, T, DIM);
    dm_flock_earlier(&tokens, K, 2, ids, scores);
    for (size_t t = 0; t < T; t++) {
        check_nearest(&tokens, t, x + t * DIM, K, ids + t * K, scores + t * K);
    }
}

static void recall_counts_what_scores_as_well(void **state) {
    (void)state;
    const float exact[6] = {5, 4, 4, 3, -INFINITY, -INFINITY}, same[6] = {4, 5, 4, 3, -INFINITY, -INFINITY};
    const float some[6] = {5, 4, 3, -INFINITY, -INFINITY, -INFINITY};
    assert_true(dm_flock_recall(same, exact, 2, 3) == 1.0);
    assert_true(dm_flock_recall(some, exact, 2, 3) == 0.5); /* 2 of 3, and 0 of 1 */
    assert_true(dm_flock_recall(some, exact, 0, 3) == 1.0);
}

/* ---- Alignment ---- */

static void alignment_is_the_cosine_to_the_mean(void **state) {
    (void)state;
    enum { N = 6, E = 3, STRIDE = 4, NEAR = 2 };
    const float p[N * STRIDE] = {0.5f, 0.5f, 0, 9, 0.5f, 0.5f, 0, 9, 0, 0, 1, 9, 0.25f, 0.25f, 0.5f, 9, 0, 0, 0, 9, 1, 0, 0, 9};
    const int32_t near[N * NEAR] = {-1, -1, 0, -1, 0, 1, 1, 2, 0, 1, 4, -1};
    float alignment[N];
    dm_flock_alignment(p, STRIDE, N, E, near, NEAR, alignment);
    assert_true(alignment[0] == 1.0f); /* nobody before it */
    assert_true(fabs((double)alignment[1] - 1.0) < 1e-6);
    assert_true(alignment[2] == 0.0f);
    assert_true(fabs((double)alignment[3] - 1.0) < 1e-6); /* the mean of 1 and 2 */
    assert_true(alignment[4] == 0.0f && alignment[5] == 0.0f);
}

/* ---- The graph ---- */

static dm_flock_graph *build(const dm_keys *keys, int threads) {
    dm_flock_graph *graph;
    assert_int_equal(dm_flock_graph_build(keys, 3, threads, &graph), DM_OK);
    return graph;
}

typedef struct walked {
    double recall, evaluations;
} walked;

enum { QUERIES = 300, BEAM = 128 };
static float exact_scores[QUERIES * K], scores[QUERIES * K];
static int32_t exact_ids[QUERIES * K], ids[QUERIES * K];

static walked walk_all(const dm_flock_graph *graph, const float *queries, bool warm) {
    dm_flock_walker *walker;
    size_t evaluations = 0, dim = graph->keys.dim;
    assert_int_equal(dm_flock_walker_create(graph, BEAM, &walker), DM_OK);
    for (size_t q = 0; q < QUERIES; q++) {
        const int32_t *start = warm && q > 0 ? ids + (q - 1) * K : NULL;
        evaluations += dm_flock_walk(walker, queries + q * dim, start, start != NULL ? K : 0, K, ids + q * K, scores + q * K);
    }
    dm_flock_walker_free(walker);
    dm_flock_exact(&graph->keys, queries, QUERIES, K, 2, exact_ids, exact_scores);
    return (walked){dm_flock_recall(scores, exact_scores, QUERIES, K), (double)evaluations / QUERIES};
}

/* Recall and evaluations: near keys, along a sequence, and along it from the flock before. */
static void walk_structured(size_t n, walked figures[3]) {
    enum { DIM = 64, FAN = 16 };
    float *rows = numbers(n * DIM), *queries = numbers((size_t)QUERIES * DIM);
    structured_keys(rows, n, DIM, FAN, 4);
    const dm_keys keys = keys_of(rows, n, DIM);
    dm_flock_graph *graph = build(&keys, 2);
    structured_near(queries, QUERIES, rows, n, DIM, 5);
    figures[0] = walk_all(graph, queries, false);
    structured_sequence(queries, QUERIES, rows, n, DIM, 6);
    figures[1] = walk_all(graph, queries, false);
    figures[2] = walk_all(graph, queries, true);
    for (int i = 0; i < 3; i++) {
        const char *what[3] = {"near keys", "a sequence", "a sequence, warm"};
        print_message("%6zu keys, %-16s: recall@7 %.4f, %.0f evaluations\n", n, what[i], figures[i].recall,
                      figures[i].evaluations);
        assert_true(figures[i].recall >= 0.95);
    }
    dm_flock_graph_free(graph);
    dm_free(rows);
    dm_free(queries);
}

static void walks_find_the_nearest_and_stay_short(void **state) {
    (void)state;
#ifdef __OPTIMIZE__
    const size_t large = DM_SLOW ? 16384 : 65536;
#else
    const size_t large = 16384;
#endif
    walked at_4096[3], at_large[3];
    walk_structured(4096, at_4096);
    walk_structured(large, at_large);
    for (int i = 0; i < 3; i++) {
        assert_true(at_large[i].evaluations <= 2.0 * at_4096[i].evaluations);
    }
}

static void few_keys_are_all_looked_at(void **state) {
    (void)state;
    enum { DIM = 9 };
    static float rows[64 * DIM], queries[QUERIES * DIM];
    structured_keys(rows, 64, DIM, 16, 7);
    structured_near(queries, QUERIES, rows, 64, DIM, 8);
    for (size_t n = 1; n <= 64; n++) {
        const dm_keys keys = keys_of(rows, n, DIM);
        dm_flock_graph *graph = build(&keys, 1);
        walked w = walk_all(graph, queries, n % 2 != 0);
        assert_true(w.recall == 1.0 && w.evaluations == (double)n);
        assert_memory_equal(ids, exact_ids, sizeof ids);
        dm_flock_graph_free(graph);
    }
}

static void the_graph_is_the_same_on_any_number_of_threads(void **state) {
    (void)state;
    enum { N = 3000, DIM = 16 };
    static float rows[N * DIM];
    structured_keys(rows, N, DIM, 16, 9);
    const dm_keys keys = keys_of(rows, N, DIM);
    int before_threads = dm_threads();
    dm_set_threads(4);
    dm_flock_graph *one = build(&keys, 1), *four = build(&keys, 4);
    assert_int_equal(one->levels, four->levels);
    assert_true(one->levels > 1);
    for (size_t l = 0; l + 1 < one->levels; l++) {
        assert_int_equal(one->size[l], four->size[l]);
        assert_memory_equal(one->links[l], four->links[l], one->size[l] * DM_FLOCK_LINKS * sizeof *one->links[l]);
    }
    dm_flock_graph_free(one);
    dm_flock_graph_free(four);
    dm_set_threads(before_threads);
}

/* ---- Keys that are no use ---- */

/* Links lead to other keys, each once; walks give different keys with true scores in order. */
static void check_sound(const dm_keys *keys, const float *query) {
    dm_flock_graph *graph = build(keys, 2);
    for (size_t l = 0; l + 1 < graph->levels; l++) {
        for (size_t r = 0; r < graph->size[l]; r++) {
            const int32_t *links = graph->links[l] + r * DM_FLOCK_LINKS;
            for (size_t j = 0; j < DM_FLOCK_LINKS && links[j] >= 0; j++) {
                assert_in_range(links[j], 0, keys->n - 1);
                assert_true(links[j] != graph->order[r] && (size_t)graph->rank[links[j]] < graph->size[l]);
                for (size_t i = 0; i < j; i++) {
                    assert_true(links[i] != links[j]);
                }
            }
        }
    }
    dm_flock_walker *walker;
    assert_int_equal(dm_flock_walker_create(graph, 16, &walker), DM_OK);
    const int32_t wild[5] = {-7, INT32_MAX, 0, 0, (int32_t)keys->n};
    for (size_t n_start = 0; n_start <= 5; n_start += 5) {
        dm_flock_walk(walker, query, wild, n_start, K, ids, scores);
        for (size_t j = 0; j < K && ids[j] >= 0; j++) {
            assert_in_range(ids[j], 0, keys->n - 1);
            assert_true(scores[j] == keys->dot(keys->rows + (size_t)ids[j] * keys->dim, query, keys->dim));
            assert_true(j == 0 || before(scores[j - 1], ids[j - 1], scores[j], ids[j]));
        }
    }
    dm_flock_walker_free(walker);
    dm_flock_graph_free(graph);
}

static void broken_keys_break_nothing(void **state) {
    (void)state;
    enum { N = 500, DIM = 8 };
    static float rows[N * DIM];
    float query[DIM], nan[DIM];
    for (size_t i = 0; i < DIM; i++) {
        query[i] = 1.0f + (float)i;
        nan[i] = NAN;
    }
    const float fills[] = {0.0f, 1.0f, NAN, INFINITY, -INFINITY, 1e30f, FLT_MAX, 1e-30f};
    for (size_t f = 0; f < sizeof fills / sizeof *fills; f++) {
        for (size_t share = 1; share <= 64; share *= 4) { /* all keys are such, or a part */
            structured_keys(rows, N, DIM, 16, 10);
            for (size_t e = 0; e < N; e += share) {
                for (size_t i = 0; i < DIM; i++) {
                    rows[e * DIM + i] = fills[f];
                }
            }
            for (size_t n = 1; n <= N; n = n * 5 + 1) {
                const dm_keys keys = keys_of(rows, n, DIM);
                check_sound(&keys, query);
                check_sound(&keys, nan);
            }
        }
    }
}

/* Every key twice, or many keys in few places: the nearest are found all the same. */
static void copies_do_not_hide_the_others(void **state) {
    (void)state;
    enum { N = 2048, DIM = 24 };
    static float rows[N * DIM], queries[QUERIES * DIM];
    for (size_t copies = 2; copies <= 128; copies *= 8) {
        structured_keys(rows, N / copies, DIM, 16, 11);
        for (size_t i = N / copies * DIM; i < (size_t)N * DIM; i++) {
            rows[i] = rows[i - N / copies * DIM];
        }
        structured_near(queries, QUERIES, rows, N, DIM, 12);
        const dm_keys keys = keys_of(rows, N, DIM);
        dm_flock_graph *graph = build(&keys, 2);
        walked w = walk_all(graph, queries, false);
        print_message("%3zu copies: recall@7 %.4f, %.0f evaluations\n", copies, w.recall, w.evaluations);
        assert_true(w.recall >= 0.95);
        dm_flock_graph_free(graph);
    }
}

static void senseless_graphs_are_refused(void **state) {
    (void)state;
    const float rows[2] = {1, 2};
    dm_flock_graph *graph;
    const dm_keys none = keys_of(rows, 0, 1), flat = keys_of(rows, 2, 0), fine = keys_of(rows, 2, 1);
    assert_int_equal(dm_flock_graph_build(&none, 1, 1, &graph), DM_ERR_ARGUMENT);
    assert_int_equal(dm_flock_graph_build(&flat, 1, 1, &graph), DM_ERR_ARGUMENT);
    assert_int_equal(dm_flock_graph_build(&fine, 1, 0, &graph), DM_ERR_ARGUMENT);
    assert_null(graph);
    static float many[1000];
    const dm_keys stopped = keys_of(many, 1000, 1);
    dm_interrupt();
    assert_int_equal(dm_flock_graph_build(&stopped, 1, 1, &graph), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
    assert_null(graph);
    dm_flock_graph_free(NULL);
    dm_flock_walker_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scans_find_what_sorting_finds),
        cmocka_unit_test(earlier_tokens_alone_are_neighbours),
        cmocka_unit_test(recall_counts_what_scores_as_well),
        cmocka_unit_test(alignment_is_the_cosine_to_the_mean),
        cmocka_unit_test(walks_find_the_nearest_and_stay_short),
        cmocka_unit_test(few_keys_are_all_looked_at),
        cmocka_unit_test(the_graph_is_the_same_on_any_number_of_threads),
        cmocka_unit_test(broken_keys_break_nothing),
        cmocka_unit_test(copies_do_not_hide_the_others),
        cmocka_unit_test(senseless_graphs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
