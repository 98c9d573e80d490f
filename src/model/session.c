#include "model/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/tiles.h"
#include "kernels/vector.h"
#include "model/forward.h"
#include "model/placed.h"
#include "model/repack.h"

enum {
    BATCH = 256,
    TILED_BATCH = 512, /* where widening the weights is shared by a prompt's tokens */
    STEPS = 64,        /* most sequences in one pass where prompts have scratch of their own */
    MAX_OWNED = sizeof((dm_session){0}).owned / sizeof(void *),
};

dm_attention_shape dm_session_attention(const dm_session *session, int32_t layer) {
    const dm_config *c = &session->model->config;
    return (dm_attention_shape){.n_heads = (size_t)c->n_heads,
                                .n_kv_heads = (size_t)c->n_kv_heads,
                                .width = (size_t)c->head_dim,
                                .window = (size_t)c->window,
                                .layer = layer};
}

/* ---- Memory -------------------------------------------------------------- */

/* Zeroed memory that goes with the session; nothing for a count of 0. A failure is remembered in out_of_memory. By calloc,
 * for the system hands out pages as they are used: most are for batches, and many prompts are short. */
static void *want(dm_session *session, size_t count, size_t size) {
    size_t bytes = 0;
    if (count == 0 || session->out_of_memory) {
        return NULL;
    }
    bool fits = dm_mul_size(count, size, &bytes) && dm_add_size(bytes, DM_ALIGNMENT - 1, &bytes);
    char *memory = fits && session->n_owned < MAX_OWNED ? calloc(bytes, 1) : NULL;
    if (memory == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory for a session (%zu x %zu bytes)", count, size);
        session->out_of_memory = true;
        return NULL;
    }
    session->owned[session->n_owned++] = memory;
    session->owned_bytes += bytes;
    return memory + (DM_ALIGNMENT - (uintptr_t)memory % DM_ALIGNMENT) % DM_ALIGNMENT;
}

/* ---- Weights ------------------------------------------------------------- */

static dm_weight read_weight(const void *data, dm_type type, const uint64_t *dims, const void *panels) {
    return (dm_weight){.data = data, .type = type, .rows = dims[1] * dims[2] * dims[3], .columns = dims[0], .panels = panels};
}

/* Whether all matrices of a tensor are panels as they lie in the file. */
static bool all_mixed(const dm_tensor *tensor, size_t n_experts) {
    bool all = tensor->type == DM_TYPE_MIXED;
    for (size_t e = 0; all && tensor->experts != NULL && e < n_experts; e++) {
        all = tensor->experts[e].type == DM_TYPE_MIXED;
    }
    return all;
}

/* Panels of a matrix, or of a stack of experts. Where others have them, the store or `placed`, only that there are some. */
static const void *find_panels(const dm_model *model, int32_t layer, dm_role role, const dm_tensor *tensor) {
    if (all_mixed(tensor, (size_t)model->config.n_experts) ||
        (model->placed != NULL && dm_repacked_format(model, layer, role) != NULL)) {
        return tensor->data;
    }
    return dm_repacked_panels(model, layer, role);
}

/* Experts that have homes. */
static bool have_homes(const dm_model *model) {
    return model->placed != NULL && model->streaming == NULL && model->config.n_experts > 0;
}

/* One expert's matrix that lies apart; `panels` are those of all. */
static dm_weight read_expert(const dm_model *model, int32_t layer, dm_role role, size_t e, const char *panels) {
    dm_weight own = dm_tensor_matrix(&model->layers[layer].tensors[role], e);
    if (have_homes(model)) {
        const dm_weight_copy *copy = dm_placed_expert(model, layer, role, (int32_t)e);
        own.data = copy->data;
        own.panels = copy->panels;
    } else if (own.type == DM_TYPE_MIXED) {
        own.panels = own.data;
    } else if (panels != NULL) {
        own.panels = panels + e * dm_weight_panel_bytes(&own);
    }
    return own;
}

