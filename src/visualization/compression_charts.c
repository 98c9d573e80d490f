/* What quantize or optimize reported: an object with as much of docs/report.md's keys as there is. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "visualization/grid.h"
#include "visualization/parts.h"

static const double MOST = 1e300; /* of a magnitude */

/* NaN for what is missing, no number, or none that can be drawn: these are sizes, times and shares. */
static double number_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    double number = json_is_number(value) ? json_number_value(value) : NAN;
    return number >= 0.0 && number <= MOST ? number : NAN;
}

static double first_of(const json_t *object, const char *const *keys) {
    double number = NAN;
    for (; *keys != NULL && isnan(number); keys++) {
        number = number_of(object, *keys);
    }
    return number;
}

/* ---- Before and after ---- */

typedef struct measure {
    const char *name, *title, *note, *value_name;
    const char *const *keys;    /* of the objects before and after, in order of preference; NULL ends them */
    const char *before, *after; /* or of the report itself; NULL: none */
    double scale;
} measure;

static const char *const size_keys[] = {"bytes", "file_bytes", "model_bytes", NULL};
static const char *const memory_keys[] = {"peak_rss_bytes", "memory_bytes", "resident_bytes", NULL};
static const char *const decode_keys[] = {"decode_tps", NULL};
static const char *const prefill_keys[] = {"prefill_tps", NULL};
static const char *const perplexity_keys[] = {"perplexity", NULL};
static const char *const bits_keys[] = {"bpw", "bits_per_weight", NULL};

static const measure measures[] = {
    {"compressed-size", "Size of the file", "Of the model's files.", "MB", size_keys, "bytes_in", "bytes_out", 1e-6},
    {"compressed-bits", "Bits per weight", "Of all weights, scales included.", "bits per weight", bits_keys, "bpw_in", "bpw",
     1.0},
    {"compressed-memory", "Memory in use", "Of a process that runs the model.", "MB", memory_keys, NULL, NULL, 1e-6},
    {"compressed-decode", "Speed of decoding", "Tokens one by one.", "tokens per second", decode_keys, NULL, NULL, 1.0},
    {"compressed-prefill", "Speed of reading a prompt", "Tokens of a prompt, together.", "tokens per second", prefill_keys, NULL,
     NULL, 1.0},
    {"compressed-perplexity", "Perplexity", "Of the text that the command was given; lower is better.", "perplexity",
     perplexity_keys, "perplexity_in", "perplexity_out", 1.0},
};
enum { MEASURES = sizeof measures / sizeof *measures };

/* False where the report has neither. */
static bool draw_measure(dm_page *page, const json_t *report, const measure *m) {
    static const char *const labels[] = {"before", "after"};
    double values[2] = {first_of(json_object_get(report, "before"), m->keys),
                        first_of(json_object_get(report, "after"), m->keys)};
    values[0] = isnan(values[0]) && m->before != NULL ? number_of(report, m->before) : values[0];
    values[1] = isnan(values[1]) && m->after != NULL ? number_of(report, m->after) : values[1];
    if (isnan(values[0]) && isnan(values[1])) {
        return false;
    }
    char note[256], ratio[DM_NUMBER_TEXT];
    dm_number_text(100.0 * values[1] / values[0], ratio);
    snprintf(note, sizeof note, values[0] > 0.0 && !isnan(values[1]) ? "%s After is %s%% of before." : "%s", m->note, ratio);
    values[0] *= m->scale;
    values[1] *= m->scale;
    const dm_bar_chart chart = {{&dm_bar_chart_kind, m->name, m->title, note},
                                .row_name = "when",
                                .value_name = m->value_name,
                                .rows = 2,
                                .n_series = 1,
                                .labels = labels,
                                .series = {m->title},
                                .values = values};
    dm_page_chart(page, &chart.head);
    return true;
}

/* ---- Latency by kind of operation ---- */

/* "before": {"times": {"experts": seconds, ...}} and after, as bench reports a decoded token's. */
static void draw_times(dm_page *page, const json_t *report) {
    const json_t *times[2] = {json_object_get(json_object_get(report, "before"), "times"),
                              json_object_get(json_object_get(report, "after"), "times")};
    const char *labels[DM_OPERATIONS];
    double values[DM_OPERATIONS][2];
    size_t rows = 0;
    for (int i = 0; i < DM_OPERATIONS; i++) {
        const char *name = dm_operation_name((dm_operation)i);
        const double before = number_of(times[0], name), after = number_of(times[1], name);
        if (before > 0.0 || after > 0.0) {
            labels[rows] = name;
            values[rows][0] = 1e6 * before;
            values[rows++][1] = 1e6 * after;
        }
    }
    const dm_bar_chart chart = {{&dm_bar_chart_kind, "compressed-times", "Time of a decoded token", "By kind of operation."},
                                .row_name = "operation",
                                .value_name = "microseconds per token",
                                .rows = rows,
                                .n_series = 2,
                                .labels = labels,
                                .series = {"before", "after"},
                                .values = &values[0][0]};
    if (rows > 0) {
        dm_page_chart(page, &chart.head);
    }
}

