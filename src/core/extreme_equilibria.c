/* All extreme equilibria of a two-player game: vertices of both polytopes, pairs with complete labels, components. */
#include <stdlib.h>
#include <string.h>

#include "base/table.h"
#include "core/equilibria.h"
#include "core/exact_tableau.h"

enum { MOST_BASES = 1 << 17 /* of a polytope: seconds and tens of megabytes */ };

/* ---- The vertices of one polytope ---- */

typedef struct vertices {
    uint64_t *labels; /* [count] of each vertex; the origin is left out */
    double *mixtures; /* [count, k] */
    size_t k, count, labels_room, mixtures_room;
    dm_table bases, known; /* bases seen; labels of known vertices */
} vertices;

static void vertices_free(vertices *v) {
    free(v->labels);
    free(v->mixtures);
    dm_table_free(&v->bases);
    dm_table_free(&v->known);
}

static dm_status note_vertex(vertices *v, dm_tableau *t, uint64_t origin) {
    uint64_t labels = dm_tableau_labels(t);
    if (labels == origin || dm_table_get(&v->known, labels) != DM_TABLE_NONE) {
        return DM_OK;
    }
    DM_TRY(dm_table_set(&v->known, labels, 0));
    DM_TRY(dm_reserve((void *)&v->labels, &v->labels_room, v->count + 1, sizeof *v->labels));
    DM_TRY(dm_reserve((void *)&v->mixtures, &v->mixtures_room, (v->count + 1) * v->k, sizeof *v->mixtures));
    v->labels[v->count] = labels;
    dm_tableau_mixture(t, v->mixtures + v->count * v->k);
    v->count++;
    return DM_OK;
}

/* A pivot on the way from the origin, and where to go on looking after going back. */
typedef struct turn {
    size_t row, left, next;
} turn;

typedef struct walk {
    vertices *v;
    dm_tableau *t;
    turn *turns; /* from the origin */
    size_t depth, room;
    uint64_t origin; /* labels there */
} walk;

static dm_status enter(walk *w, size_t row, size_t entering) {
    DM_TRY(dm_reserve((void *)&w->turns, &w->room, w->depth + 1, sizeof *w->turns));
    w->turns[w->depth++] = (turn){row, w->t->basis[row], entering + 1};
    dm_tableau_pivot(w->t, row, entering);
    return note_vertex(w->v, w->t, w->origin);
}

/* Looks for a neighbour not seen yet from variable *entering on; steps there, or past the last variable goes back. */
static dm_status advance(walk *w, size_t *entering) {
    dm_tableau *t = w->t;
    for (; *entering < t->variables; ++*entering) {
        if (t->basic >> *entering & 1) {
            continue;
        }
        size_t row = dm_tableau_leaving(t, *entering);
        uint64_t basis = t->basic ^ (uint64_t)1 << *entering ^ (uint64_t)1 << t->basis[row];
        if (dm_table_get(&w->v->bases, basis) == DM_TABLE_NONE) {
            DM_TRY(dm_table_set(&w->v->bases, basis, 0));
            DM_TRY(enter(w, row, *entering));
            *entering = 0;
            return DM_OK;
        }
    }
    if (w->depth > 0) {
        turn back = w->turns[--w->depth];
        dm_tableau_pivot(t, back.row, back.left);
        *entering = back.next;
    }
    return DM_OK;
}

/* Depth first over bases that are neighbours; those that the lexicographic rule allows hang together. */
static dm_status walk_all(walk *w) {
    size_t entering = 0;
    DM_TRY(dm_table_set(&w->v->bases, w->t->basic, 0));
    while (w->depth > 0 || entering < w->t->variables) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted looking for equilibria");
        }
        if (w->v->bases.count > MOST_BASES) {
            return dm_fail(DM_ERR_UNSUPPORTED, "the best responses have more than %d corners, too many to find all equilibria",
                           MOST_BASES);
        }
        DM_TRY(advance(w, &entering));
    }
    return DM_OK;
}

static dm_status find_vertices(const dm_game *game, int32_t mixer, vertices *v) {
    dm_tableau t;
    dm_status status = dm_tableau_create(game, mixer, &t);
    if (status == DM_OK) {
        walk w = {.v = v, .t = &t, .origin = dm_tableau_labels(&t)};
        v->k = t.k;
        status = walk_all(&w);
        free(w.turns);
    }
    dm_tableau_free(&t);
    return status;
}

