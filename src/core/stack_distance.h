/*
 * LRU stack distances (Mattson et al. 1970): for each use of a thing, the bytes of the different things used since its last use,
 * its own included. A memory of C bytes that keeps what was used last has the thing at that moment where the distance is at most
 * C, whatever C is: one pass over the uses tells the hits of memories of all sizes. Sums of bytes over the times of last uses
 * are kept in a Fenwick tree (Bennett and Kruskal 1975; Olken 1981), so a use is O(log things).
 */
#ifndef DM_CORE_STACK_DISTANCE_H
#define DM_CORE_STACK_DISTANCE_H

#include "base/status.h"

#define DM_FIRST_USE UINT64_MAX

typedef struct dm_stack_distance dm_stack_distance;

/* Nothing was used yet. bytes [things] is copied; their sum is below 2^63. On failure *out is NULL. */
dm_status dm_stack_distance_create(const uint64_t *bytes, size_t things, dm_stack_distance **out);
void dm_stack_distance_free(dm_stack_distance *it);

/* Thing is used; its distance in bytes, or DM_FIRST_USE. */
uint64_t dm_stack_distance_use(dm_stack_distance *it, size_t thing);

#endif
