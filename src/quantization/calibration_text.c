/* Text that the model draws itself, to calibrate on where there is none (Liu et al. 2023, LLM-QAT; Williams and Aletras 2024). */
#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/vector.h"
#include "model/session.h"
#include "quantization/calibration_windows.h"

enum { TOGETHER = 16 }; /* sequences that are drawn side by side */

typedef struct drawing {
    const dm_model *model;
    dm_session *sessions[TOGETHER];
    int32_t counts[TOGETHER], next[TOGETHER];
    float *logits; /* [TOGETHER, vocab] */
    dm_random random;
    int32_t bos;    /* -1: sequences begin with a token drawn evenly */
    size_t context; /* tokens of a sequence */
    int32_t *ids;   /* [n] */
    size_t n, done;
    double started;
    dm_calibrate_fn on_step;
    void *user;
} drawing;

/* A token by its logits, which become probabilities. */
static int32_t draw(drawing *d, float *logits) {
    const size_t vocab = (size_t)d->model->config.vocab;
    dm_vector()->softmax(logits, vocab);
    double left = dm_random_uniform(&d->random);
    size_t at = 0;
    while (at + 1 < vocab && left >= (double)logits[at]) {
        left -= (double)logits[at++];
    }
    return (int32_t)at;
}

static void report(const drawing *d) {
    if (d->on_step != NULL) {
        const double speed = (double)d->done / (dm_seconds() - d->started);
        const dm_calibrate_progress progress = {"text", d->done, d->n, (double)(d->n - d->done) / speed};
        d->on_step(d->user, &progress);
    }
}

/* Up to TOGETHER sequences, one after another in ids; fewer and shorter at the end. */
static dm_status draw_sequences(drawing *d) {
    const size_t left = d->n - d->done, most = (left + d->context - 1) / d->context, vocab = (size_t)d->model->config.vocab;
    const size_t some = most < TOGETHER ? most : TOGETHER, length = left < d->context ? left : d->context;
    int32_t *ids = d->ids + d->done;
    const size_t room = left < some * length ? left : some * length;
    for (size_t i = 0; i < some; i++) {
        dm_session_truncate(d->sessions[i], 0);
        d->counts[i] = 1;
        d->next[i] = d->bos >= 0 ? d->bos : (int32_t)(dm_random_next(&d->random) % vocab);
    }
    for (size_t t = 0; t < length; t++) {
        for (size_t i = 0; i < some; i++) {
            if (i * length + t < room) {
                ids[i * length + t] = d->next[i];
            }
        }
        if (t + 1 < length) {
            DM_TRY(dm_session_feed_many(d->sessions, d->counts, some, d->next, d->logits));
        }
        for (size_t i = 0; i < some && t + 1 < length; i++) {
            d->next[i] = draw(d, d->logits + i * vocab);
        }
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted while the model drew its text");
        }
    }
    d->done += room;
    report(d);
    return DM_OK;
}

static dm_status set_up(drawing *d) {
    const dm_session_options options = {.context = (int32_t)d->context};
    d->logits = dm_alloc(TOGETHER * (size_t)d->model->config.vocab, sizeof *d->logits);
    d->ids = malloc(d->n * sizeof *d->ids);
    if (d->logits == NULL || d->ids == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a text of %zu tokens", d->n);
    }
    for (size_t i = 0; i < TOGETHER; i++) {
        DM_TRY(dm_session_create_with(d->model, &options, &d->sessions[i]));
    }
    return DM_OK;
}

dm_status dm_calibrate_generate(const dm_model *model, const dm_tokenizer *tokenizer, size_t n, int32_t context, uint64_t seed,
                                dm_calibrate_fn on_step, void *user, int32_t **ids) {
    *ids = NULL;
    if (n == 0 || n > INT32_MAX || context < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a text of %zu tokens in sequences of %d cannot be drawn", n, context);
    }
    drawing d = {.model = model, .bos = -1, .n = n, .started = dm_seconds(), .on_step = on_step, .user = user};
    d.context = dm_calibration_context(model, context);
    d.bos = tokenizer != NULL ? dm_tokenizer_bos(tokenizer) : -1;
    dm_random_seed(&d.random, seed);
    dm_status status = set_up(&d);
    while (status == DM_OK && d.done < n) {
        status = draw_sequences(&d);
    }
    for (size_t i = 0; i < TOGETHER; i++) {
        dm_session_free(d.sessions[i]);
    }
    dm_free(d.logits);
    if (status != DM_OK) {
        free(d.ids);
        return status;
    }
    *ids = d.ids;
    return DM_OK;
}
