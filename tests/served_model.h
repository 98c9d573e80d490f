/* A server over a tiny model of bytes, in this process, and what its answers must be: the same model, run alone and plainly. */
#ifndef DM_TESTS_SERVED_MODEL_H
#define DM_TESTS_SERVED_MODEL_H

#include <jansson.h>

#include "http_client.h"
#include "model/sampling.h"
#include "model/session.h"
#include "server/server.h"
#include "tiny_model.h"

enum { SERVED_CONTEXT = 384, SERVED_PIECE = 32 };

typedef struct served_model {
    tiny_model tiny;
    dm_tokenizer *tokenizer;
    dm_server *server;
    uint16_t port;
} served_model;

static inline dm_server_options served_options(void) {
    dm_server_options options = dm_server_defaults();
    options.port = 0;
    options.name = "tiny";
    options.family = "plain";
    options.context = SERVED_CONTEXT;
    options.piece = SERVED_PIECE;
    return options;
}

static inline void served_start(served_model *served, const dm_server_options *options) {
    if (dm_server_start(served->tiny.model, served->tokenizer, options, &served->server) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    served->port = dm_server_port(served->server);
    assert_true(served->port > 0);
}

static inline void served_open(served_model *served, const dm_server_options *options) {
    tiny_model_make(&served->tiny, "qwen3moe", "f32", 5);
    assert_int_equal(dm_tokenizer_open(served->tiny.path, &served->tokenizer), DM_OK);
    served_start(served, options);
}

static inline void served_close(served_model *served) {
    dm_server_stop(served->server, 1.0);
    dm_tokenizer_close(served->tokenizer);
    tiny_model_remove(&served->tiny);
}

/* A number of GET /health. */
static inline int served_health(const served_model *served, const char *key) {
    http_answer answer = http_ask(served->port, "GET", "/health", "", "");
    assert_int_equal(answer.status, 200);
    json_t *json = json_loadb(answer.body, answer.body_length, 0, NULL);
    int value = (int)json_integer_value(json_object_get(json, key));
    json_decref(json);
    http_free(&answer);
    return value;
}

/* Waits until nothing is under way; fails after a while. */
static inline void served_settle(const served_model *served) {
    for (int i = 0; served_health(served, "busy") + served_health(served, "waiting") > 0; i++) {
        assert_true(i < 2000);
        usleep(5000);
    }
}

/* What is asked, in the test's own words. Answers are made of `letters` alone where there are some. */
typedef struct asked {
    const char *prompt, *letters;
    int n;
    uint64_t seed;
    double temperature;
} asked;

static inline bool served_may(const asked *it, int id) {
    return it->letters == NULL || (id < 256 && id != 0 && strchr(it->letters, id) != NULL);
}

/* The body of a request; `more` are further fields, each after a comma. The caller's to free(). */
static inline char *served_body(const asked *it, const char *more) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    fprintf(out, "{\"prompt\":\"%s\",\"max_tokens\":%d,\"seed\":%llu,\"temperature\":%g%s", it->prompt, it->n,
            (unsigned long long)it->seed, it->temperature, more);
    fprintf(out, ",\"logit_bias\":{");
    for (int id = 0, n = 0; id < 257; id++) {
        if (!served_may(it, id)) {
            fprintf(out, "%s\"%d\":-100", n++ > 0 ? "," : "", id);
        }
    }
    fprintf(out, "}}");
    assert_int_equal(fclose(out), 0);
    return text;
}

