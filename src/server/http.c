/* The server: connections, what every request has to pass, and sending. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/table.h"
#include "base/threads.h"
#include "server/client.h"
#include "server/server_parts.h"

enum {
    STACK = 2 << 20, /* the JSON parser goes 2,048 deep */
    DRAINED = 16,    /* times the most that a body may have, that are read of a longer one so that its sender sees the answer */
};

dm_server_options dm_server_defaults(void) {
    return (dm_server_options){.host = "127.0.0.1",
                               .port = 8080,
                               .slots = 4,
                               .piece = 128,
                               .max_body = 1 << 20,
                               .max_queue = 256,
                               .max_clients = 256,
                               .timeout_s = 600,
                               .idle_s = 30};
}

/* ---- Sending ---- */

static bool allows_origin(const dm_exchange *exchange) {
    const char *cors = exchange->server->cors;
    const char *origin = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN);
    return cors != NULL && origin != NULL && (strcmp(cors, "*") == 0 || strcmp(cors, origin) == 0);
}

static void add_headers(dm_exchange *exchange, struct MHD_Response *response, int status, const char *type) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_X_CONTENT_TYPE_OPTIONS, "nosniff");
    if (type != NULL) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    }
    if (status == 401) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    }
    if (status == 429 || status == 503) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    }
    if (allows_origin(exchange)) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, exchange->server->cors);
        MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Origin");
    }
}

static dm_http_result queue(dm_exchange *exchange, int status, const char *type, struct MHD_Response *response) {
    if (response == NULL) {
        return MHD_NO;
    }
    add_headers(exchange, response, status, type);
    dm_http_result result = MHD_queue_response(exchange->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    dm_metrics_count_request(&exchange->server->metrics, status);
    return result;
}

dm_http_result dm_send_text(dm_exchange *exchange, int status, const char *type, char *text, size_t length) {
    struct MHD_Response *response = text != NULL ? MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE) : NULL;
    if (response == NULL) {
        free(text);
    }
    return queue(exchange, status, type, response);
}

dm_http_result dm_send_json(dm_exchange *exchange, int status, json_t *object) {
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    return dm_send_text(exchange, status, "application/json", text, text != NULL ? strlen(text) : 0);
}

dm_http_result dm_send_static(dm_exchange *exchange, const char *type, const void *bytes, size_t length) {
    /* A page runs its own server's scripts only, and asks nobody else. */
    static const char policy[] = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
                                 "form-action 'none'; frame-ancestors 'none'";
    struct MHD_Response *response = MHD_create_response_from_buffer(length, (void *)bytes, MHD_RESPMEM_PERSISTENT);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Security-Policy", policy);
    }
    return queue(exchange, 200, type, response);
}

dm_http_result dm_send_problem(dm_exchange *exchange, int status, const char *param, const char *message) {
    return dm_send_json(exchange, status, dm_problem_json(status, param, message));
}

dm_http_result dm_send_failure(dm_exchange *exchange, dm_status failure, const char *param) {
    bool theirs = failure == DM_ERR_ARGUMENT || failure == DM_ERR_FORMAT || failure == DM_ERR_UNSUPPORTED;
    int status = theirs ? 400 : failure == DM_ERR_MEMORY || failure == DM_ERR_INTERRUPTED ? 503 : 500;
    return dm_send_problem(exchange, status, theirs ? param : NULL, dm_error_message());
}

dm_http_result dm_send_events(dm_exchange *exchange, MHD_ContentReaderCallback reader, void *user,
                              MHD_ContentReaderFreeCallback release) {
    enum { BLOCK = 16 << 10 };
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, reader, user, release);
    if (response == NULL) {
        release(user);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    return queue(exchange, 200, "text/event-stream", response);
}

/* ---- What every request has to pass ---- */

static void refuse(dm_exchange *exchange, int status, const char *message) {
    if (exchange->problem.status == 0) {
        exchange->problem.status = status;
        snprintf(exchange->problem.message, sizeof exchange->problem.message, "%s", message);
    }
}

static void check_type(dm_exchange *exchange) {
    const char *type = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    size_t length = strlen("application/json");
    bool fits = type != NULL && strncasecmp(type, "application/json", length) == 0 && strchr("; ", type[length]) != NULL;
    if (!fits) {
        refuse(exchange, 415, "the body is expected as application/json");
    }
}

