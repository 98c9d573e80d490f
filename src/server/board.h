/* What the engine is doing, as JSON, for who watches it. */
#ifndef DM_SERVER_BOARD_H
#define DM_SERVER_BOARD_H

#include <pthread.h>

#include "base/status.h"

#define DM_BOARD_PERIOD 0.25 /* seconds between two posts */

typedef struct dm_board {
    pthread_mutex_t lock;
    pthread_cond_t posted;
    char *text; /* the last post */
    uint64_t serial;
    int watchers;
    double last; /* the engine's: when it posted */
} dm_board;

void dm_board_init(dm_board *board);
void dm_board_free(dm_board *board);
/* A watcher comes (1) or goes (-1). */
void dm_board_watch(dm_board *board, int change);
/* Whether somebody watches and it is time for another post. */
bool dm_board_due(dm_board *board, double now);
bool dm_board_watched(dm_board *board);
/* Takes `text` over; NULL is as if nothing had been posted. */
void dm_board_post(dm_board *board, char *text, double now);
/* A copy (malloc) of a post later than number *serial, which becomes its number; NULL: none came within `wait_ms`. */
char *dm_board_read(dm_board *board, uint64_t *serial, int wait_ms);

#endif
