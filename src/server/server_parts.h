/* What the files that speak HTTP share. */
#ifndef DM_SERVER_SERVER_PARTS_H
#define DM_SERVER_SERVER_PARTS_H

#include <jansson.h>
#include <microhttpd.h>

#include "server/board.h"
#include "server/calls.h"
#include "server/engine.h"

typedef enum MHD_Result dm_http_result;

struct dm_server {
    const dm_model *model;
    const dm_tokenizer *tokenizer;
    dm_server_options options; /* host, cors and keys are copies of its own */
    char *host, *cors;
    char **keys; /* [n_keys] */
    size_t n_keys;
    dm_request_rules rules;
    dm_metrics metrics;
    dm_engine *engine;
    struct MHD_Daemon *daemon;
    atomic_bool stopping;
    atomic_int active; /* requests whose answers are not sent yet */
    int64_t created;   /* seconds since 1970 */
};

/* Why a request is refused. */
typedef struct dm_problem {
    int status; /* as HTTP has it; 0: it is not */
    char param[64], message[1024];
} dm_problem;

/* A request from its first line to the end of its answer. */
typedef struct dm_exchange {
    dm_server *server;
    struct MHD_Connection *connection;
    const struct dm_endpoint *endpoint;
    const char *path; /* the library's */
    char *body;       /* [length] malloc */
    size_t length, room;
    size_t dropped; /* bytes that came and were not kept */
    double begun;
    dm_problem problem;
} dm_exchange;

typedef struct dm_endpoint {
    const char *method, *path;
    bool open; /* needs no key */
    dm_http_result (*answer)(dm_exchange *exchange);
} dm_endpoint;

/* NULL where there is none; *known: the path is there for another method. */
const dm_endpoint *dm_endpoint_find(const char *method, const char *path, bool *known);

/* ---- Answers ---- */

/* Sends `text` (malloc, taken over). */
dm_http_result dm_send_text(dm_exchange *exchange, int status, const char *type, char *text, size_t length);
/* Sends `object` (taken over); NULL: there was no memory for it. */
dm_http_result dm_send_json(dm_exchange *exchange, int status, json_t *object);
/* Sends bytes that last as long as the server. */
dm_http_result dm_send_static(dm_exchange *exchange, const char *type, const void *bytes, size_t length);
dm_http_result dm_send_problem(dm_exchange *exchange, int status, const char *param, const char *message);
/* Of a failure whose message this thread has. */
dm_http_result dm_send_failure(dm_exchange *exchange, dm_status failure, const char *param);
/* Sends what `reader` gives, as server-sent events; `user` is given to `release` in the end. */
dm_http_result dm_send_events(dm_exchange *exchange, MHD_ContentReaderCallback reader, void *user,
                              MHD_ContentReaderFreeCallback release);

/* {"error": ...} as OpenAI's API has it. */
json_t *dm_problem_json(int status, const char *param, const char *message);

/* The client takes its time with good reason: what it does next is timed from now on. */
void dm_touch(const dm_server *server, struct MHD_Connection *connection);
/* The client has closed its side, or is gone. */
bool dm_peer_gone(struct MHD_Connection *connection);

/* Generated answers: to the end, or as events. */
dm_http_result dm_answer_chat(dm_exchange *exchange);
dm_http_result dm_answer_completion(dm_exchange *exchange);
dm_http_result dm_answer_embeddings(dm_exchange *exchange);
dm_http_result dm_answer_events(dm_exchange *exchange);

/* Answers a request (taken over) that was asked of the engine, piece by piece; `first` is the first of them, `done` whether it
 * is the last. */
dm_http_result dm_stream_answer(dm_exchange *exchange, dm_request *request, dm_piece *first, bool done);

/* ---- JSON of answers ---- */

/* What all parts of an answer have in common. */
typedef struct dm_answer_head {
    char id[48];
    uint64_t number; /* of which ids are made */
    int64_t created; /* seconds since 1970 */
    const char *model;
    const dm_tokenizer *tokenizer;
} dm_answer_head;
void dm_answer_head_init(const dm_server *server, const dm_request *request, dm_answer_head *head);

json_t *dm_usage_json(const dm_request *request);
/* Logprobs of tokens; null where none were asked for. `offset`: bytes of the answer that came before. */
json_t *dm_odds_json(const dm_request *request, const dm_tokenizer *tokenizer, const dm_token_odds *odds, size_t n);
/* Why an answer ended that has called so many functions. */
json_t *dm_finish_json(dm_finish finish, int32_t calls);
/* A call whose name is told, with arguments that are empty so far. */
json_t *dm_call_json(const dm_answer_head *head, int32_t choice, const dm_call_part *part);
/* What a part adds to a chat's answer. */
json_t *dm_delta_json(const dm_answer_head *head, int32_t choice, const dm_call_part *part);
/* A part of a stream: what is new in answer number `choice`, a delta or a text; both JSON values are taken over. */
json_t *dm_chunk_json(const dm_answer_head *head, const dm_request *request, int32_t choice, json_t *what, json_t *odds,
                      json_t *finish);
/* The last part of a stream whose usage was asked for. */
json_t *dm_usage_chunk_json(const dm_answer_head *head, const dm_request *request);

#endif
