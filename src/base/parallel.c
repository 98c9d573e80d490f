/*
 * One loop runs at a time. `gate` says whether helpers may join it and how many
 * have; who has joined takes items from its list until none are left, and then
 * counts itself out. The caller closes the gate when all lists are taken, so
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
    MOST_HELPERS = DM_MOST_THREADS - 1,
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
    _Alignas(64) atomic_uint untaken; /* lists that have items which nobody has taken */
    atomic_uint taken_sleepers;
    struct {
        _Alignas(64) atomic_size_t next;
        size_t n;
    } lists[DM_MOST_GROUPS];
    _Alignas(64) size_t n_lists; /* from here on, and n above, written while the gate is closed and nobody is at work */
    size_t grain;
    dm_parallel_list_body body;
    void *user;
    unsigned binding; /* how often places were given */
    size_t n_places;
    cpu_set_t places[DM_MOST_THREADS], anywhere; /* of threads; where they could run before the first was bound */
    atomic_int helpers_wanted;                   /* helpers with a higher number stay out */
} loop;

static struct {
    size_t n, threads, held;
    uint8_t of[DM_MOST_THREADS]; /* [threads] */
    int32_t nodes[DM_MOST_GROUPS];
    size_t before[DM_MOST_GROUPS + 1]; /* threads of the groups before each */
    struct {
        _Alignas(64) atomic_ullong own, foreign;
    } counts[DM_MOST_GROUPS];
} groups = {.n = 1, .threads = 1, .nodes = {-1}, .before = {0, 1}};

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held by who runs a loop */
static int helpers;                                      /* started so far; under `busy` */
static _Thread_local bool inside;

bool dm_parallel_inside(void) {
    return inside;
}

/* ---- Groups ---- */

size_t dm_parallel_groups(void) {
    return groups.n;
}

size_t dm_parallel_group(int thread) {
    return groups.n > 1 ? groups.of[(size_t)thread % groups.threads] : 0;
}

int dm_parallel_node(size_t group) {
    return groups.nodes[group];
}

void dm_parallel_share(size_t n, size_t group, size_t *begin, size_t *end) {
    const size_t each = n / groups.threads, left = n % groups.threads; /* n times threads might not fit */
    *begin = each * groups.before[group] + left * groups.before[group] / groups.threads;
    *end = each * groups.before[group + 1] + left * groups.before[group + 1] / groups.threads;
}

void dm_parallel_counts(size_t group, uint64_t *own, uint64_t *foreign) {
    *own = atomic_load(&groups.counts[group].own);
    *foreign = atomic_load(&groups.counts[group].foreign);
}

/* Under `busy`. */
static void set_groups(const int32_t *group, size_t threads, const int32_t *nodes, size_t n) {
    groups.n = n;
    groups.threads = threads;
    memset(groups.before, 0, sizeof groups.before);
    for (size_t t = 0; t < threads; t++) {
        groups.of[t] = (uint8_t)group[t];
        groups.before[group[t] + 1]++;
    }
    for (size_t g = 0; g < n; g++) {
        groups.before[g + 1] += groups.before[g];
        groups.nodes[g] = nodes[g];
        atomic_store(&groups.counts[g].own, 0);
        atomic_store(&groups.counts[g].foreign, 0);
    }
}

static bool are_groups(const int32_t *group, size_t threads, const int32_t *nodes, size_t n) {
    bool same = groups.n == n && groups.threads == threads && memcmp(groups.nodes, nodes, n * sizeof *nodes) == 0;
    for (size_t t = 0; same && t < threads; t++) {
        same = groups.of[t] == group[t];
    }
    return same;
}

bool dm_parallel_set_groups(const int32_t *group, size_t threads, const int32_t *nodes, size_t n) {
    static const int32_t zero, nowhere = -1;
    if (group == NULL) {
        return dm_parallel_set_groups(&zero, 1, &nowhere, 1);
    }
    if (threads < 1 || threads > DM_MOST_THREADS || n < 1 || n > DM_MOST_GROUPS) {
        return false;
    }
    pthread_mutex_lock(&busy);
    const bool same = are_groups(group, threads, nodes, n), may = same || groups.held == 0;
    if (may && !same) {
        set_groups(group, threads, nodes, n);
    }
    pthread_mutex_unlock(&busy);
    return may;
}

void dm_parallel_hold_groups(bool hold) {
    pthread_mutex_lock(&busy);
    groups.held += hold ? 1 : (size_t)-1;
    pthread_mutex_unlock(&busy);
}

static void count(size_t list, int thread, size_t items) {
    bool own = dm_parallel_group(thread) == list;
    atomic_fetch_add_explicit(own ? &groups.counts[list].own : &groups.counts[list].foreign, items, memory_order_relaxed);
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
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, DM_MOST_THREADS, NULL, NULL, 0);
    }
}

/* ---- Helpers ---- */

