#include "moe/swarm_flocks.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/vector.h"

enum {
    SCORES = 1 << 22,  /* of a block of tokens, 16 MB; more where one token has more */
    OFFER_COST = 4,    /* of looking at an expert's affinity, in multiplications */
    SEGMENT = 64,      /* tokens that are walked one after another, each from the flock before it; fixed, so that results do
                        * not depend on the threads */
    LEAST_BEAM = 64,   /* recall@7 0.97 at 65,536 experts (docs/theory.md) */
    BEAM_OF_FLOCK = 4, /* times the flock */
    SEED = 1,
};

/* ---- The scan ---- */

typedef struct scanned {
    const dm_swarm_query *query;
    dm_nash_router *router;
    size_t first, experts; /* token of the block */
    const float *scores;   /* [block, experts] */
} scanned;

static void offer_body(void *user, size_t begin, size_t end, int thread) {
    const scanned *it = user;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        dm_nash_router_offer(it->router, it->first + t, NULL, it->scores + t * it->experts, it->experts, it->query->off);
    }
}

/* Tokens begin .. end - 1. */
static void scan(const dm_swarm *swarm, const dm_swarm_query *query, dm_nash_router *router, size_t begin, size_t end,
                 float *scores, size_t block) {
    const dm_keys *keys = &swarm->keys;
    for (size_t first = begin; first < end; first += block) {
        size_t n = end - first < block ? end - first : block;
        scanned it = {query, router, first, keys->n, scores};
        dm_flock_scores(keys, query->tokens + first * keys->dim, n, dm_threads(), scores);
        dm_parallel(dm_threads(), n, dm_parallel_grain(OFFER_COST * keys->n), offer_body, &it);
    }
}

dm_status dm_swarm_scan(const dm_swarm *swarm, const dm_swarm_query *query, dm_nash_router *router, size_t *evaluations) {
    size_t experts = swarm->keys.n, block = experts < SCORES ? SCORES / experts : 1;
    block = block < query->n ? block : query->n;
    float *scores = dm_alloc(block * experts, sizeof *scores);
    if (scores == NULL) {
        return DM_ERR_MEMORY;
    }
    scan(swarm, query, router, 0, query->n, scores, block);
    dm_free(scores);
    *evaluations = query->n * experts;
    return DM_OK;
}

/* ---- The walk ---- */

static void free_walkers(dm_swarm *swarm) {
    for (int i = 0; i < swarm->n_walkers; i++) {
        dm_flock_walker_free(swarm->walkers[i]);
    }
    dm_free(swarm->walkers);
    swarm->walkers = NULL;
    swarm->n_walkers = 0;
}

/* The graph, and for each thread a walker with a beam for such flocks. */
static dm_status prepare(dm_swarm *swarm, size_t flock) {
    size_t beam = flock > LEAST_BEAM / BEAM_OF_FLOCK ? flock * BEAM_OF_FLOCK : LEAST_BEAM;
    int threads = dm_threads();
    if (swarm->graph == NULL) {
        DM_TRY(dm_flock_graph_build(&swarm->keys, SEED, threads, &swarm->graph));
    }
    if (swarm->n_walkers >= threads && swarm->beam == beam) {
        return DM_OK;
    }
    free_walkers(swarm);
    swarm->walkers = dm_alloc((size_t)threads, sizeof(dm_flock_walker *));
    if (swarm->walkers == NULL) {
        return DM_ERR_MEMORY;
    }
    swarm->beam = beam;
    for (; swarm->n_walkers < threads; swarm->n_walkers++) {
        DM_TRY(dm_flock_walker_create(swarm->graph, beam, &swarm->walkers[swarm->n_walkers]));
    }
    return DM_OK;
}

typedef struct walked {
    const dm_swarm *swarm;
    const dm_swarm_query *query;
    dm_nash_router *router;
    int32_t *ids;  /* [threads, beam] */
    float *scores; /* [threads, beam] */
    size_t evaluations;
} walked;

/* The experts of a flock that may be chosen. */
static size_t able(const dm_nash_router *router, size_t flock, size_t token) {
    const float *affinities = dm_nash_router_affinities(router, token);
    size_t n = 0;
    while (n < flock && affinities[n] > -INFINITY) {
        n++;
    }
    return n;
}

