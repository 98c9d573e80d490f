#include "cli/topology_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

/* ---- Text, in 80 columns ---- */

typedef struct word {
    char text[32];
} word;

/* "48 KiB", "23.5 GiB", or "unknown" for 0. */
static word size_word(uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double scaled = (double)bytes;
    size_t unit = 0;
    while (scaled >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        scaled /= 1024;
        unit++;
    }
    word out;
    snprintf(out.text, sizeof out.text, "%.*f %s", scaled < 100 && scaled != floor(scaled) ? 1 : 0, scaled, units[unit]);
    return bytes > 0 ? out : (word){"unknown"};
}

/* "?" for 0, as for all that nobody tells. */
static word count_word(int32_t count) {
    word out;
    snprintf(out.text, sizeof out.text, "%d", count);
    return count > 0 ? out : (word){"?"};
}

/* A figure with three digits and its unit, "-" for what was not measured. */
static word figure_word(double value, const char *unit) {
    word out;
    snprintf(out.text, sizeof out.text, "%.*f%s", value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2, value, unit);
    return isfinite(value) ? out : (word){"-"};
}

static word rate_word(double gb_s) {
    return gb_s < 0.995 ? figure_word(1e3 * gb_s, " MB/s") : figure_word(gb_s, " GB/s");
}

static word time_word(double us) {
    return us >= 9995 ? figure_word(1e-3 * us, " ms") : figure_word(us, " us");
}

static void print_processor(const dm_topology *t) {
    printf("processor   %.68s\n", t->processor[0] != '\0' ? t->processor : "unknown");
    printf("            packages %s, cores %s, hardware threads %s (usable here %s)\n", count_word(t->packages).text,
           count_word(t->cores).text, count_word(t->threads).text, count_word(t->usable_threads).text);
    printf("isa         %s%s%s\n", dm_isa(), t->features[0] != '\0' ? ", " : "", t->features);
}

static void print_tiers(const dm_topology *t) {
    char all[32];
    snprintf(all, sizeof all, "of %d", t->measured_threads);
    printf("tier        size      count  threads each    read by 1  %10s     latency\n", all);
    for (size_t i = 0; i < t->n_tiers; i++) {
        const dm_tier *tier = &t->tiers[i];
        printf("  %-9s %-10s %4s %13s %12s %11s %11s%s\n", tier->name, size_word(tier->bytes).text, count_word(tier->count).text,
               count_word(tier->shared_by).text, rate_word(tier->bandwidth_gb_s).text, rate_word(tier->total_bandwidth_gb_s).text,
               figure_word(tier->latency_ns, " ns").text, tier->huge_pages ? "" : " *");
    }
    bool small_pages = false;
    for (size_t i = 0; i < t->n_tiers; i++) {
        small_pages = small_pages || (isfinite(t->tiers[i].latency_ns) && !t->tiers[i].huge_pages);
    }
    if (small_pages) {
        printf("            * without huge pages: walks through page tables are part of it\n");
    }
    if (t->n_tiers == 1) {
        printf("            caches are unknown: the system tells nothing about them\n");
    }
}

static void print_nodes(const dm_topology *t) {
    for (size_t i = 0; i < t->n_nodes; i++) {
        printf("%-11s node %d: %s, local to %d hardware threads\n", i == 0 ? "numa" : "", t->nodes[i].node,
               size_word(t->nodes[i].bytes).text, t->nodes[i].threads);
    }
    if (t->n_nodes == 0) {
        printf("numa        unknown\n");
    }
}

static void print_memory(const dm_memory *m) {
    printf("memory      %s, %s available, ", size_word(m->total).text, size_word(m->available).text);
    if (m->limit > 0) {
        printf("%s usable here\n            control group: %s of %s in use\n", size_word(m->usable).text,
               m->used > 0 ? size_word(m->used).text : "nothing", size_word(m->limit).text);
    } else {
        printf("no limit of a control group\n");
    }
}

static void print_huge_pages(const dm_huge_pages *h) {
    printf("huge pages  transparent: %s (defrag %s), %s\n", h->enabled[0] != '\0' ? h->enabled : "unknown",
           h->defrag[0] != '\0' ? h->defrag : "unknown", size_word(h->bytes).text);
    for (int32_t i = 0; i < h->n_pools; i++) {
        printf("            reserved: %llu of %s, %llu of them free\n", (unsigned long long)h->pools[i].total,
               size_word(h->pools[i].bytes).text, (unsigned long long)h->pools[i].free);
    }
}

static void print_disk(const dm_disk *d) {
    printf("disk        %s\n", d->path[0] != '\0' ? d->path : "none");
    if (d->path[0] != '\0') {
        printf("            %s, device %s\n", d->filesystem, d->device);
    }
    if (d->problem[0] != '\0') {
        printf("            not measured: %s\n", d->problem);
        return;
    }
    printf("            %s in sequence, %s for %s anywhere, %s for 4 KiB\n", rate_word(d->bandwidth_gb_s).text,
           time_word(d->read_us).text, size_word(d->read_bytes).text, time_word(d->page_us).text);
    printf("            over %s, past the page cache%s\n", size_word(d->file_bytes).text,
           d->direct ? " (O_DIRECT)" : " as far as it lets go of pages");
}

