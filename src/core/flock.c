#include "core/flock.h"

#include <math.h>
#include <stdbool.h>

#include "base/parallel.h"

enum {
    KEY_BLOCK = 32,   /* keys that stay in cache while queries pass by: 128 KiB at 1024 numbers each */
    QUERY_BLOCK = 64, /* at most; one thread's share otherwise */
};

typedef struct scan {
    const dm_keys *keys;
    const float *queries; /* [n, dim] */
    size_t k;             /* 0: all keys' scores are wanted */
    bool earlier;         /* only keys of lower rows than the query's */
    int32_t *ids;
    float *scores;
} scan;

/* Keys come in ascending order, so that of equal scores the lower is in front. */
static void keep(int32_t *ids, float *scores, size_t k, int32_t id, float score) {
    if (!(score > scores[k - 1]) || !isfinite(score)) {
        return;
    }
    size_t at = k - 1;
    for (; at > 0 && score > scores[at - 1]; at--) {
        ids[at] = ids[at - 1];
        scores[at] = scores[at - 1];
    }
    ids[at] = id;
    scores[at] = score;
}

static void scan_queries(void *user, size_t begin, size_t end, int thread) {
    (void)thread;
    const scan *s = user;
    const dm_keys *keys = s->keys;
    for (size_t i = begin * s->k; i < end * s->k; i++) {
        s->ids[i] = -1;
        s->scores[i] = -INFINITY;
    }
    for (size_t first = 0; first < keys->n; first += KEY_BLOCK) {
        size_t last = keys->n - first < KEY_BLOCK ? keys->n : first + KEY_BLOCK;
        for (size_t q = begin; q < end; q++) {
            const float *query = s->queries + q * keys->dim;
            size_t stop = s->earlier && q < last ? q : last;
            for (size_t e = first; e < stop; e++) {
                float score = keys->dot(keys->rows + e * keys->dim, query, keys->dim);
                if (s->k == 0) {
                    s->scores[q * keys->n + e] = score;
                } else {
                    keep(s->ids + q * s->k, s->scores + q * s->k, s->k, (int32_t)e, score);
                }
            }
        }
    }
}

static void run_scan(const scan *s, size_t n, int threads) {
    size_t share = n / (size_t)(threads > 0 ? threads : 1) + 1;
    size_t grain = dm_parallel_grain(s->keys->n * s->keys->dim);
    share = share < QUERY_BLOCK ? share : QUERY_BLOCK;
    dm_parallel(threads, n, share > grain ? share : grain, scan_queries, (void *)s);
}

void dm_flock_exact(const dm_keys *keys, const float *queries, size_t n, size_t k, int threads, int32_t *ids, float *scores) {
    const scan s = {.keys = keys, .queries = queries, .k = k, .ids = ids, .scores = scores};
    if (k > 0) {
        run_scan(&s, n, threads);
    }
}

void dm_flock_scores(const dm_keys *keys, const float *queries, size_t n, int threads, float *scores) {
    const scan s = {.keys = keys, .queries = queries, .scores = scores};
    run_scan(&s, n, threads);
}

void dm_flock_earlier(const dm_keys *tokens, size_t k, int threads, int32_t *ids, float *scores) {
    const scan s = {.keys = tokens, .queries = tokens->rows, .k = k, .earlier = true, .ids = ids, .scores = scores};
    if (k > 0) {
        run_scan(&s, tokens->n, threads);
    }
}

double dm_flock_recall(const float *found, const float *exact, size_t n, size_t k) {
    size_t asked = 0, had = 0;
    for (size_t q = 0; q < n; q++) {
        const float *mine = found + q * k, *best = exact + q * k;
        size_t wanted = 0;
        while (wanted < k && best[wanted] > -INFINITY) {
            wanted++;
        }
        for (size_t j = 0; j < wanted; j++) {
            had += mine[j] >= best[wanted - 1];
        }
        asked += wanted;
    }
    return asked > 0 ? (double)had / (double)asked : 1.0;
}

void dm_flock_alignment(const float *p, size_t stride, size_t n, size_t n_experts, const int32_t *neighbours, size_t k,
                        float *alignment) {
    for (size_t t = 0; t < n; t++) {
        const float *mine = p + t * stride;
        const int32_t *near = neighbours + t * k;
        double dot = 0.0, mine2 = 0.0, mean2 = 0.0;
        size_t count = 0;
        for (size_t j = 0; j < k; j++) {
            count += near[j] >= 0;
        }
        for (size_t e = 0; e < n_experts; e++) {
            double mean = 0.0; /* times the count, which a cosine does not see */
            for (size_t j = 0; j < k; j++) {
                mean += near[j] >= 0 ? (double)p[(size_t)near[j] * stride + e] : 0.0;
            }
            dot += mean * (double)mine[e];
            mine2 += (double)mine[e] * (double)mine[e];
            mean2 += mean * mean;
        }
        double norms = sqrt(mine2) * sqrt(mean2);
        double cosine = norms > 0.0 ? dot / norms : 0.0;
        alignment[t] = count == 0 ? 1.0f : (float)fmin(fmax(cosine, -1.0), 1.0);
    }
}