static void check_head(dm_exchange *exchange, const char *method, const char *path) {
    bool known;
    char text[160];
    exchange->endpoint = dm_endpoint_find(method, path, &known);
    if (!dm_client_means_us(exchange)) {
        refuse(exchange, 403, "the request is for another host; it needs an API key, or localhost as its Host");
    } else if (!known) {
        snprintf(text, sizeof text, "there is no '%.100s'", path);
        refuse(exchange, 404, text);
    } else if (exchange->endpoint == NULL) {
        snprintf(text, sizeof text, "'%.60s' does not take %.20s", path, method);
        refuse(exchange, 405, text);
    } else if (!exchange->endpoint->open && !dm_client_is_known(exchange)) {
        refuse(exchange, 401, "no API key that is known here: expected 'Authorization: Bearer KEY'");
    } else if (strcmp(method, "POST") == 0) {
        check_type(exchange);
    }
}

/* Keeps a part of the body, or lets it go where the request is refused already; false: there is too much to read on. */
static bool take_body(dm_exchange *exchange, const char *bytes, size_t n) {
    const dm_server_options *o = &exchange->server->options;
    if (dm_seconds() - exchange->begun > o->idle_s) {
        refuse(exchange, 408, "the body took too long to come");
        return false;
    }
    if (exchange->length + n > o->max_body) {
        char text[96];
        snprintf(text, sizeof text, "the body has more than %zu bytes", o->max_body);
        refuse(exchange, 413, text);
    }
    if (exchange->problem.status == 0 && dm_reserve(&exchange->body, &exchange->room, exchange->length + n + 1, 1) != DM_OK) {
        refuse(exchange, 503, "out of memory for the body");
    }
    if (exchange->problem.status != 0) {
        exchange->dropped += n;
        return exchange->dropped / DRAINED <= o->max_body;
    }
    memcpy(exchange->body + exchange->length, bytes, n);
    exchange->length += n;
    return true;
}

/* What a browser asks before a page of another origin may ask. */
static dm_http_result answer_preflight(dm_exchange *exchange) {
    struct MHD_Response *response = MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    if (response != NULL && allows_origin(exchange)) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, X-Api-Key");
        MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_MAX_AGE, "600");
    }
    return queue(exchange, 204, NULL, response);
}

static dm_http_result finish(dm_exchange *exchange, const char *method) {
    if (exchange->server->cors != NULL && strcmp(method, "OPTIONS") == 0) {
        return answer_preflight(exchange);
    }
    if (exchange->problem.status != 0) {
        return dm_send_problem(exchange, exchange->problem.status, NULL, exchange->problem.message);
    }
    return exchange->endpoint->answer(exchange);
}

/* ---- The library's callbacks ---- */

static dm_exchange *open_exchange(dm_server *server, struct MHD_Connection *connection, const char *method, const char *path) {
    dm_exchange *exchange = dm_alloc(1, sizeof *exchange);
    if (exchange != NULL) {
        exchange->server = server;
        exchange->connection = connection;
        exchange->begun = dm_seconds();
        atomic_fetch_add(&server->active, 1);
        check_head(exchange, method, path);
    }
    return exchange;
}

/* Called once for the head, then for each part of the body, then once more. */
static dm_http_result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                 const char *version, const char *data, size_t *size, void **state) {
    dm_server *server = user;
    dm_exchange *exchange = *state;
    (void)version;
    if (exchange == NULL) {
        *state = exchange = open_exchange(server, connection, method, url);
        return exchange != NULL ? MHD_YES : MHD_NO;
    }
    exchange->path = url;
    if (*size > 0) {
        size_t n = *size;
        *size = 0;
        return take_body(exchange, data, n) ? MHD_YES : MHD_NO;
    }
    return finish(exchange, method);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why) {
    dm_exchange *exchange = *state;
    (void)user;
    (void)connection;
    (void)why;
    if (exchange != NULL) {
        atomic_fetch_sub(&exchange->server->active, 1);
        free(exchange->body);
        dm_free(exchange);
        *state = NULL;
    }
}

static void on_connection(void *user, struct MHD_Connection *connection, void **state, enum MHD_ConnectionNotificationCode what) {
    dm_server *server = user;
    (void)connection;
    (void)state;
    dm_metrics_count_client(&server->metrics, what == MHD_CONNECTION_NOTIFY_STARTED ? 1 : -1);
}

/* ---- Beginning and end ---- */

static dm_status find_address(const dm_server_options *options, struct addrinfo **out) {
    char port[8];
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    snprintf(port, sizeof port, "%u", options->port);
    int error = getaddrinfo(options->host, port, &hints, out);
    return error == 0 ? DM_OK : dm_fail(DM_ERR_ARGUMENT, "no address '%s': %s", options->host, gai_strerror(error));
}