/* `apart` has room for the matrices of experts that lie apart; the rest of it is returned. */
static dm_weight *read_weights(const dm_model *model, int32_t layer, dm_weight *apart, dm_weights *out) {
    const dm_tensor *tensors = layer < 0 ? model->tensors : model->layers[layer].tensors;
    for (int role = 0; role < DM_ROLES; role++) {
        const dm_tensor *tensor = &tensors[role];
        if (tensor->data == NULL) {
            continue;
        }
        const char *panels = find_panels(model, layer, (dm_role)role, tensor);
        out->matrices[role] = read_weight(tensor->data, tensor->type, tensor->dims, panels);
        out->vectors[role] = tensor->type == DM_TYPE_F32 ? tensor->data : NULL; /* as all norms and biases are */
        if (model->placed != NULL && !dm_role_is_expert((dm_role)role)) {
            out->matrices[role].copies = dm_placed_matrix(model, layer, (dm_role)role);
            out->matrices[role].mirrored = dm_placed_mirrored(model);
        }
        if (apart == NULL || !dm_role_is_expert((dm_role)role) || (tensor->experts == NULL && !have_homes(model))) {
            continue;
        }
        out->apart[role] = apart;
        for (size_t e = 0; e < (size_t)model->config.n_experts; e++) {
            *apart++ = read_expert(model, layer, (dm_role)role, e, panels);
        }
    }
    return apart;
}

static dm_status read_all_weights(dm_session *session) {
    const dm_model *model = session->model;
    size_t layers = (size_t)model->config.n_layers;
    size_t experts = (size_t)model->config.n_experts;
    session->layers = want(session, layers, sizeof *session->layers);
    dm_weight *apart = want(session, model->experts != NULL || have_homes(model) ? 3 * layers * experts : 0, sizeof *apart);
    if (session->out_of_memory) {
        return DM_ERR_MEMORY;
    }
    read_weights(model, -1, NULL, &session->global);
    for (int32_t l = 0; l < model->config.n_layers; l++) {
        apart = read_weights(model, l, apart, &session->layers[l]);
    }
    return DM_OK;
}

static size_t widest_row(const dm_session *session) {
    const dm_config *c = &session->model->config;
    size_t widest = (size_t)c->dim;
    const int32_t others[] = {c->n_heads * c->head_dim, c->ffn_dim, c->expert_dim, c->shared_dim};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        widest = (size_t)others[i] > widest ? (size_t)others[i] : widest;
    }
    return widest;
}

static void make_tiles_scratch(dm_session *session) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    dm_expert_tiles_sizes sizes;
    dm_forward_expert_tiles_sizes(c, (size_t)session->batch, &sizes);
    a->grouped_tiles = want(session, sizes.grouped, 1);
    a->hidden_tiles = want(session, sizes.hidden, 1);
    a->apart_sums = want(session, session->model->placed != NULL ? sizes.apart : 0, 1);
    a->tile_rows = want(session, (size_t)c->n_experts, sizeof *a->tile_rows);
    a->tile_room = want(session, (size_t)session->threads * sizes.each, 1);
    a->tile_room_each = sizes.each;
}

/* For `choices` choices at a time that do not meet tiles. */
static void make_rows_scratch(dm_session *session, size_t choices, bool some_packed, bool some_not) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t dim = (size_t)c->dim, width = (size_t)c->expert_dim, rounded = some_packed ? choices : 0;
    a->grouped = want(session, choices * dim, sizeof *a->grouped);
    a->hidden = want(session, some_not ? choices * width : 0, sizeof *a->hidden);
    a->up = want(session, some_not ? choices * width : 0, sizeof *a->up);
    a->rounded = want(session, rounded / (size_t)c->top_k * dm_q8_stride(dim), sizeof *a->rounded);
    a->grouped_rounded = want(session, rounded * dm_q8_stride(dim), sizeof *a->grouped_rounded);
    a->hidden_rounded = want(session, rounded * dm_q8_stride(width), sizeof *a->hidden_rounded);
}

