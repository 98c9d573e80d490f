#include "quantization/calibration_noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/vector.h"
#include "model/evaluation.h"
#include "model/session.h"

static const double NOISE = 0.05; /* of a matrix's root mean square: what 4 bits do; small against curvature */
enum { MOST_LOGITS = 1 << 26 };   /* floats of a pass, twice */

/* ---- What to measure ---- */

typedef struct matrices {
    int32_t layer;
    dm_role role;
} matrices;

static bool is_there(const dm_config *config, int32_t layer, dm_role role) {
    return (role == DM_OUTPUT) == (layer < 0) && dm_calibration_rows(config, role) > 0;
}

/* Number `index` of all, layer by layer; past the last, the count is in *index. */
static bool find(const dm_config *config, size_t *index, matrices *out) {
    size_t at = 0;
    for (int32_t layer = -1; layer < config->n_layers; layer++) {
        for (int role = 0; role < DM_ROLES; role++) {
            if (!is_there(config, layer, (dm_role)role)) {
                continue;
            }
            if (at++ == *index) {
                *out = (matrices){layer, (dm_role)role};
                return true;
            }
        }
    }
    *index = at;
    return false;
}

static size_t count(const dm_config *config) {
    size_t n = SIZE_MAX;
    matrices none;
    find(config, &n, &none);
    return n;
}

size_t dm_calibration_noise_passes(const dm_config *config) {
    return count(config) + 1;
}

static size_t windows_for(const dm_calibration_job *job, uint64_t tokens) {
    const size_t length = job->windows->length, fit = MOST_LOGITS / (size_t)job->model->config.vocab / length;
    const uint64_t wanted = (tokens + length - 1) / length, most = fit > 0 ? fit : 1;
    const uint64_t some = wanted < most ? wanted : most;
    return some < job->windows->count ? (size_t)some : job->windows->count;
}

/* The number of window `i` of n among all. */
static size_t window_of(const dm_calibration_job *job, size_t i, size_t n) {
    return (size_t)((uint64_t)i * job->windows->count / n);
}

uint64_t dm_calibration_noise_tokens(const dm_calibration_job *job, uint64_t tokens) {
    const size_t n = windows_for(job, tokens);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += dm_calibration_window(job->windows, window_of(job, i, n), NULL);
    }
    return sum;
}

/* ---- Passes ---- */

typedef struct noise {
    dm_calibration_job *job;
    const char *path; /* of the part */
    dm_calibration_slopes slopes;
    const dm_calibration_slopes *shape; /* slopes by rows, which are scaled to what is measured; NULL: one number a matrix */
    const char *method;
    dm_observer observer;
    dm_session *session;
    double *traces; /* [slots] sum over tokens of gate^2 |x|^2, in the first pass */
    bool first;
    int32_t *ids;
    size_t windows;
    uint64_t tokens, seed;
    float *base, *logits; /* [tokens, vocab], [window, vocab] */
    double divergence;    /* sum over the tokens of a pass */
} noise;

static dm_status see(void *user, const dm_observation *seen) {
    noise *n = user;
    const size_t slot = dm_calibration_slot_of(n->slopes.config, seen->layer, seen->role, seen->expert);
    for (size_t i = 0; i < seen->n && n->first; i++) {
        const float *x = seen->x + (seen->rows != NULL ? (size_t)seen->rows[i] : i) * seen->columns;
        const double gate = seen->gates != NULL ? (double)seen->gates[i] : 1.0;
        n->traces[slot] += gate * gate * dm_vector()->sum_squares(x, seen->columns);
    }
    return DM_OK;
}

/* Logits of all windows: the first pass keeps them, later ones compare theirs. */
static dm_status read_windows(noise *n) {
    const size_t vocab = (size_t)n->job->model->config.vocab;
    float *base = n->base;
    n->divergence = 0.0;
    for (size_t i = 0; i < n->windows; i++) {
        const size_t tokens = dm_calibration_window(n->job->windows, window_of(n->job, i, n->windows), n->ids);
        float *logits = n->first ? base : n->logits;
        dm_session_truncate(n->session, 0);
        DM_TRY(dm_session_feed(n->session, n->ids, (int32_t)tokens, true, logits));
        for (size_t t = 0; t < tokens && !n->first; t++) {
            n->divergence += dm_evaluation_divergence(base + t * vocab, logits + t * vocab, vocab);
        }
        base += tokens * vocab;
    }
    return DM_OK;
}

