/* Types and sizes of a model's tensors, layer by layer. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/table.h"
#include "visualization/parts.h"

enum { MOST_LAYERS = 512, MOST_KINDS = 32, MOST_TYPES = DM_CHART_SERIES, NAME = 64, LABEL = 24 };

/* All tensors of one kind, such as ffn_up_exps, in one layer. */
typedef struct cell {
    uint64_t elements, bytes;
    dm_type type;
    bool mixed; /* of several types */
} cell;

typedef struct weights {
    size_t layers, kinds, types;
    char names[MOST_KINDS][NAME];
    dm_type type[MOST_TYPES]; /* those that hold most; the last stands for all others where there are more */
    cell *cells;              /* [MOST_LAYERS, MOST_KINDS] */
    double *bytes;            /* [MOST_LAYERS + 1, MOST_TYPES] by type; what is outside the layers last */
    double *bits;             /* [layers, kinds] per weight */
    char (*texts)[NAME];      /* [layers, kinds] names of types */
    const char **text;        /* [layers, kinds] the same */
    char (*labels)[LABEL];    /* [MOST_LAYERS + 1] */
    const char **label;
} weights;

/* "blk.12.ffn_up.weight": layer 12, kind "ffn_up"; an expert's own number is left out. False for what is in no layer, and for
 * what no layer of a model is called. */
static bool split_name(const char *name, size_t *layer, char kind[NAME]) {
    char *end;
    if (strncmp(name, "blk.", 4) != 0 || isdigit((unsigned char)name[4]) == 0) {
        return false;
    }
    unsigned long number = strtoul(name + 4, &end, 10);
    if (*end != '.' || number >= MOST_LAYERS) {
        return false;
    }
    size_t used = 0;
    for (const char *at = end + 1; *at != '\0' && used + 1 < NAME; at++) {
        if (*at == '.' && (strcmp(at, ".weight") == 0 || isdigit((unsigned char)at[1]) != 0)) {
            break;
        }
        kind[used++] = *at;
    }
    kind[used] = '\0';
    *layer = number;
    return true;
}

/* MOST_KINDS where there are too many. */
static size_t kind_index(weights *w, const char *kind) {
    size_t k = 0;
    while (k < w->kinds && strcmp(w->names[k], kind) != 0) {
        k++;
    }
    if (k == w->kinds && k < MOST_KINDS) {
        memcpy(w->names[w->kinds++], kind, strlen(kind) + 1); /* both have NAME bytes */
    }
    return k;
}

static void add_to_cell(cell *c, const dm_gguf_tensor *tensor) {
    c->mixed = c->mixed || (c->elements > 0 && c->type != tensor->type);
    c->type = tensor->type;
    c->elements += tensor->elements;
    c->bytes += tensor->bytes;
}

/* Vectors, which stay as they are whatever becomes of matrices, would set the scale. False where there is no place. */
static bool add_matrix(weights *w, size_t layer, const char *kind, const dm_gguf_tensor *tensor) {
    if (tensor->dims[1] < 2) {
        return true;
    }
    size_t k = kind_index(w, kind);
    if (k < MOST_KINDS) {
        add_to_cell(&w->cells[layer * MOST_KINDS + k], tensor);
    }
    return k < MOST_KINDS;
}

/* The place of a type among those that have a colour. */
static size_t type_index(const weights *w, dm_type type) {
    size_t t = 0;
    while (t + 1 < w->types && w->type[t] != type) {
        t++;
    }
    return t;
}

/* Types by the bytes that they hold. */
static void order_types(const dm_gguf *file, weights *w) {
    struct {
        dm_type type;
        uint64_t bytes;
    } all[64] = {0}, other;
    size_t n = 0;
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        size_t t = 0;
        while (t < n && all[t].type != tensor->type) {
            t++;
        }
        n += t == n && n < sizeof all / sizeof *all;
        t = t < n ? t : n - 1;
        all[t].type = tensor->type;
        all[t].bytes += tensor->bytes;
        for (; t > 0 && all[t].bytes > all[t - 1].bytes; t--) {
            other = all[t];
            all[t] = all[t - 1];
            all[t - 1] = other;
        }
    }
    w->types = n < MOST_TYPES ? n : MOST_TYPES;
    for (size_t t = 0; t < w->types; t++) {
        w->type[t] = all[t].type;
    }
}

/* Returns how many tensors found no place. */
static size_t collect(const dm_gguf *file, weights *w) {
    size_t lost = 0;
    order_types(file, w);
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *tensor = dm_gguf_tensor_at(file, i);
        size_t layer, row = MOST_LAYERS;
        char kind[NAME];
        if (split_name(tensor->name, &layer, kind)) {
            w->layers = layer + 1 > w->layers ? layer + 1 : w->layers;
            row = layer;
            lost += !add_matrix(w, layer, kind, tensor);
        }
        w->bytes[row * MOST_TYPES + type_index(w, tensor->type)] += (double)tensor->bytes;
    }
    return lost;
}

