/* The options of routing, the same for every command that runs a model. */
#ifndef DM_CLI_ROUTING_OPTIONS_H
#define DM_CLI_ROUTING_OPTIONS_H

#include "cli/cli.h"

/* What was given, or the library's default. */
typedef struct cli_routing_values {
    const char *policy, *payoff, *disabled, *evict, *ram, *memory;
    int64_t flock, flock_resident, keep_top, max_experts, min_experts, sweeps, resident, chunk, prefetch;
    double gamma, beta, theta, sleep, patience;
    bool no_bias;
} cli_routing_values;

extern cli_routing_values cli_routing;

/* Entries for a command's table of options. */
#define CLI_ROUTING_OPTIONS                                                                                                      \
    {"router", 0, CLI_STRING, &cli_routing.policy, "POLICY", "who chooses experts: the model, or nash, the routing game"},       \
        {"flock", 0, CLI_INT, &cli_routing.flock, "G", "nash: experts that a token looks at; 0: max(7, 2k)"},                    \
        {"flock-resident",                                                                                                       \
         0,                                                                                                                      \
         CLI_INT,                                                                                                                \
         &cli_routing.flock_resident,                                                                                            \
         "N",                                                                                                                    \
         "nash: and of those in memory; 0: as many as it uses; -1: none"},                                                       \
        {"payoff", 0, CLI_STRING, &cli_routing.payoff, "WHAT", "nash: an expert is worth its gate, or affinity"},                \
        {"gamma", 0, CLI_FLOAT, &cli_routing.gamma, "X", "nash: price of fetching an expert, in spreads of payoffs"},            \
        {"beta", 0, CLI_FLOAT, &cli_routing.beta, "X", "nash: price of crowding, at an even load"},                              \
        {"keep-top", 0, CLI_INT, &cli_routing.keep_top, "J", "nash: a token's best J experts are always taken"},                 \
        {"min-experts", 0, CLI_INT, &cli_routing.min_experts, "K", "nash: fewest experts of a token, with --theta; 0: 1"},       \
        {"theta", 0, CLI_FLOAT, &cli_routing.theta, "X", "nash: leave out experts below X times the best one's probability"},    \
        {"sweeps", 0, CLI_INT, &cli_routing.sweeps, "N", "nash: most of a game; 0: one answer to the model's own loads"},        \
        {"joint", 0, CLI_INT, &cli_routing.chunk, "N", "read prompts N tokens at a time, which nash routes together; 0: alone"}, \
        {"max-experts", 0, CLI_INT, &cli_routing.max_experts, "K", "most experts of a token; 0: as the model was trained"},      \
        {"resident", 0, CLI_INT, &cli_routing.resident, "N", "count, and price, as if N experts of a layer fit into memory"},    \
        {"ram",      0,                                                                                                          \
         CLI_STRING, &cli_routing.ram,                                                                                           \
         "BYTES",    "keep experts in so much memory, 2G, 50% of all or auto; others on disk"},                                  \
        {"memory", 0, CLI_STRING, &cli_routing.memory, "BYTES", "the same, so that the whole process stays within BYTES"},       \
        {"evict", 0, CLI_STRING, &cli_routing.evict, "POLICY", "who goes then: lru, lfu:N, lfru:X, slru:X, stale"},              \
        {"prefetch", 0, CLI_INT, &cli_routing.prefetch, "N", "layers whose likely experts are read ahead, up to 4; 0: none"},    \
        {"disk-timeout",        0,   CLI_FLOAT,                                                                                  \
         &cli_routing.patience, "S", "seconds without an answer after which the disk has failed; 0: 30"},                        \
        {"sleep", 0, CLI_FLOAT, &cli_routing.sleep, "X", "experts wanted by less than X of the mean sleep until wanted"},        \
        {"disable-experts", 0, CLI_STRING, &cli_routing.disabled, "L:E,..", "never use expert E of layer L; *:E of any layer"},  \
    {                                                                                                                            \
        "no-bias", 0, CLI_FLAG, &cli_routing.no_bias, NULL, "leave out selection biases and prices that training left"           \
    }

/* Before options are parsed. */
void cli_routing_defaults(void);
/* Whether any of the options has another value than its default. */
bool cli_routing_given(void);
/* Streams the model's experts as --ram, --memory and --evict say; before the first session. */
dm_status cli_routing_stream(dm_model *model);
/* Those that have, as they would be given again: " --router nash --gamma 0.2 --resident 16"; the caller's to free(). NULL: no
 * memory. */
char *cli_routing_line(void);
/* *out points into memory of this file's. False after printing what was wrong: the status is CLI_USAGE. */
bool cli_routing_read(dm_router_options *out);

#endif