/* ---- Tiles and errors ---- */

/* "tiles": {"0": 10, "2": 20, ...}, by bits; 0 is pruned. */
static void draw_tiles(dm_page *page, const json_t *report) {
    enum { MOST_BITS = 16 };
    const json_t *tiles = json_object_get(report, "tiles");
    char texts[MOST_BITS + 1][DM_NUMBER_TEXT];
    const char *labels[MOST_BITS + 1];
    double values[MOST_BITS + 1];
    size_t rows = 0;
    for (int bits = 0; bits <= MOST_BITS; bits++) {
        snprintf(texts[rows], sizeof texts[rows], "%d", bits);
        values[rows] = number_of(tiles, texts[rows]);
        labels[rows] = bits > 0 ? texts[rows] : "pruned";
        rows += !isnan(values[rows]);
    }
    const dm_bar_chart chart = {
        {&dm_bar_chart_kind, "tiles", "Blocks by bits per weight", "How many of them the compression gave how many bits."},
        .row_name = "bits",
        .value_name = "blocks",
        .rows = rows,
        .n_series = 1,
        .labels = labels,
        .series = {"blocks"},
        .values = values};
    if (rows > 0) {
        dm_page_chart(page, &chart.head);
    }
}

static void draw_errors(dm_page *page, const json_t *report) {
    static const char *const keys[] = {"error_constructed", "error"}, *const labels[] = {"before the game", "after the game"};
    const double values[] = {number_of(report, keys[0]), number_of(report, keys[1])};
    const dm_bar_chart chart = {
        {&dm_bar_chart_kind, "predicted-error", "Predicted divergence", "From the model before, by its curvature."},
        .row_name = "when",
        .value_name = "nats per token",
        .rows = 2,
        .n_series = 1,
        .labels = labels,
        .series = {"divergence"},
        .values = values};
    if (!isnan(values[0]) || !isnan(values[1])) {
        dm_page_chart(page, &chart.head);
    }
}

/* ---- Tensors ---- */

/* "tensors": [{"name": "blk.0.ffn_up.weight", "bpw": 4.5, "pruned": 0.3, "elements": 1024}, ...] */
static void add_tensor(const json_t *tensor, dm_grid *bits, dm_grid *pruned) {
    static const char *const weight_keys[] = {"elements", "weights", NULL};
    const char *name = json_string_value(json_object_get(tensor, "name"));
    const double width = first_of(tensor, bits_keys), share = number_of(tensor, "pruned"), given = first_of(tensor, weight_keys);
    const double weight = given > 0.0 && given < 1e18 ? given : 1.0;
    if (name == NULL) {
        return;
    }
    if (width <= 64.0) {
        dm_grid_add(bits, name, width * weight, weight, json_string_value(json_object_get(tensor, "type")));
    }
    if (share <= 1.0) {
        dm_grid_add(pruned, name, 100.0 * share * weight, weight, NULL);
    }
}

/* grids: bits, pruned. */
static void draw_tensors(dm_page *page, const json_t *report, dm_grid *grids) {
    static const dm_chart bits = {NULL, "compressed-matrices", "Bits per weight of each matrix",
                                  "As the compression chose them."};
    static const dm_chart pruned = {NULL, "pruned", "Pruned blocks of each matrix", "Share of the blocks that became 0."};
    const json_t *tensors = json_object_get(report, "tensors");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        add_tensor(json_array_get(tensors, i), &grids[0], &grids[1]);
    }
    if (grids[0].kinds == 0 && grids[1].kinds == 0) {
        dm_page_leave_out(page, "Bits and pruned blocks of each layer", "because the report tells nothing of single tensors");
    }
    dm_grid_draw(page, &grids[0], &bits, "bits per weight");
    dm_grid_draw(page, &grids[1], &pruned, "% of blocks");
}

dm_status dm_part_compression(dm_page *page, const json_t *report) {
    dm_grid *grids = dm_alloc(2, sizeof *grids);
    if (grids == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_page_section(page, "compression", "Compression", "Before and after, as the command that compressed reported.");
    for (size_t i = 0; i < MEASURES; i++) {
        if (!draw_measure(page, report, &measures[i])) {
            dm_page_leave_out(page, measures[i].title, "because the report has none");
        }
    }
    draw_times(page, report);
    draw_tiles(page, report);
    draw_errors(page, report);
    draw_tensors(page, report, grids);
    dm_free(grids);
    return page->status;
}
