/* What the ways of reading a text for evaluation share. */
#ifndef DM_MODEL_EVALUATION_H
#define DM_MODEL_EVALUATION_H

#include "model/session.h"

typedef struct dm_evaluation {
    dm_session **sessions; /* [sequences] */
    dm_session *session;   /* the first of them */
    dm_session *base;      /* NULL: none */
    const dm_tokenizer *tokenizer;
    const int32_t *ids;
    size_t n;
    size_t sequences;       /* 1 or more */
    dm_trace_writer *trace; /* NULL: none */
    int32_t bos;            /* what a window of a text starts with, -1: nothing of its own */
    size_t vocab;
    size_t chunk;           /* tokens whose logits are held at a time, at least as many as sequences */
    float *logits;          /* [chunk, vocab] */
    float *base_logits;     /* [chunk, vocab] */
    double *scores;         /* [chunk, 3]: nats, KL, 1 where the best tokens agree */
    double nll, kl, agreed; /* sums */
    dm_evaluate_result *result;
} dm_evaluation;

/* What is fed for a token of the text: a window that does not begin the text has its first token replaced by the one that
 * begins a text, where the vocabulary asks for that: models that know it lean on it. */
const int32_t *dm_evaluation_token(const dm_evaluation *e, const dm_session *session, size_t at);
/* Feeds m tokens of the text; logits [m, vocab], or NULL for tokens that are context only. */
dm_status dm_evaluation_feed(const dm_evaluation *e, dm_session *session, size_t first, size_t m, float *logits);
/* What m rows of logits say about their targets: adds to the sums and to the result's counts. */
void dm_evaluation_score(dm_evaluation *e, const int32_t *targets, size_t m);

/* The KL divergence of logits[vocab] from those of a base, nats. */
double dm_evaluation_divergence(const float *base, const float *logits, size_t vocab);

/* Several parts of the text, a token of each at a time. */
dm_status dm_evaluate_side_by_side(dm_evaluation *e, size_t context, size_t overlap, dm_evaluate_fn on_window, void *user);

#endif
