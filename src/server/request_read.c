/* A request's JSON, field by field. What is not known is left alone, as clients send much; what cannot be had is refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/threads.h"
#include "server/request_parts.h"

static const char *const where = "request";

const json_t *dm_request_get(dm_request_reader *from, const char *key) {
    from->param = key;
    return dm_json_get(&from->json, key);
}

static dm_status read_int(dm_request_reader *from, const char *key, int32_t fallback, int32_t least, int32_t most, int32_t *out) {
    from->param = key;
    DM_TRY(dm_json_int_or(&from->json, key, fallback, out));
    return dm_request_get(from, key) == NULL || (*out >= least && *out <= most)
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "'%s' is %d, expected %d to %d", key, *out, least, most);
}

static dm_status read_float(dm_request_reader *from, const char *key, float fallback, float least, float most, float *out) {
    from->param = key;
    DM_TRY(dm_json_float_or(&from->json, key, fallback, out));
    return *out >= least && *out <= most
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "'%s' is %g, expected %g to %g", key, (double)*out, (double)least, (double)most);
}

static dm_status read_bool(dm_request_reader *from, const char *key, bool fallback, bool *out) {
    from->param = key;
    return dm_json_bool_or(&from->json, key, fallback, out);
}

/* ---- Sampling ---- */

static dm_status read_seed(dm_request_reader *from, uint64_t *out) {
    const json_t *seed = dm_request_get(from, "seed");
    if (seed != NULL && !json_is_integer(seed)) {
        return dm_fail(DM_ERR_ARGUMENT, "'seed' is no whole number of 64 bits");
    }
    static atomic_uint_fast64_t unseeded = 1; /* without a seed no two answers need be the same */
    *out = seed != NULL ? (uint64_t)json_integer_value(seed)
                        : dm_random_mix(atomic_fetch_add(&unseeded, 1) ^ (uint64_t)(dm_seconds() * 1e9));
    return DM_OK;
}

static dm_status read_sampling(dm_request_reader *from, dm_request *request) {
    const dm_sampling usual = dm_sampling_default();
    dm_sampling *s = &request->sampling;
    *s = (dm_sampling){.penalty_window = usual.penalty_window};
    DM_TRY(read_float(from, "temperature", 1.0f, 0.0f, 100.0f, &s->temperature));
    DM_TRY(read_float(from, "top_p", 1.0f, 0.0f, 1.0f, &s->top_p));
    s->top_p = s->top_p > 0.0f ? s->top_p : 1e-6f; /* the likeliest alone */
    DM_TRY(read_int(from, "top_k", usual.top_k, 0, INT32_MAX, &s->top_k));
    DM_TRY(read_float(from, "min_p", 0.0f, 0.0f, 1.0f, &s->min_p));
    DM_TRY(read_float(from, "repetition_penalty", 1.0f, 0.01f, 100.0f, &s->repetition_penalty));
    DM_TRY(read_float(from, "presence_penalty", 0.0f, -2.0f, 2.0f, &request->presence));
    DM_TRY(read_float(from, "frequency_penalty", 0.0f, -2.0f, 2.0f, &request->frequency));
    DM_TRY(read_bool(from, "ignore_eos", false, &request->ignore_end));
    return read_seed(from, &s->seed);
}

static dm_status read_bias(dm_request_reader *from, dm_request *request, int32_t vocab) {
    const json_t *biases = dm_request_get(from, "logit_bias");
    if (biases == NULL) {
        return DM_OK;
    }
    if (!json_is_object(biases)) {
        return dm_fail(DM_ERR_ARGUMENT, "'logit_bias' is no object of token ids and numbers");
    }
    request->biases = calloc(json_object_size(biases) + 1, sizeof *request->biases);
    if (request->biases == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for 'logit_bias'");
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)biases, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        double bias = json_is_number(value) ? json_number_value(value) : NAN;
        if (*key < '0' || *key > '9' || *end != '\0' || id >= vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "'logit_bias' has a key '%.40s', expected token ids of 0 to %d", key, vocab - 1);
        }
        if (!(bias >= -100.0 && bias <= 100.0)) {
            return dm_fail(DM_ERR_ARGUMENT, "'logit_bias' of token %ld is no number of -100 to 100", id);
        }
        request->biases[request->n_biases++] = (dm_logit_bias){(int32_t)id, (float)bias};
    }
    return DM_OK;
}

/* ---- Where it ends ---- */

