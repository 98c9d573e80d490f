/* The server's answers, over real connections: every endpoint, whole and streamed, and that company does not change them. */
#include <math.h>
#include <pthread.h>

#include "served_model.h"

static served_model served;

static int open_server(void **state) {
    (void)state;
    const dm_server_options options = served_options();
    served_open(&served, &options);
    return 0;
}

static int close_server(void **state) {
    (void)state;
    served_close(&served);
    return 0;
}

static json_t *complete(const asked *it, const char *more) {
    char *body = served_body(it, more);
    json_t *answer = http_post(served.port, "/v1/completions", 200, body);
    free(body);
    return answer;
}

static streamed stream(const asked *it, const char *more) {
    char *body = served_body(it, more);
    http_answer answer = http_ask(served.port, "POST", "/v1/completions", HTTP_JSON, body);
    assert_int_equal(answer.status, 200);
    assert_true(answer.whole);
    streamed out = streamed_read(&answer);
    http_free(&answer);
    free(body);
    return out;
}

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

/* ---- State ---- */

static void test_state(void **state) {
    (void)state;
    http_answer answer = http_ask(served.port, "GET", "/v1/models", "", "");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "\"id\":\"tiny\""));
    http_free(&answer);
    answer = http_ask(served.port, "GET", "/metrics", "", "");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "dilmodeli_slots 4\n"));
    assert_non_null(strstr(answer.body, "# TYPE dilmodeli_request_seconds histogram\n"));
    http_free(&answer);
    answer = http_ask(served.port, "GET", "/", "", "");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.bytes, "text/html"));
    http_free(&answer);
    assert_int_equal(served_health(&served, "slots"), 4);
}

static void test_tokens(void **state) {
    (void)state;
    json_t *answer = http_post(served.port, "/tokenize", 200, "{\"content\":\"A\\u00e9\"}");
    const int bytes[] = {65, 0xc3, 0xa9};
    const json_t *tokens = json_object_get(answer, "tokens");
    assert_int_equal(json_array_size(tokens), 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(json_integer_value(json_array_get(tokens, i)), bytes[i]);
    }
    json_decref(answer);
    answer = http_post(served.port, "/detokenize", 200, "{\"tokens\":[65,195,169]}");
    assert_string_equal(json_string_value(json_object_get(answer, "content")), "A\xc3\xa9");
    json_decref(answer);
    json_decref(http_post(served.port, "/detokenize", 400, "{\"tokens\":[99999]}"));
    json_decref(http_post(served.port, "/detokenize", 400, "{\"tokens\":[\"a\"]}"));
    json_decref(http_post(served.port, "/tokenize", 400, "{}"));
}

/* One request at /events gives posts, one after another. */
static void test_events(void **state) {
    (void)state;
    char *text = http_request("GET", "/events", "", "");
    int fd = http_connect(served.port);
    http_send(fd, text, strlen(text));
    free(text);
    char bytes[1 << 16] = "";
    size_t length = 0;
    const char *second = NULL;
    while (second == NULL && length + 1 < sizeof bytes) {
        ssize_t n = recv(fd, bytes + length, sizeof bytes - length - 1, 0);
        assert_true(n > 0);
        length += (size_t)n;
        bytes[length] = '\0';
        const char *first = strstr(bytes, "data: {");
        second = first != NULL ? strstr(first + 1, "data: {") : NULL;
    }
    assert_non_null(strstr(bytes, "text/event-stream"));
    assert_non_null(strstr(bytes, "\"slots\":[{\"state\":\"free\""));
    assert_non_null(strstr(bytes, "\"loads\":[["));
    assert_non_null(strstr(bytes, "\"decoded\":"));
    close(fd);
}

/* ---- Completions ---- */

static const asked some = {"Once upon a time", "abcdefgh ", 40, 7, 0.9};

