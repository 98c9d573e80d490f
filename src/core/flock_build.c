/*
 * Building a graph of keys. Batches of keys are searched for in parallel in the graph as it stands, then linked one after
 * another; batches grow with the graph, so that few keys miss a near one of their own batch. A second round searches for
 * every key again in the whole graph.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/random.h"
#include "core/flock_walk.h"

#include <stdlib.h>
#define REFINE (getenv("REFINE") != NULL)

enum {
    BEAM = 64,        /* of the searches that build */
    BATCH_SHARE = 16, /* a batch is at most this part of the graph so far */
    MOST_OF_BATCH = 1024,
};

typedef struct links {
    int32_t id[DM_FLOCK_LINKS + 1]; /* one more than a key keeps */
    float near[DM_FLOCK_LINKS + 1]; /* descending */
    size_t count;
} links;

typedef struct builder {
    dm_flock_graph *graph;
    links *links;   /* [n] */
    int32_t *order; /* [n_order] the keys that can be linked, shuffled */
    size_t n_order, first;
    links *found;              /* [MOST_OF_BATCH] what the keys order[first...] shall link to */
    dm_flock_walker **walkers; /* [threads] */
    int threads;
} builder;

/* ---- Linking ---- */

/* True where a key so near to another has one of the other's nearer links, the first `rank`, on its side. Of equals too, or
 * copies of one key would know nothing but each other. */
static bool occluded(const dm_flock_graph *graph, const links *l, size_t rank, int32_t id, float near) {
    for (size_t j = 0; j < rank; j++) {
        if (dm_flock_nearness(graph, (size_t)id, (size_t)l->id[j]) >= near) {
            return true;
        }
    }
    return false;
}

/* What a key links to among what a search found: its nearest, and beyond them what is not occluded. */
static void choose(const dm_flock_walker *walker, int32_t key, links *l) {
    l->count = 0;
    for (size_t i = 0; i < walker->count && l->count < DM_FLOCK_LINKS; i++) {
        const dm_flock_found *f = &walker->pool[i];
        bool fits = l->count < DM_FLOCK_NEAREST || !occluded(walker->graph, l, l->count, f->id, f->score);
        if (f->id != key && fits) {
            l->id[l->count] = f->id;
            l->near[l->count++] = f->score;
        }
    }
}

/* One link has to go: the nearest beyond the 7 that is occluded, or else the farthest. */
static void drop_one(const dm_flock_graph *graph, links *l) {
    size_t at = DM_FLOCK_NEAREST;
    while (at + 1 < l->count && !occluded(graph, l, at, l->id[at], l->near[at])) {
        at++;
    }
    l->count--;
    memmove(l->id + at, l->id + at + 1, (l->count - at) * sizeof *l->id);
    memmove(l->near + at, l->near + at + 1, (l->count - at) * sizeof *l->near);
}

static void add_link(const dm_flock_graph *graph, links *l, int32_t id, float near) {
    size_t at = l->count;
    for (size_t j = 0; j < l->count; j++) {
        if (l->id[j] == id) {
            return;
        }
    }
    while (at > 0 && near > l->near[at - 1]) {
        at--;
    }
    if (at >= DM_FLOCK_NEAREST && occluded(graph, l, at, id, near)) {
        return;
    }
    memmove(l->id + at + 1, l->id + at, (l->count - at) * sizeof *l->id);
    memmove(l->near + at + 1, l->near + at, (l->count - at) * sizeof *l->near);
    l->id[at] = id;
    l->near[at] = near;
    if (++l->count > DM_FLOCK_LINKS) {
        drop_one(graph, l);
    }
}

/* The graph's own rows, which searches read. */
static void publish(const builder *b, size_t key) {
    int32_t *row = b->graph->links + key * DM_FLOCK_LINKS;
    const links *l = &b->links[key];
    for (size_t j = 0; j < DM_FLOCK_LINKS; j++) {
        row[j] = j < l->count ? l->id[j] : -1;
    }
}

/* ---- Batches ---- */

static void search_batch(void *user, size_t begin, size_t end, int thread) {
    const builder *b = user;
    const dm_flock_graph *graph = b->graph;
    for (size_t i = begin; i < end; i++) {
        int32_t key = b->order[b->first + i];
        dm_flock_walker *walker = b->walkers[thread];
        const float *row = graph->keys.rows + (size_t)key * graph->keys.dim;
        size_t known = b->links[key].count;
        dm_flock_search(walker, row, graph->extra[key], b->links[key].id, known);
        choose(walker, key, &b->found[i]);
    }
}

