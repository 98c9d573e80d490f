/* The tiers of memory: what there is, and how fast each is read. */
#ifndef DM_OPTIMIZATION_TIERS_H
#define DM_OPTIMIZATION_TIERS_H

#include "optimization/hardware.h"

/* Tiers without figures, caches first. *tiers (malloc, *n entries, 1 or more) is the caller's to free(). */
dm_status dm_tiers_list(const dm_hardware *hardware, dm_tier **tiers, size_t *n);

/* How many of the usable hardware threads the figures of all threads are of: as many as dm_threads() asks for. */
int dm_tiers_threads(const dm_hardware *hardware);

/* Bytes that each thread reads so that one tier answers: a multiple of 4096; 0: there is no such working set. `tier` is an index
 * into the hardware's kinds of caches, or their number for main memory. The first `threads` usable threads read at the same
 * time, or with 1, the first that the tier serves. `usable`: bytes of memory that may be had. */
size_t dm_tier_working_set(const dm_hardware *hardware, int tier, int threads, uint64_t usable);

/* Measures all tiers, some seconds. Told what comes next: `on_step`, unless NULL. DM_ERR_INTERRUPTED. */
dm_status dm_tiers_measure(const dm_hardware *hardware, uint64_t usable, dm_topology_fn on_step, void *user, dm_tier *tiers);

/* What all threads together read from main memory: 10^9 bytes a second; 0 where there was no room to measure. */
double dm_main_memory_bandwidth(void);

#endif
