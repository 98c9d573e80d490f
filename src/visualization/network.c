/* Points and their neighbours. */
#include <math.h>

#include "visualization/markup.h"
#include "visualization/svg.h"

enum { SIDE = 370 /* of the square that points lie in */, LABELS = 96 /* points beyond which there is no room for numbers */ };

static double sum_of(const dm_network *w) {
    double sum = 0.0;
    for (size_t i = 0; w->sizes != NULL && i < w->n; i++) {
        sum += w->sizes[i];
    }
    return sum;
}

/* Circles whose areas sum up to a share of the square, so that they rarely touch. `sum` is that of the sizes. */
static double radius_of(const dm_network *w, size_t i, double sum) {
    double mean = 0.14 * SIDE * SIDE / (3.14159265 * (double)w->n);
    double size = w->sizes != NULL && sum > 0.0 ? w->sizes[i] * (double)w->n / sum : 1.0;
    return fmin(fmax(sqrt(mean * size), 2.0), 24.0);
}

static double place_x(const dm_network *w, size_t i) {
    return (DM_CHART_WIDTH - SIDE) / 2.0 + SIDE * (double)w->places[2 * i];
}

static double place_y(const dm_network *w, size_t i) {
    return DM_SVG_TITLE + 26 + SIDE * (double)w->places[2 * i + 1];
}

static bool links_to(const dm_network *w, size_t from, size_t to) {
    for (size_t j = 0; j < w->links; j++) {
        if (w->linked[from * w->links + j] == (int32_t)to) {
            return true;
        }
    }
    return false;
}

/* A tie that both have is drawn once, and stronger. */
static void draw_links(const dm_network *w, FILE *out) {
    for (size_t i = 0; i < w->n; i++) {
        for (size_t j = 0; j < w->links; j++) {
            int32_t other = w->linked[i * w->links + j];
            if (other < 0) {
                continue;
            }
            bool both = links_to(w, (size_t)other, i);
            if (!both || (size_t)other > i) {
                fprintf(out, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", both ? "tie both" : "tie", place_x(w, i),
                        place_y(w, i), place_x(w, (size_t)other), place_y(w, (size_t)other));
            }
        }
    }
}

static void draw_node(const dm_network *w, size_t i, double sum, FILE *out) {
    char text[DM_NUMBER_TEXT];
    const double x = place_x(w, i), y = place_y(w, i), radius = radius_of(w, i, sum);
    snprintf(text, sizeof text, "%zu", i);
    fprintf(out, "<g class=\"node\" data-node=\"%zu\"><circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", i, x, y, radius);
    if (w->n <= LABELS) {
        bool inside = radius > 0.5 * dm_svg_width(text) + 1;
        dm_svg_text(out, x, inside ? y + 4 : y - radius - 3, inside ? "number middle" : "number outside middle", text);
    }
    fputs("<title>", out);
    dm_markup_text(out, w->node_name);
    fprintf(out, " %zu\n", i);
    if (w->sizes != NULL) {
        dm_svg_fact(out, w->size_name, w->sizes[i]);
    }
    fputs("nearest:", out);
    for (size_t j = 0; j < w->links && w->linked[i * w->links + j] >= 0; j++) {
        fprintf(out, " %d", w->linked[i * w->links + j]);
    }
    fputs("</title></g>\n", out);
}

static void draw(const dm_chart *chart, const char *style, FILE *out) {
    const dm_network *w = (const dm_network *)(const void *)chart;
    char footer[128];
    snprintf(footer, sizeof footer, "area of a circle: %s", w->sizes != NULL ? w->size_name : "");
    dm_svg_begin(out, chart, DM_SVG_TITLE + 26 + SIDE + 48, style);
    draw_links(w, out);
    for (size_t i = 0; i < w->n; i++) {
        draw_node(w, i, sum_of(w), out);
    }
    dm_svg_text(out, DM_CHART_WIDTH / 2.0, DM_SVG_TITLE + 26 + SIDE + 40, "name middle",
                w->sizes != NULL ? footer : "circles of one size, as no loads are known");
    dm_svg_end(out);
}

static void tabulate(const dm_chart *chart, FILE *out) {
    const dm_network *w = (const dm_network *)(const void *)chart;
    dm_table_begin(out, chart->title);
    dm_table_head(out, w->node_name);
    if (w->sizes != NULL) {
        dm_table_head(out, w->size_name);
    }
    for (size_t j = 0; j < w->links; j++) {
        char text[DM_NUMBER_TEXT];
        snprintf(text, sizeof text, "neighbour %zu", j + 1);
        dm_table_head(out, text);
    }
    for (size_t i = 0; i < w->n; i++) {
        char text[DM_NUMBER_TEXT];
        snprintf(text, sizeof text, "%zu", i);
        dm_table_row(out);
        dm_table_label(out, text);
        if (w->sizes != NULL) {
            dm_table_number(out, w->sizes[i]);
        }
        for (size_t j = 0; j < w->links; j++) {
            int32_t other = w->linked[i * w->links + j];
            dm_table_number(out, other >= 0 ? other : NAN);
        }
    }
    dm_table_end(out);
}

const dm_chart_kind dm_network_kind = {draw, tabulate};
