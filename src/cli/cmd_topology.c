/* dilmodeli topology: what the machine consists of, and how fast its tiers of memory and its disk are read. */
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/plan_report.h"
#include "cli/topology_report.h"

static bool refresh;
static const char *plan, *machine;

static const cli_option options[] = {
    {"refresh", 0, CLI_FLAG, &refresh, NULL, "measure again what is kept"},
    {"plan", 0, CLI_STRING, &plan, "MODEL", "measure nothing; say how this model would lie on several memory nodes"},
    {"machine", 0, CLI_STRING, &machine, "TEXT", "with --plan: another machine, described as hwloc does"},
};

static const cli_usage usage = {
    .synopsis = "dilmodeli topology [MODEL] [options]",
    .summary = "Shows caches, cores, memory nodes, instruction sets, huge pages and how much memory may be used, and measures\n"
               "bandwidth and latency of each tier of memory and of the disk below MODEL (or a folder; by default the user's\n"
               "cache folder). That takes up to ten seconds, in which the machine should do nothing else, and is kept for\n"
               "the next time.",
    .example = "  dilmodeli topology\n"
               "  dilmodeli topology model.gguf --json\n"
               "  dilmodeli topology --refresh --threads 8\n"
               "  dilmodeli topology --plan model.gguf --machine \"pack:2 numa:1 core:8 pu:2\"",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .min_arguments = 0,
    .max_arguments = 1,
};

/* On a terminal, one line that the next one overwrites. */
static void show_step(void *user, const char *what) {
    (void)user;
    fprintf(stderr, "\r\033[Kmeasuring: %s", what);
}

int cmd_topology(int argc, char **argv) {
    int n, status;
    if (!cli_parse(&usage, argc, argv, &n, &status)) {
        return status;
    }
    if ((plan != NULL && n > 0) || (plan == NULL && machine != NULL)) {
        return cli_usage_error(plan != NULL ? "--plan names the model; there is no other argument"
                                            : "--machine goes with --plan");
    }
    if (plan != NULL) {
        return plan_print(plan, machine);
    }
    bool terminal = isatty(STDERR_FILENO) != 0;
    const dm_topology_options how = {.path = n > 0 ? argv[0] : NULL, .refresh = refresh, .on_step = terminal ? show_step : NULL};
    dm_topology topology;
    dm_status measured = dm_topology_measure(&how, &topology);
    if (terminal) {
        fputs("\r\033[K", stderr);
    }
    if (measured != DM_OK) {
        return cli_fail_status();
    }
    if (cli_json()) {
        topology_print_json(&topology);
    } else {
        topology_print_text(&topology);
    }
    dm_topology_free(&topology);
    return CLI_DONE;
}
