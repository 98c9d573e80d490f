/*
 * Where experts are, as a router sees it: what fetching each of them costs now, and which are used next. Cache tiers plug in
 * here; so does the simulation below, which keeps no weights.
 */
#ifndef DM_MOE_RESIDENCY_H
#define DM_MOE_RESIDENCY_H

#include "core/eviction.h"

typedef struct dm_residency {
    void *user;
    double slowest; /* seconds that an expert of the slowest tier takes, > 0 */
    bool shared;    /* what is there for one layer depends on what others have used */
    /* tau [experts] receives the seconds that each expert of a layer would take, 0 for those that cost nothing. */
    void (*times)(void *user, int32_t layer, float *tau);
    /* These different experts of the layer are used next, in this order. Returns how many of them were there. */
    size_t (*use)(void *user, int32_t layer, const int32_t *experts, size_t n);
    void (*free)(void *user);
} dm_residency;

/* Who goes where not all fit, and whether each layer has slots of its own or all share them. A pass, for policies that age, is a
 * use of the layer in the first case; in the second it ends before the use of a layer that is not after the one before. */
typedef struct dm_residency_rule {
    dm_eviction_rule evict;
    bool shared;
} dm_residency_rule;

/* "lru", "lfu:64", "lru:shared", ...: a policy of core/eviction.h but belady, which ":shared" or ":layers" may follow; NULL is
 * "lru:layers". */
dm_status dm_residency_parse(const char *text, dm_residency_rule *out);

/* `slots` experts for each layer, or as many in the mean; others take a second. On failure *out is empty; else it ends with
 * out->free(out->user). */
dm_status dm_residency_simulate(int32_t layers, int32_t experts, int32_t slots, const dm_residency_rule *rule, dm_residency *out);

#endif