static void test_same_as_alone(void **state) {
    (void)state;
    static const asked all[] = {
        {"Once upon a time", "abcdefgh ", 40, 7, 0.9},
        {"x", "01", 30, 1, 0.0},
        {"A prompt that is longer than a piece, and then longer than two of them, to see that pieces are read alike.", "abc", 20,
         9, 2},
        {"No letters at all are asked for", "etaoin shrdlu", 0 + 25, 123456789012345ULL, 1.5},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char *alone = served_alone(&served, &all[i], NULL);
        for (int again = 0; again < 2; again++) { /* the second time from what a slot holds */
            json_t *answer = complete(&all[i], "");
            assert_string_equal(served_text(answer, 0), alone);
            assert_string_equal(served_finish(answer, 0), "length");
            const json_t *usage = json_object_get(answer, "usage");
            assert_int_equal(number(usage, "prompt_tokens"), strlen(all[i].prompt));
            assert_int_equal(number(usage, "completion_tokens"), all[i].n);
            size_t known = (size_t)number(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
            assert_true(!again || known == (strlen(all[i].prompt) - 1) / SERVED_PIECE * SERVED_PIECE);
            json_decref(answer);
        }
        free(alone);
    }
}

static void test_stream(void **state) {
    (void)state;
    char *alone = served_alone(&served, &some, NULL);
    streamed out = stream(&some, ",\"stream\":true");
    assert_string_equal(out.text, alone);
    assert_string_equal(out.finish, "length");
    assert_true(out.done && out.usages == 0 && out.parts > 5);
    free(out.text);
    out = stream(&some, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    assert_string_equal(out.text, alone);
    assert_true(out.done && out.usages == 1);
    free(out.text);
    free(alone);
}

/* A stop string anywhere in the answer, across tokens as each is a byte, is not there and nothing of it was sent. */
static void test_stops(void **state) {
    (void)state;
    char *alone = served_alone(&served, &some, NULL);
    for (size_t at = 0; at + 4 < strlen(alone); at += 5) {
        for (size_t n = 1; n <= 4; n++) {
            char more[160];
            snprintf(more, sizeof more, ",\"stop\":[\"zz\",\"%.*s\"]", (int)n, alone + at);
            char stop[8];
            snprintf(stop, sizeof stop, "%.*s", (int)n, alone + at);
            size_t end = (size_t)(strstr(alone, stop) - alone);
            char streaming[200];
            snprintf(streaming, sizeof streaming, "%s,\"stream\":true", more);
            json_t *answer = complete(&some, more);
            streamed out = stream(&some, streaming);
            assert_int_equal(strlen(served_text(answer, 0)), end);
            assert_memory_equal(served_text(answer, 0), alone, end);
            assert_string_equal(served_finish(answer, 0), "stop");
            assert_string_equal(out.text, served_text(answer, 0));
            assert_string_equal(out.finish, "stop");
            json_decref(answer);
            free(out.text);
        }
    }
    /* One that nearly comes is sent in the end. */
    size_t length = strlen(alone);
    char more[64];
    snprintf(more, sizeof more, ",\"stop\":\"%s~\"", alone + length - 3);
    json_t *answer = complete(&some, more);
    assert_string_equal(served_text(answer, 0), alone);
    json_decref(answer);
    free(alone);
}

/* Characters of several tokens come whole, and a broken one at the end as U+FFFD. */
static void test_characters(void **state) {
    (void)state;
    asked it = {"x", "\xc3\xa9", 9, 3, 1.0};
    streamed out = stream(&it, ",\"stream\":true");
    json_t *answer = complete(&it, "");
    json_t *valid = json_string(out.text);
    assert_non_null(valid);
    assert_string_equal(out.text, served_text(answer, 0));
    json_decref(valid);
    json_decref(answer);
    free(out.text);
}

static void test_choices(void **state) {
    (void)state;
    json_t *answer = complete(&some, ",\"n\":3");
    assert_int_equal(json_array_size(json_object_get(answer, "choices")), 3);
    for (size_t i = 0; i < 3; i++) {
        asked one = some;
        one.seed += i;
        char *alone = served_alone(&served, &one, NULL);
        assert_int_equal(number(served_choice(answer, i), "index"), i);
        assert_string_equal(served_text(answer, i), alone);
        free(alone);
    }
    json_decref(answer);
    answer =
        http_post(served.port, "/v1/completions", 200,
                  "{\"prompt\":[\"ab\",\"cd\"],\"echo\":true,\"max_tokens\":3,\"logit_bias\":{\"122\":100},\"temperature\":0}");
    assert_string_equal(served_text(answer, 0), "abzzz");
    assert_string_equal(served_text(answer, 1), "cdzzz");
    json_decref(answer);
    answer = http_post(served.port, "/v1/completions", 200,
                       "{\"prompt\":[[97,98],[99]],\"max_tokens\":1,\"logit_bias\":{\"122\":100}}");
    assert_int_equal(json_array_size(json_object_get(answer, "choices")), 2);
    json_decref(answer);
}

static void test_penalties(void **state) {
    (void)state;
    /* Two letters that are far ahead of the others and equally likely but for the model: each time one comes it loses. */
    json_t *answer = http_post(served.port, "/v1/completions", 200,
                               "{\"prompt\":\"x\",\"max_tokens\":40,\"temperature\":0,\"frequency_penalty\":2,\"logit_bias\":"
                               "{\"97\":80,\"98\":80}}");
    const char *text = served_text(answer, 0);
    int a = 0;
    for (size_t i = 0; text[i] != '\0'; i++) {
        assert_true(text[i] == 'a' || text[i] == 'b');
        a += text[i] == 'a';
    }
    assert_true(a > 12 && a < 28);
    json_decref(answer);
    /* A penalty once for each: after both were there, it changes nothing. */
    asked it = {"x", "ab", 20, 1, 0.0};
    json_t *plain = complete(&it, ""), *present = complete(&it, ",\"presence_penalty\":2");
    assert_int_equal(strlen(served_text(plain, 0)), strlen(served_text(present, 0)));
    assert_non_null(strchr(served_text(present, 0), 'a'));
    assert_non_null(strchr(served_text(present, 0), 'b'));
    json_decref(plain);
    json_decref(present);
}

/* ---- Odds ---- */

static double log_odds(const float *logits, int vocab, int id) {
    double sum = 0.0;
    for (int i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - (double)logits[id]);
    }
    return -log(sum);
}

static void test_odds(void **state) {
    (void)state;
    float logits[512];
    int vocab = served.tiny.info.vocab;
    asked it = {"Odds", NULL, 3, 1, 0.0};
    free(served_alone(&served, &it, logits));
    json_t *answer =
        http_post(served.port, "/v1/completions", 200, "{\"prompt\":\"Odds\",\"max_tokens\":1,\"temperature\":0,\"logprobs\":3}");
    const json_t *odds = json_object_get(served_choice(answer, 0), "logprobs");
    int best = 0;
    for (int id = 0; id < vocab; id++) {
        best = logits[id] > logits[best] ? id : best;
    }
    double told = json_number_value(json_array_get(json_object_get(odds, "token_logprobs"), 0));
    assert_true(fabs(told - log_odds(logits, vocab, best)) < 1e-4);
    const json_t *top = json_array_get(json_object_get(odds, "top_logprobs"), 0);
    const char *key;
    json_t *value;
    assert_true(json_object_size(top) >= 1 && json_object_size(top) <= 3);
    json_object_foreach((json_t *)top, key, value) {
        assert_true(json_number_value(value) <= told + 1e-6);
    }
    json_decref(answer);
    answer =
        http_post(served.port, "/v1/chat/completions", 200,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"Odds\"}],\"max_tokens\":3,\"temperature\":0,\"logprobs\":true,"
                  "\"top_logprobs\":2}");
    const json_t *content = json_object_get(json_object_get(served_choice(answer, 0), "logprobs"), "content");
    assert_int_equal(json_array_size(content), 3);
    assert_true(fabs(number(json_array_get(content, 0), "logprob") - told) < 1e-4);
    assert_int_equal(json_array_size(json_object_get(json_array_get(content, 2), "top_logprobs")), 2);
    json_decref(answer);
}

/* A prompt's own tokens, each by the logits before it. */
static void test_echoed_odds(void **state) {
    (void)state;
    static const char prompt[] = "Scored from its second token on, over two pieces.";
    enum { N = sizeof prompt - 1 };
    int vocab = served.tiny.info.vocab;
    float *logits = malloc(N * (size_t)vocab * sizeof *logits);
    int32_t ids[N];
    dm_session *session;
    for (size_t i = 0; i < N; i++) {
        ids[i] = (unsigned char)prompt[i];
    }
    assert_non_null(logits);
    assert_int_equal(dm_session_create(served.tiny.model, SERVED_CONTEXT, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, N, true, logits), DM_OK);
    char body[200];
    snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1}", prompt);
    json_t *answer = http_post(served.port, "/v1/completions", 200, body);
    assert_string_equal(served_text(answer, 0), prompt);
    const json_t *odds = json_object_get(json_object_get(served_choice(answer, 0), "logprobs"), "token_logprobs");
    assert_int_equal(json_array_size(odds), N);
    assert_true(json_is_null(json_array_get(odds, 0)));
    for (size_t i = 1; i < N; i++) {
        double wanted = log_odds(logits + (i - 1) * (size_t)vocab, vocab, ids[i]);
        assert_true(fabs(json_number_value(json_array_get(odds, i)) - wanted) < 1e-3);
    }
    json_decref(answer);
    dm_session_free(session);
    free(logits);
}

