/* Panels kept on disk: used when they are the model's, and else never: stale, damaged, hostile and unwritable files. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "dilmodeli.h"
#include "kernels/quantized.h"
#include "model/kept.h"
#include "quantized_model.h"
#include "test_files.h"

#define FILE_NAME "model.gguf"
#define KEPT_NAME "model.gguf.panels"

enum { TOKENS = 12, VOCAB = 70 };

static void make_model(uint64_t seed) {
    const dm_config shape = quantized_shape(true, false);
    quantized_model_write(test_path(FILE_NAME), &shape, quantized_mixture, seed);
}

/* Logits of a few tokens; what was wrong goes to note. */
static void run(float logits[TOKENS * VOCAB], char note[512]) {
    dm_model *model;
    dm_session *session;
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++) {
        ids[i] = i * 5 % VOCAB;
    }
    assert_int_equal(dm_model_open(test_path(FILE_NAME), &model), DM_OK);
    assert_int_equal(dm_session_create(model, TOKENS, &session), DM_OK);
    assert_int_equal(dm_session_feed(session, ids, TOKENS, true, logits), DM_OK);
    snprintf(note, 512, "%s", dm_model_note(model) != NULL ? dm_model_note(model) : "");
    dm_session_free(session);
    dm_model_close(model);
}

static dm_status keep(char path[4096]) {
    dm_model *model;
    uint64_t bytes;
    assert_int_equal(dm_model_open(test_path(FILE_NAME), &model), DM_OK);
    dm_status status = dm_model_keep(model, path, 4096, &bytes);
    assert_true(status != DM_OK || bytes > 0);
    dm_model_close(model);
    return status;
}

/* What inspect says: 1 used, 0 none, -1 of no use. */
static int kept_state(void) {
    dm_model *model;
    char path[4096];
    uint64_t bytes;
    assert_int_equal(dm_model_open(test_path(FILE_NAME), &model), DM_OK);
    dm_status status = dm_model_kept(model, path, sizeof path, &bytes);
    dm_model_close(model);
    return status != DM_OK ? -1 : path[0] != '\0';
}

static float expected[TOKENS * VOCAB];

static void start(void) {
    char note[512];
    unlink(test_path(KEPT_NAME));
    make_model(5);
    run(expected, note);
    assert_string_equal(note, "");
}

/* The same results, and a note that holds `word`, or none where it is NULL. */
static void expect(const char *word) {
    static float logits[TOKENS * VOCAB];
    char note[512];
    run(logits, note);
    assert_memory_equal(logits, expected, sizeof logits);
    if (word == NULL) {
        assert_string_equal(note, "");
    } else if (strstr(note, word) == NULL) {
        fail_msg("the note is '%s', expected '%s' in it", note, word);
    }
}

static void kept_panels_are_used(void **state) {
    (void)state;
    char path[4096];
    start();
    assert_int_equal(kept_state(), 0);
    assert_int_equal(keep(path), DM_OK);
    assert_string_equal(path, test_path(KEPT_NAME));
    assert_int_equal(kept_state(), 1);
    expect(NULL);
    assert_int_equal(keep(path), DM_OK); /* over itself */
    expect(NULL);
}

/* Another model of the same shape and size, and the same one touched. */
static void changed_models_are_noticed(void **state) {
    (void)state;
    char path[4096], note[512];
    start();
    assert_int_equal(keep(path), DM_OK);
    struct stat before;
    assert_int_equal(stat(test_path(FILE_NAME), &before), 0);
    make_model(6);
    const struct timespec same[2] = {before.st_atim, before.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, test_path(FILE_NAME), same, 0), 0); /* the samples alone tell */
    unlink(test_path("aside"));
    assert_int_equal(rename(test_path(KEPT_NAME), test_path("aside")), 0);
    run(expected, note);
    assert_int_equal(rename(test_path("aside"), test_path(KEPT_NAME)), 0);
    expect("another model");
    assert_int_equal(kept_state(), -1);
    assert_int_equal(keep(path), DM_OK);
    expect(NULL);
    assert_int_equal(utimensat(AT_FDCWD, test_path(FILE_NAME), NULL, 0), 0);
    expect("another model");
}

static void cut_files_are_not_used(void **state) {
    (void)state;
    char path[4096];
    uint8_t *bytes;
    start();
    assert_int_equal(keep(path), DM_OK);
    size_t size = test_read(path, &bytes);
    for (size_t cut = 0; cut < size; cut = cut < 200 ? cut + 7 : cut * 2) {
        test_write(path, bytes, cut);
        expect("panels");
        assert_int_equal(kept_state(), -1);
    }
    test_write(path, bytes, size - 1);
    expect("damaged");
    bytes = realloc(bytes, size + 1);
    assert_non_null(bytes);
    bytes[size] = 0;
    test_write(path, bytes, size + 1);
    expect("damaged");
    test_write(path, bytes, size);
    expect(NULL);
    free(bytes);
}

