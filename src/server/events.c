/* GET /events: what the engine posts, to who watches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "server/server_parts.h"

typedef struct watcher {
    dm_server *server;
    struct MHD_Connection *connection;
    uint64_t serial;
    char *event; /* [length] of which `at` bytes were sent */
    size_t length, at;
} watcher;

static void set_event(watcher *it, const char *text) {
    free(it->event);
    it->event = NULL;
    it->at = 0;
    int length = text != NULL ? asprintf(&it->event, "data: %s\n\n", text) : asprintf(&it->event, ": nothing new\n\n");
    it->length = length > 0 ? (size_t)length : 0;
}

static ssize_t read_events(void *user, uint64_t position, char *out, size_t most) {
    enum { WAIT_MS = 1000 };
    watcher *it = user;
    (void)position;
    while (it->at == it->length) {
        if (atomic_load(&it->server->stopping)) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        char *text = dm_board_read(dm_engine_board(it->server->engine), &it->serial, WAIT_MS);
        set_event(it, text);
        free(text);
        if (it->length == 0 || dm_peer_gone(it->connection)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        dm_touch(it->server, it->connection);
    }
    size_t n = it->length - it->at < most ? it->length - it->at : most;
    memcpy(out, it->event + it->at, n);
    it->at += n;
    return (ssize_t)n;
}

static void release_watcher(void *user) {
    watcher *it = user;
    dm_board_watch(dm_engine_board(it->server->engine), -1);
    free(it->event);
    dm_free(it);
}

dm_http_result dm_answer_events(dm_exchange *exchange) {
    watcher *it = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return dm_send_failure(exchange, DM_ERR_MEMORY, NULL);
    }
    it->server = exchange->server;
    it->connection = exchange->connection;
    dm_board_watch(dm_engine_board(exchange->server->engine), 1);
    dm_engine_wake(exchange->server->engine);
    return dm_send_events(exchange, read_events, it, release_watcher);
}
