#include "training/network.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "core/loss.h"
#include "training/causal_attention.h"
#include "training/cross_entropy.h"
#include "training/experts.h"
#include "training/layers.h"
#include "training/rotary.h"
#include "training/router_losses.h"

/* Weights and gradients of one layer; what an architecture lacks is NULL. */
typedef struct layer_weights {
    float *attn_norm, *attn_norm_b;
    float *q, *k, *v, *q_norm, *k_norm;
    float *qkv, *qkv_b;
    float *output, *output_b;
    float *ffn_norm, *ffn_norm_b;
    float *up, *up_b, *down, *down_b;
    float *router, *gate_exps, *up_exps, *down_exps;
} layer_weights;

/* What the forward pass of one layer keeps. n = rows of the batch. */
typedef struct layer_state {
    dm_rows x_in;            /* [n, dim] residual stream before attention */
    dm_rows normed1;         /* [n, dim] */
    dm_rows qkv;             /* [n, (n_heads + 2 n_kv_heads) head_dim] as projected */
    dm_rows qk;              /* [n, (n_heads + n_kv_heads) head_dim] normed and turned, qwen3 */
    dm_rows attention;       /* [n, n_heads head_dim] */
    dm_rows x_mid;           /* [n, dim] residual stream before the feed-forward part */
    dm_rows normed2;         /* [n, dim] */
    dm_rows up;              /* [n, ffn_dim] before GELU, gpt2 */
    float *mean1, *inverse1; /* [n] */
    float *mean2, *inverse2; /* [n] */
    float *q_inverse;        /* [n, n_heads] */
    float *k_inverse;        /* [n, n_kv_heads] */
    float *lse;              /* [n, n_heads] */
    dm_experts_state experts;
    dm_layer_terms terms;
} layer_state;

struct dm_network {
    dm_parameters *parameters;
    dm_config config;
    dm_precision precision;
    size_t length; /* positions per sequence */
    size_t max_sequences;
    size_t n;                 /* rows of the current batch */
    layer_weights *weights;   /* [n_layers] */
    layer_weights *gradients; /* [n_layers] */
    layer_state *layers;      /* [n_layers] */
    dm_rotary rotary;
    dm_partials partials;
    dm_rows x_out;           /* [n, dim] after the last layer */
    dm_rows final;           /* [n, dim] normed */
    float *mean, *inverse;   /* [n] of the final norm */
    dm_rows dx, dnormed;     /* [n, dim] */
    dm_rows dqkv, dqk, datt; /* like qkv, qk, attention */
    dm_rows hidden;          /* [n, ffn_dim], gpt2 */
    float *attention_scratch, *head_scratch;
    dm_experts_scratch experts_scratch;
    dm_train_routing *routing; /* NULL: the model chooses */
    dm_router_terms *terms;    /* NULL: of no weight */
    dm_router_losses weights_of_losses, values;
    const dm_gradient_watch *watch; /* NULL: nobody */
    uint64_t *loads;                /* [n_layers, n_experts] */
    bool trains;                    /* in this pass */
    bool fixed;                     /* routing */
    void **blocks;                  /* everything that was allocated */
    size_t n_blocks, max_blocks;
};

/* ---- Memory ---- */

static void *take(dm_network *net, size_t count, size_t size) {
    if (net->n_blocks == net->max_blocks) {
        size_t grown = net->max_blocks != 0 ? 2 * net->max_blocks : 64;
        void **blocks = realloc(net->blocks, grown * sizeof *blocks);
        if (blocks == NULL) {
            dm_fail(DM_ERR_MEMORY, "out of memory setting up training");
            return NULL;
        }
        net->blocks = blocks;
        net->max_blocks = grown;
    }
    void *block = dm_alloc(count, size);
    if (block != NULL) {
        net->blocks[net->n_blocks++] = block;
    }
    return block;
}

/* Each of these returns false when memory is short, so that a row of them can be joined by &&. */
static bool take_rows(dm_network *net, dm_rows *rows, size_t n, size_t width) {
    rows->stride = dm_matmul_stride(width);
    rows->data = take(net, n, rows->stride * sizeof(float));
    return rows->data != NULL;
}

static bool take_floats(dm_network *net, float **floats, size_t n) {
    *floats = take(net, n, sizeof(float));
    return *floats != NULL;
}

