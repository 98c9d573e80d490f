#include "core/flock_walk.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

/* How many of the pool's best are expanded on the way down. */
enum { WIDTH = 32, WIDTH_WITH_START = 16 };

void dm_flock_walker_free(dm_flock_walker *walker) {
    if (walker != NULL) {
        dm_free(walker->pool);
        dm_free(walker->seen);
        dm_free(walker);
    }
}

dm_status dm_flock_walker_create(const dm_flock_graph *graph, size_t beam, dm_flock_walker **out) {
    *out = NULL;
    dm_flock_walker *walker = dm_alloc(1, sizeof *walker);
    if (walker == NULL) {
        return DM_ERR_MEMORY;
    }
    walker->graph = graph;
    walker->beam = beam;
    walker->pool = dm_alloc(beam, sizeof *walker->pool);
    walker->seen = dm_alloc(graph->keys.n, sizeof *walker->seen);
    if (walker->pool == NULL || walker->seen == NULL) {
        dm_flock_walker_free(walker);
        return DM_ERR_MEMORY;
    }
    *out = walker;
    return DM_OK;
}

/* Looks at a key once; returns its rank in the pool, or the beam where it is none of the best. */
static size_t look(dm_flock_walker *walker, int32_t id, const float *query) {
    const dm_keys *keys = &walker->graph->keys;
    if (walker->seen[id] == walker->walk || walker->graph->rank[id] < 0) {
        return walker->beam;
    }
    walker->seen[id] = walker->walk;
    walker->evaluations++;
    float score = keys->dot(keys->rows + (size_t)id * keys->dim, query, keys->dim);
    if (!isfinite(score)) {
        return walker->beam;
    }
    dm_flock_found *pool = walker->pool;
    size_t at = walker->count;
    while (at > 0 && (score > pool[at - 1].score || (score == pool[at - 1].score && id < pool[at - 1].id))) {
        at--;
    }
    if (at < walker->beam) {
        walker->count += walker->count < walker->beam;
        memmove(pool + at + 1, pool + at, (walker->count - 1 - at) * sizeof *pool);
        pool[at] = (dm_flock_found){.score = score, .id = id};
    }
    return at;
}

static void begin(dm_flock_walker *walker) {
    walker->count = 0;
    walker->evaluations = 0;
    if (++walker->walk == 0) { /* after 2^32 walks */
        memset(walker->seen, 0, walker->graph->keys.n * sizeof *walker->seen);
        walker->walk = 1;
    }
}

/* Expands the best of the pool by the links of one level until its first `width` are expanded. */
static void walk_level(dm_flock_walker *walker, size_t level, size_t width, const float *query) {
    const dm_flock_graph *graph = walker->graph;
    for (size_t i = 0; i < walker->count; i++) {
        walker->pool[i].expanded = false;
    }
    for (size_t at = 0; at < walker->count && at < width;) {
        if (walker->pool[at].expanded) {
            at++;
            continue;
        }
        walker->pool[at].expanded = true;
        const int32_t *links = graph->links[level] + (size_t)graph->rank[walker->pool[at].id] * DM_FLOCK_LINKS;
        size_t best = at + 1;
        for (size_t j = 0; j < DM_FLOCK_LINKS && links[j] >= 0; j++) {
            size_t place = look(walker, links[j], query);
            best = place < best ? place : best;
        }
        at = best;
    }
}

void dm_flock_search(dm_flock_walker *walker, size_t level, const float *query, const int32_t *start, size_t n_start) {
    const dm_flock_graph *graph = walker->graph;
    begin(walker);
    for (size_t i = 0; i < graph->size[graph->levels - 1]; i++) {
        look(walker, graph->order[i], query);
    }
    for (size_t l = graph->levels - 1; l-- > level;) {
        if (l == level) {
            for (size_t i = 0; i < n_start; i++) {
                if (start[i] >= 0 && (size_t)start[i] < graph->keys.n) {
                    look(walker, start[i], query);
                }
            }
        }
        walk_level(walker, l, l == level ? walker->beam : n_start > 0 ? WIDTH_WITH_START : WIDTH, query);
    }
}

size_t dm_flock_walk(dm_flock_walker *walker, const float *query, const int32_t *start, size_t n_start, size_t k, int32_t *ids,
                     float *scores) {
    dm_flock_search(walker, 0, query, start, n_start);
    for (size_t j = 0; j < k; j++) {
        ids[j] = j < walker->count ? walker->pool[j].id : -1;
        scores[j] = j < walker->count ? walker->pool[j].score : -INFINITY;
    }
    return walker->evaluations;
}
