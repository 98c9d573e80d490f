/*
 * Where experts are, as a router sees it: what fetching each of them costs now, and which are used next. Cache tiers plug in
 * here; so does the simulation below, which keeps no weights.
 */
#ifndef DM_MOE_RESIDENCY_H
#define DM_MOE_RESIDENCY_H

#include "base/status.h"

typedef struct dm_residency {
    void *user;
    double slowest; /* seconds that an expert of the slowest tier takes, > 0 */
    /* tau [experts] receives the seconds that each expert of a layer would take, 0 for those that cost nothing. */
    void (*times)(void *user, int32_t layer, float *tau);
    /* These different experts of the layer are used next, in this order. Returns how many of them were there. */
    size_t (*use)(void *user, int32_t layer, const int32_t *experts, size_t n);
    void (*free)(void *user);
} dm_residency;

/* An LRU of `slots` experts for each layer; others take a second. On failure *out is empty; else it ends with
 * out->free(out->user). */
dm_status dm_residency_simulate(int32_t layers, int32_t experts, int32_t slots, dm_residency *out);

#endif