static bool take_ints(dm_network *net, int32_t **ints, size_t n) {
    *ints = take(net, n, sizeof(int32_t));
    return *ints != NULL;
}

static bool take_experts(dm_network *net, dm_experts_state *s, size_t n, uint64_t *loads) {
    const dm_config *c = &net->config;
    size_t pairs = n * (size_t)c->top_k;
    s->loads = loads;
    return take_rows(net, &s->p, n, (size_t)c->n_experts) && take_ints(net, &s->experts, pairs) &&
           take_floats(net, &s->gates, pairs) && take_ints(net, &s->place, pairs) && take_ints(net, &s->token, pairs) &&
           take_ints(net, &s->offsets, (size_t)c->n_experts + 1) && take_rows(net, &s->gate_out, pairs, (size_t)c->expert_dim) &&
           take_rows(net, &s->up_out, pairs, (size_t)c->expert_dim);
}

static bool take_terms(dm_network *net, const dm_train_routing_rules *rules, dm_layer_terms *s, size_t n) {
    const size_t experts = (size_t)net->config.n_experts;
    bool ok = take_rows(net, &s->slopes, n, experts);
    if (rules->weights.swarm_reward > 0.0) {
        ok = ok && take_ints(net, &s->neighbours, n * DM_SWARM_NEIGHBOURS);
    }
    if (rules->weights.nash_loss > 0.0) {
        ok = ok && take_ints(net, &s->candidates, n * (size_t)rules->game.flock);
    }
    if (rules->weights.cache_reward > 0.0) {
        s->resident = take(net, n, experts);
        ok = ok && s->resident != NULL;
    }
    return ok;
}

static dm_status set_up_routing(dm_network *net, const dm_train_routing_rules *rules, size_t n) {
    net->weights_of_losses = rules->weights;
    DM_TRY(dm_train_routing_create(rules, n, &net->routing));
    if (!dm_router_terms_asked(rules)) {
        return DM_OK;
    }
    for (size_t l = 0; l < (size_t)net->config.n_layers; l++) {
        if (!take_terms(net, rules, &net->layers[l].terms, n)) {
            return DM_ERR_MEMORY;
        }
    }
    return dm_router_terms_create(rules, net->length, (size_t)net->config.dim, &net->terms);
}

static bool take_layer(dm_network *net, size_t l, size_t n) {
    const dm_config *c = &net->config;
    layer_state *s = &net->layers[l];
    size_t dim = (size_t)c->dim;
    size_t heads = (size_t)c->n_heads;
    size_t kv_heads = (size_t)c->n_kv_heads;
    size_t head_dim = (size_t)c->head_dim;
    bool ok = take_rows(net, &s->x_in, n, dim) && take_rows(net, &s->normed1, n, dim) &&
              take_rows(net, &s->qkv, n, (heads + 2 * kv_heads) * head_dim) &&
              take_rows(net, &s->attention, n, heads * head_dim) && take_rows(net, &s->x_mid, n, dim) &&
              take_rows(net, &s->normed2, n, dim) && take_floats(net, &s->mean1, n) && take_floats(net, &s->inverse1, n) &&
              take_floats(net, &s->mean2, n) && take_floats(net, &s->inverse2, n) && take_floats(net, &s->lse, n * heads);
    if (c->arch == DM_ARCH_QWEN3MOE) {
        ok = ok && take_rows(net, &s->qk, n, (heads + kv_heads) * head_dim) && take_floats(net, &s->q_inverse, n * heads) &&
             take_floats(net, &s->k_inverse, n * kv_heads) &&
             take_experts(net, &s->experts, n, net->loads + l * (size_t)c->n_experts);
    } else {
        ok = ok && take_rows(net, &s->up, n, (size_t)c->ffn_dim);
    }
    return ok;
}

static bool take_experts_scratch(dm_network *net, size_t n) {
    const dm_config *c = &net->config;
    dm_experts_scratch *s = &net->experts_scratch;
    size_t pairs = n * (size_t)c->top_k;
    size_t per_thread = dm_experts_scratch_floats((size_t)c->dim, (size_t)c->expert_dim);
    return take_rows(net, &s->pairs, pairs, (size_t)c->dim) && take_rows(net, &s->dlogits, n, (size_t)c->n_experts) &&
           take_floats(net, &s->dgates, pairs) && take_floats(net, &s->weights, pairs) &&
           take_floats(net, &s->slopes, (size_t)c->n_experts) &&
           take_ints(net, &s->tasks, 2 * (pairs / DM_EXPERT_PIECE + (size_t)c->n_experts)) &&
           take_floats(net, &s->per_thread, (size_t)dm_threads() * per_thread);
}

