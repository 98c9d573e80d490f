/*
 * The forward pass of one batch of tokens through a session. There is one for all architectures: what a layer computes
 * follows from the tensors that it has (see arch.c) and from a few numbers of the config.
 */
#ifndef DM_MODEL_FORWARD_H
#define DM_MODEL_FORWARD_H

#include "model/session.h"

typedef enum dm_logits_kind {
    DM_LOGITS_NONE,
    DM_LOGITS_LAST, /* [vocab] of the last token */
    DM_LOGITS_ALL,  /* [n, vocab] */
} dm_logits_kind;

/* The part of a pass that belongs to one sequence: rows first .. first + n - 1, at the session's next positions. */
typedef struct dm_segment {
    dm_session *session;
    const int32_t *ids; /* [n] checked, and they fit */
    size_t first, n;
} dm_segment;

/* One forward pass over n tokens: a piece of one sequence's prompt, or the next token of each of several sequences. */
typedef struct dm_pass {
    dm_session *work; /* whose scratch and weights are used: n <= work->batch */
    const dm_segment *segments;
    size_t n_segments, n; /* one segment, or n of one token each */
    dm_linear_rows rows;
    bool together; /* all tokens may be routed in one game: they are of different sequences, or nobody scores them */
} dm_pass;

/* The segment of one of its rows. */
static inline const dm_segment *dm_segment_of(const dm_pass *pass, size_t row) {
    return &pass->segments[pass->n_segments == 1 ? 0 : row];
}

/* Appends the tokens and advances the sessions. */
dm_status dm_forward(const dm_pass *pass, dm_logits_kind kind, float *logits);

/* ---- A layer's blocks; x, h, ... are the scratch of pass->work, a row for each token ---- */

/* h = attention of layer l over h, whose keys and values are appended to the caches. */
dm_status dm_forward_attention(const dm_pass *pass, const dm_weights *weights, int32_t l);
/* h = dense feed-forward of h. */
dm_status dm_forward_dense(const dm_pass *pass, const dm_weights *weights);
/* h = mixture of experts of h, with the shared expert where there is one; counts the loads. */
dm_status dm_forward_experts(const dm_pass *pass, const dm_weights *weights, int32_t l);
/* After layer l: tells the store which experts later layers may want. */
dm_status dm_forward_guess(const dm_pass *pass, int32_t l);
/* shared = sigmoid of the shared expert's gate times what it makes of h. */
dm_status dm_forward_shared(const dm_pass *pass, const dm_weights *weights);

/* ---- Pieces of them ---- */

/* Shows the observer, where there is one, x [n, columns of the matrix] before or after it met the matrix of `role`; gates [n] as
 * in dm_observation. */
dm_status dm_forward_watch(const dm_pass *pass, const dm_weights *weights, dm_role role, const float *x, const float *gates);

/* One expert's matrix of a role. */
dm_weight dm_forward_expert_matrix(const dm_session *session, const dm_weights *weights, dm_role role, int32_t e);
/* One layer's experts over n tokens of h, whose choices, slots and starts are known. */
typedef struct dm_expert_run {
    dm_session *session; /* whose scratch is used */
    const dm_weights *weights;
    size_t n;
} dm_expert_run;

/* Some of the layer's experts, dealt out to lists (dm_parallel_lists()): all in one, or in that of their home. */
typedef struct dm_expert_lists {
    size_t n;
    const int32_t *experts;            /* list after list, each in the order given */
    size_t starts[DM_MOST_GROUPS + 1]; /* [n + 1] of lists there */
} dm_expert_lists;

void dm_forward_deal_out(const dm_expert_run *run, const int32_t *experts, size_t n, dm_expert_lists *out);
/* `each` items for each expert. */
void dm_forward_share_experts(const dm_expert_run *run, const dm_expert_lists *lists, size_t each, size_t grain,
                              dm_parallel_list_body body, void *user);

/* A way to compute them: begin once, run for all experts that have tokens, at once or some at a time, end once. Results are the
 * same bits for every division. */
typedef struct dm_expert_kernel {
    void (*begin)(const dm_expert_run *run);                                      /* takes what it wants of h */
    dm_status (*run)(const dm_expert_run *run, const int32_t *experts, size_t n); /* n > 0 different ones, ascending over all
                                                                                     calls where the kernel is for tiles */
    void (*end)(const dm_expert_run *run);                                        /* h = the experts' mixture */
} dm_expert_kernel;

extern const dm_expert_kernel dm_experts_packed, dm_experts_tiled;
/* Whether a layer's experts can be run by the first of them, by the second; from how many tokens on the second is quicker. */
bool dm_forward_experts_are_packed(const dm_session *session, const dm_weights *weights);
bool dm_forward_experts_take_tiles(const dm_session *session, const dm_weights *weights);
size_t dm_forward_enough_for_tiles(const dm_config *config);

/* h = the gates' mixture of the experts' results in `grouped`: the end of kernels that leave them there. */
void dm_forward_experts_mix(const dm_expert_run *run);

/* Bytes of its scratch for up to n tokens: the experts' inputs and what is between their matrices as tiles; a thread's own; the
 * experts' results, where each is computed at its home. */
typedef struct dm_expert_tiles_sizes {
    size_t grouped, hidden, each, apart;
} dm_expert_tiles_sizes;
void dm_forward_expert_tiles_sizes(const dm_config *config, size_t n, dm_expert_tiles_sizes *out);

/* y = norm(x) of rows of the model's width, with the weights of `role` and, where there are biases of `bias_role`, as a
 * LayerNorm. */
void dm_forward_norm(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                     size_t n, float *y);
/* y [n, rows] = x W^T, rows of y contiguous, with the biases of `bias_role` where there are any. */
dm_linear_product dm_forward_product(const dm_weights *weights, dm_role role, dm_role bias_role, float *y);
/* One product; x [n, columns] contiguous. */
dm_status dm_forward_linear(const dm_pass *pass, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                            size_t n, float *y);

#endif
