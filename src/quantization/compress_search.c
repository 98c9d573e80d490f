/* The smallest file that loses no more than it may: bisection over bits per weight, a compression and an evaluation each. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/threads.h"
#include "quantization/compress_way.h"

static const double START = 4.0;             /* bits per weight */
static const double LARGEST = 64.0;          /* more than there is: all get the most */
static const double RESOLUTION = 1.0 / 16.0; /* where bisection ends */
static const double MOST = 9.0;              /* about what panels and blocks have */
enum { STEPS_UP = 2 };                       /* of a bit, before the largest */

typedef struct search {
    const char *to;
    char *trial; /* name of the file that is evaluated */
    dm_compress_options options;
    const dm_compress_limit *limit;
    dm_compress_trial_fn on_trial;
    dm_model *original;
    dm_compressor compressor;
    dm_compress_outcome best; /* of the chosen trial */
    double low, high;         /* bits per weight that are too few, and those of the chosen trial */
    double trying;            /* seconds that trials took */
    dm_compress_search *result;
} search;

/* ---- One trial ----------------------------------------------------------- */

static dm_status evaluate(const search *s, const dm_model *model, const dm_model *base, dm_evaluate_result *out) {
    const dm_compress_limit *l = s->limit;
    const dm_evaluate_options how = {.context = l->context};
    DM_TRY(dm_evaluate(model, base, l->tokenizer, l->ids, l->n, &how, NULL, NULL, out));
    return out->interrupted ? dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written") : DM_OK;
}

/* The file has no name while it is evaluated: it is gone when the process is. */
static dm_status judge(search *s, dm_compress_outcome *outcome, dm_compress_trial *trial) {
    dm_model *model = NULL;
    dm_status status = dm_compressor_write(&s->compressor, outcome, s->trial);
    status = status == DM_OK ? dm_model_open(s->trial, &model) : status;
    unlink(s->trial);
    const bool kl = s->limit->loss == DM_LOSS_KL;
    status = status == DM_OK ? evaluate(s, model, kl ? s->original : NULL, &trial->evaluation) : status;
    dm_model_close(model);
    trial->loss = kl ? trial->evaluation.kl_mean : trial->evaluation.perplexity / s->result->perplexity - 1.0;
    return status;
}

static double left(const search *s) {
    const double distance = (s->result->chosen >= 0 ? s->high : MOST) - s->low;
    return ceil(log2(fmax(distance, RESOLUTION) / RESOLUTION)) * s->trying / s->result->trials;
}

static void count_trial(search *s, dm_compress_outcome *outcome, double seconds) {
    dm_compress_search *r = s->result;
    const dm_compress_trial *trial = &r->tried[r->trials];
    if (trial->possible && trial->loss <= s->limit->most) {
        dm_compress_outcome_close(&s->best);
        s->best = *outcome;
        *outcome = (dm_compress_outcome){0};
        s->high = fmin(trial->bpw, trial->result.bpw);
        r->chosen = r->trials;
    } else {
        r->bound = s->low = fmax(s->low, trial->bpw);
    }
    r->trials++;
    s->trying += seconds;
    r->seconds_left = left(s);
    if (s->on_trial != NULL) {
        s->on_trial(s->options.user, r);
    }
}

static dm_status look(search *s, double bpw) {
    const double start = dm_seconds();
    dm_compress_trial *trial = &s->result->tried[s->result->trials];
    dm_compress_outcome outcome = {0};
    *trial = (dm_compress_trial){.bpw = bpw, .loss = NAN};
    s->options.bpw = bpw;
    dm_status status = dm_compressor_solve(&s->compressor, s->to, &outcome);
    trial->possible = status != DM_ERR_ARGUMENT; /* it is too small for any file */
    if (status == DM_OK) {
        status = judge(s, &outcome, trial);
        trial->result = outcome.result;
        trial->result.seconds = dm_seconds() - start;
    }
    if (status == DM_OK || !trial->possible) {
        status = DM_OK;
        count_trial(s, &outcome, dm_seconds() - start);
    }
    dm_compress_outcome_close(&outcome);
    return status;
}