/* y = the matrices of a role, one after another, as float32. */
static void widen(const dm_weights *weights, dm_role role, size_t copies, float *y) {
    const dm_weight *all = &weights->matrices[role];
    if (weights->apart[role] == NULL) {
        dm_weight_widen(y, all);
        return;
    }
    for (size_t e = 0; e < copies; e++) {
        const dm_weight *one = &weights->apart[role][e];
        dm_weight_widen(y + e * one->rows * one->columns, one);
    }
}

/* Adds noise to n numbers; returns its mean square. */
static double disturb(float *y, size_t n, uint64_t seed) {
    const double size = NOISE * sqrt(dm_vector()->sum_squares(y, n) / (double)n);
    dm_random random;
    double squares = 0.0;
    dm_random_seed(&random, seed);
    for (size_t i = 0; i < n; i++) {
        const double d = size * dm_random_normal(&random);
        squares += d * d;
        y[i] = (float)((double)y[i] + d);
    }
    return squares / (double)n;
}

/* The slot of copy `e` of the matrices. */
static size_t slot_of(const noise *n, const matrices *m, size_t e) {
    return dm_calibration_slot_of(n->slopes.config, m->layer, m->role, dm_role_is_expert(m->role) ? (int32_t)e : -1);
}

/* Noise of mean square s in all rows of all copies makes an error of s trace in each row, summed over the tokens; half of the
 * slopes times those is the divergence. */
static void note(const noise *n, const matrices *m, double mean_square) {
    const dm_config *config = n->slopes.config;
    const size_t rows = dm_calibration_rows(config, m->role), copies = dm_calibration_copies(config, m->role);
    float *sums = n->slopes.sums + dm_calibration_slopes_at(config, m->layer, m->role, 0);
    double expected = 0.0; /* with the sums as they are */
    for (size_t e = 0; e < copies; e++) {
        const size_t slot = slot_of(n, m, e);
        double slopes = 0.0;
        for (size_t r = 0; r < rows; r++) {
            slopes += (double)sums[e * rows + r];
        }
        expected += n->slopes.squares[slot] > 0.0 ? 0.5 * mean_square * n->traces[slot] * slopes / n->slopes.squares[slot] : 0.0;
    }
    const double scale = expected > 0.0 && n->divergence > 0.0 ? n->divergence / expected : 0.0;
    for (size_t i = 0; i < rows * copies; i++) {
        sums[i] = (float)(scale * (double)sums[i]);
    }
}

/* One pass with noise in the matrices, which the session then has again as they were. */
static dm_status measure(noise *n, size_t index, const matrices *m) {
    dm_weights *weights = m->layer < 0 ? &n->session->global : &n->session->layers[m->layer];
    const dm_weight kept = weights->matrices[m->role];
    const dm_weight *apart = weights->apart[m->role];
    const size_t copies = dm_calibration_copies(n->slopes.config, m->role);
    const size_t rows = dm_calibration_rows(n->slopes.config, m->role) * copies, floats = rows * kept.columns;
    float *y = dm_alloc(floats, sizeof *y);
    if (y == NULL) {
        return DM_ERR_MEMORY;
    }
    widen(weights, m->role, copies, y);
    const double mean_square = disturb(y, floats, dm_random_mix(n->seed + index));
    weights->matrices[m->role] = (dm_weight){.data = y, .type = DM_TYPE_F32, .rows = rows, .columns = kept.columns};
    weights->apart[m->role] = NULL;
    dm_status status = read_windows(n);
    weights->matrices[m->role] = kept;
    weights->apart[m->role] = apart;
    dm_free(y);
    if (status == DM_OK) {
        note(n, m, mean_square);
    }
    return status;
}

/* ---- The whole ---- */

static dm_status set_up(noise *n) {
    const dm_model *model = n->job->model;
    const size_t vocab = (size_t)model->config.vocab, length = n->job->windows->length;
    const dm_session_options options = {.context = (int32_t)length, .cache = DM_CACHE_F32};
    n->observer = (dm_observer){see, n, model->config.n_layers};
    n->traces = dm_alloc(dm_calibration_slots(&model->config), sizeof *n->traces);
    n->ids = dm_alloc(length, sizeof *n->ids);
    n->base = dm_alloc((size_t)n->tokens * vocab, sizeof *n->base);
    n->logits = dm_alloc(length * vocab, sizeof *n->logits);
    if (n->traces == NULL || n->ids == NULL || n->base == NULL || n->logits == NULL) {
        return DM_ERR_MEMORY;
    }
    return dm_session_create_observed(model, &options, &n->observer, &n->session);
}

