/* Answers while they are made, as server-sent events. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/table.h"
#include "base/threads.h"
#include "server/server_parts.h"

enum { LOOK_MS = 200 };                  /* how soon a client that is gone is noticed */
static const double quiet_period = 10.0; /* seconds without a word after which a comment is sent */

typedef struct dm_stream {
    dm_server *server;
    struct MHD_Connection *connection;
    dm_request *request;
    dm_answer_head head;
    dm_calls *calls;  /* [answers] */
    dm_piece *piece;  /* the first one, which was there before the stream */
    bool done, ended; /* no more pieces; everything was written */
    char *buffer;     /* [length] of which `at` bytes were sent */
    size_t length, at, room;
} dm_stream;

/* ---- Writing ---- */

static dm_status write_bytes(dm_stream *stream, const char *bytes, size_t length) {
    DM_TRY(dm_reserve(&stream->buffer, &stream->room, stream->length + length, 1));
    memcpy(stream->buffer + stream->length, bytes, length);
    stream->length += length;
    return DM_OK;
}

/* Takes `object` over. */
static dm_status write_event(dm_stream *stream, json_t *object) {
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (text == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for an answer");
    }
    dm_status status = write_bytes(stream, "data: ", 6);
    status = status == DM_OK ? write_bytes(stream, text, strlen(text)) : status;
    free(text);
    return status == DM_OK ? write_bytes(stream, "\n\n", 2) : status;
}

static json_t *odds_json(const dm_stream *stream, const dm_piece *piece) {
    return piece->n_odds > 0 ? dm_odds_json(stream->request, stream->head.tokenizer, piece->odds, piece->n_odds) : json_null();
}

/* A piece of a chat, part by part. */
typedef struct parts {
    dm_stream *stream;
    const dm_piece *piece;
    json_t *odds; /* not written yet; with the first part, NULL from there on */
} parts;

static dm_status write_delta(parts *of, json_t *delta, json_t *finish) {
    json_t *odds = of->odds != NULL ? of->odds : json_null();
    of->odds = NULL;
    return write_event(of->stream, dm_chunk_json(&of->stream->head, of->stream->request, of->piece->choice, delta, odds, finish));
}

static dm_status write_part(void *user, const dm_call_part *part) {
    parts *of = user;
    return write_delta(of, dm_delta_json(&of->stream->head, of->piece->choice, part), json_null());
}

static dm_status write_parts(dm_stream *stream, const dm_piece *piece) {
    dm_calls *calls = &stream->calls[piece->choice];
    parts of = {stream, piece, piece->n_odds > 0 ? odds_json(stream, piece) : NULL};
    bool last = piece->finish != DM_FINISH_NONE;
    dm_status status = dm_calls_take(calls, piece->text, piece->length, last, &(dm_call_sink){write_part, &of});
    if (status == DM_OK && (last || of.odds != NULL)) {
        status = write_delta(&of, json_object(), dm_finish_json(piece->finish, calls->count));
    }
    json_decref(of.odds);
    return status;
}

static dm_status write_piece(dm_stream *stream, const dm_piece *piece) {
    if (piece->finish == DM_FINISH_ERROR) {
        return write_event(stream, dm_problem_json(piece->status, NULL, piece->text != NULL ? piece->text : "out of memory"));
    }
    if (stream->request->kind == DM_REQUEST_CHAT) {
        return write_parts(stream, piece);
    }
    json_t *text = json_stringn(piece->text != NULL ? piece->text : "", piece->length);
    return write_event(stream, dm_chunk_json(&stream->head, stream->request, piece->choice, text, odds_json(stream, piece),
                                             dm_finish_json(piece->finish, 0)));
}

/* What comes after the last piece. */
static dm_status write_end(dm_stream *stream) {
    stream->ended = true;
    if (stream->request->include_usage) {
        DM_TRY(write_event(stream, dm_usage_chunk_json(&stream->head, stream->request)));
    }
    static const char last[] = "data: [DONE]\n\n";
    return write_bytes(stream, last, sizeof last - 1);
}

/* The next piece, or a comment where none comes for long; DM_ERR_INTERRUPTED: nobody listens any more. */
static dm_status fill(dm_stream *stream) {
    static const char comment[] = ": still at work\n\n";
    double start = dm_seconds();
    dm_piece *piece = stream->piece;
    stream->piece = NULL;
    while (piece == NULL && !stream->done) {
        if (dm_peer_gone(stream->connection)) {
            return dm_fail(DM_ERR_INTERRUPTED, "the client is gone");
        }
        piece = dm_request_take(stream->request, LOOK_MS, &stream->done);
        if (piece == NULL && !stream->done && dm_seconds() - start > quiet_period) {
            return write_bytes(stream, comment, sizeof comment - 1);
        }
    }
    dm_status status = piece != NULL ? write_piece(stream, piece) : DM_OK;
    dm_piece_free(piece);
    DM_TRY(status);
    return stream->done ? write_end(stream) : DM_OK;
}

/* ---- Sending ---- */

static int32_t answers(const dm_request *request) {
    return (int32_t)request->n_prompts * request->n;
}

static ssize_t read_stream(void *user, uint64_t position, char *out, size_t most) {
    dm_stream *stream = user;
    (void)position;
    if (stream->at == stream->length) {
        stream->at = stream->length = 0;
        if (stream->ended) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        dm_status status = fill(stream);
        dm_touch(stream->server, stream->connection);
        if (status != DM_OK) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
    size_t n = stream->length - stream->at < most ? stream->length - stream->at : most;
    memcpy(out, stream->buffer + stream->at, n);
    stream->at += n;
    return (ssize_t)n;
}

/* Also where the client went away. */
static void release_stream(void *user) {
    dm_stream *stream = user;
    atomic_store(&stream->request->cancelled, true);
    for (int32_t i = 0; stream->calls != NULL && i < answers(stream->request); i++) {
        dm_calls_free(&stream->calls[i]);
    }
    dm_free(stream->calls);
    dm_request_drop(stream->request);
    dm_piece_free(stream->piece);
    free(stream->buffer);
    dm_free(stream);
}

/* Each answer's role comes first. */
static dm_status begin(dm_stream *stream) {
    const dm_request *request = stream->request;
    stream->calls = dm_alloc((size_t)answers(request), sizeof *stream->calls);
    DM_TRY(stream->calls != NULL ? DM_OK : DM_ERR_MEMORY);
    for (int32_t i = 0; i < answers(request); i++) {
        dm_calls_init(&stream->calls[i], &request->tools);
    }
    for (int32_t i = 0; request->kind == DM_REQUEST_CHAT && i < answers(request); i++) {
        json_t *delta = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
        DM_TRY(write_event(stream, dm_chunk_json(&stream->head, request, i, delta, json_null(), json_null())));
    }
    return DM_OK;
}

dm_http_result dm_stream_answer(dm_exchange *exchange, dm_request *request, dm_piece *first, bool done) {
    dm_stream *stream = dm_alloc(1, sizeof *stream);
    if (stream == NULL) {
        atomic_store(&request->cancelled, true);
        dm_request_drop(request);
        dm_piece_free(first);
        return dm_send_failure(exchange, DM_ERR_MEMORY, NULL);
    }
    stream->server = exchange->server;
    stream->connection = exchange->connection;
    stream->request = request;
    stream->piece = first;
    stream->done = done;
    dm_answer_head_init(exchange->server, request, &stream->head);
    if (begin(stream) != DM_OK) {
        release_stream(stream);
        return dm_send_failure(exchange, DM_ERR_MEMORY, NULL);
    }
    return dm_send_events(exchange, read_stream, stream, release_stream);
}
