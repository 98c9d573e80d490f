/* What a training run wrote into metrics.jsonl, read by somebody who does not trust it. */
#ifndef DM_VISUALIZATION_METRICS_H
#define DM_VISUALIZATION_METRICS_H

#include "base/status.h"

typedef enum dm_metric {
    DM_METRIC_STEP,
    DM_METRIC_TOKENS,
    DM_METRIC_LOSS, /* cross-entropy, nats per token */
    DM_METRIC_LR,
    DM_METRIC_GRAD_NORM,
    DM_METRIC_MAXVIO,
    DM_METRIC_SWITCH_LOSS, /* this and the next four: core/loss.h, without their weights */
    DM_METRIC_BALANCE_LOSS,
    DM_METRIC_CACHE_REWARD,
    DM_METRIC_SWARM_REWARD,
    DM_METRIC_NASH_LOSS,
    DM_METRIC_SWEEPS,
    DM_METRIC_MAX_REGRET,
    DM_METRIC_POTENTIAL_GAIN,
    DM_METRIC_TOKENS_PER_S,
    DM_METRIC_VAL_LOSS,
    DM_METRIC_VAL_BPB,
    DM_METRIC_VAL_MAXVIO,
    DM_METRICS
} dm_metric;

/* Tokens that a validation sent to each expert. */
typedef struct dm_metric_loads {
    double step;
    float *tokens; /* [layers, experts] */
} dm_metric_loads;

typedef struct dm_metrics {
    size_t n;                   /* steps */
    double *values[DM_METRICS]; /* [n] each, by rising step; NaN: not there */
    int32_t layers, experts;    /* of loads; 0: there are none */
    size_t n_loads;
    dm_metric_loads *loads; /* [n_loads] by rising step */
    size_t skipped;         /* lines that are no objects with a step that rises and numbers where numbers belong */
    bool cut_short;         /* the last line is only begun: the run goes on, or was killed */
    size_t room, loads_room;
} dm_metrics;

enum { DM_METRICS_MOST = 1 << 20 /* steps */ };

/* Lines that cannot be used are counted and left out. DM_ERR_IO, DM_ERR_MEMORY; DM_ERR_UNSUPPORTED for too many steps. On failure
 * *out is empty; else free it with dm_metrics_free(). */
dm_status dm_metrics_read(const char *path, dm_metrics *out);
/* The same of `size` bytes. */
dm_status dm_metrics_parse(const char *bytes, size_t size, dm_metrics *out);
void dm_metrics_free(dm_metrics *metrics);

/* How many steps have this one. */
size_t dm_metrics_count(const dm_metrics *metrics, dm_metric metric);

#endif
