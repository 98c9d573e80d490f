#include "server/queue.h"

#include <stddef.h>

void dm_queue_put(dm_queue *queue, dm_choice *choice) {
    choice->next = NULL;
    if (queue->last != NULL) {
        queue->last->next = choice;
    } else {
        queue->first = choice;
    }
    queue->last = choice;
    queue->count++;
}

/* Takes out what follows `before`, or what is first where that is NULL. */
static dm_choice *take_after(dm_queue *queue, dm_choice *before) {
    dm_choice **link = before != NULL ? &before->next : &queue->first;
    dm_choice *taken = *link;
    *link = taken->next;
    queue->last = queue->last == taken ? before : queue->last;
    queue->count--;
    taken->next = NULL;
    return taken;
}

static uint64_t last_turn(const dm_queue *queue, uint64_t client) {
    for (size_t i = 0; i < DM_QUEUE_CLIENTS; i++) {
        if (queue->served[i].client == client) {
            return queue->served[i].turn;
        }
    }
    return 0;
}

static void note_turn(dm_queue *queue, uint64_t client) {
    size_t at = 0;
    for (size_t i = 0; i < DM_QUEUE_CLIENTS; i++) {
        if (queue->served[i].client == client) {
            at = i;
            break;
        }
        at = queue->served[i].turn < queue->served[at].turn ? i : at;
    }
    queue->served[at].client = client;
    queue->served[at].turn = ++queue->turn;
}

dm_choice *dm_queue_take(dm_queue *queue) {
    dm_choice *before_best = NULL, *before = NULL;
    uint64_t best = UINT64_MAX;
    for (dm_choice *it = queue->first; it != NULL; before = it, it = it->next) {
        uint64_t turn = last_turn(queue, it->request->client);
        if (turn < best) {
            best = turn;
            before_best = before;
        }
    }
    if (queue->first == NULL) {
        return NULL;
    }
    dm_choice *taken = take_after(queue, before_best);
    note_turn(queue, taken->request->client);
    return taken;
}

dm_choice *dm_queue_take_stale(dm_queue *queue, double now) {
    dm_choice *before = NULL;
    for (dm_choice *it = queue->first; it != NULL; before = it, it = it->next) {
        if (atomic_load(&it->request->cancelled) || now > it->request->deadline) {
            return take_after(queue, before);
        }
    }
    return NULL;
}
