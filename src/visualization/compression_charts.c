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

/* ---- Before and after ---- */

typedef struct measure {
    const char *name, *title, *note, *value_name;
    const char *key;            /* of the objects before and after */
    const char *before, *after; /* or of the report itself; NULL: none */
    double scale;
} measure;

static const measure measures[] = {
    {"compressed-size", "Size of the file", "Of the model's files.", "MB", "bytes", "bytes_in", "bytes_out", 1e-6},
    {"compressed-bits", "Bits per weight", "Of all weights, scales included.", "bits per weight", "bpw", "bpw_in", "bpw", 1.0},
    {"compressed-memory", "Memory in use", "Weights, keys and values, and scratch.", "MB", "memory_bytes", NULL, NULL, 1e-6},
    {"compressed-decode", "Speed of decoding", "Tokens one by one.", "tokens per second", "decode_tps", NULL, NULL, 1.0},
    {"compressed-prefill", "Speed of reading a prompt", "Tokens of a prompt, together.", "tokens per second", "prefill_tps", NULL,
     NULL, 1.0},
    {"compressed-perplexity", "Perplexity", "Of the text that the command was given; lower is better.", "perplexity",
     "perplexity", "perplexity_in", "perplexity_out", 1.0},
};
enum { MEASURES = sizeof measures / sizeof *measures };

/* False where the report has neither. */
static bool draw_measure(dm_page *page, const json_t *report, const measure *m) {
    static const char *const labels[] = {"before", "after"};
    double values[2] = {number_of(json_object_get(report, "before"), m->key),
                        number_of(json_object_get(report, "after"), m->key)};
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
    static const char *const labels[] = {"before the game", "after the game"};
    const double values[] = {number_of(report, "error_before"), number_of(report, "error_after")};
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

/* ---- Matrices ---- */

/* Share of the tiles that were pruned; NaN where it is not told, or there are none. */
static double pruned_share(const json_t *tiles) {
    const char *bits;
    json_t *count;
    double all = 0.0;
    json_object_foreach((json_t *)(uintptr_t)tiles, bits, count) {
        all += number_of(tiles, bits);
    }
    return number_of(tiles, "0") / all;
}

/* "matrices": [{"name": "blk.0.ffn_up.weight", "rows": 64, "columns": 64, "bytes": 2304, "tiles": {"0": 1, "4": 7}}, ...] */
static void add_matrix(const json_t *matrix, dm_grid *bits, dm_grid *pruned) {
    const char *name = json_string_value(json_object_get(matrix, "name"));
    const double weights = number_of(matrix, "rows") * number_of(matrix, "columns");
    const double width = 8.0 * number_of(matrix, "bytes") / weights, share = pruned_share(json_object_get(matrix, "tiles"));
    if (name == NULL || !(weights >= 1.0 && weights < 1e18)) {
        return;
    }
    if (width <= 64.0) {
        dm_grid_add(bits, name, width * weights, weights, json_string_value(json_object_get(matrix, "type")));
    }
    if (share <= 1.0) {
        dm_grid_add(pruned, name, 100.0 * share * weights, weights, NULL);
    }
}

/* grids: bits, pruned. */
static void draw_matrices(dm_page *page, const json_t *report, dm_grid *grids) {
    static const dm_chart bits = {NULL, "compressed-matrices", "Bits per weight of each matrix",
                                  "As the compression chose them."};
    static const dm_chart pruned = {NULL, "pruned", "Pruned blocks of each matrix", "Share of the blocks that became 0."};
    const json_t *matrices = json_object_get(report, "matrices");
    for (size_t i = 0; i < json_array_size(matrices); i++) {
        add_matrix(json_array_get(matrices, i), &grids[0], &grids[1]);
    }
    if (grids[0].kinds == 0 && grids[1].kinds == 0) {
        dm_page_leave_out(page, "Bits and pruned blocks of each layer", "because the report tells nothing of single matrices");
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
    draw_matrices(page, report, grids);
    dm_free(grids);
    return page->status;
}
