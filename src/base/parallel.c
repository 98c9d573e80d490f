/*
 * One loop runs at a time. `gate` says whether helpers may join it and how many
 * have; who has joined takes items from `next` until none are left, and then
 * counts itself out. The caller closes the gate when it finds no more items, so
 * that it waits only for helpers that are at work. Helpers sleep on `gate`.
 */
#include "base/parallel.h"

#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/threads.h"

enum {
    MOST_HELPERS = 255,
    SPINS = 2000,        /* some 50 microseconds */
    OPEN = 1 << 8,       /* bit of the gate; below it: how many have joined */
    GENERATION = 1 << 9, /* the rest counts loops, so that no helper takes one for another */
};

/* Parts that different threads write at the same time lie in cache lines of their own. */
static struct {
    _Alignas(64) atomic_uint gate;
    atomic_uint gate_sleepers;
    _Alignas(64) atomic_uint finished; /* helpers that have joined this loop and left */
    atomic_uint finish_sleepers;
    _Alignas(64) atomic_size_t next;
    _Alignas(64) size_t n; /* from here on written while the gate is closed and nobody is at work */
    size_t grain;
    dm_parallel_body body;
    void *user;
    unsigned binding; /* how often places were given */
    size_t n_places;
    cpu_set_t places[MOST_HELPERS + 1], anywhere; /* of threads; where they could run before the first was bound */
    atomic_int helpers_wanted;                    /* helpers with a higher number stay out */
} loop;

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held by who runs a loop */
static int helpers;                                      /* started so far; under `busy` */
static _Thread_local bool inside;

bool dm_parallel_inside(void) {
    return inside;
}

/* ---- Waiting ---- */

static void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns what `word` shows once that is not `seen`. */
static unsigned wait_for_change(atomic_uint *word, atomic_uint *sleepers, unsigned seen) {
    unsigned now;
    for (int i = 0; i < SPINS; i++) {
        now = atomic_load_explicit(word, memory_order_acquire);
        if (now != seen) {
            return now;
        }
        rest();
    }
    atomic_fetch_add(sleepers, 1);
    while ((now = atomic_load(word)) == seen) {
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
    atomic_fetch_sub(sleepers, 1);
    return now;
}

/* After a change of `word`. */
static void wake_sleepers(atomic_uint *word, const atomic_uint *sleepers) {
    if (atomic_load(sleepers) > 0) {
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, MOST_HELPERS + 1, NULL, NULL, 0);
    }
}

/* ---- Helpers ---- */

static void take_items(int thread) {
    size_t n = loop.n, grain = loop.grain, begin;
    while ((begin = atomic_fetch_add_explicit(&loop.next, grain, memory_order_relaxed)) < n) {
        loop.body(loop.user, begin, n - begin < grain ? n : begin + grain, thread);
    }
}

/* Joins the loop that `gate` shows, if it is still open. */
static bool join(unsigned gate) {
    unsigned now = gate;
    while ((now & OPEN) != 0 && now / GENERATION == gate / GENERATION) {
        if (atomic_compare_exchange_weak(&loop.gate, &now, now + 1)) {
            return true;
        }
    }
    return false;
}

static void go_to_place(size_t thread) {
    sched_setaffinity(0, sizeof(cpu_set_t), loop.n_places > 0 ? &loop.places[thread % loop.n_places] : &loop.anywhere);
}

static void *help(void *number) {
    int thread = (int)(intptr_t)number;
    unsigned gate = 0, seen_loop = 0, seen_binding = 0;
    inside = true;
    omp_set_num_threads(1); /* libraries called from a body use this thread alone */
    for (;;) {
        while ((gate & OPEN) == 0 || gate / GENERATION == seen_loop) {
            gate = wait_for_change(&loop.gate, &loop.gate_sleepers, gate);
        }
        seen_loop = gate / GENERATION;
        if (thread <= atomic_load(&loop.helpers_wanted) && join(gate)) {
            if (seen_binding != loop.binding) {
                seen_binding = loop.binding;
                go_to_place((size_t)thread);
            }
            take_items(thread);
            atomic_fetch_add(&loop.finished, 1);
            wake_sleepers(&loop.finished, &loop.finish_sleepers);
        }
    }
    return NULL;
}

