/*
 * Where the weights that a decode reads would have been served from: a recorded trace tells the experts, and every token reads
 * all other weights too. Weights are cut into units of a few kilobytes; an access is one token's reading of one unit, every byte
 * of it once, in order. A unit is served whole by the nearest cache that still has it: one of C bytes, fully associative and
 * with LRU over units, has it where its stack distance (core/stack_distance.h) is at most C. That a unit's 64-byte lines are
 * neighbours makes no hits: each of its bytes is asked for once. Keys, values and activations are not counted.
 */
#ifndef DM_MOE_SERVED_H
#define DM_MOE_SERVED_H

#include "moe/trace.h"

enum { DM_SERVED_CACHES = 8, DM_SERVED_LEAST_UNIT = 64 };

/* Bytes of the weights that a pass reads, in this order. */
typedef struct dm_served_weights {
    const uint64_t *before;   /* [layers] before the experts: norms, attention, router */
    const uint64_t *matrices; /* [layers, 3] of one expert: gate, up, down */
    const uint64_t *after;    /* [layers] after them: those of an expert that all tokens use */
    uint64_t output;          /* after the last layer */
} dm_served_weights;

typedef struct dm_served_options {
    uint64_t unit;                    /* bytes, 64 (what caches are filled with at a time) or more */
    size_t caches;                    /* at most DM_SERVED_CACHES */
    uint64_t bytes[DM_SERVED_CACHES]; /* [caches] of each, the nearest first, none smaller than the one before */
    int32_t slots;                    /* experts of a layer that memory has room for, by LRU; 0: all are there */
} dm_served_options;

/* Bytes read, by who served them: the caches, then memory, then the disk. Caches serve nothing of an expert that is not in
 * memory. */
typedef struct dm_served_bytes {
    uint64_t by[DM_SERVED_CACHES + 2];
} dm_served_bytes;

typedef struct dm_served {
    dm_served_bytes experts, others;
    uint64_t weights;          /* bytes of all that can be read */
    uint64_t passes;           /* that the trace has */
    uint64_t nearest_distance; /* the smallest of any reuse; DM_FIRST_USE: there was none */
} dm_served;

/* DM_ERR_ARGUMENT for options and sizes that do not go together. */
dm_status dm_served_count(const dm_trace *trace, const dm_served_weights *weights, const dm_served_options *options,
                          dm_served *out);

#endif
