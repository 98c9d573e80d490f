/*
 * Speed of a model: prompts read and tokens fed one by one, round after round.
 * What is fed is given text, so that the choice of experts is a real one.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "dilmodeli.h"
#include "model/repack.h"
#include "optimization/limits.h"

enum { MOST_ROUNDS = 1000 };

/* ---- What a token costs ---- */

static bool is_expert_role(dm_role role) {
    return role == DM_FFN_GATE_EXPS || role == DM_FFN_UP_EXPS || role == DM_FFN_DOWN_EXPS;
}

/* Adds what one token reads of a tensor, and the multiplications that it does with it. */
static void add_tensor(const dm_model *model, const dm_tensor *tensor, dm_role role, dm_bench_result *result) {
    if (tensor->data == NULL || role == DM_POSITION_EMBD || role == DM_TOKEN_EMBD) {
        return; /* a row of these */
    }
    const dm_config *c = &model->config;
    double matrices = (double)tensor->dims[2];
    if (is_expert_role(role)) {
        matrices = (double)c->top_k;
    }
    double weights = matrices * (double)tensor->dims[0] * (double)tensor->dims[1];
    double rows = matrices * (double)tensor->dims[1];
    result->bytes_per_token += rows * (double)dm_type_bytes(tensor->type, tensor->dims[0]);
    if (tensor->dims[1] > 1) {
        result->decode_operations += 2 * weights;
        result->prefill_operations += role == DM_OUTPUT ? 0 : 2 * weights; /* only the last token is put out */
    }
}

static void add_costs(const dm_model *model, dm_bench_result *result) {
    for (int role = 0; role < DM_ROLES; role++) {
        add_tensor(model, &model->tensors[role], (dm_role)role, result);
        for (int32_t l = 0; l < model->config.n_layers; l++) {
            add_tensor(model, &model->layers[l].tensors[role], (dm_role)role, result);
        }
    }
}

/* ---- Rounds ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_size);
    return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

typedef struct rounds {
    dm_session *session;
    const dm_bench_options *options;
    float *logits; /* [vocab] */
    size_t at;     /* in the text */
    double *prefill, *decode;
} rounds;

/* The next tokens of the text, which begins anew when it ends. */
static dm_status feed(rounds *r, int32_t n) {
    const dm_bench_options *o = r->options;
    while (n > 0) {
        size_t left = o->n_ids - r->at % o->n_ids;
        int32_t m = left < (size_t)n ? (int32_t)left : n;
        DM_TRY(dm_session_feed(r->session, o->ids + r->at % o->n_ids, m, false, r->logits));
        r->at += (size_t)m;
        n -= m;
    }
    return DM_OK;
}

static dm_status one_round(rounds *r, double *prefill, double *decode) {
    const dm_bench_options *o = r->options;
    dm_session_truncate(r->session, 0);
    double start = dm_seconds();
    DM_TRY(feed(r, o->prompt));
    double middle = dm_seconds();
    for (int32_t i = 0; i < o->decode; i++) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted");
        }
        DM_TRY(feed(r, 1));
    }
    *prefill = o->prompt / (middle - start);
    *decode = o->decode / (dm_seconds() - middle);
    return DM_OK;
}

static dm_status all_rounds(rounds *r, dm_bench_result *result) {
    const dm_bench_options *o = r->options;
    double ignored[2];
    DM_TRY(one_round(r, &ignored[0], &ignored[1])); /* warms the caches */
    for (int32_t i = 0; i < o->rounds; i++) {
        DM_TRY(one_round(r, &r->prefill[i], &r->decode[i]));
    }
    size_t n = (size_t)o->rounds;
    result->prefill_tps = o->prompt > 0 ? median(r->prefill, n) : NAN;
    result->prefill_slowest = o->prompt > 0 ? r->prefill[0] : NAN;
    result->prefill_fastest = o->prompt > 0 ? r->prefill[n - 1] : NAN;
    result->decode_tps = o->decode > 0 ? median(r->decode, n) : NAN;
    result->decode_slowest = o->decode > 0 ? r->decode[0] : NAN;
    result->decode_fastest = o->decode > 0 ? r->decode[n - 1] : NAN;
    return DM_OK;
}

static void judge(dm_bench_result *result) {
    dm_limits limits;
    dm_machine_limits(&limits);
    result->fp32_gops = limits.fp32_gops;
    result->bf16_gops = limits.bf16_gops;
    result->int8_gops = limits.int8_gops;
    result->int8_vector_gops = limits.int8_vector_gops;
    result->read_gb_s = limits.read_gb_s;
}

static dm_status check(const dm_model *model, const dm_bench_options *o) {
    if (o->n_ids == 0 || o->ids == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "a bench needs tokens to feed");
    }
    if (o->prompt < 0 || o->decode < 0 || o->prompt > INT32_MAX - o->decode || o->prompt + o->decode == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%d tokens to read and %d to decode make no bench", o->prompt, o->decode);
    }
    if (o->rounds < 1 || o->rounds > MOST_ROUNDS) {
        return dm_fail(DM_ERR_ARGUMENT, "%d rounds make no bench; 1 to %d do", o->rounds, MOST_ROUNDS);
    }
    for (size_t i = 0; i < o->n_ids; i++) {
        if (o->ids[i] < 0 || o->ids[i] >= model->config.vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "token id %d (number %zu) is outside the vocabulary of %d", o->ids[i], i + 1,
                           model->config.vocab);
        }
    }
    return DM_OK;
}

static dm_status run(const dm_model *model, const dm_bench_options *options, rounds *r, dm_bench_result *result) {
    size_t n = (size_t)options->rounds;
    r->logits = dm_alloc((size_t)model->config.vocab, sizeof *r->logits);
    r->prefill = dm_alloc(n, sizeof *r->prefill);
    r->decode = dm_alloc(n, sizeof *r->decode);
    if (r->logits == NULL || r->prefill == NULL || r->decode == NULL) {
        return DM_ERR_MEMORY;
    }
    double start = dm_seconds();
    DM_TRY(dm_session_create(model, options->prompt + options->decode, &r->session));
    dm_repack_all_experts(model);
    result->load_s = dm_seconds() - start;
    DM_TRY(all_rounds(r, result));
    dm_session_routing(r->session, &result->routing);
    return DM_OK;
}

dm_status dm_bench(const dm_model *model, const dm_bench_options *options, dm_bench_result *result) {
    *result = (dm_bench_result){0};
    DM_TRY(check(model, options));
    rounds r = {.options = options};
    dm_status status = run(model, options, &r, result);
    dm_session_free(r.session);
    dm_free(r.logits);
    dm_free(r.prefill);
    dm_free(r.decode);
    DM_TRY(status);
    result->peak_rss = dm_peak_rss();
    add_costs(model, result);
    if (options->limits) {
        judge(result);
    }
    return DM_OK;
}
