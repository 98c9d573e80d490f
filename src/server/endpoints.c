/* What can be asked for, and the answers that need no engine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "server/assets.h"
#include "server/server_parts.h"

/* ---- State ---- */

static dm_http_result answer_health(dm_exchange *exchange) {
    dm_gauges gauges;
    dm_metrics_get(&exchange->server->metrics, &gauges);
    if (atomic_load(&exchange->server->stopping)) {
        return dm_send_problem(exchange, 503, NULL, "the server is being stopped");
    }
    return dm_send_json(exchange, 200,
                        json_pack("{s:s, s:i, s:i, s:i}", "status", "ok", "slots", (int)gauges.slots, "busy", (int)gauges.busy,
                                  "waiting", (int)gauges.waiting));
}

static dm_http_result answer_metrics(dm_exchange *exchange) {
    char *text;
    size_t length;
    dm_status status = dm_metrics_write(&exchange->server->metrics, &text, &length);
    return status == DM_OK ? dm_send_text(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", text, length)
                           : dm_send_failure(exchange, status, NULL);
}

static json_t *model_json(const dm_server *server) {
    dm_model_info info;
    dm_model_get_info(server->model, &info);
    json_t *meta = json_pack("{s:s, s:I, s:I, s:i, s:i, s:i}", "architecture", info.architecture, "params",
                             (json_int_t)info.params, "active_params", (json_int_t)info.active_params, "context",
                             (int)dm_engine_context(server->engine), "vocab", (int)info.vocab, "experts", (int)info.experts);
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", server->options.name, "object", "model", "created",
                     (json_int_t)server->created, "owned_by", "dilmodeli", "meta", meta);
}

static dm_http_result answer_models(dm_exchange *exchange) {
    return dm_send_json(exchange, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(exchange->server)));
}

static const char one_model[] = "/v1/models/"; /* and its name */

static dm_http_result answer_model(dm_exchange *exchange) {
    const dm_server *server = exchange->server;
    return strcmp(exchange->path + sizeof one_model - 1, server->options.name) == 0
               ? dm_send_json(exchange, 200, model_json(server))
               : dm_send_problem(exchange, 404, NULL, "there is no such model");
}

/* ---- Tokens ---- */

/* Reads the body; false where it was refused. */
static bool read_body(dm_exchange *exchange, json_t **json, dm_http_result *result) {
    dm_status status = dm_json_parse("request", exchange->body != NULL ? exchange->body : "", exchange->length, json);
    if (status != DM_OK) {
        *result = dm_send_failure(exchange, status, NULL);
    }
    return status == DM_OK;
}

static dm_status tokenize(const dm_exchange *exchange, const json_t *json, json_t **out) {
    const json_t *content = json_object_get(json, "content");
    const dm_json_reader from = {json, "request"};
    bool special, bos;
    int32_t *ids;
    size_t n;
    if (!json_is_string(content)) {
        return dm_fail(DM_ERR_ARGUMENT, "'content' is missing or no text");
    }
    DM_TRY(dm_json_bool_or(&from, "add_special", false, &bos));
    DM_TRY(dm_json_bool_or(&from, "parse_special", true, &special));
    DM_TRY(dm_tokenizer_encode(exchange->server->tokenizer, json_string_value(content), json_string_length(content),
                               (bos ? DM_ENCODE_BOS : 0U) | (special ? DM_ENCODE_SPECIAL : 0U), &ids, &n));
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer(ids[i]));
    }
    free(ids);
    *out = json_pack("{s:o}", "tokens", list);
    return DM_OK;
}

static dm_status read_tokens(const json_t *list, int32_t *ids) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_is_integer(json_array_get(list, i)) ? json_integer_value(json_array_get(list, i)) : -1;
        if (id < 0 || id > INT32_MAX) {
            return dm_fail(DM_ERR_ARGUMENT, "token number %zu is no id", i + 1);
        }
        ids[i] = (int32_t)id;
    }
    return DM_OK;
}

static dm_status detokenize(const dm_exchange *exchange, const json_t *json, json_t **out) {
    const json_t *list = json_object_get(json, "tokens");
    if (!json_is_array(list)) {
        return dm_fail(DM_ERR_ARGUMENT, "'tokens' is missing or no list");
    }
    size_t n = json_array_size(list), length = 0;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    char *text = NULL;
    dm_status status = ids != NULL ? read_tokens(list, ids) : dm_fail(DM_ERR_MEMORY, "out of memory for %zu tokens", n);
    if (status == DM_OK) {
        status = dm_tokenizer_decode(exchange->server->tokenizer, ids, n, true, &text, &length);
    }
    if (status == DM_OK) {
        *out = json_pack("{s:o}", "content", dm_json_bytes(text, length));
    }
    free(text);
    free(ids);
    return status;
}

static dm_http_result answer_tokens(dm_exchange *exchange, dm_status (*work)(const dm_exchange *, const json_t *, json_t **),
                                    const char *param) {
    json_t *json = NULL, *answer = NULL;
    dm_http_result result;
    if (!read_body(exchange, &json, &result)) {
        return result;
    }
    dm_status status = work(exchange, json, &answer);
    json_decref(json);
    return status == DM_OK ? dm_send_json(exchange, 200, answer) : dm_send_failure(exchange, status, param);
}

static dm_http_result answer_tokenize(dm_exchange *exchange) {
    return answer_tokens(exchange, tokenize, "content");
}

static dm_http_result answer_detokenize(dm_exchange *exchange) {
    return answer_tokens(exchange, detokenize, "tokens");
}

/* ---- Pages ---- */

static dm_http_result answer_asset(dm_exchange *exchange) {
    const dm_asset *asset = dm_asset_find(exchange->path);
    return dm_send_static(exchange, asset->type, asset->text, strlen(asset->text));
}

/* ---- All of them ---- */

static const dm_endpoint endpoints[] = {
    {"POST", "/v1/chat/completions", false, dm_answer_chat},
    {"POST", "/v1/completions", false, dm_answer_completion},
    {"POST", "/v1/embeddings", false, dm_answer_embeddings},
    {"GET", "/v1/models", false, answer_models},
    {"POST", "/tokenize", false, answer_tokenize},
    {"POST", "/detokenize", false, answer_detokenize},
    {"GET", "/health", true, answer_health},
    {"GET", "/metrics", false, answer_metrics},
    {"GET", "/events", false, dm_answer_events},
};

const dm_endpoint *dm_endpoint_find(const char *method, const char *path, bool *known) {
    static const dm_endpoint page = {"GET", "", true, answer_asset};
    static const dm_endpoint model = {"GET", one_model, false, answer_model};
    const dm_endpoint *many = dm_asset_find(path) != NULL                           ? &page
                              : strncmp(path, one_model, sizeof one_model - 1) == 0 ? &model
                                                                                    : NULL;
    *known = many != NULL;
    if (*known) {
        return strcmp(method, many->method) == 0 ? many : NULL;
    }
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
        bool here = strcmp(endpoints[i].path, path) == 0;
        *known = *known || here;
        if (here && strcmp(endpoints[i].method, method) == 0) {
            return &endpoints[i];
        }
    }
    return NULL;
}
