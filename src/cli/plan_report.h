/* What `dilmodeli topology --plan` prints. */
#ifndef DM_CLI_PLAN_REPORT_H
#define DM_CLI_PLAN_REPORT_H

/* Plans where the model in a file would lie on this machine, or on one that `machine` describes as hwloc's synthetic topologies
 * do (NULL: this one), for dm_threads() threads or, elsewhere, one a core. Returns the status of the command. */
int plan_print(const char *path, const char *machine);

#endif
