/* Messages, JSON and signals: what every command says in the same way. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "cli/cli.h"

void cli_print_json(json_t *object) {
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
    putchar('\n');
    fflush(stdout);
    json_decref(object);
}

int cli_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("dilmodeli: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return CLI_FAILED;
}

void cli_close_model(dm_model *model) {
    const char *note = model != NULL ? dm_model_note(model) : NULL;
    if (note != NULL) {
        fprintf(stderr, "dilmodeli: %s (`dilmodeli repack` makes it anew)\n", note);
    }
    dm_model_close(model);
}

int cli_usage_error(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("dilmodeli: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n`dilmodeli %s --help` explains it\n", cli_command_name());
    va_end(arguments);
    return CLI_USAGE;
}

int cli_fail_status(void) {
    return cli_fail("%s", dm_error_message());
}

void cli_log_line(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "%s\n", line);
}

static volatile sig_atomic_t signals_seen, last_signal;
static int wake[2] = {-1, -1}; /* a pipe that a signal writes to, for who waits in poll() */

static void on_signal(int number) {
    last_signal = number;
    if (wake[1] >= 0) {
        (void)!write(wake[1], "", 1);
    }
    if (signals_seen++ > 0) {
        _exit(128 + number);
    }
    dm_interrupt();
}

int cli_signal(void) {
    return last_signal;
}

bool cli_wait_input(void) {
    char old;
    if (wake[0] < 0 && pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) {
        return true; /* reading will tell */
    }
    while (read(wake[0], &old, 1) > 0) { /* of signals that were seen to */
    }
    struct pollfd waited[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = wake[0], .events = POLLIN}};
    while (last_signal == 0 && poll(waited, 2, -1) < 0 && errno == EINTR) {
    }
    return last_signal == 0;
}

void cli_catch_signals(void) {
    signals_seen = last_signal = 0;
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Whole numbers up to the end of `stream`, which it closes; `where` is for the message. */
static bool read_ids(FILE *stream, const char *where, int32_t **ids, size_t *n) {
    size_t capacity = 0;
    *ids = NULL;
    *n = 0;
    int got;
    long long value;
    while ((got = fscanf(stream, "%lld", &value)) == 1) {
        if (value < 0 || value > INT32_MAX) {
            break;
        }
        if (*n == capacity) {
            capacity = capacity != 0 ? 2 * capacity : 256;
            int32_t *grown = realloc(*ids, capacity * sizeof **ids);
            if (grown == NULL) {
                break;
            }
            *ids = grown;
        }
        (*ids)[(*n)++] = (int32_t)value;
    }
    fclose(stream);
    if (got != EOF || *n == 0) {
        cli_fail("%s: expected token ids, whole numbers separated by spaces; number %zu is not one", where, *n + 1);
        free(*ids);
        *ids = NULL;
        return false;
    }
    return true;
}

bool cli_read_ids(const char *path, int32_t **ids, size_t *n) {
    FILE *stream = fopen(path, "re");
    if (stream == NULL) {
        cli_fail("%s: cannot open", path);
        return false;
    }
    return read_ids(stream, path, ids, n);
}

bool cli_parse_ids(const char *text, int32_t **ids, size_t *n) {
    const char *some = *text != '\0' ? text : " "; /* an empty buffer may be refused */
    FILE *stream = fmemopen((void *)(uintptr_t)some, strlen(some), "r");
    if (stream == NULL) {
        cli_fail("out of memory reading token ids");
        return false;
    }
    return read_ids(stream, "--ids", ids, n);
}

json_t *cli_json_text(const char *bytes, size_t length) {
    return dm_json_bytes(bytes, length);
}

json_t *cli_json_figure(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_ids(const int32_t *ids, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer(ids[i]));
    }
    return list;
}

json_t *cli_json_routing(const dm_routing_stats *r) {
    json_t *hits = json_object();
    if (isfinite(r->hit_rate)) {
        json_object_set_new(hits, "ram", json_real(r->hit_rate));
    }
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:o, s:f, s:f}", "tokens", (json_int_t)r->tokens,
                     "experts_per_token", r->experts_per_token, "experts_per_step", r->experts_per_step, "maxvio", r->maxvio,
                     "changed", r->changed, "games", (json_int_t)r->games, "sweeps", r->sweeps, "mean_sweeps", r->mean_sweeps,
                     "max_regret", r->max_regret, "hit_rate", hits, "bytes_read_per_token", r->bytes_read_per_token, "asleep",
                     r->asleep);
}

json_t *cli_json_stream(const dm_model *model) {
    dm_stream_stats stats;
    if (!dm_model_stream_stats(model, &stats)) {
        return json_null();
    }
    return json_pack("{s:I, s:I, s:I, s:I}", "slots", (json_int_t)stats.slots, "experts", (json_int_t)stats.experts, "bytes",
                     (json_int_t)stats.bytes, "bytes_read", (json_int_t)stats.read);
}

void cli_print_stream(const dm_model *model) {
    dm_stream_stats stats;
    if (dm_model_stream_stats(model, &stats)) {
        printf("memory         %.1f MB for %" PRIu64 " of %" PRIu64 " experts; %.1f MB read\n", 1e-6 * (double)stats.bytes,
               stats.slots, stats.experts, 1e-6 * (double)stats.read);
    }
}

void cli_print_routing(const dm_routing_stats *r) {
    printf("experts        %.2f per token, %.1f of a layer per step, MaxVio %.3f\n", r->experts_per_token, r->experts_per_step,
           r->maxvio);
    if (r->games > 0) {
        printf("games          %.2f sweeps (median %g), regret at most %.2g; %.1f%% of the choices are not the model's\n",
               r->mean_sweeps, r->sweeps, r->max_regret, 100.0 * r->changed);
    }
    if (isfinite(r->hit_rate)) {
        printf("resident       %.2f%% of the experts asked for, %.3g MB read per token\n", 100.0 * r->hit_rate,
               1e-6 * r->bytes_read_per_token);
    }
    if (r->asleep > 0.0) {
        printf("asleep         %.1f%% of the experts\n", 100.0 * r->asleep);
    }
}
