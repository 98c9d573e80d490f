/* How even the loads of experts are, and became. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "visualization/parts.h"

enum { MOST_LAYERS = 12 /* pictures */, MOST_TIMES = 60 /* columns */, MOST_EXPERTS = 512 };

/* Tokens of an expert over what each would have if loads were even. */
static double share_of(const dm_run_metrics *m, size_t time, size_t layer, size_t expert) {
    const size_t experts = (size_t)m->experts;
    const float *tokens = m->loads[time].tokens + layer * experts;
    double sum = 0.0;
    for (size_t e = 0; e < experts; e++) {
        sum += (double)tokens[e];
    }
    return sum > 0.0 ? (double)tokens[expert] * (double)experts / sum : NAN;
}

/* One layer over time: values [experts, times], labels [times]. */
static void draw_layer(dm_page *page, const dm_run_metrics *m, size_t layer, size_t times, double *values,
                       char (*labels)[DM_NUMBER_TEXT]) {
    char name[64], title[64];
    const char *columns[MOST_TIMES];
    for (size_t t = 0; t < times; t++) {
        size_t at = dm_pick(t, times, m->n_loads);
        columns[t] = labels[t];
        dm_number_exact(m->loads[at].step, labels[t]);
        for (size_t e = 0; e < (size_t)m->experts; e++) {
            values[e * times + t] = share_of(m, at, layer, e);
        }
    }
    dm_name_with(name, sizeof name, "loads-layer", layer);
    snprintf(title, sizeof title, "Loads over time, layer %zu", layer);
    const dm_heat_map map = {
        {&dm_heat_map_kind, name, title, "Tokens of each expert at validations, over what they would be if even."},
        .x_name = "step",
        .y_name = "expert",
        .value_name = "load over even load",
        .columns = times,
        .rows = (size_t)m->experts,
        .column_labels = columns,
        .values = values,
        .around_one = true};
    dm_page_chart(page, &map.head);
}

/* values [layers, experts] */
static void draw_last(dm_page *page, const dm_run_metrics *m, double *values) {
    const size_t experts = (size_t)m->experts;
    for (size_t i = 0; i < (size_t)m->layers * experts; i++) {
        values[i] = share_of(m, m->n_loads - 1, i / experts, i % experts);
    }
    const dm_heat_map map = {{&dm_heat_map_kind, "loads", "Loads of all layers at the last validation",
                              "Tokens of each expert over what they would be if even: 1 is even, 2 is twice as many."},
                             .x_name = "expert",
                             .y_name = "layer",
                             .value_name = "load over even load",
                             .columns = experts,
                             .rows = (size_t)m->layers,
                             .values = values,
                             .around_one = true};
    dm_page_chart(page, &map.head);
}

dm_status dm_part_loads(dm_page *page, const dm_run_metrics *metrics) {
    const size_t layers = (size_t)metrics->layers, experts = (size_t)metrics->experts;
    if (metrics->n_loads == 0) {
        dm_page_leave_out(page, "Loads of experts over time",
                          "because no validation counted them: a dense model, or none came yet");
        return page->status;
    }
    if (experts > MOST_EXPERTS) {
        dm_page_leave_out(page, "Loads of experts over time", "because %zu experts are too many for a picture of at most %d",
                          experts, MOST_EXPERTS);
        return page->status;
    }
    const size_t times = metrics->n_loads < MOST_TIMES ? metrics->n_loads : MOST_TIMES;
    const size_t shown = layers < MOST_LAYERS ? layers : MOST_LAYERS, columns = times > layers ? times : layers;
    double *values = dm_alloc(experts * columns, sizeof *values);
    char(*labels)[DM_NUMBER_TEXT] = dm_alloc(MOST_TIMES, DM_NUMBER_TEXT);
    if (values != NULL && labels != NULL) {
        dm_page_section(page, "loads", "Loads of the experts",
                        shown < layers ? "From the validations in metrics.jsonl, for some of the layers."
                                       : "From the validations in metrics.jsonl.");
        draw_last(page, metrics, values);
        for (size_t i = 0; i < shown && times > 1; i++) {
            draw_layer(page, metrics, dm_pick(i, shown, layers), times, values, labels);
        }
    }
    dm_status status = values != NULL && labels != NULL ? page->status : DM_ERR_MEMORY;
    dm_free(values);
    dm_free(labels);
    return status;
}
