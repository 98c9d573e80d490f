/*
 * The mixture of experts over a piece of a prompt on tile registers: each expert's tokens are gathered as tiles; what comes
 * out of gate and up becomes tiles where it is made; results of the experts are added to their tokens in the experts' order.
 * A token's result does not depend on which others it is computed with.
 */
#include <string.h>

#include "base/parallel.h"
#include "kernels/tiles.h"
#include "kernels/vector.h"
#include "model/forward.h"

enum { TOKENS_EACH = 10 }; /* for an expert, on average: from here on tiles beat int8 dot products */

typedef struct experts {
    const dm_session *session;
    const dm_weights *weights;
    const dm_activations *a;
    size_t dim, width, units, hidden_units; /* tiles along dim, along width */
} experts;

/* ---- Whether, and what for ---- */

static bool take(const dm_session *session, const dm_weights *weights, dm_role role) {
    if (weights->apart[role] == NULL) {
        return dm_tiles_take(&weights->matrices[role]);
    }
    for (int32_t e = 0; e < session->model->config.n_experts; e++) {
        if (!dm_tiles_take(&weights->apart[role][e])) {
            return false;
        }
    }
    return true;
}

bool dm_forward_experts_take_tiles(const dm_session *session, const dm_weights *weights) {
    return dm_tiles() && session->model->config.expert_dim % DM_TILE_COLUMNS == 0 && take(session, weights, DM_FFN_GATE_EXPS) &&
           take(session, weights, DM_FFN_UP_EXPS) && take(session, weights, DM_FFN_DOWN_EXPS);
}

size_t dm_forward_enough_for_tiles(const dm_config *config) {
    return ((size_t)config->n_experts * TOKENS_EACH + (size_t)config->top_k - 1) / (size_t)config->top_k;
}

/* Rows of tiles that `choices` choices of experts fill at most. */
static size_t tile_rows(const dm_config *config, size_t choices) {
    size_t partial = choices < (size_t)config->n_experts ? choices : (size_t)config->n_experts;
    return choices / DM_TILE_ROWS + partial;
}

void dm_forward_expert_tiles_sizes(const dm_config *config, size_t n, dm_expert_tiles_sizes *out) {
    size_t rows = tile_rows(config, n * (size_t)config->top_k) * DM_TILE_ROWS;
    size_t sums = (n + DM_TILE_ROWS - 1) / DM_TILE_ROWS * DM_TILE_ROWS * DM_TILES_TOGETHER;
    out->grouped = dm_tiles_bytes(rows, (size_t)config->dim);
    out->hidden = dm_tiles_bytes(rows, (size_t)config->expert_dim);
    out->each = 2 * sums * sizeof(float) + dm_tiles_scratch();
}

/* ---- Its steps ---- */

/* A thread's own: gate's and up's sums, and what the products want. */
typedef struct room {
    float *gate, *up;
    void *scratch;
} room;

static room room_of(const experts *x, int thread) {
    uint8_t *own = x->a->tile_room + (size_t)thread * x->a->tile_room_each;
    size_t sums = (x->a->tile_room_each - dm_tiles_scratch()) / 2;
    return (room){(float *)(void *)own, (float *)(void *)(own + sums), own + 2 * sums};
}

/* Tokens of an expert, and the first of them among all choices in the experts' order. */
static size_t tokens_of(const experts *x, int32_t e, size_t *first) {
    *first = (size_t)x->a->starts[e];
    return (size_t)x->a->starts[e + 1] - *first;
}

/* Lists the experts that have tokens, and where the tiles of each begin. */
static size_t list_active(const experts *x) {
    size_t n = 0, row = 0;
    for (int32_t e = 0; e < x->session->model->config.n_experts; e++) {
        size_t first, m = tokens_of(x, e, &first);
        if (m > 0) {
            x->a->active[n] = e;
            x->a->tile_rows[n++] = (int32_t)row;
            row += (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS;
        }
    }
    return n;
}

static uint8_t *grouped_tiles(const experts *x, size_t i) {
    return x->a->grouped_tiles + (size_t)x->a->tile_rows[i] * dm_tiles_bytes(1, x->dim);
}

static uint8_t *hidden_tiles(const experts *x, size_t i) {
    return x->a->hidden_tiles + (size_t)x->a->tile_rows[i] * dm_tiles_bytes(1, x->width);
}

/* The tokens of active experts begin .. end - 1 as tiles. */
static void gather_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t first, m = tokens_of(x, x->a->active[i], &first);
        dm_tiles_pack(grouped_tiles(x, i), x->units, x->a->h, x->dim, x->a->tokens + first, m, x->dim);
    }
}

