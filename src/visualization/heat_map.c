/* A value for each cell of a table, as colour, and as a number where there is room. */
#include <math.h>

#include "visualization/markup.h"
#include "visualization/svg.h"

enum { AROUND = 9, UPWARD = 8 /* colours of either kind */, BAR = 10 /* height of the key */ };

static const double MOST_LABEL = 130, DEEP = 2.0 /* doublings at the ends of ratios */;

typedef struct plot {
    const dm_heat_map *map;
    double left, top, width, height; /* of a cell */
    double greatest;
} plot;

static void label_of(const char *const *labels, size_t i, char text[DM_NUMBER_TEXT], const char **out) {
    snprintf(text, DM_NUMBER_TEXT, "%zu", i);
    *out = labels != NULL ? labels[i] : text;
}

static plot plot_of(const dm_heat_map *m) {
    double widest = dm_svg_width("000"), low = INFINITY, high = -INFINITY;
    for (size_t r = 0; m->row_labels != NULL && r < m->rows; r++) {
        widest = fmax(widest, dm_svg_width(m->row_labels[r]));
    }
    dm_range_of(m->values, m->rows * m->columns, false, &low, &high);
    plot p = {.map = m, .left = DM_SVG_MARGIN + fmin(widest, MOST_LABEL) + 8, .top = DM_SVG_TITLE + 18};
    p.width = (DM_CHART_WIDTH - 14 - p.left) / (double)m->columns;
    p.height = fmax(fmin(300.0 / (double)m->rows, 20.0), 3.0);
    p.greatest = high > 0.0 ? high : 1.0;
    return p;
}

static int colour_of(const plot *p, double value) {
    if (p->map->around_one) {
        double depth = value > 0.0 ? fmax(fmin(log2(value), DEEP), -DEEP) : -DEEP;
        return (int)lround((depth + DEEP) / (2 * DEEP) * (AROUND - 1));
    }
    return (int)lround(fmax(value, 0.0) / p->greatest * (UPWARD - 1));
}

/* Far from the paper's lightness. */
static bool is_far(const plot *p, int colour) {
    return p->map->around_one ? colour <= 1 || colour >= AROUND - 2 : colour >= UPWARD - 4;
}

static void draw_cell(const plot *p, size_t row, size_t column, FILE *out) {
    const dm_heat_map *m = p->map;
    const double value = m->values[row * m->columns + column];
    const double x = p->left + p->width * (double)column, y = p->top + p->height * (double)row;
    char text[DM_NUMBER_TEXT], number[DM_NUMBER_TEXT];
    const char *label;
    if (!isfinite(value)) {
        return;
    }
    const int colour = colour_of(p, value);
    snprintf(number, sizeof number, value < 9.95 ? "%.1f" : "%.0f", value);
    fprintf(out, "<rect class=\"cell %s%d\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>",
            m->around_one ? "d" : "q", colour, x, y, p->width, p->height);
    label_of(m->row_labels, row, text, &label);
    dm_markup_text(out, m->y_name);
    fputc(' ', out);
    dm_markup_text(out, label);
    fputs(", ", out);
    label_of(m->column_labels, column, text, &label);
    dm_markup_text(out, m->x_name);
    fputc(' ', out);
    dm_markup_text(out, label);
    fputc('\n', out);
    dm_svg_fact(out, m->value_name, value);
    if (m->texts != NULL && m->texts[row * m->columns + column] != NULL) {
        dm_markup_text(out, m->texts[row * m->columns + column]);
    }
    fputs("</title></rect>\n", out);
    if (p->width > dm_svg_width(number) && p->height >= 13) {
        dm_svg_text(out, x + p->width / 2, y + p->height / 2 + 4, is_far(p, colour) ? "on-far middle" : "on-near middle", number);
    }
}

