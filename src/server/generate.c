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
    dm_calls calls; /* that are looked for in it */
    json_t *made;   /* those that were found; NULL: none */
    char *text;
    size_t length, room;
    char *arguments; /* of the last call */
    size_t arguments_length, arguments_room;
    dm_token_odds *odds;
    size_t n_odds, odds_room;
    const dm_answer_head *head;
    int32_t index;
    float *vector;
    dm_finish finish;
} whole;

static dm_status append(char **text, size_t *length, size_t *room, const dm_call_part *part) {
    DM_TRY(dm_reserve(text, room, *length + part->length, 1));
    memcpy(*text + *length, part->text, part->length);
    *length += part->length;
    return DM_OK;
}

/* The last call has all its arguments. */
static void end_call(whole *answer) {
    json_t *call = json_array_get(answer->made, json_array_size(answer->made) - 1);
    json_object_set_new(json_object_get(call, "function"), "arguments",
                        json_stringn(answer->arguments != NULL ? answer->arguments : "", answer->arguments_length));
    answer->arguments_length = 0;
}

static dm_status take_part(void *user, const dm_call_part *part) {
    whole *answer = user;
    if (part->kind == DM_PART_TEXT) {
        return append(&answer->text, &answer->length, &answer->room, part);
    }
    if (part->kind == DM_PART_ARGUMENTS) {
        return append(&answer->arguments, &answer->arguments_length, &answer->arguments_room, part);
    }
    if (answer->made == NULL) {
        answer->made = json_array();
    } else {
        end_call(answer);
    }
    return json_array_append_new(answer->made, dm_call_json(answer->head, answer->index, part)) == 0
               ? DM_OK
               : dm_fail(DM_ERR_MEMORY, "out of memory for an answer");
}

static dm_status add_piece(whole *answer, dm_piece *piece) {
    bool last = piece->finish != DM_FINISH_NONE;
    DM_TRY(dm_calls_take(&answer->calls, piece->text, piece->length, last, &(dm_call_sink){take_part, answer}));
    DM_TRY(dm_reserve(&answer->odds, &answer->odds_room, answer->n_odds + piece->n_odds + 1, sizeof *answer->odds));
    if (piece->n_odds > 0) {
        memcpy(answer->odds + answer->n_odds, piece->odds, piece->n_odds * sizeof *piece->odds);
        answer->n_odds += piece->n_odds;
    }
    if (piece->vector != NULL) {
        free(answer->vector);
        answer->vector = piece->vector;
        piece->vector = NULL;
    }
    answer->finish = last ? piece->finish : answer->finish;
    return DM_OK;
}

static json_t *message_json(whole *answer) {
    bool silent = answer->made != NULL && answer->length == 0;
    json_t *text = silent ? json_null() : json_stringn(answer->text != NULL ? answer->text : "", answer->length);
    json_t *message = json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", text, "refusal");
    if (answer->made != NULL) {
        end_call(answer);
        json_object_set(message, "tool_calls", answer->made);
    }
    return message;
}

static json_t *choice_json(const dm_exchange *exchange, const dm_request *request, whole *answer, int32_t index) {
    json_t *odds = dm_odds_json(request, exchange->server->tokenizer, answer->odds, answer->n_odds);
    json_t *finish = dm_finish_json(answer->finish, answer->calls.count);
    if (request->kind == DM_REQUEST_CHAT) {
        return json_pack("{s:i, s:o, s:o, s:o}", "index", (int)index, "message", message_json(answer), "logprobs", odds,
                         "finish_reason", finish);
    }
    json_t *text = json_stringn(answer->text != NULL ? answer->text : "", answer->length);
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

static json_t *answer_json(const dm_exchange *exchange, const dm_request *request, const dm_answer_head *head, whole *answers,
                           int32_t n) {
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
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "id", head->id, "object",
                     request->kind == DM_REQUEST_CHAT ? "chat.completion" : "text_completion", "created",
                     (json_int_t)head->created, "model", head->model, "choices", list, "usage", dm_usage_json(request));
}

/* Puts all answers together and sends them; the first that failed is the answer to all. */
static dm_http_result collect(dm_exchange *exchange, dm_request *request, whole *answers, int32_t n) {
    bool done = false;
    dm_answer_head head;
    dm_answer_head_init(exchange->server, request, &head);
    for (int32_t i = 0; i < n; i++) {
        dm_calls_init(&answers[i].calls, &request->tools);
        answers[i].head = &head;
        answers[i].index = i;
    }
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
    return done ? dm_send_json(exchange, 200, answer_json(exchange, request, &head, answers, n)) : MHD_NO;
}

static dm_http_result answer_whole(dm_exchange *exchange, dm_request *request) {
    int32_t n = (int32_t)request->n_prompts * (request->n > 0 ? request->n : 1);
    whole *answers = dm_alloc((size_t)n, sizeof *answers);
    dm_http_result result =
        answers != NULL ? collect(exchange, request, answers, n) : dm_send_failure(exchange, DM_ERR_MEMORY, NULL);
    for (int32_t i = 0; answers != NULL && i < n; i++) {
        dm_calls_free(&answers[i].calls);
        json_decref(answers[i].made);
        free(answers[i].text);
        free(answers[i].arguments);
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