static bool take_shared(dm_network *net, size_t n) {
    const dm_config *c = &net->config;
    size_t dim = (size_t)c->dim;
    size_t q = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t kv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    bool ok = take_rows(net, &net->x_out, n, dim) && take_rows(net, &net->final, n, dim) && take_floats(net, &net->mean, n) &&
              take_floats(net, &net->inverse, n) && take_rows(net, &net->dx, n, dim) && take_rows(net, &net->dnormed, n, dim) &&
              take_rows(net, &net->dqkv, n, q + 2 * kv) && take_rows(net, &net->datt, n, q) &&
              take_floats(net, &net->attention_scratch, (size_t)dm_threads() * dm_causal_attention_scratch(net->length)) &&
              take_floats(net, &net->head_scratch, dm_cross_entropy_scratch((size_t)c->vocab));
    if (c->arch == DM_ARCH_QWEN3MOE) {
        return ok && take_rows(net, &net->dqk, n, q + kv) && take_experts_scratch(net, n);
    }
    return ok && take_rows(net, &net->hidden, n, (size_t)c->ffn_dim);
}

static layer_weights layer_arrays(const dm_parameters *p, int32_t l, float *(*array)(const dm_parameters *, dm_role, int32_t)) {
    return (layer_weights){
        .attn_norm = array(p, DM_ATTN_NORM, l),
        .attn_norm_b = array(p, DM_ATTN_NORM_B, l),
        .q = array(p, DM_ATTN_Q, l),
        .k = array(p, DM_ATTN_K, l),
        .v = array(p, DM_ATTN_V, l),
        .q_norm = array(p, DM_ATTN_Q_NORM, l),
        .k_norm = array(p, DM_ATTN_K_NORM, l),
        .qkv = array(p, DM_ATTN_QKV, l),
        .qkv_b = array(p, DM_ATTN_QKV_B, l),
        .output = array(p, DM_ATTN_OUTPUT, l),
        .output_b = array(p, DM_ATTN_OUTPUT_B, l),
        .ffn_norm = array(p, DM_FFN_NORM, l),
        .ffn_norm_b = array(p, DM_FFN_NORM_B, l),
        .up = array(p, DM_FFN_UP, l),
        .up_b = array(p, DM_FFN_UP_B, l),
        .down = array(p, DM_FFN_DOWN, l),
        .down_b = array(p, DM_FFN_DOWN_B, l),
        .router = array(p, DM_FFN_ROUTER, l),
        .gate_exps = array(p, DM_FFN_GATE_EXPS, l),
        .up_exps = array(p, DM_FFN_UP_EXPS, l),
        .down_exps = array(p, DM_FFN_DOWN_EXPS, l),
    };
}

static dm_status set_up(dm_network *net, size_t n) {
    const dm_config *c = &net->config;
    size_t layers = (size_t)c->n_layers;
    net->weights = take(net, layers, sizeof *net->weights);
    net->gradients = take(net, layers, sizeof *net->gradients);
    net->layers = take(net, layers, sizeof *net->layers);
    net->loads = take(net, layers * (size_t)(c->n_experts + 1), sizeof *net->loads);
    if (net->weights == NULL || net->gradients == NULL || net->layers == NULL || net->loads == NULL || !take_shared(net, n)) {
        return DM_ERR_MEMORY;
    }
    for (size_t l = 0; l < layers; l++) {
        net->weights[l] = layer_arrays(net->parameters, (int32_t)l, dm_parameter_weight);
        net->gradients[l] = layer_arrays(net->parameters, (int32_t)l, dm_parameter_gradient);
        if (!take_layer(net, l, n)) {
            return DM_ERR_MEMORY;
        }
    }
    if (c->arch == DM_ARCH_QWEN3MOE) {
        DM_TRY(dm_rotary_create(net->length, (size_t)c->head_dim, (double)c->rope_base, &net->rotary));
    }
    size_t width = 2 * (size_t)c->dim;
    size_t qkv = (size_t)(c->n_heads + 2 * c->n_kv_heads) * (size_t)c->head_dim;
    width = width > qkv ? width : qkv;
    width = width > (size_t)c->ffn_dim ? width : (size_t)c->ffn_dim;
    return dm_partials_create(width, &net->partials);
}

