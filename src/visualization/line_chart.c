/* Lines over a common axis. */
#include <math.h>

#include "visualization/markup.h"
#include "visualization/svg.h"

enum { HEIGHT = 190 /* of the plot */, FEW = 40 /* points that get a marker each */ };

typedef struct plot {
    const dm_line_chart *chart;
    double left, right, top, bottom;
    dm_scale x, y;
} plot;

static size_t count_finite(const double *values, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += isfinite(values[i]);
    }
    return count;
}

static plot plot_of(const dm_line_chart *c, double top) {
    double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
    for (size_t s = 0; s < c->n_series; s++) {
        dm_range_of(c->series[s].values, c->n, c->logarithmic, &low, &high);
    }
    dm_range_of(c->x, c->n, false, &first, &last);
    plot p = {.chart = c, .top = top, .bottom = top + HEIGHT, .right = DM_CHART_WIDTH - 14};
    p.y = dm_scale_make(c->from_zero && low > 0.0 ? 0.0 : low, high, c->logarithmic && !c->from_zero, false);
    p.x = dm_scale_make(first, last, false, true);
    p.left = DM_SVG_MARGIN + dm_svg_axis_room(&p.y) - 4;
    p.x.start = p.left;
    p.x.stop = p.right;
    p.y.start = p.bottom;
    p.y.stop = p.top;
    return p;
}

static void draw_line(const plot *p, size_t s, FILE *out) {
    const double *values = p->chart->series[s].values;
    fprintf(out, "<polyline class=\"line s%zu\" points=\"", s);
    for (size_t i = 0; i < p->chart->n; i++) {
        double y = dm_scale_place(&p->y, values[i]);
        if (isfinite(y)) {
            fprintf(out, "%.1f,%.1f ", dm_scale_place(&p->x, p->chart->x[i]), y);
        }
    }
    fputs("\"/>\n", out);
    if (count_finite(values, p->chart->n) > FEW) {
        return;
    }
    for (size_t i = 0; i < p->chart->n; i++) {
        double y = dm_scale_place(&p->y, values[i]);
        if (isfinite(y)) {
            dm_svg_marker(out, dm_scale_place(&p->x, p->chart->x[i]), y, s);
        }
    }
}

/* A column around each point: what is there. */
static void draw_hits(const plot *p, FILE *out) {
    const dm_line_chart *c = p->chart;
    for (size_t i = 0; i < c->n; i++) {
        double here = dm_scale_place(&p->x, c->x[i]);
        double from = i > 0 ? (here + dm_scale_place(&p->x, c->x[i - 1])) / 2 : p->left;
        double to = i + 1 < c->n ? (here + dm_scale_place(&p->x, c->x[i + 1])) / 2 : p->right;
        dm_svg_hit_begin(out, from, p->top, fmax(to - from, 0.1), p->bottom - p->top);
        dm_svg_fact(out, c->x_name, c->x[i]);
        for (size_t s = 0; s < c->n_series; s++) {
            if (isfinite(c->series[s].values[i])) {
                dm_svg_fact(out, c->series[s].name, c->series[s].values[i]);
            }
        }
        dm_svg_hit_end(out);
    }
}

static void draw(const dm_chart *chart, const char *style, FILE *out) {
    const dm_line_chart *c = (const dm_line_chart *)(const void *)chart;
    const char *names[DM_CHART_SERIES];
    for (size_t s = 0; s < c->n_series; s++) {
        names[s] = c->series[s].name;
    }
    int lines = dm_svg_legend_lines(names, c->n_series);
    plot p = plot_of(c, DM_SVG_TITLE + DM_SVG_LINE * lines + 22);
    dm_svg_begin(out, chart, p.bottom + 44, style);
    dm_svg_legend(out, DM_SVG_TITLE + 11, names, c->n_series, false, chart->name);
    dm_svg_axis_left(out, &p.y, p.left, p.right, c->y_name);
    dm_svg_axis_below(out, &p.x, p.top, p.bottom, c->x_name, false);
    for (size_t s = 0; s < c->n_series; s++) {
        draw_line(&p, s, out);
    }
    draw_hits(&p, out);
    dm_svg_end(out);
}

static void tabulate(const dm_chart *chart, FILE *out) {
    const dm_line_chart *c = (const dm_line_chart *)(const void *)chart;
    dm_table_begin(out, chart->title);
    dm_table_head(out, c->x_name);
    for (size_t s = 0; s < c->n_series; s++) {
        dm_table_head(out, c->series[s].name);
    }
    for (size_t i = 0; i < c->n; i++) {
        char text[DM_NUMBER_TEXT];
        dm_number_exact(c->x[i], text);
        dm_table_row(out);
        dm_table_label(out, text);
        for (size_t s = 0; s < c->n_series; s++) {
            dm_table_number(out, c->series[s].values[i]);
        }
    }
    dm_table_end(out);
}

const dm_chart_kind dm_line_chart_kind = {draw, tabulate};
