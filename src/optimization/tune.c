/* Which number of threads, and which number of sequences decoded together, suits a model and this machine: measured. */
#include <math.h>

#include "base/status.h"
#include "dilmodeli.h"

static const double AS_FAST = 1.02; /* of the least time: fewer threads leave cores to others */
static const double AS_MUCH = 0.95; /* of the most tokens a second: fewer sequences answer sooner */
enum { MOST_SEQUENCES = 16, STEP = 2 };

typedef struct tuning {
    const dm_model *model;
    const dm_bench_options *options;
    dm_tune_fn on_point;
    void *user;
    dm_tune_result *result;
} tuning;

static dm_status use_threads(int32_t threads) {
    dm_set_threads(threads);
    return dm_bind_threads(DM_BIND_AUTO);
}

static dm_status measure(tuning *it, int32_t threads, int32_t sequences, bool prefill) {
    dm_tune_point *point = &it->result->measured[it->result->points];
    dm_bench_options how = *it->options;
    dm_bench_result found;
    *point = (dm_tune_point){.threads = threads, .sequences = sequences, .prefill_tps = NAN, .decode_tps = NAN};
    if (it->on_point != NULL) {
        it->on_point(it->user, point);
    }
    how.sequences = sequences;
    how.prompt = prefill ? how.prompt : 0;
    how.limits = false;
    DM_TRY(dm_bench(it->model, &how, &found));
    point->prefill_tps = found.prefill.tps;
    point->decode_tps = found.decode.tps;
    it->result->points++;
    return DM_OK;
}

/* Of reading the prompt and decoding after it. */
static double seconds_of(const tuning *it, const dm_tune_point *point) {
    return it->options->prompt / point->prefill_tps + it->options->decode / point->decode_tps;
}

static dm_status find_threads(tuning *it, int32_t most) {
    dm_tune_result *r = it->result;
    double least = INFINITY;
    for (int32_t threads = 1;; threads = threads * STEP < most ? threads * STEP : most) {
        DM_TRY(use_threads(threads));
        DM_TRY(measure(it, threads, 1, true));
        least = fmin(least, seconds_of(it, &r->measured[r->points - 1]));
        if (threads == most) {
            break;
        }
    }
    for (int32_t i = r->points - 1; i >= 0; i--) {
        r->threads = seconds_of(it, &r->measured[i]) <= AS_FAST * least ? r->measured[i].threads : r->threads;
    }
    return use_threads(r->threads);
}

static dm_status find_sequences(tuning *it) {
    dm_tune_result *r = it->result;
    const int32_t first = r->points;
    const dm_tune_point *chosen = r->measured;
    while (chosen->threads != r->threads) {
        chosen++;
    }
    double most = chosen->decode_tps;
    for (int32_t n = STEP; n <= MOST_SEQUENCES; n *= STEP) {
        DM_TRY(measure(it, r->threads, n, false));
        most = fmax(most, r->measured[r->points - 1].decode_tps);
    }
    for (int32_t i = first; i < r->points && chosen->decode_tps < AS_MUCH * most; i++) {
        chosen = &r->measured[i];
    }
    r->sequences = chosen->sequences;
    return DM_OK;
}

dm_status dm_tune(const dm_model *model, const dm_bench_options *options, dm_tune_fn on_point, void *user,
                  dm_tune_result *result) {
    tuning it = {model, options, on_point, user, result};
    *result = (dm_tune_result){0};
    if (options->prompt < 1 || options->decode < 1) {
        return dm_fail(DM_ERR_ARGUMENT, "%d tokens to read and %d to decode tune nothing, expected 1 or more of both",
                       options->prompt, options->decode);
    }
    const int32_t threads = dm_threads();
    dm_status status = find_threads(&it, threads);
    status = status == DM_OK ? find_sequences(&it) : status;
    if (status != DM_OK) {
        dm_set_threads(threads);
    }
    return status;
}
