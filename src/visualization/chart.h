/*
 * Charts: what is to be seen, and writing it as SVG, which needs no script, and as a table of the same numbers, for those who
 * cannot see it or want the figures. All strings are plain text, escaped when written. Colours are told apart by dashes, markers,
 * hatching and labels too. What a chart points to is the caller's.
 */
#ifndef DM_VISUALIZATION_CHART_H
#define DM_VISUALIZATION_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { DM_CHART_SERIES = 8, DM_CHART_WIDTH = 420 /* of the drawing's own units, of which text is 13 high */ };

typedef struct dm_chart_kind dm_chart_kind;

/* What every chart begins with. */
typedef struct dm_chart {
    const dm_chart_kind *kind;
    const char *name;  /* of its file, and of elements within: dm_slug() of something */
    const char *title; /* a line */
    const char *note;  /* what it says and where it is from, a sentence or two */
} dm_chart;

struct dm_chart_kind {
    /* An <svg> element; `style` becomes its style sheet, NULL: it stands in a page that has one. */
    void (*draw)(const dm_chart *chart, const char *style, FILE *out);
    /* A <table> element. */
    void (*tabulate)(const dm_chart *chart, FILE *out);
};

/* ---- Lines over a common axis ---- */

typedef struct dm_series {
    const char *name;
    const double *values; /* [n] NaN where there is none: the line goes on to the next one */
} dm_series;

typedef struct dm_line_chart {
    dm_chart head;               /* kind &dm_line_chart_kind */
    const char *x_name, *y_name; /* with units */
    bool logarithmic;            /* the values' axis, where all are above 0 */
    bool from_zero;              /* that axis begins at 0 */
    size_t n, n_series;          /* at most DM_CHART_SERIES */
    const double *x;             /* [n] rising */
    dm_series series[DM_CHART_SERIES];
} dm_line_chart;

extern const dm_chart_kind dm_line_chart_kind;

/* ---- Horizontal bars ---- */

typedef struct dm_bar_chart {
    dm_chart head; /* kind &dm_bar_chart_kind */
    const char *row_name, *value_name;
    size_t rows, n_series;     /* at most DM_CHART_SERIES */
    const char *const *labels; /* [rows] */
    const char *series[DM_CHART_SERIES];
    const double *values; /* [rows, n_series] 0 or more; NaN: none */
    bool stacked;         /* else beside one another */
} dm_bar_chart;

extern const dm_chart_kind dm_bar_chart_kind;

/* ---- A value for each cell of a table, as colour ---- */

typedef struct dm_heat_map {
    dm_chart head; /* kind &dm_heat_map_kind */
    const char *x_name, *y_name, *value_name;
    size_t columns, rows;
    const char *const *column_labels, *const *row_labels; /* NULL: 0, 1, 2, ... */
    const double *values;                                 /* [rows, columns] 0 or more; NaN: none */
    const char *const *texts;                             /* [rows, columns] to be read in each cell's hover text, or NULL */
    bool around_one; /* of ratios: two hues, for less and more than 1, from a quarter to four times; else one, from 0 to the
                      * greatest */
} dm_heat_map;

extern const dm_chart_kind dm_heat_map_kind;

/* ---- Points and their neighbours ---- */

typedef struct dm_network {
    dm_chart head; /* kind &dm_network_kind */
    const char *node_name, *size_name;
    size_t n, links;       /* of each */
    const float *places;   /* [n, 2] 0 to 1 */
    const double *sizes;   /* [n] 0 or more, told by the areas of circles; NULL: all the same */
    const int32_t *linked; /* [n, links] -1: none */
} dm_network;

extern const dm_chart_kind dm_network_kind;

#endif
