#include "cli/train_display.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/threads.h"
#include "cli/cli.h"

static const double REDRAW = 0.1; /* seconds between redrawings on a terminal */
static const double REPEAT = 10;  /* between lines elsewhere */

static struct {
    bool terminal;
    bool drawn;   /* a progress line is on the screen */
    double shown; /* when the last one was */
} display;

static void clear_line(void) {
    if (display.drawn) {
        fputs("\r\033[K", stderr);
        display.drawn = false;
    }
}

static void log_line(void *user, const char *line) {
    (void)user;
    clear_line();
    fprintf(stderr, "%s\n", line);
}

void train_display_begin(void) {
    display.terminal = isatty(STDERR_FILENO) != 0;
    display.drawn = false;
    display.shown = -REPEAT;
    dm_set_log(log_line, NULL);
}

void train_display_end(void) {
    clear_line();
    dm_set_log(cli_log_line, NULL);
}

/* 3h 05m, 4m 12s, 9s. */
static void describe_time(char *text, size_t size, double seconds) {
    if (!(seconds >= 0) || seconds > 1e8) {
        snprintf(text, size, "?");
        return;
    }
    int64_t s = (int64_t)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(text, size, "%" PRId64 "h %02" PRId64 "m", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        snprintf(text, size, "%" PRId64 "m %02" PRId64 "s", s / 60, s % 60);
    } else {
        snprintf(text, size, "%" PRId64 "s", s);
    }
}

static void describe(char *text, size_t size, const dm_train_progress *p) {
    char valid[64] = "", balance[32] = "", left[32];
    if (isfinite(p->val_loss)) {
        snprintf(valid, sizeof valid, "  valid %.3f (%.3f bits/byte)", p->val_loss, p->val_bpb);
    }
    if (p->maxvio > 0) {
        snprintf(balance, sizeof balance, "  MaxVio %.2f", p->maxvio);
    }
    describe_time(left, sizeof left, p->seconds_left);
    snprintf(text, size, "step %" PRId64 "/%" PRId64 "  loss %.3f%s%s  %.0f tokens/s  %s left", p->step, p->steps, p->loss, valid,
             balance, p->tokens_per_s, left);
}

static void draw(const char *text) {
    struct winsize window;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1 ? window.ws_col - 1 : 79;
    fprintf(stderr, "\r\033[K%.*s", columns, text); /* the text is ASCII */
    fflush(stderr);
    display.drawn = true;
}

/* A model may say anything; control characters must not reach the terminal. */
static void show_sample(int64_t step, const char *sample) {
    clear_line();
    fprintf(stderr, "--- sample at step %" PRId64 " ---\n", step);
    for (const char *c = sample; *c != '\0'; c++) {
        bool control = ((unsigned char)*c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7f;
        fputc(control ? '?' : *c, stderr);
    }
    fputs("\n---\n", stderr);
}

void train_display_step(void *user, const dm_train_progress *progress) {
    (void)user;
    if (progress->sample != NULL) {
        show_sample(progress->step, progress->sample);
    }
    double now = dm_seconds();
    bool last = progress->step == progress->steps;
    if (!last && progress->sample == NULL && now - display.shown < (display.terminal ? REDRAW : REPEAT)) {
        return;
    }
    display.shown = now;
    char text[256];
    describe(text, sizeof text, progress);
    if (display.terminal) {
        draw(text);
    } else {
        fprintf(stderr, "%s\n", text);
    }
}