static size_t walk_token(const walked *it, size_t token, int thread) {
    const dm_swarm *swarm = it->swarm;
    size_t beam = swarm->beam, n_start = token == 0 && it->query->goes_on ? swarm->n_before : 0, n = 0;
    const int32_t *start = swarm->before;
    int32_t *ids = it->ids + (size_t)thread * beam;
    float *scores = it->scores + (size_t)thread * beam;
    if (token % SEGMENT > 0) {
        start = dm_nash_router_candidates(it->router, token - 1);
        n_start = able(it->router, it->query->flock, token - 1);
    }
    size_t evaluations =
        dm_flock_walk(swarm->walkers[thread], it->query->tokens + token * swarm->keys.dim, start, n_start, beam, ids, scores);
    while (n < beam && ids[n] >= 0) {
        n++;
    }
    dm_nash_router_offer(it->router, token, ids, scores, n, it->query->off);
    return evaluations;
}

static void walk_body(void *user, size_t begin, size_t end, int thread) {
    walked *it = user;
    size_t evaluations = 0, last = end * SEGMENT < it->query->n ? end * SEGMENT : it->query->n;
    for (size_t token = begin * SEGMENT; token < last; token++) {
        evaluations += walk_token(it, token, thread);
    }
    __atomic_fetch_add(&it->evaluations, evaluations, __ATOMIC_RELAXED);
}

/* Tokens whose walk found too few experts that may be chosen are scanned; `scores` is of one token. */
static void scan_poor(const walked *it, float *scores, size_t *evaluations) {
    for (size_t token = 0; token < it->query->n; token++) {
        if (able(it->router, it->query->flock, token) < it->query->least) {
            scan(it->swarm, it->query, it->router, token, token + 1, scores, 1);
            *evaluations += it->swarm->keys.n;
        }
    }
}

dm_status dm_swarm_walk(dm_swarm *swarm, const dm_swarm_query *query, dm_nash_router *router, size_t *evaluations) {
    DM_TRY(prepare(swarm, query->flock));
    size_t threads = (size_t)swarm->n_walkers, segments = (query->n + SEGMENT - 1) / SEGMENT;
    walked it = {.swarm = swarm, .query = query, .router = router};
    it.ids = dm_alloc(threads * swarm->beam, sizeof *it.ids);
    it.scores = dm_alloc(threads * swarm->beam, sizeof *it.scores);
    float *scores = dm_alloc(swarm->keys.n, sizeof *scores);
    dm_status status = it.ids != NULL && it.scores != NULL && scores != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        dm_parallel((int)threads, segments, 1, walk_body, &it);
        *evaluations = it.evaluations;
        scan_poor(&it, scores, evaluations);
    }
    dm_free(it.ids);
    dm_free(it.scores);
    dm_free(scores);
    return status;
}

void dm_swarm_remember(dm_swarm *swarm, const dm_nash_router *router, size_t flock, size_t last) {
    swarm->n_before = able(router, flock, last);
    memcpy(swarm->before, dm_nash_router_candidates(router, last), swarm->n_before * sizeof *swarm->before);
}

/* ---- Memory ---- */

dm_status dm_swarm_create(const float *keys, int32_t experts, int32_t dim, dm_swarm **out) {
    if (out == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "a swarm needs a place to be put");
    }
    *out = NULL;
    if (keys == NULL || experts < 1 || dim < 1) {
        return dm_fail(DM_ERR_ARGUMENT, "a swarm of %d experts with keys of %d numbers: expected keys, and 1 or more of both",
                       experts, dim);
    }
    size_t n = (size_t)experts * (size_t)dim;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(keys[i])) {
            return dm_fail(DM_ERR_ARGUMENT, "number %zu of the key of expert %zu is not finite", i % (size_t)dim,
                           i / (size_t)dim);
        }
    }
    dm_swarm *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    it->rows = dm_alloc(n, sizeof *it->rows);
    it->before = dm_alloc((size_t)experts, sizeof *it->before);
    if (it->rows == NULL || it->before == NULL) {
        dm_swarm_free(it);
        return DM_ERR_MEMORY;
    }
    memcpy(it->rows, keys, n * sizeof *keys);
    it->keys = (dm_keys){.rows = it->rows, .n = (size_t)experts, .dim = (size_t)dim, .dot = dm_vector()->dot};
    *out = it;
    return DM_OK;
}

void dm_swarm_free(dm_swarm *swarm) {
    if (swarm != NULL) {
        free_walkers(swarm);
        dm_flock_graph_free(swarm->graph);
        dm_free(swarm->rows);
        dm_free(swarm->before);
        dm_free(swarm);
    }
}
