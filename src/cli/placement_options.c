#include "cli/placement_options.h"

#include <string.h>

cli_placement_values cli_placement;
static dm_numa numa = DM_NUMA_AUTO;

int cli_placement_apply(void) {
    const char *huge = cli_placement.huge_pages;
    dm_binding binding = DM_BIND_AUTO;
    if (cli_placement.bind != NULL && dm_binding_from_name(cli_placement.bind, &binding) != DM_OK) {
        return cli_usage_error("--bind: %s", dm_error_message());
    }
    if (huge != NULL && strcmp(huge, "on") != 0 && strcmp(huge, "off") != 0) {
        return cli_usage_error("--huge-pages expects on or off, not '%s'", huge);
    }
    if (cli_placement.numa != NULL && dm_numa_from_name(cli_placement.numa, &numa) != DM_OK) {
        return cli_usage_error("--numa: %s", dm_error_message());
    }
    if (cli_placement.machine != NULL && numa == DM_NUMA_OFF) {
        return cli_usage_error("--machine is of no use with --numa off");
    }
    if (cli_placement.numa == NULL && cli_placement.machine == NULL && binding == DM_BIND_NONE) {
        numa = DM_NUMA_OFF; /* threads that go anywhere are near no node */
    }
    dm_set_huge_pages(huge == NULL || strcmp(huge, "on") == 0);
    return dm_bind_threads(binding) == DM_OK ? CLI_DONE : cli_fail_status();
}

dm_status cli_placement_model(dm_model *model) {
    return dm_model_place(model, numa, cli_placement.machine);
}
