/* The options that say where threads run and memory lies, the same for every command that runs a model. */
#ifndef DM_CLI_PLACEMENT_OPTIONS_H
#define DM_CLI_PLACEMENT_OPTIONS_H

#include "cli/cli.h"

typedef struct cli_placement_values {
    const char *bind, *huge_pages, *numa, *machine;
} cli_placement_values;

extern cli_placement_values cli_placement;

/* Entries for a command's table of options. */
#define CLI_PLACEMENT_OPTIONS                                                                                                    \
    {"bind", 0, CLI_STRING, &cli_placement.bind, "PLACE", "threads to cores, none, or auto: to memory nodes if there are some"}, \
    {                                                                                                                            \
        "huge-pages", 0, CLI_STRING, &cli_placement.huge_pages, "on|off", "ask for huge pages behind weights, keys and values"   \
    }

/* Those of commands that run a model on several memory nodes. */
#define CLI_NUMA_OPTIONS                                                                                                         \
    {"numa", 0, CLI_STRING, &cli_placement.numa, "HOW", "weights on several memory nodes: spread, mirror, off or auto"}, {       \
        "machine", 0, CLI_STRING, &cli_placement.machine, "TEXT", "deal work out as for this machine's nodes (see topology)"     \
    }

/* Does what was given, for dm_threads() as it is. CLI_DONE, or after printing what was wrong another status. */
int cli_placement_apply(void);

/* Places a model that was just opened, as was given. On failure dm_error_message() says why. */
dm_status cli_placement_model(dm_model *model);

#endif
