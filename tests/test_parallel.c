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

/* ---- Groups ---- */

enum { GROUPS = 3 };

typedef struct lists {
    tally of[GROUPS];
    atomic_int strangers; /* threads that were at work on other groups' lists */
} lists;

static void count_list(void *user, size_t list, size_t begin, size_t end, int thread) {
    lists *l = user;
    atomic_fetch_add(&l->strangers, dm_parallel_group(thread) != list);
    count(&l->of[list], begin, end, thread);
}

static void check_lists(const size_t *n, size_t grain, int threads, bool strangers) {
    static lists l;
    memset(&l, 0, sizeof l);
    for (size_t g = 0; g < GROUPS; g++) {
        l.of[g].threads = threads;
    }
    dm_parallel_lists(threads, GROUPS, n, grain, count_list, &l);
    for (size_t g = 0; g < GROUPS; g++) {
        for (size_t i = 0; i < MOST; i++) {
            assert_int_equal(l.of[g].seen[i], i < n[g] ? 1 : 0);
        }
        assert_int_equal(l.of[g].wrong, 0);
    }
    assert_int_equal(l.strangers > 0, strangers);
}

static void check_counts(const uint64_t *own, const uint64_t *foreign) {
    for (size_t g = 0; g < GROUPS; g++) {
        uint64_t by_own, by_others;
        dm_parallel_counts(g, &by_own, &by_others);
        assert_true(by_own == own[g] && by_others == foreign[g]);
    }
}

static void check_shares(size_t n, const size_t threads[GROUPS], size_t all) {
    size_t next = 0;
    for (size_t g = 0; g < GROUPS; g++) {
        size_t begin, end;
        dm_parallel_share(n, g, &begin, &end);
        assert_true(begin == next && end >= begin);
        assert_true((end - begin) / threads[g] <= n / all + 1);
        next = end;
    }
    assert_int_equal(next, n);
}

static void test_groups(void **state) {
    static const int32_t group[] = {2, 0, 1, 0}, nodes[] = {4, -1, 7}, none[] = {0, 0, 0};
    static const size_t few[] = {1, 0, 3}, many[] = {700, 1000, 1}, only_other[] = {5, 0, 0}, threads[] = {2, 1, 1};
    (void)state;
    int before = dm_threads();
    dm_set_threads(4);
    assert_true(dm_parallel_set_groups(group, 4, nodes, GROUPS));
    assert_true(dm_parallel_groups() == GROUPS && dm_parallel_group(6) == 1 && dm_parallel_node(2) == 7);
    for (size_t n = 0; n < 100; n++) {
        check_shares(n, threads, 4);
    }
    check_shares(SIZE_MAX, threads, 4);
    const int repeats = DM_EMULATED ? 3 : 100;
    for (int repeat = 0; repeat < repeats; repeat++) {
        check_lists(few, 1, 4, false);
        check_lists(many, 1 + (size_t)repeat, 4, false);
        check_lists(only_other, 1000, 4, false);
        check(MOST, 7, 4); /* a loop that all take from is as before */
        if (repeat % 10 == 0) {
            usleep(1000); /* helpers sleep, but come */
        }
    }
    const uint64_t turns = (uint64_t)repeats;
    check_counts((uint64_t[]){706 * turns, 1000 * turns, 4 * turns}, (uint64_t[]){0, 0, 0});
    check_lists(many, 5, 2, true); /* nobody of group 1 is there */
    check_lists(many, 5, 1, true);
    check_counts((uint64_t[]){706 * turns + 700, 1000 * turns, 4 * turns + 2}, (uint64_t[]){700, 2000, 0});

    dm_parallel_hold_groups(true);
    assert_false(dm_parallel_set_groups(none, GROUPS, nodes, GROUPS));
    assert_false(dm_parallel_set_groups(NULL, 0, NULL, 0));
    assert_true(dm_parallel_set_groups(group, 4, nodes, GROUPS)); /* they are so */
    dm_parallel_hold_groups(false);
    assert_false(dm_parallel_set_groups(group, 0, nodes, GROUPS));
    assert_false(dm_parallel_set_groups(group, 4, nodes, DM_MOST_GROUPS + 1));
    assert_true(dm_parallel_set_groups(NULL, 0, NULL, 0));
    assert_true(dm_parallel_groups() == 1 && dm_parallel_group(5) == 0 && dm_parallel_node(0) == -1);
    dm_set_threads(before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_once), cmocka_unit_test(test_sleepers), cmocka_unit_test(test_nested),
        cmocka_unit_test(test_several_callers), cmocka_unit_test(test_groups),   cmocka_unit_test(test_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