/* Both ways, batch by batch. */
static void link_batch(builder *b, size_t size) {
    dm_parallel(b->threads, size, 1, search_batch, b);
    for (size_t i = 0; i < size; i++) {
        int32_t key = b->order[b->first + i];
        const links *found = &b->found[i];
        for (size_t j = 0; j < found->count; j++) {
            add_link(b->graph, &b->links[key], found->id[j], found->near[j]);
            add_link(b->graph, &b->links[found->id[j]], key, found->near[j]);
            publish(b, (size_t)found->id[j]);
        }
        publish(b, (size_t)key);
        if (b->graph->n_entries < DM_FLOCK_ENTRIES && b->first + i == b->graph->n_entries) {
            b->graph->entries[b->graph->n_entries++] = key;
        }
    }
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static dm_status link_all(builder *b) {
    for (size_t size; b->first < b->n_order; b->first += size) {
        size = smaller(smaller(b->first / BATCH_SHARE + 1, MOST_OF_BATCH), b->n_order - b->first);
        link_batch(b, size);
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted while building a graph of keys");
        }
    }
    for (size_t size; REFINE && (b->first > 0); b->first -= size) {
        size = smaller(MOST_OF_BATCH, b->first);
        b->first -= size;
        link_batch(b, size);
        b->first += size;
    }
    return DM_OK;
}

/* ---- The whole ---- */

/* The added coordinate of every key, and the keys that can be linked, shuffled. */
static void prepare(builder *b, uint64_t seed) {
    dm_flock_graph *graph = b->graph;
    const dm_keys *keys = &graph->keys;
    float most = 0.0f;
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t i = 0; i < keys->n; i++) {
        const float *row = keys->rows + i * keys->dim;
        graph->extra[i] = keys->dot(row, row, keys->dim);
        if (isfinite(graph->extra[i])) {
            most = graph->extra[i] > most ? graph->extra[i] : most;
            size_t at = (size_t)(dm_random_next(&random) % (b->n_order + 1));
            b->order[b->n_order++] = b->order[at];
            b->order[at] = (int32_t)i;
        }
    }
    for (size_t i = 0; i < keys->n; i++) {
        graph->extra[i] = isfinite(graph->extra[i]) ? sqrtf(most - graph->extra[i]) : NAN;
        publish(b, i);
    }
}

static dm_status allocate(builder *b) {
    size_t n = b->graph->keys.n;
    b->graph->extra = dm_alloc(n, sizeof *b->graph->extra);
    b->graph->links = dm_alloc(n, DM_FLOCK_LINKS * sizeof *b->graph->links);
    b->links = dm_alloc(n, sizeof *b->links);
    b->order = dm_alloc(n + 1, sizeof *b->order);
    b->found = dm_alloc(MOST_OF_BATCH, sizeof *b->found);
    b->walkers = dm_alloc((size_t)b->threads, sizeof *b->walkers);
    if (b->graph->extra == NULL || b->graph->links == NULL || b->links == NULL || b->order == NULL || b->found == NULL ||
        b->walkers == NULL) {
        return DM_ERR_MEMORY;
    }
    for (int t = 0; t < b->threads; t++) {
        DM_TRY(dm_flock_walker_create(b->graph, BEAM, &b->walkers[t]));
    }
    return DM_OK;
}

static void clean_up(builder *b) {
    for (int t = 0; b->walkers != NULL && t < b->threads; t++) {
        dm_flock_walker_free(b->walkers[t]);
    }
    dm_free(b->walkers);
    dm_free(b->found);
    dm_free(b->order);
    dm_free(b->links);
}

dm_status dm_flock_graph_build(const dm_keys *keys, uint64_t seed, int threads, dm_flock_graph **out) {
    *out = NULL;
    if (keys->n < 1 || keys->n > INT32_MAX || keys->dim < 1 || threads < 1) {
        return dm_fail(DM_ERR_ARGUMENT, "a graph of %zu keys of %zu numbers on %d threads: expected 1 or more of each", keys->n,
                       keys->dim, threads);
    }
    builder b = {.graph = dm_alloc(1, sizeof *b.graph), .threads = threads};
    if (b.graph == NULL) {
        return DM_ERR_MEMORY;
    }
    b.graph->keys = *keys;
    dm_status status = allocate(&b);
    if (status == DM_OK) {
        prepare(&b, seed);
        status = link_all(&b);
    }
    clean_up(&b);
    if (status != DM_OK) {
        dm_flock_graph_free(b.graph);
        return status;
    }
    *out = b.graph;
    return DM_OK;
}

void dm_flock_graph_free(dm_flock_graph *graph) {
    if (graph != NULL) {
        dm_free(graph->extra);
        dm_free(graph->links);
        dm_free(graph);
    }
}
