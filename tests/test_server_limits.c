/* What clients do wrong, or with intent: malformed requests, limits, keys, slow senders, clients that go away. */
#include <pthread.h>

#include "base/memory.h"
#include "base/random.h"
#include "served_model.h"
#include "server/engine_parts.h"
#include "server/queue.h"

static served_model served;

/* Each test has a server of its own options over one model. */
static int open_model(void **state) {
    (void)state;
    const dm_server_options options = served_options();
    served_open(&served, &options);
    dm_server_stop(served.server, 0.0);
    served.server = NULL;
    return 0;
}

static int close_model(void **state) {
    (void)state;
    served_close(&served);
    return 0;
}

static void with(dm_server_options options) {
    served_start(&served, &options);
}

static void stop(double grace) {
    dm_server_stop(served.server, grace);
    served.server = NULL;
}

static void expect(const char *method, const char *path, const char *headers, const char *body, int status) {
    http_answer answer = http_ask(served.port, method, path, headers, body);
    if (answer.status != status) {
        fail_msg("%s %s %.100s: status %d, expected %d", method, path, body, answer.status, status);
    }
    json_t *json = answer.body != NULL ? json_loadb(answer.body, answer.body_length, 0, NULL) : NULL;
    const json_t *error = json_object_get(json, "error");
    bool told = json_is_string(json_object_get(error, "message")) && json_is_string(json_object_get(error, "type"));
    assert_true(told == (status >= 400));
    json_decref(json);
    http_free(&answer);
}

static const char good[] = "{\"prompt\":\"x\",\"max_tokens\":2}";
static const char endless[] = "{\"prompt\":\"x\",\"max_tokens\":300,\"ignore_eos\":true,\"logit_bias\":{\"97\":50}}";
static const char endless_stream[] =
    "{\"prompt\":\"x\",\"max_tokens\":300,\"ignore_eos\":true,\"logit_bias\":{\"97\":50},\"stream\":true}";

/* These take seconds where nobody ends them. */
static const char many[] = "{\"prompt\":\"x\",\"max_tokens\":380,\"ignore_eos\":true,\"n\":80}";
static const char many_stream[] = "{\"prompt\":\"x\",\"max_tokens\":380,\"ignore_eos\":true,\"n\":80,\"stream\":true}";

/* ---- Wrong requests ---- */

