/*
 * How a model lies on a machine with several memory nodes: rows of what every token reads are split over the nodes, by their
 * threads, or each node has all of it; each expert belongs to one node, whose threads alone compute it. Nothing is moved here:
 * this is the plan.
 */
#ifndef DM_OPTIMIZATION_PLACEMENT_H
#define DM_OPTIMIZATION_PLACEMENT_H

#include "model/model.h"
#include "optimization/hardware.h"

/* What a model asks for. */
typedef struct dm_placement_demand {
    uint64_t shared_bytes; /* of weights that every token reads */
    size_t layers, experts;
    uint64_t *expert_bytes; /* [layers, experts] */
    double *loads;          /* [layers, experts] how often each is asked for; NULL: all alike */
    bool mirrored;          /* each node has all that every token reads */
} dm_placement_demand;

typedef struct dm_node_share {
    int32_t node; /* the system's number */
    int32_t threads;
    uint64_t memory, shared_bytes, expert_bytes; /* what it has; of the model, what lies there */
    size_t experts;
} dm_node_share;

typedef struct dm_placement {
    size_t n_nodes;        /* that have threads */
    dm_node_share *shares; /* [n_nodes] */
    int32_t *home;         /* [layers, experts] an index into `shares` */
    int32_t *group;        /* [threads] whose share each thread is counted in */
    double imbalance;      /* time of the experts of all layers, each as long as its slowest node, over that of an even share */
    double in_turn;        /* the same if expert e belonged to node e modulo n_nodes */
    bool fits;             /* no node is given more than it has */
} dm_placement;

/* Free the result with dm_placement_demand_free(). DM_ERR_MEMORY. */
dm_status dm_placement_demand_of(const dm_model *model, dm_placement_demand *out);
void dm_placement_demand_free(dm_placement_demand *demand);

/*
 * A pure function of its arguments. In each layer the experts come in the order of load times bytes, the largest first, and go
 * where they are done first: this start is an equilibrium of the game in which every expert chooses its node and pays what the
 * node has to do divided by its threads (Fotakis et al. 2002: longest first on related machines), so that no expert gains by
 * moving alone. Of nodes that are equal the one with fewer of the model's bytes is taken. Nodes whose memory is full come last.
 * DM_ERR_ARGUMENT where threads < 1 or the machine's nodes are unknown, DM_ERR_MEMORY; *out is then empty.
 */
dm_status dm_placement_plan(const dm_hardware *hardware, const dm_placement_demand *demand, size_t threads, dm_placement *out);
void dm_placement_free(dm_placement *placement);

#endif
