/* Who would serve the weights that a text's tokens ask for: caches, memory, disk. */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "moe/replay.h"
#include "optimization/served_weights.h"
#include "visualization/parts.h"

enum { MOST_ROWS = DM_SERVED_CACHES + 2, POINTS = 17, UNIT = 4096 };

/* ---- Caches ---- */

/* The largest cache of each level, nearest first; names [MOST_ROWS]. */
static dm_served_options caches_of(const dm_topology *machine, const char **names) {
    dm_served_options how = {.unit = UNIT};
    for (size_t i = 0; i + 1 < machine->n_tiers && how.caches < DM_SERVED_CACHES; i++) { /* the last is main memory */
        const dm_tier *tier = &machine->tiers[i];
        bool larger = how.caches == 0 || tier->bytes >= how.bytes[how.caches - 1];
        bool first = i == 0 || machine->tiers[i - 1].level != tier->level;
        if (first && larger && tier->level > 0) {
            names[how.caches] = tier->name;
            how.bytes[how.caches++] = tier->bytes;
        }
    }
    names[how.caches] = "memory";
    return how;
}

static void draw_served(dm_page *page, const dm_served *served, const dm_served_options *how, const char *const *names) {
    double values[MOST_ROWS][2], experts = 0.0, others = 0.0;
    char note[512], size[DM_NUMBER_TEXT];
    const size_t rows = how->caches + 1;
    for (size_t i = 0; i < rows; i++) {
        experts += (double)served->experts.by[i];
        others += (double)served->others.by[i];
    }
    for (size_t i = 0; i < rows && experts + others > 0.0; i++) {
        values[i][0] = 100.0 * (double)served->experts.by[i] / (experts + others);
        values[i][1] = 100.0 * (double)served->others.by[i] / (experts + others);
    }
    dm_bytes_text((experts + others) / fmax((double)served->passes, 1.0), size);
    snprintf(
        note, sizeof note,
        "By LRU stack distance over units of %d bytes, every byte of which a token reads once: no hits by neighbourhood. A token "
        "reads %s of weights; all of them are in memory.",
        UNIT, size);
    const dm_bar_chart chart = {{&dm_bar_chart_kind, "served", "Where a decode's weights come from", note},
                                .row_name = "tier",
                                .value_name = "% of the bytes read",
                                .rows = rows,
                                .n_series = 2,
                                .labels = names,
                                .series = {"experts", "other weights"},
                                .values = &values[0][0],
                                .stacked = true};
    if (experts + others > 0.0) {
        dm_page_chart(page, &chart.head);
    }
}

static dm_status draw_caches(dm_page *page, const dm_model *model, const dm_trace *trace, const dm_topology *machine) {
    const char *names[MOST_ROWS];
    const dm_served_options how = caches_of(machine, names);
    dm_served_weights weights;
    dm_served served;
    DM_TRY(dm_served_weights_of(model, &weights));
    dm_status status = dm_served_count(trace, &weights, &how, &served);
    dm_served_weights_free(&weights);
    if (status == DM_OK) {
        draw_served(page, &served, &how, names);
    }
    return status == DM_OK ? page->status : status;
}

/* ---- Hits of experts by how many fit ---- */

static dm_status draw_hits(dm_page *page, const dm_trace *trace) {
    static const struct {
        const char *name;
        dm_eviction_rule rule;
    } policies[] = {{"lru: longest unused goes", {.policy = DM_EVICT_LRU}},
                    {"lfu:64: least used goes", {.policy = DM_EVICT_LFU, .parameter = 64.0}},
                    {"optimum, knowing the future", {.policy = DM_EVICT_BELADY}}};
    enum { POLICIES = sizeof policies / sizeof *policies };
    double x[POINTS], hits[POLICIES][POINTS];
    const double asked = (double)dm_replay_asked(trace);
    const int32_t experts = trace->shape.experts;
    size_t n = 0;
    for (int32_t i = 1, last = 0; i < POINTS; i++) {
        int32_t slots = (int32_t)lround((double)i * experts / (POINTS - 1));
        if (slots <= last) {
            continue;
        }
        last = slots;
        x[n] = 100.0 * slots / experts;
        for (size_t p = 0; p < POLICIES; p++) {
            uint64_t misses;
            DM_TRY(dm_replay(trace, &policies[p].rule, false, slots, &misses));
            hits[p][n] = asked > 0.0 ? 100.0 * (1.0 - (double)misses / asked) : NAN;
        }
        n++;
    }
    dm_line_chart chart = {
        {&dm_line_chart_kind, "hits", "Hits, by how many experts memory holds",
         "The text's tokens one by one, the model's own choice, as many places in each layer. An expert's first use "
         "is no hit."},
        .x_name = "% of the experts that fit",
        .y_name = "% of the experts asked for that are there",
        .from_zero = true,
        .n = n,
        .n_series = POLICIES,
        .x = x};
    for (size_t p = 0; p < POLICIES; p++) {
        chart.series[p] = (dm_series){policies[p].name, hits[p]};
    }
    dm_page_chart(page, &chart.head);
    return page->status;
}

/* ---- What topology measured ---- */

static void draw_bandwidths(dm_page *page, const dm_topology *machine) {
    const char *labels[MOST_ROWS];
    double bandwidths[MOST_ROWS][2], latencies[MOST_ROWS];
    size_t rows = 0;
    for (size_t i = 0; i < machine->n_tiers && rows < MOST_ROWS; i++) {
        const dm_tier *tier = &machine->tiers[i];
        if (isfinite(tier->bandwidth_gb_s) || isfinite(tier->total_bandwidth_gb_s)) {
            labels[rows] = tier->name;
            bandwidths[rows][0] = tier->bandwidth_gb_s;
            bandwidths[rows][1] = tier->total_bandwidth_gb_s;
            latencies[rows++] = tier->latency_ns;
        }
    }
    if (rows == 0) {
        dm_page_leave_out(page, "Speed of caches and memory",
                          "because they were not measured here yet: `dilmodeli topology` does, and "
                          "keeps its figures");
        return;
    }
    const dm_bar_chart bandwidth = {
        {&dm_bar_chart_kind, "bandwidth", "Speed of each tier of memory", "Measured by dilmodeli topology on this machine."},
        .row_name = "tier",
        .value_name = "GB/s",
        .rows = rows,
        .n_series = 2,
        .labels = labels,
        .series = {"one thread", "all threads"},
        .values = &bandwidths[0][0]};
    dm_page_chart(page, &bandwidth.head);
    const dm_bar_chart latency = {{&dm_bar_chart_kind, "latency", "Time of one read of each tier",
                                   "A read whose address the one before it told, on one thread; measured likewise."},
                                  .row_name = "tier",
                                  .value_name = "nanoseconds",
                                  .rows = rows,
                                  .n_series = 1,
                                  .labels = labels,
                                  .series = {"latency"},
                                  .values = latencies};
    dm_page_chart(page, &latency.head);
}

dm_status dm_part_tiers(dm_page *page, const dm_model *model, const dm_trace *trace) {
    dm_topology machine;
    DM_TRY(dm_topology_measure(&(dm_topology_options){.kept_only = true}, &machine));
    dm_page_section(
        page, "tiers", "Caches, memory and hits",
        "Which tier of this machine's memory would serve the weights that the text's tokens read, and how many experts must "
        "be in memory for how many hits.");
    dm_status status = draw_caches(page, model, trace, &machine);
    if (status == DM_OK) {
        status = draw_hits(page, trace);
    }
    if (status == DM_OK) {
        draw_bandwidths(page, &machine);
        status = page->status;
    }
    dm_topology_free(&machine);
    return status;
}