static void test_refused(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "",
        "{",
        "[]",
        "7",
        "{\"prompt\":}",
        "{}",
        "{\"prompt\":7}",
        "{\"prompt\":[]}",
        "{\"prompt\":[\"a\",7]}",
        "{\"prompt\":[300000]}",
        "{\"prompt\":[-1]}",
        "{\"prompt\":[1,\"a\"]}",
        "{\"prompt\":\"x\",\"max_tokens\":0}",
        "{\"prompt\":\"x\",\"max_tokens\":-5}",
        "{\"prompt\":\"x\",\"max_tokens\":1.5}",
        "{\"prompt\":\"x\",\"max_tokens\":\"a\"}",
        "{\"prompt\":\"x\",\"temperature\":-1}",
        "{\"prompt\":\"x\",\"temperature\":1e99}",
        "{\"prompt\":\"x\",\"top_p\":2}",
        "{\"prompt\":\"x\",\"top_k\":-1}",
        "{\"prompt\":\"x\",\"n\":0}",
        "{\"prompt\":\"x\",\"n\":1000000}",
        "{\"prompt\":\"x\",\"n\":2,\"best_of\":3}",
        "{\"prompt\":\"x\",\"stop\":\"\"}",
        "{\"prompt\":\"x\",\"stop\":[1]}",
        "{\"prompt\":\"x\",\"stop\":{}}",
        "{\"prompt\":\"x\",\"logit_bias\":[]}",
        "{\"prompt\":\"x\",\"logit_bias\":{\"a\":1}}",
        "{\"prompt\":\"x\",\"logit_bias\":{\"99999\":1}}",
        "{\"prompt\":\"x\",\"logit_bias\":{\"1\":1000}}",
        "{\"prompt\":\"x\",\"logprobs\":21}",
        "{\"prompt\":\"x\",\"seed\":\"a\"}",
        "{\"prompt\":\"x\",\"stream\":1}",
        "{\"prompt\":\"x\",\"stream_options\":{}}",
        "{\"prompt\":\"x\",\"suffix\":\"y\"}",
        "{\"prompt\":\"x\",\"tools\":[{}]}",
        "{\"prompt\":\"x\",\"response_format\":{\"type\":\"xml\"}}",
        "{\"prompt\":\"x\",\"response_format\":7}",
        "{\"prompt\":\"x\",\"prompt\":\"y\"}",
        "{\"prompt\":\"\xff\"}",
    };
    static const char *const chats[] = {
        "{}",
        "{\"messages\":[]}",
        "{\"messages\":7}",
        "{\"messages\":[7]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":7}]}",
        "{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":2}",
        "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}",
    };
    with(served_options());
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        expect("POST", "/v1/completions", HTTP_JSON, bodies[i], 400);
    }
    for (size_t i = 0; i < sizeof chats / sizeof *chats; i++) {
        expect("POST", "/v1/chat/completions", HTTP_JSON, chats[i], 400);
    }
    expect("POST", "/v1/chat/completions", HTTP_JSON, /* this model's turns know no functions */
           "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}"
           "}]}",
           400);
    char *deep = calloc(20001, 1); /* brackets in brackets end in the parser */
    memset(deep, '[', 20000);
    expect("POST", "/v1/completions", HTTP_JSON, deep, 400);
    memcpy(deep, "{\"prompt\":", 10);
    expect("POST", "/v1/completions", HTTP_JSON, deep, 400);
    memset(deep + 10 + 2000, ']', 2000);
    strcpy(deep + 10 + 4000, "}");
    expect("POST", "/v1/completions", HTTP_JSON, deep, 400);
    free(deep);
    expect("POST", "/v1/embeddings", HTTP_JSON, "{\"input\":\"x\",\"encoding_format\":\"hex\"}", 400);
    expect("POST", "/v1/completions", "", good, 415);
    expect("POST", "/v1/completions", "Content-Type: text/plain\r\n", good, 415);
    expect("POST", "/v1/completions", "Content-Type: application/json-seq\r\n", good, 415);
    expect("POST", "/v1/completions", "content-type: APPLICATION/json; charset=utf-8\r\n", good, 200);
    expect("GET", "/v1/completions", "", "", 405);
    expect("DELETE", "/health", "", "", 405);
    expect("POST", "/", HTTP_JSON, good, 405);
    expect("GET", "/v2", "", "", 404);
    expect("GET", "/../../etc/passwd", "", "", 404);
    stop(0.0);
}

/* A prompt as long as the context leaves room for one token; a longer one is refused. */
static void test_context(void **state) {
    (void)state;
    with(served_options());
    char body[SERVED_CONTEXT + 100];
    for (int extra = 0; extra < 2; extra++) {
        char prompt[SERVED_CONTEXT + 2] = "";
        memset(prompt, 'a', (size_t)(SERVED_CONTEXT + extra));
        snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":9}", prompt);
        json_t *answer = http_post(served.port, "/v1/completions", extra ? 400 : 200, body);
        if (!extra) {
            assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "usage"), "completion_tokens")), 1);
        }
        json_decref(answer);
    }
    stop(0.0);
}

static void test_large_body(void **state) {
    (void)state;
    dm_server_options options = served_options();
    options.max_body = 2000;
    with(options);
    char *body = calloc(40001, 1);
    assert_non_null(body);
    for (int length = 1900; length <= 40000; length += 19050) {
        memset(body, ' ', (size_t)length);
        memcpy(body, good, sizeof good - 1);
        expect("POST", "/v1/completions", HTTP_JSON, body, length <= 2000 ? 200 : length < 2000 * 16 ? 413 : 0);
    }
    free(body);
    stop(0.0);
}

/* ---- Keys, other origins ---- */