static void make_expert_scratch(dm_session *session) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t batch = (size_t)session->batch, experts = (size_t)c->n_experts, choices = batch * (size_t)c->top_k;
    session->loads = want(session, (size_t)c->n_layers * experts, sizeof *session->loads);
    a->router = want(session, batch * experts, sizeof *a->router);
    a->experts = want(session, choices, sizeof *a->experts);
    a->gates = want(session, choices, sizeof *a->gates);
    a->slots = want(session, choices, sizeof *a->slots);
    a->choices = want(session, choices, sizeof *a->choices);
    a->starts = want(session, experts + 1, sizeof *a->starts);
    a->active = want(session, experts, sizeof *a->active);
    a->dealt = want(session, session->model->placed != NULL ? experts : 0, sizeof *a->dealt);
    bool watched = session->observer != NULL;
    bool some_packed = false, some_not = watched, all_tiled = !watched, some_tiled = false;
    for (int32_t l = 0; l < c->n_layers; l++) {
        bool packed = dm_forward_experts_are_packed(session, &session->layers[l]);
        bool tiled = !watched && dm_forward_experts_take_tiles(session, &session->layers[l]);
        some_packed = some_packed || packed;
        some_not = some_not || !packed;
        some_tiled = some_tiled || tiled;
        all_tiled = all_tiled && tiled;
    }
    if (some_tiled) {
        make_tiles_scratch(session);
    }
    if (some_tiled || watched) {
        a->tokens = want(session, choices, sizeof *a->tokens);
        a->token_gates = want(session, choices, sizeof *a->token_gates);
    }
    if (all_tiled) { /* what is longer meets tiles */
        size_t enough = dm_forward_enough_for_tiles(c);
        session->apart = session->apart < STEPS ? session->apart : STEPS;
        batch = enough > STEPS ? enough : STEPS;
        batch = batch < (size_t)session->batch ? batch : (size_t)session->batch;
    }
    make_rows_scratch(session, batch * (size_t)c->top_k, some_packed, some_not);
}

static void make_attention_scratch(dm_session *session) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t batch = (size_t)session->batch;
    size_t heads = (size_t)c->n_heads * (size_t)c->head_dim;
    bool fused = (dm_config_parts(c) & DM_PART_FUSED_QKV) != 0;
    size_t kv = fused ? 0 : (size_t)c->n_kv_heads * (size_t)c->head_dim;
    a->q = want(session, batch * (fused ? 3 * heads : heads), sizeof *a->q);
    a->k = want(session, batch * kv, sizeof *a->k);
    a->v = want(session, batch * kv, sizeof *a->v);
    a->attended = want(session, batch * heads, sizeof *a->attended);
    const dm_attention_shape shape = dm_session_attention(session, 0);
    a->runs = want(session, batch, sizeof *a->runs);
    session->segments = want(session, batch, sizeof *session->segments);
    a->attention = want(session, (size_t)session->threads * dm_attention_scratch(&shape), sizeof *a->attention);
    session->partials = want(session, dm_attention_partials(&shape, (size_t)session->context), sizeof *session->partials);
}

/* Whether pieces of a prompt meet tiles in every dense feed-forward block, or shared expert. */
static bool dense_takes_tiles(const dm_session *session) {
    static const dm_role roles[2][3] = {{DM_FFN_GATE, DM_FFN_UP, DM_FFN_DOWN},
                                        {DM_FFN_GATE_SHEXP, DM_FFN_UP_SHEXP, DM_FFN_DOWN_SHEXP}};
    for (int32_t l = 0; l < session->model->config.n_layers; l++) {
        for (int i = 0; i < 6; i++) {
            const dm_weight *weight = &session->layers[l].matrices[roles[i / 3][i % 3]];
            if (weight->data != NULL && !dm_tiles_take(weight)) {
                return false;
            }
        }
    }
    return dm_tiles();
}

