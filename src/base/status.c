#include "base/status.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#undef dm_fail /* as the analyzer sees them */
#undef dm_fail_in

static _Thread_local char message[1024];
static volatile sig_atomic_t interrupted;
static dm_log_fn log_fn;
static void *log_user;

const char *dm_error_message(void) {
    return message;
}

const char *dm_version(void) {
    return DM_VERSION;
}

dm_status dm_fail(dm_status code, const char *format, ...) {
    char text[sizeof message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments); /* apart, as an argument may be the old message */
    va_end(arguments);
    for (char *c = text; *c != '\0'; c++) { /* what a file says may be part of it: one line, and nothing that a terminal obeys */
        *c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    }
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
