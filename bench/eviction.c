/*
 * Policies of eviction on a recorded trace (dilmodeli eval --trace): the share of the experts asked for that each would have had
 * to fetch, at several capacities, with as many slots for each layer and with all slots shared by the layers, beside Belady's
 * optimum. Usage: dm-bench-eviction TRACE [--slots N,..] [--evict POLICY,..] [--json]
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/replay.h"

enum { MOST = 16 };

static const double capacities[] = {0.125, 0.25, 0.4, 0.5, 0.75}; /* of all experts */
enum { CAPACITIES = sizeof capacities / sizeof *capacities };

typedef struct bench {
    dm_trace trace;
    const char *slots_text, *policies_text;
    int32_t slots[MOST]; /* [n_slots] of each layer */
    size_t n_slots;
    char names[MOST][32]; /* [n_rules] the last is belady */
    dm_eviction_rule rules[MOST];
    size_t n_rules;
    bool json;
} bench;

/* ---- What is asked for ---- */

static bool read_slots(bench *b) {
    const int32_t experts = b->trace.shape.experts;
    for (size_t i = 0; b->slots_text == NULL && i < CAPACITIES; i++) {
        int32_t slots = (int32_t)lround(capacities[i] * experts);
        slots = slots > 1 ? slots : 1;
        if (b->n_slots == 0 || slots > b->slots[b->n_slots - 1]) {
            b->slots[b->n_slots++] = slots;
        }
    }
    for (const char *at = b->slots_text; at != NULL;) {
        char *end;
        long slots = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || slots < 1 || slots > experts || b->n_slots == MOST) {
            fprintf(stderr, "dm-bench-eviction: --slots expects up to %d numbers of experts, 1 to %d, as 2,4,8\n", MOST, experts);
            return false;
        }
        b->slots[b->n_slots++] = (int32_t)slots;
        at = *end == ',' ? end + 1 : NULL;
    }
    return true;
}

