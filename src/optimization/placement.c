/* Source: Fotakis, Kontogiannis, Koutsoupias, Mavronicolas, Spirakis, The Structure and Complexity of Nash Equilibria for a
 * Selfish Routing Game, 2002. The routing game (core/game.h) is another one: there costs depend on how many choose, here on how
 * heavy they are. */
#include "optimization/placement.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/status.h"
#include "optimization/binding.h"

/* ---- What a model asks for ---- */

static void add_tensor(const dm_tensor *tensor, dm_role role, size_t layer, dm_placement_demand *out) {
    if (tensor->data == NULL || role == DM_TOKEN_EMBD || role == DM_POSITION_EMBD) {
        return;
    }
    if (!dm_role_is_expert(role)) {
        out->shared_bytes += dm_tensor_matrix_bytes(tensor, 0) * (uint64_t)tensor->dims[2];
        return;
    }
    for (size_t e = 0; e < out->experts; e++) {
        out->expert_bytes[layer * out->experts + e] += dm_tensor_matrix_bytes(tensor, e);
    }
}

dm_status dm_placement_demand_of(const dm_model *model, dm_placement_demand *out) {
    const dm_config *c = &model->config;
    *out = (dm_placement_demand){.layers = (size_t)c->n_layers, .experts = (size_t)c->n_experts};
    out->expert_bytes = dm_alloc(out->layers * out->experts, sizeof *out->expert_bytes);
    if (out->expert_bytes == NULL) {
        return DM_ERR_MEMORY;
    }
    for (int role = 0; role < DM_ROLES; role++) {
        add_tensor(&model->tensors[role], (dm_role)role, 0, out);
        for (size_t l = 0; l < out->layers; l++) {
            add_tensor(&model->layers[l].tensors[role], (dm_role)role, l, out);
        }
    }
    return DM_OK;
}

void dm_placement_demand_free(dm_placement_demand *demand) {
    dm_free(demand->expert_bytes);
    dm_free(demand->loads);
    *demand = (dm_placement_demand){0};
}

/* ---- Nodes ---- */

/* The nodes whose processors some of the threads get. */
static dm_status find_nodes(const dm_hardware *hardware, size_t threads, dm_placement *out) {
    size_t *seats = dm_alloc(threads, sizeof *seats);
    out->shares = dm_alloc(hardware->n_nodes, sizeof *out->shares);
    out->group = dm_alloc(threads, sizeof *out->group);
    if (seats == NULL || out->shares == NULL || out->group == NULL || threads < 1 ||
        !dm_binding_seats(hardware, threads, seats)) {
        dm_free(seats);
        return out->shares == NULL || out->group == NULL || seats == NULL
                   ? DM_ERR_MEMORY
                   : dm_fail(DM_ERR_ARGUMENT, "no plan: the machine does not tell which memory its "
                                              "processors are near");
    }
    for (size_t n = 0; n < hardware->n_nodes; n++) {
        dm_node_share share = {.node = hardware->nodes[n].node, .memory = hardware->nodes[n].bytes};
        for (size_t t = 0; t < threads; t++) {
            if (hardware->usable[seats[t]].node == (int)n) {
                out->group[t] = (int32_t)out->n_nodes;
                share.threads++;
            }
        }
        if (share.threads > 0) {
            out->shares[out->n_nodes++] = share;
        }
    }
    dm_free(seats);
    return DM_OK;
}

/* By threads; the last node gets what rounding leaves. */
static void split_shared(const dm_placement_demand *demand, size_t threads, dm_placement *out) {
    const uint64_t bytes = demand->shared_bytes;
    uint64_t given = 0;
    for (size_t n = 0; n < out->n_nodes; n++) {
        dm_node_share *share = &out->shares[n];
        bool last = n + 1 == out->n_nodes;
        share->shared_bytes = demand->mirrored ? bytes
                              : last           ? bytes - given
                                               : (uint64_t)((double)bytes * share->threads / (double)threads);
        given += share->shared_bytes;
    }
}

/* ---- Experts ---- */

typedef struct work {
    double amount; /* load times bytes */
    size_t expert;
} work;

static int heavier_first(const void *a, const void *b) {
    const work *x = a, *y = b;
    return x->amount != y->amount ? (x->amount < y->amount) - (x->amount > y->amount)
                                  : (x->expert > y->expert) - (x->expert < y->expert);
}

static bool has_room(const dm_node_share *share, uint64_t bytes) {
    uint64_t used = share->shared_bytes + share->expert_bytes;
    return share->memory >= used && share->memory - used >= bytes;
}