static dm_status add_stop(const json_t *stop, dm_request *request) {
    size_t length = json_string_length(stop);
    if (!json_is_string(stop) || length == 0 || length > DM_REQUEST_STOP_BYTES) {
        return dm_fail(DM_ERR_ARGUMENT, "'stop' has an entry that is no text of 1 to %d bytes", DM_REQUEST_STOP_BYTES);
    }
    char *copy = malloc(length);
    if (copy == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for 'stop'");
    }
    memcpy(copy, json_string_value(stop), length);
    request->stop_lengths[request->n_stops] = length;
    request->stops[request->n_stops++] = copy;
    return DM_OK;
}

static dm_status read_stops(dm_request_reader *from, dm_request *request) {
    const json_t *stop = dm_request_get(from, "stop");
    if (stop == NULL) {
        return DM_OK;
    }
    if (!json_is_array(stop)) {
        return add_stop(stop, request);
    }
    if (json_array_size(stop) > DM_REQUEST_STOPS) {
        return dm_fail(DM_ERR_ARGUMENT, "'stop' has %zu entries, expected at most %d", json_array_size(stop), DM_REQUEST_STOPS);
    }
    for (size_t i = 0; i < json_array_size(stop); i++) {
        DM_TRY(add_stop(json_array_get(stop, i), request));
    }
    return DM_OK;
}

static dm_status read_length(dm_request_reader *from, dm_request *request) {
    bool chat = request->kind == DM_REQUEST_CHAT;
    const char *key = chat && dm_json_get(&from->json, "max_completion_tokens") != NULL ? "max_completion_tokens" : "max_tokens";
    return read_int(from, key, chat ? -1 : 16, request->echo ? 0 : 1, INT32_MAX, &request->max_tokens);
}

static dm_status read_answers(dm_request_reader *from, dm_request *request) {
    DM_TRY(read_int(from, "n", 1, 1, DM_REQUEST_CHOICES, &request->n));
    int32_t best = 1;
    DM_TRY(read_int(from, "best_of", request->n, 1, DM_REQUEST_CHOICES, &best));
    return best == request->n ? DM_OK : dm_fail(DM_ERR_UNSUPPORTED, "'best_of' is not supported beyond 'n'");
}

/* ---- How it is told ---- */

static dm_status read_odds(dm_request_reader *from, dm_request *request) {
    if (request->kind == DM_REQUEST_CHAT) {
        DM_TRY(read_bool(from, "logprobs", false, &request->odds));
        DM_TRY(read_int(from, "top_logprobs", 0, 0, DM_REQUEST_TOP, &request->top));
        return request->odds || request->top == 0 ? DM_OK : dm_fail(DM_ERR_ARGUMENT, "'top_logprobs' needs 'logprobs'");
    }
    request->odds = dm_request_get(from, "logprobs") != NULL;
    return read_int(from, "logprobs", 0, 0, DM_REQUEST_TOP, &request->top);
}

static dm_status read_stream(dm_request_reader *from, dm_request *request) {
    DM_TRY(read_bool(from, "stream", false, &request->stream));
    const json_t *options = dm_request_get(from, "stream_options");
    if (options == NULL) {
        return DM_OK;
    }
    if (!json_is_object(options) || !request->stream) {
        return dm_fail(DM_ERR_ARGUMENT, "'stream_options' is an object that goes with 'stream'");
    }
    const dm_json_reader inner = {options, where};
    return dm_json_bool_or(&inner, "include_usage", false, &request->include_usage);
}

static dm_status read_format(dm_request_reader *from, dm_request *request) {
    const json_t *format = dm_request_get(from, "response_format");
    if (format == NULL) {
        return DM_OK;
    }
    const json_t *type = json_object_get(format, "type");
    const char *name = json_is_string(type) ? json_string_value(type) : "";
    if (strcmp(name, "text") == 0) {
        return DM_OK;
    }
    if (strcmp(name, "json_object") == 0) {
        return dm_grammar_json(&request->grammar);
    }
    const json_t *inner = json_object_get(format, "json_schema");
    if (strcmp(name, "json_schema") != 0 || json_object_get(inner, "schema") == NULL) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "'response_format' has no type of text, json_object, or json_schema with a json_schema.schema");
    }
    return dm_grammar_schema(json_object_get(inner, "schema"), &request->grammar);
}

