/*
 * Whether an expert's high bits and low bits should be separate reads: a recorded trace (dilmodeli eval --trace) played to three
 * ways of spending the same memory on experts of BITS bits a weight.
 *
 *   whole     an expert that is missed is read whole
 *   slices    of one that is missed the high bits are read, and it is used so; at its next use, if it is kept till then, the low
 *             bits are read behind, for the uses after that one
 *   narrow    all experts have so few bits throughout; more of them fit
 *
 * Each way's bytes of a token, those that the token waits for and all of them, and its divergence: each use counts as the model
 * does whose experts all have as many bits (--kl, measured), which slices are favoured by: the high bits of a code are worse than
 * a code of as many bits. Usage: dm-bench-slices TRACE --kl BITS=KL,.. [--slots N,..] [--evict POLICY]; the most BITS are the
 * whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "core/eviction.h"
#include "moe/replay.h"

enum { MOST = 16 };

typedef struct width {
    double bits, kl;
} width;

typedef struct bench {
    dm_trace trace;
    dm_eviction_rule rule;
    width widths[MOST]; /* [n_widths] the widest last */
    size_t n_widths;
    int32_t slots[MOST]; /* [n_slots] of whole experts, of each layer */
    size_t n_slots;
} bench;

/* What a way does with one layer's uses, in experts. */
typedef struct counts {
    uint64_t uses, misses, low; /* uses of an expert whose high bits alone are there */
    uint64_t completed;         /* reads of low bits */
} counts;

/* Plays a layer to `slots` slots; complete [experts] is scratch. */
static dm_status play_layer(const bench *b, int32_t layer, int32_t slots, bool *complete, counts *all) {
    const dm_trace *t = &b->trace;
    dm_eviction *kept;
    memset(complete, 0, (size_t)t->shape.experts * sizeof *complete);
    DM_TRY(dm_eviction_create(t->shape.experts, slots, &b->rule, NULL, &kept));
    for (size_t pass = 0; pass < t->passes; pass++) {
        const size_t step = pass * (size_t)t->shape.layers + (size_t)layer;
        for (size_t i = t->starts[step]; i < t->starts[step + 1]; i++) {
            const int32_t expert = t->experts[i];
            const bool there = dm_eviction_has(kept, expert);
            dm_eviction_use(kept, expert);
            all->uses++;
            all->misses += !there;
            all->low += !there || !complete[expert];
            all->completed += there && !complete[expert];
            complete[expert] = there; /* from the next use on, if this was not the first */
        }
        dm_eviction_end_pass(kept);
    }
    dm_eviction_free(kept);
    return DM_OK;
}

static dm_status play(const bench *b, int32_t slots, counts *out) {
    const dm_trace *t = &b->trace;
    bool *complete = dm_alloc((size_t)t->shape.experts, sizeof *complete);
    dm_status status = complete != NULL ? DM_OK : DM_ERR_MEMORY;
    *out = (counts){0};
    for (int32_t l = 0; l < t->shape.layers && status == DM_OK; l++) {
        status = play_layer(b, l, slots < t->shape.experts ? slots : t->shape.experts, complete, out);
    }
    dm_free(complete);
    return status;
}

static void print_row(int32_t slots, const char *way, double bits, double waited, double all, double low, double kl) {
    printf("%6d %-8s %5.2f %12.2f %12.2f %9.1f%% %10.5f\n", slots, way, bits, waited, all, 100.0 * low, kl);
    fflush(stdout);
}

