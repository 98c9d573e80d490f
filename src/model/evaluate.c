/* Perplexity, bits per byte and distance from a base model, over windows of a token sequence. */
#include <math.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/vector.h"
#include "model/evaluation.h"

enum { CHUNK_FLOATS = 1 << 23, CHUNK_TOKENS = 256, MOST_SEQUENCES = 1024 };

/* Logarithm of the sum of exp(logits[vocab]). */
static double log_sum_exp(const float *logits, size_t vocab) {
    double peak = (double)dm_vector()->max(logits, vocab);
    double total = 0.0;
    for (size_t i = 0; i < vocab; i++) {
        total += (double)expf(logits[i] - (float)peak);
    }
    return peak + log(total);
}

static size_t best(const float *logits, size_t vocab) {
    size_t at = 0;
    for (size_t i = 1; i < vocab; i++) {
        at = logits[i] > logits[at] ? i : at;
    }
    return at;
}

/* KL(base || model) = sum p (log p - log q), with the logarithms of both sums known. */
static double divergence(const float *base, double base_sum, const float *logits, double sum, size_t vocab) {
    double total = 0.0;
    for (size_t i = 0; i < vocab; i++) {
        double log_p = (double)base[i] - base_sum;
        total += (double)expf((float)log_p) * (log_p - ((double)logits[i] - sum));
    }
    return total;
}

double dm_evaluation_divergence(const float *base, const float *logits, size_t vocab) {
    return divergence(base, log_sum_exp(base, vocab), logits, log_sum_exp(logits, vocab), vocab);
}

static void score_position(const dm_evaluation *e, size_t row, int32_t target, double *scores) {
    const float *logits = e->logits + row * e->vocab;
    double sum = log_sum_exp(logits, e->vocab);
    scores[0] = sum - (double)logits[target];
    if (e->base != NULL) {
        const float *base = e->base_logits + row * e->vocab;
        scores[1] = divergence(base, log_sum_exp(base, e->vocab), logits, sum, e->vocab);
        scores[2] = best(base, e->vocab) == best(logits, e->vocab) ? 1.0 : 0.0;
    }
}

const int32_t *dm_evaluation_token(const dm_evaluation *e, const dm_session *session, size_t at) {
    return at > 0 && dm_session_length(session) == 0 && e->bos >= 0 ? &e->bos : e->ids + at;
}

dm_status dm_evaluation_feed(const dm_evaluation *e, dm_session *session, size_t first, size_t m, float *logits) {
    const int32_t *begin = dm_evaluation_token(e, session, first);
    if (begin == e->ids + first) {
        return dm_session_feed(session, begin, (int32_t)m, logits != NULL, logits);
    }
    DM_TRY(dm_session_feed(session, begin, 1, logits != NULL, logits));
    float *rest = logits != NULL ? logits + e->vocab : NULL;
    return m > 1 ? dm_session_feed(session, e->ids + first + 1, (int32_t)m - 1, logits != NULL, rest) : DM_OK;
}

typedef struct scoring {
    dm_evaluation *e;
    const int32_t *targets; /* [rows] */
} scoring;

static void score_body(void *user, size_t begin, size_t end, int thread) {
    const scoring *it = user;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        score_position(it->e, row, it->targets[row], it->e->scores + 3 * row);
    }
}

void dm_evaluation_score(dm_evaluation *e, const int32_t *targets, size_t m) {
    scoring it = {e, targets};
    dm_parallel(dm_threads(), m, 1, score_body, &it);
    for (size_t row = 0; row < m; row++) { /* in order: the sum does not depend on the threads */
        e->nll += e->scores[3 * row];
        e->kl += e->scores[3 * row + 1];
        e->agreed += e->scores[3 * row + 2];
        size_t bytes = 0;
        if (e->tokenizer != NULL) {
            dm_tokenizer_bytes(e->tokenizer, targets[row], &bytes);
        }
        e->result->bytes += bytes;
        e->result->tokens++;
    }
}

/* ---- One sequence -------------------------------------------------------- */

/* Feeds m ids from `first` on and scores what they say about their successors. */
static dm_status evaluate_chunk(dm_evaluation *e, size_t first, size_t m) {
    DM_TRY(dm_evaluation_feed(e, e->session, first, m, e->logits));
    if (e->base != NULL) {
        DM_TRY(dm_evaluation_feed(e, e->base, first, m, e->base_logits));
    }
    dm_evaluation_score(e, e->ids + first + 1, m);
    return DM_OK;
}

