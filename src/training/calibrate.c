/* A calibration from its options to its file: the moments of inputs, then the slopes of outputs. */
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/threads.h"
#include "model/fingerprint.h"
#include "optimization/memory_limit.h"
#include "quantization/calibration.h"
#include "quantization/calibration_noise.h"
#include "training/output_slopes.h"

enum { MEASURED_TOKENS = 1024, SCALED_TOKENS = 512, CHECKPOINT_SECONDS = 60 };

/* ---- How slopes are found ---- */

static bool fits(const dm_config *config) {
    dm_memory memory;
    dm_memory_limit("", &memory);
    return memory.usable == 0 || dm_output_slopes_bytes(config) < memory.usable / 2;
}

static dm_slopes resolve(const dm_model *model, dm_slopes asked) {
    if (asked != DM_SLOPES_AUTO) {
        return asked;
    }
    if (dm_output_slopes_check(&model->config) == DM_OK && fits(&model->config)) {
        return model->streaming == NULL ? DM_SLOPES_SCALED : DM_SLOPES_GRADIENT;
    }
    return model->streaming == NULL ? DM_SLOPES_MEASURED : DM_SLOPES_NONE;
}

/* Tokens read for them. */
static uint64_t slope_tokens(const dm_calibration_job *job, dm_slopes slopes, uint64_t tokens) {
    switch (slopes) {
    case DM_SLOPES_SCALED:
    case DM_SLOPES_GRADIENT:
        return dm_output_slopes_tokens(job->windows, tokens);
    case DM_SLOPES_MEASURED:
        return dm_calibration_noise_tokens(job, tokens < MEASURED_TOKENS ? tokens : MEASURED_TOKENS);
    default:
        return 0;
    }
}

static dm_status by_gradient(dm_calibration_job *job, uint64_t tokens, uint64_t seed) {
    return dm_output_slopes(job, tokens, seed, dm_matmul_bf16_native() ? DM_PRECISION_BF16 : DM_PRECISION_F32);
}

/* Those by the gradient, scaled. */
static dm_status scale(dm_calibration_job *job, uint64_t seed) {
    dm_calibration_slopes shape = {0};
    char *path = dm_calibration_part(job, DM_CALIBRATION_SLOPES);
    uint64_t done;
    dm_status status = path != NULL ? dm_calibration_slopes_create(&job->model->config, &shape) : DM_ERR_MEMORY;
    status = status == DM_OK ? dm_calibration_read_slopes(path, &job->origin, &shape, "gradient", &done) : status;
    status = status == DM_OK ? dm_calibration_noise(job, SCALED_TOKENS, seed, &shape) : status;
    dm_calibration_slopes_free(&shape);
    free(path);
    return status;
}

static dm_status find_slopes(dm_calibration_job *job, dm_slopes slopes, uint64_t tokens, uint64_t seed) {
    switch (slopes) {
    case DM_SLOPES_SCALED:
        DM_TRY(by_gradient(job, tokens, seed));
        return scale(job, seed);
    case DM_SLOPES_GRADIENT:
        return by_gradient(job, tokens, seed);
    case DM_SLOPES_MEASURED:
        return dm_calibration_noise(job, tokens, seed, NULL);
    default:
        return DM_OK;
    }
}

static const char *name_of(dm_slopes slopes) {
    static const char *const names[] = {"none", "auto", "scaled", "gradient", "measured"};
    return names[slopes];
}

/* ---- The whole ---- */

static dm_status write_imatrix(const dm_model *model, const char *statistics, const char *path) {
    dm_calibration *calibration;
    dm_imatrix imatrix;
    DM_TRY(dm_calibration_open(statistics, model, &calibration));
    dm_status status = dm_calibration_diagonals(calibration, &imatrix);
    dm_calibration_close(calibration);
    DM_TRY(status);
    status = dm_imatrix_write(path, &model->config, &imatrix);
    dm_imatrix_free(&imatrix);
    return status;
}

/* What the parts of this calibration are told by: all that the numbers in them depend on. */
static dm_status set_origin(dm_calibration_job *job, dm_slopes slopes, uint64_t tokens, uint64_t seed) {
    uint64_t hash;
    DM_TRY(dm_calibration_windows_hash(job->windows, &hash));
    const uint64_t choices[] = {(uint64_t)slopes, tokens, seed};
    job->origin = (dm_calibration_origin){.model = dm_model_fingerprint(job->model),
                                          .text = dm_hash_bytes(choices, sizeof choices, hash),
                                          .tokens = dm_calibration_windows_tokens(job->windows),
                                          .windows = job->windows->count};
    return DM_OK;
}