/* What would change an answer, and is not there. */
static dm_status refuse_others(dm_request_reader *from, dm_request_kind kind) {
    static const char *const keys[] = {"tools", "functions", "suffix", "audio", "grammar"};
    for (size_t i = kind == DM_REQUEST_CHAT ? 1 : 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = dm_request_get(from, keys[i]);
        bool empty = value == NULL || (json_is_array(value) && json_array_size(value) == 0) ||
                     (json_is_string(value) && json_string_length(value) == 0);
        if (!empty) {
            return dm_fail(DM_ERR_UNSUPPORTED, "'%s' is not supported", keys[i]);
        }
    }
    return DM_OK;
}

static dm_status read_generation(dm_request_reader *from, const dm_request_rules *rules, dm_request *request) {
    DM_TRY(refuse_others(from, request->kind));
    DM_TRY(read_sampling(from, request));
    DM_TRY(read_bias(from, request, rules->vocab));
    DM_TRY(read_stops(from, request));
    if (request->kind == DM_REQUEST_COMPLETION) {
        DM_TRY(read_bool(from, "echo", false, &request->echo));
    }
    DM_TRY(read_length(from, request));
    DM_TRY(read_answers(from, request));
    DM_TRY(read_odds(from, request));
    DM_TRY(read_stream(from, request));
    return read_format(from, request);
}

static dm_status read_encoding(dm_request_reader *from, dm_request *request) {
    const char *format;
    from->param = "encoding_format";
    DM_TRY(dm_json_text_or(&from->json, "encoding_format", "float", &format));
    request->base64 = strcmp(format, "base64") == 0;
    if (!request->base64 && strcmp(format, "float") != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "'encoding_format' is '%.40s', expected float or base64", format);
    }
    return dm_request_get(from, "dimensions") == NULL ? DM_OK : dm_fail(DM_ERR_UNSUPPORTED, "'dimensions' is not supported");
}

/* Every answer has room for a token. */
static dm_status check_lengths(dm_request_reader *from, const dm_request_rules *rules, const dm_request *request) {
    from->param = request->kind == DM_REQUEST_CHAT ? "messages" : request->kind == DM_REQUEST_COMPLETION ? "prompt" : "input";
    size_t answers = request->n_prompts * (size_t)(request->n > 0 ? request->n : 1);
    if (answers > DM_REQUEST_CHOICES) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu answers were asked for, expected at most %d", answers, DM_REQUEST_CHOICES);
    }
    for (size_t i = 0; i < request->n_prompts; i++) {
        size_t n = request->prompts[i].n;
        if (n == 0) {
            return dm_fail(DM_ERR_ARGUMENT, "prompt number %zu is empty", i + 1);
        }
        if (n > (size_t)rules->context) {
            return dm_fail(DM_ERR_ARGUMENT, "the prompt's %zu tokens do not fit: the context holds %d", n, rules->context);
        }
    }
    return DM_OK;
}

static dm_status read_chat(dm_request_reader *from, const dm_request_rules *rules, dm_request *request) {
    dm_chat_functions functions = {0};
    DM_TRY(dm_request_read_tools(from, rules, &functions, request));
    return dm_request_read_messages(from, rules, &functions, request);
}

static dm_status read_all(dm_request_reader *from, const dm_request_rules *rules, dm_request *request) {
    if (request->kind == DM_REQUEST_EMBEDDING) {
        DM_TRY(read_encoding(from, request));
        DM_TRY(dm_request_read_texts(from, rules, "input", request));
    } else {
        DM_TRY(read_generation(from, rules, request));
        DM_TRY(request->kind == DM_REQUEST_CHAT ? read_chat(from, rules, request)
                                                : dm_request_read_texts(from, rules, "prompt", request));
    }
    return check_lengths(from, rules, request);
}

dm_status dm_request_read(dm_request_kind kind, const dm_request_rules *rules, const char *body, size_t length, dm_request **out,
                          const char **param) {
    *out = NULL;
    *param = NULL;
    json_t *json = NULL;
    DM_TRY(dm_json_parse(where, body, length, &json));
    dm_request *request = dm_request_create(kind);
    dm_request_reader from = {.json = {json, where}};
    dm_status status = request != NULL ? read_all(&from, rules, request) : DM_ERR_MEMORY;
    json_decref(json);
    *param = from.param;
    if (status != DM_OK) {
        dm_request_drop(request);
        return status;
    }
    request->open = (int32_t)request->n_prompts * (request->n > 0 ? request->n : 1);
    *out = request;
    return DM_OK;
}
