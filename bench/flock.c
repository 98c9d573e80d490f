/*
 * Finding the nearest experts of tokens: the exact scan beside the graph of keys, from 8 to 65,536 experts, one thread. Keys
 * are a mixture of mixtures of Gaussians, queries a sequence that drifts from key to key, so that the flock of the token
 * before is a start. Usage: dm-bench-flock [DIM [MOST-EXPERTS [BEAM]]]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"
#include "core/flock_graph.h"
#include "kernels/vector.h"
#include "structured_keys.h"

enum { K = 7, QUERIES = 512, ONE = 16, FAN = 16 };

typedef struct figures {
    double exact_us, one_us; /* of a token, among many and alone */
    double cold_us, warm_us; /* of a token, from the graph's entries and from the flock before */
    double cold_recall, warm_recall, cold_evaluations, warm_evaluations;
    double build_s;
} figures;

static int32_t exact_ids[QUERIES * K], ids[QUERIES * K];
static float exact_scores[QUERIES * K], scores[QUERIES * K];

static double microseconds(double start, size_t tokens) {
    return (dm_seconds() - start) * 1e6 / (double)tokens;
}

static double walk_all(dm_flock_walker *walker, const float *queries, size_t dim, bool warm, double *evaluations) {
    size_t sum = 0;
    double start = dm_seconds();
    for (size_t q = 0; q < QUERIES; q++) {
        const int32_t *before = ids + (q - 1) * K;
        bool from = warm && q > 0;
        sum += dm_flock_walk(walker, queries + q * dim, from ? before : NULL, from ? K : 0, K, ids + q * K, scores + q * K);
    }
    *evaluations = (double)sum / QUERIES;
    return microseconds(start, QUERIES);
}

static dm_status measure(const dm_keys *keys, const float *queries, size_t beam, figures *f) {
    dm_flock_graph *graph;
    dm_flock_walker *walker;
    double start = dm_seconds();
    DM_TRY(dm_flock_graph_build(keys, 1, dm_threads(), &graph));
    f->build_s = dm_seconds() - start;
    dm_status status = dm_flock_walker_create(graph, beam, &walker);
    if (status != DM_OK) {
        dm_flock_graph_free(graph);
        return status;
    }
    start = dm_seconds();
    dm_flock_exact(keys, queries, QUERIES, K, 1, exact_ids, exact_scores);
    f->exact_us = microseconds(start, QUERIES);
    start = dm_seconds();
    for (size_t q = 0; q < ONE; q++) {
        dm_flock_exact(keys, queries + q * keys->dim, 1, K, 1, ids, scores);
    }
    f->one_us = microseconds(start, ONE);
    f->cold_us = walk_all(walker, queries, keys->dim, false, &f->cold_evaluations);
    f->cold_recall = dm_flock_recall(scores, exact_scores, QUERIES, K);
    f->warm_us = walk_all(walker, queries, keys->dim, true, &f->warm_evaluations);
    f->warm_recall = dm_flock_recall(scores, exact_scores, QUERIES, K);
    dm_flock_walker_free(walker);
    dm_flock_graph_free(graph);
    return DM_OK;
}

static dm_status bench(size_t dim, size_t most, size_t beam) {
    float *rows = dm_alloc(most * dim, sizeof *rows), *queries = dm_alloc(QUERIES * dim, sizeof *queries);
    dm_status status = rows != NULL && queries != NULL ? DM_OK : DM_ERR_MEMORY;
    printf("keys of %zu numbers, %d nearest, beam %zu, one thread but for building; microseconds a token\n", dim, K, beam);
    printf("%8s | %8s %8s | %8s %7s %7s | %8s %7s %7s | %8s\n", "", "scan", "scan", "walk", "", "evalua-", "walk", "", "evalua-",
           "build,");
    printf("%8s | %8s %8s | %8s %7s %7s | %8s %7s %7s | %8s\n", "experts", "of many", "of one", "cold", "recall", "tions", "warm",
           "recall", "tions", "seconds");
    for (size_t n = 8; n <= most && status == DM_OK; n *= n < 256 ? 2 : 4) {
        figures f = {0};
        const dm_keys keys = {.rows = rows, .n = n, .dim = dim, .dot = dm_vector()->dot};
        structured_keys(rows, n, dim, FAN, 1);
        structured_sequence(queries, QUERIES, rows, n, dim, 2);
        status = measure(&keys, queries, beam, &f);
        printf("%8zu | %8.2f %8.2f | %8.2f %7.4f %7.0f | %8.2f %7.4f %7.0f | %8.2f\n", n, f.exact_us, f.one_us, f.cold_us,
               f.cold_recall, f.cold_evaluations, f.warm_us, f.warm_recall, f.warm_evaluations, f.build_s);
        fflush(stdout);
    }
    dm_free(rows);
    dm_free(queries);
    return status;
}

int main(int argc, char **argv) {
    long dim = argc > 1 ? atol(argv[1]) : 1024, most = argc > 2 ? atol(argv[2]) : 65536, beam = argc > 3 ? atol(argv[3]) : 64;
    if (dim < 1 || dim > 1 << 16 || most < 8 || most > 1 << 20 || beam < K || beam > 1 << 16) {
        fprintf(stderr, "usage: dm-bench-flock [DIM [MOST-EXPERTS [BEAM]]], BEAM at least %d\n", K);
        return 2;
    }
    if (bench((size_t)dim, (size_t)most, (size_t)beam) != DM_OK) {
        fprintf(stderr, "dm-bench-flock: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
