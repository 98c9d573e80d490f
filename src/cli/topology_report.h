/* What the command topology prints. */
#ifndef DM_CLI_TOPOLOGY_REPORT_H
#define DM_CLI_TOPOLOGY_REPORT_H

#include "dilmodeli.h"

void topology_print_text(const dm_topology *topology);
void topology_print_json(const dm_topology *topology);

#endif