/* Where threads cannot be had, there are fewer. */
static void start_helpers(int wanted) {
    pthread_attr_t attributes;
    if (helpers >= wanted || pthread_attr_init(&attributes) != 0) {
        return;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (pthread_t thread; helpers < wanted; helpers++) {
        if (pthread_create(&thread, &attributes, help, (void *)(intptr_t)(helpers + 1)) != 0) {
            break;
        }
    }
    pthread_attr_destroy(&attributes);
}

/* A forked child has no helpers, and nobody in it runs a loop. */
static void forget_helpers(void) {
    helpers = 0;
    atomic_store(&loop.gate, 0);
    atomic_store(&loop.gate_sleepers, 0);
    pthread_mutex_init(&busy, NULL);
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forget_helpers);
}

/* ---- The caller ---- */

/* Under `busy`. */
static void run_together(size_t n, size_t grain, dm_parallel_body body, void *user, int wanted) {
    loop.n = n;
    loop.grain = grain;
    loop.body = body;
    loop.user = user;
    atomic_store(&loop.helpers_wanted, wanted);
    atomic_store(&loop.next, 0);
    atomic_store(&loop.finished, 0);
    unsigned opened = (atomic_load(&loop.gate) / GENERATION + 1) * GENERATION | OPEN;
    atomic_store(&loop.gate, opened);
    wake_sleepers(&loop.gate, &loop.gate_sleepers);
    take_items(0);
    unsigned joined = atomic_fetch_and(&loop.gate, ~(unsigned)OPEN) & (OPEN - 1);
    for (unsigned finished = atomic_load(&loop.finished); finished != joined;) {
        finished = wait_for_change(&loop.finished, &loop.finish_sleepers, finished);
    }
}

/* While nobody is at work. */
void dm_parallel_bind(const cpu_set_t *places, size_t n) {
    pthread_mutex_lock(&busy);
    if (loop.binding == 0 && places == NULL) { /* a mask that was set, even to what it was, would outlast a wider control group */
        pthread_mutex_unlock(&busy);
        return;
    }
    if (loop.binding == 0) {
        sched_getaffinity(0, sizeof loop.anywhere, &loop.anywhere);
    }
    loop.n_places = places == NULL ? 0 : n <= MOST_HELPERS ? n : MOST_HELPERS + 1;
    if (places != NULL) {
        memcpy(loop.places, places, loop.n_places * sizeof *places);
    }
    loop.binding++;
    go_to_place(0);
    pthread_mutex_unlock(&busy);
}

size_t dm_parallel_grain(size_t cost) {
    enum { WORTH_SHARING = 1 << 15 };
    return cost < WORTH_SHARING ? WORTH_SHARING / (cost + 1) + 1 : 1;
}

size_t dm_parallel_run(size_t grain, size_t wanted, size_t n, int threads) {
    enum { TURNS = 4 };
    size_t fair = n / (TURNS * (size_t)threads);
    size_t run = fair < wanted ? fair : wanted;
    return run > grain ? run : grain;
}

void dm_parallel(int threads, size_t n, size_t grain, dm_parallel_body body, void *user) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (n == 0) {
        return;
    }
    if (inside) {
        body(user, 0, n, 0);
        return;
    }
    int all = dm_threads();
    int wanted = (threads < all ? threads : all) - 1;
    wanted = wanted < MOST_HELPERS ? wanted : MOST_HELPERS;
    inside = true;
    omp_set_num_threads(1);
    if (wanted > 0 && n > grain && pthread_mutex_trylock(&busy) == 0) {
        pthread_once(&once, watch_forks);
        start_helpers(wanted);
        run_together(n, grain, body, user, wanted);
        pthread_mutex_unlock(&busy);
    } else {
        body(user, 0, n, 0);
    }
    omp_set_num_threads(all);
    inside = false;
}