/* Whether a run before this one wrote the whole file. */
static bool is_there(const dm_calibration_job *job) {
    dm_calibration *calibration = NULL;
    const bool there = access(job->out, F_OK) == 0 && dm_calibration_check_origin(job->out, &job->origin) == DM_OK &&
                       dm_calibration_open(job->out, job->model, &calibration) == DM_OK;
    dm_calibration_close(calibration);
    return there;
}

static dm_status measure(dm_calibration_job *job, dm_slopes slopes, uint64_t tokens, uint64_t seed) {
    const size_t parts[] = {[DM_SLOPES_SCALED] = DM_CALIBRATION_SCALED,
                            [DM_SLOPES_GRADIENT] = DM_CALIBRATION_SLOPES,
                            [DM_SLOPES_MEASURED] = DM_CALIBRATION_SLOPES,
                            [DM_SLOPES_NONE] = 0};
    if (is_there(job)) {
        dm_calibration_skip(job, job->total);
        return DM_OK;
    }
    DM_TRY(dm_calibration_measure(job));
    DM_TRY(find_slopes(job, slopes, tokens, seed));
    DM_TRY(dm_calibration_finish(job, parts[slopes]));
    dm_calibration_clear(job);
    return DM_OK;
}

static dm_status run(dm_calibration_job *job, const dm_calibrate_options *options, dm_calibrate_result *result) {
    const dm_slopes slopes = resolve(job->model, options->slopes);
    const uint64_t tokens = slope_tokens(job, slopes, options->slope_tokens > 0 ? options->slope_tokens : 8192);
    const size_t passes = dm_calibration_noise_passes(&job->model->config);
    if (slopes == DM_SLOPES_GRADIENT || slopes == DM_SLOPES_SCALED) {
        DM_TRY(dm_output_slopes_check(&job->model->config)); /* before an hour's work */
    }
    DM_TRY(set_origin(job, slopes, tokens, options->seed));
    result->tokens = job->origin.tokens;
    result->slope_tokens = tokens;
    result->windows = job->windows->count;
    result->passes = (uint32_t)dm_calibration_groups(job);
    result->slopes = name_of(slopes);
    job->total = result->passes * job->origin.tokens + (slopes == DM_SLOPES_MEASURED ? passes : 1) * tokens +
                 (slopes == DM_SLOPES_SCALED ? passes * dm_calibration_noise_tokens(job, SCALED_TOKENS) : 0);
    DM_TRY(measure(job, slopes, tokens, options->seed));
    return options->imatrix != NULL ? write_imatrix(job->model, job->out, options->imatrix) : DM_OK;
}

static dm_status check(const dm_model *model, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, int32_t context) {
    if (context < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "windows of %d tokens make no sense; expected 1 or more, or 0 for 512", context);
    }
    if (tokenizer != NULL && dm_tokenizer_vocab(tokenizer) != model->config.vocab) {
        return dm_fail(DM_ERR_ARGUMENT, "the tokenizer has %d tokens, the model %d", dm_tokenizer_vocab(tokenizer),
                       model->config.vocab);
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= model->config.vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "token id %d (number %zu) is outside the vocabulary of %d", ids[i], i + 1,
                           model->config.vocab);
        }
    }
    return DM_OK;
}

dm_status dm_calibrate(const dm_model *model, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, const char *out,
                       const dm_calibrate_options *options, dm_calibrate_result *result) {
    const dm_calibrate_options how = options != NULL ? *options : (dm_calibrate_options){0};
    dm_calibrate_result own = {0};
    dm_calibration_windows windows;
    const double started = dm_seconds();
    DM_TRY(check(model, tokenizer, ids, n, how.context));
    const int32_t bos = tokenizer != NULL && dm_tokenizer_adds_bos(tokenizer) ? dm_tokenizer_bos(tokenizer) : -1;
    DM_TRY(dm_calibration_windows_create(ids, n, bos, dm_calibration_context(model, how.context),
                                         how.tokens > 0 ? how.tokens : 32768, how.seed, &windows));
    dm_calibration_job job = {.model = model,
                              .out = out,
                              .windows = &windows,
                              .memory = how.memory > 0 ? how.memory : 1000000000,
                              .every = CHECKPOINT_SECONDS,
                              .on_step = how.on_step,
                              .user = how.user,
                              .started = started,
                              .saved = started};
    dm_status status = run(&job, &how, &own);
    dm_calibration_windows_free(&windows);
    own.seconds = dm_seconds() - started;
    own.resumed_tokens = job.skipped;
    if (result != NULL) {
        *result = own;
    }
    return status;
}