dm_status dm_network_create(dm_parameters *parameters, size_t sequences, size_t length, dm_precision precision,
                            const dm_train_routing_rules *routing, dm_network **out) {
    const dm_config *c = &parameters->config;
    *out = NULL;
    if (sequences == 0 || length == 0 || sequences > ((size_t)INT32_MAX / 64) / length) {
        return dm_fail(DM_ERR_ARGUMENT, "a batch of %zu sequences of %zu tokens is out of range", sequences, length);
    }
    if (c->arch == DM_ARCH_GPT2 && length > (size_t)c->context) {
        return dm_fail(DM_ERR_ARGUMENT, "sequences of %zu tokens are longer than the model's %d learned positions", length,
                       c->context);
    }
    dm_network *net = dm_alloc(1, sizeof *net);
    if (net == NULL) {
        return DM_ERR_MEMORY;
    }
    net->parameters = parameters;
    net->config = *c;
    net->precision = precision;
    net->length = length;
    net->max_sequences = sequences;
    dm_status status = set_up(net, sequences * length);
    if (status == DM_OK && routing != NULL && c->n_experts > 0) {
        status = set_up_routing(net, routing, sequences * length);
    }
    if (status != DM_OK) {
        dm_network_free(net);
        return status;
    }
    *out = net;
    return DM_OK;
}

void dm_network_free(dm_network *net) {
    if (net == NULL) {
        return;
    }
    for (size_t i = 0; i < net->n_blocks; i++) {
        dm_free(net->blocks[i]);
    }
    free(net->blocks);
    dm_train_routing_free(net->routing);
    dm_router_terms_free(net->terms);
    dm_rotary_free(&net->rotary);
    dm_partials_free(&net->partials);
    dm_free(net);
}

void dm_network_fix_routing(dm_network *net, bool on) {
    net->fixed = on;
}

void dm_network_watch(dm_network *net, const dm_gradient_watch *watch) {
    net->watch = watch;
}

const dm_router_losses *dm_network_router_losses(const dm_network *net) {
    return &net->values;
}

const uint64_t *dm_network_loads(const dm_network *net) {
    return net->loads;
}

dm_train_routing *dm_network_routing(const dm_network *net) {
    return net->routing;
}

/* ---- Linear layers ---- */

/* dy [n, columns] is that of the layer's matrix of a role. */
static void show(const dm_network *net, const layer_weights *w, dm_role role, dm_rows dy, size_t columns) {
    if (net->watch != NULL) {
        const dm_gradient_seen seen = {
            .layer = (int32_t)(w - net->weights), .role = role, .expert = -1, .dy = dy, .n = net->n, .columns = columns};
        net->watch->see(net->watch->user, &seen);
    }
}

static dm_status linear(const dm_network *net, dm_rows y, dm_rows x, const float *w, size_t out, size_t in) {
    return dm_matmul_forward(net->precision, y.data, y.stride, x.data, x.stride, w, in, net->n, out, in, false);
}

/* dw accumulates; dx is overwritten, or added to. */
static dm_status linear_backward(const dm_network *net, dm_rows dx, bool accumulate, float *dw, dm_rows dy, dm_rows x,
                                 const float *w, size_t out, size_t in) {
    DM_TRY(dm_matmul_weight_gradient(net->precision, dw, in, dy.data, dy.stride, x.data, x.stride, net->n, out, in, true));
    return dm_matmul_input_gradient(net->precision, dx.data, dx.stride, dy.data, dy.stride, w, in, net->n, out, in, accumulate);
}

/* ---- Attention ---- */

/* Where queries, keys and values stand side by side in a row. */
typedef struct qkv_rows {
    dm_rows q, k, v;
    size_t q_width, kv_width;
} qkv_rows;