/* A window feeds ids start .. end - 1 and scores ids from .. end. */
static dm_status evaluate_window(dm_evaluation *e, size_t start, size_t end, size_t from) {
    const size_t context = from - 1 - start; /* tokens that come first and are context only */
    dm_session_truncate(e->session, 0);
    if (e->base != NULL) {
        dm_session_truncate(e->base, 0);
    }
    if (context > 0) {
        DM_TRY(dm_evaluation_feed(e, e->session, start, context, NULL));
        DM_TRY(e->base != NULL ? dm_evaluation_feed(e, e->base, start, context, NULL) : DM_OK);
    }
    for (size_t first = from - 1; first < end; first += e->chunk) {
        DM_TRY(evaluate_chunk(e, first, end - first < e->chunk ? end - first : e->chunk));
    }
    return DM_OK;
}

/* ---- The whole ----------------------------------------------------------- */

static void finish(const dm_evaluation *e) {
    dm_evaluate_result *r = e->result;
    double tokens = r->tokens > 0 ? (double)r->tokens : 1.0;
    r->nll = e->nll / tokens;
    r->perplexity = exp(r->nll);
    r->bits_per_byte = r->bytes > 0 ? e->nll / log(2.0) / (double)r->bytes : 0.0;
    r->kl_mean = e->kl / tokens;
    r->top1_agreement = e->agreed / tokens;
    dm_sessions_routing(e->sessions, e->sequences, &r->routing);
}

static dm_status evaluate_all(dm_evaluation *e, size_t context, size_t overlap, dm_evaluate_fn on_window, void *user) {
    size_t last = e->n - 1; /* fed by nobody: it is only predicted */
    size_t scored = 1;      /* first id that no window has predicted yet */
    for (size_t start = 0; scored <= last; start += context - overlap) {
        size_t end = start + context < last ? start + context : last;
        DM_TRY(evaluate_window(e, start, end, scored));
        scored = end + 1;
        if (on_window != NULL) {
            on_window(user, e->result->tokens, last, e->nll / (double)e->result->tokens);
        }
        if (dm_interrupted() && scored <= last) {
            e->result->interrupted = true;
            break;
        }
    }
    return DM_OK;
}

static dm_status open_sessions(dm_evaluation *e, const dm_model *model, const dm_session_options *options) {
    e->sessions = dm_alloc(e->sequences, sizeof(dm_session *));
    if (e->sessions == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < e->sequences; i++) {
        DM_TRY(dm_session_create_with(model, options, &e->sessions[i]));
    }
    e->session = e->sessions[0];
    return DM_OK;
}

static dm_status open_trace(dm_evaluation *e, const dm_model *model, const char *path) {
    const dm_config *c = &model->config;
    if (c->n_experts == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "this model has no experts: there is nothing to trace");
    }
    const dm_trace_shape shape = {c->n_layers, c->n_experts, (uint64_t)llround(dm_session_expert_bytes(e->session))};
    DM_TRY(dm_trace_create(path, &shape, (size_t)e->session->batch * (size_t)c->top_k, &e->trace));
    for (size_t i = 0; i < e->sequences; i++) {
        e->sessions[i]->trace = e->trace;
    }
    return DM_OK;
}

/* The trace takes its place where the evaluation has succeeded, as far as it came. */
static dm_status close_trace(dm_evaluation *e, dm_status status) {
    dm_trace_writer *trace = e->trace;
    e->trace = NULL;
    if (trace != NULL && status == DM_OK) {
        return dm_trace_commit(trace);
    }
    dm_trace_abandon(trace);
    return status;
}

static dm_status prepare(dm_evaluation *e, const dm_model *model, const dm_model *base, const dm_session_options *options,
                         bool side_by_side) {
    e->vocab = (size_t)model->config.vocab;
    e->chunk = CHUNK_FLOATS / e->vocab;
    e->chunk = e->chunk < 8 ? 8 : e->chunk > CHUNK_TOKENS ? CHUNK_TOKENS : e->chunk;
    e->chunk = side_by_side ? e->sequences : e->chunk;
    DM_TRY(open_sessions(e, model, options));
    if (base != NULL) {
        DM_TRY(dm_session_create(base, options->context, &e->base));
        e->base_logits = dm_alloc(e->chunk * e->vocab, sizeof *e->base_logits);
    }
    e->logits = dm_alloc(e->chunk * e->vocab, sizeof *e->logits);
    e->scores = dm_alloc(e->chunk * 3, sizeof *e->scores);
    return e->logits == NULL || e->scores == NULL || (base != NULL && e->base_logits == NULL) ? DM_ERR_MEMORY : DM_OK;
}

