#include "visualization/dashboard.h"

#if DM_DASHBOARD

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/threads.h"
#include "visualization/report.h"

enum { CLIENTS = 16, TIMEOUT = 60 /* seconds */, BLOCK = 64 << 10 };

static const double LEAST_REST = 2.0, REST = 250.0 /* times what drawing took */,
                    QUIET = 10.0 /* seconds between signs of life */;

/* What was drawn last; it stays as long as somebody sends it. */
typedef struct snapshot {
    int holders; /* under the dashboard's lock */
    uint64_t number;
    size_t length;
    char *text; /* as an event */
} snapshot;

struct dm_dashboard {
    char *folder, *metrics; /* and the file in it */
    char *page;             /* what GET / answers, NUL-terminated */
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_t painter;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* of what is below */
    bool stopping, painting;
    int watchers;
    snapshot *last; /* NULL: none yet */
};

/* ---- Drawing ---- */

/* Every line of an event has a name before it. */
static char *event_of(const char *text, size_t *length) {
    char *event = NULL;
    FILE *out = open_memstream(&event, length);
    if (out == NULL) {
        return NULL;
    }
    for (const char *end; *text != '\0'; text = *end != '\0' ? end + 1 : end) {
        end = text + strcspn(text, "\r\n");
        fprintf(out, "data: %.*s\n", (int)(end - text), text);
    }
    fputc('\n', out);
    bool good = ferror(out) == 0;
    if (fclose(out) != 0 || !good) {
        free(event);
        return NULL;
    }
    return event;
}

/* With the lock held. */
static void drop(snapshot *s) {
    if (s != NULL && --s->holders == 0) {
        free(s->text);
        dm_free(s);
    }
}

/* A run that has nothing to show yet says so. What fails leaves the picture before. */
static void paint(dm_dashboard *it) {
    char *content = NULL;
    snapshot *fresh = dm_alloc(1, sizeof *fresh);
    if (fresh == NULL || dm_report_content(it->folder, &content) != DM_OK) {
        dm_free(fresh);
        return;
    }
    fresh->text = event_of(content, &fresh->length);
    free(content);
    if (fresh->text == NULL) {
        dm_free(fresh);
        return;
    }
    pthread_mutex_lock(&it->lock);
    fresh->holders = 1;
    fresh->number = it->last != NULL ? it->last->number + 1 : 1;
    drop(it->last);
    it->last = fresh;
    pthread_cond_broadcast(&it->changed);
    pthread_mutex_unlock(&it->lock);
}

/* Waits, with the lock held, for a change or so many seconds. */
static void wait_change(dm_dashboard *it, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&it->changed, &it->lock, &until);
}

