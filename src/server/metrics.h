/* What the server counts, in the form that Prometheus reads. */
#ifndef DM_SERVER_METRICS_H
#define DM_SERVER_METRICS_H

#include <pthread.h>

#include "base/status.h"

enum { DM_METRICS_BUCKETS = 16, DM_METRICS_CODES = 600 };

/* Seconds, in buckets. */
typedef struct dm_histogram {
    uint64_t counts[DM_METRICS_BUCKETS + 1]; /* the last: longer than all bounds */
    double sum;
} dm_histogram;

/* Where slots, queue and routers are, as the engine last saw them. */
typedef struct dm_gauges {
    int32_t slots, busy, waiting, clients;
    dm_routing_stats routing;
    double decode_experts;  /* different experts of a layer that a step of decoding read, in the mean; 0: none */
    double decode_rows;     /* sequences in such a step, in the mean */
    dm_stream_stats stream; /* slots 0: the model is not streamed */
} dm_gauges;

typedef struct dm_metrics {
    pthread_mutex_t lock;
    uint64_t requests[DM_METRICS_CODES];                    /* answered, by HTTP status */
    uint64_t prompt_tokens, known_tokens, generated_tokens; /* read, found in a slot, made */
    uint64_t steps, cancelled;
    dm_histogram first_token, per_token, whole;
    dm_gauges gauges;
} dm_metrics;

void dm_metrics_init(dm_metrics *metrics);
void dm_metrics_free(dm_metrics *metrics);
void dm_metrics_count_request(dm_metrics *metrics, int status);
void dm_metrics_count_tokens(dm_metrics *metrics, uint64_t prompt, uint64_t known, uint64_t generated);
void dm_metrics_observe(dm_metrics *metrics, dm_histogram *histogram, double seconds);
void dm_metrics_set(dm_metrics *metrics, const dm_gauges *gauges);
void dm_metrics_get(dm_metrics *metrics, dm_gauges *gauges);
/* One more, or one less, connection. */
void dm_metrics_count_client(dm_metrics *metrics, int change);

/* *text (malloc) is the caller's to free(). */
dm_status dm_metrics_write(dm_metrics *metrics, char **text, size_t *length);

#endif
