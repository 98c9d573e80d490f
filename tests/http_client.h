/* A plain client on sockets: what is sent is what the test says, byte by byte if it wants. */
#ifndef DM_TESTS_HTTP_CLIENT_H
#define DM_TESTS_HTTP_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An answer; status 0: none that can be read came. */
typedef struct http_answer {
    int status;
    char *bytes; /* [length] all of it, NUL-terminated; freed by http_free() */
    size_t length;
    char *body; /* in bytes, chunks put together */
    size_t body_length;
    bool whole; /* as long as it said */
} http_answer;

static inline int http_connect(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = 60};
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        fail_msg("cannot connect to port %u", port);
    }
    return fd;
}

static inline void http_send(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n <= 0) {
            return; /* the server has had enough */
        }
        bytes += n;
        length -= (size_t)n;
    }
}

/* Puts the chunks at `from` together in place; false: some are missing. */
static inline bool http_join(char *from, size_t length, size_t *joined) {
    char *at = from, *end = from + length, *to = from;
    for (;;) {
        char *line = memchr(at, '\n', (size_t)(end - at));
        size_t n = line != NULL ? strtoul(at, NULL, 16) : 0;
        if (line == NULL || n == 0 || n > (size_t)(end - line)) {
            *joined = (size_t)(to - from);
            *to = '\0';
            return line != NULL && n == 0;
        }
        memmove(to, line + 1, n);
        to += n;
        at = line + 1 + n + 2;
        at = at < end ? at : end;
    }
}

static inline void http_parse(http_answer *answer) {
    char *body = strstr(answer->bytes, "\r\n\r\n");
    if (strncmp(answer->bytes, "HTTP/1.", 7) != 0 || body == NULL) {
        return;
    }
    answer->status = atoi(answer->bytes + 9);
    *body = '\0';
    answer->body = body + 4;
    answer->body_length = answer->length - (size_t)(answer->body - answer->bytes);
    const char *length = strcasestr(answer->bytes, "\r\nContent-Length: ");
    answer->whole = length != NULL && strtoul(length + 18, NULL, 10) == answer->body_length;
    if (strcasestr(answer->bytes, "chunked") != NULL) {
        answer->whole = http_join(answer->body, answer->body_length, &answer->body_length);
    }
}

/* Reads until the server closes. */
static inline http_answer http_read(int fd) {
    http_answer answer = {.bytes = calloc(1, 1 << 12)};
    size_t room = 1 << 12;
    ssize_t n;
    assert_non_null(answer.bytes);
    while ((n = recv(fd, answer.bytes + answer.length, room - answer.length - 1, 0)) > 0) {
        answer.length += (size_t)n;
        if (answer.length + 1 == room) {
            room *= 2;
            answer.bytes = realloc(answer.bytes, room);
            assert_non_null(answer.bytes);
        }
    }
    answer.bytes[answer.length] = '\0';
    http_parse(&answer);
    return answer;
}

static inline void http_free(http_answer *answer) {
    free(answer->bytes);
    *answer = (http_answer){0};
}

/* A request as text: the caller's to free(). `headers` are whole lines. */
static inline char *http_request(const char *method, const char *path, const char *headers, const char *body) {
    char *text = NULL;
    if (asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s", method, path,
                 strlen(body), headers, body) < 0) {
        fail();
    }
    return text;
}

#define HTTP_JSON "Content-Type: application/json\r\n"

static inline http_answer http_ask(uint16_t port, const char *method, const char *path, const char *headers, const char *body) {
    char *text = http_request(method, path, headers, body);
    int fd = http_connect(port);
    http_send(fd, text, strlen(text));
    http_answer answer = http_read(fd);
    close(fd);
    free(text);
    return answer;
}

/* Posts JSON and parses the answer, of which the status is checked; the caller's to json_decref(). */
static inline json_t *http_post(uint16_t port, const char *path, int status, const char *body) {
    http_answer answer = http_ask(port, "POST", path, HTTP_JSON, body);
    if (answer.status != status || !answer.whole) {
        fail_msg("%s %.300s: status %d, expected %d: %.300s", path, body, answer.status, status,
                 answer.body != NULL ? answer.body : answer.bytes);
    }
    json_t *json = json_loadb(answer.body, answer.body_length, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    http_free(&answer);
    return json;
}

#endif
