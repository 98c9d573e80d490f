#include "reference_forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

/* ---- Weights ---- */

static float *find(const reference_model *m, dm_role role, int32_t layer, int32_t expert) {
    for (size_t i = 0; i < m->count; i++) {
        if (m->specs[i].role == role && m->specs[i].layer == layer && m->specs[i].expert == expert) {
            return m->weights[i];
        }
    }
    return NULL;
}

/* Matrices keep the size of what they multiply; norms lie around 1; factors of frequencies in 1 to 8. */
static float draw(dm_random *random, const dm_tensor_spec *spec) {
    float x = (float)dm_random_normal(random);
    if (spec->role == DM_ROPE_FACTORS) {
        return 1.0f + 7.0f * (float)dm_random_uniform(random);
    }
    if (spec->n_dims > 1 || spec->role == DM_FFN_ROUTER_SHEXP) {
        return x / sqrtf((float)spec->dims[0]) * (spec->role == DM_FFN_ROUTER ? 3.0f : 1.0f);
    }
    return strstr(spec->name, ".bias") != NULL ? 0.3f * x : 1.0f + 0.2f * x;
}

void reference_make(reference_model *m, const dm_config *config, uint64_t seed) {
    m->config = *config;
    m->see = NULL;
    if (dm_config_check(config) != DM_OK || dm_config_tensors(config, &m->specs, &m->count) != DM_OK) {
        fprintf(stderr, "%s\n", dm_error_message());
        exit(1);
    }
    m->weights = malloc(m->count * sizeof *m->weights);
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t i = 0; i < m->count; i++) {
        m->weights[i] = malloc(m->specs[i].elements * sizeof(float));
        for (uint64_t k = 0; k < m->specs[i].elements; k++) {
            m->weights[i][k] = draw(&random, &m->specs[i]);
        }
    }
}

void reference_free(reference_model *m) {
    for (size_t i = 0; i < m->count; i++) {
        free(m->weights[i]);
    }
    free(m->weights);
    free(m->specs);
}

void reference_write(const reference_model *m, const char *path) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_config_write(&m->config, writer);
    for (size_t i = 0; i < m->count; i++) {
        const dm_tensor_spec *s = &m->specs[i];
        dm_gguf_add_tensor(writer, s->name, DM_TYPE_F32, s->dims, s->n_dims, m->weights[i]);
    }
    if (dm_gguf_writer_finish(writer, path) != DM_OK) {
        fprintf(stderr, "%s\n", dm_error_message());
        exit(1);
    }
    dm_gguf_writer_free(writer);
}

dm_model *reference_open(const reference_model *m, const char *path) {
    dm_model *model = NULL;
    reference_write(m, path);
    if (dm_model_open(path, &model) != DM_OK) {
        fprintf(stderr, "%s\n", dm_error_message());
        exit(1);
    }
    return model;
}

/* ---- Tokens and logits ---- */

void reference_ids(int32_t *ids, int32_t n, int32_t vocab, uint32_t seed) {
    for (int32_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
}

double reference_difference(const float *logits, const double *expected, size_t n) {
    double largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)logits[i] - expected[i]);
        largest = difference > largest || isnan(difference) ? difference : largest;
    }
    return largest;
}

/* ---- Pieces ---- */

static void show(const reference_model *m, int32_t layer, dm_role role, int32_t expert, const double *x, int32_t n, double gate) {
    if (m->see != NULL) {
        m->see(m->user, layer, role, expert, x, n, gate);
    }
}

/* y = W x + b */
static void product(double *y, const float *w, const float *b, const double *x, int32_t rows, int32_t columns) {
    for (int32_t r = 0; r < rows; r++) {
        y[r] = b != NULL ? (double)b[r] : 0.0;
        for (int32_t k = 0; k < columns; k++) {
            y[r] += (double)w[(size_t)r * (size_t)columns + (size_t)k] * x[k];
        }
    }
}

