/* Horizontal bars, stacked or beside one another: their labels have room, on a phone too. */
#include <math.h>
#include <stddef.h>

#include "visualization/markup.h"
#include "visualization/svg.h"

static const double MOST_LABEL = 130; /* width */

typedef struct plot {
    const dm_bar_chart *chart;
    double left, right, top, row, bar; /* heights of a row and of a bar */
    dm_scale x;
} plot;

static double value_at(const dm_bar_chart *c, size_t row, size_t s) {
    double value = c->values[row * c->n_series + s];
    return value > 0.0 && isfinite(value) ? value : 0.0;
}

static double sum_of(const dm_bar_chart *c, size_t row) {
    double sum = 0.0;
    for (size_t s = 0; s < c->n_series; s++) {
        sum += value_at(c, row, s);
    }
    return sum;
}

static double greatest(const dm_bar_chart *c) {
    double most = 0.0;
    for (size_t row = 0; row < c->rows; row++) {
        most = c->stacked ? fmax(most, sum_of(c, row)) : most;
        for (size_t s = 0; s < c->n_series; s++) {
            most = fmax(most, value_at(c, row, s));
        }
    }
    return most;
}

static plot plot_of(const dm_bar_chart *c, double top) {
    plot p = {.chart = c, .top = top, .right = DM_CHART_WIDTH - 16};
    double widest = 0.0;
    for (size_t row = 0; row < c->rows; row++) {
        widest = fmax(widest, dm_svg_width(c->labels[row]));
    }
    p.bar = c->stacked || c->n_series == 1 ? 15 : 11;
    p.row = (c->stacked ? 1.0 : (double)c->n_series) * (p.bar + 1) + 6;
    p.left = DM_SVG_MARGIN + fmin(widest, MOST_LABEL) + 8;
    p.x = dm_scale_make(0.0, greatest(c), false, false);
    p.x.start = p.left;
    p.x.stop = p.right - 40; /* for the numbers behind the bars */
    return p;
}

/* Beside one another: the number stands behind each. Stacked: the row's sum does. */
static void draw_row(const plot *p, size_t row, FILE *out) {
    const dm_bar_chart *c = p->chart;
    char text[DM_NUMBER_TEXT];
    double y = p->top + (double)row * p->row + 3, x = p->left;
    dm_svg_text_within(out, p->left - 6, y + (p->row - 6) / 2 + 4.5, "tick end", c->labels[row], MOST_LABEL);
    for (size_t s = 0; s < c->n_series; s++) {
        const double width = dm_scale_place(&p->x, value_at(c, row, s)) - p->left;
        if (!isnan(c->values[row * c->n_series + s])) {
            dm_svg_bar(out, x, y, width, p->bar, s, c->head.name);
        }
        if (c->stacked) {
            x += width;
        } else {
            dm_number_short(c->values[row * c->n_series + s], text);
            dm_svg_text(out, x + width + 4, y + p->bar - (p->bar > 12 ? 3 : 1), "tick", text);
            y += p->bar + 1;
        }
    }
    if (c->stacked) {
        dm_number_short(sum_of(c, row), text);
        dm_svg_text(out, x + 4, y + p->bar - 3, "tick", text);
    }
}

static void draw_hit(const plot *p, size_t row, FILE *out) {
    const dm_bar_chart *c = p->chart;
    dm_svg_hit_begin(out, 0, p->top + (double)row * p->row, DM_CHART_WIDTH, p->row);
    dm_markup_text(out, c->labels[row]);
    fputc('\n', out);
    for (size_t s = 0; s < c->n_series; s++) {
        dm_svg_fact(out, c->series[s], c->values[row * c->n_series + s]);
    }
    if (c->stacked && c->n_series > 1) {
        dm_svg_fact(out, "in all", sum_of(c, row));
    }
    dm_svg_hit_end(out);
}

static void draw(const dm_chart *chart, const char *style, FILE *out) {
    const dm_bar_chart *c = (const dm_bar_chart *)(const void *)chart;
    int lines = dm_svg_legend_lines(c->series, c->n_series);
    plot p = plot_of(c, DM_SVG_TITLE + DM_SVG_LINE * lines + 20);
    double bottom = p.top + (double)c->rows * p.row;
    dm_svg_begin(out, chart, bottom + 44, style);
    dm_svg_hatchings(out, c->n_series, chart->name);
    dm_svg_legend(out, DM_SVG_TITLE + 11, c->series, c->n_series, true, chart->name);
    dm_svg_axis_below(out, &p.x, p.top, bottom, c->value_name, true);
    dm_svg_text(out, DM_SVG_MARGIN, p.top - 6, "name", c->row_name);
    for (size_t row = 0; row < c->rows; row++) {
        draw_row(&p, row, out);
    }
    for (size_t row = 0; row < c->rows; row++) {
        draw_hit(&p, row, out);
    }
    dm_svg_end(out);
}

static void tabulate(const dm_chart *chart, FILE *out) {
    const dm_bar_chart *c = (const dm_bar_chart *)(const void *)chart;
    dm_table_begin(out, chart->title);
    dm_table_head(out, c->row_name);
    for (size_t s = 0; s < c->n_series; s++) {
        dm_table_head(out, c->series[s]);
    }
    for (size_t row = 0; row < c->rows; row++) {
        dm_table_row(out);
        dm_table_label(out, c->labels[row]);
        for (size_t s = 0; s < c->n_series; s++) {
            dm_table_number(out, c->values[row * c->n_series + s]);
        }
    }
    dm_table_end(out);
}

const dm_chart_kind dm_bar_chart_kind = {draw, tabulate};
