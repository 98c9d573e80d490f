/* A training run that is killed, interrupted or refused disk space, and goes on as if nothing had happened. Every run is a
 * process of its own; this one only starts them, as a process that has used OpenMP may not be forked. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_files.h"

enum { STEPS = 96 };

static const char *const run_files[] = {
    "lock",       "config.txt", "tokenizer.gguf", "train.tokens", "valid.tokens", "metrics.jsonl", "checkpoint.gguf",
    "model.gguf", NULL};

/* ---- Runs ---- */

typedef struct run {
    const char *folder;
    int threads;
    rlim_t largest_file; /* bytes, 0: any */
    bool plays;          /* tokens play for their experts, with all that the loss can say of that */
} run;

static void set(dm_train_config *config, const char *name, const char *value) {
    if (dm_train_config_set(config, name, value) != DM_OK) {
        fprintf(stderr, "%s\n", dm_error_message());
        _exit(3);
    }
}

static void interrupt_run(int number) {
    (void)number;
    dm_interrupt();
}

/* What a run says when it fails goes to the file "message". */
static void leave_message(const char *folder) {
    char path[512];
    snprintf(path, sizeof path, "%s-message", folder);
    test_write(path, dm_error_message(), strlen(dm_error_message()));
}

/* The body of the child: 0 done, 1 failed, 2 interrupted. */
static int train(const run *r) {
    static const char *const settings[][2] = {
        {"vocab", "300"},       {"layers", "2"},        {"dim", "32"},        {"heads", "2"},       {"kv-heads", "1"},
        {"experts", "6"},       {"top-k", "2"},         {"expert-dim", "16"}, {"context", "32"},    {"batch", "4"},
        {"micro-batch", "3"},   {"steps", "96"},        {"warmup", "5"},      {"valid-every", "7"}, {"valid-tokens", "200"},
        {"sample-every", "11"}, {"sample-tokens", "6"}, {"save-every", "4"},
    };
    static const char *const games[][2] = {
        {"router", "nash"},       {"theta", "0.5"},        {"gamma", "0.2"},
        {"keep-top", "1"},        {"balance-loss", "0.1"}, {"cache-reward", "0.05"},
        {"swarm-reward", "0.03"}, {"nash-loss", "0.02"},   {"balance", "loss-free"},
    };
    const struct sigaction action = {.sa_handler = interrupt_run};
    sigaction(SIGINT, &action, NULL);
    dm_set_threads(r->threads);
    dm_train_config *config = dm_train_config_create();
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        set(config, settings[i][0], settings[i][1]);
    }
    for (size_t i = 0; r->plays && i < sizeof games / sizeof *games; i++) {
        set(config, games[i][0], games[i][1]);
    }
    set(config, "data", test_path("text"));
    set(config, "out", r->folder);
    if (r->largest_file > 0) {
        struct rlimit limit = {r->largest_file, r->largest_file};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    dm_train_result result;
    dm_status status = dm_train(config, NULL, NULL, &result);
    dm_train_config_free(config);
    if (status != DM_OK && status != DM_ERR_INTERRUPTED) {
        leave_message(r->folder);
        return 1;
    }
    return status == DM_ERR_INTERRUPTED || result.interrupted ? 2 : 0;
}

static pid_t start(const run *r) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(train(r));
    }
    return child;
}

/* Exit status, or minus the signal that ended it. */
static int wait_for(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0) {
        assert_int_equal(errno, EINTR);
    }
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static char *run_file(const char *folder, const char *name, size_t *size) {
    char path[512];
    uint8_t *bytes;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    *size = test_read(path, &bytes);
    bytes[*size] = '\0';
    return (char *)bytes;
}

static char *message_of(const char *folder) {
    char path[512];
    uint8_t *bytes;
    snprintf(path, sizeof path, "%s-message", folder);
    size_t size = test_read(path, &bytes);
    bytes[size] = '\0';
    unlink(path);
    return (char *)bytes;
}

static void expect_done(const run *r) {
    int status = wait_for(start(r));
    if (status != 0) {
        fail_msg("the run ended with %d: %s", status, status == 1 ? message_of(r->folder) : "");
    }
}

static void make_folder(char path[256], const char *name) {
    snprintf(path, 256, "%s", test_path(name));
}

/* Removes the folder, which holds nothing else: killed runs leave temporary files only until the next one. */
static void remove_folder(const char *folder) {
    for (const char *const *name = run_files; *name != NULL; name++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, *name);
        unlink(path);
    }
    if (rmdir(folder) != 0) {
        fail_msg("%s: %s", folder, strerror(errno));
    }
}

/* After a test that failed, whatever it left. */
static int clean(void **state) {
    (void)state;
    static const char *const folders[] = {"run", "reference"};
    for (size_t i = 0; i < 2; i++) {
        const char *folder = test_path(folders[i]);
        DIR *entries = opendir(folder);
        for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
            unlinkat(dirfd(entries), entry->d_name, 0);
        }
        if (entries != NULL) {
            closedir(entries);
            rmdir(folder);
        }
    }
    return 0;
}

/* ---- Comparison ---- */

/* The metrics without the fields that tell the time. */
static char *metrics_of(const char *folder) {
    size_t size;
    char *text = run_file(folder, "metrics.jsonl", &size);
    static const char speed[] = "\"tokens_per_s\":", routing[] = "\"router_s\":";
    char *out = text;
    for (const char *in = text; *in != '\0';) {
        if (strncmp(in, speed, sizeof speed - 1) == 0 || strncmp(in, routing, sizeof routing - 1) == 0) {
            in += strcspn(in, ",}");
        } else {
            *out++ = *in++;
        }
    }
    *out = '\0';
    return text;
}

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    for (; (text = strstr(text, part)) != NULL; text++) {
        n++;
    }
    return n;
}

