/* Prices that clear the market: after training, weights stand still and prices move until experts are evenly used. */
#ifndef DM_TRAINING_SETTLE_H
#define DM_TRAINING_SETTLE_H

#include "training/network.h"

/* Runs the network over text that it was trained on, another piece each time. */
typedef dm_status (*dm_settle_read_fn)(void *user);

/*
 * `passes` times, each expert's price rises by what its load is above the mean, as a share of it, times a gain that falls like
 * one over the passes done (Robbins and Monro 1951): tatonnement. bias [n_layers, n_experts], the price with its sign turned,
 * becomes its mean over the second half of them (Polyak and Juditsky 1992). On failure, also when interrupted, it is as it was.
 */
dm_status dm_settle_prices(const dm_network *network, const dm_config *config, float *bias, int64_t passes,
                           dm_settle_read_fn read, void *user);

#endif
