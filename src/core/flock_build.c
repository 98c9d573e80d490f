/*
 * Building a graph of keys, the smallest level first. Batches of keys are searched for in parallel in the level as it stands,
 * coming down from those that are done, and then linked one after another; batches grow with the level, so that few keys miss
 * a near one of their own batch.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/random.h"
#include "core/flock_walk.h"

enum {
    BEAM = 64,        /* of the searches that build */
    BATCH_SHARE = 16, /* a batch is at most this part of the level so far */
    MOST_OF_BATCH = 1024,
    LEVEL_SHARE = 16, /* a level is this part of the one below */
    SCANNED = 64,     /* a level of no more keys is the last */
    CHILDREN = 4,     /* of a key in that tree; with the nearest they leave room for other links */
};

typedef struct links {
    int32_t id[DM_FLOCK_LINKS + 1]; /* one more than a key keeps */
    float near[DM_FLOCK_LINKS + 1]; /* descending */
    bool child[DM_FLOCK_LINKS + 1]; /* links that stay: they make a tree of the level, so that walks can get everywhere */
    size_t count, children;
} links;

typedef struct builder {
    dm_flock_graph *graph;
    links *links; /* [size of the level] by rank */
    size_t level;
    size_t first;              /* rank of the batch's first key */
    links *found;              /* [MOST_OF_BATCH] what the batch's keys shall link to */
    dm_flock_walker **walkers; /* [threads] */
    int threads;
} builder;

/* ---- Linking ---- */

static float nearness(const dm_flock_graph *graph, int32_t a, int32_t b) {
    const dm_keys *keys = &graph->keys;
    return keys->dot(keys->rows + (size_t)a * keys->dim, keys->rows + (size_t)b * keys->dim, keys->dim);
}

/* True where a key so near to another has one of the other's nearer links, the first `rank`, on its side. Of equals too, or
 * copies of one key would know nothing but each other. */
static bool occluded(const dm_flock_graph *graph, const links *l, size_t rank, int32_t id, float near) {
    for (size_t j = 0; j < rank; j++) {
        if (nearness(graph, id, l->id[j]) >= near) {
            return true;
        }
    }
    return false;
}

/* Puts a link where its nearness has it, which is returned. */
static size_t insert(links *l, int32_t id, float near, bool child) {
    size_t at = l->count++;
    for (; at > 0 && near > l->near[at - 1]; at--) {
        l->id[at] = l->id[at - 1];
        l->near[at] = l->near[at - 1];
        l->child[at] = l->child[at - 1];
    }
    l->id[at] = id;
    l->near[at] = near;
    l->child[at] = child;
    return at;
}

static void cut(links *l, size_t at) {
    for (l->count--; at < l->count; at++) {
        l->id[at] = l->id[at + 1];
        l->near[at] = l->near[at + 1];
        l->child[at] = l->child[at + 1];
    }
}

/* What a key links to among what a search found: its nearest, and beyond them what is not occluded. */
static void choose(const dm_flock_walker *walker, int32_t key, links *l) {
    l->count = 0;
    for (size_t i = 0; i < walker->count && l->count < DM_FLOCK_LINKS; i++) {
        const dm_flock_found *f = &walker->pool[i];
        bool fits = l->count < DM_FLOCK_NEAREST || !occluded(walker->graph, l, l->count, f->id, f->score);
        if (f->id != key && fits) {
            insert(l, f->id, f->score, false);
        }
    }
}

/* One link too many: the nearest beyond the 7 that is occluded goes, or else the farthest. */
static void cut_one(const dm_flock_graph *graph, links *l) {
    size_t farthest = 0;
    for (size_t at = DM_FLOCK_NEAREST; at < l->count; at++) {
        if (!l->child[at]) {
            farthest = at;
            if (occluded(graph, l, at, l->id[at], l->near[at])) {
                break;
            }
        }
    }
    cut(l, farthest);
}

static void add_link(const dm_flock_graph *graph, links *l, int32_t id, float near, bool child) {
    for (size_t j = 0; j < l->count; j++) {
        if (l->id[j] == id) {
            l->child[j] = l->child[j] || child;
            return;
        }
    }
    size_t at = insert(l, id, near, child);
    if (!child && at >= DM_FLOCK_NEAREST && occluded(graph, l, at, id, near)) {
        cut(l, at);
    } else if (l->count > DM_FLOCK_LINKS) {
        cut_one(graph, l);
    }
}

/* The graph's own rows, which searches read. */
static void publish(const builder *b, size_t rank) {
    int32_t *row = b->graph->links[b->level] + rank * DM_FLOCK_LINKS;
    const links *l = &b->links[rank];
    for (size_t j = 0; j < DM_FLOCK_LINKS; j++) {
        row[j] = j < l->count ? l->id[j] : -1;
    }
}

/* ---- Batches ---- */

static void search_batch(void *user, size_t begin, size_t end, int thread) {
    const builder *b = user;
    const dm_flock_graph *graph = b->graph;
    for (size_t i = begin; i < end; i++) {
        int32_t key = graph->order[b->first + i];
        const float *row = graph->keys.rows + (size_t)key * graph->keys.dim;
        dm_flock_search(b->walkers[thread], b->level, row, NULL, 0);
        choose(b->walkers[thread], key, &b->found[i]);
    }
}

/* The key that keeps a link to the key of `rank`: the nearest of lower rank that has room for a child, or else any. */
static size_t parent_of(const builder *b, size_t rank, const links *found) {
    for (size_t j = 0; j < found->count; j++) {
        size_t other = (size_t)b->graph->rank[found->id[j]];
        if (other < rank && b->links[other].children < CHILDREN) {
            return other;
        }
    }
    size_t other = rank - 1;
    while (b->links[other].children == CHILDREN) { /* fewer children than keys: some have room */
        other--;
    }
    return other;
}

