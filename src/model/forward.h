/* The forward pass of one batch of tokens through a session. */
#ifndef DM_MODEL_FORWARD_H
#define DM_MODEL_FORWARD_H

#include "model/session.h"

typedef enum dm_logits_kind {
    DM_LOGITS_NONE,
    DM_LOGITS_LAST, /* [vocab] of the last token */
    DM_LOGITS_ALL,  /* [n, vocab] */
} dm_logits_kind;

/* Appends n <= session->batch checked ids that fit, and advances the session. */
dm_status dm_forward(dm_session *session, const int32_t *ids, size_t n, dm_logits_kind kind, float *logits);

/* ---- Pieces that the architectures share; x, h, ... are the session's scratch ---- */

/* All layers on scratch.x [n, dim], one file per architecture. */
dm_status dm_forward_qwen3moe(dm_session *session, size_t n);
dm_status dm_forward_gpt2(dm_session *session, size_t n);

/* h = norm(x) with the weights of `role` (and the biases of `bias_role` where it is a LayerNorm), n rows from x. */
void dm_forward_norm(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                     size_t n);
/* y [n, rows], rows of y contiguous. */
dm_linear_product dm_forward_product(const dm_weights *weights, dm_role role, dm_role bias_role, float *y);
/* One product; x [n, columns] contiguous. */
dm_status dm_forward_linear(const dm_session *session, const dm_weights *weights, dm_role role, dm_role bias_role, const float *x,
                            size_t n, float *y);
/* x += h, n rows. */
void dm_forward_residual(const dm_session *session, size_t n);
/* attended = attention of layer l for the n new tokens, whose keys and values are in the cache already. */
dm_status dm_forward_attention(const dm_session *session, int32_t l, size_t n, size_t ldq);
/* Keys or values of layer l at the session's next position. */
float *dm_forward_cache(const dm_session *session, float *cache, int32_t l, int32_t position);
/* h = mixture of experts of h, n rows; counts the loads. */
dm_status dm_forward_experts(dm_session *session, const dm_weights *weights, int32_t l, size_t n);

#endif
