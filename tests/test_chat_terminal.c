/* `dilmodeli run` on a terminal, without editing (TERM=dumb) and with it: turns share what the model has read, Ctrl-C stops an
 * answer only, Ctrl-D ends, what was typed can be corrected and called back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dilmodeli.h"
#include "test_files.h"

enum { PATIENCE = 120000 }; /* ms that an answer may take on a busy machine */

typedef struct terminal {
    pid_t child;
    int descriptor;
    char *seen; /* all that the program printed */
    size_t length, room;
    size_t read; /* of it, what was waited for */
} terminal;

static void start(terminal *t, const char *kind, const char *model, const char *most) {
    *t = (terminal){0};
    t->child = forkpty(&t->descriptor, NULL, NULL, NULL);
    if (t->child < 0) {
        print_message("no terminal can be had here (%s)\n", strerror(errno)); /* a container without /dev/pts */
        skip();
    }
    if (t->child == 0) {
        setenv("TERM", kind, 1);
        setenv("XDG_STATE_HOME", test_path("state"), 1);
        execl(DM_CLI, DM_CLI, "run", model, "--temp", "0", "--threads", "1", "-n", most, "--chat-template", "chatml", "--system",
              "Go on.", (char *)NULL);
        _exit(127);
    }
}

/* More output; false when there is none any more. */
static bool more(terminal *t) {
    struct pollfd wait = {.fd = t->descriptor, .events = POLLIN};
    if (poll(&wait, 1, PATIENCE) != 1) {
        for (size_t i = 0; i < t->length; i++) { /* whole, whatever is in it */
            fputc(t->seen[i] != '\0' ? t->seen[i] : '@', stderr);
        }
        fail_msg("nothing more came");
    }
    if (t->length + 4096 > t->room) {
        t->room = 2 * t->room + 8192;
        t->seen = realloc(t->seen, t->room);
        assert_non_null(t->seen);
    }
    ssize_t n = read(t->descriptor, t->seen + t->length, 4096);
    t->length += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* Reads up to and with `words`; returns where they begin. */
static const char *expect(terminal *t, const char *words) {
    for (;;) {
        const char *at = t->length > 0 ? memmem(t->seen + t->read, t->length - t->read, words, strlen(words)) : NULL;
        if (at != NULL) {
            t->read = (size_t)(at - t->seen) + strlen(words);
            return at;
        }
        if (!more(t)) {
            fail_msg("'%s' did not come, but: %.*s", words, (int)t->length, t->seen);
        }
    }
}

static void type(const terminal *t, const char *text) {
    assert_int_equal(write(t->descriptor, text, strlen(text)), strlen(text));
}

static void end(terminal *t) {
    while (more(t)) {
    }
    int status;
    assert_int_equal(waitpid(t->child, &status, 0), t->child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(t->descriptor);
    free(t->seen);
}

/* The number before the words, "(12 tokens known". */
static long number_before(terminal *t, const char *words) {
    const char *at = expect(t, words);
    while (at > t->seen && at[-1] != '(') {
        at--;
    }
    return strtol(at, NULL, 10);
}

static void make_model(const char *path) {
    dm_model_info shape = {.layers = 1, .dim = 32, .heads = 2, .context = 100000, .experts = 2, .top_k = 1, .expert_dim = 32};
    snprintf(shape.architecture, sizeof shape.architecture, "qwen3moe");
    assert_int_equal(dm_model_create(path, &shape, NULL, false, "f32", 1, NULL), DM_OK);
}

static void test_talk(void **state) {
    (void)state;
    const char *path = test_path("model.gguf");
    make_model(path);
    terminal t;
    start(&t, "dumb", path, "12");
    expect(&t, "Ctrl-C stops an answer.");
    type(&t, "Hello\n");
    expect(&t, "Hello\r\n");
    assert_int_equal(number_before(&t, " tokens known"), 0);
    type(&t, "And now?\n");
    expect(&t, "And now?\r\n");
    assert_true(number_before(&t, " tokens known") > 60); /* the first turn's marks, instructions and words */
    type(&t, "/reset\n");
    expect(&t, "(forgotten)");
    type(&t, "Hello\n");
    expect(&t, "Hello\r\n");
    assert_true(number_before(&t, " tokens known") > 60); /* it begins as before */
    type(&t, "/quit\n");
    end(&t);
    unlink(path);
}

static void test_interrupt(void **state) {
    (void)state;
    const char *path = test_path("model.gguf");
    make_model(path);
    terminal t;
    start(&t, "dumb", path, "-1"); /* as many as fit: far more than anyone waits for */
    expect(&t, "Ctrl-C stops an answer.");
    for (int turn = 0; turn < 2; turn++) {
        type(&t, "Hello\n");
        expect(&t, "Hello\r\n");
        while (t.length < t.read + 200) {
            assert_true(more(&t));
        }
        type(&t, "\003");
        expect(&t, " made at ");
        expect(&t, "> ");
    }
    type(&t, "half a line\003");
    expect(&t, "(/quit or Ctrl-D ends)");
    type(&t, "\004");
    end(&t);
    unlink(path);
}

/* A mended line, one called back, one taken back; then all of it again from the next chat. */
static void test_editing(void **state) {
    (void)state;
    if (!DM_LIBEDIT) {
        print_message("built without libedit: skipped\n");
        skip();
    }
    const char *path = test_path("model.gguf"), *history = test_path("state/dilmodeli/history");
    make_model(path);
    terminal t;
    start(&t, "vt100", path, "12");
    expect(&t, "> ");
    type(&t, "Hellp\177o \303\274ber\n"); /* two bytes of one letter */
    assert_int_equal(number_before(&t, " tokens known"), 0);
    expect(&t, "> ");
    type(&t, "/reset\n");
    expect(&t, "(forgotten)");
    expect(&t, "> ");
    type(&t, "half a line\003");
    expect(&t, "(/quit or Ctrl-D ends)");
    expect(&t, "> ");
    type(&t, "\020\020\n"); /* Ctrl-P, Ctrl-P: Hello again */
    assert_true(number_before(&t, " tokens known") > 20);
    type(&t, "\004"); /* before there is a line to edit */
    end(&t);

    FILE *file = fopen(history, "re");
    assert_non_null(file);
    char text[256] = "";
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    assert_non_null(strstr(text, "Hello"));
    assert_null(strstr(text, "half"));
    struct stat about;
    assert_int_equal(stat(history, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);

    start(&t, "vt100", path, "12");
    expect(&t, "> ");
    type(&t, "\022Hel\n\n"); /* searched for: Ctrl-R */
    expect(&t, "Hello");
    number_before(&t, " tokens known");
    expect(&t, "> ");
    type(&t, "\004");
    end(&t);
    unlink(history);
    rmdir(test_path("state/dilmodeli"));
    rmdir(test_path("state"));
    unlink(path);
}

static int remove_folder(void **state) {
    (void)state;
    test_remove((const char *const[]){NULL});
    return 0;
}

int main(void) {
    if (DM_EMULATED) {
        printf("the emulator gives a program no terminal of its own: skipped\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_editing),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