/* Whether an expert is better off on node a than on b. */
static bool better(const dm_placement *p, const double *amounts, double amount, uint64_t bytes, size_t a, size_t b) {
    const dm_node_share *x = &p->shares[a], *y = &p->shares[b];
    if (has_room(x, bytes) != has_room(y, bytes)) {
        return has_room(x, bytes);
    }
    double on_a = (amounts[a] + amount) / x->threads, on_b = (amounts[b] + amount) / y->threads;
    return on_a != on_b ? on_a < on_b : x->shared_bytes + x->expert_bytes < y->shared_bytes + y->expert_bytes;
}

static double slowest(const dm_placement *p, const double *amounts) {
    double most = 0;
    for (size_t n = 0; n < p->n_nodes; n++) {
        double time = amounts[n] / p->shares[n].threads;
        most = time > most ? time : most;
    }
    return most;
}

/* Gives the experts of a layer homes; amounts [n_nodes] receives what each node has to do. */
static void place_layer(dm_placement *p, const dm_placement_demand *demand, size_t layer, const work *items, double *amounts) {
    for (size_t n = 0; n < p->n_nodes; n++) {
        amounts[n] = 0;
    }
    for (size_t i = 0; i < demand->experts; i++) {
        size_t at = layer * demand->experts + items[i].expert, best = 0;
        uint64_t bytes = demand->expert_bytes[at];
        for (size_t n = 1; n < p->n_nodes; n++) {
            best = better(p, amounts, items[i].amount, bytes, n, best) ? n : best;
        }
        p->fits = p->fits && has_room(&p->shares[best], bytes);
        p->home[at] = (int32_t)best;
        p->shares[best].expert_bytes += bytes;
        p->shares[best].experts++;
        amounts[best] += items[i].amount;
    }
}

/* What the slowest node takes if experts are dealt out in the order of their numbers. */
static double dealt_out(const dm_placement *p, size_t experts, const work *items, double *amounts) {
    for (size_t n = 0; n < p->n_nodes; n++) {
        amounts[n] = 0;
    }
    for (size_t i = 0; i < experts; i++) {
        amounts[items[i].expert % p->n_nodes] += items[i].amount;
    }
    return slowest(p, amounts);
}

/* items [experts] and amounts [n_nodes] are scratch. */
static void place_experts(dm_placement *p, const dm_placement_demand *demand, size_t threads, work *items, double *amounts) {
    double planned = 0, in_turn = 0, even = 0;
    for (size_t l = 0; l < demand->layers; l++) {
        for (size_t e = 0; e < demand->experts; e++) {
            size_t at = l * demand->experts + e;
            double load = demand->loads != NULL ? demand->loads[at] : 1;
            items[e] = (work){load * (double)demand->expert_bytes[at], e};
            even += items[e].amount / (double)threads;
        }
        qsort(items, demand->experts, sizeof *items, heavier_first);
        place_layer(p, demand, l, items, amounts);
        planned += slowest(p, amounts);
        in_turn += dealt_out(p, demand->experts, items, amounts);
    }
    p->imbalance = even > 0 ? planned / even : 1;
    p->in_turn = even > 0 ? in_turn / even : 1;
}

static dm_status plan(const dm_hardware *hardware, const dm_placement_demand *demand, size_t threads, dm_placement *out) {
    DM_TRY(find_nodes(hardware, threads, out));
    split_shared(demand, threads, out);
    for (size_t n = 0; n < out->n_nodes; n++) {
        out->fits = out->fits && has_room(&out->shares[n], 0);
    }
    out->home = dm_alloc(demand->layers * demand->experts, sizeof *out->home);
    work *items = dm_alloc(demand->experts, sizeof *items);
    double *amounts = dm_alloc(out->n_nodes, sizeof *amounts);
    dm_status status = out->home != NULL && items != NULL && amounts != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        place_experts(out, demand, threads, items, amounts);
    }
    dm_free(items);
    dm_free(amounts);
    return status;
}

dm_status dm_placement_plan(const dm_hardware *hardware, const dm_placement_demand *demand, size_t threads, dm_placement *out) {
    *out = (dm_placement){.fits = true};
    dm_status status = plan(hardware, demand, threads, out);
    if (status != DM_OK) {
        dm_placement_free(out);
    }
    return status;
}

void dm_placement_free(dm_placement *placement) {
    dm_free(placement->shares);
    dm_free(placement->home);
    dm_free(placement->group);
    *placement = (dm_placement){0};
}