/* ---- Pairs ---- */

/* Vertices p of the first polytope and q of the second that are an equilibrium. */
typedef struct pair {
    uint32_t p, q;
    const double *x, *y; /* their mixtures */
    size_t m, n;         /* lengths of them */
} pair;

typedef struct pairs {
    pair *list;
    size_t count, room;
} pairs;

static dm_status match(const vertices *first, const vertices *second, pairs *out) {
    size_t total = first->k + second->k;
    uint64_t all = total == 64 ? UINT64_MAX : ((uint64_t)1 << total) - 1;
    for (size_t p = 0; p < first->count; p++) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted looking for equilibria");
        }
        for (size_t q = 0; q < second->count; q++) {
            if ((first->labels[p] | second->labels[q]) != all) {
                continue;
            }
            DM_TRY(dm_reserve((void *)&out->list, &out->room, out->count + 1, sizeof *out->list));
            out->list[out->count++] = (pair){
                (uint32_t)p, (uint32_t)q, first->mixtures + p * first->k, second->mixtures + q * second->k, first->k, second->k};
        }
    }
    return DM_OK;
}

static int compare_mixtures(const double *a, const double *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i]) {
            return a[i] > b[i] ? -1 : 1;
        }
    }
    return 0;
}

static int compare_pairs(const void *a, const void *b) {
    const pair *first = a, *second = b;
    int order = compare_mixtures(first->x, second->x, first->m);
    return order != 0 ? order : compare_mixtures(first->y, second->y, first->n);
}

/* Equilibria that share a vertex lie in one convex part of the set; parts that share an equilibrium hang together. So the
 * components are those of the graph whose edges are the pairs; parent [p's, then q's] is a forest over its nodes. */
static uint32_t root(uint32_t *parent, uint32_t node) {
    while (parent[node] != node) {
        parent[node] = parent[parent[node]];
        node = parent[node];
    }
    return node;
}

static dm_status list_pairs(const pairs *all, uint32_t *parent, int32_t *numbers, size_t nodes, size_t n_first,
                            dm_equilibria *list) {
    for (size_t i = 0; i < nodes; i++) {
        parent[i] = (uint32_t)i;
        numbers[i] = -1;
    }
    for (size_t i = 0; i < all->count; i++) {
        parent[root(parent, all->list[i].p)] = root(parent, (uint32_t)n_first + all->list[i].q);
    }
    int32_t components = 0;
    for (size_t i = 0; i < all->count; i++) {
        const pair *at = &all->list[i];
        int32_t *number = &numbers[root(parent, at->p)];
        *number = *number < 0 ? components++ : *number;
        double x[DM_GAME_MAX_EXACT];
        memcpy(x, at->x, at->m * sizeof *x);
        memcpy(x + at->m, at->y, at->n * sizeof *x);
        DM_TRY(dm_equilibria_add(list, x, *number));
    }
    return DM_OK;
}

static dm_status list_all(const vertices found[2], pairs *all, dm_equilibria *list) {
    DM_TRY(match(&found[0], &found[1], all));
    if (all->list == NULL) {
        return dm_fail(DM_ERR_INTERNAL, "a game without an equilibrium, which there cannot be");
    }
    qsort(all->list, all->count, sizeof *all->list, compare_pairs);
    size_t nodes = found[0].count + found[1].count;
    uint32_t *parent = malloc(nodes * sizeof *parent);
    int32_t *numbers = malloc(nodes * sizeof *numbers);
    dm_status status = parent != NULL && numbers != NULL ? list_pairs(all, parent, numbers, nodes, found[0].count, list)
                                                         : dm_fail(DM_ERR_MEMORY, "out of memory listing equilibria");
    free(parent);
    free(numbers);
    return status;
}

dm_status dm_extreme_equilibria(dm_equilibria *list) {
    vertices found[2] = {{0}, {0}};
    pairs all = {0};
    dm_status status = find_vertices(list->game, 0, &found[0]);
    if (status == DM_OK) {
        status = find_vertices(list->game, 1, &found[1]);
    }
    if (status == DM_OK) {
        status = list_all(found, &all, list);
    }
    free(all.list);
    vertices_free(&found[0]);
    vertices_free(&found[1]);
    return status;
}