static dm_status measure(const bench *b, int32_t slots) {
    const width *whole = &b->widths[b->n_widths - 1];
    const double megabytes = 1e-6 * (double)b->trace.shape.expert_bytes / (double)b->trace.tokens; /* of an expert and token */
    counts c;
    DM_TRY(play(b, slots, &c));
    print_row(slots, "whole", whole->bits, megabytes * (double)c.misses, megabytes * (double)c.misses, 0.0, whole->kl);
    for (const width *w = b->widths; w < whole; w++) {
        const double share = w->bits / whole->bits, low = (double)c.low / (double)c.uses;
        const double waited = megabytes * share * (double)c.misses;
        print_row(slots, "slices", w->bits, waited, waited + megabytes * (1.0 - share) * (double)c.completed, low,
                  low * w->kl + (1.0 - low) * whole->kl);
    }
    for (const width *w = b->widths; w < whole; w++) {
        const double share = w->bits / whole->bits;
        DM_TRY(play(b, (int32_t)((double)slots / share), &c));
        print_row(slots, "narrow", w->bits, megabytes * share * (double)c.misses, megabytes * share * (double)c.misses, 1.0,
                  w->kl);
    }
    return DM_OK;
}

/* ---- The program ---- */

static bool read_widths(bench *b, const char *at) {
    while (at != NULL && b->n_widths < MOST) {
        width *w = &b->widths[b->n_widths];
        int length = 0;
        if (sscanf(at, "%lf=%lf%n", &w->bits, &w->kl, &length) != 2 || !(w->bits > 0.0) || !(w->kl >= 0.0) ||
            (b->n_widths > 0 && w->bits <= w[-1].bits)) {
            return false;
        }
        b->n_widths++;
        at = at[length] == ',' ? at + length + 1 : at[length] == '\0' ? NULL : "";
    }
    return at == NULL && b->n_widths >= 2;
}

static bool read_slots(bench *b, const char *at) {
    while (at != NULL && b->n_slots < MOST) {
        char *end;
        const long slots = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || slots < 1 || slots > DM_TRACE_MOST_EXPERTS) {
            return false;
        }
        b->slots[b->n_slots++] = (int32_t)slots;
        at = *end == ',' ? end + 1 : NULL;
    }
    return at == NULL;
}

/* Path of the trace, NULL where the arguments (NULL ends them) are not understood. */
static const char *read_arguments(bench *b, char *const *arguments) {
    const char *path = NULL, *evict = "lfu:64";
    for (const char *text; (text = *arguments++) != NULL;) {
        const char *value = *arguments;
        bool understood = text[0] == '-' && value != NULL;
        if (understood && strcmp(text, "--kl") == 0) {
            understood = read_widths(b, value);
        } else if (understood && strcmp(text, "--slots") == 0) {
            understood = read_slots(b, value);
        } else if (understood && strcmp(text, "--evict") == 0) {
            evict = value;
        } else if (text[0] != '-' && path == NULL) {
            path = text;
            continue;
        } else {
            understood = false;
        }
        if (!understood) {
            return NULL;
        }
        arguments++;
    }
    return b->n_widths > 0 && dm_eviction_parse(evict, strlen(evict), &b->rule) == DM_OK && b->rule.policy != DM_EVICT_BELADY
               ? path
               : NULL;
}

int main(int argc, char **argv) {
    static bench b;
    const char *path = argc > 0 ? read_arguments(&b, argv + 1) : NULL;
    if (path == NULL) {
        fprintf(stderr, "usage: dm-bench-slices TRACE --kl BITS=KL,.. [--slots N,..] [--evict POLICY]\n");
        return 2;
    }
    dm_status status = dm_trace_read(path, &b.trace);
    if (status == DM_OK) {
        const int32_t experts = b.trace.shape.experts;
        if (b.n_slots == 0) {
            b.slots[b.n_slots++] = experts >= 4 ? experts / 4 : 1;
            b.slots[b.n_slots++] = experts >= 2 ? experts / 2 : 1;
        }
        printf("%6s %-8s %5s %12s %12s %10s %10s\n", "slots", "way", "bits", "MB waited", "MB in all", "uses so", "KL");
    }
    for (size_t i = 0; i < b.n_slots && status == DM_OK; i++) {
        status = measure(&b, b.slots[i]);
    }
    dm_trace_free(&b.trace);
    if (status != DM_OK) {
        fprintf(stderr, "dm-bench-slices: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