static bool read_policies(bench *b) {
    for (const char *at = b->policies_text; at != NULL;) {
        size_t length = strcspn(at, ",");
        if (b->n_rules == MOST - 1 || length >= sizeof b->names[0]) {
            fprintf(stderr, "dm-bench-eviction: --evict expects up to %d policies, as lru,lfu:64\n", MOST - 1);
            return false;
        }
        if (dm_eviction_parse(at, length, &b->rules[b->n_rules]) != DM_OK) {
            fprintf(stderr, "dm-bench-eviction: %s\n", dm_error_message());
            return false;
        }
        memcpy(b->names[b->n_rules++], at, length);
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    b->rules[b->n_rules] = (dm_eviction_rule){.policy = DM_EVICT_BELADY};
    strcpy(b->names[b->n_rules++], "belady");
    return true;
}

/* ---- Measuring ---- */

/* rates [n_rules] */
static dm_status measure(const bench *b, bool shared, int32_t slots, double *rates) {
    uint64_t asked = dm_replay_asked(&b->trace);
    for (size_t i = 0; i < b->n_rules; i++) {
        uint64_t misses;
        DM_TRY(dm_replay(&b->trace, &b->rules[i], shared, slots, &misses));
        rates[i] = asked > 0 ? (double)misses / (double)asked : 0.0;
    }
    return DM_OK;
}

static void print_head(const bench *b, uint64_t different) {
    const dm_trace *t = &b->trace;
    printf("%d layers of %d experts, %.3g MB each; %zu passes of %llu tokens ask for %llu experts, %.2f a layer and pass\n",
           t->shape.layers, t->shape.experts, 1e-6 * (double)t->shape.expert_bytes, t->passes, (unsigned long long)t->tokens,
           (unsigned long long)dm_replay_asked(t),
           t->passes > 0 ? (double)dm_replay_asked(t) / (double)t->passes / t->shape.layers : 0.0);
    printf("misses in %% of the experts asked for; each of %llu different ones misses once\n\n%-8s %6s %6s",
           (unsigned long long)different, "slots", "each", "of all");
    for (size_t i = 0; i < b->n_rules; i++) {
        printf(" %9s", b->names[i]);
    }
    printf("\n");
}

static void print_row(const bench *b, bool shared, int32_t slots, const double *rates) {
    printf("%-8s %6d %5.1f%%", shared ? "shared" : "layers", slots, 100.0 * slots / b->trace.shape.experts);
    for (size_t i = 0; i < b->n_rules; i++) {
        printf(" %9.2f", 100.0 * rates[i]);
    }
    printf("\n");
    fflush(stdout);
}

static json_t *json_row(const bench *b, bool shared, int32_t slots, const double *rates) {
    const dm_trace *t = &b->trace;
    const double uses = t->tokens > 0 ? (double)dm_replay_asked(t) / (double)t->tokens : 0.0;
    json_t *misses = json_object(), *bytes = json_object();
    for (size_t i = 0; i < b->n_rules; i++) {
        json_object_set_new(misses, b->names[i], json_real(rates[i]));
        json_object_set_new(bytes, b->names[i], json_real(rates[i] * uses * (double)t->shape.expert_bytes));
    }
    return json_pack("{s:b, s:i, s:f, s:o, s:o}", "shared", shared, "slots", slots, "capacity", (double)slots / t->shape.experts,
                     "misses", misses, "bytes_read_per_token", bytes);
}

static dm_status measure_all(const bench *b) {
    double rates[MOST];
    uint64_t different;
    json_t *rows = json_array();
    dm_status status = dm_replay_different(&b->trace, &different);
    if (status == DM_OK && !b->json) {
        print_head(b, different);
    }
    for (size_t i = 0; i < 2 * b->n_slots && status == DM_OK; i++) {
        const bool shared = i >= b->n_slots;
        const int32_t slots = b->slots[i % b->n_slots];
        status = measure(b, shared, slots, rates);
        if (status == DM_OK && b->json) {
            json_array_append_new(rows, json_row(b, shared, slots, rates));
        } else if (status == DM_OK) {
            print_row(b, shared, slots, rates);
        }
    }
    const dm_trace *t = &b->trace;
    json_t *all = json_pack("{s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:o}", "layers", t->shape.layers, "experts", t->shape.experts,
                            "expert_bytes", (json_int_t)t->shape.expert_bytes, "passes", (json_int_t)t->passes, "tokens",
                            (json_int_t)t->tokens, "asked", (json_int_t)dm_replay_asked(t), "different",
                            status == DM_OK ? (json_int_t)different : 0, "rows", rows);
    if (status == DM_OK && b->json) {
        json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        printf("\n");
    }
    json_decref(all);
    return status;
}

/* ---- The program ---- */

/* Path of the trace, NULL where the arguments (NULL ends them) are not understood. */
static const char *read_arguments(bench *b, char *const *arguments) {
    const char *path = NULL;
    for (const char *text; (text = *arguments++) != NULL;) {
        if (strcmp(text, "--json") == 0) {
            b->json = true;
        } else if (strcmp(text, "--slots") == 0 && *arguments != NULL) {
            b->slots_text = *arguments++;
        } else if (strcmp(text, "--evict") == 0 && *arguments != NULL) {
            b->policies_text = *arguments++;
        } else if (text[0] != '-' && path == NULL) {
            path = text;
        } else {
            return NULL;
        }
    }
    return path;
}

int main(int argc, char **argv) {
    static bench b = {.policies_text = "lru,lfu,lfru,slru,stale"};
    const char *path = argc > 0 ? read_arguments(&b, argv + 1) : NULL;
    if (path == NULL) {
        fprintf(stderr, "usage: dm-bench-eviction TRACE [--slots N,..] [--evict POLICY,..] [--json]\n");
        return 2;
    }
    dm_status status = dm_trace_read(path, &b.trace);
    int code = status == DM_OK && (!read_slots(&b) || !read_policies(&b)) ? 2 : 0;
    if (status == DM_OK && code == 0) {
        status = measure_all(&b);
    }
    dm_trace_free(&b.trace);
    if (status != DM_OK) {
        fprintf(stderr, "dm-bench-eviction: %s\n", dm_error_message());
        return 1;
    }
    return code;
}