/* A bit in the header or the checks, in the filling, which nothing reads, and in panels, some of which are not used. */
static void flipped_bits_are_found(void **state) {
    (void)state;
    char path[4096];
    uint8_t *bytes;
    start();
    assert_int_equal(keep(path), DM_OK);
    size_t size = test_read(path, &bytes);
    dm_kept_header header;
    memcpy(&header, bytes, sizeof header);
    size_t checks_end = sizeof header + (size_t)header.matrices * sizeof(uint64_t);
    for (size_t at = 0; at < checks_end; at += at < sizeof header ? 1 : 41) {
        bytes[at] ^= 0x10;
        test_write(path, bytes, size);
        expect(at < 8 ? "does not hold" : KEPT_NAME);
        bytes[at] ^= 0x10;
    }
    bytes[checks_end] ^= 1;
    test_write(path, bytes, size);
    expect(NULL);
    size_t first = size - (size_t)header.bytes;
    for (size_t at = first; at < size; at += header.bytes / 37) {
        bytes[at] ^= 0x40;
    }
    test_write(path, bytes, size);
    expect("packed anew");
    assert_int_equal(keep(path), DM_OK); /* what was packed anew is what is kept */
    expect(NULL);
    free(bytes);
}

/* In a child, which the limit is for. */
static void check_full_disk(void) {
    char path[4096];
    const struct rlimit limit = {100000, 100000};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    bool refused = keep(path) == DM_ERR_IO && strstr(dm_error_message(), "cannot write") != NULL;
    _exit(refused && access(test_path(KEPT_NAME), F_OK) != 0 ? 0 : 1);
}

static void full_disks_leave_nothing(void **state) {
    (void)state;
    start();
    pid_t child = fork();
    if (child == 0) {
        dm_set_threads(1);
        check_full_disk();
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    char name[64];
    snprintf(name, sizeof name, KEPT_NAME ".tmp-%d", (int)child);
    assert_int_not_equal(access(test_path(name), F_OK), 0);
    expect(NULL);
}

/* Where no file can be made beside the model, the user's cache folder has it. */
static void other_folders_serve(void **state) {
    (void)state;
    char path[4096], cache[256];
    start();
    snprintf(cache, sizeof cache, "%s", test_path("cache"));
    setenv("XDG_CACHE_HOME", cache, 1);
    char blocker[64]; /* of the temporary file's name: even root cannot write to a folder */
    snprintf(blocker, sizeof blocker, KEPT_NAME ".tmp-%ld", (long)getpid());
    assert_int_equal(mkdir(test_path(blocker), 0777), 0);
    assert_int_equal(keep(path), DM_OK);
    assert_true(strncmp(path, cache, strlen(cache)) == 0);
    assert_int_equal(kept_state(), 1);
    expect(NULL);
    rmdir(test_path(blocker));
    unlink(path);
    rmdir(test_path("cache/dilmodeli/panels"));
    rmdir(test_path("cache/dilmodeli"));
    rmdir(test_path("cache"));
    unsetenv("XDG_CACHE_HOME");
}

/* Writers and a reader at once: the reader finds a whole file or none. */
static void processes_share(void **state) {
    (void)state;
    enum { WRITERS = 3, TIMES = 5 };
    start();
    pid_t children[WRITERS];
    for (int c = 0; c < WRITERS; c++) {
        children[c] = fork();
        if (children[c] == 0) {
            char path[4096];
            dm_set_threads(1);
            for (int i = 0; i < TIMES; i++) {
                if (keep(path) != DM_OK) {
                    _exit(1);
                }
            }
            _exit(0);
        }
    }
    for (int i = 0; i < TIMES; i++) {
        expect(NULL);
    }
    for (int c = 0; c < WRITERS; c++) {
        int status;
        assert_int_equal(waitpid(children[c], &status, 0), children[c]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    expect(NULL);
}

static int set_up(void **state) {
    (void)state;
    setenv("HOME", "/nowhere", 1);
    unsetenv("XDG_CACHE_HOME");
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    test_remove((const char *const[]){FILE_NAME, KEPT_NAME, NULL});
    return 0;
}

int main(void) {
    if (strcmp(dm_quantized()->isa, "scalar") == 0) {
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_panels_are_used),     cmocka_unit_test(changed_models_are_noticed),
        cmocka_unit_test(cut_files_are_not_used),   cmocka_unit_test(flipped_bits_are_found),
        cmocka_unit_test(full_disks_leave_nothing), cmocka_unit_test(other_folders_serve),
        cmocka_unit_test(processes_share),
    };
    return cmocka_run_group_tests(tests, set_up, clean_up);
}