static void take_list(size_t list, int thread) {
    const size_t n = loop.lists[list].n, grain = loop.grain;
    size_t begin;
    while ((begin = atomic_fetch_add_explicit(&loop.lists[list].next, grain, memory_order_relaxed)) < n) {
        const bool last = n - begin <= grain;
        const size_t end = last ? n : begin + grain;
        if (loop.n_lists > 1) {
            count(list, thread, end - begin);
        }
        if (last && loop.n_lists > 1) {
            atomic_fetch_sub(&loop.untaken, 1);
            wake_sleepers(&loop.untaken, &loop.taken_sleepers);
        }
        loop.body(loop.user, list, begin, end, thread);
    }
}

static void take_items(int thread) {
    take_list(loop.n_lists > 1 ? dm_parallel_group(thread) : 0, thread);
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

/* Lists of groups that have none of threads 0 .. last. */
static void take_orphans(int last) {
    bool there[DM_MOST_GROUPS] = {false};
    for (int t = 0; t <= last; t++) {
        there[dm_parallel_group(t)] = true;
    }
    for (size_t list = 0; list < loop.n_lists; list++) {
        if (!there[list]) {
            take_list(list, 0);
        }
    }
}

/* Helpers may sleep still, but they come. */
static void wait_for_lists(void) {
    for (unsigned untaken = atomic_load(&loop.untaken); untaken > 0;) {
        untaken = wait_for_change(&loop.untaken, &loop.taken_sleepers, untaken);
    }
}

/* Under `busy`; what is to be done is noted in `loop`. */
static void run_together(size_t lists, const size_t *n, int wanted) {
    unsigned untaken = 0;
    loop.n_lists = lists;
    for (size_t list = 0; list < lists; list++) {
        loop.lists[list].n = n[list];
        atomic_store(&loop.lists[list].next, 0);
        untaken += n[list] > 0;
    }
    atomic_store(&loop.untaken, untaken);
    atomic_store(&loop.helpers_wanted, wanted);
    atomic_store(&loop.finished, 0);
    unsigned opened = (atomic_load(&loop.gate) / GENERATION + 1) * GENERATION | OPEN;
    atomic_store(&loop.gate, opened);
    wake_sleepers(&loop.gate, &loop.gate_sleepers);
    take_items(0);
    if (lists > 1) {
        take_orphans(wanted < helpers ? wanted : helpers);
        wait_for_lists();
    }
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
    loop.n_places = places == NULL ? 0 : n <= DM_MOST_THREADS ? n : DM_MOST_THREADS;
    if (places != NULL) {
        memcpy(loop.places, places, loop.n_places * sizeof *places);
    }
    loop.binding++;
    go_to_place(0);
    pthread_mutex_unlock(&busy);
}

void dm_parallel_roam(bool anywhere) {
    pthread_mutex_lock(&busy);
    if (loop.binding > 0 && anywhere) {
        sched_setaffinity(0, sizeof(cpu_set_t), &loop.anywhere);
    } else if (loop.binding > 0) {
        go_to_place(0);
    }
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

static void run_alone(size_t lists, const size_t *n, dm_parallel_list_body body, void *user) {
    for (size_t list = 0; list < lists; list++) {
        if (n[list] > 0) {
            if (lists > 1) {
                count(list, 0, n[list]);
            }
            body(user, list, 0, n[list], 0);
        }
    }
}

static bool any_items(size_t lists, const size_t *n) {
    size_t any = 0;
    for (size_t list = 0; list < lists; list++) {
        any |= n[list];
    }
    return any > 0;
}

void dm_parallel_lists(int threads, size_t lists, const size_t *n, size_t grain, dm_parallel_list_body body, void *user) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!any_items(lists, n)) {
        return;
    }
    if (inside) {
        run_alone(lists, n, body, user);
        return;
    }
    int all = dm_threads();
    int wanted = (threads < all ? threads : all) - 1;
    wanted = wanted < MOST_HELPERS ? wanted : MOST_HELPERS;
    inside = true;
    omp_set_num_threads(1);
    if (wanted > 0 && (lists > 1 || n[0] > grain) && pthread_mutex_trylock(&busy) == 0) {
        pthread_once(&once, watch_forks);
        start_helpers(wanted);
        loop.grain = grain;
        loop.body = body;
        loop.user = user;
        run_together(lists, n, wanted);
        pthread_mutex_unlock(&busy);
    } else {
        run_alone(lists, n, body, user);
    }
    omp_set_num_threads(all);
    inside = false;
}

/* A loop that has one list. */
typedef struct plain {
    dm_parallel_body body;
    void *user;
} plain;

static void plain_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const plain *it = user;
    (void)list;
    it->body(it->user, begin, end, thread);
}

void dm_parallel(int threads, size_t n, size_t grain, dm_parallel_body body, void *user) {
    plain it = {body, user};
    dm_parallel_lists(threads, 1, &n, grain, plain_body, &it);
}
