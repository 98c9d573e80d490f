/*
 * Which tier of memory serves the weights of a decode: a trace of real text (dilmodeli eval --trace) and the model's own sizes,
 * by LRU stack distance (src/moe/served.h says what an access is). Caches are this machine's, each as one thread sees it, unless
 * given. Memory serves what no cache has, or, with --slots, only experts of which it has room for N in a layer; then the disk
 * serves the others. Usage: dm-bench-tiers MODEL TRACE [--tier NAME=BYTES].. [--slots N] [--unit BYTES] [--json]
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/stack_distance.h"
#include "model/model.h"
#include "moe/served.h"
#include "optimization/hardware.h"
#include "optimization/served_weights.h"

typedef struct bench {
    const char *model_path, *trace_path;
    dm_trace trace;
    char names[DM_SERVED_CACHES + 2][16]; /* [options.caches + 2] memory and disk last */
    dm_served_options options;
    dm_served_weights weights;
    bool json;
} bench;

/* ---- Caches ---- */

/* A cache in its place by size, or another size for one that is there. */
static bool add_cache(bench *b, const char *name, size_t length, uint64_t bytes) {
    dm_served_options *o = &b->options;
    size_t at = 0;
    while (at < o->caches && (strlen(b->names[at]) != length || strncmp(b->names[at], name, length) != 0)) {
        at++;
    }
    if (at == DM_SERVED_CACHES || length == 0 || length >= sizeof *b->names) {
        return false;
    }
    o->caches += at == o->caches;
    for (; at > 0 && o->bytes[at - 1] > bytes; at--) {
        o->bytes[at] = o->bytes[at - 1];
        memcpy(b->names[at], b->names[at - 1], sizeof *b->names);
    }
    for (; at + 1 < o->caches && o->bytes[at + 1] < bytes; at++) {
        o->bytes[at] = o->bytes[at + 1];
        memcpy(b->names[at], b->names[at + 1], sizeof *b->names);
    }
    o->bytes[at] = bytes;
    memset(b->names[at], 0, sizeof *b->names);
    memcpy(b->names[at], name, length);
    return true;
}

/* The largest data or unified cache of each level. */
static dm_status add_own_caches(bench *b) {
    dm_hardware hardware;
    DM_TRY(dm_hardware_read(NULL, &hardware));
    int level = 0;
    for (int i = 0; i < hardware.n_caches; i++) {
        if (hardware.caches[i].level != level) {
            char name[16];
            level = hardware.caches[i].level;
            int length = snprintf(name, sizeof name, "L%d", level);
            add_cache(b, name, (size_t)length, hardware.caches[i].bytes);
        }
    }
    dm_hardware_free(&hardware);
    return DM_OK;
}

/* "48K", "32M", "1G" or bytes; 0: none of these. */
static uint64_t read_size(const char *text) {
    static const char units[] = "KMG";
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    if (end == text || text[0] == '-' || (*end != '\0' && (unit == NULL || end[1] != '\0')) || value > 1ull << 32) {
        return 0;
    }
    return value << (unit != NULL ? 10 * (unit - units + 1) : 0);
}

static bool add_given_cache(bench *b, const char *text) {
    const char *equals = strchr(text, '=');
    uint64_t bytes = equals != NULL ? read_size(equals + 1) : 0;
    return bytes > 0 && add_cache(b, text, (size_t)(equals - text), bytes);
}

/* ---- Sizes of the model ---- */

static dm_status measure_model(bench *b, const dm_model *model) {
    const dm_config *c = &model->config;
    if (c->n_layers != b->trace.shape.layers || c->n_experts != b->trace.shape.experts) {
        return dm_fail(DM_ERR_ARGUMENT, "%s is of %d layers with %d experts, %s has %d with %d: expected a trace of this model",
                       b->trace_path, b->trace.shape.layers, b->trace.shape.experts, b->model_path, c->n_layers, c->n_experts);
    }
    return dm_served_weights_of(model, &b->weights);
}

/* ---- Output ---- */

static double sum_of(const bench *b, const dm_served_bytes *bytes) {
    double sum = 0.0;
    for (size_t i = 0; i < b->options.caches + 2; i++) {
        sum += (double)bytes->by[i];
    }
    return sum;
}

static double share(double part, double whole) {
    return whole > 0.0 ? part / whole : 0.0;
}