static void test_keys(void **state) {
    (void)state;
    static const char *const keys[] = {"first-key", "second"};
    dm_server_options options = served_options();
    options.keys = keys;
    options.n_keys = 2;
    with(options);
    static const struct {
        const char *header;
        int status;
    } cases[] = {
        {"", 401},
        {"Authorization: Bearer first-key\r\n", 200},
        {"Authorization: bearer second\r\n", 200},
        {"X-Api-Key: second\r\n", 200},
        {"Authorization: Bearer first-ke\r\n", 401},
        {"Authorization: Bearer first-key2\r\n", 401},
        {"Authorization: Bearer \r\n", 401},
        {"Authorization: Basic first-key\r\n", 401},
        {"Authorization: Bearer first-kex\r\n", 401},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char headers[200];
        snprintf(headers, sizeof headers, "%s%s", HTTP_JSON, cases[i].header);
        expect("POST", "/v1/completions", headers, good, cases[i].status);
        http_answer answer = http_ask(served.port, "GET", "/metrics", cases[i].header, "");
        assert_int_equal(answer.status, cases[i].status);
        http_free(&answer);
    }
    expect("GET", "/health", "", "", 200);
    stop(0.0);
}

static bool allows(const char *method, const char *origin) {
    char headers[200];
    snprintf(headers, sizeof headers, "Origin: %s\r\n", origin);
    http_answer answer = http_ask(served.port, method, "/health", headers, "");
    bool allowed = strcasestr(answer.bytes, "Access-Control-Allow-Origin: ") != NULL;
    assert_true(answer.status == 200 || answer.status == 204 || answer.status == 405);
    http_free(&answer);
    return allowed;
}

static void test_origins(void **state) {
    (void)state;
    dm_server_options options = served_options();
    with(options);
    assert_false(allows("GET", "http://a.example") || allows("OPTIONS", "http://a.example"));
    stop(0.0);
    options.cors = "http://a.example";
    with(options);
    assert_true(allows("GET", "http://a.example") && allows("OPTIONS", "http://a.example"));
    assert_false(allows("GET", "http://b.example") || allows("OPTIONS", "http://b.example"));
    stop(0.0);
}

/* A name of a stranger that leads here is not ours, unless keys tell who may ask. */
static void test_hosts(void **state) {
    (void)state;
    static const struct {
        const char *host;
        int status;
    } cases[] = {{"localhost", 200},
                 {"LOCALHOST:8080", 200},
                 {"127.0.0.1", 200},
                 {"127.0.0.1:1", 200},
                 {"[::1]:8080", 200},
                 {"evil.example", 403},
                 {"localhost.evil.example", 403},
                 {"127.0.0.1.evil.example", 403},
                 {"127.evil", 403},
                 {"", 403}};
    with(served_options());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", cases[i].host);
        int fd = http_connect(served.port);
        http_send(fd, text, strlen(text));
        http_answer answer = http_read(fd);
        assert_int_equal(answer.status, cases[i].status);
        http_free(&answer);
        close(fd);
    }
    stop(0.0);
}

/* ---- Hostile bytes ---- */

/* A request that is nearly right, with some bytes changed, left out or put in. */
static size_t spoil(dm_random *random, char *bytes, size_t length, size_t room) {
    int changes = 1 + (int)(dm_random_next(random) % 8);
    for (int i = 0; i < changes && length > 2; i++) {
        size_t at = dm_random_next(random) % length, n = 1 + dm_random_next(random) % 8;
        switch (dm_random_next(random) % 4) {
        case 0:
            bytes[at] = (char)dm_random_next(random);
            break;
        case 1:
            n = n < length - at ? n : length - at;
            memmove(bytes + at, bytes + at + n, length - at - n);
            length -= n;
            break;
        case 2:
            n = length + n < room ? n : 0;
            memmove(bytes + at + n, bytes + at, length - at);
            length += n;
            break;
        default:
            length = at + 1;
        }
    }
    return length;
}

