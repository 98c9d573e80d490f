/*
 * The tokens to predict are drawn from the model's own predictions, so that the mean squares are the diagonal of the Fisher
 * information, which is the curvature of the KL divergence from the model; with those of a text they would be that only for a
 * model that predicts the text perfectly.
 */
#include "training/output_slopes.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "training/network.h"

enum { BATCH_TOKENS = 1024, COLUMNS_TOGETHER = 64 };

/* ---- Which windows ---- */

/* Windows of full length. */
static size_t full_windows(const dm_calibration_windows *windows) {
    const bool last = dm_calibration_window(windows, windows->count - 1, NULL) == windows->length;
    return windows->count - !last;
}

static size_t wanted_windows(const dm_calibration_windows *windows, uint64_t tokens) {
    const size_t full = full_windows(windows);
    const uint64_t wanted = (tokens + windows->length - 1) / windows->length;
    return wanted < full ? (size_t)wanted : full;
}

uint64_t dm_output_slopes_tokens(const dm_calibration_windows *windows, uint64_t tokens) {
    return (uint64_t)wanted_windows(windows, tokens) * windows->length;
}

/* ---- What is seen ---- */

/* Columns begin .. end - 1 of sums += squares of the gradients. */
static void add_columns(const dm_gradient_seen *seen, size_t begin, size_t end, float *sums) {
    float squares[COLUMNS_TOGETHER] = {0.0f};
    for (size_t i = 0; i < seen->n; i++) {
        const float *dy = dm_row(seen->dy, i) + begin;
        const float gate = seen->before_gates ? seen->gates[i] : 1.0f;
        for (size_t c = 0; c < end - begin; c++) {
            const float slope = gate * dy[c];
            squares[c] += slope * slope;
        }
    }
    for (size_t c = 0; c < end - begin; c++) {
        sums[begin + c] += squares[c];
    }
}

/* Counts the tokens of a slot, by the one matrix of those that share it which is named as the slot is. */
static void count(const dm_calibration_slopes *slopes, const dm_gradient_seen *seen) {
    const size_t slot = dm_calibration_slot_of(slopes->config, seen->layer, seen->role, seen->expert);
    if (dm_calibration_slot_at(slopes->config, slot).role != seen->role) {
        return;
    }
    slopes->visits[slot] += seen->n;
    for (size_t i = 0; i < seen->n; i++) {
        slopes->squares[slot] += seen->gates != NULL ? (double)seen->gates[i] * (double)seen->gates[i] : 1.0;
    }
}

static void see(void *user, const dm_gradient_seen *seen) {
    const dm_calibration_slopes *slopes = user;
    float *sums = slopes->sums + dm_calibration_slopes_at(slopes->config, seen->layer, seen->role, seen->expert);
    count(slopes, seen);
#pragma omp parallel for schedule(static)
    for (size_t begin = 0; begin < seen->columns; begin += COLUMNS_TOGETHER) {
        const size_t end = seen->columns - begin < COLUMNS_TOGETHER ? seen->columns : begin + COLUMNS_TOGETHER;
        add_columns(seen, begin, end, sums);
    }
}

/* ---- The passes ---- */

/* Experts that are tensors of their own are trained as a stack. */
static dm_config stacked(const dm_config *config) {
    dm_config c = *config;
    c.extra &= ~(uint32_t)DM_PART_APART;
    return c;
}

dm_status dm_output_slopes_check(const dm_config *config) {
    const dm_config c = stacked(config);
    return dm_parameters_check(&c);
}

uint64_t dm_output_slopes_bytes(const dm_config *config) {
    return 2 * sizeof(float) * dm_config_params(config);
}

typedef struct passes {
    dm_calibration_job *job;
    const char *path; /* of the part */
    dm_calibration_slopes slopes;
    dm_config config;
    dm_parameters parameters;
    dm_network *network;
    int32_t *ids, *targets; /* [each * length] */
    size_t windows, each;   /* in all, and at a time */
    uint64_t seed, tokens;
} passes;