static void make_scratch(dm_session *session) {
    const dm_config *c = &session->model->config;
    dm_activations *a = &session->scratch;
    size_t batch = (size_t)session->batch;
    size_t ffn = (size_t)(c->n_experts > 0 ? c->shared_dim : c->ffn_dim);
    bool gated = (dm_config_parts(c) & DM_PART_GATED) != 0;
    bool tiled = session->observer == NULL && ffn % DM_TILE_COLUMNS == 0 && dense_takes_tiles(session);
    size_t rows = tiled && batch > STEPS ? STEPS : batch; /* more at a time become tiles */
    a->x = want(session, batch * (size_t)c->dim, sizeof *a->x);
    a->h = want(session, batch * (size_t)c->dim, sizeof *a->h);
    session->apart = (int32_t)rows;
    a->ffn = want(session, rows * ffn, sizeof *a->ffn);
    a->ffn_up = want(session, gated ? rows * ffn : 0, sizeof *a->ffn_up);
    a->ffn_tiles = want(session, dm_tiles() ? dm_tiles_bytes(batch, ffn) : 0, 1);
    a->shared = want(session, c->shared_dim > 0 ? batch * (size_t)c->dim : 0, sizeof *a->shared);
    a->shares = want(session, c->shared_dim > 0 ? batch : 0, sizeof *a->shares);
    a->widened_size = dm_linear_scratch(widest_row(session), 0, 1);
    a->widened = want(session, dm_linear_scratch(widest_row(session), batch, session->threads), sizeof *a->widened);
    session->ids = want(session, (size_t)session->context, sizeof *session->ids);
    session->logits = want(session, (size_t)c->vocab, sizeof *session->logits);
    make_attention_scratch(session);
    if (c->n_experts > 0) {
        make_expert_scratch(session);
    }
}

static dm_status make_rope(dm_session *session) {
    const dm_config *c = &session->model->config;
    size_t half = (size_t)dm_config_rope_dims(c) / 2;
    double *frequencies = want(session, half, sizeof *frequencies);
    if (half == 0 || frequencies == NULL) {
        return DM_OK; /* a lack of memory is remembered */
    }
    dm_status status = dm_rope_init(c, session->global.vectors[DM_ROPE_FACTORS], frequencies, &session->rope);
    if (status != DM_OK) {
        const dm_gguf *file = session->model->file;
        return file != NULL ? dm_fail_in(status, dm_gguf_path(file)) : status;
    }
    session->scratch.turns =
        want(session, (size_t)session->batch * dm_rope_table_size(&session->rope), sizeof *session->scratch.turns);
    return DM_OK;
}

static dm_status make_routing(dm_session *session, const dm_router_options *options) {
    const dm_config *c = &session->model->config;
    if (options == NULL || c->n_experts == 0) {
        return DM_OK; /* a dense model has nothing to choose */
    }
    const dm_residency residency = dm_streaming_residency(session->model);
    const dm_routing_shape shape = {c->n_layers, c->n_experts, c->top_k, session->model->expert_bias,
                                    session->model->streaming != NULL ? &residency : NULL};
    session->chunk = options->chunk;
    return dm_routing_create(options, &shape, (size_t)session->batch, &session->routing);
}

static dm_status build(dm_session *session, dm_cache_type type, const dm_router_options *router) {
    DM_TRY(make_routing(session, router));
    DM_TRY(dm_repack(session->model));
    DM_TRY(session->model->placed != NULL ? dm_placed_fill(session->model) : DM_OK);
    DM_TRY(read_all_weights(session));
    DM_TRY(dm_kv_cache_create(&session->model->config, session->context, type, &session->cache));
    make_scratch(session);
    DM_TRY(make_rope(session));
    if (session->out_of_memory) {
        return DM_ERR_MEMORY;
    }
    session->noted = (int64_t)(session->owned_bytes + (size_t)session->context * dm_kv_cache_position_bytes(&session->cache));
    dm_streaming_note_session(session->model, session->noted);
    return DM_OK;
}

static dm_status check_context(const dm_model *model, int32_t context) {
    const dm_config *c = &model->config;
    if (context < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a context of %d tokens makes no sense; ask for 1 or more, or 0 for the model's %d",
                       context, c->context);
    }
    if (c->rope_base <= 0.0f && context > c->context) {
        return dm_fail(DM_ERR_ARGUMENT, "a context of %d tokens was asked for, but this model knows %d positions", context,
                       c->context);
    }
    return DM_OK;
}

