/* Stack distances beside lists that an LRU keeps, and who serves a decode's weights beside a simulation of every cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "core/stack_distance.h"
#include "moe/replay.h"
#include "moe/served.h"

enum { MOST = 600 };

/* ---- A cache as it would be built: newest first, and the oldest go until the rest fits ---- */

typedef struct naive {
    uint64_t capacity, held;
    const uint64_t *bytes;
    size_t list[MOST], n;
} naive;

/* Whether the thing is there; then it is the newest. */
static bool naive_use(naive *it, size_t thing) {
    size_t at = 0;
    while (at < it->n && it->list[at] != thing) {
        at++;
    }
    const bool hit = at < it->n;
    if (!hit) {
        assert_true(it->n < MOST);
        it->n++;
        it->held += it->bytes[thing];
    }
    memmove(it->list + 1, it->list, at * sizeof *it->list);
    it->list[0] = thing;
    while (it->held > it->capacity) {
        it->held -= it->bytes[it->list[--it->n]];
    }
    return hit;
}

/* ---- Distances ---- */

/* A few things are wanted often, the others seldom, some runs in a row. */
static size_t draw(dm_random *random, size_t things, size_t before) {
    double u = dm_random_uniform(random);
    size_t thing = (size_t)(u * u * u * (double)things);
    return dm_random_uniform(random) < 0.3 ? (before + 1) % things : thing;
}

static void distances_are_what_caches_of_all_sizes_hit(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 17, 64, 500};
    static const uint64_t capacities[] = {0, 1, 9, 40, 200, 1000, 3000, 10000};
    enum { SIZES = sizeof sizes / sizeof *sizes, CAPACITIES = sizeof capacities / sizeof *capacities };
    static naive caches[CAPACITIES];
    for (size_t s = 0; s < SIZES; s++) {
        uint64_t bytes[MOST];
        dm_random random;
        dm_random_seed(&random, s);
        for (size_t i = 0; i < sizes[s]; i++) {
            bytes[i] = s % 2 == 0 ? 8 : 1 + dm_random_next(&random) % 30;
        }
        for (size_t c = 0; c < CAPACITIES; c++) {
            caches[c] = (naive){.capacity = capacities[c], .bytes = bytes};
        }
        dm_stack_distance *distances;
        bool used[MOST] = {0};
        assert_int_equal(dm_stack_distance_create(bytes, sizes[s], &distances), DM_OK);
        size_t thing = 0;
        for (int use = 0; use < 5000; use++) { /* last uses move together many times */
            thing = draw(&random, sizes[s], thing);
            uint64_t distance = dm_stack_distance_use(distances, thing);
            assert_true((distance == DM_FIRST_USE) == !used[thing]);
            assert_true(distance >= bytes[thing]);
            used[thing] = true;
            for (size_t c = 0; c < CAPACITIES; c++) {
                assert_true(naive_use(&caches[c], thing) == (distance <= capacities[c]));
            }
        }
        dm_stack_distance_free(distances);
    }
}

/* ---- A decode ---- */

enum { LAYERS = 2, EXPERTS = 5, TOKENS = 300, UNIT = 64 };

static const uint64_t before[LAYERS] = {130, 64}, after[LAYERS] = {0, 100};
static const uint64_t matrices[3 * LAYERS] = {64, 65, 200, 1, 128, 127};
static const dm_served_weights weights = {before, matrices, after, 300};

/* Two experts a token, of which one stays a while. */
static dm_trace make_trace(void) {
    dm_trace trace = {.shape = {LAYERS, EXPERTS, 300}, .passes = TOKENS, .tokens = TOKENS};
    trace.starts = calloc(TOKENS * LAYERS + 1, sizeof *trace.starts);
    trace.experts = calloc(TOKENS * LAYERS * 2, sizeof *trace.experts);
    assert_true(trace.starts != NULL && trace.experts != NULL);
    dm_random random;
    dm_random_seed(&random, 5);
    for (size_t i = 0; i < TOKENS * LAYERS; i++) {
        const int32_t stays = (int32_t)(i / 20 % EXPERTS);
        trace.experts[2 * i] = stays;
        trace.experts[2 * i + 1] = (stays + 1 + (int32_t)(dm_random_next(&random) % (EXPERTS - 1))) % EXPERTS;
        trace.starts[i + 1] = 2 * (i + 1);
    }
    return trace;
}

/* What the trace reads, unit by unit as the definitions say, through caches that are simulated side by side. */
typedef struct decode {
    const dm_served_options *options;
    uint64_t bytes[MOST]; /* of units, numbered as they are first met below */
    size_t starts[LAYERS][EXPERTS + 2], n;
    naive caches[DM_SERVED_CACHES];
    uint64_t by[2][DM_SERVED_CACHES + 2]; /* of experts and others */
} decode;

static void number_units(decode *d, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += UNIT) {
        d->bytes[d->n++] = bytes - at < UNIT ? bytes - at : UNIT;
    }
}

static void read_units(decode *d, size_t *first, uint64_t bytes, bool in_memory, int kind) {
    for (uint64_t at = 0; at < bytes; at += UNIT, (*first)++) {
        size_t by = d->options->caches;
        for (size_t c = d->options->caches; c-- > 0;) { /* each has to see the use */
            by = naive_use(&d->caches[c], *first) ? c : by;
        }
        d->by[kind][in_memory ? by : d->options->caches + 1] += d->bytes[*first];
    }
}

