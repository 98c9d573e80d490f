/*
 * The whole model forward and backward over a batch of sequences. Memory for the activations is taken once, at creation.
 */
#ifndef DM_TRAINING_NETWORK_H
#define DM_TRAINING_NETWORK_H

#include "kernels/matmul.h"
#include "training/parameters.h"
#include "training/routing.h"
#include "training/watch.h"

typedef struct dm_network dm_network;

/* For up to `sequences` sequences of `length` positions at a time. The parameters must outlive the network. `routing` says how
 * experts are chosen in passes with gradients, and what the loss says of that; NULL: by the model, and nothing. */
dm_status dm_network_create(dm_parameters *parameters, size_t sequences, size_t length, dm_precision precision,
                            const dm_train_routing_rules *routing, dm_network **out);
void dm_network_free(dm_network *network);

/* ids and targets [sequences * length], checked against the vocabulary; a target of -1 is not predicted. *loss receives the
 * summed cross-entropy, nats. No token's experts depend on a later token. */
dm_status dm_network_loss(dm_network *network, const int32_t *ids, const int32_t *targets, size_t sequences, double *loss);

/* A training pass: adds to the parameters' gradients those of scale * (summed cross-entropy) + share * (mean over layers of the
 * weighted losses and rewards of routing). */
dm_status dm_network_gradients(dm_network *network, const int32_t *ids, const int32_t *targets, size_t sequences, float scale,
                               double share, double *loss);

/* While on, later passes are training passes that keep the experts which the last pass chose for the token at each place, and
 * all else that its losses held fixed. */
void dm_network_fix_routing(dm_network *network, bool on);

/* From now on passes with gradients show them to `watch`, which must outlive them, and predict what it draws instead of their
 * targets, but for those of -1. NULL: no more. */
void dm_network_watch(dm_network *network, const dm_gradient_watch *watch);

/* Of the last pass: the losses of routing (all 0 for dense models; the Switch loss alone outside training), and how many
 * tokens chose each expert, [n_layers, n_experts], owned by the network. */
const dm_router_losses *dm_network_router_losses(const dm_network *network);
const uint64_t *dm_network_loads(const dm_network *network);
/* NULL without routing rules, and for dense models. Its figures are the caller's to clear. */
dm_train_routing *dm_network_routing(const dm_network *network);

#endif
