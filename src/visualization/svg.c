#include "visualization/svg.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "visualization/markup.h"

static const double CHARACTER = 6.9; /* mean width of one of 13 units' height */
static const double TITLE = 1.2;     /* times that, of a title's */

double dm_svg_width(const char *text) {
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xc0) != 0x80; /* bytes that begin a character */
    }
    return CHARACTER * (double)count;
}

/* ---- The frame ---- */

void dm_svg_begin(FILE *out, const dm_chart *chart, double height, const char *style) {
    fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"",
            DM_CHART_WIDTH, ceil(height));
    dm_markup_text(out, chart->title);
    fputs("\">\n", out);
    if (style != NULL) {
        fputs("<style>", out);
        dm_markup_text(out, style);
        fprintf(out, "</style><rect class=\"paper\" width=\"%d\" height=\"%.0f\"/>\n", DM_CHART_WIDTH, ceil(height));
    }
    fputs("<desc>", out);
    dm_markup_text(out, chart->note);
    fputs("</desc>\n", out);
    dm_svg_text_within(out, DM_SVG_MARGIN, 20, "title", chart->title, (DM_CHART_WIDTH - 2 * DM_SVG_MARGIN) / TITLE);
}

void dm_svg_end(FILE *out) {
    fputs("</svg>\n", out);
}

void dm_svg_text(FILE *out, double x, double y, const char *type, const char *text) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, type);
    dm_markup_text(out, text);
    fputs("</text>\n", out);
}

void dm_svg_text_within(FILE *out, double x, double y, const char *type, const char *text, double width) {
    char cut[256];
    size_t most = (size_t)fmax(width / CHARACTER, 2.0), count = 0, at = 0, end = 0;
    for (; text[at] != '\0' && at < sizeof cut - 4; at++) {
        if (((unsigned char)text[at] & 0xc0) != 0x80) {
            end = count < most ? at : end;
            count++;
        }
    }
    if (text[at] == '\0' && count <= most) {
        dm_svg_text(out, x, y, type, text);
        return;
    }
    snprintf(cut, sizeof cut, "%.*s\xe2\x80\xa6", (int)end, text); /* an ellipsis */
    dm_svg_text(out, x, y, type, cut);
}

/* ---- The legend ---- */

static const double SWATCH = 30;

/* Where the next entry goes; true where it begins a line. */
static bool next_entry(double *x, const char *name) {
    double width = SWATCH + dm_svg_width(name) + 14;
    bool breaks = *x > DM_SVG_MARGIN && *x + width > DM_CHART_WIDTH - 2;
    *x = (breaks ? DM_SVG_MARGIN : *x) + width;
    return breaks;
}

int dm_svg_legend_lines(const char *const *names, size_t n) {
    double x = DM_SVG_MARGIN;
    int lines = n > 1;
    for (size_t i = 0; i < n && n > 1; i++) {
        lines += next_entry(&x, names[i]);
    }
    return lines;
}

void dm_svg_marker(FILE *out, double x, double y, size_t series) {
    static const char *const shapes[] = {"m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
                                         "m-3-3h6v6h-6z",
                                         "m0-4l4 4l-4 4l-4-4z",
                                         "m0-4l3.8 6.6h-7.6z",
                                         "m0 4l3.8-6.6h-7.6z",
                                         "m-3.2-3.2l6.4 6.4m0-6.4l-6.4 6.4"};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    fprintf(out, "<path class=\"marker s%zu\" d=\"M%.1f %.1f%s\"/>\n", series, x, y, shapes[series % SHAPES]);
}

void dm_svg_bar(FILE *out, double x, double y, double width, double height, size_t series, const char *chart_name) {
    fprintf(out, "<rect class=\"bar s%zu\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", series, x, y, width,
            height);
    if (series > 0) {
        fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"url(#%s-%zu)\"/>\n", x, y, width, height,
                chart_name, series);
    }
}

void dm_svg_hatchings(FILE *out, size_t n, const char *chart_name) {
    static const char *const lines[] = {"",       "M0 6L6 0",         "M3 0V6",       "M0 0L6 6",
                                        "M0 3H6", "M0 6L6 0M0 0L6 6", "M3 0V6M0 3H6", "M1 1h2v2h-2z"};
    fputs("<defs>", out);
    for (size_t i = 1; i < n; i++) {
        fprintf(out,
                "<pattern id=\"%s-%zu\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><path class=\"hatching\" "
                "d=\"%s\"/></pattern>",
                chart_name, i, lines[i % DM_CHART_SERIES]);
    }
    fputs("</defs>\n", out);
}