/* As many labels as have room, at least the first. */
static void draw_labels(const plot *p, double bottom, FILE *out) {
    const dm_heat_map *m = p->map;
    char text[DM_NUMBER_TEXT];
    const char *label;
    double end = -INFINITY;
    for (size_t r = 0; r < m->rows; r++) {
        double y = p->top + p->height * ((double)r + 0.5);
        if (y - end >= 13) {
            label_of(m->row_labels, r, text, &label);
            dm_svg_text_within(out, p->left - 6, y + 4.5, "tick end", label, MOST_LABEL);
            end = y;
        }
    }
    end = -INFINITY;
    for (size_t c = 0; c < m->columns; c++) {
        label_of(m->column_labels, c, text, &label);
        double x = p->left + p->width * ((double)c + 0.5), half = dm_svg_width(label) / 2;
        if (x - half > end + 5 && x + half < DM_CHART_WIDTH) {
            dm_svg_text(out, x, bottom + 16, "tick middle", label);
            end = x + half;
        }
    }
}

/* What the colours mean. */
static void draw_key(const plot *p, double y, FILE *out) {
    const dm_heat_map *m = p->map;
    const int colours = m->around_one ? AROUND : UPWARD;
    const double width = 16, left = DM_CHART_WIDTH - 14 - width * colours;
    char low[DM_NUMBER_TEXT] = "\xc2\xbc", high[DM_NUMBER_TEXT] = "4", middle[DM_NUMBER_TEXT] = "1";
    if (!m->around_one) {
        dm_number_text(0.0, low);
        dm_number_text(p->greatest, high);
        dm_number_text(p->greatest / 2, middle);
    }
    for (int i = 0; i < colours; i++) {
        fprintf(out, "<rect class=\"cell %s%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>\n",
                m->around_one ? "d" : "q", i, left + width * i, y, width, BAR);
    }
    dm_svg_text(out, left, y + BAR + 13, "tick", low);
    dm_svg_text(out, left + width * colours / 2, y + BAR + 13, "tick middle", middle);
    dm_svg_text(out, left + width * colours, y + BAR + 13, "tick end", high);
    dm_svg_text_within(out, left - 8, y + BAR, "name end", m->value_name, left - 2 * DM_SVG_MARGIN);
}

static void draw(const dm_chart *chart, const char *style, FILE *out) {
    const dm_heat_map *m = (const dm_heat_map *)(const void *)chart;
    const plot p = plot_of(m);
    const double bottom = p.top + p.height * (double)m->rows;
    dm_svg_begin(out, chart, bottom + 76, style);
    dm_svg_text(out, DM_SVG_MARGIN, DM_SVG_TITLE + 10, "name", m->y_name);
    for (size_t r = 0; r < m->rows; r++) {
        for (size_t c = 0; c < m->columns; c++) {
            draw_cell(&p, r, c, out);
        }
    }
    draw_labels(&p, bottom, out);
    dm_svg_text(out, (p.left + DM_CHART_WIDTH - 14) / 2, bottom + 33, "name middle", m->x_name);
    draw_key(&p, bottom + 43, out);
    dm_svg_end(out);
}

static void tabulate(const dm_chart *chart, FILE *out) {
    const dm_heat_map *m = (const dm_heat_map *)(const void *)chart;
    char text[DM_NUMBER_TEXT], corner[256];
    const char *label;
    snprintf(corner, sizeof corner, "%s \\ %s", m->y_name, m->x_name);
    dm_table_begin(out, chart->title);
    dm_table_head(out, corner);
    for (size_t c = 0; c < m->columns; c++) {
        label_of(m->column_labels, c, text, &label);
        dm_table_head(out, label);
    }
    for (size_t r = 0; r < m->rows; r++) {
        dm_table_row(out);
        label_of(m->row_labels, r, text, &label);
        dm_table_label(out, label);
        for (size_t c = 0; c < m->columns; c++) {
            dm_table_number(out, m->values[r * m->columns + c]);
        }
    }
    dm_table_end(out);
}

const dm_chart_kind dm_heat_map_kind = {draw, tabulate};
