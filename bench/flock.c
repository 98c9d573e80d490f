/*
 * Finding the nearest experts of tokens: the exact scan beside the graph of keys, from 8 to 65,536 experts, one thread. Keys
 * are a mixture of mixtures of Gaussians, queries a sequence that drifts from key to key, so that the flock of the token
 * before is a start. Then what the whole decision of dm_swarm_decide() costs, flock, game and gates, two experts a token, by
 * the scan and by the graph (with a beam of its own). Usage: dm-bench-flock [--json] [DIM [MOST-EXPERTS [BEAM]]]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    double decide_us[2], agreement; /* of a token, by the scan and by the graph; the share of experts that they agree on */
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

/* ---- The whole decision ---- */

enum { TOP_K = 2, ROUNDS = 3 };

/* The best of a few calls, which is also after the graph was built. */
static dm_status decide(dm_swarm *swarm, const float *queries, const dm_swarm_options *options, int32_t *experts, double *us) {
    static float gates[QUERIES * TOP_K];
    for (int round = 0; round < ROUNDS; round++) {
        double start = dm_seconds();
        DM_TRY(dm_swarm_decide(swarm, queries, QUERIES, options, experts, gates, NULL));
        double taken = microseconds(start, QUERIES);
        *us = round == 0 || taken < *us ? taken : *us;
    }
    return DM_OK;
}

static double agreement(const int32_t *experts, const int32_t *others) {
    size_t same = 0;
    for (size_t i = 0; i < QUERIES * TOP_K; i++) {
        const int32_t *row = others + i / TOP_K * TOP_K;
        same += experts[i] == row[0] || experts[i] == row[1];
    }
    return (double)same / (QUERIES * TOP_K);
}

static dm_status measure_decision(const dm_keys *keys, const float *queries, figures *f) {
    static int32_t experts[2][QUERIES * TOP_K];
    dm_swarm *swarm;
    dm_swarm_options options = dm_swarm_default(TOP_K);
    options.beta = 0.02;
    DM_TRY(dm_swarm_create(keys->rows, (int32_t)keys->n, (int32_t)keys->dim, &swarm));
    options.search = DM_SWARM_EXACT;
    dm_status status = decide(swarm, queries, &options, experts[0], &f->decide_us[0]);
    if (status == DM_OK) {
        options.search = DM_SWARM_GRAPH;
        status = decide(swarm, queries, &options, experts[1], &f->decide_us[1]);
    }
    f->agreement = agreement(experts[0], experts[1]);
    dm_swarm_free(swarm);
    return status;
}

/* ---- Output ---- */

static void print_head(size_t dim, size_t beam) {
    printf("keys of %zu numbers, %d nearest, beam %zu, one thread; microseconds a token\n", dim, K, beam);
    printf("%8s | %8s %8s | %8s %7s %7s | %8s %7s %7s | %8s | %8s %8s %7s\n", "", "scan", "scan", "walk", "", "evalua-", "walk",
           "", "evalua-", "build,", "decision", "decision", "agree-");
    printf("%8s | %8s %8s | %8s %7s %7s | %8s %7s %7s | %8s | %8s %8s %7s\n", "experts", "of many", "of one", "cold", "recall",
           "tions", "warm", "recall", "tions", "seconds", "scanned", "walked", "ment");
}

static void print_line(size_t n, const figures *f) {
    printf("%8zu | %8.2f %8.2f | %8.2f %7.4f %7.0f | %8.2f %7.4f %7.0f | %8.2f | %8.2f %8.2f %7.4f\n", n, f->exact_us, f->one_us,
           f->cold_us, f->cold_recall, f->cold_evaluations, f->warm_us, f->warm_recall, f->warm_evaluations, f->build_s,
           f->decide_us[0], f->decide_us[1], f->agreement);
}

/* An object a line. */
static void print_json(size_t dim, size_t n, const figures *f) {
    printf("{\"dim\": %zu, \"experts\": %zu, \"scan_us\": %.3f, \"scan_one_us\": %.3f, ", dim, n, f->exact_us, f->one_us);
    printf("\"cold_us\": %.3f, \"cold_recall\": %.5f, \"cold_evaluations\": %.1f, ", f->cold_us, f->cold_recall,
           f->cold_evaluations);
    printf("\"warm_us\": %.3f, \"warm_recall\": %.5f, \"warm_evaluations\": %.1f, \"build_s\": %.3f, ", f->warm_us,
           f->warm_recall, f->warm_evaluations, f->build_s);
    printf("\"decide_scan_us\": %.3f, \"decide_graph_us\": %.3f, \"agreement\": %.5f}\n", f->decide_us[0], f->decide_us[1],
           f->agreement);
}

/* Where the walk wins from there on, between two numbers of experts that were tried. */
typedef struct crossing {
    size_t below, above;
} crossing;

static void note_crossing(crossing *c, size_t n, bool walk_wins) {
    if (!walk_wins) {
        *c = (crossing){.below = n};
    } else if (c->above == 0) {
        c->above = n;
    }
}

static dm_status bench(size_t dim, size_t most, size_t beam, bool json) {
    float *rows = dm_alloc(most * dim, sizeof *rows), *queries = dm_alloc(QUERIES * dim, sizeof *queries);
    dm_status status = rows != NULL && queries != NULL ? DM_OK : DM_ERR_MEMORY;
    crossing found = {0};
    if (!json) {
        print_head(dim, beam);
    }
    for (size_t n = 8; n <= most && status == DM_OK; n *= n < 4096 ? 2 : 4) {
        figures f = {0};
        const dm_keys keys = {.rows = rows, .n = n, .dim = dim, .dot = dm_vector()->dot};
        structured_keys(rows, n, dim, FAN, 1);
        structured_sequence(queries, QUERIES, rows, n, dim, 2);
        status = measure(&keys, queries, beam, &f);
        status = status == DM_OK ? measure_decision(&keys, queries, &f) : status;
        json ? print_json(dim, n, &f) : print_line(n, &f);
        note_crossing(&found, n, f.decide_us[1] < f.decide_us[0]);
        fflush(stdout);
    }
    if (!json && found.above > 0) {
        printf("the walked decision costs less from somewhere between %zu and %zu experts on\n", found.below, found.above);
    }
    dm_free(rows);
    dm_free(queries);
    return status;
}

int main(int argc, char **argv) {
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    argc -= json;
    argv += json;
    long dim = argc > 1 ? atol(argv[1]) : 1024, most = argc > 2 ? atol(argv[2]) : 65536, beam = argc > 3 ? atol(argv[3]) : 64;
    if (dim < 1 || dim > 1 << 16 || most < 8 || most > 1 << 20 || beam < K || beam > 1 << 16) {
        fprintf(stderr, "usage: dm-bench-flock [--json] [DIM [MOST-EXPERTS [BEAM]]], BEAM at least %d\n", K);
        return 2;
    }
    dm_set_threads(1);
    if (bench((size_t)dim, (size_t)most, (size_t)beam, json) != DM_OK) {
        fprintf(stderr, "dm-bench-flock: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
