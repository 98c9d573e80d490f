/* Requests for answers and embeddings: read, asked of the engine, answered whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "server/client.h"
#include "server/server_parts.h"

enum { LOOK_MS = 200 }; /* how soon a client that is gone is noticed */

/* ---- Asking ---- */

/* Reads the body and hands it to the engine; *out is the caller's to drop. False: it was refused, and *result says how that
 * went. */
static bool ask(dm_exchange *exchange, dm_request_kind kind, dm_request **out, dm_http_result *result) {
    dm_server *server = exchange->server;
    const char *param = NULL;
    dm_status status =
        dm_request_read(kind, &server->rules, exchange->body != NULL ? exchange->body : "", exchange->length, out, &param);
    if (status != DM_OK) {
        *result = dm_send_failure(exchange, status, param);
        return false;
    }
    dm_request *request = *out;
    request->client = dm_client_of(exchange);
    request->arrived = exchange->begun;
    request->deadline = exchange->begun + server->options.timeout_s;
    status = dm_engine_ask(server->engine, request);
    if (status != DM_OK) {
        dm_request_drop(request);
        *out = NULL;
        *result = status == DM_ERR_ARGUMENT ? dm_send_problem(exchange, 429, NULL, dm_error_message())
                                            : dm_send_failure(exchange, status, NULL);
        return false;
    }
    return true;
}

/* The next piece; NULL: there is no more, or the client is gone, and the request cancelled. */
static dm_piece *next_piece(dm_exchange *exchange, dm_request *request, bool *done) {
    dm_piece *piece = NULL;
    while (piece == NULL && !*done) {
        if (dm_peer_gone(exchange->connection)) { /* looked at however fast pieces come */
            atomic_store(&request->cancelled, true);
            return NULL;
        }
        piece = dm_request_take(request, LOOK_MS, done);
    }
    return piece;
}

/* ---- Whole answers ---- */

/* One answer, put together. */
typedef struct whole {
    char *text;
    size_t length, room;
    dm_token_odds *odds;
    size_t n_odds, odds_room;
    float *vector;
    dm_finish finish;
} whole;

static dm_status add_piece(whole *answer, dm_piece *piece) {
    DM_TRY(dm_reserve(&answer->text, &answer->room, answer->length + piece->length + 1, 1));
    DM_TRY(dm_reserve(&answer->odds, &answer->odds_room, answer->n_odds + piece->n_odds + 1, sizeof *answer->odds));
    if (piece->length > 0) {
        memcpy(answer->text + answer->length, piece->text, piece->length);
        answer->length += piece->length;
    }
    if (piece->n_odds > 0) {
        memcpy(answer->odds + answer->n_odds, piece->odds, piece->n_odds * sizeof *piece->odds);
        answer->n_odds += piece->n_odds;
    }
    if (piece->vector != NULL) {
        free(answer->vector);
        answer->vector = piece->vector;
        piece->vector = NULL;
    }
    answer->finish = piece->finish != DM_FINISH_NONE ? piece->finish : answer->finish;
    return DM_OK;
}

static json_t *choice_json(const dm_exchange *exchange, const dm_request *request, const whole *answer, int32_t index) {
    json_t *odds = dm_odds_json(request, exchange->server->tokenizer, answer->odds, answer->n_odds);
    json_t *text = json_stringn(answer->text != NULL ? answer->text : "", answer->length);
    json_t *finish = dm_finish_json(answer->finish);
    if (request->kind == DM_REQUEST_CHAT) {
        json_t *message = json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", text, "refusal");
        return json_pack("{s:i, s:o, s:o, s:o}", "index", (int)index, "message", message, "logprobs", odds, "finish_reason",
                         finish);
    }
    return json_pack("{s:i, s:o, s:o, s:o}", "index", (int)index, "text", text, "logprobs", odds, "finish_reason", finish);
}