/* Bytes of the file, to see whether there is more. */
static uint64_t size_of(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

static void *paint_on(void *user) {
    dm_dashboard *it = user;
    double next = 0.0;
    uint64_t drawn = 0;
    bool any = false;
    pthread_setname_np(pthread_self(), "dashboard"); /* for ps, and for who measures what it costs */
    pthread_mutex_lock(&it->lock);
    while (!it->stopping) {
        const double now = dm_seconds();
        if (it->watchers == 0 || now < next) {
            wait_change(it, it->watchers == 0 ? QUIET : next - now);
            continue;
        }
        pthread_mutex_unlock(&it->lock);
        const uint64_t size = size_of(it->metrics);
        if (!any || size != drawn) {
            paint(it);
            drawn = size;
            any = true;
        }
        const double rest = REST * (dm_seconds() - now);
        next = dm_seconds() + (rest > LEAST_REST ? rest : LEAST_REST);
        pthread_mutex_lock(&it->lock);
    }
    pthread_mutex_unlock(&it->lock);
    return NULL;
}

/* ---- Events ---- */

typedef struct watcher {
    dm_dashboard *dashboard;
    snapshot *now; /* being sent; NULL: none */
    size_t at;
    uint64_t seen;
} watcher;

/* The next picture or, after a while, a comment; 0: the dashboard stops. *bytes stay until the next call. */
static size_t next_bytes(watcher *w, const char **bytes) {
    static const char comment[] = ": waiting\n\n";
    dm_dashboard *it = w->dashboard;
    pthread_mutex_lock(&it->lock);
    drop(w->now);
    w->now = NULL;
    const double start = dm_seconds();
    while (!it->stopping && (it->last == NULL || it->last->number == w->seen) && dm_seconds() - start < QUIET) {
        wait_change(it, QUIET - (dm_seconds() - start) + 0.01);
    }
    size_t length = it->stopping ? 0 : sizeof comment - 1;
    *bytes = comment;
    if (!it->stopping && it->last != NULL && it->last->number != w->seen) {
        w->now = it->last;
        w->now->holders++;
        w->seen = w->now->number;
        *bytes = w->now->text;
        length = w->now->length;
    }
    w->at = 0;
    pthread_mutex_unlock(&it->lock);
    return length;
}

static ssize_t read_events(void *user, uint64_t position, char *out, size_t most) {
    watcher *w = user;
    const char *bytes = w->now != NULL ? w->now->text : NULL;
    size_t length = w->now != NULL ? w->now->length : 0;
    (void)position;
    if (w->at == length) {
        length = next_bytes(w, &bytes);
    }
    if (length == 0) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    size_t n = length - w->at < most ? length - w->at : most;
    memcpy(out, bytes + w->at, n);
    w->at = w->now != NULL ? w->at + n : 0; /* a comment goes in one piece */
    return (ssize_t)n;
}

static void count_watcher(dm_dashboard *it, int change) {
    pthread_mutex_lock(&it->lock);
    it->watchers += change;
    pthread_cond_broadcast(&it->changed);
    pthread_mutex_unlock(&it->lock);
}

static void release_watcher(void *user) {
    watcher *w = user;
    dm_dashboard *it = w->dashboard;
    count_watcher(it, -1);
    pthread_mutex_lock(&it->lock);
    drop(w->now);
    pthread_mutex_unlock(&it->lock);
    dm_free(w);
}

/* ---- HTTP ---- */

/* Pages of other sites that a browser was talked into taking for this one's are refused (DNS rebinding). */
static bool is_own_name(struct MHD_Connection *connection) {
    static const char *const names[] = {"127.0.0.1", "localhost"};
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    for (size_t i = 0; host != NULL && i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        if (strncmp(host, names[i], n) == 0 && (host[n] == ':' || host[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static enum MHD_Result send_response(struct MHD_Connection *connection, unsigned status, const char *type,
                                     struct MHD_Response *response) {
    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_X_CONTENT_TYPE_OPTIONS, "nosniff");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *message) {
    return send_response(connection, status, "text/plain; charset=utf-8",
                         MHD_create_response_from_buffer(strlen(message), (void *)message, MHD_RESPMEM_PERSISTENT));
}

static enum MHD_Result send_events(dm_dashboard *it, struct MHD_Connection *connection) {
    watcher *w = dm_alloc(1, sizeof *w);
    if (w == NULL) {
        return MHD_NO;
    }
    w->dashboard = it;
    count_watcher(it, 1);
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_events, w, release_watcher);
    if (response == NULL) {
        release_watcher(w);
    }
    return send_response(connection, MHD_HTTP_OK, "text/event-stream", response);
}

static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *data, size_t *size, void **state) {
    dm_dashboard *it = user;
    (void)version;
    (void)data;
    (void)state;
    if (*size > 0) { /* nobody asked for a body */
        *size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "GET") != 0) {
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "the dashboard is there to be looked at: expected GET\n");
    }
    if (!is_own_name(connection)) {
        return refuse(connection, MHD_HTTP_FORBIDDEN,
                      "the dashboard is for this machine: expected it as 127.0.0.1 or localhost\n");
    }
    if (strcmp(url, "/events") == 0) {
        return send_events(it, connection);
    }
    if (strcmp(url, "/") == 0) {
        return send_response(connection, MHD_HTTP_OK, "text/html; charset=utf-8",
                             MHD_create_response_from_buffer(strlen(it->page), it->page, MHD_RESPMEM_PERSISTENT));
    }
    return refuse(connection, MHD_HTTP_NOT_FOUND, "there is / and there is /events\n");
}

/* ---- Beginning and end ---- */

static dm_status listen_on(dm_dashboard *it, uint16_t port) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    errno = 0;
    it->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION, port, NULL, NULL, answer, it,
                                  MHD_OPTION_SOCK_ADDR, (const struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT,
                                  (unsigned)CLIENTS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT, MHD_OPTION_END);
    if (it->daemon == NULL) {
        return dm_fail(DM_ERR_IO, "the dashboard cannot listen on port %u of 127.0.0.1: %s", port, strerror(errno));
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(it->daemon, MHD_DAEMON_INFO_BIND_PORT);
    it->port = info != NULL ? info->port : port;
    return DM_OK;
}

static void init_locks(dm_dashboard *it) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&it->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&it->lock, NULL);
}

static dm_status start(dm_dashboard *it, const char *folder, uint16_t port) {
    init_locks(it);
    it->folder = strdup(folder);
    it->metrics = dm_path_join(folder, "metrics.jsonl");
    if (it->folder == NULL || it->metrics == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a dashboard");
    }
    DM_TRY(dm_report_live_page(folder, &it->page));
    it->painting = pthread_create(&it->painter, NULL, paint_on, it) == 0;
    if (!it->painting) {
        return dm_fail(DM_ERR_MEMORY, "no thread can be had for the dashboard");
    }
    return listen_on(it, port);
}

dm_status dm_dashboard_start(const char *folder, uint16_t port, dm_dashboard **out) {
    dm_dashboard *it = *out = dm_alloc(1, sizeof *it);
    if (it == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_status status = start(it, folder, port);
    if (status != DM_OK) {
        dm_dashboard_stop(it);
        *out = NULL;
    }
    return status;
}

uint16_t dm_dashboard_port(const dm_dashboard *it) {
    return it->port;
}

void dm_dashboard_stop(dm_dashboard *it) {
    if (it == NULL) {
        return;
    }
    pthread_mutex_lock(&it->lock);
    it->stopping = true;
    pthread_cond_broadcast(&it->changed);
    pthread_mutex_unlock(&it->lock);
    if (it->daemon != NULL) {
        MHD_stop_daemon(it->daemon);
    }
    if (it->painting) {
        pthread_join(it->painter, NULL);
    }
    drop(it->last);
    pthread_cond_destroy(&it->changed);
    pthread_mutex_destroy(&it->lock);
    free(it->folder);
    free(it->metrics);
    free(it->page);
    dm_free(it);
}

bool dm_dashboard_is_built(void) {
    return true;
}

#else

dm_status dm_dashboard_start(const char *folder, uint16_t port, dm_dashboard **out) {
    (void)folder;
    (void)port;
    *out = NULL;
    return dm_fail(DM_ERR_UNSUPPORTED, "there is no dashboard: the program was built without libmicrohttpd");
}

uint16_t dm_dashboard_port(const dm_dashboard *it) {
    (void)it;
    return 0;
}

void dm_dashboard_stop(dm_dashboard *it) {
    (void)it;
}

bool dm_dashboard_is_built(void) {
    return false;
}

#endif
