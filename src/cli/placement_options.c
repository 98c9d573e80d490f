#include "cli/placement_options.h"

#include <string.h>

cli_placement_values cli_placement;

int cli_placement_apply(void) {
    const char *huge = cli_placement.huge_pages;
    dm_binding binding = DM_BIND_AUTO;
    if (cli_placement.bind != NULL && dm_binding_from_name(cli_placement.bind, &binding) != DM_OK) {
        return cli_usage_error("--bind: %s", dm_error_message());
    }
    if (huge != NULL && strcmp(huge, "on") != 0 && strcmp(huge, "off") != 0) {
        return cli_usage_error("--huge-pages expects on or off, not '%s'", huge);
    }
    dm_set_huge_pages(huge == NULL || strcmp(huge, "on") == 0);
    return dm_bind_threads(binding) == DM_OK ? CLI_DONE : cli_fail_status();
}
