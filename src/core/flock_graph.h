/*
 * A graph of keys in which the nearest to a query by inner product are found by walking, for so many experts that scanning
 * all of them costs more.
 *
 * Each key has its 7 nearest and up to 9 links beyond them, kept for direction rather than nearness: of links on one side the
 * nearest is enough (the occlusion rule of Malkov and Yashunin 2018, Vamana and others). Keys are linked in random order,
 * each to what walking the graph of those before it finds. The long links are levels, as in HNSW: the first sixteenth of the
 * keys in that order has such a graph of its own, and so has a sixteenth of those, until so few are left that a walk looks at
 * all. Near, between keys too, means a large inner product (ip-NSW, Morozov and Babenko 2018): distances after adding a
 * coordinate that gives all keys one norm, which is the other way, found less here, as they put short keys in the middle.
 * Whatever is cut from crowded keys, a tree of links stays in each level, so that every key can be reached.
 *
 * A walk keeps the `beam` best keys seen, expands the best one not yet expanded, and goes down a level when none of its first
 * few is left. It finds what is near most of the time: dm_flock_recall() tells how often.
 */
#ifndef DM_CORE_FLOCK_GRAPH_H
#define DM_CORE_FLOCK_GRAPH_H

#include "base/status.h"
#include "core/flock.h"

enum {
    DM_FLOCK_NEAREST = 7,
    DM_FLOCK_LINKS = 16, /* of a key in a level: its nearest and those beyond */
    DM_FLOCK_LEVELS = 8  /* at most: sixteen to this power is more than there can be */
};

typedef struct dm_flock_graph {
    dm_keys keys;
    int32_t *order;                  /* [size[0]] the keys, shuffled; level l has the first size[l] of them */
    int32_t *rank;                   /* [n] where in it each key is; -1: a key whose norm is no finite float, which is left out */
    size_t size[DM_FLOCK_LEVELS];    /* the last level has no links: walks begin with all of it */
    int32_t *links[DM_FLOCK_LEVELS]; /* [size[l], DM_FLOCK_LINKS] by rank: keys, nearest first, -1 after the last */
    size_t levels;
} dm_flock_graph;

/* keys->rows must outlive the graph. *out is the caller's to free. The same keys and seed give the same graph on any number
 * of threads. */
dm_status dm_flock_graph_build(const dm_keys *keys, uint64_t seed, int threads, dm_flock_graph **out);
void dm_flock_graph_free(dm_flock_graph *graph);

/* What one thread needs for walking. */
typedef struct dm_flock_walker dm_flock_walker;

/* `beam` is 1 or more; the graph must outlive the walker. */
dm_status dm_flock_walker_create(const dm_flock_graph *graph, size_t beam, dm_flock_walker **out);
void dm_flock_walker_free(dm_flock_walker *walker);

/* The k nearest found, k <= beam, as dm_flock_exact() gives them. start[n_start], such as the flock of the token before, may
 * be empty; with it the way down from the first level, which guards against jumps, is a narrower one. Ids outside the keys are
 * passed over. Returns the inner products that it took. */
size_t dm_flock_walk(dm_flock_walker *walker, const float *query, const int32_t *start, size_t n_start, size_t k, int32_t *ids,
                     float *scores);

#endif