/* ---- The search ---------------------------------------------------------- */

static bool is_within(const search *s) {
    return s->result->chosen == s->result->trials - 1;
}

/* One bound is within then and the other is not, or is 0. */
static dm_status bracket(search *s) {
    double bpw = START;
    DM_TRY(look(s, bpw));
    if (is_within(s)) {
        while (is_within(s) && bpw > 1.0) {
            DM_TRY(look(s, bpw -= 1.0));
        }
        return DM_OK;
    }
    for (int i = 0; i < STEPS_UP && !is_within(s); i++) {
        DM_TRY(look(s, bpw += 1.0));
    }
    if (!is_within(s)) {
        DM_TRY(look(s, LARGEST));
    }
    return DM_OK;
}

static dm_status search_all(search *s) {
    dm_compress_search *r = s->result;
    DM_TRY(bracket(s));
    if (r->chosen < 0) {
        const dm_compress_trial *largest = &r->tried[r->trials - 1];
        return s->limit->loss == DM_LOSS_KL
                   ? dm_fail(DM_ERR_ARGUMENT,
                             "even at %.2f bits per weight, the most there is, the divergence is %.3g nats, above %g",
                             largest->result.bpw, largest->loss, s->limit->most)
                   : dm_fail(DM_ERR_ARGUMENT,
                             "even at %.2f bits per weight, the most there is, %.3g%% of perplexity is lost, above %g%%",
                             largest->result.bpw, 100.0 * largest->loss, 100.0 * s->limit->most);
    }
    while (s->high - s->low > 1.001 * RESOLUTION && r->trials < DM_COMPRESS_TRIALS) {
        DM_TRY(look(s, 0.5 * (s->low + s->high)));
    }
    dm_compress_trial *chosen = &r->tried[r->chosen];
    DM_TRY(dm_compressor_write(&s->compressor, &s->best, s->to));
    chosen->result.bytes_out = s->best.result.bytes_out;
    return DM_OK;
}

/* ---- What is asked for --------------------------------------------------- */

static dm_status check(const search *s) {
    const dm_compress_limit *l = s->limit;
    const dm_compress_options *o = &s->options;
    if (o->bpw != 0.0 || o->bytes != 0 || o->width != 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a search for the size has none given: neither bits, bytes nor a width");
    }
    if (!(l->most >= 0.0) || !isfinite(l->most) || (l->loss == DM_LOSS_PERPLEXITY && l->most >= 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "%g is no loss to stay within: expected 0 or more, a share of perplexity below 1",
                       l->most);
    }
    dm_compress_options sized = *o;
    sized.bpw = START;
    return dm_compress_check(&sized, s->to);
}

static dm_status open(search *s, const char *from) {
    dm_evaluate_result original;
    const size_t room = strlen(s->to) + 32;
    s->trial = malloc(room);
    if (s->trial == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory");
    }
    snprintf(s->trial, room, "%s.trial-%ld", s->to, (long)getpid());
    DM_TRY(dm_model_open(from, &s->original));
    DM_TRY(evaluate(s, s->original, NULL, &original));
    s->result->perplexity = original.perplexity;
    s->options.bpw = START;
    return dm_compressor_open(&s->compressor, from, s->to, &s->options);
}

dm_status dm_compress_within(const char *from, const char *to, const dm_compress_options *options, const dm_compress_limit *limit,
                             dm_compress_trial_fn on_trial, dm_compress_search *result) {
    const double start = dm_seconds();
    search s = {.to = to, .options = *options, .limit = limit, .on_trial = on_trial, .result = result};
    *result = (dm_compress_search){.chosen = -1};
    DM_TRY(check(&s));
    dm_status status = open(&s, from);
    status = status == DM_OK ? search_all(&s) : status;
    dm_compress_outcome_close(&s.best);
    dm_compressor_close(&s.compressor);
    dm_model_close(s.original);
    free(s.trial);
    result->seconds = dm_seconds() - start;
    return status;
}