static qkv_rows split_qkv(const dm_network *net, dm_rows rows) {
    size_t q = (size_t)net->config.n_heads * (size_t)net->config.head_dim;
    size_t kv = (size_t)net->config.n_kv_heads * (size_t)net->config.head_dim;
    return (qkv_rows){rows, dm_columns(rows, q), dm_columns(rows, q + kv), q, kv};
}

static dm_causal_attention attention_shape(const dm_network *net) {
    return (dm_causal_attention){
        .n_heads = (size_t)net->config.n_heads,
        .n_kv_heads = (size_t)net->config.n_kv_heads,
        .head_dim = (size_t)net->config.head_dim,
        .sequences = net->n / net->length,
        .length = net->length,
        .scratch = net->attention_scratch,
    };
}

static dm_heads heads_of(const dm_network *net, const float *weight, int32_t count) {
    return (dm_heads){&net->rotary, weight, net->config.norm_eps, (size_t)count};
}

static dm_norm norm_of(const dm_network *net, const float *weight, const float *bias) {
    return (dm_norm){weight, bias, net->config.norm_eps, (size_t)net->config.dim};
}

/* x_mid = x_in + output(attention(qkv(norm(x_in)))) */
static dm_status attention_forward(dm_network *net, const layer_weights *w, layer_state *s) {
    const size_t dim = (size_t)net->config.dim;
    const dm_norm norm = norm_of(net, w->attn_norm, w->attn_norm_b);
    const dm_causal_attention shape = attention_shape(net);
    qkv_rows raw = split_qkv(net, s->qkv);
    dm_norm_forward(&norm, s->normed1, s->mean1, s->inverse1, s->x_in, net->n);
    if (w->qkv != NULL) {
        DM_TRY(linear(net, s->qkv, s->normed1, w->qkv, raw.q_width + 2 * raw.kv_width, dim));
        dm_bias_forward(s->qkv, w->qkv_b, net->n, raw.q_width + 2 * raw.kv_width);
        DM_TRY(dm_causal_attention_forward(&shape, s->attention, s->lse, raw.q, raw.k, raw.v));
    } else {
        const dm_heads q_heads = heads_of(net, w->q_norm, net->config.n_heads);
        const dm_heads k_heads = heads_of(net, w->k_norm, net->config.n_kv_heads);
        qkv_rows turned = split_qkv(net, s->qk);
        DM_TRY(linear(net, raw.q, s->normed1, w->q, raw.q_width, dim));
        DM_TRY(linear(net, raw.k, s->normed1, w->k, raw.kv_width, dim));
        DM_TRY(linear(net, raw.v, s->normed1, w->v, raw.kv_width, dim));
        dm_heads_forward(&q_heads, turned.q, s->q_inverse, raw.q, net->n);
        dm_heads_forward(&k_heads, turned.k, s->k_inverse, raw.k, net->n);
        DM_TRY(dm_causal_attention_forward(&shape, s->attention, s->lse, turned.q, turned.k, raw.v));
    }
    DM_TRY(linear(net, s->x_mid, s->attention, w->output, dim, raw.q_width));
    if (w->output_b != NULL) {
        dm_bias_forward(s->x_mid, w->output_b, net->n, dim);
    }
    dm_add_rows(s->x_mid, s->x_mid, s->x_in, net->n, dim);
    return DM_OK;
}

/* From dqkv (of the raw projections) to dnormed and the weights' gradients. */
static dm_status projections_backward(dm_network *net, const layer_weights *w, const layer_weights *g, const layer_state *s) {
    const size_t dim = (size_t)net->config.dim;
    qkv_rows d = split_qkv(net, net->dqkv);
    if (w->qkv != NULL) {
        show(net, w, DM_ATTN_QKV, net->dqkv, d.q_width + 2 * d.kv_width);
        dm_bias_backward(g->qkv_b, net->dqkv, net->n, d.q_width + 2 * d.kv_width, &net->partials);
        return linear_backward(net, net->dnormed, false, g->qkv, net->dqkv, s->normed1, w->qkv, d.q_width + 2 * d.kv_width, dim);
    }
    show(net, w, DM_ATTN_Q, d.q, d.q_width);
    show(net, w, DM_ATTN_K, d.k, d.kv_width);
    show(net, w, DM_ATTN_V, d.v, d.kv_width);
    DM_TRY(linear_backward(net, net->dnormed, false, g->q, d.q, s->normed1, w->q, d.q_width, dim));
    DM_TRY(linear_backward(net, net->dnormed, true, g->k, d.k, s->normed1, w->k, d.kv_width, dim));
    return linear_backward(net, net->dnormed, true, g->v, d.v, s->normed1, w->v, d.kv_width, dim);
}

