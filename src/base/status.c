#include "base/status.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

#undef dm_fail /* as the analyzer sees them */
#undef dm_fail_in

static _Thread_local char message[2048]; /* the longest lists what is known */
static volatile sig_atomic_t interrupted;
static dm_log_fn log_fn;
static void *log_user;

const char *dm_error_message(void) {
    return message;
}

const char *dm_version(void) {
    return DM_VERSION;
}

/* Messages quote files, and go to terminals: one line of it, whatever a file holds. */
static void quiet(char *text) {
    for (size_t left = strlen(text), n; left > 0; text += n, left -= n) {
        uint32_t code;
        n = dm_utf8_decode(text, left, &code);
        if (n > 0 && dm_utf8_is_control(code)) {
            memset(text, '?', n);
        }
        n = n > 0 ? n : 1; /* a path may hold any bytes, which stay as they are */
    }
}

dm_status dm_fail(dm_status code, const char *format, ...) {
    char text[sizeof message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments); /* apart, as an argument may be the old message */
    va_end(arguments);
    quiet(text);
    memcpy(message, text, sizeof text);
    return code;
}

dm_status dm_fail_in(dm_status code, const char *context) {
    return dm_fail(code, "%s: %s", context, message);
}

void dm_set_log(dm_log_fn fn, void *user) {
    log_fn = fn;
    log_user = user;
}

void dm_log(const char *format, ...) {
    if (log_fn == NULL) {
        return;
    }
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    quiet(line);
    log_fn(log_user, line);
}

void dm_interrupt(void) {
    interrupted = 1;
}

void dm_interrupt_clear(void) {
    interrupted = 0;
}

bool dm_interrupted(void) {
    return interrupted != 0;
}
