/* Plans for machines that do not exist, threads bound on the one that does, and memory in huge pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/pages.h"
#include "base/parallel.h"
#include "optimization/binding.h"
#include "optimization/placement.h"

enum { LAYERS = 3, EXPERTS = 13 };

static dm_hardware machine(const char *description) {
    const dm_hardware_source source = {.synthetic = description, .ask = sysconf};
    dm_hardware hardware;
    if (dm_hardware_read(&source, &hardware) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    return hardware;
}

/* ---- Seats ---- */

static void seats_take_turns(void **state) {
    (void)state;
    dm_hardware h = machine("pack:2 [numa] core:2 pu:2");
    size_t seats[10];
    assert_true(dm_binding_seats(&h, 10, seats));
    int seen[4][2] = {{0}};
    for (size_t t = 0; t < 8; t++) {
        assert_int_equal(h.usable[seats[t]].node, t % 2);
        seen[h.usable[seats[t]].core][t / 4]++;
        for (size_t u = 0; u < t; u++) {
            assert_true(seats[t] != seats[u]);
        }
    }
    for (int core = 0; core < 4; core++) { /* each core once before any twice */
        assert_true(seen[core][0] == 1 && seen[core][1] == 1);
    }
    assert_true(seats[8] == seats[0] && seats[9] == seats[1]);
    dm_hardware_free(&h);
}

static void unequal_nodes(void **state) {
    (void)state;
    dm_hardware h = machine("pack:2 [numa] core:2 pu:1");
    h.n_usable = 3; /* one processor of the second node may not be used */
    size_t seats[4], second = 0;
    assert_true(dm_binding_seats(&h, 4, seats));
    for (size_t t = 0; t < 3; t++) {
        second += h.usable[seats[t]].node == 1;
    }
    assert_true(second == 1 && seats[3] == seats[0]);
    h.usable[0].node = -1;
    assert_false(dm_binding_seats(&h, 4, seats));
    dm_hardware_free(&h);
}

/* ---- Plans ---- */

typedef struct load_case {
    uint64_t bytes[LAYERS * EXPERTS];
    double loads[LAYERS * EXPERTS];
    dm_placement_demand demand;
} load_case;

/* Sizes and loads of several magnitudes. */
static void fill(load_case *it) {
    uint64_t x = 12345;
    for (size_t i = 0; i < LAYERS * EXPERTS; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        it->bytes[i] = (1 + (x >> 60)) << 20;
        it->loads[i] = (double)((x >> 40) % 1000);
    }
    it->demand = (dm_placement_demand){1000003, LAYERS, EXPERTS, it->bytes, it->loads, false};
}

/* The amounts of a layer's nodes, summed anew. */
static void sum_layer(const load_case *it, const dm_placement *p, size_t layer, double *amounts) {
    memset(amounts, 0, p->n_nodes * sizeof *amounts);
    for (size_t e = 0; e < EXPERTS; e++) {
        size_t at = layer * EXPERTS + e;
        amounts[p->home[at]] += it->loads[at] * (double)it->bytes[at];
    }
}

/* Nobody gains by moving alone; returns the time of the slowest node. */
static double check_rest(const load_case *it, const dm_placement *p, size_t layer) {
    double amounts[4], most = 0;
    sum_layer(it, p, layer, amounts);
    for (size_t e = 0; e < EXPERTS; e++) {
        size_t at = layer * EXPERTS + e, home = (size_t)p->home[at];
        double own = it->loads[at] * (double)it->bytes[at];
        for (size_t n = 0; n < p->n_nodes; n++) {
            assert_true(n == home ||
                        (amounts[n] + own) / p->shares[n].threads >= amounts[home] / p->shares[home].threads * (1 - 1e-12));
        }
    }
    for (size_t n = 0; n < p->n_nodes; n++) {
        double time = amounts[n] / p->shares[n].threads;
        most = time > most ? time : most;
    }
    return most;
}

static void check_plan(const char *description, size_t threads, size_t nodes) {
    load_case it;
    fill(&it);
    dm_hardware h = machine(description);
    dm_placement p;
    assert_int_equal(dm_placement_plan(&h, &it.demand, threads, &p), DM_OK);
    assert_int_equal(p.n_nodes, nodes);
    uint64_t shared = 0, experts = 0, all = 0;
    size_t seated = 0, count = 0;
    for (size_t n = 0; n < nodes; n++) {
        int32_t grouped = 0;
        for (size_t t = 0; t < threads; t++) {
            grouped += p.group[t] == (int32_t)n;
        }
        assert_int_equal(grouped, p.shares[n].threads);
        shared += p.shares[n].shared_bytes;
        experts += p.shares[n].expert_bytes;
        seated += (size_t)p.shares[n].threads;
        count += p.shares[n].experts;
    }
    double slowest = 0, even = 0;
    for (size_t l = 0; l < LAYERS; l++) {
        slowest += check_rest(&it, &p, l);
    }
    for (size_t i = 0; i < LAYERS * EXPERTS; i++) {
        all += it.bytes[i];
        even += it.loads[i] * (double)it.bytes[i] / (double)threads;
    }
    assert_true(shared == it.demand.shared_bytes && experts == all && seated == threads && count == LAYERS * EXPERTS && p.fits);
    assert_float_equal(p.imbalance, slowest / even, 1e-9);
    assert_true(p.imbalance >= 1 - 1e-12 && p.imbalance <= p.in_turn);
    dm_placement_free(&p);

    it.demand.mirrored = true;
    assert_int_equal(dm_placement_plan(&h, &it.demand, threads, &p), DM_OK);
    for (size_t n = 0; n < nodes; n++) {
        assert_true(p.shares[n].shared_bytes == it.demand.shared_bytes);
    }
    dm_placement_free(&p);
    dm_hardware_free(&h);
}