void dm_svg_legend(FILE *out, double y, const char *const *names, size_t n, bool bars, const char *chart_name) {
    double x = DM_SVG_MARGIN;
    for (size_t i = 0; i < n && n > 1; i++) {
        double at = x;
        if (next_entry(&x, names[i])) {
            at = DM_SVG_MARGIN;
            y += DM_SVG_LINE;
        }
        if (bars) {
            dm_svg_bar(out, at, y - 10, SWATCH - 8, 11, i, chart_name);
        } else {
            fprintf(out, "<path class=\"line s%zu\" d=\"M%.1f %.1fh%.0f\"/>\n", i, at, y - 4, SWATCH - 8);
            dm_svg_marker(out, at + (SWATCH - 8) / 2, y - 4, i);
        }
        dm_svg_text_within(out, at + SWATCH - 3, y, "legend", names[i], DM_CHART_WIDTH - at - SWATCH);
    }
}

/* ---- Axes ---- */

static double tick_width(double value) {
    char text[DM_NUMBER_TEXT];
    dm_number_text(value, text);
    return dm_svg_width(text);
}

double dm_svg_axis_room(const dm_scale *scale) {
    double most = 0.0;
    for (int i = 0; i < scale->n_ticks; i++) {
        most = fmax(most, tick_width(scale->ticks[i]));
    }
    return most + 10;
}

void dm_svg_axis_below(FILE *out, const dm_scale *scale, double top, double bottom, const char *name, bool grid) {
    double end = -INFINITY; /* of the last label, which the next one must not touch */
    for (int i = 0; i < scale->n_ticks; i++) {
        double x = dm_scale_place(scale, scale->ticks[i]), width = tick_width(scale->ticks[i]);
        fprintf(out, "<path class=\"%s\" d=\"M%.1f %.1fV%.1f\"/>\n", grid ? "grid" : "axis", x, grid ? top : bottom,
                bottom + (grid ? 0 : 4));
        if (x - width / 2 > end + 4 && x + width / 2 <= DM_CHART_WIDTH) {
            char text[DM_NUMBER_TEXT];
            dm_number_text(scale->ticks[i], text);
            dm_svg_text(out, x, bottom + 17, "tick middle", text);
            end = x + width / 2;
        }
    }
    fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>\n", scale->start, bottom, scale->stop);
    dm_svg_text(out, (scale->start + scale->stop) / 2, bottom + 35, "name middle", name);
}

void dm_svg_axis_left(FILE *out, const dm_scale *scale, double left, double right, const char *name) {
    for (int i = 0; i < scale->n_ticks; i++) {
        char text[DM_NUMBER_TEXT];
        double y = dm_scale_place(scale, scale->ticks[i]);
        dm_number_text(scale->ticks[i], text);
        fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", left, y, right);
        dm_svg_text(out, left - 6, y + 4.5, "tick end", text);
    }
    dm_svg_text(out, DM_SVG_MARGIN, scale->stop - 10, "name", name);
}

/* ---- Hover texts ---- */

void dm_svg_hit_begin(FILE *out, double x, double y, double width, double height) {
    fprintf(out, "<rect class=\"hit\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>", x, y, width, height);
}

void dm_svg_hit_end(FILE *out) {
    fputs("</title></rect>\n", out);
}

void dm_svg_fact(FILE *out, const char *name, double value) {
    char text[DM_NUMBER_TEXT];
    dm_number_text(value, text);
    dm_markup_text(out, name);
    fprintf(out, ": %s\n", text);
}

/* ---- Tables ---- */

void dm_table_begin(FILE *out, const char *caption) {
    fputs("<table><caption>", out);
    dm_markup_text(out, caption);
    fputs("</caption>\n<tr>", out);
}

void dm_table_head(FILE *out, const char *name) {
    fputs("<th scope=\"col\">", out);
    dm_markup_text(out, name);
    fputs("</th>", out);
}

void dm_table_row(FILE *out) {
    fputs("</tr>\n<tr>", out);
}

void dm_table_label(FILE *out, const char *label) {
    fputs("<th scope=\"row\">", out);
    dm_markup_text(out, label);
    fputs("</th>", out);
}

void dm_table_number(FILE *out, double value) {
    char text[DM_NUMBER_TEXT];
    dm_number_exact(value, text);
    fprintf(out, "<td>%s</td>", text);
}

void dm_table_end(FILE *out) {
    fputs("</tr>\n</table>\n", out);
}