/* net->dx holds the gradient of x_mid and becomes that of x_in. */
static dm_status attention_backward(dm_network *net, const layer_weights *w, const layer_weights *g, const layer_state *s) {
    const size_t dim = (size_t)net->config.dim;
    const dm_norm norm = norm_of(net, w->attn_norm, w->attn_norm_b);
    const dm_causal_attention shape = attention_shape(net);
    qkv_rows raw = split_qkv(net, s->qkv);
    qkv_rows draw = split_qkv(net, net->dqkv);
    show(net, w, DM_ATTN_OUTPUT, net->dx, dim);
    DM_TRY(linear_backward(net, net->datt, false, g->output, net->dx, s->attention, w->output, dim, raw.q_width));
    if (w->output_b != NULL) {
        dm_bias_backward(g->output_b, net->dx, net->n, dim, &net->partials);
    }
    if (w->qkv != NULL) {
        DM_TRY(
            dm_causal_attention_backward(&shape, draw.q, draw.k, draw.v, net->datt, s->attention, s->lse, raw.q, raw.k, raw.v));
    } else {
        const dm_heads q_heads = heads_of(net, w->q_norm, net->config.n_heads);
        const dm_heads k_heads = heads_of(net, w->k_norm, net->config.n_kv_heads);
        qkv_rows turned = split_qkv(net, s->qk);
        qkv_rows dturned = split_qkv(net, net->dqk);
        DM_TRY(dm_causal_attention_backward(&shape, dturned.q, dturned.k, draw.v, net->datt, s->attention, s->lse, turned.q,
                                            turned.k, raw.v));
        dm_heads_backward(&q_heads, draw.q, g->q_norm, dturned.q, raw.q, s->q_inverse, net->n, &net->partials);
        dm_heads_backward(&k_heads, draw.k, g->k_norm, dturned.k, raw.k, s->k_inverse, net->n, &net->partials);
    }
    DM_TRY(projections_backward(net, w, g, s));
    dm_norm_backward(&norm, net->dx, g->attn_norm, g->attn_norm_b, net->dnormed, s->x_in, s->mean1, s->inverse1, net->n,
                     &net->partials);
    return DM_OK;
}

/* ---- Feed-forward ---- */

static dm_experts experts_of(const dm_network *net, const layer_weights *w, size_t l) {
    const dm_config *c = &net->config;
    return (dm_experts){
        .dim = (size_t)c->dim,
        .expert_dim = (size_t)c->expert_dim,
        .router = {.given = net->fixed,
                   .n_experts = c->n_experts,
                   .top_k = c->top_k,
                   .bias = net->parameters->expert_bias + l * (size_t)c->n_experts},
        .precision = net->precision,
        .watch = net->watch,
        .layer = (int32_t)l,
        .router_weight = w->router,
        .gate = w->gate_exps,
        .up = w->up_exps,
        .down = w->down_exps,
    };
}

/* The layer's experts, groups, and losses. */
static dm_status route(dm_network *net, dm_experts *experts, layer_state *s) {
    DM_TRY(dm_experts_score(experts, &s->experts, s->normed2, net->n));
    if (!net->fixed && net->routing != NULL) {
        experts->router.given = dm_train_routing_choose(net->routing, s->experts.p, experts->router.bias, net->n, net->trains,
                                                        s->experts.experts, s->terms.candidates);
    }
    dm_experts_route(experts, &s->experts, net->n);
    if (net->terms != NULL && net->trains) {
        if (!net->fixed) {
            dm_router_terms_hold(net->terms, &s->terms, s->normed2, s->experts.experts, net->n);
        }
        dm_router_terms_measure(net->terms, &s->terms, s->experts.p, experts->router.bias, net->n, 1.0 / net->config.n_layers,
                                &net->values);
    }
    return DM_OK;
}

