/*
 * The flock: the k nearest by inner product, whatever the distance. Starlings follow about seven neighbours however far
 * those are (Ballerini et al. 2008); here a token looks at the experts whose keys (rows of the router's matrix) it scores
 * highest, and at the tokens before it that are most like it. Scores that are not finite are never near. Of equal scores the
 * lower row comes first.
 */
#ifndef DM_CORE_FLOCK_H
#define DM_CORE_FLOCK_H

#include <stddef.h>
#include <stdint.h>

/* The sum of a[i] b[i]. */
typedef float (*dm_dot_fn)(const float *a, const float *b, size_t n);

typedef struct dm_keys {
    const float *rows; /* [n, dim] */
    size_t n, dim;     /* n at most INT32_MAX */
    dm_dot_fn dot;     /* always the same answer to the same rows, from any thread */
} dm_keys;

/*
 * Scans all keys for each of queries [n, dim]. ids [n, k] receives the k nearest keys, best first, -1 after the last where
 * there are fewer; scores [n, k] their inner products, -INFINITY after the last. Blocks of keys stay in the second-level cache
 * while several queries pass by. Up to `threads` threads share the queries; results do not depend on that.
 */
void dm_flock_exact(const dm_keys *keys, const float *queries, size_t n, size_t k, int threads, int32_t *ids, float *scores);

/* scores [n, keys->n]: the inner products of all keys with each of queries [n, dim]. */
void dm_flock_scores(const dm_keys *keys, const float *queries, size_t n, int threads, float *scores);

/* As dm_flock_exact() for the rows of one sequence, each among the rows before it: ids, scores [tokens->n, k]. */
void dm_flock_earlier(const dm_keys *tokens, size_t k, int threads, int32_t *ids, float *scores);

/* How many of found [n, k] score no less than the k-th of exact [n, k], over n * k: recall@k, which equal scores do not
 * disturb. Missing entries are -INFINITY; where exact has fewer than k, so many are asked for. 1 where nothing is. */
double dm_flock_recall(const float *found, const float *exact, size_t n, size_t k);

/*
 * Alignment (Reynolds 1987): the cosine between what token t does and the mean of what its neighbours do. p [n, n_experts]
 * router distributions with rows `stride` apart; neighbours [n, k] rows of p, -1 for none, such as dm_flock_earlier() finds.
 * alignment [n] is 0 to 1 for distributions; 1 for a token without neighbours, which nothing pulls; 0 where a row is zero.
 */
void dm_flock_alignment(const float *p, size_t stride, size_t n, size_t n_experts, const int32_t *neighbours, size_t k,
                        float *alignment);

#endif
