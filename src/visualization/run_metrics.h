/* What a training run wrote into metrics.jsonl, read by somebody who does not trust it. */
#ifndef DM_VISUALIZATION_RUN_METRICS_H
#define DM_VISUALIZATION_RUN_METRICS_H

#include "base/status.h"

typedef enum dm_run_metric {
    DM_RUN_STEP,
    DM_RUN_TOKENS,
    DM_RUN_LOSS, /* cross-entropy, nats per token */
    DM_RUN_LR,
    DM_RUN_GRAD_NORM,
    DM_RUN_MAXVIO,
    DM_RUN_SWITCH_LOSS, /* this and the next four: core/loss.h, without their weights */
    DM_RUN_BALANCE_LOSS,
    DM_RUN_CACHE_REWARD,
    DM_RUN_SWARM_REWARD,
    DM_RUN_NASH_LOSS,
    DM_RUN_SWEEPS,
    DM_RUN_MAX_REGRET,
    DM_RUN_POTENTIAL_GAIN,
    DM_RUN_TOKENS_PER_S,
    DM_RUN_VAL_LOSS,
    DM_RUN_VAL_BPB,
    DM_RUN_VAL_MAXVIO,
    DM_RUN_METRICS
} dm_run_metric;

/* Tokens that a validation sent to each expert. */
typedef struct dm_run_loads {
    double step;
    float *tokens; /* [layers, experts] */
} dm_run_loads;

typedef struct dm_run_metrics {
    size_t n;                       /* steps */
    double *values[DM_RUN_METRICS]; /* [n] each, by rising step; NaN: not there */
    int32_t layers, experts;        /* of loads; 0: there are none */
    size_t n_loads;
    dm_run_loads *loads; /* [n_loads] by rising step */
    size_t skipped;      /* lines that are no objects with a step that rises and numbers where numbers belong */
    bool cut_short;      /* the last line is only begun: the run goes on, or was killed */
    size_t room, loads_room;
} dm_run_metrics;

enum { DM_RUN_METRICS_MOST = 1 << 20 /* steps */ };

/* Lines that cannot be used are counted and left out. DM_ERR_IO, DM_ERR_MEMORY; DM_ERR_UNSUPPORTED for too many steps. On failure
 * *out is empty; else free it with dm_run_metrics_free(). */
dm_status dm_run_metrics_read(const char *path, dm_run_metrics *out);
/* The same of `size` bytes. */
dm_status dm_run_metrics_parse(const char *bytes, size_t size, dm_run_metrics *out);
void dm_run_metrics_free(dm_run_metrics *metrics);

/* How many steps have this one. */
size_t dm_run_metrics_count(const dm_run_metrics *metrics, dm_run_metric metric);

#endif
