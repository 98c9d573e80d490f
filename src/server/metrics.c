#include "server/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static const double bounds[DM_METRICS_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                  0.5,   1,      2.5,   5,    10,    30,   60,  300};

void dm_metrics_init(dm_metrics *metrics) {
    *metrics = (dm_metrics){.gauges.routing.hit_rate = NAN};
    pthread_mutex_init(&metrics->lock, NULL);
}

void dm_metrics_free(dm_metrics *metrics) {
    pthread_mutex_destroy(&metrics->lock);
}

void dm_metrics_count_request(dm_metrics *metrics, int status) {
    pthread_mutex_lock(&metrics->lock);
    metrics->requests[status > 0 && status < DM_METRICS_CODES ? status : 0]++;
    pthread_mutex_unlock(&metrics->lock);
}

void dm_metrics_count_tokens(dm_metrics *metrics, uint64_t prompt, uint64_t known, uint64_t generated) {
    pthread_mutex_lock(&metrics->lock);
    metrics->prompt_tokens += prompt;
    metrics->known_tokens += known;
    metrics->generated_tokens += generated;
    pthread_mutex_unlock(&metrics->lock);
}

void dm_metrics_observe(dm_metrics *metrics, dm_histogram *histogram, double seconds) {
    size_t bucket = 0;
    while (bucket < DM_METRICS_BUCKETS && seconds > bounds[bucket]) {
        bucket++;
    }
    pthread_mutex_lock(&metrics->lock);
    histogram->counts[bucket]++;
    histogram->sum += seconds;
    pthread_mutex_unlock(&metrics->lock);
}

void dm_metrics_set(dm_metrics *metrics, const dm_gauges *gauges) {
    pthread_mutex_lock(&metrics->lock);
    int32_t clients = metrics->gauges.clients;
    metrics->gauges = *gauges;
    metrics->gauges.clients = clients;
    pthread_mutex_unlock(&metrics->lock);
}

void dm_metrics_get(dm_metrics *metrics, dm_gauges *gauges) {
    pthread_mutex_lock(&metrics->lock);
    *gauges = metrics->gauges;
    pthread_mutex_unlock(&metrics->lock);
}

void dm_metrics_count_client(dm_metrics *metrics, int change) {
    pthread_mutex_lock(&metrics->lock);
    metrics->gauges.clients += change;
    pthread_mutex_unlock(&metrics->lock);
}

/* ---- Writing ---- */

static void write_head(FILE *out, const char *name, const char *type, const char *help) {
    fprintf(out, "# HELP dilmodeli_%s %s\n# TYPE dilmodeli_%s %s\n", name, help, name, type);
}

static void write_counter(FILE *out, const char *name, const char *help, uint64_t value) {
    write_head(out, name, "counter", help);
    fprintf(out, "dilmodeli_%s %" PRIu64 "\n", name, value);
}

static void write_gauge(FILE *out, const char *name, const char *help, double value) {
    write_head(out, name, "gauge", help);
    fprintf(out, "dilmodeli_%s %.10g\n", name, value);
}

static void write_histogram(FILE *out, const char *name, const char *help, const dm_histogram *it) {
    uint64_t below = 0;
    write_head(out, name, "histogram", help);
    for (size_t i = 0; i < DM_METRICS_BUCKETS; i++) {
        below += it->counts[i];
        fprintf(out, "dilmodeli_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i], below);
    }
    below += it->counts[DM_METRICS_BUCKETS];
    fprintf(out, "dilmodeli_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, below);
    fprintf(out, "dilmodeli_%s_sum %.9g\ndilmodeli_%s_count %" PRIu64 "\n", name, it->sum, name, below);
}

static void write_requests(FILE *out, const dm_metrics *metrics) {
    write_head(out, "requests_total", "counter", "Requests answered, by HTTP status.");
    for (int status = 0; status < DM_METRICS_CODES; status++) {
        if (metrics->requests[status] > 0) {
            fprintf(out, "dilmodeli_requests_total{code=\"%d\"} %" PRIu64 "\n", status, metrics->requests[status]);
        }
    }
}

static void write_routing(FILE *out, const dm_gauges *gauges) {
    const dm_routing_stats *routing = &gauges->routing;
    write_gauge(out, "experts_per_step", "Different experts of a layer that a forward pass read, in the mean.",
                routing->experts_per_step);
    write_gauge(out, "decode_experts_per_step", "The same of steps that decode.", gauges->decode_experts);
    write_gauge(out, "decode_sequences_per_step", "Sequences in such a step, in the mean.", gauges->decode_rows);
    write_gauge(out, "experts_per_token", "Experts of a layer that a token used, in the mean.", routing->experts_per_token);
    if (!isnan(routing->hit_rate)) {
        write_gauge(out, "expert_cache_hit_rate", "Share of the experts' bytes asked for that were in memory.",
                    routing->hit_rate);
    }
    if (gauges->stream.experts > 0) {
        write_counter(out, "expert_read_bytes_total", "Bytes of experts read from disk.", gauges->stream.read);
        write_gauge(out, "expert_slots", "Experts that there is memory for.", (double)gauges->stream.slots);
    }
}

static void write_all(FILE *out, const dm_metrics *metrics) {
    const dm_gauges *gauges = &metrics->gauges;
    write_requests(out, metrics);
    write_counter(out, "cancelled_total", "Answers that nobody waited for any more.", metrics->cancelled);
    write_counter(out, "prompt_tokens_total", "Tokens of prompts.", metrics->prompt_tokens);
    write_counter(out, "prompt_known_tokens_total", "Those of them that a slot knew already.", metrics->known_tokens);
    write_counter(out, "generated_tokens_total", "Tokens made.", metrics->generated_tokens);
    write_counter(out, "steps_total", "Steps of decoding.", metrics->steps);
    write_gauge(out, "slots", "Sequences that can be decoded at a time.", gauges->slots);
    write_gauge(out, "slots_busy", "Those of them that are in use.", gauges->busy);
    write_gauge(out, "queue", "Answers that wait for a slot.", gauges->waiting);
    write_gauge(out, "clients", "Connections.", gauges->clients);
    write_routing(out, gauges);
    write_histogram(out, "first_token_seconds", "From a request's arrival to its first token.", &metrics->first_token);
    write_histogram(out, "step_seconds", "A step of decoding.", &metrics->per_token);
    write_histogram(out, "request_seconds", "From a request's arrival to its end.", &metrics->whole);
}

dm_status dm_metrics_write(dm_metrics *metrics, char **text, size_t *length) {
    *text = NULL;
    FILE *out = open_memstream(text, length);
    if (out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for metrics");
    }
    pthread_mutex_lock(&metrics->lock);
    write_all(out, metrics);
    pthread_mutex_unlock(&metrics->lock);
    return fclose(out) == 0 ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory for metrics");
}
