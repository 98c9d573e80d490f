/* One sequence being run: its caches, and the scratch that a forward pass works in. */
#ifndef DM_MODEL_SESSION_H
#define DM_MODEL_SESSION_H

#include "kernels/linear.h"
#include "model/attention.h"
#include "model/model.h"
#include "model/observer.h"
#include "model/rope.h"
#include "model/streaming.h"
#include "model/times.h"
#include "moe/routing.h"
#include "moe/trace.h"

/* The model's tensors as the forward pass reads them: matrices in the file's type, vectors (norms, biases) as float32. */
typedef struct dm_weights {
    dm_weight matrices[DM_ROLES];     /* data NULL: the model has none */
    const float *vectors[DM_ROLES];   /* NULL: no such, or not of float32 */
    const dm_weight *apart[DM_ROLES]; /* [n_experts] where each expert is a tensor of its own or has a home, else NULL */
} dm_weights;

/* Scratch for one batch of B = session->batch tokens; only what the architecture uses is there. */
typedef struct dm_activations {
    float *x;                     /* [B, dim] residual stream */
    float *h;                     /* [B, dim] input or result of a sublayer */
    float *q;                     /* [B, n_heads * head_dim]; fused: [B, 3 dim], q k v */
    float *k;                     /* [B, n_kv_heads * head_dim], unless fused */
    float *v;                     /* [B, n_kv_heads * head_dim], unless fused */
    float *attended;              /* [B, n_heads * head_dim] */
    float *turns;                 /* [B, dm_rope_table_size()] rotary tables of the batch's positions */
    float *ffn;                   /* [B, ffn_dim or shared_dim] */
    float *ffn_up;                /* the same, where gated */
    uint8_t *ffn_tiles;           /* the result of their nonlinearity as tiles, where weights meet such */
    float *shared;                /* [B, dim] result of the shared expert */
    float *shares;                /* [B] its gate */
    float *router;                /* [B, n_experts] logits, then probabilities */
    int32_t *experts;             /* [B, top_k] -1 after a token's last */
    float *gates;                 /* [B, top_k] */
    int32_t *slots;               /* [B, top_k] row of (token, choice) in the arrays grouped by expert, where there is one */
    int32_t *choices;             /* [B, top_k] the other way: which choice is in a row there */
    int32_t *starts;              /* [n_experts + 1] first row of each expert there */
    int32_t *active;              /* [n_experts] experts that have tokens */
    int32_t *dealt;               /* [n_experts] some of them in the order of their homes, where they have such */
    float *grouped;               /* [R, dim] expert inputs, then outputs; R choices of so few tokens that none meet tiles */
    float *hidden;                /* [R, expert_dim] where weights are not packed */
    float *up;                    /* [R, expert_dim] */
    dm_q8_block *rounded;         /* [R / top_k, dm_q8_stride(dim)] expert inputs, where weights are packed */
    dm_q8_block *grouped_rounded; /* [R, dm_q8_stride(dim)] */
    dm_q8_block *hidden_rounded;  /* [R, dm_q8_stride(expert_dim)] */
    uint8_t *grouped_tiles;       /* expert inputs, and below what is between their matrices, as tiles, see forward.h */
    uint8_t *hidden_tiles;
    float *apart_sums;  /* experts' results before they are added, where each is computed at its home */
    int32_t *tile_rows; /* [n_experts] first row of tiles of each expert there */
    int32_t *tokens;    /* [B * top_k] token of each row in the experts' order */
    float *token_gates; /* [B * top_k] and its gate */
    uint8_t *tile_room; /* [threads, tile_room_each] */
    size_t tile_room_each;
    float *widened; /* [threads, widened_size] weights as float32 */
    size_t widened_size;
    float *attention;       /* [threads, dm_attention_scratch()] */
    dm_attention_run *runs; /* [B] one sequence's part of the batch each */
} dm_activations;

struct dm_session {
    const dm_model *model;
    int32_t context; /* positions held */
    int32_t length;  /* positions used */
    int32_t batch;   /* most tokens of a prompt in one forward pass */
    int32_t apart;   /* most sequences whose next tokens share one */
    int threads;     /* that scratch was made for */

    dm_weights global;  /* those outside the layers */
    dm_weights *layers; /* [n_layers] */

    dm_kv_cache cache;
    float *partials; /* dm_attention_partials() of the next token */
    int32_t *ids;    /* [context] what was fed */
    float *logits;   /* [vocab] of the last position, for generation */
    dm_rope rope;
    uint64_t *loads;             /* [n_layers, n_experts] tokens sent to each expert */
    uint64_t routed;             /* tokens that went through the routers */
    dm_routing *routing;         /* NULL: the model's own choice */
    const dm_observer *observer; /* borrowed; NULL: nobody watches */
    dm_trace_writer *trace;      /* borrowed, of the passes that this session lends its scratch to; NULL: none */
    int32_t chunk;               /* tokens of a prompt that are routed together, 0: none */
    uint64_t passes;             /* that this session lent its scratch to */
    uint64_t pass_tokens;        /* in them */
    uint64_t experts_read;       /* experts that had tokens, summed over layers and those passes */
    dm_expert_store *store;      /* the model's, where it is streamed; NULL: it is not, or nothing was fed yet */
    uint64_t asked, hit;         /* bytes of experts that those passes asked it for, and that were there */
    dm_times times;              /* of those passes */
    struct dm_segment *segments; /* [batch] of a pass over several sequences, see forward.h */
    dm_activations scratch;

    void *owned[56]; /* what of the above the session allocated, for freeing */
    size_t n_owned;
    size_t owned_bytes;
    int64_t noted; /* bytes that the model's memory was told of */
    bool out_of_memory;

    const dm_tokenizer *tokenizer; /* borrowed, or `own_tokenizer`, or NULL until generation asks for it */
    dm_tokenizer *own_tokenizer;
};

/* A session that is watched, by an observer that must outlive it. It keeps what is between an expert's or a feed-forward block's
 * matrices as floats, where others may have it rounded. `options` as for dm_session_create_with(). */
dm_status dm_session_create_observed(const dm_model *model, const dm_session_options *options, const dm_observer *observer,
                                     dm_session **out);

/* Lends a vocabulary to a session whose model has no file; it must outlive the session. */
void dm_session_lend_tokenizer(dm_session *session, const dm_tokenizer *tokenizer);

/* Routing of n sessions of one model that were fed together, as dm_session_routing() tells it of one. */
void dm_sessions_routing(dm_session *const *sessions, size_t n, dm_routing_stats *out);

/* Bytes of an expert's weights in the file, in the mean over layers. */
double dm_session_expert_bytes(const dm_session *session);

/* The attention of one of its layers. */
dm_attention_shape dm_session_attention(const dm_session *session, int32_t layer);

#endif
