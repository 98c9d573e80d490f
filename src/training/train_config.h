/* Everything a training run can be told, as one struct filled from one table of named options. */
#ifndef DM_TRAINING_TRAIN_CONFIG_H
#define DM_TRAINING_TRAIN_CONFIG_H

#include <stdio.h>

#include "kernels/matmul.h"
#include "model/config.h"
#include "training/routing.h"

typedef enum dm_balance {
    DM_BALANCE_NONE,
    DM_BALANCE_SWITCH,    /* auxiliary loss of Fedus et al. 2021 */
    DM_BALANCE_LOSS_FREE, /* bias on the choice, Wang et al. 2024 (arXiv 2408.15664) */
} dm_balance;

/* A list of strings, each and the array owned by the config. */
typedef struct dm_string_list {
    char **items;
    size_t count;
} dm_string_list;

struct dm_train_config {
    /* text */
    dm_string_list data;  /* "data": files or folders to train on */
    dm_string_list valid; /* "valid": files or folders held out; empty: 1/60 of the documents in data */
    char *out;            /* "out": run folder */
    char *tokenizer;      /* "tokenizer": GGUF to take the vocabulary from; NULL: learn one of `vocab` */
    int64_t vocab;        /* "vocab" */
    /* model */
    char *model;         /* "model": GGUF to start from; NULL: fresh weights of the shape below */
    char *arch;          /* "arch": qwen3moe, gpt2 */
    int64_t layers, dim; /* "layers", "dim" */
    int64_t heads;       /* "heads" */
    int64_t kv_heads;    /* "kv-heads", 0: as heads */
    int64_t head_dim;    /* "head-dim", 0: dim / heads */
    int64_t ffn_dim;     /* "ffn-dim", 0: 4 dim (gpt2) */
    int64_t experts;     /* "experts" */
    int64_t top_k;       /* "top-k" */
    int64_t expert_dim;  /* "expert-dim" */
    double rope_base;    /* "rope-base" */
    bool tied_output;    /* "tied-output" */
    /* optimisation */
    int64_t context;        /* "context": tokens per sequence */
    int64_t batch;          /* "batch": sequences per step */
    int64_t micro_batch;    /* "micro-batch": sequences per pass, gradients added up; 0: as many as 4,096 tokens hold */
    int64_t steps;          /* "steps"; 0: from tokens */
    int64_t tokens;         /* "tokens": in all; used when steps is 0 */
    double lr, min_lr;      /* "lr" peak, "min-lr" at the end, as a share of lr */
    int64_t warmup;         /* "warmup": steps */
    double weight_decay;    /* "weight-decay", matrices only */
    double beta1, beta2;    /* "beta1", "beta2" */
    double eps;             /* "eps" */
    double clip;            /* "clip": largest gradient norm, 0: off */
    dm_precision precision; /* "precision": f32, bf16 */
    dm_balance balance;     /* "balance": none, switch, loss-free */
    double aux;             /* "aux": weight of the Switch loss */
    double bias_rate;       /* "bias-rate": step u of loss-free balancing */
    uint64_t seed;          /* "seed" */
    /* routing */
    dm_router_policy router; /* "router": model, nash */
    int64_t flock;           /* "flock": 0: max(7, 2 top-k), at most experts */
    double beta;             /* "beta": price of crowding at an even load */
    double gamma;            /* "gamma": price of fetching, as a share of the spread of affinities */
    int64_t keep_top;        /* "keep-top": a token's best that are always taken */
    int64_t min_experts;     /* "min-experts": fewest of a token; 0: top-k, or 1 with theta */
    double theta;            /* "theta": experts below this share of the best one's probability are left out, 0: none */
    int64_t sweeps;          /* "sweeps": most of a game */
    int64_t settle;          /* "settle": passes after the last step in which prices alone move, 0: none */
    double price_rate;       /* "price-rate": at which crowding becomes a persistent price, 0: never */
    double balance_loss;     /* "balance-loss": weight */
    double cache_reward;     /* "cache-reward": weight */
    double swarm_reward;     /* "swarm-reward": weight */
    double nash_loss;        /* "nash-loss": weight */
    int64_t cache_slots;     /* "cache-slots": resident experts of a layer, of the cache reward; 0: half */
    /* watching */
    int64_t valid_every;   /* "valid-every": steps, 0: only at the end */
    int64_t valid_tokens;  /* "valid-tokens": read at each validation, 0: all; the last one reads all */
    int64_t sample_every;  /* "sample-every": steps, 0: never */
    int64_t sample_tokens; /* "sample-tokens" */
    char *sample_prompt;   /* "sample-prompt" */
    int64_t save_every;    /* "save-every": steps between checkpoints, 0: only at the end and on interruption */
    dm_type export_type;   /* "export-type": f32, f16, bf16 of DIR/model.gguf */
};

/* Every option is sensible and they fit together; the message names the option. */
dm_status dm_train_config_check(const dm_train_config *config);

/* The shape that the options of the model ask for, zeros replaced by what they stand for; dm_train_config_check() says
 * whether it is sound. Meaningless where "model" is set. */
void dm_train_config_shape(const dm_train_config *config, int32_t vocab, dm_config *out);

/* The routing that the options ask for in a model of this shape; DM_ERR_ARGUMENT, naming the option, where they do not fit. */
dm_status dm_train_config_routing(const dm_train_config *config, const dm_config *shape, dm_train_routing_rules *out);

/* Writes all values as `name = value` lines that dm_train_config_load() reads back to the same config. Errors of the
 * stream are left to its owner. */
dm_status dm_train_config_write(const dm_train_config *config, FILE *stream);

#endif