static void print_text(const bench *b, const dm_served *r) {
    const double experts = sum_of(b, &r->experts), others = sum_of(b, &r->others);
    const double passes = r->passes > 0 ? (double)r->passes : 1.0;
    printf("%llu tokens in %llu passes; a pass reads %.1f MB of %.1f MB of weights: %.1f MB of experts, %.1f MB of the others\n",
           (unsigned long long)b->trace.tokens, (unsigned long long)r->passes, 1e-6 * (experts + others) / passes,
           1e-6 * (double)r->weights, 1e-6 * experts / passes, 1e-6 * others / passes);
    printf("an access is the reading of one unit of %llu bytes, every byte once\n", (unsigned long long)b->options.unit);
    if (r->nearest_distance != DM_FIRST_USE) {
        printf("from a unit's reading to its next one, %.1f MB of different weights are read at the least\n",
               1e-6 * (double)r->nearest_distance);
    }
    printf("\nshare of the bytes read, %%\n%-8s %14s %10s %10s %10s\n", "tier", "bytes", "all", "experts", "others");
    for (size_t i = 0; i < b->options.caches + 2; i++) {
        const double e = (double)r->experts.by[i], o = (double)r->others.by[i];
        char size[24] = "";
        if (i < b->options.caches) {
            snprintf(size, sizeof size, "%llu", (unsigned long long)b->options.bytes[i]);
        }
        printf("%-8s %14s %10.3f %10.3f %10.3f\n", b->names[i], size, 100.0 * share(e + o, experts + others),
               100.0 * share(e, experts), 100.0 * share(o, others));
    }
}

static void print_json(const bench *b, const dm_served *r) {
    const double experts = sum_of(b, &r->experts), others = sum_of(b, &r->others);
    json_t *tiers = json_array();
    for (size_t i = 0; i < b->options.caches + 2; i++) {
        const double e = (double)r->experts.by[i], o = (double)r->others.by[i];
        json_t *bytes = i < b->options.caches ? json_integer((json_int_t)b->options.bytes[i]) : json_null();
        json_array_append_new(tiers, json_pack("{s:s, s:o, s:f, s:f, s:f}", "name", b->names[i], "bytes", bytes, "share",
                                               share(e + o, experts + others), "experts", share(e, experts), "others",
                                               share(o, others)));
    }
    json_t *all = json_pack(
        "{s:I, s:I, s:I, s:i, s:f, s:f, s:I, s:o, s:o}", "tokens", (json_int_t)b->trace.tokens, "passes", (json_int_t)r->passes,
        "unit", (json_int_t)b->options.unit, "slots", b->options.slots, "expert_bytes_read", experts, "other_bytes_read", others,
        "weights", (json_int_t)r->weights, "nearest_distance",
        r->nearest_distance != DM_FIRST_USE ? json_integer((json_int_t)r->nearest_distance) : json_null(), "tiers", tiers);
    json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
    printf("\n");
    json_decref(all);
}

/* ---- The program ---- */

static bool read_option(bench *b, const char *name, const char *value) {
    if (strcmp(name, "--tier") == 0) {
        return add_given_cache(b, value);
    }
    if (strcmp(name, "--unit") == 0) {
        b->options.unit = read_size(value);
        return b->options.unit > 0;
    }
    uint64_t slots = read_size(value);
    b->options.slots = slots <= INT32_MAX ? (int32_t)slots : 0;
    return strcmp(name, "--slots") == 0 && b->options.slots > 0;
}

/* False where the arguments (NULL ends them) are not understood. */
static bool read_arguments(bench *b, char *const *arguments) {
    const char *text;
    while ((text = *arguments++) != NULL) {
        if (strcmp(text, "--json") == 0) {
            b->json = true;
        } else if (text[0] != '-' && b->trace_path == NULL) {
            *(b->model_path == NULL ? &b->model_path : &b->trace_path) = text;
        } else if (text[0] != '-' || *arguments == NULL || !read_option(b, text, *arguments++)) {
            return false;
        }
    }
    return b->trace_path != NULL;
}

static dm_status measure(bench *b, const dm_model *model) {
    dm_served result;
    DM_TRY(dm_trace_read(b->trace_path, &b->trace));
    DM_TRY(measure_model(b, model));
    strcpy(b->names[b->options.caches], "memory");
    strcpy(b->names[b->options.caches + 1], "disk");
    DM_TRY(dm_served_count(&b->trace, &b->weights, &b->options, &result));
    (b->json ? print_json : print_text)(b, &result);
    return DM_OK;
}

int main(int argc, char **argv) {
    static bench b = {.options.unit = 4096};
    dm_status status = add_own_caches(&b);
    if (argc < 1 || !read_arguments(&b, argv + 1)) {
        fprintf(stderr, "usage: dm-bench-tiers MODEL TRACE [--tier NAME=BYTES].. [--slots N] [--unit BYTES] [--json]\n"
                        "BYTES may end in K, M or G; --tier L3=32M is another size for a cache of this machine\n");
        return 2;
    }
    dm_model *model = NULL;
    status = status == DM_OK ? dm_model_open(b.model_path, &model) : status;
    if (status == DM_OK && model != NULL) {
        status = measure(&b, model);
    }
    dm_trace_free(&b.trace);
    dm_model_close(model);
    dm_served_weights_free(&b.weights);
    if (status != DM_OK) {
        fprintf(stderr, "dm-bench-tiers: %s\n", dm_error_message());
        return 1;
    }
    return 0;
}
