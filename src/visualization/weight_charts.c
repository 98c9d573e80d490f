/* Types and sizes of a model's tensors, layer by layer. */
#include <math.h>

#include "base/memory.h"
#include "visualization/grid.h"
#include "visualization/parts.h"

enum { MOST_TYPES = DM_CHART_SERIES, TYPE_NAMES = 64, OUTSIDE = DM_GRID_LAYERS /* the row of what is in no layer */ };

typedef struct weights {
    size_t layers, types;
    dm_type type[MOST_TYPES]; /* those that hold most; the last stands for all others where there are more */
    dm_grid bits;
    double bytes[DM_GRID_LAYERS + 1][MOST_TYPES];
    double values[(DM_GRID_LAYERS + 1) * MOST_TYPES]; /* [layers + 1, types] MB */
    char texts[DM_GRID_LAYERS][DM_NUMBER_TEXT];
    const char *labels[DM_GRID_LAYERS + 1];
} weights;

/* The place of a type among those that have a colour. */
static size_t type_index(const weights *w, dm_type type) {
    size_t t = 0;
    while (t + 1 < w->types && w->type[t] != type) {
        t++;
    }
    return t;
}

typedef struct type_bytes {
    dm_type type;
    uint64_t bytes;
} type_bytes;

/* Types by the bytes that they hold. */
static void order_types(const dm_gguf *file, weights *w) {
    type_bytes all[TYPE_NAMES] = {{0}};
    size_t n = 0;
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        size_t t = 0;
        while (t < n && all[t].type != tensor->type) {
            t++;
        }
        n += t == n && n < TYPE_NAMES;
        t = t < n ? t : n - 1;
        all[t].type = tensor->type;
        all[t].bytes += tensor->bytes;
        for (; t > 0 && all[t].bytes > all[t - 1].bytes; t--) {
            const type_bytes other = all[t];
            all[t] = all[t - 1];
            all[t - 1] = other;
        }
    }
    w->types = n < MOST_TYPES ? n : MOST_TYPES;
    for (size_t t = 0; t < w->types; t++) {
        w->type[t] = all[t].type;
    }
}

/* Vectors, which stay as they are whatever becomes of matrices, would set the scale of bits. */
static void collect(const dm_gguf *file, weights *w) {
    order_types(file, w);
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        size_t row = OUTSIDE;
        char kind[DM_GRID_NAME];
        if (dm_grid_split(tensor->name, &row, kind)) {
            w->layers = row + 1 > w->layers ? row + 1 : w->layers;
        }
        if (tensor->dims[1] > 1) {
            dm_grid_add(&w->bits, tensor->name, 8.0 * (double)tensor->bytes, (double)tensor->elements,
                        dm_type_name((uint32_t)tensor->type));
        }
        w->bytes[row][type_index(w, tensor->type)] += (double)tensor->bytes;
    }
}

static void draw_bytes(dm_page *page, weights *w) {
    char note[128];
    for (size_t l = 0; l <= w->layers; l++) {
        const bool outside = l == w->layers;
        for (size_t t = 0; t < w->types; t++) {
            w->values[l * w->types + t] = 1e-6 * w->bytes[outside ? OUTSIDE : l][t];
        }
        w->labels[l] = "outside";
        if (!outside) {
            snprintf(w->texts[l], sizeof w->texts[l], "%zu", l);
            w->labels[l] = w->texts[l];
        }
    }
    snprintf(note, sizeof note, "%s %s. Outside: embeddings, output and what else is in no layer.",
             w->types > 1 ? "Most is" : "All is", dm_type_name((uint32_t)w->type[0]));
    dm_bar_chart chart = {{&dm_bar_chart_kind, "bytes", "Size of each layer, by type", note},
                          .row_name = "layer",
                          .value_name = "MB",
                          .rows = w->layers + 1,
                          .n_series = w->types,
                          .labels = w->labels,
                          .values = w->values,
                          .stacked = true};
    for (size_t t = 0; t < w->types; t++) {
        chart.series[t] = dm_type_name((uint32_t)w->type[t]);
    }
    dm_page_chart(page, &chart.head);
}

dm_status dm_part_weights(dm_page *page, const dm_gguf *file) {
    static const dm_chart bits = {NULL, "bits", "Bits per weight", "Of each kind of matrix in each layer, scales included."};
    weights *w = dm_alloc(1, sizeof *w);
    if (w == NULL) {
        return DM_ERR_MEMORY;
    }
    collect(file, w);
    if (w->layers == 0) {
        dm_page_leave_out(page, "Bits and bytes of layers",
                          "because no tensor is called as those of layers are (blk.0. and so on)");
    } else {
        dm_page_section(page, "weights", "The weights", "What is in the model's file.");
        dm_grid_draw(page, &w->bits, &bits, "bits per weight");
        draw_bytes(page, w);
    }
    dm_free(w);
    return page->status;
}
