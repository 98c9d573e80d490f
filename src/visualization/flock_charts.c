/* The flock: experts by their keys, and tokens that move among them. */
#include <math.h>

#include "base/memory.h"
#include "core/flock.h"
#include "kernels/vector.h"
#include "kernels/weight.h"
#include "visualization/layout.h"
#include "visualization/parts.h"

enum { NEIGHBOURS = 7 /* Ballerini et al. 2008 */, MOST_LAYERS = 4, SEED = 7, MOST_MOVES = 400 /* tokens of the animation */ };

/* One layer's picture; arrays by expert. */
typedef struct flock {
    size_t experts, dim;
    float *keys;    /* [experts, dim] of length 1 */
    float *places;  /* [experts, 2] */
    int32_t *near;  /* [experts, NEIGHBOURS + 1], with the expert itself somewhere */
    float *scores;  /* likewise */
    int32_t *ties;  /* [experts, NEIGHBOURS] */
    double *shares; /* [experts] */
} flock;

static void free_flock(flock *f) {
    dm_free(f->keys);
    dm_free(f->places);
    dm_free(f->near);
    dm_free(f->scores);
    dm_free(f->ties);
    dm_free(f->shares);
}

static dm_status make_flock(const dm_model *model, flock *f) {
    *f = (flock){.experts = (size_t)model->config.n_experts, .dim = (size_t)model->config.dim};
    f->keys = dm_alloc(f->experts * f->dim, sizeof *f->keys);
    f->places = dm_alloc(f->experts * 2, sizeof *f->places);
    f->near = dm_alloc(f->experts * (NEIGHBOURS + 1), sizeof *f->near);
    f->scores = dm_alloc(f->experts * (NEIGHBOURS + 1), sizeof *f->scores);
    f->ties = dm_alloc(f->experts * NEIGHBOURS, sizeof *f->ties);
    f->shares = dm_alloc(f->experts, sizeof *f->shares);
    if (f->keys == NULL || f->places == NULL || f->near == NULL || f->scores == NULL || f->ties == NULL || f->shares == NULL) {
        free_flock(f);
        return DM_ERR_MEMORY;
    }
    return DM_OK;
}

/* Keys as directions: their lengths say how often an expert is wanted, not what it is like. One that is not finite is no
 * direction. */
static void read_keys(const dm_tensor *router, flock *f) {
    const dm_weight weight = {.data = router->data, .type = router->type, .rows = f->experts, .columns = f->dim};
    dm_weight_widen(f->keys, &weight);
    for (size_t e = 0; e < f->experts; e++) {
        float *key = f->keys + e * f->dim;
        double square = 0.0;
        for (size_t d = 0; d < f->dim; d++) {
            square += (double)key[d] * (double)key[d];
        }
        for (size_t d = 0; d < f->dim; d++) {
            key[d] = square > 0.0 && isfinite(square) ? (float)((double)key[d] / sqrt(square)) : 0.0f;
        }
    }
}

/* The nearest by the cosine of keys, the expert itself left out. */
static void find_ties(flock *f) {
    const dm_keys keys = {f->keys, f->experts, f->dim, dm_vector()->dot};
    dm_flock_exact(&keys, f->keys, f->experts, NEIGHBOURS + 1, 1, f->near, f->scores);
    for (size_t e = 0; e < f->experts; e++) {
        size_t count = 0;
        for (size_t j = 0; j <= NEIGHBOURS; j++) {
            int32_t other = f->near[e * (NEIGHBOURS + 1) + j];
            if (other != (int32_t)e && count < NEIGHBOURS) {
                f->ties[e * NEIGHBOURS + count++] = other;
            }
        }
    }
}

/* False where nobody knows. Shares of what the layer's experts were chosen for. */
static bool find_shares(const dm_trace *trace, const dm_run_metrics *metrics, size_t layer, flock *f) {
    double sum = 0.0;
    for (size_t e = 0; e < f->experts; e++) {
        f->shares[e] = 0.0;
    }
    if (trace != NULL) {
        for (size_t pass = 0; pass < trace->passes; pass++) {
            size_t at = pass * (size_t)trace->shape.layers + layer;
            for (size_t i = trace->starts[at]; i < trace->starts[at + 1]; i++) {
                f->shares[trace->experts[i]] += 1.0;
            }
        }
    } else if (metrics != NULL && metrics->n_loads > 0 && (size_t)metrics->experts == f->experts &&
               layer < (size_t)metrics->layers) {
        for (size_t e = 0; e < f->experts; e++) {
            f->shares[e] = (double)metrics->loads[metrics->n_loads - 1].tokens[layer * f->experts + e];
        }
    }
    for (size_t e = 0; e < f->experts; e++) {
        sum += f->shares[e];
    }
    for (size_t e = 0; e < f->experts && sum > 0.0; e++) {
        f->shares[e] *= 100.0 / sum;
    }
    return sum > 0.0;
}

