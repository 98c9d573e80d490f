#include "moe/served.h"

#include "base/memory.h"
#include "core/lru.h"
#include "core/stack_distance.h"

/* Weights that are read together: units first .. first + n - 1. */
typedef struct span {
    size_t first, n;
} span;

typedef struct counter {
    const dm_trace *trace;
    const dm_served_options *options;
    span *before, *after; /* [layers] */
    span *experts;        /* [layers, experts] gate, up and down after one another */
    span output;
    size_t n_units;
    uint64_t *units; /* [n_units] bytes of each: a matrix's last one may be smaller */
    dm_stack_distance *distances;
    dm_lru *slots; /* [layers] experts that are in memory; NULL: all are */
    dm_served *out;
} counter;

/* ---- Units --------------------------------------------------------------- */

/* Units of `bytes` more; what they hold is written where there is room for it already. */
static void cut(counter *c, uint64_t bytes) {
    const uint64_t unit = c->options->unit;
    for (uint64_t left = bytes; left > 0; left -= left < unit ? left : unit) {
        if (c->units != NULL) {
            c->units[c->n_units] = left < unit ? left : unit;
        }
        c->n_units++;
    }
}

static span cut_all(counter *c, const uint64_t *bytes, size_t n) {
    span s = {c->n_units, 0};
    for (size_t i = 0; i < n; i++) {
        cut(c, bytes[i]);
    }
    s.n = c->n_units - s.first;
    return s;
}

static void lay_out(counter *c, const dm_served_weights *w) {
    const size_t layers = (size_t)c->trace->shape.layers, experts = (size_t)c->trace->shape.experts;
    c->n_units = 0;
    for (size_t l = 0; l < layers; l++) {
        c->before[l] = cut_all(c, w->before + l, 1);
        c->after[l] = cut_all(c, w->after + l, 1);
        for (size_t e = 0; e < experts; e++) {
            c->experts[l * experts + e] = cut_all(c, w->matrices + 3 * l, 3);
        }
    }
    c->output = cut_all(c, &w->output, 1);
}

/* ---- Reading ------------------------------------------------------------- */

/* Who serves what was last used `distance` bytes ago: a cache, or memory after them. */
static size_t server_of(const dm_served_options *o, uint64_t distance) {
    size_t i = 0;
    while (i < o->caches && distance > o->bytes[i]) {
        i++;
    }
    return i;
}

static void read_span(counter *c, span s, bool in_memory, dm_served_bytes *served) {
    for (size_t i = s.first; i < s.first + s.n; i++) {
        uint64_t distance = dm_stack_distance_use(c->distances, i);
        size_t by = in_memory ? server_of(c->options, distance) : c->options->caches + 1;
        served->by[by] += c->units[i];
        c->out->nearest_distance = distance < c->out->nearest_distance ? distance : c->out->nearest_distance;
    }
}

static void read_expert(counter *c, size_t layer, int32_t expert) {
    bool in_memory = true;
    if (c->slots != NULL) {
        in_memory = dm_lru_has(&c->slots[layer], expert);
        dm_lru_use(&c->slots[layer], expert);
    }
    read_span(c, c->experts[layer * (size_t)c->trace->shape.experts + (size_t)expert], in_memory, &c->out->experts);
}

static void read_pass(counter *c, size_t pass) {
    const size_t layers = (size_t)c->trace->shape.layers;
    for (size_t l = 0; l < layers; l++) {
        const size_t at = pass * layers + l;
        read_span(c, c->before[l], true, &c->out->others);
        for (size_t i = c->trace->starts[at]; i < c->trace->starts[at + 1]; i++) {
            read_expert(c, l, c->trace->experts[i]);
        }
        read_span(c, c->after[l], true, &c->out->others);
    }
    read_span(c, c->output, true, &c->out->others);
}

/* ---- The whole ----------------------------------------------------------- */

static dm_status check(const dm_trace *trace, const dm_served_options *o) {
    if (o->unit < DM_SERVED_LEAST_UNIT || o->caches > DM_SERVED_CACHES) {
        return dm_fail(DM_ERR_ARGUMENT, "units of %llu bytes and %zu caches: expected 64 bytes or more, and at most %d caches",
                       (unsigned long long)o->unit, o->caches, DM_SERVED_CACHES);
    }
    for (size_t i = 1; i < o->caches; i++) {
        if (o->bytes[i] < o->bytes[i - 1]) {
            return dm_fail(DM_ERR_ARGUMENT, "cache %zu has %llu bytes, the one before it %llu: expected the smaller ones first",
                           i + 1, (unsigned long long)o->bytes[i], (unsigned long long)o->bytes[i - 1]);
        }
    }
    if (o->slots < 0 || o->slots > trace->shape.experts) {
        return dm_fail(DM_ERR_ARGUMENT, "%d slots for each layer: expected 1 to the %d experts that it has, or 0", o->slots,
                       trace->shape.experts);
    }
    return DM_OK;
}

static dm_status take_memory(counter *c, const dm_served_weights *weights) {
    const size_t layers = (size_t)c->trace->shape.layers, experts = (size_t)c->trace->shape.experts;
    c->before = dm_alloc(layers, sizeof *c->before);
    c->after = dm_alloc(layers, sizeof *c->after);
    c->experts = dm_alloc(layers * experts, sizeof *c->experts);
    c->slots = c->options->slots > 0 ? dm_alloc(layers, sizeof *c->slots) : NULL;
    if (c->before == NULL || c->after == NULL || c->experts == NULL || (c->options->slots > 0 && c->slots == NULL)) {
        return DM_ERR_MEMORY;
    }
    lay_out(c, weights); /* counts */
    c->units = dm_alloc(c->n_units, sizeof *c->units);
    if (c->units == NULL) {
        return DM_ERR_MEMORY;
    }
    lay_out(c, weights);
    for (size_t l = 0; c->slots != NULL && l < layers; l++) {
        DM_TRY(dm_lru_create(c->trace->shape.experts, c->options->slots, &c->slots[l]));
    }
    return dm_stack_distance_create(c->units, c->n_units, &c->distances);
}

static void give_back(counter *c) {
    for (int32_t l = 0; c->slots != NULL && l < c->trace->shape.layers; l++) {
        dm_lru_free(&c->slots[l]);
    }
    dm_stack_distance_free(c->distances);
    void *const owned[] = {c->before, c->after, c->experts, c->units, c->slots};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        dm_free(owned[i]);
    }
}

dm_status dm_served_count(const dm_trace *trace, const dm_served_weights *weights, const dm_served_options *options,
                          dm_served *out) {
    *out = (dm_served){.passes = trace->passes, .nearest_distance = DM_FIRST_USE};
    DM_TRY(check(trace, options));
    counter c = {.trace = trace, .options = options, .out = out};
    dm_status status = take_memory(&c, weights);
    for (size_t i = 0; status == DM_OK && i < c.n_units; i++) {
        out->weights += c.units[i];
    }
    for (size_t pass = 0; status == DM_OK && pass < trace->passes; pass++) {
        read_pass(&c, pass);
    }
    give_back(&c);
    return status;
}