static json_t *base64_json(const void *bytes, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = bytes;
    char *text = malloc(4 * (length / 3 + 1) + 1), *out = text;
    for (size_t i = 0; text != NULL && i < length; i += 3) {
        size_t n = length - i < 3 ? length - i : 3;
        uint32_t three = (uint32_t)in[i] << 16 | (n > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (n > 2 ? in[i + 2] : 0);
        for (size_t k = 0; k < 4; k++) {
            *out++ = (char)(k <= n ? digits[three >> (18 - 6 * k) & 63] : '=');
        }
    }
    json_t *string = text != NULL ? json_stringn(text, (size_t)(out - text)) : NULL;
    free(text);
    return string;
}

static json_t *vector_json(const dm_exchange *exchange, const dm_request *request, const whole *answer, int32_t index) {
    dm_model_info info;
    dm_model_get_info(exchange->server->model, &info);
    json_t *list = NULL;
    if (answer->vector != NULL && request->base64) {
        list = base64_json(answer->vector, (size_t)info.dim * sizeof *answer->vector);
    } else if (answer->vector != NULL) {
        list = json_array();
        for (int32_t i = 0; i < info.dim; i++) {
            json_array_append_new(list, json_real((double)answer->vector[i]));
        }
    }
    return json_pack("{s:s, s:i, s:o}", "object", "embedding", "index", (int)index, "embedding", list);
}

static json_t *answer_json(const dm_exchange *exchange, const dm_request *request, const whole *answers, int32_t n) {
    json_t *list = json_array();
    bool vectors = request->kind == DM_REQUEST_EMBEDDING;
    for (int32_t i = 0; i < n; i++) {
        json_array_append_new(list, vectors ? vector_json(exchange, request, &answers[i], i)
                                            : choice_json(exchange, request, &answers[i], i));
    }
    if (vectors) {
        return json_pack("{s:s, s:o, s:s, s:o}", "object", "list", "data", list, "model", exchange->server->options.name, "usage",
                         dm_usage_json(request));
    }
    dm_answer_head head;
    dm_answer_head_init(exchange->server, request, &head);
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "id", head.id, "object",
                     request->kind == DM_REQUEST_CHAT ? "chat.completion" : "text_completion", "created",
                     (json_int_t)head.created, "model", head.model, "choices", list, "usage", dm_usage_json(request));
}

/* Puts all answers together and sends them; the first that failed is the answer to all. */
static dm_http_result collect(dm_exchange *exchange, dm_request *request, whole *answers, int32_t n) {
    bool done = false;
    for (;;) {
        dm_piece *piece = next_piece(exchange, request, &done);
        if (piece == NULL) {
            break;
        }
        bool failed = piece->finish == DM_FINISH_ERROR;
        dm_http_result sent = MHD_NO;
        dm_status status = failed ? DM_OK : add_piece(&answers[piece->choice], piece);
        if (failed) {
            sent = dm_send_problem(exchange, piece->status, NULL, piece->text != NULL ? piece->text : "out of memory");
        } else if (status != DM_OK) {
            sent = dm_send_failure(exchange, status, NULL);
        }
        dm_piece_free(piece);
        if (failed || status != DM_OK) {
            atomic_store(&request->cancelled, true);
            return sent;
        }
    }
    return done ? dm_send_json(exchange, 200, answer_json(exchange, request, answers, n)) : MHD_NO;
}

static dm_http_result answer_whole(dm_exchange *exchange, dm_request *request) {
    int32_t n = (int32_t)request->n_prompts * (request->n > 0 ? request->n : 1);
    whole *answers = dm_alloc((size_t)n, sizeof *answers);
    dm_http_result result =
        answers != NULL ? collect(exchange, request, answers, n) : dm_send_failure(exchange, DM_ERR_MEMORY, NULL);
    for (int32_t i = 0; answers != NULL && i < n; i++) {
        free(answers[i].text);
        free(answers[i].odds);
        free(answers[i].vector);
    }
    dm_free(answers);
    atomic_store(&request->cancelled, true);
    dm_request_drop(request);
    return result;
}

/* What can be told with a status of its own is: the stream begins with the first piece. */
static dm_http_result answer_stream(dm_exchange *exchange, dm_request *request) {
    bool done = false;
    dm_piece *first = next_piece(exchange, request, &done);
    if (first != NULL && first->finish != DM_FINISH_ERROR) {
        return dm_stream_answer(exchange, request, first, done);
    }
    dm_http_result result =
        first != NULL ? dm_send_problem(exchange, first->status, NULL, first->text != NULL ? first->text : "out of memory")
                      : MHD_NO;
    dm_piece_free(first);
    atomic_store(&request->cancelled, true);
    dm_request_drop(request);
    return result;
}

static dm_http_result answer(dm_exchange *exchange, dm_request_kind kind) {
    dm_request *request = NULL;
    dm_http_result result = MHD_NO;
    if (!ask(exchange, kind, &request, &result)) {
        return result;
    }
    result = request->stream ? answer_stream(exchange, request) : answer_whole(exchange, request);
    dm_touch(exchange->server, exchange->connection);
    return result;
}

dm_http_result dm_answer_chat(dm_exchange *exchange) {
    return answer(exchange, DM_REQUEST_CHAT);
}

dm_http_result dm_answer_completion(dm_exchange *exchange) {
    return answer(exchange, DM_REQUEST_COMPLETION);
}

dm_http_result dm_answer_embeddings(dm_exchange *exchange) {
    return answer(exchange, DM_REQUEST_EMBEDDING);
}
