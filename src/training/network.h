/*
 * The whole model forward and backward over a batch of sequences. Memory for the activations is taken once, at creation.
 */
#ifndef DM_TRAINING_NETWORK_H
#define DM_TRAINING_NETWORK_H

#include "kernels/matmul.h"
#include "training/parameters.h"

typedef struct dm_network dm_network;

/* For up to `sequences` sequences of `length` positions at a time. The parameters must outlive the network. */
dm_status dm_network_create(dm_parameters *parameters, size_t sequences, size_t length, dm_precision precision, dm_network **out);
void dm_network_free(dm_network *network);

/* ids and targets [sequences * length], checked against the vocabulary; a target of -1 is not predicted. *loss receives the
 * summed cross-entropy, nats. */
dm_status dm_network_loss(dm_network *network, const int32_t *ids, const int32_t *targets, size_t sequences, double *loss);

/* The same, and adds to the parameters' gradients those of scale * (summed cross-entropy) + aux * (mean over layers of
 * the Switch loss). */
dm_status dm_network_gradients(dm_network *network, const int32_t *ids, const int32_t *targets, size_t sequences, float scale,
                               double aux, double *loss);

/* While on, later passes keep the experts that the last pass chose for the token at each place. */
void dm_network_fix_routing(dm_network *network, bool on);

/* Of the last pass: the Switch loss, mean over layers (0 for dense models), and how many tokens chose each expert,
 * [n_layers, n_experts], owned by the network. */
double dm_network_switch_loss(const dm_network *network);
const uint64_t *dm_network_loads(const dm_network *network);

#endif
