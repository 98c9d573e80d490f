/* Answers that wait for a slot: clients take turns, and each client's own come in order. Not for several threads at once. */
#ifndef DM_SERVER_QUEUE_H
#define DM_SERVER_QUEUE_H

#include "server/choice.h"

enum { DM_QUEUE_CLIENTS = 256 };

typedef struct dm_queue {
    dm_choice *first, *last;
    int32_t count;
    uint64_t turn; /* counts what was taken */
    struct {
        uint64_t client, turn;
    } served[DM_QUEUE_CLIENTS]; /* when each client had its last turn; the longest ago is forgotten for a new one */
} dm_queue;

/* Start from {0}. */
void dm_queue_put(dm_queue *queue, dm_choice *choice);
/* The first answer of the client whose last turn was longest ago; NULL: none waits. */
dm_choice *dm_queue_take(dm_queue *queue);
/* The first answer that nobody waits for any more, or whose time is up at `now`; NULL: there is none. */
dm_choice *dm_queue_take_stale(dm_queue *queue, double now);

#endif