/* ---- Drawing ---- */

/* Layers below, kinds aside: a model has more layers than kinds, and names need room. */
static void draw_bits(dm_page *page, weights *w, size_t lost) {
    const char *kinds[MOST_KINDS], *layers[MOST_LAYERS];
    char note[256];
    for (size_t k = 0; k < w->kinds; k++) {
        kinds[k] = w->names[k];
        for (size_t l = 0; l < w->layers; l++) {
            const cell *c = &w->cells[l * MOST_KINDS + k];
            size_t at = k * w->layers + l;
            w->bits[at] = c->elements > 0 ? 8.0 * (double)c->bytes / (double)c->elements : NAN;
            snprintf(w->texts[at], NAME, "%s", c->mixed ? "several types" : dm_type_name((uint32_t)c->type));
            w->text[at] = w->texts[at];
        }
    }
    for (size_t l = 0; l < w->layers; l++) {
        layers[l] = w->label[l];
    }
    snprintf(note, sizeof note,
             lost > 0 ? "Of each kind of matrix in each layer; %zu matrices of further kinds are not shown."
                      : "Of each kind of matrix in each layer, scales included.",
             lost);
    const dm_heat_map map = {{&dm_heat_map_kind, "bits", "Bits per weight", note},
                             .x_name = "layer",
                             .y_name = "matrix",
                             .value_name = "bits per weight",
                             .columns = w->layers,
                             .rows = w->kinds,
                             .column_labels = layers,
                             .row_labels = kinds,
                             .values = w->bits,
                             .texts = w->text};
    dm_page_chart(page, &map.head);
}

static void draw_bytes(dm_page *page, weights *w) {
    double *values = w->bytes; /* [layers + 1, types], packed in place */
    char note[128];
    memmove(w->bytes + w->layers * MOST_TYPES, w->bytes + (size_t)MOST_LAYERS * MOST_TYPES, MOST_TYPES * sizeof *w->bytes);
    for (size_t l = 0; l <= w->layers; l++) {
        for (size_t t = 0; t < w->types; t++) {
            values[l * w->types + t] = 1e-6 * w->bytes[l * MOST_TYPES + t];
        }
    }
    w->label[w->layers] = "outside";
    snprintf(note, sizeof note, "%s %s. Outside: embeddings, output and what else is in no layer.",
             w->types > 1 ? "Most is" : "All is", dm_type_name((uint32_t)w->type[0]));
    dm_bar_chart chart = {{&dm_bar_chart_kind, "bytes", "Size of each layer, by type", note},
                          .row_name = "layer",
                          .value_name = "MB",
                          .rows = w->layers + 1,
                          .n_series = w->types,
                          .labels = w->label,
                          .values = values,
                          .stacked = true};
    for (size_t t = 0; t < w->types; t++) {
        chart.series[t] = dm_type_name((uint32_t)w->type[t]);
    }
    dm_page_chart(page, &chart.head);
}

static void draw_all(dm_page *page, const dm_gguf *file, weights *w) {
    size_t lost = collect(file, w);
    for (size_t l = 0; l < w->layers; l++) {
        snprintf(w->labels[l], LABEL, "%zu", l);
        w->label[l] = w->labels[l];
    }
    if (w->layers == 0 || w->kinds == 0) {
        dm_page_leave_out(page, "Bits and bytes of layers",
                          "because no tensor is called as those of layers are (blk.0. and so on)");
        return;
    }
    dm_page_section(page, "weights", "The weights", "What is in the model's file.");
    draw_bits(page, w, lost);
    draw_bytes(page, w);
}

dm_status dm_part_weights(dm_page *page, const dm_gguf *file) {
    const size_t cells = (size_t)MOST_LAYERS * MOST_KINDS;
    weights *w = dm_alloc(1, sizeof *w);
    dm_status status = DM_ERR_MEMORY;
    if (w == NULL) {
        return status;
    }
    w->cells = dm_alloc(cells, sizeof *w->cells);
    w->bytes = dm_alloc((size_t)(MOST_LAYERS + 1) * MOST_TYPES, sizeof *w->bytes);
    w->bits = dm_alloc(cells, sizeof *w->bits);
    w->texts = dm_alloc(cells, NAME);
    w->text = dm_alloc(cells, sizeof(char *));
    w->labels = dm_alloc(MOST_LAYERS + 1, LABEL);
    w->label = dm_alloc(MOST_LAYERS + 1, sizeof(char *));
    if (w->cells != NULL && w->bytes != NULL && w->bits != NULL && w->texts != NULL && w->text != NULL && w->labels != NULL &&
        w->label != NULL) {
        draw_all(page, file, w);
        status = page->status;
    }
    dm_free(w->cells);
    dm_free(w->bytes);
    dm_free(w->bits);
    dm_free(w->texts);
    dm_free((void *)w->text);
    dm_free(w->labels);
    dm_free((void *)w->label);
    dm_free(w);
    return status;
}