/* The same, alone: the prompt in the server's pieces, then a token at a time. The answer's bytes are the caller's to free(). */
static inline char *served_alone(const served_model *served, const asked *it, float *logits_of_first) {
    dm_session *session;
    dm_sampler sampler;
    float logits[512];
    int vocab = served->tiny.info.vocab;
    assert_true(vocab <= 512);
    dm_sampling how = dm_sampling_default();
    how.temperature = (float)it->temperature;
    how.top_p = 1.0f;
    how.min_p = 0.0f;
    how.seed = it->seed;
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(served->tokenizer, it->prompt, strlen(it->prompt), DM_ENCODE_BOS, &ids, &n), DM_OK);
    assert_int_equal(dm_session_create(served->tiny.model, SERVED_CONTEXT, &session), DM_OK);
    assert_int_equal(dm_sampler_init(&sampler, &how, vocab), DM_OK);
    for (size_t at = 0; at < n; at += SERVED_PIECE) {
        int32_t m = (int32_t)(n - at < SERVED_PIECE ? n - at : SERVED_PIECE);
        assert_int_equal(dm_session_feed(session, ids + at, m, false, logits), DM_OK);
    }
    if (logits_of_first != NULL) {
        memcpy(logits_of_first, logits, (size_t)vocab * sizeof *logits);
    }
    char *made = calloc((size_t)it->n + 1, 1);
    for (int i = 0; i < it->n; i++) {
        for (int id = 0; id < vocab; id++) {
            logits[id] += served_may(it, id) ? 0.0f : -100.0f;
        }
        int32_t id;
        assert_int_equal(dm_sampler_next(&sampler, logits, session->ids, session->length, &id), DM_OK);
        if (id >= 256) {
            break;
        }
        made[i] = (char)id;
        assert_int_equal(dm_session_feed(session, &id, 1, false, logits), DM_OK);
    }
    dm_sampler_free(&sampler);
    dm_session_free(session);
    free(ids);
    return made;
}

static inline const json_t *served_choice(const json_t *answer, size_t index) {
    return json_array_get(json_object_get(answer, "choices"), index);
}

static inline const char *served_text(const json_t *answer, size_t index) {
    const json_t *text = json_object_get(served_choice(answer, index), "text");
    assert_true(json_is_string(text));
    return json_string_value(text);
}

static inline const char *served_finish(const json_t *answer, size_t index) {
    const json_t *finish = json_object_get(served_choice(answer, index), "finish_reason");
    return json_is_string(finish) ? json_string_value(finish) : "";
}

/* A stream put together. */
typedef struct streamed {
    char *text; /* of answer 0, "text" or "delta.content"; the caller's to free() */
    int parts, roles, usages;
    char finish[16];
    bool done; /* data: [DONE] came, last */
    int error; /* parts that are errors */
} streamed;

static inline void streamed_take(streamed *out, const json_t *part) {
    const json_t *choice = served_choice(part, 0), *delta = json_object_get(choice, "delta");
    const json_t *text = json_object_get(delta != NULL ? delta : choice, delta != NULL ? "content" : "text");
    const json_t *finish = json_object_get(choice, "finish_reason");
    size_t length = strlen(out->text), n = json_string_length(text);
    out->parts++;
    out->error += json_object_get(part, "error") != NULL;
    out->roles += json_object_get(delta, "role") != NULL;
    out->usages += json_is_object(json_object_get(part, "usage"));
    out->text = realloc(out->text, length + n + 1);
    assert_non_null(out->text);
    memcpy(out->text + length, n > 0 ? json_string_value(text) : "", n + 1);
    if (json_is_string(finish)) {
        assert_string_equal(out->finish, "");
        snprintf(out->finish, sizeof out->finish, "%s", json_string_value(finish));
    }
}

static inline streamed streamed_read(const http_answer *answer) {
    streamed out = {.text = calloc(1, 1)};
    for (char *at = answer->body, *end; at != NULL && (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
        *end = '\0';
        assert_false(out.done);
        if (strcmp(at, "data: [DONE]") == 0) {
            out.done = true;
        } else if (strncmp(at, "data: ", 6) == 0) {
            json_t *part = json_loads(at + 6, 0, NULL);
            assert_non_null(part);
            streamed_take(&out, part);
            json_decref(part);
        } else {
            assert_int_equal(*at, ':');
        }
    }
    return out;
}

#endif