static void print_origin(const dm_topology *t) {
    char date[32] = "at an unknown time";
    time_t at = (time_t)t->measured_at;
    struct tm local;
    if (localtime_r(&at, &local) != NULL) {
        strftime(date, sizeof date, "%Y-%m-%d %H:%M", &local);
    }
    printf("measured    %s%s\n", date, t->measured ? "" : " (--refresh measures again)");
    if (t->note[0] != '\0') {
        printf("            %s\n", t->note);
    } else {
        printf("            kept in %s\n", t->kept);
    }
}

void topology_print_text(const dm_topology *t) {
    print_processor(t);
    print_tiers(t);
    print_nodes(t);
    print_memory(&t->memory);
    print_huge_pages(&t->huge_pages);
    print_disk(&t->disk);
    print_origin(t);
}

/* ---- JSON: what is unknown or was not measured is null ---- */

static json_t *count_or_null(uint64_t value) {
    return value > 0 ? json_integer((json_int_t)value) : json_null();
}

static json_t *text_or_null(const char *text) {
    return text[0] != '\0' ? cli_json_text(text, strlen(text)) : json_null();
}

static json_t *json_tiers(const dm_topology *t) {
    json_t *array = json_array();
    for (size_t i = 0; i < t->n_tiers; i++) {
        const dm_tier *tier = &t->tiers[i];
        json_array_append_new(array, json_pack("{s:s, s:o, s:o, s:o, s:{s:o, s:o}, s:o, s:b}", "name", tier->name, "bytes",
                                               count_or_null(tier->bytes), "shared_by", count_or_null((uint64_t)tier->shared_by),
                                               "count", count_or_null((uint64_t)tier->count), "bandwidth_gb_s", "one_thread",
                                               cli_json_figure(tier->bandwidth_gb_s), "all_threads",
                                               cli_json_figure(tier->total_bandwidth_gb_s), "latency_ns",
                                               cli_json_figure(tier->latency_ns), "huge_pages", tier->huge_pages));
    }
    return array;
}

static json_t *json_nodes(const dm_topology *t) {
    json_t *array = json_array();
    for (size_t i = 0; i < t->n_nodes; i++) {
        json_array_append_new(array, json_pack("{s:i, s:o, s:i}", "node", t->nodes[i].node, "bytes",
                                               count_or_null(t->nodes[i].bytes), "threads", t->nodes[i].threads));
    }
    return array;
}

static json_t *json_disk(const dm_disk *d) {
    bool measured = d->problem[0] == '\0';
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "path", text_or_null(d->path), "device",
                     text_or_null(d->device), "filesystem", text_or_null(d->filesystem), "problem", text_or_null(d->problem),
                     "direct", measured ? json_boolean(d->direct) : json_null(), "file_bytes", count_or_null(d->file_bytes),
                     "bandwidth_gb_s", cli_json_figure(d->bandwidth_gb_s), "read_bytes", count_or_null(d->read_bytes), "read_us",
                     cli_json_figure(d->read_us), "page_us", cli_json_figure(d->page_us));
}

static json_t *json_huge_pages(const dm_huge_pages *h) {
    json_t *pools = json_array();
    for (int32_t i = 0; i < h->n_pools; i++) {
        json_array_append_new(pools, json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)h->pools[i].bytes, "total",
                                               (json_int_t)h->pools[i].total, "free", (json_int_t)h->pools[i].free));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "enabled", text_or_null(h->enabled), "defrag", text_or_null(h->defrag), "bytes",
                     count_or_null(h->bytes), "reserved", pools);
}

/* A limit that leaves nothing makes 0 usable; without one, 0 is unknown. */
static json_t *json_memory(const dm_memory *m) {
    json_t *usable = m->limit > 0 ? json_integer((json_int_t)m->usable) : count_or_null(m->usable);
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "total", count_or_null(m->total), "available", count_or_null(m->available),
                     "limit", count_or_null(m->limit), "used", m->limit > 0 ? json_integer((json_int_t)m->used) : json_null(),
                     "usable", usable);
}

static json_t *json_features(const char *features) {
    json_t *array = json_array();
    for (size_t length; *features != '\0'; features += length + (features[length] == ' ')) {
        length = strcspn(features, " ");
        json_array_append_new(array, json_stringn(features, length));
    }
    return array;
}

void topology_print_json(const dm_topology *t) {
    json_t *object = json_pack("{s:o, s:o, s:o, s:o, s:i, s:i, s:s, s:o}", "processor", text_or_null(t->processor), "packages",
                               count_or_null((uint64_t)t->packages), "cores", count_or_null((uint64_t)t->cores), "threads",
                               count_or_null((uint64_t)t->threads), "usable_threads", t->usable_threads, "measured_threads",
                               t->measured_threads, "isa", dm_isa(), "features", json_features(t->features));
    json_object_set_new(object, "tiers", json_tiers(t));
    json_object_set_new(object, "numa", json_nodes(t));
    json_object_set_new(object, "memory", json_memory(&t->memory));
    json_object_set_new(object, "huge_pages", json_huge_pages(&t->huge_pages));
    json_object_set_new(object, "disk", json_disk(&t->disk));
    json_object_set_new(object, "measured", json_boolean(t->measured));
    json_object_set_new(object, "measured_at", json_integer(t->measured_at));
    json_object_set_new(object, "kept", text_or_null(t->kept));
    json_object_set_new(object, "note", text_or_null(t->note));
    cli_print_json(object);
}