static void number_all(decode *d) {
    for (size_t l = 0; l < LAYERS; l++) {
        d->starts[l][EXPERTS] = d->n;
        number_units(d, before[l]);
        d->starts[l][EXPERTS + 1] = d->n;
        number_units(d, after[l]);
        for (size_t e = 0; e < EXPERTS; e++) {
            d->starts[l][e] = d->n;
            for (int m = 0; m < 3; m++) {
                number_units(d, matrices[3 * l + (size_t)m]);
            }
        }
    }
}

/* Whether an expert is one of the `slots` different ones of its layer that were used last. */
static bool is_resident(const dm_trace *t, size_t pass, size_t layer, size_t use, int32_t slots) {
    const int32_t expert = t->experts[use];
    bool seen[EXPERTS] = {false};
    int32_t different = 0;
    for (size_t p = pass + 1; p-- > 0;) {
        const size_t at = p * LAYERS + layer;
        for (size_t i = p == pass ? use : t->starts[at + 1]; i-- > t->starts[at];) {
            if (t->experts[i] == expert) {
                return slots == 0 || different < slots;
            }
            different += !seen[t->experts[i]];
            seen[t->experts[i]] = true;
        }
    }
    return slots == 0;
}

static void simulate(decode *d, const dm_trace *t, int32_t slots) {
    number_all(d);
    const size_t output = d->n;
    number_units(d, weights.output);
    for (size_t pass = 0; pass < t->passes; pass++) {
        for (size_t l = 0; l < LAYERS; l++) {
            size_t unit = d->starts[l][EXPERTS], at = pass * LAYERS + l;
            read_units(d, &unit, before[l], true, 1);
            for (size_t i = t->starts[at]; i < t->starts[at + 1]; i++) {
                const bool there = is_resident(t, pass, l, i, slots);
                unit = d->starts[l][t->experts[i]];
                for (int m = 0; m < 3; m++) {
                    read_units(d, &unit, matrices[3 * l + (size_t)m], there, 0);
                }
            }
            unit = d->starts[l][EXPERTS + 1];
            read_units(d, &unit, after[l], true, 1);
        }
        size_t unit = output;
        read_units(d, &unit, weights.output, true, 1);
    }
}

static void every_byte_is_served_by_who_has_it(void **state) {
    (void)state;
    dm_trace trace = make_trace();
    for (int32_t slots = 0; slots <= EXPERTS; slots++) {
        const dm_served_options options = {.unit = UNIT, .caches = 4, .bytes = {700, 1800, 2100, 3000}, .slots = slots};
        dm_served served;
        static decode d;
        d = (decode){.options = &options};
        for (size_t c = 0; c < options.caches; c++) {
            d.caches[c] = (naive){.capacity = options.bytes[c], .bytes = d.bytes};
        }
        simulate(&d, &trace, slots);
        assert_int_equal(dm_served_count(&trace, &weights, &options, &served), DM_OK);
        for (size_t i = 0; i < options.caches + 2; i++) {
            assert_int_equal(served.experts.by[i], d.by[0][i]);
            assert_int_equal(served.others.by[i], d.by[1][i]);
        }
        assert_int_equal(served.others.by[1], (TOKENS - 1) * (130 + 64 + 100 + 300)); /* they come round once a pass of 1764 */
        assert_int_equal(served.others.by[4], 130 + 64 + 100 + 300);                  /* and are first met once */
        assert_true(slots > 0 || (served.experts.by[1] > 0 && served.experts.by[2] > 0 && served.experts.by[3] > 0));
        assert_true(served.nearest_distance > 700 && served.nearest_distance <= 1800); /* a token reads each weight once */
        assert_true(served.passes == TOKENS &&
                    served.weights == 130 + 64 + 100 + 300 + EXPERTS * (64 + 65 + 200 + 1 + 128 + 127));
    }
    dm_trace_free(&trace);
}

/* With layers of one size, the disk's bytes are the misses of the policy that keeps slots. */
static void the_disk_serves_what_lru_misses(void **state) {
    (void)state;
    static const uint64_t same[3 * LAYERS] = {100, 100, 100, 100, 100, 100};
    const dm_served_weights even = {before, same, after, 0};
    const dm_eviction_rule lru = {.policy = DM_EVICT_LRU};
    dm_trace trace = make_trace();
    for (int32_t slots = 1; slots <= EXPERTS; slots++) {
        const dm_served_options options = {.unit = UNIT, .slots = slots};
        dm_served served;
        uint64_t misses;
        assert_int_equal(dm_served_count(&trace, &even, &options, &served), DM_OK);
        assert_int_equal(dm_replay(&trace, &lru, false, slots, &misses), DM_OK);
        assert_int_equal(served.experts.by[1], 300 * misses);
        assert_int_equal(served.experts.by[0] + served.experts.by[1], 300 * dm_replay_asked(&trace));
    }
    dm_trace_free(&trace);
}

static void misuse_is_refused(void **state) {
    (void)state;
    dm_trace trace = make_trace();
    dm_served served;
    const dm_served_options bad[] = {{.unit = 63},
                                     {.unit = 64, .caches = DM_SERVED_CACHES + 1},
                                     {.unit = 64, .caches = 2, .bytes = {2, 1}},
                                     {.unit = 64, .slots = -1},
                                     {.unit = 64, .slots = EXPERTS + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(dm_served_count(&trace, &weights, &bad[i], &served), DM_ERR_ARGUMENT);
    }
    dm_trace_free(&trace);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances_are_what_caches_of_all_sizes_hit),
        cmocka_unit_test(every_byte_is_served_by_who_has_it),
        cmocka_unit_test(the_disk_serves_what_lru_misses),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