/* 32 columns of hidden = silu(gate x) * up x as tiles, for all tokens of an expert. */
static void columns_in(const experts *x, size_t i, size_t unit, const room *own) {
    int32_t e = x->a->active[i];
    size_t first, m = tokens_of(x, e, &first), row = unit * DM_TILE_COLUMNS;
    dm_weight gate = dm_forward_expert_matrix(x->session, x->weights, DM_FFN_GATE_EXPS, e);
    dm_weight up = dm_forward_expert_matrix(x->session, x->weights, DM_FFN_UP_EXPS, e);
    dm_tiles_product(own->gate, grouped_tiles(x, i), m, &gate, row, 1, own->scratch);
    dm_tiles_product(own->up, grouped_tiles(x, i), m, &up, row, 1, own->scratch);
    dm_vector()->swiglu(own->gate, own->gate, own->up, m * DM_TILE_COLUMNS);
    dm_tiles_pack(hidden_tiles(x, i) + unit * dm_tiles_bytes(1, DM_TILE_COLUMNS), x->hidden_units, own->gate, DM_TILE_COLUMNS,
                  NULL, m, DM_TILE_COLUMNS);
}

static void in_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    const room own = room_of(x, thread);
    for (size_t i = begin; i < end; i++) {
        columns_in(x, i / x->hidden_units, i % x->hidden_units, &own);
    }
}

/* Columns 32 part .. of h = sum over the experts of gates * down hidden. */
static void columns_out(const experts *x, size_t n_active, size_t n, size_t part, const room *own) {
    size_t row = part * DM_TILES_TOGETHER;
    size_t columns = x->dim - row < DM_TILES_TOGETHER ? x->dim - row : DM_TILES_TOGETHER;
    float *h = x->a->h + row;
    for (size_t t = 0; t < n; t++) {
        memset(h + t * x->dim, 0, columns * sizeof *h);
    }
    for (size_t i = 0; i < n_active; i++) {
        int32_t e = x->a->active[i];
        size_t first, m = tokens_of(x, e, &first);
        dm_weight down = dm_forward_expert_matrix(x->session, x->weights, DM_FFN_DOWN_EXPS, e);
        dm_tiles_product(own->gate, hidden_tiles(x, i), m, &down, row, 1, own->scratch);
        dm_tiles_add(h, x->dim, own->gate, x->a->tokens + first, x->a->token_gates + first, m, columns);
    }
}

typedef struct mixing {
    const experts *x;
    size_t n_active, n;
} mixing;

static void out_body(void *user, size_t begin, size_t end, int thread) {
    const mixing *it = user;
    const room own = room_of(it->x, thread);
    for (size_t part = begin; part < end; part++) {
        columns_out(it->x, it->n_active, it->n, part, &own);
    }
}

void dm_forward_experts_tiled(dm_session *session, const dm_weights *weights, size_t n) {
    enum { ROUNDING_COST = 2, TILES_FASTER = 8 }; /* in float32 multiplications */
    const dm_config *c = &session->model->config;
    const dm_activations *a = &session->scratch;
    experts x = {session, weights, a, (size_t)c->dim, (size_t)c->expert_dim, 0, 0};
    size_t choices = (size_t)a->starts[c->n_experts];
    x.units = dm_tiles_units(x.dim);
    x.hidden_units = dm_tiles_units(x.width);
    for (size_t i = 0; i < choices; i++) {
        a->tokens[i] = a->choices[i] / c->top_k;
        a->token_gates[i] = a->gates[a->choices[i]];
    }
    size_t active = list_active(&x), each = choices / (active + 1) + DM_TILE_ROWS; /* tokens, about, and what widening costs */
    mixing out = {&x, active, n};
    dm_parallel(session->threads, active, dm_parallel_grain(ROUNDING_COST * each * x.dim), gather_body, &x);
    dm_parallel(session->threads, active * x.hidden_units, dm_parallel_grain(2 * DM_TILE_COLUMNS * x.dim * each / TILES_FASTER),
                in_body, &x);
    dm_parallel(session->threads, (x.dim + DM_TILES_TOGETHER - 1) / DM_TILES_TOGETHER,
                dm_parallel_grain(active * DM_TILES_TOGETHER * x.width * each / TILES_FASTER), out_body, &out);
}