static dm_status draw_layer(dm_page *page, const dm_model *model, size_t layer, const dm_trace *trace,
                            const dm_run_metrics *metrics, flock *f) {
    char name[64], title[64];
    read_keys(&model->layers[layer].tensors[DM_FFN_ROUTER], f);
    find_ties(f);
    DM_TRY(dm_layout(f->keys, f->experts, f->dim, SEED, f->places));
    bool known = find_shares(trace, metrics, layer, f);
    dm_name_with(name, sizeof name, "flock-layer", layer);
    snprintf(title, sizeof title, "The flock of layer %zu", layer);
    const dm_network chart = {
        {&dm_network_kind, name, title,
         "Experts that are near have keys (rows of the router) that point the same way. Each is tied to its 7 "
         "nearest; ties that go both ways are stronger."},
        .node_name = "expert",
        .size_name = "share of the choices, %",
        .n = f->experts,
        .links = NEIGHBOURS,
        .places = f->places,
        .sizes = known ? f->shares : NULL,
        .linked = f->ties};
    dm_page_chart(page, &chart.head);
    return page->status;
}

/* ---- Tokens on their way ---- */

static void write_tokens(FILE *out, const dm_run_over *run, size_t n) {
    fputs("{\"tokens\":[", out);
    for (size_t t = 0; t < n; t++) {
        size_t length = 0;
        const char *bytes = dm_tokenizer_bytes(run->tokenizer, run->ids[t], &length);
        fputs(t > 0 ? "," : "", out);
        dm_markup_json(out, length > 0 ? bytes : "\xc2\xb7", length > 0 ? length : 2); /* a dot for tokens without text */
    }
    fputs("],\n\"layers\":[", out);
}

static void write_layer(FILE *out, const dm_trace *trace, size_t layer, size_t n) {
    fprintf(out, "{\"chart\":\"flock-layer-%zu\",\"experts\":[", layer);
    for (size_t t = 0; t < n; t++) {
        size_t at = t * (size_t)trace->shape.layers + layer;
        fputs(t > 0 ? ",[" : "[", out);
        for (size_t i = trace->starts[at]; i < trace->starts[at + 1]; i++) {
            fprintf(out, "%s%d", i > trace->starts[at] ? "," : "", trace->experts[i]);
        }
        fputc(']', out);
    }
    fputs("]}", out);
}

/* What the page's script plays. */
static void write_flight(dm_page *page, const dm_run_over *run, const dm_trace *trace, const size_t *layers, size_t shown) {
    const size_t n = trace->passes < MOST_MOVES ? trace->passes : MOST_MOVES;
    FILE *out = dm_page_body(page);
    if (page->status != DM_OK || n == 0) {
        return;
    }
    fputs("<div class=\"flight\"><script type=\"application/json\">", out);
    write_tokens(out, run, n);
    for (size_t i = 0; i < shown; i++) {
        fputs(i > 0 ? ",\n" : "", out);
        write_layer(out, trace, layers[i], n);
    }
    fputs("]}</script></div>\n", out);
}

/* The first, the last and some between. */
static size_t pick_layers(const dm_model *model, size_t layers[MOST_LAYERS]) {
    const size_t all = (size_t)model->config.n_layers, n = all < MOST_LAYERS ? all : MOST_LAYERS;
    for (size_t i = 0; i < n; i++) {
        layers[i] = dm_pick(i, n, all);
    }
    return n;
}

static dm_status draw_all(dm_page *page, const dm_model *model, const dm_run_over *run, const dm_trace *trace,
                          const dm_run_metrics *metrics) {
    size_t layers[MOST_LAYERS], shown = pick_layers(model, layers);
    flock f;
    DM_TRY(make_flock(model, &f));
    dm_page_section(page, "flock", "The flock",
                    trace != NULL
                        ? "Experts by their keys; below, the text that the model read: each token flies to the expert that it "
                          "wants most, and those that it uses are lit."
                        : "Experts by their keys.");
    if (trace != NULL) {
        write_flight(page, run, trace, layers, shown);
    } else {
        dm_page_leave_out(page, "Tokens that move over the flock", "because there was no text to run over (--data)");
    }
    dm_status status = page->status;
    for (size_t i = 0; i < shown && status == DM_OK; i++) {
        status = draw_layer(page, model, layers[i], trace, metrics, &f);
    }
    free_flock(&f);
    return status;
}

dm_status dm_part_flock(dm_page *page, const dm_model *model, const dm_run_over *run, const dm_trace *trace,
                        const dm_run_metrics *metrics) {
    if (model->config.n_experts < 2) {
        dm_page_leave_out(page, "The flock", "because the model has no experts");
        return page->status;
    }
    if (model->config.n_experts > DM_LAYOUT_MOST) {
        dm_page_leave_out(page, "The flock", "because %d experts are too many for a picture of at most %d",
                          model->config.n_experts, DM_LAYOUT_MOST);
        return page->status;
    }
    return draw_all(page, model, run, trace, metrics);
}
