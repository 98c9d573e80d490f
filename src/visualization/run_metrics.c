#include "visualization/run_metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"

enum { MOST_LAYERS = 1 << 12, MOST_EXPERTS = 1 << 16, MOST_LOADS = 1 << 20 /* of one validation */ };

static const double MOST = 1e300; /* of a magnitude */

static const char *const names[DM_RUN_METRICS] = {
    "step",        "tokens",         "loss",         "lr",           "grad_norm", "maxvio",
    "switch_loss", "balance_loss",   "cache_reward", "swarm_reward", "nash_loss", "sweeps",
    "max_regret",  "potential_gain", "tokens_per_s", "val_loss",     "val_bpb",   "val_maxvio"};

/* False for what is there and is no number. */
static bool read_number(const json_t *value, double *out) {
    *out = NAN;
    if (value == NULL || json_is_null(value)) {
        return true;
    }
    *out = json_number_value(value);
    return json_is_number(value) && fabs(*out) <= MOST;
}

/* Room for one more step, in every column. */
static dm_status grow(dm_run_metrics *m) {
    if (m->n == DM_RUN_METRICS_MOST) {
        return dm_fail(DM_ERR_UNSUPPORTED, "more than %d steps: expected fewer", DM_RUN_METRICS_MOST);
    }
    size_t room = 0;
    for (int i = 0; i < DM_RUN_METRICS; i++) {
        room = m->room;
        DM_TRY(dm_reserve(&m->values[i], &room, m->n + 1, sizeof(double)));
    }
    m->room = room;
    return DM_OK;
}

/* ---- Loads ---- */

static bool has_shape(const json_t *rows, size_t layers, size_t experts) {
    if (json_array_size(rows) != layers) {
        return false;
    }
    for (size_t l = 0; l < layers; l++) {
        const json_t *row = json_array_get(rows, l);
        if (!json_is_array(row) || json_array_size(row) != experts) {
            return false;
        }
        for (size_t e = 0; e < experts; e++) {
            const json_t *tokens = json_array_get(row, e);
            if (!json_is_integer(tokens) || json_integer_value(tokens) < 0) {
                return false;
            }
        }
    }
    return true;
}

/* *good is false where they are not tokens for each expert of each layer, as before. */
static dm_status add_loads(dm_run_metrics *m, double step, const json_t *rows, bool *good) {
    size_t layers = json_array_size(rows), experts = json_array_size(json_array_get(rows, 0));
    *good = layers > 0 && experts > 0 && layers <= MOST_LAYERS && experts <= MOST_EXPERTS && layers * experts <= MOST_LOADS &&
            (m->n_loads == 0 || ((size_t)m->layers == layers && (size_t)m->experts == experts)) &&
            has_shape(rows, layers, experts);
    if (!*good) {
        return DM_OK;
    }
    DM_TRY(dm_reserve(&m->loads, &m->loads_room, m->n_loads + 1, sizeof *m->loads));
    float *tokens = dm_alloc(layers * experts, sizeof *tokens);
    if (tokens == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < layers * experts; i++) {
        tokens[i] = (float)json_integer_value(json_array_get(json_array_get(rows, i / experts), i % experts));
    }
    m->layers = (int32_t)layers;
    m->experts = (int32_t)experts;
    m->loads[m->n_loads++] = (dm_run_loads){step, tokens};
    return DM_OK;
}

/* ---- Lines ---- */

/* Lines of one step, a training's and a validation's, become one. */
static dm_status add_values(dm_run_metrics *m, const double *values) {
    bool same = m->n > 0 && m->values[DM_RUN_STEP][m->n - 1] == values[DM_RUN_STEP];
    if (!same) {
        DM_TRY(grow(m));
    }
    for (int i = 0; i < DM_RUN_METRICS; i++) {
        if (!same) {
            m->values[i][m->n] = values[i];
        } else if (!isnan(values[i])) {
            m->values[i][m->n - 1] = values[i];
        }
    }
    m->n += !same;
    return DM_OK;
}

static dm_status read_object(dm_run_metrics *m, const json_t *object, bool *good) {
    double values[DM_RUN_METRICS];
    for (int i = 0; i < DM_RUN_METRICS; i++) {
        *good = read_number(json_object_get(object, names[i]), &values[i]) && *good;
    }
    const double step = values[DM_RUN_STEP];
    *good = *good && step >= 0.0 && (m->n == 0 || step >= m->values[DM_RUN_STEP][m->n - 1]);
    const json_t *loads = json_object_get(object, "val_loads");
    if (*good && loads != NULL) {
        DM_TRY(add_loads(m, step, loads, good));
    }
    return *good ? add_values(m, values) : DM_OK;
}

static dm_status read_line(dm_run_metrics *m, const char *line, size_t length, bool whole) {
    json_t *object = NULL;
    bool good = true;
    dm_status status = dm_json_parse("a line", line, length, &object);
    if (status == DM_OK) {
        status = read_object(m, object, &good);
        json_decref(object);
        m->skipped += !good;
        return status;
    }
    m->cut_short = !whole;
    m->skipped += whole;
    return status == DM_ERR_MEMORY ? status : DM_OK;
}

dm_status dm_run_metrics_parse(const char *bytes, size_t size, dm_run_metrics *out) {
    *out = (dm_run_metrics){0};
    dm_status status = DM_OK;
    for (size_t at = 0; at < size && status == DM_OK;) {
        const char *end = memchr(bytes + at, '\n', size - at);
        size_t length = end != NULL ? (size_t)(end - bytes) - at : size - at;
        if (length > 0) {
            status = read_line(out, bytes + at, length, end != NULL);
        }
        at += length + 1;
    }
    if (status != DM_OK) {
        dm_run_metrics_free(out);
    }
    return status;
}

dm_status dm_run_metrics_read(const char *path, dm_run_metrics *out) {
    dm_map map;
    *out = (dm_run_metrics){0};
    DM_TRY(dm_map_open(path, &map));
    dm_status status = dm_run_metrics_parse((const char *)map.data, map.size, out);
    dm_map_close(&map);
    return status == DM_OK ? status : dm_fail_in(status, path);
}

void dm_run_metrics_free(dm_run_metrics *metrics) {
    for (int i = 0; i < DM_RUN_METRICS; i++) {
        free(metrics->values[i]);
    }
    for (size_t i = 0; i < metrics->n_loads; i++) {
        dm_free(metrics->loads[i].tokens);
    }
    free(metrics->loads);
    *metrics = (dm_run_metrics){0};
}

size_t dm_run_metrics_count(const dm_run_metrics *metrics, dm_run_metric metric) {
    size_t count = 0;
    for (size_t i = 0; i < metrics->n; i++) {
        count += isfinite(metrics->values[metric][i]);
    }
    return count;
}
