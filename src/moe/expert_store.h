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

typedef struct dm_expert_store dm_expert_store;

/* Bytes that reading takes, and those of one expert of every layer: the least budget that works. */
size_t dm_expert_store_least(const dm_expert_files *files);
/* Bytes for which all experts fit. */
size_t dm_expert_store_most(const dm_expert_files *files);

/* DM_ERR_ARGUMENT where `budget` bytes, for all experts' weights and for reading them, are too little, or the rule lets layers
 * share their slots. */
dm_status dm_expert_store_check(const dm_expert_files *files, const dm_residency_rule *rule, size_t budget);
/* The same, and makes it. `files` outlives the store. */
dm_status dm_expert_store_create(const dm_expert_files *files, const dm_residency_rule *rule, size_t budget,
                                 dm_expert_store **out);
void dm_expert_store_free(dm_expert_store *it);

void dm_expert_store_enter(dm_expert_store *it);
void dm_expert_store_leave(dm_expert_store *it);

/* Seconds that experts of a layer take, for the router: none for those that are there and those that were noted as wanted. */
void dm_expert_store_times(const dm_expert_store *it, int32_t layer, float *tau);
/* These n different experts will be among the next step's. Returns how many cost nothing. */
size_t dm_expert_store_want(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n);

/* A step: these n different experts of the layer are used, in this order if asked for, else those that are there first. `experts`
 * stay the caller's until the step ends. */
void dm_expert_store_begin(dm_expert_store *it, int32_t layer, const int32_t *experts, size_t n, bool in_order);
/* The next ones, whose weights are there until the next call: *n of them, 0 after the last. */
dm_status dm_expert_store_next(dm_expert_store *it, const int32_t **experts, size_t *n);
/* After the last, or after a failure: nothing is under way any more. */
void dm_expert_store_end(dm_expert_store *it);

/* Panels or rows of a matrix of an expert that dm_expert_store_next() returned. */
const uint8_t *dm_expert_store_matrix(const dm_expert_store *it, int32_t layer, int32_t expert, int matrix);

/* The system need not keep these bytes of a file in its cache. */
void dm_expert_store_forget(const dm_expert_store *it, size_t file, uint64_t offset, uint64_t bytes);

typedef struct dm_expert_store_stats {
    size_t slots, experts; /* of all layers */
    size_t bytes;          /* of slots, and of what reading takes */
    uint64_t read;         /* bytes, from files, with the parts of disk blocks that nobody asked for */
} dm_expert_store_stats;

void dm_expert_store_stats_of(const dm_expert_store *it, dm_expert_store_stats *out);
/* Adds up the bytes, in files, of the experts that the last step used, and of those of them that did not have to be read. */
void dm_expert_store_count(const dm_expert_store *it, uint64_t *asked, uint64_t *hit);

#endif
