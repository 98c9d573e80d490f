/* Recorded accesses played to a policy of eviction: how many experts it would have had to fetch. */
#ifndef DM_MOE_REPLAY_H
#define DM_MOE_REPLAY_H

#include "core/eviction.h"
#include "moe/trace.h"

/* Misses of a policy, belady included, with `slots` experts for each layer, or as many in the mean where the layers share them.
 */
dm_status dm_replay(const dm_trace *trace, const dm_eviction_rule *rule, bool shared, int32_t slots, uint64_t *misses);

/* Experts asked for in the whole trace, and how many different ones of them: each has to be fetched once. */
uint64_t dm_replay_asked(const dm_trace *trace);
dm_status dm_replay_different(const dm_trace *trace, uint64_t *different);

#endif
