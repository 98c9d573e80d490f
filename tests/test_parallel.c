/* Shared loops: every item once, whatever the threads do; nested, from several threads, in a child, with sleepers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/parallel.h"
#include "base/threads.h"

enum { MOST = 1000 };

typedef struct tally {
    atomic_int seen[MOST];
    atomic_int wrong;
    int threads;
} tally;

static void count(void *user, size_t begin, size_t end, int thread) {
    tally *t = user;
    if (!dm_parallel_inside() || begin >= end || thread < 0 || thread >= t->threads) {
        atomic_fetch_add(&t->wrong, 1);
    }
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&t->seen[i], 1);
    }
}

static void check(size_t n, size_t grain, int threads) {
    tally t;
    memset(&t, 0, sizeof t);
    t.threads = threads;
    dm_parallel(threads, n, grain, count, &t);
    for (size_t i = 0; i < MOST; i++) {
        assert_int_equal(t.seen[i], i < n ? 1 : 0);
    }
    assert_int_equal(t.wrong, 0);
}

static void test_every_item_once(void **state) {
    (void)state;
    int before = dm_threads();
    for (int threads = 1; threads <= 5; threads += 2) {
        dm_set_threads(threads);
        for (int repeat = 0; repeat < (DM_EMULATED ? 10 : 300); repeat++) {
            check((size_t)(repeat * 7 % MOST), 1 + (size_t)repeat % 20, threads);
        }
        assert_int_equal(dm_threads(), threads);
    }
    dm_set_threads(before);
}

static void nap(void *user, size_t begin, size_t end, int thread) {
    (void)thread;
    usleep((unsigned)(end - begin) * 3000);
    count(user, begin, end, 0);
}

/* Both sides sleep: helpers between the loops, the caller while a helper works longest. */
static void test_sleepers(void **state) {
    (void)state;
    int before = dm_threads();
    dm_set_threads(3);
    for (int i = 0; i < 5; i++) {
        tally t;
        memset(&t, 0, sizeof t);
        t.threads = 3;
        usleep(5000);
        dm_parallel(3, 6, 1, nap, &t);
        for (size_t j = 0; j < 6; j++) {
            assert_int_equal(t.seen[j], 1);
        }
    }
    dm_set_threads(before);
}

static void outer(void *user, size_t begin, size_t end, int thread) {
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        dm_parallel(256, MOST, 10, count, user);
    }
}

static void test_nested(void **state) {
    (void)state;
    int before = dm_threads();
    dm_set_threads(3);
    tally t;
    memset(&t, 0, sizeof t);
    t.threads = 3;
    dm_parallel(3, 8, 1, outer, &t);
    for (size_t i = 0; i < MOST; i++) {
        assert_int_equal(t.seen[i], 8);
    }
    assert_int_equal(t.wrong, 0);
    assert_false(dm_parallel_inside());
    dm_set_threads(before);
}

static void *caller(void *user) {
    for (int i = 0; i < 50; i++) {
        dm_parallel(256, MOST, 10, count, user);
    }
    return NULL;
}

static void test_several_callers(void **state) {
    (void)state;
    enum { CALLERS = 3 };
    int before = dm_threads();
    dm_set_threads(2);
    static tally t[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        t[i].threads = 256; /* each thread of the program has a count of its own */
        assert_int_equal(pthread_create(&threads[i], NULL, caller, &t[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        for (size_t j = 0; j < MOST; j++) {
            assert_int_equal(t[i].seen[j], 50);
        }
    }
    dm_set_threads(before);
}

#if defined(__has_feature)
#define UNDER_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

static void test_child(void **state) {
    (void)state;
    if (UNDER_TSAN || DM_EMULATED) {
        skip(); /* neither allows a child threads of its own */
    }
    int before = dm_threads();
    dm_set_threads(3);
    check(MOST, 1, 3);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static tally t;
        t.threads = 3;
        dm_parallel(3, MOST, 1, count, &t);
        for (size_t i = 0; i < MOST; i++) {
            if (t.seen[i] != 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    dm_set_threads(before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_once), cmocka_unit_test(test_sleepers), cmocka_unit_test(test_nested),
        cmocka_unit_test(test_several_callers), cmocka_unit_test(test_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