static bool memory_is_watched(void) {
#if defined(__has_feature)
    return __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

static void test_spoiled(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"x\",\"max_tokens\":1}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9\"}],\"max_tokens\":1,\"stop\":[\"a\"],\"logit_bias\":{\"1\":2}}",
        "{\"input\":[\"a\",\"b\"]}",
        "{\"prompt\":[1],\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"$ref\":\"#\"}}}}",
    };
    static const char *const paths[] = {"/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/completions"};
    enum { REQUESTS = DM_EMULATED ? 50 : 1000 };
    dm_server_options options = served_options();
    options.idle_s = 1;
    with(options);
    dm_random random;
    dm_random_seed(&random, 2026);
    uint64_t before = 0;
    for (int i = 0; i < REQUESTS; i++) {
        char bytes[2048];
        size_t which = dm_random_next(&random) % 4;
        char *text = http_request("POST", paths[which], HTTP_JSON, bodies[which]);
        size_t length = strlen(text);
        size_t head = length - strlen(bodies[which]);
        memcpy(bytes, text, length);
        /* Mostly the body alone, of the length that was announced, as what stands in its way is the library's to refuse. */
        if (dm_random_next(&random) % 4 == 0) {
            length = spoil(&random, bytes, length, sizeof bytes);
        } else {
            size_t n = spoil(&random, bytes + head, length - head, sizeof bytes - head);
            char *again = NULL;
            assert_true(asprintf(&again,
                                 "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n" HTTP_JSON
                                 "\r\n",
                                 paths[which], n) > 0);
            memmove(bytes + strlen(again), bytes + head, n);
            memcpy(bytes, again, strlen(again));
            length = strlen(again) + n;
            free(again);
        }
        int fd = http_connect(served.port);
        http_send(fd, bytes, length);
        shutdown(fd, SHUT_WR);
        http_answer answer = http_read(fd);
        assert_true(answer.status == 0 || (answer.status >= 200 && answer.status < 506));
        assert_true(answer.status != 500);
        http_free(&answer);
        close(fd);
        free(text);
        before = i == REQUESTS / 4 ? dm_rss() : before;
    }
    served_settle(&served);
    /* Sanitizers keep what was freed, and tell of what was lost themselves. */
    assert_true(memory_is_watched() || dm_rss() < before + (16 << 20));
    expect("POST", "/v1/completions", HTTP_JSON, good, 200);
    stop(0.0);
}

/* Not a request at all. */
static void test_garbage(void **state) {
    (void)state;
    dm_server_options options = served_options();
    options.idle_s = 1;
    with(options);
    static const char *const texts[] = {"\r\n\r\n",
                                        "GET\r\n\r\n",
                                        "GET / HTTP/9.9\r\n\r\n",
                                        "\x16\x03\x01\x02",
                                        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int fd = http_connect(served.port);
        http_send(fd, texts[i], strlen(texts[i]));
        shutdown(fd, SHUT_WR);
        http_answer answer = http_read(fd);
        assert_true(answer.status == 0 || answer.status >= 400);
        http_free(&answer);
        close(fd);
    }
    char *long_path = calloc(100001, 1);
    memset(long_path, '/', 100000);
    http_answer answer = http_ask(served.port, "GET", long_path, "", "");
    assert_true(answer.status == 0 || answer.status >= 400);
    http_free(&answer);
    free(long_path);
    expect("GET", "/health", "", "", 200);
    stop(0.0);
}

/* ---- Slow, half gone, gone ---- */

static void test_byte_by_byte(void **state) {
    (void)state;
    with(served_options());
    char *text = http_request("POST", "/v1/completions", HTTP_JSON, good);
    int fd = http_connect(served.port);
    for (size_t i = 0; text[i] != '\0'; i++) {
        http_send(fd, text + i, 1);
        usleep(200);
    }
    http_answer answer = http_read(fd);
    assert_int_equal(answer.status, 200);
    http_free(&answer);
    close(fd);
    free(text);
    stop(0.0);
}

/* Half a request and then nothing: the connection is closed, others are answered meanwhile. */
static void test_half_sent(void **state) {
    (void)state;
    dm_server_options options = served_options();
    options.idle_s = 1;
    with(options);
    int heads = http_connect(served.port), body = http_connect(served.port);
    char *text = http_request("POST", "/v1/completions", HTTP_JSON, good);
    http_send(heads, text, 20);
    http_send(body, text, strlen(text) - 5);
    expect("POST", "/v1/completions", HTTP_JSON, good, 200);
    http_answer first = http_read(heads), second = http_read(body); /* until they are closed */
    assert_true(first.status == 0 || first.status == 408);
    assert_true(second.status == 0 || second.status == 408);
    http_free(&first);
    http_free(&second);
    close(heads);
    close(body);
    free(text);
    stop(0.0);
}

