/* Walking a graph of keys (core/flock_graph.h) and its inside, for those who build it. */
#ifndef DM_CORE_FLOCK_WALK_H
#define DM_CORE_FLOCK_WALK_H

#include "core/flock_graph.h"

typedef struct dm_flock_found {
    float score;
    int32_t id;
    bool expanded;
} dm_flock_found;

struct dm_flock_walker {
    const dm_flock_graph *graph;
    dm_flock_found *pool; /* [beam] best first */
    size_t beam, count;
    uint32_t *seen; /* [n] number of the walk that saw the key last */
    uint32_t walk;
    size_t evaluations; /* of this walk */
};

/* Fills the pool: from start[n_start] and the last level down to `level`. */
void dm_flock_search(dm_flock_walker *walker, size_t level, const float *query, const int32_t *start, size_t n_start);

#endif
