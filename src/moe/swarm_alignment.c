/*
 * Alignment (Reynolds 1987) where there are too many experts for rows of router distributions: a token's and its neighbours'
 * flocks have few experts together, which are given columns of a small matrix.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/vector.h"
#include "moe/swarm_flocks.h"

enum { NEAREST = 7 };

typedef struct together {
    const dm_nash_router *router;
    size_t flock;
    int32_t *columns;   /* [experts] of the matrix; -1: has none */
    size_t n_columns;   /* in use */
    float *p;           /* [1 + NEAREST, stride] distributions: a token's own, then its neighbours' */
    size_t stride;      /* (1 + NEAREST) flocks */
    float *probability; /* [flock] */
} together;

/* Row `row` of p = softmax of a token's affinities over its flock. */
static void put_row(together *it, size_t row, size_t token) {
    const int32_t *experts = dm_nash_router_candidates(it->router, token);
    const float *affinities = dm_nash_router_affinities(it->router, token);
    size_t n = 0;
    while (n < it->flock && affinities[n] > -INFINITY) {
        it->probability[n] = affinities[n];
        n++;
    }
    if (n > 0) {
        dm_vector()->softmax(it->probability, n);
    }
    for (size_t j = 0; j < n; j++) {
        int32_t *column = &it->columns[experts[j]];
        *column = *column >= 0 ? *column : (int32_t)it->n_columns++;
        it->p[row * it->stride + (size_t)*column] = it->probability[j];
    }
}

static void forget(together *it, size_t token) {
    const int32_t *experts = dm_nash_router_candidates(it->router, token);
    for (size_t j = 0; j < it->flock; j++) {
        it->columns[experts[j]] = -1;
    }
}

static double alignment_of(together *it, size_t token, const int32_t *earlier) {
    int32_t rows[NEAREST];
    float alignment;
    it->n_columns = 0;
    memset(it->p, 0, (1 + NEAREST) * it->stride * sizeof *it->p);
    put_row(it, 0, token);
    for (int32_t i = 0; i < NEAREST; i++) {
        rows[i] = earlier[i] >= 0 ? i + 1 : -1;
        if (earlier[i] >= 0) {
            put_row(it, (size_t)i + 1, (size_t)earlier[i]);
        }
    }
    dm_flock_alignment(it->p, it->stride, 1, it->n_columns, rows, NEAREST, &alignment);
    forget(it, token);
    for (int32_t i = 0; i < NEAREST && earlier[i] >= 0; i++) {
        forget(it, (size_t)earlier[i]);
    }
    return (double)alignment;
}

dm_status dm_swarm_alignment(const dm_swarm *swarm, const dm_swarm_query *query, const dm_nash_router *router,
                             double *alignment) {
    size_t n = query->n, stride = (1 + NEAREST) * query->flock;
    const dm_keys tokens = {.rows = query->tokens, .n = n, .dim = swarm->keys.dim, .dot = swarm->keys.dot};
    together it = {.router = router, .flock = query->flock, .stride = stride};
    int32_t *earlier = dm_alloc(n, NEAREST * sizeof *earlier);
    float *scores = dm_alloc(n, NEAREST * sizeof *scores);
    it.columns = dm_alloc(swarm->keys.n, sizeof *it.columns);
    it.p = dm_alloc(stride, (1 + NEAREST) * sizeof *it.p);
    it.probability = dm_alloc(query->flock, sizeof *it.probability);
    bool have = earlier != NULL && scores != NULL && it.columns != NULL && it.p != NULL && it.probability != NULL;
    if (have) {
        memset(it.columns, -1, swarm->keys.n * sizeof *it.columns);
        dm_flock_earlier(&tokens, NEAREST, dm_threads(), earlier, scores);
        double sum = 0.0;
        for (size_t token = 0; token < n; token++) {
            sum += alignment_of(&it, token, earlier + token * NEAREST);
        }
        *alignment = sum / (double)n;
    }
    dm_free(earlier);
    dm_free(scores);
    dm_free(it.columns);
    dm_free(it.p);
    dm_free(it.probability);
    return have ? DM_OK : DM_ERR_MEMORY;
}