static void plans(void **state) {
    (void)state;
    check_plan("numa:2(memory=64GiB) core:4 pu:1", 8, 2);
    check_plan("numa:2(memory=64GiB) core:4 pu:1", 3, 2); /* two threads on one node, one on the other */
    check_plan("pack:2 [numa(memory=64GiB)] l3:1 core:8 pu:2", 16, 2);
    check_plan("pack:4 [numa(memory=64GiB)] core:2 pu:1", 8, 4);
    check_plan("numa:4(memory=64GiB) core:1 pu:1", 1, 1); /* no thread, no share */
    check_plan("pack:1 [numa(memory=64GiB)] core:2 pu:1", 2, 1);
}

static void full_nodes(void **state) {
    (void)state;
    load_case it;
    fill(&it);
    dm_hardware h = machine("numa:2(memory=64GiB) core:4 pu:1");
    dm_placement p;
    h.nodes[0].bytes = 2 << 20; /* room for its half of what is shared and one small expert at most */
    assert_int_equal(dm_placement_plan(&h, &it.demand, 8, &p), DM_OK);
    assert_true(p.fits && p.shares[0].shared_bytes + p.shares[0].expert_bytes <= h.nodes[0].bytes);
    dm_placement_free(&p);
    h.nodes[1].bytes = 2 << 20;
    assert_int_equal(dm_placement_plan(&h, &it.demand, 8, &p), DM_OK);
    assert_false(p.fits);
    dm_placement_free(&p);
    assert_int_equal(dm_placement_plan(&h, &it.demand, 0, &p), DM_ERR_ARGUMENT);
    assert_null(p.shares);
    h.usable[0].node = -1;
    assert_int_equal(dm_placement_plan(&h, &it.demand, 8, &p), DM_ERR_ARGUMENT);
    dm_hardware_free(&h);
}

/* ---- Binding ---- */

typedef struct where {
    atomic_int helpers; /* that were at work */
    atomic_int astray;  /* of them outside of `place` */
    cpu_set_t place;
} where;

static void look(void *user, size_t begin, size_t end, int thread) {
    where *w = user;
    cpu_set_t now;
    if (thread > 0 && begin < end && sched_getaffinity(0, sizeof now, &now) == 0) {
        atomic_fetch_add(&w->helpers, 1);
        atomic_fetch_add(&w->astray, CPU_EQUAL(&now, &w->place) == 0);
    }
    usleep(200); /* helpers wake meanwhile */
}

/* Binds all to `place`, or nobody, and checks where helpers are. */
static void check_bound(const cpu_set_t *place, const cpu_set_t *expected, const cpu_set_t *before) {
    where w;
    memset(&w, 0, sizeof w);
    w.place = *expected;
    dm_parallel_bind(place, 1);
    for (int turn = 0; turn < 50 && w.helpers < 2; turn++) {
        dm_parallel(2, 40, 1, look, &w);
    }
    assert_true(w.helpers > 0 && w.astray == 0);
    cpu_set_t now;
    for (int anywhere = 1; anywhere >= 0; anywhere--) { /* the caller may go for a while */
        dm_parallel_roam(anywhere == 1);
        assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
        assert_true(CPU_EQUAL(&now, anywhere == 1 ? before : expected));
    }
}

static void bound_threads(void **state) {
    (void)state;
    cpu_set_t before, one, now;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int processor = 0;
    while (!CPU_ISSET(processor, &before)) {
        processor++;
    }
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    int threads = dm_threads();
    dm_set_threads(2);
    check_bound(&one, &one, &before);
    check_bound(NULL, &before, &before);
    assert_int_equal(dm_bind_threads(DM_BIND_CORES), DM_OK);
    assert_int_equal(dm_bind_threads(DM_BIND_AUTO), DM_OK);
    assert_int_equal(dm_bind_threads(DM_BIND_NONE), DM_OK);
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_true(CPU_EQUAL(&now, &before));
    dm_binding binding;
    assert_int_equal(dm_binding_from_name("moon", &binding), DM_ERR_ARGUMENT);
    dm_set_threads(threads);
}

/* ---- Huge pages ---- */

static void pages(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, DM_HUGE_PAGE - 1, DM_HUGE_PAGE, 2 * DM_HUGE_PAGE + 5};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        size_t bytes = sizes[i / 2];
        dm_pages p;
        dm_set_huge_pages(i % 2 == 0);
        assert_int_equal(dm_pages_map(bytes, &p), DM_OK);
        assert_int_equal((uintptr_t)p.data % DM_HUGE_PAGE, 0);
        for (size_t at = 0; at < bytes; at += 4096) {
            assert_int_equal(p.data[at], 0);
            p.data[at] = 1;
        }
        if (bytes > 0) {
            p.data[bytes - 1] = 1;
        }
        dm_pages_unmap(&p);
        assert_null(p.data);
        dm_pages_unmap(&p);
    }
    dm_set_huge_pages(true);
    dm_pages p;
    assert_int_equal(dm_pages_map(SIZE_MAX - 5, &p), DM_ERR_MEMORY);
    assert_int_equal(dm_pages_map(SIZE_MAX / 4, &p), DM_ERR_MEMORY);
    assert_null(p.mapped);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seats_take_turns), cmocka_unit_test(unequal_nodes), cmocka_unit_test(plans),
        cmocka_unit_test(full_nodes),       cmocka_unit_test(bound_threads), cmocka_unit_test(pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
