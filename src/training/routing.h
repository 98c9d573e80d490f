/* Who chooses the experts of a layer's tokens in training, and the prices that outlive a step. */
#ifndef DM_TRAINING_ROUTING_H
#define DM_TRAINING_ROUTING_H

#include "moe/nash_router.h"
#include "training/rows.h"

/* What the loss says of routing beside the cross-entropy: weights (0: not computed), or values, then in the mean over layers.
 * Rewards are taken from the loss. Definitions: core/loss.h, core/swarm_loss.h. */
typedef struct dm_router_losses {
    double switch_loss; /* its value is always computed */
    double balance_loss;
    double cache_reward;
    double swarm_reward;
    double nash_loss;
} dm_router_losses;

typedef struct dm_train_routing_rules {
    bool plays;         /* training's tokens play; else the model chooses */
    dm_nash_rules game; /* one of each layer and pass; its flock and beta are those of the Nash loss, too */
    dm_router_losses weights;
    int32_t cache_slots; /* experts of a layer that are resident, of the cache reward: 1 to all */
} dm_train_routing_rules;

/* The games since the figures were cleared. */
typedef struct dm_train_routing_figures {
    uint64_t games;
    double sweeps;         /* sum over games */
    double potential_gain; /* sum over games of what play added to the potential, per token */
    double max_regret;     /* of any game */
    double seconds;        /* spent on flocks and games */
} dm_train_routing_figures;

typedef struct dm_train_routing dm_train_routing;

/* For up to `tokens` tokens at a time. */
dm_status dm_train_routing_create(const dm_train_routing_rules *rules, size_t tokens, dm_train_routing **out);
void dm_train_routing_free(dm_train_routing *it);

/* True where tokens play in training, and experts [n, top_k] are filled (dm_nash_router_play()); false where the model's own
 * choice by logits [n, n_experts] plus bias [n_experts] is meant. While the model trains, all tokens of a layer play one game.
 * Else prices are frozen, as in the bias, and every token chooses alone, so that none depends on a later one; that is the
 * model's own choice unless the number of experts adapts. candidates [n, flock] receives the flocks where not NULL. */
bool dm_train_routing_choose(dm_train_routing *it, dm_rows logits, const float *bias, size_t n, bool trains, int32_t *experts,
                             int32_t *candidates);

const dm_train_routing_figures *dm_train_routing_figures_of(const dm_train_routing *it);
void dm_train_routing_clear_figures(dm_train_routing *it);

/*
 * After a step of `tokens` tokens with these loads: price_e += rate * (c_e(n_e) - mean c), where c_e(n) = beta n / nbar is the
 * game's crowding and the price is the bias with its sign turned. This is the method of multipliers (Hestenes 1969, Powell
 * 1969): crowding is the penalty on loads that are not even, the price the multiplier, which takes over what the penalty
 * carries until crowding is the same for all; then the choice by affinity and price alone is the game's. A running mean of
 * c_e(n_e) instead comes to rest where price and crowding carry half each: loads stay half as uneven as the game left them.
 */
void dm_train_routing_persist(float *bias, const uint64_t *loads, size_t tokens, const dm_nash_rules *rules, double rate);

#endif