static dm_status save(const noise *n, uint64_t done) {
    n->job->saved = dm_seconds();
    return dm_calibration_write_slopes(n->path, &n->job->origin, &n->slopes, n->method, done);
}

static dm_status run(noise *n, size_t done) {
    const size_t all = count(n->slopes.config);
    n->first = true;
    DM_TRY(read_windows(n));
    n->first = false;
    dm_calibration_step(n->job, "slopes", n->tokens);
    for (size_t i = done; i < all; i++) {
        size_t index = i;
        matrices m = {0};
        find(n->slopes.config, &index, &m);
        dm_status status = measure(n, i, &m);
        if (status == DM_ERR_INTERRUPTED) {
            DM_TRY(save(n, i));
        }
        DM_TRY(status);
        const bool due = dm_calibration_step(n->job, "slopes", n->tokens), last = i + 1 == all;
        if (due || last || dm_interrupted()) {
            DM_TRY(save(n, i + 1));
        }
        if (dm_interrupted() && !last) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted; the same command goes on from here");
        }
    }
    return DM_OK;
}

/* Slopes to be scaled: those by rows, or 1 for all. */
static dm_status begin(noise *n) {
    const dm_config *config = &n->job->model->config;
    const size_t slots = dm_calibration_slots(config), rows = dm_calibration_slopes_count(config);
    DM_TRY(dm_calibration_slopes_create(config, &n->slopes));
    if (n->shape != NULL) {
        memcpy(n->slopes.sums, n->shape->sums, rows * sizeof *n->slopes.sums);
        memcpy(n->slopes.squares, n->shape->squares, slots * sizeof *n->slopes.squares);
        memcpy(n->slopes.visits, n->shape->visits, slots * sizeof *n->slopes.visits);
        return DM_OK;
    }
    for (size_t i = 0; i < slots; i++) {
        n->slopes.squares[i] = 1.0;
    }
    for (size_t i = 0; i < rows; i++) {
        n->slopes.sums[i] = 1.0F;
    }
    return DM_OK;
}

static dm_status resume(noise *n, uint64_t *done) {
    *done = 0;
    DM_TRY(begin(n));
    if (access(n->path, F_OK) != 0) {
        return DM_OK;
    }
    if (dm_calibration_read_slopes(n->path, &n->job->origin, &n->slopes, n->method, done) == DM_OK &&
        *done <= count(n->slopes.config)) {
        dm_calibration_skip(n->job, *done * n->tokens);
        return DM_OK;
    }
    dm_log("starting over: %s", dm_error_message());
    dm_calibration_slopes_free(&n->slopes);
    *done = 0;
    return begin(n);
}

dm_status dm_calibration_noise(dm_calibration_job *job, uint64_t tokens, uint64_t seed, const dm_calibration_slopes *shape) {
    if (job->model->streaming != NULL) {
        return dm_fail(DM_ERR_UNSUPPORTED, "slopes are measured with all experts in memory, not with --memory or --ram for them");
    }
    char *path = dm_calibration_part(job, shape != NULL ? DM_CALIBRATION_SCALED : DM_CALIBRATION_SLOPES);
    noise n = {.job = job, .path = path, .seed = seed, .windows = windows_for(job, tokens)};
    n.shape = shape;
    n.method = shape != NULL ? "scaled" : "measured";
    n.tokens = dm_calibration_noise_tokens(job, tokens);
    uint64_t done = 0;
    dm_status status = path != NULL ? resume(&n, &done) : DM_ERR_MEMORY;
    if (status == DM_OK && done < count(&job->model->config)) {
        status = set_up(&n);
        status = status == DM_OK ? run(&n, (size_t)done) : status;
    }
    dm_session_free(n.session);
    dm_calibration_slopes_free(&n.slopes);
    dm_free(n.traces);
    dm_free(n.ids);
    dm_free(n.base);
    dm_free(n.logits);
    free(path);
    return status;
}