static int ask_and_leave_open(const char *body) {
    char *text = http_request("POST", "/v1/completions", HTTP_JSON, body);
    int fd = http_connect(served.port);
    http_send(fd, text, strlen(text));
    free(text);
    return fd;
}

static uint64_t counter(const char *name) {
    http_answer answer = http_ask(served.port, "GET", "/metrics", "", "");
    char line[100];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(answer.body, line);
    assert_non_null(at);
    uint64_t value = strtoull(at + strlen(line), NULL, 10);
    http_free(&answer);
    return value;
}

/* Answers that nobody waits for end: whole ones and streams, of those who close and those who vanish with a reset. */
static void test_gone(void **state) {
    (void)state;
    dm_server_options options = served_options();
    options.slots = 1;
    with(options);
    /* One slot is kept busy for as long as its client is there: those behind it go away while they wait. */
    for (int streams = 0; streams < 2; streams++) {
        for (int reset = 0; reset < 2; reset++) {
            uint64_t cancelled = counter("dilmodeli_cancelled_total");
            int fds[3];
            for (int i = 0; i < 3; i++) {
                fds[i] = ask_and_leave_open(streams ? many_stream : many);
                if (i == 0 && streams) {
                    char byte;
                    assert_int_equal(recv(fds[i], &byte, 1, 0), 1);
                }
            }
            for (int i = 0; served_health(&served, "waiting") <= 160; i++) { /* until all three have been heard */
                assert_true(i < 2000);
            }
            for (int i = 0; i < 3; i++) {
                const struct linger hard = {.l_onoff = 1, .l_linger = 0};
                if (reset) {
                    setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
                }
                close(fds[i]);
            }
            served_settle(&served);
            assert_true(counter("dilmodeli_cancelled_total") > cancelled);
        }
    }
    expect("POST", "/v1/completions", HTTP_JSON, good, 200);
    stop(0.0);
}

/* ---- Too many, too long, the end ---- */

typedef struct call {
    pthread_t thread;
    const char *body;
    http_answer answer;
} call;

static void *make_call(void *user) {
    call *it = user;
    it->answer = http_ask(served.port, "POST", "/v1/completions", HTTP_JSON, it->body);
    return NULL;
}

static void test_queue_is_full(void **state) {
    (void)state;
    dm_server_options options = served_options();
    options.slots = 1;
    options.max_queue = 1;
    with(options);
    expect("POST", "/v1/completions", HTTP_JSON, "{\"prompt\":\"x\",\"max_tokens\":1,\"n\":3}", 429);
    expect("POST", "/v1/completions", HTTP_JSON, "{\"prompt\":\"x\",\"max_tokens\":1,\"n\":2}", 200);
    stop(0.0);
}

static void test_timeout(void **state) {
    (void)state;
    dm_server_options options = served_options();
    options.slots = 1;
    options.timeout_s = 1;
    with(options);
    call first = {
        .body = "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"],\"n\":16,\"max_tokens\":380,\"ignore_eos\":true}"};
    make_call(&first); /* 48,000 tokens in a second are too many: some are cut, and those that still wait are refused */
    assert_true(first.answer.status == 503);
    http_free(&first.answer);
    served_settle(&served);
    stop(0.0);
}

/* An answer under way is cut with a reason; requests after that are refused or not heard. */
static void test_stopping(void **state) {
    (void)state;
    for (int streams = 0; streams < 2; streams++) {
        dm_server_options options = served_options();
        options.slots = 2;
        with(options);
        call it = {.body = streams ? endless_stream : endless};
        assert_int_equal(pthread_create(&it.thread, NULL, make_call, &it), 0);
        for (int i = 0; i < 20000 && counter("dilmodeli_generated_tokens_total") == 0; i++) {
            usleep(1000);
        }
        stop(0.0);
        pthread_join(it.thread, NULL);
        assert_int_equal(it.answer.status, 200);
        assert_true(it.answer.whole);
        if (streams) {
            streamed out = streamed_read(&it.answer);
            assert_true(out.done);
            assert_string_equal(out.finish, "length");
            free(out.text);
        } else {
            assert_non_null(strstr(it.answer.body, "\"finish_reason\":\"length\""));
        }
        http_free(&it.answer);
    }
}