dm_status dm_session_create_observed(const dm_model *model, const dm_session_options *options, const dm_observer *observer,
                                     dm_session **out) {
    *out = NULL;
    const dm_session_options asked = options != NULL ? *options : (dm_session_options){0};
    DM_TRY(check_context(model, asked.context));
    dm_session *session = dm_alloc(1, sizeof *session);
    if (session == NULL) {
        return DM_ERR_MEMORY;
    }
    session->model = model;
    session->observer = observer;
    session->context = asked.context > 0 ? asked.context : model->config.context;
    session->batch = dm_tiles() ? TILED_BATCH : BATCH;
    session->batch = session->context < session->batch ? session->context : session->batch;
    session->threads = dm_threads();
    dm_status status = build(session, asked.cache, asked.router);
    if (status != DM_OK) {
        dm_session_free(session);
        return status;
    }
    *out = session;
    return DM_OK;
}

dm_status dm_session_create_with(const dm_model *model, const dm_session_options *options, dm_session **out) {
    return dm_session_create_observed(model, options, NULL, out);
}

dm_status dm_session_create(const dm_model *model, int32_t context, dm_session **out) {
    const dm_session_options options = {.context = context};
    return dm_session_create_with(model, &options, out);
}

void dm_session_free(dm_session *session) {
    if (session == NULL) {
        return;
    }
    for (size_t i = 0; i < session->n_owned; i++) {
        free(session->owned[i]);
    }
    dm_streaming_note_session(session->model, -session->noted);
    dm_kv_cache_free(&session->cache);
    dm_routing_free(session->routing);
    dm_tokenizer_close(session->own_tokenizer);
    dm_free(session);
}

/* ---- The sequence -------------------------------------------------------- */

void dm_session_truncate(dm_session *session, int32_t length) {
    int32_t kept = length > 0 ? length : 0;
    session->length = kept < session->length ? kept : session->length;
}

int32_t dm_session_keep(dm_session *session, const int32_t *ids, int32_t n) {
    int32_t same = 0;
    while (same < session->length && same < n - 1 && session->ids[same] == ids[same]) {
        same++;
    }
    session->length = same;
    return same;
}

int32_t dm_session_length(const dm_session *session) {
    return session->length;
}

void dm_session_lend_tokenizer(dm_session *session, const dm_tokenizer *tokenizer) {
    session->tokenizer = tokenizer;
}

static dm_status check_feed(const dm_session *session, const int32_t *ids, int32_t n) {
    if (n <= 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%d tokens were fed; at least one is needed", n);
    }
    if (n > session->context - session->length) {
        return dm_fail(DM_ERR_ARGUMENT, "%d more tokens do not fit: the context holds %d and %d are in use", n, session->context,
                       session->length);
    }
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= session->model->config.vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "token id %d (number %d) is outside the vocabulary of %d", ids[i], i + 1,
                           session->model->config.vocab);
        }
    }
    return DM_OK;
}

/* One batch after another; a prefill of several can be interrupted between them. */
static dm_status feed(dm_session *session, const int32_t *ids, int32_t n, bool all, float *logits) {
    size_t vocab = (size_t)session->model->config.vocab;
    const bool together = session->chunk > 0 && !all; /* nobody scores these tokens */
    int32_t step = together && session->chunk < session->batch ? session->chunk : session->batch;
    if (!together && session->routing != NULL && dm_routing_token_by_token(session->routing)) {
        step = 1;
    }
    for (int32_t first = 0; first < n; first += step) {
        if (first > 0 && dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted while reading the prompt");
        }
        int32_t m = n - first < step ? n - first : step;
        dm_logits_kind kind = logits == NULL ? DM_LOGITS_NONE : all ? DM_LOGITS_ALL : DM_LOGITS_LAST;
        if (kind == DM_LOGITS_LAST && first + m < n) {
            kind = DM_LOGITS_NONE;
        }
        float *to = kind == DM_LOGITS_ALL ? logits + (size_t)first * vocab : logits;
        const dm_segment segment = {.session = session, .ids = ids + first, .n = (size_t)m};
        const dm_linear_rows rows = m == 1 ? DM_ROWS_APART : DM_ROWS_OF_CHUNK;
        const dm_pass pass = {session, &segment, 1, (size_t)m, rows, together};
        DM_TRY(dm_forward(&pass, kind, to));
    }
    return DM_OK;
}

