/* The dashboard of a run: what it answers, that it sends what is new, and that nobody can ask it for more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/threads.h"
#include "test_files.h"
#include "visualization/dashboard.h"
#include "xml_check.h"

static const char *const files[] = {"metrics.jsonl", NULL};
static char folder[256];

static int connect_to(const dm_dashboard *it) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(dm_dashboard_port(it)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = DM_EMULATED ? 60 : 10};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s >= 0);
    assert_int_equal(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(s, (const struct sockaddr *)&address, sizeof address), 0);
    return s;
}

static void ask(int s, const char *request) {
    assert_int_equal(write(s, request, strlen(request)), strlen(request));
}

/* Reads on into text[room] until `word` was seen, or, for NULL, to the end; returns the length. */
static size_t read_until(int s, char *text, size_t room, const char *word) {
    size_t length = 0;
    ssize_t n;
    text[0] = '\0';
    while ((word == NULL || strstr(text, word) == NULL) && length + 1 < room &&
           (n = read(s, text + length, room - 1 - length)) > 0) {
        length += (size_t)n;
        text[length] = '\0';
    }
    if (word != NULL && strstr(text, word) == NULL) {
        fail_msg("no '%s' in: %.300s", word, text);
    }
    return length;
}

static void exchange(const dm_dashboard *it, const char *request, char *text, size_t room) {
    int s = connect_to(it);
    ask(s, request);
    read_until(s, text, room, NULL);
    close(s);
}

static void write_steps(int steps) {
    FILE *out = fopen(test_path("metrics.jsonl"), "w");
    assert_non_null(out);
    for (int i = 1; i <= steps; i++) {
        fprintf(out, "{\"step\":%d,\"loss\":%d}\n", i, 10 - i);
    }
    fclose(out);
}

static dm_dashboard *begin(void) {
    dm_dashboard *it;
    snprintf(folder, sizeof folder, "%s", test_path(""));
    if (dm_dashboard_start(folder, 0, &it) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    assert_true(dm_dashboard_port(it) > 0);
    return it;
}

static char text[1 << 20];

static void pages_are_answered_to_this_machine_alone(void **state) {
    (void)state;
    dm_dashboard *it = begin();
    size_t where = 0;
    exchange(it, "GET / HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n", text, sizeof text);
    assert_non_null(strstr(text, "200 OK"));
    assert_non_null(strstr(text, "data-events=\"events\""));
    const char *page = strstr(text, "\r\n\r\n") + 4;
    assert_true(xml_check(page, strlen(page), &where) > 0);
    static const struct {
        const char *request, *code;
    } cases[] = {{"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", " 403 "},
                 {"GET / HTTP/1.1\r\nHost: localhost.evil.example\r\nConnection: close\r\n\r\n", " 403 "},
                 {"GET /../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", " 404 "},
                 {"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", " 405 "},
                 {"nonsense\r\n\r\n", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        exchange(it, cases[i].request, text, sizeof text);
        assert_non_null(strstr(text, cases[i].code));
    }
    dm_dashboard_stop(it);
}

static void what_is_new_is_sent(void **state) {
    (void)state;
    unlink(test_path("metrics.jsonl"));
    dm_dashboard *it = begin();
    int s = connect_to(it), gone = connect_to(it);
    ask(s, "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    ask(gone, "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    read_until(s, text, sizeof text, "there is no metrics.jsonl"); /* a run that has no step yet */
    assert_non_null(strstr(text, "text/event-stream"));
    close(gone);
    write_steps(3);
    read_until(s, text, sizeof text, "Not in this report");
    assert_non_null(strstr(text, "3 steps"));
    assert_non_null(strstr(text, "id=\"chart-loss\""));
    double start = dm_seconds();
    dm_dashboard_stop(it); /* while it is being watched */
    assert_true(dm_seconds() - start < (DM_EMULATED ? 60.0 : 5.0));
    read_until(s, text, sizeof text, NULL);
    close(s);
}

static void a_port_that_is_taken_is_said(void **state) {
    (void)state;
    dm_dashboard *it = begin(), *other;
    assert_int_equal(dm_dashboard_start(folder, dm_dashboard_port(it), &other), DM_ERR_IO);
    assert_null(other);
    assert_non_null(strstr(dm_error_message(), "cannot listen on port"));
    dm_dashboard_stop(it);
    dm_dashboard_stop(NULL);
}

static int clean(void **state) {
    (void)state;
    test_remove(files);
    return 0;
}

int main(void) {
    if (!dm_dashboard_is_built()) {
        fprintf(stderr, "skipped: built without libmicrohttpd\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_answered_to_this_machine_alone),
        cmocka_unit_test(what_is_new_is_sent),
        cmocka_unit_test(a_port_that_is_taken_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