/* ---- Chats, formats, embeddings ---- */

static void test_chat(void **state) {
    (void)state;
    static const char body[] =
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"Once\"}]}],\"max_completion_tokens\":12,\"seed\":3,\"temperature\":1%s}";
    char text[400];
    snprintf(text, sizeof text, body, "");
    json_t *answer = http_post(served.port, "/v1/chat/completions", 200, text);
    const json_t *message = json_object_get(served_choice(answer, 0), "message");
    assert_string_equal(json_string_value(json_object_get(message, "role")), "assistant");
    snprintf(text, sizeof text, body, ",\"stream\":true");
    http_answer raw = http_ask(served.port, "POST", "/v1/chat/completions", HTTP_JSON, text);
    streamed out = streamed_read(&raw);
    assert_string_equal(out.text, json_string_value(json_object_get(message, "content")));
    assert_true(out.done && out.roles == 1);
    /* "plain" marks nothing but the line after instructions */
    assert_int_equal(number(json_object_get(answer, "usage"), "prompt_tokens"), strlen("Be brief.\nOnce"));
    free(out.text);
    http_free(&raw);
    json_decref(answer);
}

/* Whatever a model of random weights would like to say, it says JSON that fits. */
static void test_formats(void **state) {
    (void)state;
    for (int seed = 0; seed < (DM_EMULATED ? 2 : 8); seed++) {
        char body[700];
        snprintf(
            body, sizeof body,
            "{\"prompt\":\"x\",\"seed\":%d,\"max_tokens\":300,\"temperature\":1.5,\"response_format\":{\"type\":\"json_schema\","
            "\"json_schema\":{\"schema\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":5},"
            "\"n\":{\"type\":\"integer\"},\"kind\":{\"enum\":[\"a\",\"b\"]},\"list\":{\"type\":\"array\",\"items\":{\"type\":"
            "\"boolean\"},\"minItems\":1,\"maxItems\":2}},\"required\":[\"name\",\"n\",\"kind\",\"list\"]}}}}",
            seed);
        json_t *answer = http_post(served.port, "/v1/completions", 200, body);
        json_t *made = json_loads(served_text(answer, 0), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        assert_string_equal(served_finish(answer, 0), "stop");
        assert_int_equal(json_object_size(made), 4);
        assert_true(json_is_string(json_object_get(made, "name")) && json_is_integer(json_object_get(made, "n")));
        assert_true(json_array_size(json_object_get(made, "list")) >= 1);
        json_decref(made);
        json_decref(answer);
    }
    json_t *answer = http_post(served.port, "/v1/completions", 200,
                               "{\"prompt\":\"x\",\"seed\":1,\"max_tokens\":4,\"response_format\":{\"type\":\"json_object\"}}");
    assert_int_equal(served_text(answer, 0)[0], '{');
    json_decref(answer);
    answer = http_post(
        served.port, "/v1/completions", 400,
        "{\"prompt\":\"x\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"type\":\"string\","
        "\"pattern\":\"a\"}}}}");
    const json_t *error = json_object_get(answer, "error");
    assert_non_null(strstr(json_string_value(json_object_get(error, "message")), "'pattern'"));
    assert_string_equal(json_string_value(json_object_get(error, "param")), "response_format");
    json_decref(answer);
}