/* next = x_mid + ffn(norm(x_mid)) */
static dm_status ffn_forward(dm_network *net, size_t l, dm_rows next) {
    const size_t dim = (size_t)net->config.dim;
    const size_t wide = (size_t)net->config.ffn_dim;
    const layer_weights *w = &net->weights[l];
    layer_state *s = &net->layers[l];
    const dm_norm norm = norm_of(net, w->ffn_norm, w->ffn_norm_b);
    dm_norm_forward(&norm, s->normed2, s->mean2, s->inverse2, s->x_mid, net->n);
    if (w->router != NULL) {
        dm_experts experts = experts_of(net, w, l);
        DM_TRY(route(net, &experts, s));
        dm_copy_rows(next, s->x_mid, net->n, dim);
        return dm_experts_forward(&experts, &s->experts, &net->experts_scratch, next, s->normed2, net->n);
    }
    DM_TRY(linear(net, s->up, s->normed2, w->up, wide, dim));
    dm_bias_forward(s->up, w->up_b, net->n, wide);
    dm_gelu_forward(net->hidden, s->up, net->n, wide);
    DM_TRY(linear(net, next, net->hidden, w->down, dim, wide));
    dm_bias_forward(next, w->down_b, net->n, dim);
    dm_add_rows(next, next, s->x_mid, net->n, dim);
    return DM_OK;
}

/* net->dx holds the gradient of the layer's output and becomes that of x_mid. */
static dm_status ffn_backward(dm_network *net, size_t l, double share) {
    const size_t dim = (size_t)net->config.dim;
    const size_t wide = (size_t)net->config.ffn_dim;
    const layer_weights *w = &net->weights[l];
    const layer_weights *g = &net->gradients[l];
    layer_state *s = &net->layers[l];
    const dm_norm norm = norm_of(net, w->ffn_norm, w->ffn_norm_b);
    if (w->router != NULL) {
        const dm_experts experts = experts_of(net, w, l);
        const dm_experts_gradient gradient = {g->router, g->gate_exps, g->up_exps, g->down_exps};
        const dm_router_slopes slopes = {net->weights_of_losses.switch_loss * share / net->config.n_layers, s->terms.slopes,
                                         share / net->config.n_layers};
        DM_TRY(dm_experts_backward(&experts, &gradient, &s->experts, &net->experts_scratch, net->dnormed, net->dx, s->normed2,
                                   net->n, &slopes));
    } else {
        show(net, w, DM_FFN_DOWN, net->dx, dim);
        dm_bias_backward(g->down_b, net->dx, net->n, dim, &net->partials);
        dm_gelu_forward(net->hidden, s->up, net->n, wide);
        DM_TRY(dm_matmul_weight_gradient(net->precision, g->down, wide, net->dx.data, net->dx.stride, net->hidden.data,
                                         net->hidden.stride, net->n, dim, wide, true));
        DM_TRY(dm_matmul_input_gradient(net->precision, net->hidden.data, net->hidden.stride, net->dx.data, net->dx.stride,
                                        w->down, wide, net->n, dim, wide, false));
        dm_gelu_backward(net->hidden, net->hidden, s->up, net->n, wide);
        show(net, w, DM_FFN_UP, net->hidden, wide);
        dm_bias_backward(g->up_b, net->hidden, net->n, wide, &net->partials);
        DM_TRY(linear_backward(net, net->dnormed, false, g->up, net->hidden, s->normed2, w->up, wide, dim));
    }
    dm_norm_backward(&norm, net->dx, g->ffn_norm, g->ffn_norm_b, net->dnormed, s->x_mid, s->mean2, s->inverse2, net->n,
                     &net->partials);
    return DM_OK;
}

/* ---- The whole model ---- */

static dm_status check_ids(const dm_network *net, const int32_t *ids, int32_t smallest, const char *what) {
    for (size_t i = 0; i < net->n; i++) {
        if (ids[i] < smallest || ids[i] >= net->config.vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "%s %zu is %d, outside the vocabulary of %d tokens", what, i, ids[i],
                           net->config.vocab);
        }
    }
    return DM_OK;
}

static void measure_balance(dm_network *net) {
    const dm_config *c = &net->config;
    for (int32_t l = 0; l < c->n_layers && c->n_experts > 0; l++) {
        const dm_experts_state *s = &net->layers[l].experts;
        net->values.switch_loss +=
            dm_switch_loss(s->p.data, s->p.stride, net->n, c->n_experts, c->top_k, s->loads, net->experts_scratch.slopes) /
            c->n_layers;
    }
}

