#include "server/request.h"

#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"
#include "server/request_parts.h"
#include "server/waiting.h"

/* ---- The outbox ---- */

void dm_piece_free(dm_piece *piece) {
    if (piece != NULL) {
        free(piece->text);
        free(piece->odds);
        free(piece->vector);
        free(piece);
    }
}

static void free_request(dm_request *request) {
    for (dm_piece *piece = request->first, *next; piece != NULL; piece = next) {
        next = piece->next;
        dm_piece_free(piece);
    }
    for (size_t i = 0; i < request->n_prompts; i++) {
        free(request->prompts[i].ids);
    }
    for (size_t i = 0; i < request->n_stops; i++) {
        free(request->stops[i]);
    }
    free(request->tools.functions);
    json_decref(request->tools.list);
    free(request->prompts);
    free(request->biases);
    dm_grammar_free(request->grammar);
    pthread_mutex_destroy(&request->lock);
    pthread_cond_destroy(&request->changed);
    dm_free(request);
}

void dm_request_drop(dm_request *request) {
    if (request != NULL && atomic_fetch_sub(&request->holders, 1) == 1) {
        free_request(request);
    }
}

dm_request *dm_request_create(dm_request_kind kind) {
    dm_request *request = dm_alloc(1, sizeof *request);
    if (request == NULL) {
        return NULL;
    }
    request->kind = kind;
    request->arrived = dm_seconds();
    atomic_init(&request->cancelled, false);
    atomic_init(&request->holders, 1);
    pthread_mutex_init(&request->lock, NULL);
    dm_condition_init(&request->changed);
    return request;
}

void dm_request_put(dm_request *request, dm_piece *piece) {
    pthread_mutex_lock(&request->lock);
    if (request->last != NULL) {
        request->last->next = piece;
    } else {
        request->first = piece;
    }
    request->last = piece;
    request->open -= piece->finish != DM_FINISH_NONE;
    pthread_cond_signal(&request->changed);
    pthread_mutex_unlock(&request->lock);
}

dm_piece *dm_request_take(dm_request *request, int wait_ms, bool *done) {
    const struct timespec until = dm_time_after(wait_ms);
    pthread_mutex_lock(&request->lock);
    int waited = 0;
    while (request->first == NULL && request->open > 0 && waited != ETIMEDOUT) {
        waited = pthread_cond_timedwait(&request->changed, &request->lock, &until);
    }
    dm_piece *piece = request->first;
    if (piece != NULL) {
        request->first = piece->next;
        request->last = request->first != NULL ? request->last : NULL;
        piece->next = NULL;
    }
    *done = request->first == NULL && request->open <= 0;
    pthread_mutex_unlock(&request->lock);
    return piece;
}
