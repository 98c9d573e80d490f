/*
 * Speed of a model: a prompt read round after round, then tokens fed one by one
 * to one sequence or several, from the same depth each round. What is fed is
 * given text, so that the choice of experts is a real one.
 */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/spread.h"
#include "base/threads.h"
#include "dilmodeli.h"
#include "model/repack.h"
#include "model/session.h"
#include "optimization/limits.h"
#include "optimization/memory_use.h"
#include "optimization/token_cost.h"

enum { MOST_ROUNDS = 1000, MOST_SEQUENCES = 1000 };

/* ---- Speeds ---- */

/* What rounds took. */
typedef struct laps {
    double tps[MOST_ROUNDS];
    int32_t rounds;
    double seconds, tokens; /* in all */
} laps;

static void add_lap(laps *it, double seconds, double tokens) {
    it->tps[it->rounds++] = tokens / seconds;
    it->seconds += seconds;
    it->tokens += tokens;
}

static dm_bench_speed speed_of(laps *it, const dm_times *times) {
    const dm_spread spread = dm_spread_of(it->tps, (size_t)it->rounds);
    dm_bench_speed speed = {
        .tps = spread.median, .slowest = spread.least, .fastest = spread.most, .seconds = it->seconds / it->tokens};
    for (int i = 0; i < DM_OPERATIONS; i++) {
        speed.times[i] = times->seconds[i] / it->tokens;
    }
    return speed;
}

/* ---- Rounds ---- */

typedef struct bench {
    const dm_bench_options *options;
    dm_session **sessions; /* [sequences]; the first one lends its scratch to all passes */
    size_t *at;            /* [sequences] in the text */
    int32_t *counts, *ids; /* [sequences] of one step: 1 each, and the tokens */
    float *logits;         /* [sequences, vocab] */
    laps laps;
} bench;

/* The next n tokens of the text for one sequence at once; the text begins anew when it ends. */
static dm_status feed(bench *b, size_t sequence, int32_t n) {
    const dm_bench_options *o = b->options;
    while (n > 0) {
        size_t at = b->at[sequence] % o->n_ids, left = o->n_ids - at;
        int32_t m = left < (size_t)n ? (int32_t)left : n;
        DM_TRY(dm_session_feed(b->sessions[sequence], o->ids + at, m, false, b->logits));
        b->at[sequence] += (size_t)m;
        n -= m;
    }
    return DM_OK;
}

static dm_status prefill(bench *b) {
    dm_session_truncate(b->sessions[0], 0);
    return feed(b, 0, b->options->prompt);
}

/* Leaves each sequence with as many tokens as decoding begins after. */
static dm_status deepen(bench *b) {
    for (size_t i = 0; i < (size_t)b->options->sequences; i++) {
        if (dm_session_length(b->sessions[i]) > b->options->depth) {
            dm_session_truncate(b->sessions[i], b->options->depth);
        }
        DM_TRY(feed(b, i, b->options->depth - dm_session_length(b->sessions[i])));
    }
    return DM_OK;
}

static dm_status decode(bench *b) {
    const dm_bench_options *o = b->options;
    size_t n = (size_t)o->sequences;
    for (int32_t step = 0; step < o->decode; step++) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted");
        }
        for (size_t i = 0; i < n; i++) {
            b->ids[i] = o->ids[b->at[i]++ % o->n_ids];
        }
        DM_TRY(dm_session_feed_many(b->sessions, b->counts, n, b->ids, b->logits));
    }
    return DM_OK;
}

/* All rounds of one kind, each of so many tokens; the first one warms the caches and is not counted. */
static dm_status measure(bench *b, dm_status (*prepare)(bench *), dm_status (*work)(bench *), double tokens) {
    dm_session *first = b->sessions[0];
    b->laps = (laps){0};
    for (int32_t i = -1; i < b->options->rounds; i++) {
        if (prepare != NULL) {
            DM_TRY(prepare(b));
        }
        if (i <= 0) { /* what is counted begins */
            first->times = (dm_times){.on = true};
            first->experts_read = first->passes = first->pass_tokens = first->asked = first->hit = 0;
        }
        double start = dm_seconds();
        DM_TRY(work(b));
        if (i >= 0) {
            add_lap(&b->laps, dm_seconds() - start, tokens);
        }
    }
    return DM_OK;
}

/* ---- The whole ---- */

static void judge(dm_bench_result *result) {
    dm_limits limits;
    dm_machine_limits(&limits);
    result->fp32_gops = limits.fp32_gops;
    result->bf16_gops = limits.bf16_gops;
    result->int8_gops = limits.int8_gops;
    result->int8_vector_gops = limits.int8_vector_gops;
    result->read_gb_s = limits.read_gb_s;
}