dm_status dm_session_feed(dm_session *session, const int32_t *ids, int32_t n, bool all, float *logits) {
    DM_TRY(check_feed(session, ids, n));
    int32_t before = session->length;
    dm_status status = feed(session, ids, n, all, logits);
    if (status != DM_OK) {
        session->length = before;
    }
    return status;
}

/* ---- Several sequences --------------------------------------------------- */

/* Which failed: the messages of one session's checks do not say. */
static dm_status in_session(dm_status status, size_t i) {
    char context[40];
    snprintf(context, sizeof context, "session number %zu", i + 1);
    return status == DM_OK ? DM_OK : dm_fail_in(status, context);
}

static dm_status check_feeds(dm_session *const *sessions, const int32_t *counts, size_t n, const int32_t *ids) {
    for (size_t i = 0; i < n; i++) {
        if (sessions[i]->model != sessions[0]->model) {
            return in_session(dm_fail(DM_ERR_ARGUMENT, "it is of another model"), i);
        }
        for (size_t other = 0; other < i; other++) {
            if (sessions[i] == sessions[other]) {
                return in_session(dm_fail(DM_ERR_ARGUMENT, "it is there twice"), i);
            }
        }
        DM_TRY(in_session(check_feed(sessions[i], ids, counts[i]), i));
        ids += counts[i];
    }
    return DM_OK;
}

/* One pass over the next tokens of n sessions; the one that can take most at a time lends its scratch. */
static dm_status step(dm_session *work, dm_session *const *sessions, size_t n, const int32_t *ids, float *logits) {
    for (size_t i = 0; i < n; i++) {
        work->segments[i] = (dm_segment){.session = sessions[i], .ids = ids + i, .first = i, .n = 1};
    }
    const dm_pass pass = {work, work->segments, n, n, DM_ROWS_APART, true};
    return dm_forward(&pass, logits != NULL ? DM_LOGITS_ALL : DM_LOGITS_NONE, logits);
}

/* How many sessions from `first` on are fed a single token, at most as many as fit into one pass. */
static size_t steps_from(const int32_t *counts, size_t first, size_t n, const dm_session *work) {
    size_t end = first;
    while (end < n && counts[end] == 1 && end - first < (size_t)work->apart) {
        end++;
    }
    return end - first;
}

static dm_status feed_many(dm_session *const *sessions, const int32_t *counts, size_t n, const int32_t *ids, float *logits) {
    size_t vocab = (size_t)sessions[0]->model->config.vocab;
    dm_session *work = sessions[0];
    for (size_t i = 1; i < n; i++) {
        work = sessions[i]->apart > work->apart ? sessions[i] : work;
    }
    for (size_t i = 0; i < n;) {
        float *to = logits != NULL ? logits + i * vocab : NULL;
        size_t steps = steps_from(counts, i, n, work);
        if (steps > 0) {
            DM_TRY(step(work, sessions + i, steps, ids, to));
            ids += steps;
            i += steps;
        } else {
            DM_TRY(feed(sessions[i], ids, counts[i], false, to));
            ids += counts[i++];
        }
    }
    return DM_OK;
}

dm_status dm_session_feed_many(dm_session *const *sessions, const int32_t *counts, size_t n, const int32_t *ids, float *logits) {
    if (n == 0) {
        return DM_OK;
    }
    DM_TRY(check_feeds(sessions, counts, n, ids));
    int32_t *before = dm_alloc(n, sizeof *before);
    if (before == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        before[i] = sessions[i]->length;
    }
    dm_status status = feed_many(sessions, counts, n, ids, logits);
    for (size_t i = 0; i < n && status != DM_OK; i++) {
        sessions[i]->length = before[i];
    }
    dm_free(before);
    return status;
}
