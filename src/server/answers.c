/* Answers as OpenAI's API words them. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/random.h"
#include "server/server_parts.h"

static const float impossible = -9999.0f; /* JSON has no infinity */

/* ---- Problems ---- */

static const char *type_of(int status) {
    return status == 401   ? "authentication_error"
           : status == 429 ? "rate_limit_error"
           : status >= 500 ? "server_error"
                           : "invalid_request_error";
}

static json_t *code_of(int status) {
    return status == 401   ? json_string("invalid_api_key")
           : status == 404 ? json_string("not_found")
           : status == 413 ? json_string("request_too_large")
           : status == 429 ? json_string("rate_limit_exceeded")
           : status == 503 ? json_string("unavailable")
                           : json_null();
}

json_t *dm_problem_json(int status, const char *param, const char *message) {
    json_t *about = param != NULL && *param != '\0' ? json_string(param) : json_null();
    return json_pack("{s:{s:o, s:s, s:o, s:o}}", "error", "message", dm_json_bytes(message, strlen(message)), "type",
                     type_of(status), "param", about, "code", code_of(status));
}

/* ---- Heads and ends ---- */

void dm_answer_head_init(const dm_server *server, const dm_request *request, dm_answer_head *head) {
    static atomic_uint_fast64_t count;
    head->number = dm_random_mix((uint64_t)server->created << 20 ^ atomic_fetch_add(&count, 1));
    head->created = (int64_t)time(NULL);
    head->model = server->options.name;
    head->tokenizer = server->tokenizer;
    snprintf(head->id, sizeof head->id, "%s-%016" PRIx64, request->kind == DM_REQUEST_CHAT ? "chatcmpl" : "cmpl", head->number);
}

json_t *dm_usage_json(const dm_request *request) {
    uint64_t prompt = 0;
    for (size_t i = 0; i < request->n_prompts; i++) {
        prompt += request->prompts[i].n;
    }
    if (request->kind == DM_REQUEST_EMBEDDING) {
        return json_pack("{s:I, s:I}", "prompt_tokens", (json_int_t)prompt, "total_tokens", (json_int_t)prompt);
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)prompt, "completion_tokens",
                     (json_int_t)request->made_tokens, "total_tokens", (json_int_t)(prompt + request->made_tokens),
                     "prompt_tokens_details", "cached_tokens", (json_int_t)request->known_tokens);
}

json_t *dm_finish_json(dm_finish finish, int32_t calls) {
    return finish == DM_FINISH_STOP     ? json_string(calls > 0 ? "tool_calls" : "stop")
           : finish == DM_FINISH_LENGTH ? json_string("length")
                                        : json_null();
}

/* ---- Odds ---- */

static json_t *logprob_json(float logprob) {
    return isnan(logprob) ? json_null() : json_real(logprob > impossible ? (double)logprob : (double)impossible);
}

static json_t *token_json(const dm_tokenizer *tokenizer, int32_t id) {
    size_t length = 0;
    const char *bytes = dm_tokenizer_bytes(tokenizer, id, &length);
    return dm_json_bytes(bytes != NULL ? bytes : "", bytes != NULL ? length : 0);
}

static json_t *chat_token_json(const dm_tokenizer *tokenizer, int32_t id, float logprob) {
    size_t length = 0;
    const char *bytes = dm_tokenizer_bytes(tokenizer, id, &length);
    json_t *list = json_array();
    for (size_t i = 0; bytes != NULL && i < length; i++) {
        json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    }
    return json_pack("{s:o, s:o, s:o}", "token", token_json(tokenizer, id), "logprob", logprob_json(logprob), "bytes", list);
}

static json_t *chat_odds_json(const dm_tokenizer *tokenizer, const dm_token_odds *odds, size_t n) {
    json_t *content = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *token = chat_token_json(tokenizer, odds[i].id, odds[i].logprob), *top = json_array();
        for (int32_t t = 0; t < odds[i].n_top; t++) {
            json_array_append_new(top, chat_token_json(tokenizer, odds[i].top[t].id, odds[i].top[t].logprob));
        }
        json_object_set_new(token, "top_logprobs", top);
        json_array_append_new(content, token);
    }
    return json_pack("{s:o}", "content", content);
}

/* Tokens that read alike, such as parts of a character, share a key: the likeliest keeps it. */
static json_t *top_json(const dm_tokenizer *tokenizer, const dm_token_odds *odds) {
    json_t *top = json_object();
    for (int32_t t = odds->n_top - 1; t >= 0; t--) {
        json_t *key = token_json(tokenizer, odds->top[t].id);
        json_object_setn_new(top, json_string_value(key), json_string_length(key), logprob_json(odds->top[t].logprob));
        json_decref(key);
    }
    return top;
}

json_t *dm_odds_json(const dm_request *request, const dm_tokenizer *tokenizer, const dm_token_odds *odds, size_t n) {
    if (!request->odds) {
        return json_null();
    }
    if (request->kind == DM_REQUEST_CHAT) {
        return chat_odds_json(tokenizer, odds, n);
    }
    json_t *tokens = json_array(), *logprobs = json_array(), *tops = json_array(), *offsets = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(tokens, token_json(tokenizer, odds[i].id));
        json_array_append_new(logprobs, logprob_json(odds[i].logprob));
        json_array_append_new(tops, isnan(odds[i].logprob) ? json_null() : top_json(tokenizer, &odds[i]));
        json_array_append_new(offsets, json_integer((json_int_t)odds[i].start));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", tops, "text_offset",
                     offsets);
}

/* ---- Parts of a stream ---- */

static json_t *chunk(const dm_answer_head *head, const dm_request *request, json_t *choices) {
    json_t *object = json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", head->id, "object",
                               request->kind == DM_REQUEST_CHAT ? "chat.completion.chunk" : "text_completion", "created",
                               (json_int_t)head->created, "model", head->model, "choices", choices);
    if (request->include_usage) {
        json_object_set_new(object, "usage", json_null());
    }
    return object;
}

json_t *dm_chunk_json(const dm_answer_head *head, const dm_request *request, int32_t choice, json_t *what, json_t *odds,
                      json_t *finish) {
    const char *key = request->kind == DM_REQUEST_CHAT ? "delta" : "text";
    return chunk(head, request,
                 json_pack("[{s:i, s:o, s:o, s:o}]", "index", (int)choice, key, what, "logprobs", odds, "finish_reason", finish));
}

json_t *dm_usage_chunk_json(const dm_answer_head *head, const dm_request *request) {
    json_t *object = chunk(head, request, json_array());
    json_object_set_new(object, "usage", dm_usage_json(request));
    return object;
}