static void test_embeddings(void **state) {
    (void)state;
    json_t *answer = http_post(served.port, "/v1/embeddings", 200, "{\"input\":[\"a cat\",\"the dog\",\"a cat\"]}");
    const json_t *data = json_object_get(answer, "data");
    double same = 0.0, other = 0.0, norm = 0.0;
    const json_t *vectors[3];
    for (size_t i = 0; i < 3; i++) {
        vectors[i] = json_object_get(json_array_get(data, i), "embedding");
        assert_int_equal(json_array_size(vectors[i]), served.tiny.info.dim);
    }
    for (size_t k = 0; k < (size_t)served.tiny.info.dim; k++) {
        double x = json_real_value(json_array_get(vectors[0], k));
        norm += x * x;
        other += x * json_real_value(json_array_get(vectors[1], k));
        same += x * json_real_value(json_array_get(vectors[2], k));
    }
    assert_true(fabs(norm - 1.0) < 1e-5 && fabs(same - 1.0) < 1e-5 && other < 0.999);
    json_t *coded = http_post(served.port, "/v1/embeddings", 200, "{\"input\":\"a cat\",\"encoding_format\":\"base64\"}");
    const json_t *text = json_object_get(json_array_get(json_object_get(coded, "data"), 0), "embedding");
    assert_int_equal(json_string_length(text), ((size_t)served.tiny.info.dim * 4 + 2) / 3 * 4);
    json_decref(coded);
    json_decref(answer);
}