static dm_status forward(dm_network *net, const int32_t *ids) {
    const dm_config *c = &net->config;
    const dm_parameters *p = net->parameters;
    dm_rows first = c->n_layers > 0 ? net->layers[0].x_in : net->x_out;
    dm_embedding_forward(first, dm_parameter_weight(p, DM_TOKEN_EMBD, -1), dm_parameter_weight(p, DM_POSITION_EMBD, -1), ids,
                         net->n, net->length, (size_t)c->dim);
    for (size_t l = 0; l < (size_t)c->n_layers; l++) {
        dm_rows next = l + 1 < (size_t)c->n_layers ? net->layers[l + 1].x_in : net->x_out;
        DM_TRY(attention_forward(net, &net->weights[l], &net->layers[l]));
        DM_TRY(ffn_forward(net, l, next));
    }
    const dm_norm norm = norm_of(net, dm_parameter_weight(p, DM_OUTPUT_NORM, -1), dm_parameter_weight(p, DM_OUTPUT_NORM_B, -1));
    dm_norm_forward(&norm, net->final, net->mean, net->inverse, net->x_out, net->n);
    measure_balance(net);
    return DM_OK;
}

static dm_status backward(dm_network *net, const int32_t *ids, double share) {
    const dm_config *c = &net->config;
    const dm_parameters *p = net->parameters;
    const dm_norm norm = norm_of(net, dm_parameter_weight(p, DM_OUTPUT_NORM, -1), dm_parameter_weight(p, DM_OUTPUT_NORM_B, -1));
    dm_zero_rows(net->dx, net->n, (size_t)c->dim);
    dm_norm_backward(&norm, net->dx, dm_parameter_gradient(p, DM_OUTPUT_NORM, -1), dm_parameter_gradient(p, DM_OUTPUT_NORM_B, -1),
                     net->dnormed, net->x_out, net->mean, net->inverse, net->n, &net->partials);
    for (size_t l = (size_t)c->n_layers; l-- > 0;) {
        DM_TRY(ffn_backward(net, l, share));
        DM_TRY(attention_backward(net, &net->weights[l], &net->gradients[l], &net->layers[l]));
    }
    dm_embedding_backward(dm_parameter_gradient(p, DM_TOKEN_EMBD, -1), dm_parameter_gradient(p, DM_POSITION_EMBD, -1), net->dx,
                          ids, net->n, net->length, (size_t)c->dim);
    return DM_OK;
}

static dm_status run(dm_network *net, const int32_t *ids, const int32_t *targets, size_t sequences, float scale, bool gradients,
                     double *loss) {
    const dm_config *c = &net->config;
    const dm_role output = c->tied_output ? DM_TOKEN_EMBD : DM_OUTPUT;
    if (sequences == 0 || sequences > net->max_sequences) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu sequences at a time, expected 1 to %zu", sequences, net->max_sequences);
    }
    net->n = sequences * net->length;
    net->trains = gradients || net->fixed;
    net->values = (dm_router_losses){0};
    DM_TRY(check_ids(net, ids, 0, "token"));
    DM_TRY(check_ids(net, targets, -1, "target"));
    DM_TRY(forward(net, ids));
    const dm_cross_entropy head = {
        .dim = (size_t)c->dim,
        .vocab = (size_t)c->vocab,
        .precision = net->precision,
        .weight = dm_parameter_weight(net->parameters, output, -1),
        .scratch = net->head_scratch,
        .watch = gradients ? net->watch : NULL,
    };
    dm_rows dfinal = gradients ? net->dnormed : (dm_rows){NULL, 0};
    return dm_cross_entropy_run(&head, net->final, targets, net->n, scale, dfinal,
                                dm_parameter_gradient(net->parameters, output, -1), loss);
}

dm_status dm_network_loss(dm_network *net, const int32_t *ids, const int32_t *targets, size_t sequences, double *loss) {
    return run(net, ids, targets, sequences, 0.0f, false, loss);
}

dm_status dm_network_gradients(dm_network *net, const int32_t *ids, const int32_t *targets, size_t sequences, float scale,
                               double share, double *loss) {
    DM_TRY(run(net, ids, targets, sequences, scale, true, loss));
    return backward(net, ids, share);
}