static void close(dm_evaluation *e) {
    for (size_t i = 0; e->sessions != NULL && i < e->sequences; i++) {
        dm_session_free(e->sessions[i]);
    }
    dm_session_free(e->base);
    dm_free(e->sessions);
    dm_free(e->logits);
    dm_free(e->base_logits);
    dm_free(e->scores);
}

static dm_status check_sequences(const dm_model *base, int32_t sequences, size_t n) {
    if (sequences < 0 || sequences > MOST_SEQUENCES || (size_t)sequences >= n) {
        return dm_fail(DM_ERR_ARGUMENT, "%d sequences side by side: expected 0 to %d, each of two tokens or more", sequences,
                       MOST_SEQUENCES);
    }
    if (sequences > 0 && base != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "a base model is compared with one sequence at a time, not with %d side by side",
                       sequences);
    }
    return DM_OK;
}

static dm_status check(const dm_model *model, const dm_model *base, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n,
                       int32_t context, int32_t overlap) {
    if (n < 2) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu tokens are too few to evaluate on; 2 or more are needed", n);
    }
    if (context < 1 || overlap < 0 || overlap >= context) {
        return dm_fail(DM_ERR_ARGUMENT, "windows of %d tokens of which %d overlap cannot be used; the overlap is the smaller one",
                       context, overlap);
    }
    for (size_t i = 0; i < n; i++) { /* before anything is computed */
        if (ids[i] < 0 || ids[i] >= model->config.vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "token id %d (number %zu) is outside the vocabulary of %d", ids[i], i + 1,
                           model->config.vocab);
        }
    }
    if (base != NULL && base->config.vocab != model->config.vocab) {
        return dm_fail(DM_ERR_ARGUMENT, "the base model has a vocabulary of %d, this one of %d: they cannot be compared",
                       base->config.vocab, model->config.vocab);
    }
    if (tokenizer != NULL && dm_tokenizer_vocab(tokenizer) != model->config.vocab) {
        return dm_fail(DM_ERR_ARGUMENT, "the tokenizer has %d tokens, the model %d", dm_tokenizer_vocab(tokenizer),
                       model->config.vocab);
    }
    return DM_OK;
}

dm_status dm_evaluate(const dm_model *model, const dm_model *base, const dm_tokenizer *tokenizer, const int32_t *ids, size_t n,
                      const dm_evaluate_options *options, dm_evaluate_fn on_window, void *user, dm_evaluate_result *result) {
    *result = (dm_evaluate_result){0};
    int32_t context = options->context != 0 ? options->context : model->config.context;
    DM_TRY(check(model, base, tokenizer, ids, n, context, options->overlap));
    DM_TRY(check_sequences(base, options->sequences, n));
    if ((size_t)context > n) {
        context = (int32_t)n;
    }
    int32_t overlap = options->overlap < context ? options->overlap : 0;
    dm_evaluation e = {.tokenizer = tokenizer, .ids = ids, .n = n, .bos = -1, .result = result};
    e.sequences = options->sequences > 1 ? (size_t)options->sequences : 1;
    if (tokenizer != NULL && dm_tokenizer_adds_bos(tokenizer)) {
        e.bos = dm_tokenizer_bos(tokenizer);
    }
    const dm_session_options how = {.context = context, .cache = options->cache, .router = options->router};
    dm_status status = prepare(&e, model, base, &how, options->sequences > 0);
    const double start = dm_seconds();
    if (status == DM_OK && options->trace != NULL) {
        status = open_trace(&e, model, options->trace);
    }
    if (status == DM_OK) {
        status = options->sequences > 0 ? dm_evaluate_side_by_side(&e, (size_t)context, (size_t)overlap, on_window, user)
                                        : evaluate_all(&e, (size_t)context, (size_t)overlap, on_window, user);
        if (status == DM_ERR_INTERRUPTED && result->tokens > 0) { /* in a piece of a window: what was scored stands */
            result->interrupted = true;
            status = DM_OK;
        }
    }
    result->seconds = dm_seconds() - start;
    status = close_trace(&e, status);
    if (status == DM_OK) {
        finish(&e);
    }
    close(&e);
    return status;
}