static void assert_same_run(const char *folder, const char *reference) {
    char *found = metrics_of(folder), *expected = metrics_of(reference);
    assert_int_equal(count(expected, "\"loss\":"), STEPS);
    assert_int_equal(count(expected, "\"val_loss\":"), STEPS / 7 + 1);
    size_t same = 0;
    while (found[same] != '\0' && found[same] == expected[same]) {
        same++;
    }
    if (strcmp(found, expected) != 0) {
        fail_msg("the metrics differ: expected '%.300s', found '%.300s'", expected + same, found + same);
    }
    free(found);
    free(expected);
    size_t n, m;
    char *model = run_file(folder, "tokenizer.gguf", &n), *other = run_file(reference, "tokenizer.gguf", &m);
    assert_int_equal(n, m);
    assert_memory_equal(model, other, n);
    free(model);
    free(other);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_for(double s) {
    struct timespec time = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&time, NULL);
}

/* ---- Tests ---- */

static double next_share(void) {
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (double)(state >> 8) / (double)(1 << 24);
}

/* Ends runs with `number` at random moments until one gets to the end. */
static void end_and_resume(int threads, int number, bool plays) {
    char reference[256], folder[256];
    make_folder(reference, "reference");
    make_folder(folder, "run");
    const run whole = {reference, threads, 0, plays}, broken = {folder, threads, 0, plays};
    double began = seconds();
    expect_done(&whole);
    double length = seconds() - began;
    int ended = 0, status;
    do {
        pid_t child = start(&broken);
        sleep_for(next_share() * 0.4 * length);
        kill(child, number);
        status = wait_for(child);
        assert_true(status == 0 || status == -number || (number == SIGINT && status == 2));
        ended += status != 0;
    } while (status != 0 && ended < 60);
    expect_done(&broken); /* or, where it is done, changes nothing */
    assert_same_run(folder, reference);
    print_message("ended %d times\n", ended);
    remove_folder(folder);
    remove_folder(reference);
}

static void test_killed_on_one_thread(void **state) {
    (void)state;
    end_and_resume(1, SIGKILL, false);
}

static void test_killed_on_two_threads(void **state) {
    (void)state;
    end_and_resume(2, SIGKILL, false);
}

static void test_interrupted(void **state) {
    (void)state;
    end_and_resume(2, SIGINT, false);
}

static void test_killed_in_games(void **state) {
    (void)state;
    end_and_resume(2, SIGKILL, true);
}

static void test_full_disk_keeps_the_old_checkpoint(void **state) {
    (void)state;
    char reference[256], folder[256];
    make_folder(reference, "reference");
    make_folder(folder, "run");
    const run whole = {reference, 1, 0, false}, open = {folder, 1, 0, false};
    expect_done(&whole);
    char path[512];
    snprintf(path, sizeof path, "%s/checkpoint.gguf", folder);
    pid_t child = start(&open);
    while (access(path, R_OK) != 0) {
        sleep_for(0.001);
    }
    kill(child, SIGKILL);
    if (wait_for(child) == 0) {
        print_message("the run was over before it could be killed\n");
    }
    size_t before_size, after_size;
    char *before = run_file(folder, "checkpoint.gguf", &before_size);
    const run full = {folder, 1, before_size / 2, false};
    assert_int_equal(wait_for(start(&full)), 1);
    char *message = message_of(folder);
    if (strstr(message, "cannot write: File too large") == NULL) {
        fail_msg("found '%s'", message);
    }
    assert_null(strchr(message, '\n'));
    char *after = run_file(folder, "checkpoint.gguf", &after_size);
    assert_int_equal(before_size, after_size);
    assert_memory_equal(before, after, before_size);
    expect_done(&open);
    assert_same_run(folder, reference);
    free(before);
    free(after);
    free(message);
    remove_folder(folder); /* fails if a temporary file was left */
    remove_folder(reference);
}

static int write_text(void **state) {
    (void)state;
    static const char *const words[] = {"the ", "a ", "cat ", "sees ", "dog ", "and ", "runs. ", "\n", "house ", "in ", "of "};
    const size_t n_words = sizeof words / sizeof *words;
    FILE *stream = fopen(test_path("text"), "w");
    if (stream == NULL) {
        return -1;
    }
    for (int i = 0; i < 6000; i++) {
        fputs(words[(size_t)(next_share() * (double)n_words)], stream);
        if (i % 60 == 59) {
            fputs("\n<|endoftext|>\n", stream);
        }
    }
    return fclose(stream);
}

static int remove_text(void **state) {
    (void)state;
    test_remove((const char *const[]){"text", "run-message", "reference-message", NULL});
    return 0;
}

int main(void) {
    if (DM_EMULATED) {
        puts("skipped: hundreds of short runs take too long in an emulator, and nothing here depends on the processor");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_killed_on_one_thread, clean),
        cmocka_unit_test_teardown(test_killed_on_two_threads, clean),
        cmocka_unit_test_teardown(test_interrupted, clean),
        cmocka_unit_test_teardown(test_killed_in_games, clean),
        cmocka_unit_test_teardown(test_full_disk_keeps_the_old_checkpoint, clean),
    };
    return cmocka_run_group_tests(tests, write_text, remove_text);
}