static void test_bad_options(void **state) {
    (void)state;
    dm_server *server;
    dm_server_options options = served_options();
    options.slots = 0;
    assert_int_equal(dm_server_start(served.tiny.model, served.tokenizer, &options, &server), DM_ERR_ARGUMENT);
    options = served_options();
    options.host = "999.1.1.1";
    assert_int_equal(dm_server_start(served.tiny.model, served.tokenizer, &options, &server), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "999.1.1.1"));
    with(served_options());
    options = served_options();
    options.port = served.port;
    assert_int_equal(dm_server_start(served.tiny.model, served.tokenizer, &options, &server), DM_ERR_IO);
    assert_null(server);
    stop(0.0);
}

/* ---- Turns ---- */

/* A client with many answers does not keep one with a single one waiting. */
static void test_turns(void **state) {
    (void)state;
    static const uint64_t clients[] = {7, 7, 7, 8, 7, 9, 8};
    static const size_t order[] = {0, 3, 5, 1, 6, 2, 4};
    enum { N = 7 };
    static dm_request requests[N];
    static dm_choice choices[N];
    dm_queue *queue = calloc(1, sizeof *queue);
    assert_non_null(queue);
    for (size_t i = 0; i < N; i++) {
        requests[i].client = clients[i];
        requests[i].deadline = i == 4 ? 5.0 : 10.0;
        choices[i].request = &requests[i];
        dm_queue_put(queue, &choices[i]);
    }
    assert_null(dm_queue_take_stale(queue, 4.0));
    for (size_t i = 0; i < N; i++) {
        assert_ptr_equal(dm_queue_take(queue), &choices[order[i]]);
    }
    assert_null(dm_queue_take(queue));
    dm_queue_put(queue, &choices[3]);
    dm_queue_put(queue, &choices[4]);
    dm_queue_put(queue, &choices[5]);
    assert_ptr_equal(dm_queue_take_stale(queue, 6.0), &choices[4]);
    atomic_store(&requests[5].cancelled, true);
    assert_ptr_equal(dm_queue_take_stale(queue, 6.0), &choices[5]);
    assert_int_equal(queue->count, 1);
    free(queue);
}

/* Keys and values of all slots fit into memory, or nothing starts. */
static void test_memory(void **state) {
    (void)state;
    dm_server_options options = served_options();
    int32_t context = 0;
    options.slots = 4;
    options.context = 0;
    assert_int_equal(dm_engine_choose_context(&options, 1000, 100, 4 * 1000 * 100, &context), DM_OK);
    assert_int_equal(context, 1000);
    assert_int_equal(dm_engine_choose_context(&options, 1000, 100, 4 * 1000 * 100 - 1, &context), DM_OK);
    assert_int_equal(context, 999);
    assert_int_equal(dm_engine_choose_context(&options, 1000, 100, 0, &context), DM_OK);
    assert_int_equal(context, 1000);
    assert_int_equal(dm_engine_choose_context(&options, 1000, 100, 399, &context), DM_ERR_MEMORY);
    options.context = 2000;
    assert_int_equal(dm_engine_choose_context(&options, 1000, 100, 4 * 2000 * 100, &context), DM_OK);
    assert_int_equal(context, 2000);
    assert_int_equal(dm_engine_choose_context(&options, 1000, 100, 4 * 2000 * 100 - 1, &context), DM_ERR_MEMORY);
    assert_non_null(strstr(dm_error_message(), "1999 positions each"));
    options.slots = 256;
    options.context = INT32_MAX;
    assert_int_equal(dm_engine_choose_context(&options, 1000, SIZE_MAX >> 9, UINT64_MAX, &context), DM_ERR_MEMORY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_context),  cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_keys),      cmocka_unit_test(test_origins),  cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_spoiled),   cmocka_unit_test(test_garbage),  cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_half_sent), cmocka_unit_test(test_gone),     cmocka_unit_test(test_queue_is_full),
        cmocka_unit_test(test_timeout),   cmocka_unit_test(test_stopping), cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_turns),     cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