static dm_status listen_on(dm_server *server, const struct addrinfo *address) {
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC;
    flags |= address->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0U;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, server, MHD_OPTION_SOCK_ADDR, address->ai_addr, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)server->options.max_clients, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)server->options.idle_s,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    return server->daemon != NULL
               ? DM_OK
               : dm_fail(DM_ERR_IO, "cannot listen on %s, port %u: is it in use?", server->options.host, server->options.port);
}

static dm_status copy_options(dm_server *server, const dm_server_options *options) {
    server->options = *options;
    server->host = strdup(options->host);
    server->cors = options->cors != NULL ? strdup(options->cors) : NULL;
    server->keys = dm_alloc(options->n_keys, sizeof(char *));
    if (server->host == NULL || server->keys == NULL || (options->cors != NULL && server->cors == NULL)) {
        return DM_ERR_MEMORY;
    }
    server->options.host = server->host;
    for (; server->n_keys < options->n_keys; server->n_keys++) {
        server->keys[server->n_keys] = strdup(options->keys[server->n_keys]);
        if (server->keys[server->n_keys] == NULL) {
            return DM_ERR_MEMORY;
        }
    }
    return DM_OK;
}

static dm_status check_options(const dm_server_options *o) {
    if (o->slots < 1 || o->slots > 256) {
        return dm_fail(DM_ERR_ARGUMENT, "%d slots cannot be had; 1 to 256 can", o->slots);
    }
    if (o->piece < 1 || o->max_queue < 0 || o->max_clients < 1 || o->timeout_s < 1 || o->idle_s < 1 || o->max_body < 1) {
        return dm_fail(DM_ERR_ARGUMENT, "a limit of the server is less than 1");
    }
    return DM_OK;
}

static dm_status start(dm_server *server, const dm_server_options *options) {
    DM_TRY(check_options(options));
    DM_TRY(copy_options(server, options));
    DM_TRY(dm_engine_start(server->model, server->tokenizer, &server->options, &server->metrics, &server->engine));
    dm_model_info info;
    dm_model_get_info(server->model, &info);
    server->rules = (dm_request_rules){server->tokenizer, server->options.family, info.vocab, dm_engine_context(server->engine)};
    struct addrinfo *address = NULL;
    DM_TRY(find_address(&server->options, &address));
    dm_status status = listen_on(server, address);
    freeaddrinfo(address);
    return status;
}

dm_status dm_server_start(const dm_model *model, const dm_tokenizer *tokenizer, const dm_server_options *options,
                          dm_server **out) {
    *out = NULL;
    dm_server *server = dm_alloc(1, sizeof *server);
    if (server == NULL) {
        return DM_ERR_MEMORY;
    }
    server->model = model;
    server->tokenizer = tokenizer;
    server->created = (int64_t)time(NULL);
    dm_metrics_init(&server->metrics);
    atomic_init(&server->stopping, false);
    atomic_init(&server->active, 0);
    dm_status status = start(server, options);
    if (status != DM_OK) {
        dm_server_stop(server, 0.0);
        return status;
    }
    *out = server;
    return DM_OK;
}

int32_t dm_server_context(const dm_server *server) {
    return dm_engine_context(server->engine);
}

uint16_t dm_server_port(const dm_server *server) {
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info != NULL ? info->port : 0;
}

/* What was made is sent before connections are closed, to clients that take it. */
static void wait_for_clients(const dm_server *server) {
    static const struct timespec moment = {.tv_nsec = 5000000};
    static const double patience = 2.0;
    double until = dm_seconds() + patience;
    while (atomic_load(&server->active) > 0 && dm_seconds() < until) {
        nanosleep(&moment, NULL);
    }
}

void dm_server_stop(dm_server *server, double grace_s) {
    if (server == NULL) {
        return;
    }
    atomic_store(&server->stopping, true);
    if (server->engine != NULL) {
        dm_engine_drain(server->engine, grace_s);
    }
    if (server->daemon != NULL) {
        wait_for_clients(server);
        MHD_stop_daemon(server->daemon);
    }
    if (server->engine != NULL) {
        dm_engine_free(server->engine);
    }
    for (size_t i = 0; i < server->n_keys; i++) {
        free(server->keys[i]);
    }
    dm_free(server->keys);
    free(server->host);
    free(server->cors);
    dm_metrics_free(&server->metrics);
    dm_free(server);
}
