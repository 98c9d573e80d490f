/*
 * Causal attention with grouped heads over whole sequences, forward and backward. Scores exist for one block of queries
 * of one head at a time, never for all heads; the way back recomputes them from the log-sum-exp of each row
 * (Dao et al. 2022).
 */
#ifndef DM_TRAINING_CAUSAL_ATTENTION_H
#define DM_TRAINING_CAUSAL_ATTENTION_H

#include "base/status.h"
#include "training/rows.h"

typedef struct dm_causal_attention {
    size_t n_heads, n_kv_heads, head_dim;
    size_t sequences, length; /* rows are sequence after sequence, each of `length` positions */
    float *scratch;           /* [threads][dm_causal_attention_scratch()] floats */
} dm_causal_attention;

/* Floats that one thread needs for sequences of up to `length`. */
size_t dm_causal_attention_scratch(size_t length);

/* q [n, n_heads * head_dim], k and v [n, n_kv_heads * head_dim], out like q, lse [n, n_heads]. */
dm_status dm_causal_attention_forward(const dm_causal_attention *attention, dm_rows out, float *lse, dm_rows q, dm_rows k,
                                      dm_rows v);
/* dq, dk, dv are overwritten. */
dm_status dm_causal_attention_backward(const dm_causal_attention *attention, dm_rows dq, dm_rows dk, dm_rows dv, dm_rows dout,
                                       dm_rows out, const float *lse, dm_rows q, dm_rows k, dm_rows v);

#endif