/* ---- Company ---- */

typedef struct client {
    asked it;
    char prompt[128];
    char *alone;
    bool streams, same;
} client;

static void *ask_as_client(void *user) {
    client *c = user;
    if (c->streams) {
        streamed out = stream(&c->it, ",\"stream\":true");
        c->same = strcmp(out.text, c->alone) == 0 && out.done;
        free(out.text);
    } else {
        json_t *answer = complete(&c->it, "");
        c->same = strcmp(served_text(answer, 0), c->alone) == 0;
        json_decref(answer);
    }
    return NULL;
}

/* Clients at once, with prompts of many lengths and seeds of their own: each gets what it gets alone. */
static void test_company(void **state) {
    (void)state;
    enum { CLIENTS = DM_EMULATED ? 6 : 32 };
    static client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    for (size_t i = 0; i < CLIENTS; i++) {
        client *c = &clients[i];
        snprintf(
            c->prompt, sizeof c->prompt, "%.*s", (int)(1 + i * 37 % 100),
            "Each client begins its text in the same way as some others do, and all of them end it elsewhere, as clients do.");
        c->it = (asked){c->prompt, "abcdefghij klm", 5 + (int)(i * 13 % 30), i, i % 5 == 0 ? 0.0 : 0.5 + 0.1 * (double)(i % 7)};
        c->alone = served_alone(&served, &c->it, NULL);
        c->streams = i % 2 == 1;
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_as_client, &clients[i]), 0);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        free(clients[i].alone);
        if (!clients[i].same) {
            fail_msg("client %zu has another answer than alone", i);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state),         cmocka_unit_test(test_tokens),      cmocka_unit_test(test_events),
        cmocka_unit_test(test_same_as_alone), cmocka_unit_test(test_stream),      cmocka_unit_test(test_stops),
        cmocka_unit_test(test_characters),    cmocka_unit_test(test_choices),     cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_odds),          cmocka_unit_test(test_echoed_odds), cmocka_unit_test(test_chat),
        cmocka_unit_test(test_formats),       cmocka_unit_test(test_embeddings),  cmocka_unit_test(test_company),
    };
    return cmocka_run_group_tests(tests, open_server, close_server);
}
