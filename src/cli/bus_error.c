/*
 * Model files are mapped: one that another process cuts short, or whose disk fails, is found out where its bytes are read, by
 * SIGBUS. This says so in one line that names the file, instead of a crash. Only the program does that; a library must leave
 * signals to the program it is part of.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* Everything here runs in a signal handler: system calls and string functions only. */

static void say(const char *text) {
    (void)!write(STDERR_FILENO, text, strlen(text));
}

/* The next line, cut to what fits; false at the end. */
static bool next_line(int file, char *line, size_t size) {
    size_t used = 0;
    char c;
    while (read(file, &c, 1) == 1 && c != '\n') {
        if (used + 1 < size) {
            line[used++] = c;
        }
    }
    line[used] = '\0';
    return used > 0;
}

static uintptr_t take_hexadecimal(const char **at) {
    static const char digits[] = "0123456789abcdef";
    uintptr_t value = 0;
    for (const char *digit; **at != '\0' && (digit = strchr(digits, **at)) != NULL; ++*at) {
        value = value * 16 + (uintptr_t)(digit - digits);
    }
    return value;
}

/* Whether a line of /proc/self/maps, "START-END and so on", is of the map that holds the address. */
static bool holds(const char *line, uintptr_t address) {
    uintptr_t start = take_hexadecimal(&line);
    return *line++ == '-' && start <= address && address < take_hexadecimal(&line);
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    static atomic_flag ending = ATOMIC_FLAG_INIT;
    (void)number;
    (void)context;
    if (info->si_code == BUS_ADRALN) { /* a defect of the program: it happens again, and ends in the usual way */
        signal(SIGBUS, SIG_DFL);
        return;
    }
    while (atomic_flag_test_and_set(&ending)) { /* another thread is already saying it */
        pause();
    }
    char line[4352]; /* a path and what stands before it */
    const char *path = NULL;
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (maps >= 0 && path == NULL && next_line(maps, line, sizeof line)) {
        path = holds(line, (uintptr_t)info->si_addr) ? strchr(line, '/') : NULL;
    }
    say("dilmodeli: ");
    say(path != NULL ? path : "a file in use");
    say(": can no longer be read; another process cut it short, or its disk fails\n");
    _exit(CLI_FAILED);
}

void cli_catch_bus_errors(void) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