/* Both ways. */
static void link_key(builder *b, size_t rank, const links *found) {
    const dm_flock_graph *graph = b->graph;
    int32_t key = graph->order[rank];
    if (rank > 0) {
        size_t parent = parent_of(b, rank, found);
        float near = nearness(graph, key, graph->order[parent]);
        b->links[parent].children++;
        add_link(graph, &b->links[parent], key, near, true);
        publish(b, parent);
    }
    for (size_t j = 0; j < found->count; j++) {
        size_t other = (size_t)graph->rank[found->id[j]];
        add_link(graph, &b->links[rank], found->id[j], found->near[j], false);
        add_link(graph, &b->links[other], key, found->near[j], false);
        publish(b, other);
    }
    publish(b, rank);
}

static void link_batch(builder *b, size_t size) {
    dm_parallel(b->threads, size, 1, search_batch, b);
    for (size_t i = 0; i < size; i++) {
        link_key(b, b->first + i, &b->found[i]);
    }
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static dm_status link_level(builder *b, size_t level) {
    const size_t n = b->graph->size[level];
    b->level = level;
    memset(b->graph->links[level], 0xff, n * DM_FLOCK_LINKS * sizeof *b->graph->links[level]); /* -1 */
    memset(b->links, 0, n * sizeof *b->links);
    for (size_t size; b->first < n; b->first += size) {
        size = smaller(smaller(b->first / BATCH_SHARE + 1, MOST_OF_BATCH), n - b->first);
        link_batch(b, size);
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted while building a graph of keys");
        }
    }
    b->first = 0;
    return DM_OK;
}

/* ---- The whole ---- */

/* Shuffles the keys that can be linked, and divides them into levels. */
static void arrange(dm_flock_graph *graph, uint64_t seed) {
    const dm_keys *keys = &graph->keys;
    size_t n = 0;
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t i = 0; i < keys->n; i++) {
        graph->rank[i] = -1;
        if (isfinite(nearness(graph, (int32_t)i, (int32_t)i))) {
            size_t at = (size_t)(dm_random_next(&random) % (n + 1));
            graph->order[n++] = graph->order[at];
            graph->order[at] = (int32_t)i;
        }
    }
    for (size_t i = 0; i < n; i++) {
        graph->rank[graph->order[i]] = (int32_t)i;
    }
    graph->size[0] = n;
    for (graph->levels = 1; graph->size[graph->levels - 1] > SCANNED; graph->levels++) {
        graph->size[graph->levels] = graph->size[graph->levels - 1] / LEVEL_SHARE;
    }
}

static dm_status allocate_graph(dm_flock_graph *graph, uint64_t seed) {
    size_t n = graph->keys.n;
    graph->order = dm_alloc(n, sizeof *graph->order);
    graph->rank = dm_alloc(n, sizeof *graph->rank);
    if (graph->order == NULL || graph->rank == NULL) {
        return DM_ERR_MEMORY;
    }
    arrange(graph, seed);
    for (size_t l = 0; l + 1 < graph->levels; l++) {
        graph->links[l] = dm_alloc(graph->size[l], DM_FLOCK_LINKS * sizeof *graph->links[l]);
        if (graph->links[l] == NULL) {
            return DM_ERR_MEMORY;
        }
    }
    return DM_OK;
}

static dm_status allocate(builder *b) {
    b->links = dm_alloc(b->graph->size[0], sizeof *b->links);
    b->found = dm_alloc(MOST_OF_BATCH, sizeof *b->found);
    b->walkers = dm_alloc((size_t)b->threads, sizeof(dm_flock_walker *));
    if (b->links == NULL || b->found == NULL || b->walkers == NULL) {
        return DM_ERR_MEMORY;
    }
    for (int t = 0; t < b->threads; t++) {
        DM_TRY(dm_flock_walker_create(b->graph, BEAM, &b->walkers[t]));
    }
    return DM_OK;
}

static dm_status link_levels(dm_flock_graph *graph, int threads) {
    builder b = {.graph = graph, .threads = threads};
    dm_status status = allocate(&b);
    for (size_t l = graph->levels - 1; l-- > 0 && status == DM_OK;) {
        status = link_level(&b, l);
    }
    for (int t = 0; b.walkers != NULL && t < threads; t++) {
        dm_flock_walker_free(b.walkers[t]);
    }
    dm_free(b.walkers);
    dm_free(b.found);
    dm_free(b.links);
    return status;
}

dm_status dm_flock_graph_build(const dm_keys *keys, uint64_t seed, int threads, dm_flock_graph **out) {
    *out = NULL;
    if (keys->n < 1 || keys->n > INT32_MAX || keys->dim < 1 || threads < 1) {
        return dm_fail(DM_ERR_ARGUMENT, "a graph of %zu keys of %zu numbers on %d threads: expected 1 or more of each", keys->n,
                       keys->dim, threads);
    }
    dm_flock_graph *graph = dm_alloc(1, sizeof *graph);
    if (graph == NULL) {
        return DM_ERR_MEMORY;
    }
    graph->keys = *keys;
    dm_status status = allocate_graph(graph, seed);
    if (status == DM_OK) {
        status = link_levels(graph, threads);
    }
    if (status != DM_OK) {
        dm_flock_graph_free(graph);
        return status;
    }
    *out = graph;
    return DM_OK;
}

void dm_flock_graph_free(dm_flock_graph *graph) {
    if (graph != NULL) {
        dm_free(graph->order);
        dm_free(graph->rank);
        for (size_t l = 0; l < DM_FLOCK_LEVELS; l++) {
            dm_free(graph->links[l]);
        }
        dm_free(graph);
    }
}