/* RMSNorm, or LayerNorm where there is a bias; in place allowed. */
static void norm(double *y, const double *x, const float *w, const float *b, double eps, int32_t n) {
    double mean = 0.0, squares = 0.0;
    for (int32_t i = 0; i < n && b != NULL; i++) {
        mean += x[i] / n;
    }
    for (int32_t i = 0; i < n; i++) {
        squares += (x[i] - mean) * (x[i] - mean) / n;
    }
    for (int32_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) / sqrt(squares + eps) * (double)w[i] + (b != NULL ? (double)b[i] : 0.0);
    }
}

static double silu(double x) {
    return x / (1.0 + exp(-x));
}

static double gelu(double x) {
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* ---- Positions ---- */

/* The angle by which frequency i of `dims` turns at a position; *size is what cosines and sines are multiplied by. */
static double angle_of(const reference_model *m, int32_t position, int32_t i, int32_t dims, double *size) {
    const dm_rope_scaling *s = &m->config.rope_scaling;
    const float *factors = find(m, DM_ROPE_FACTORS, -1, -1);
    double base = (double)m->config.rope_base;
    double inverse = 1.0 / pow(base, 2.0 * i / dims) / (factors != NULL ? (double)factors[i] : 1.0);
    *size = s->attention != 0.0f ? (double)s->attention : 1.0;
    if (s->kind == DM_SCALING_LINEAR) {
        return position / (double)s->factor * inverse;
    }
    if (s->kind == DM_SCALING_YARN) { /* Peng et al. 2023, section 3.4 */
        double at[2];
        const double betas[] = {(double)s->beta_fast, (double)s->beta_slow};
        for (int k = 0; k < 2; k++) {
            at[k] = dims * log(s->original_context / (betas[k] * 2.0 * M_PI)) / (2.0 * log(base));
        }
        double low = fmax(floor(at[0]), 0.0), high = fmin(ceil(at[1]), dims - 1.0);
        double ramp = fmin(1.0, fmax(0.0, (i - low) / fmax(high - low, 0.001)));
        *size *= 0.1 * log((double)s->factor) + 1.0;
        return position * (inverse / (double)s->factor * ramp + inverse * (1.0 - ramp));
    }
    return position * inverse;
}

static void turn(const reference_model *m, double *head, int32_t position) {
    const dm_config *c = &m->config;
    bool pairs = c->arch == DM_ARCH_LLAMA;
    int32_t dims = c->rope_dims > 0 ? c->rope_dims : c->head_dim;
    for (int32_t i = 0; i < dims / 2 && c->rope_base > 0.0f; i++) {
        double size, angle = angle_of(m, position, i, dims, &size);
        double *a = head + (pairs ? 2 * i : i), *b = head + (pairs ? 2 * i + 1 : i + dims / 2);
        double turned = (*a * cos(angle) - *b * sin(angle)) * size;
        *b = (*a * sin(angle) + *b * cos(angle)) * size;
        *a = turned;
    }
}

/* ---- Layers ---- */

/* Norms of queries or keys of one token: of each head, or of all of them. */
static void norm_heads(const reference_model *m, int32_t l, dm_role role, double *heads, int32_t n_heads) {
    const float *w = find(m, role, l, -1);
    int32_t width = m->config.arch == DM_ARCH_OLMOE ? n_heads * m->config.head_dim : m->config.head_dim;
    for (int32_t at = 0; w != NULL && at < n_heads * m->config.head_dim; at += width) {
        norm(heads + at, heads + at, w, NULL, (double)m->config.norm_eps, width);
    }
}

static void queries_keys_values(const reference_model *m, int32_t l, const double *x, int32_t position, double *q, double *k,
                                double *v) {
    const dm_config *c = &m->config;
    int32_t nq = c->n_heads * c->head_dim, nk = c->n_kv_heads * c->head_dim;
    const float *fused = find(m, DM_ATTN_QKV, l, -1);
    if (fused != NULL) {
        const float *b = find(m, DM_ATTN_QKV_B, l, -1);
        product(q, fused, b, x, nq, c->dim);
        product(k, fused + nq * c->dim, b + nq, x, nq, c->dim);
        product(v, fused + 2 * nq * c->dim, b + 2 * nq, x, nq, c->dim);
    } else {
        product(q, find(m, DM_ATTN_Q, l, -1), find(m, DM_ATTN_Q_B, l, -1), x, nq, c->dim);
        product(k, find(m, DM_ATTN_K, l, -1), find(m, DM_ATTN_K_B, l, -1), x, nk, c->dim);
        product(v, find(m, DM_ATTN_V, l, -1), find(m, DM_ATTN_V_B, l, -1), x, nk, c->dim);
    }
    norm_heads(m, l, DM_ATTN_Q_NORM, q, c->n_heads);
    norm_heads(m, l, DM_ATTN_K_NORM, k, c->n_kv_heads);
    for (int32_t h = 0; h < c->n_heads; h++) {
        turn(m, q + h * c->head_dim, position);
    }
    for (int32_t h = 0; h < c->n_kv_heads; h++) {
        turn(m, k + h * c->head_dim, position);
    }
}

/* One head of the token at `position`; keys and values [position + 1, stride]. weights: scratch [position + 1]. */
static void attend(const dm_config *c, const double *q, const double *k, const double *v, int32_t position, double *weights,
                   double *out) {
    size_t stride = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    int32_t first = c->window > 0 && position >= c->window ? position - c->window + 1 : 0;
    double most = -INFINITY, total = 0.0;
    for (int32_t j = first; j <= position; j++) {
        weights[j] = 0.0;
        for (int32_t i = 0; i < c->head_dim; i++) {
            weights[j] += q[i] * k[(size_t)j * stride + (size_t)i] / sqrt(c->head_dim);
        }
        most = fmax(most, weights[j]);
    }
    memset(out, 0, (size_t)c->head_dim * sizeof *out);
    for (int32_t j = first; j <= position; j++) {
        double p = exp(weights[j] - most);
        total += p;
        for (int32_t i = 0; i < c->head_dim; i++) {
            out[i] += p * v[(size_t)j * stride + (size_t)i];
        }
    }
    for (int32_t i = 0; i < c->head_dim; i++) {
        out[i] /= total;
    }
}

/* x += attention of all n tokens from `first` on; the earlier ones give keys and values only */
static void attention(const reference_model *m, int32_t l, double *x, int32_t n, int32_t first) {
    const dm_config *c = &m->config;
    size_t nq = (size_t)c->n_heads * (size_t)c->head_dim, nk = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    double *q = calloc((size_t)n * nq, sizeof *q), *k = calloc((size_t)n * nk, sizeof *k), *v = calloc((size_t)n * nk, sizeof *v);
    double *h = calloc((size_t)c->dim, sizeof *h), *out = calloc(nq, sizeof *out), *weights = calloc((size_t)n, sizeof *weights);
    for (int32_t t = 0; t < n; t++) {
        norm(h, x + t * c->dim, find(m, DM_ATTN_NORM, l, -1), find(m, DM_ATTN_NORM_B, l, -1), (double)c->norm_eps, c->dim);
        queries_keys_values(m, l, h, t, q + (size_t)t * nq, k + (size_t)t * nk, v + (size_t)t * nk);
    }
    for (int32_t t = first; t < n; t++) {
        norm(h, x + t * c->dim, find(m, DM_ATTN_NORM, l, -1), find(m, DM_ATTN_NORM_B, l, -1), (double)c->norm_eps, c->dim);
        show(m, l, find(m, DM_ATTN_QKV, l, -1) != NULL ? DM_ATTN_QKV : DM_ATTN_Q, -1, h, c->dim, 1.0);
        for (int32_t head = 0; head < c->n_heads; head++) {
            size_t kv = (size_t)(head / (c->n_heads / c->n_kv_heads)) * (size_t)c->head_dim;
            size_t own = (size_t)head * (size_t)c->head_dim;
            attend(c, q + (size_t)t * nq + own, k + kv, v + kv, t, weights, out + own);
        }
        show(m, l, DM_ATTN_OUTPUT, -1, out, (int32_t)nq, 1.0);
        product(h, find(m, DM_ATTN_OUTPUT, l, -1), find(m, DM_ATTN_OUTPUT_B, l, -1), out, c->dim, (int32_t)nq);
        for (int32_t i = 0; i < c->dim; i++) {
            x[t * c->dim + i] += h[i];
        }
    }
    free(q);
    free(k);
    free(v);
    free(h);
    free(out);
    free(weights);
}

/* Whose matrices a feed-forward block has. */
typedef struct owner {
    const reference_model *m;
    int32_t layer, expert;
    dm_role up, down;
} owner;

/* y += share * down(act(gate x) * up x) */
static void feed_forward(const owner *own, double *y, double share, const float *gate, const float *gate_b, const float *up,
                         const float *up_b, const float *down, const float *down_b, const double *x, int32_t width, int32_t dim) {
    double *g = calloc((size_t)width, sizeof *g), *u = calloc((size_t)width, sizeof *u), *d = calloc((size_t)dim, sizeof *d);
    show(own->m, own->layer, own->up, own->expert, x, dim, share);
    product(u, up, up_b, x, width, dim);
    if (gate != NULL) {
        product(g, gate, gate_b, x, width, dim);
    }
    for (int32_t i = 0; i < width; i++) {
        u[i] = gate != NULL ? silu(g[i]) * u[i] : gelu(u[i]);
    }
    show(own->m, own->layer, own->down, own->expert, u, width, share);
    product(d, down, down_b, u, dim, width);
    for (int32_t i = 0; i < dim; i++) {
        y[i] += share * d[i];
    }
    free(g);
    free(u);
    free(d);
}

/* One expert's matrix, wherever it lies. */
static const float *expert(const reference_model *m, dm_role role, int32_t l, int32_t e) {
    const float *apart = find(m, role, l, e);
    return apart != NULL ? apart : find(m, role, l, -1) + (size_t)e * (size_t)m->config.expert_dim * (size_t)m->config.dim;
}

static void experts(const reference_model *m, int32_t l, const double *x, double *y) {
    const dm_config *c = &m->config;
    double *p = calloc((size_t)c->n_experts, sizeof *p), total = 0.0, chosen = 0.0;
    bool *taken = calloc((size_t)c->n_experts, sizeof *taken);
    product(p, find(m, DM_FFN_ROUTER, l, -1), NULL, x, c->n_experts, c->dim);
    for (int32_t e = 0; e < c->n_experts; e++) {
        p[e] = exp(p[e]);
        total += p[e];
    }
    for (int32_t j = 0; j < c->top_k; j++) {
        int32_t best = -1;
        for (int32_t e = 0; e < c->n_experts; e++) {
            best = !taken[e] && (best < 0 || p[e] > p[best]) ? e : best;
        }
        taken[best] = true;
        chosen += p[best];
    }
    for (int32_t e = 0; e < c->n_experts; e++) {
        if (taken[e]) {
            double share = p[e] / (c->plain_gates ? total : chosen) * (c->expert_scale != 0.0f ? (double)c->expert_scale : 1.0);
            const owner own = {m, l, e, DM_FFN_UP_EXPS, DM_FFN_DOWN_EXPS};
            feed_forward(&own, y, share, expert(m, DM_FFN_GATE_EXPS, l, e), NULL, expert(m, DM_FFN_UP_EXPS, l, e), NULL,
                         expert(m, DM_FFN_DOWN_EXPS, l, e), NULL, x, c->expert_dim, c->dim);
        }
    }
    if (c->shared_dim > 0) {
        double gate;
        product(&gate, find(m, DM_FFN_ROUTER_SHEXP, l, -1), NULL, x, 1, c->dim);
        const owner own = {m, l, -1, DM_FFN_UP_SHEXP, DM_FFN_DOWN_SHEXP};
        feed_forward(&own, y, 1.0 / (1.0 + exp(-gate)), find(m, DM_FFN_GATE_SHEXP, l, -1), NULL, find(m, DM_FFN_UP_SHEXP, l, -1),
                     NULL, find(m, DM_FFN_DOWN_SHEXP, l, -1), NULL, x, c->shared_dim, c->dim);
    }
    free(p);
    free(taken);
}

void reference_forward(const reference_model *m, const int32_t *ids, int32_t n, int32_t rows, double *logits) {
    const dm_config *c = &m->config;
    double *x = calloc((size_t)n * (size_t)c->dim, sizeof *x), *h = calloc((size_t)c->dim, sizeof *h);
    const float *positions = find(m, DM_POSITION_EMBD, -1, -1), *embeddings = find(m, DM_TOKEN_EMBD, -1, -1);
    for (int32_t t = 0; t < n; t++) {
        for (int32_t i = 0; i < c->dim; i++) {
            x[t * c->dim + i] = (double)embeddings[ids[t] * c->dim + i];
            x[t * c->dim + i] += positions != NULL ? (double)positions[t * c->dim + i] : 0.0;
        }
    }
    for (int32_t l = 0; l < c->n_layers; l++) {
        int32_t first = l + 1 < c->n_layers ? 0 : n - rows; /* what nobody looks at is not computed */
        attention(m, l, x, n, first);
        for (int32_t t = first; t < n; t++) {
            double *own = x + t * c->dim;
            norm(h, own, find(m, DM_FFN_NORM, l, -1), find(m, DM_FFN_NORM_B, l, -1), (double)c->norm_eps, c->dim);
            if (c->n_experts > 0) {
                experts(m, l, h, own);
            } else {
                const owner dense = {m, l, -1, DM_FFN_UP, DM_FFN_DOWN};
                feed_forward(&dense, own, 1.0, find(m, DM_FFN_GATE, l, -1), find(m, DM_FFN_GATE_B, l, -1),
                             find(m, DM_FFN_UP, l, -1), find(m, DM_FFN_UP_B, l, -1), find(m, DM_FFN_DOWN, l, -1),
                             find(m, DM_FFN_DOWN_B, l, -1), h, c->ffn_dim, c->dim);
            }
        }
    }
    const float *out = find(m, c->tied_output ? DM_TOKEN_EMBD : DM_OUTPUT, -1, -1);
    for (int32_t t = n - rows; t < n; t++) {
        norm(h, x + t * c->dim, find(m, DM_OUTPUT_NORM, -1, -1), find(m, DM_OUTPUT_NORM_B, -1, -1), (double)c->norm_eps, c->dim);
        show(m, -1, DM_OUTPUT, -1, h, c->dim, 1.0);
        product(logits + (size_t)(t - n + rows) * (size_t)c->vocab, out, NULL, h, c->vocab, c->dim);
    }
    free(x);
    free(h);
}

dm_config reference_shape(dm_arch arch, int32_t vocab, int32_t context) {
    return (dm_config){.arch = arch,
                       .n_layers = 2,
                       .dim = 36,
                       .n_heads = 6,
                       .n_kv_heads = 2,
                       .head_dim = 10,
                       .ffn_dim = 44,
                       .vocab = vocab,
                       .context = context,
                       .norm_eps = 1e-5f,
                       .rope_base = 10000.0f};
}

dm_config reference_expert_shape(dm_arch arch, int32_t vocab, int32_t context) {
    dm_config c = reference_shape(arch, vocab, context);
    c.ffn_dim = 0;
    c.n_experts = 7;
    c.top_k = 3;
    c.expert_dim = 22;
    c.shared_dim = arch == DM_ARCH_QWEN2MOE ? 30 : 0;
    c.plain_gates = arch == DM_ARCH_OLMOE || arch == DM_ARCH_QWEN2MOE;
    return c;
}
