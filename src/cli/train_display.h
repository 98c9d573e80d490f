/* What a training run shows while it goes: one line redrawn in place on a terminal, a line now and then elsewhere. */
#ifndef DM_CLI_TRAIN_DISPLAY_H
#define DM_CLI_TRAIN_DISPLAY_H

#include "dilmodeli.h"

/* Takes over the library's log lines, so that they do not mix with the progress line. */
void train_display_begin(void);
/* A dm_train_fn. */
void train_display_step(void *user, const dm_train_progress *progress);
/* Clears the progress line and gives the log lines back. */
void train_display_end(void);

#endif
