#include "server/board.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/waiting.h"

void dm_board_init(dm_board *board) {
    *board = (dm_board){0};
    pthread_mutex_init(&board->lock, NULL);
    dm_condition_init(&board->posted);
}

void dm_board_free(dm_board *board) {
    pthread_mutex_destroy(&board->lock);
    pthread_cond_destroy(&board->posted);
    free(board->text);
}

void dm_board_watch(dm_board *board, int change) {
    pthread_mutex_lock(&board->lock);
    board->watchers += change;
    pthread_mutex_unlock(&board->lock);
}

bool dm_board_watched(dm_board *board) {
    pthread_mutex_lock(&board->lock);
    bool watched = board->watchers > 0;
    pthread_mutex_unlock(&board->lock);
    return watched;
}

bool dm_board_due(dm_board *board, double now) {
    return now - board->last >= DM_BOARD_PERIOD && dm_board_watched(board);
}

void dm_board_post(dm_board *board, char *text, double now) {
    board->last = now;
    if (text == NULL) {
        return;
    }
    pthread_mutex_lock(&board->lock);
    free(board->text);
    board->text = text;
    board->serial++;
    pthread_cond_broadcast(&board->posted);
    pthread_mutex_unlock(&board->lock);
}

char *dm_board_read(dm_board *board, uint64_t *serial, int wait_ms) {
    const struct timespec until = dm_time_after(wait_ms);
    pthread_mutex_lock(&board->lock);
    int waited = 0;
    while (board->serial == *serial && waited != ETIMEDOUT) {
        waited = pthread_cond_timedwait(&board->posted, &board->lock, &until);
    }
    char *text = board->serial != *serial && board->text != NULL ? strdup(board->text) : NULL;
    *serial = board->serial;
    pthread_mutex_unlock(&board->lock);
    return text;
}
