/*
 * A model's experts where memory has room for some of them: each layer has slots for whole experts, in the form that the kernels
 * read, and a policy of eviction. A step of a layer asks for its experts and gets them some at a time, those that are there
 * before those that have to be read, so that computing and reading overlap, whatever the number of slots.
 *
 * One thread at a time is between dm_expert_store_enter() and dm_expert_store_leave(); others wait there.
 */
#ifndef DM_MOE_EXPERT_STORE_H
#define DM_MOE_EXPERT_STORE_H

#include "moe/expert_loads.h"
#include "moe/residency.h"

enum {
    DM_EXPERT_MOST_AHEAD = 4, /* layers */
    DM_EXPERT_AHEAD_A_LAYER = 3
};

typedef struct dm_expert_store dm_expert_store;

/* Bytes that reading takes, and those of one expert of every layer: the least budget that works. */
size_t dm_expert_store_least(const dm_expert_files *files);
/* Bytes for which all experts fit. */
size_t dm_expert_store_most(const dm_expert_files *files);

/* DM_ERR_ARGUMENT where `budget` bytes, for all experts' weights and for reading them, are too little, or the rule lets layers
 * share their slots. */
dm_status dm_expert_store_check(const dm_expert_files *files, const dm_residency_rule *rule, size_t budget);
/* How far experts are read ahead of their layer. */
typedef struct dm_expert_ahead {
    int32_t layers; /* 0: not at all; at most DM_EXPERT_MOST_AHEAD */
    size_t buffers; /* for so many experts at a time, of the budget */
} dm_expert_ahead;

/* Buffers for that: DM_EXPERT_AHEAD_A_LAYER for each layer, as far as they take at most half of what the budget has above the
 * least. */
size_t dm_expert_store_buffers(const dm_expert_files *files, size_t budget, int32_t ahead);

/* The same check of what the buffers leave, and makes it; its slots are dealt out to the groups of threads (base/parallel.h) if
 * asked for. `files` outlives the store. A step fails when the disk does not answer
 * for `patience` seconds, and steps after it until the disk does; 0: DM_DISK_PATIENCE. */
dm_status dm_expert_store_create(const dm_expert_files *files, const dm_residency_rule *rule, size_t budget,
                                 const dm_expert_ahead *ahead, double patience, bool placed, dm_expert_store **out);
void dm_expert_store_free(dm_expert_store *it);

void dm_expert_store_enter(dm_expert_store *it);
void dm_expert_store_leave(dm_expert_store *it);

/* Seconds that experts of a layer take, for the router: none for those that are there and those that were noted as wanted. */
void dm_expert_store_times(const dm_expert_store *it, int32_t layer, float *tau);
/* These n different experts will be among the next step's. Returns how many cost nothing. */
size_t dm_expert_store_want(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n);

/* Layers that the store has buffers to read ahead for; 0: guesses are no use. */
int32_t dm_expert_store_ahead(const dm_expert_store *it);
/* Between steps: these n different experts of a later layer, the likeliest first, may be wanted there. Those that are in no slot
 * are read at once, as far as buffers are free. What the store tells routers, evicts and counts as there does not depend on it.
 */
void dm_expert_store_guess(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n);

/* A step: these n different experts of the layer are used, in this order if asked for, else those that are there first. What has
 * to be read is under way when this returns, as far as there is room. */
dm_status dm_expert_store_begin(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n, bool in_order);
/* The next ones, whose weights are there until the next call: *n of them, 0 after the last. */
dm_status dm_expert_store_next(dm_expert_store *it, const int32_t **experts, size_t *n);
/* After the last, or after a failure, of dm_expert_store_begin() too: nothing is under way any more. */
void dm_expert_store_end(dm_expert_store *it);

/* Panels or rows of a matrix of an expert that dm_expert_store_next() returned. */
const uint8_t *dm_expert_store_matrix(const dm_expert_store *it, int32_t layer, int32_t expert, int matrix);

/* The group that its slot belongs to. */
size_t dm_expert_store_home(const dm_expert_store *it, int32_t layer, int32_t expert);

/* The system need not keep these bytes of a file in its cache. */
void dm_expert_store_forget(const dm_expert_store *it, size_t file, uint64_t offset, uint64_t bytes);

typedef struct dm_expert_store_stats {
    size_t slots, experts;       /* of all layers */
    size_t bytes;                /* of slots, and of what reading takes */
    uint64_t read;               /* bytes, from files, with the parts of disk blocks that nobody asked for */
    uint64_t guessed, came_true; /* experts whose reads began before their step, and those of them that it used */
    uint64_t missed, ahead; /* bytes in files of experts that were used and in no slot, and of those of them that were guessed */
    uint64_t wasted;        /* bytes in files of guesses that did not come true */
} dm_expert_store_stats;

void dm_expert_store_stats_of(const dm_expert_store *it, dm_expert_store_stats *out);
/* Adds up the bytes, in files, of the experts that the last step used, and of those of them that did not have to be read. */
void dm_expert_store_count(const dm_expert_store *it, uint64_t *asked, uint64_t *hit);

#endif