/* What a decoded token costs, of which some is shared by the sequences of a step. */
static void add_costs(const bench *b, dm_bench_result *result) {
    const dm_bench_options *o = b->options;
    const dm_session *first = b->sessions[0];
    const dm_config *c = &first->model->config;
    dm_token_cost cost = dm_token_cost_of(first->model);
    double steps = (double)o->rounds * o->decode, sequences = o->sequences;
    double experts = steps > 0 ? (double)first->experts_read / steps : (double)c->n_layers * c->top_k * sequences;
    double seen = o->depth + 0.5 * (o->decode + 1);
    seen = c->window > 0 && seen > c->window ? c->window : seen;
    result->bytes_per_token = (cost.shared_bytes + experts * cost.expert_bytes) / sequences;
    result->cache_bytes_per_token = seen * (double)dm_kv_cache_position_bytes(&first->cache);
    result->experts_per_step = c->n_experts > 0 ? experts / c->n_layers : 0;
    result->decode_operations = cost.decode_operations;
    result->prefill_operations = cost.prefill_operations;
}

static dm_status check(const dm_model *model, const dm_bench_options *o) {
    if (o->n_ids == 0 || o->ids == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "a bench needs tokens to feed");
    }
    if (o->prompt < 0 || o->decode < 0 || o->depth < 0 || o->depth > INT32_MAX - o->decode ||
        (o->prompt == 0 && o->decode == 0)) {
        return dm_fail(DM_ERR_ARGUMENT, "%d tokens to read and %d to decode after %d make no bench", o->prompt, o->decode,
                       o->depth);
    }
    if (o->sequences < 1 || o->sequences > MOST_SEQUENCES) {
        return dm_fail(DM_ERR_ARGUMENT, "%d sequences make no bench; 1 to %d do", o->sequences, MOST_SEQUENCES);
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

static int32_t longest(const dm_bench_options *o) {
    return o->prompt > o->depth + o->decode ? o->prompt : o->depth + o->decode;
}

static dm_status make_sessions(const dm_model *model, bench *b) {
    const dm_session_options how = {.context = longest(b->options), .cache = b->options->cache, .router = b->options->router};
    size_t n = (size_t)b->options->sequences;
    b->sessions = dm_alloc(n, sizeof(dm_session *));
    b->at = dm_alloc(n, sizeof *b->at);
    b->counts = dm_alloc(n, sizeof *b->counts);
    b->ids = dm_alloc(n, sizeof *b->ids);
    b->logits = dm_alloc(n * (size_t)model->config.vocab, sizeof *b->logits);
    if (b->sessions == NULL || b->at == NULL || b->counts == NULL || b->ids == NULL || b->logits == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        b->at[i] = i * b->options->n_ids / n;
        b->counts[i] = 1;
        DM_TRY(dm_session_create_with(model, &how, &b->sessions[i]));
    }
    if (model->streaming == NULL) {
        dm_repack_all_experts(model);
    }
    return DM_OK;
}

static dm_status run(const dm_model *model, bench *b, dm_bench_result *result) {
    const dm_bench_options *o = b->options;
    double start = dm_seconds();
    DM_TRY(make_sessions(model, b));
    result->load_s = dm_seconds() - start;
    result->prefill = result->decode = (dm_bench_speed){NAN, NAN, NAN, NAN, {0}};
    if (o->prompt > 0) {
        DM_TRY(measure(b, NULL, prefill, o->prompt));
        result->prefill = speed_of(&b->laps, &b->sessions[0]->times);
    }
    if (o->decode > 0) {
        DM_TRY(measure(b, deepen, decode, (double)o->decode * o->sequences));
        result->decode = speed_of(&b->laps, &b->sessions[0]->times);
    }
    add_costs(b, result);
    dm_memory_use(b->sessions, (size_t)o->sequences, (size_t)longest(o), &result->memory);
    result->peak_rss = dm_peak_rss();
    dm_sessions_routing(b->sessions, (size_t)b->options->sequences, &result->routing);
    return DM_OK;
}

static void clean_up(bench *b) {
    for (int32_t i = 0; b->sessions != NULL && i < b->options->sequences; i++) {
        dm_session_free(b->sessions[i]);
    }
    dm_free(b->sessions);
    dm_free(b->at);
    dm_free(b->counts);
    dm_free(b->ids);
    dm_free(b->logits);
}

dm_status dm_bench(const dm_model *model, const dm_bench_options *options, dm_bench_result *result) {
    *result = (dm_bench_result){0};
    DM_TRY(check(model, options));
    bench b = {.options = options};
    dm_status status = run(model, &b, result);
    clean_up(&b);
    DM_TRY(status);
    if (options->limits) {
        judge(result);
    }
    return DM_OK;
}
