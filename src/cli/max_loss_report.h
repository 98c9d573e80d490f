/* What eval --max-loss prints beside what eval does. */
#ifndef DM_CLI_MAX_LOSS_REPORT_H
#define DM_CLI_MAX_LOSS_REPORT_H

#include <jansson.h>

#include "dilmodeli.h"

/* "1%" or "0.01"; false for what is no share from 0 to below 1. */
bool max_loss_parse(const char *text, double *limit);

/* A dm_max_loss_fn: a line for each pass on standard error, and on a terminal how far it is; `user` is a bool for that. */
void max_loss_progress(void *user, const dm_max_loss_progress *progress);

/* `options` are those to give again, or NULL. */
void max_loss_print(const dm_max_loss_result *result, double limit, const char *options);
/* The object "max_loss". */
json_t *max_loss_json(const dm_max_loss_result *result, double limit, const char *options);

#endif