static dm_status set_up(passes *p, dm_precision precision) {
    const size_t length = p->job->windows->length;
    p->each = length < BATCH_TOKENS ? BATCH_TOKENS / length : 1;
    p->ids = dm_alloc(p->each * length, sizeof *p->ids);
    p->targets = dm_alloc(p->each * length, sizeof *p->targets); /* which are drawn */
    if (p->ids == NULL || p->targets == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(dm_parameters_create(&p->config, DM_FOR_GRADIENTS, &p->parameters));
    dm_parameters_copy(&p->parameters, p->job->model);
    return dm_network_create(&p->parameters, p->each, length, precision, NULL, &p->network);
}

/* Windows first .. first + n - 1 of those wanted. */
static dm_status pass(passes *p, size_t first, size_t n) {
    const dm_calibration_windows *windows = p->job->windows;
    const size_t full = full_windows(windows);
    double loss;
    for (size_t i = 0; i < n; i++) {
        const size_t index = (size_t)((uint64_t)(first + i) * full / p->windows);
        dm_calibration_window(windows, index, p->ids + i * windows->length);
    }
    const dm_gradient_watch watch = {see, &p->slopes, dm_random_mix(p->seed) + (uint64_t)first * windows->length};
    dm_network_watch(p->network, &watch);
    dm_status status = dm_network_gradients(p->network, p->ids, p->targets, n, 1.0f, 0.0, &loss);
    dm_network_watch(p->network, NULL);
    return status;
}

static dm_status save(const passes *p, uint64_t done) {
    p->job->saved = dm_seconds();
    return dm_calibration_write_slopes(p->path, &p->job->origin, &p->slopes, "gradient", done);
}

static dm_status run(passes *p, uint64_t done) {
    for (size_t first = done; first < p->windows; first += p->each) {
        const size_t n = p->windows - first < p->each ? p->windows - first : p->each;
        DM_TRY(pass(p, first, n));
        const bool due = dm_calibration_step(p->job, "slopes", n * p->job->windows->length), last = first + n == p->windows;
        if (due || last || dm_interrupted()) {
            DM_TRY(save(p, first + n));
        }
        if (dm_interrupted() && !last) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted; the same command goes on from here");
        }
    }
    return DM_OK;
}

/* What a run before this one found. */
static dm_status resume(passes *p, uint64_t *done) {
    *done = 0;
    DM_TRY(dm_calibration_slopes_create(&p->job->model->config, &p->slopes));
    if (access(p->path, F_OK) != 0) {
        return DM_OK;
    }
    if (dm_calibration_read_slopes(p->path, &p->job->origin, &p->slopes, "gradient", done) == DM_OK && *done <= p->windows) {
        dm_calibration_skip(p->job, *done * p->job->windows->length);
        return DM_OK;
    }
    dm_log("starting over: %s", dm_error_message());
    dm_calibration_slopes_free(&p->slopes);
    *done = 0;
    return dm_calibration_slopes_create(&p->job->model->config, &p->slopes);
}

dm_status dm_output_slopes(dm_calibration_job *job, uint64_t tokens, uint64_t seed, dm_precision precision) {
    char *path = dm_calibration_part(job, DM_CALIBRATION_SLOPES);
    passes p = {.job = job, .path = path, .config = stacked(&job->model->config), .seed = seed, .tokens = tokens};
    uint64_t done;
    p.windows = wanted_windows(job->windows, tokens);
    dm_status status = path != NULL ? resume(&p, &done) : DM_ERR_MEMORY;
    if (status == DM_OK && done < p.windows) {
        status = set_up(&p, precision);
        status = status == DM_OK ? run(&p, done) : status;
    }
    dm_network_free(p.network);
    dm_parameters_free(&p.parameters);
    dm_calibration_slopes_free(&p.slopes);
    dm_free(p.ids);
    dm_free(p.targets);
    free(path);
    return status;
}
