/* What the kinds of charts share: the frame, the axes and the legend of an SVG drawing. */
#ifndef DM_VISUALIZATION_SVG_H
#define DM_VISUALIZATION_SVG_H

#include "visualization/chart.h"
#include "visualization/scale.h"

/* Units of the drawing. */
enum { DM_SVG_LINE = 17, DM_SVG_TITLE = 30, DM_SVG_MARGIN = 12 };

/* Width of a text, estimated from its characters: there is no font to ask. */
double dm_svg_width(const char *text);

/* <svg> with its title. Ends with dm_svg_end(). */
void dm_svg_begin(FILE *out, const dm_chart *chart, double height, const char *style);
void dm_svg_end(FILE *out);

/* `text` at a place; `type` are style classes, among them start, middle or end for the anchor. */
void dm_svg_text(FILE *out, double x, double y, const char *type, const char *text);
/* Clipped to about `width`, with dots for what is left out. */
void dm_svg_text_within(FILE *out, double x, double y, const char *type, const char *text, double width);

/* Lines that the legend of these names takes, and the legend itself, from `y` on. `bars`: swatches, else lines with markers.
 * Fewer than two names need none. */
int dm_svg_legend_lines(const char *const *names, size_t n);
void dm_svg_legend(FILE *out, double y, const char *const *names, size_t n, bool bars, const char *chart_name);

/* The mark of series `series` around a place. */
void dm_svg_marker(FILE *out, double x, double y, size_t series);

/* A rectangle of a series, hatched by its number. */
void dm_svg_bar(FILE *out, double x, double y, double width, double height, size_t series, const char *chart_name);
/* The hatchings that bars of n series of a chart use. */
void dm_svg_hatchings(FILE *out, size_t n, const char *chart_name);

/* The horizontal axis below a plot that reaches from `top` to `bottom`, with its name; lines of the grid at its ticks. */
void dm_svg_axis_below(FILE *out, const dm_scale *scale, double top, double bottom, const char *name, bool grid);
/* The vertical axis left of a plot from `left` to `right`; its name lies above it. */
void dm_svg_axis_left(FILE *out, const dm_scale *scale, double left, double right, const char *name);
/* The room that its labels need. */
double dm_svg_axis_room(const dm_scale *scale);

/* An invisible area whose hover text follows: plain text, then dm_svg_hit_end(). */
void dm_svg_hit_begin(FILE *out, double x, double y, double width, double height);
void dm_svg_hit_end(FILE *out);

/* "NAME VALUE" and a new line, for hover texts. */
void dm_svg_fact(FILE *out, const char *name, double value);

/* ---- Tables ---- */

/* <table> with a head row of these names; the caption says what it is of. */
void dm_table_begin(FILE *out, const char *caption);
void dm_table_head(FILE *out, const char *name);
void dm_table_row(FILE *out); /* the head is over, or the row before */
void dm_table_label(FILE *out, const char *label);
void dm_table_number(FILE *out, double value);
void dm_table_end(FILE *out);

#endif
