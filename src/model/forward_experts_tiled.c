/*
 * The mixture of experts over a piece of a prompt on tile registers: each expert's tokens are gathered as tiles; what comes
 * out of gate and up becomes tiles where it is made; results of the experts are added to their tokens in the experts' order:
 * as they come, or, where each expert is computed at its home, when all are there. A token's result does not depend on which
 * others it is computed with.
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
    const int32_t *active;                  /* [n_active] experts to run, ascending */
    size_t n_active, n;                     /* tokens */
    dm_expert_lists lists;                  /* the same experts */
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

/* Groups of rows of the experts' last matrix. */
static size_t parts_of(size_t dim) {
    return (dim + DM_TILES_TOGETHER - 1) / DM_TILES_TOGETHER;
}

void dm_forward_expert_tiles_sizes(const dm_config *config, size_t n, dm_expert_tiles_sizes *out) {
    size_t rows = tile_rows(config, n * (size_t)config->top_k) * DM_TILE_ROWS;
    size_t sums = (n + DM_TILE_ROWS - 1) / DM_TILE_ROWS * DM_TILE_ROWS * DM_TILES_TOGETHER;
    out->grouped = dm_tiles_bytes(rows, (size_t)config->dim);
    out->hidden = dm_tiles_bytes(rows, (size_t)config->expert_dim);
    out->each = 2 * sums * sizeof(float) + dm_tiles_scratch();
    out->apart = rows * parts_of((size_t)config->dim) * DM_TILES_TOGETHER * sizeof(float);
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

/* Where the tiles of each expert's tokens begin. */
static void place_tiles(const experts *x) {
    size_t row = 0;
    for (int32_t e = 0; e < x->session->model->config.n_experts; e++) {
        size_t first, m = tokens_of(x, e, &first);
        x->a->tile_rows[e] = (int32_t)row;
        row += (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS;
    }
}

static uint8_t *grouped_tiles(const experts *x, int32_t e) {
    return x->a->grouped_tiles + (size_t)x->a->tile_rows[e] * dm_tiles_bytes(1, x->dim);
}

static uint8_t *hidden_tiles(const experts *x, int32_t e) {
    return x->a->hidden_tiles + (size_t)x->a->tile_rows[e] * dm_tiles_bytes(1, x->width);
}

/* The tokens of experts begin .. end - 1 as tiles. */
static void gather_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    (void)thread;
    for (size_t e = begin; e < end; e++) {
        size_t first, m = tokens_of(x, (int32_t)e, &first);
        dm_tiles_pack(grouped_tiles(x, (int32_t)e), x->units, x->a->h, x->dim, x->a->tokens + first, m, x->dim);
    }
}

/* 32 columns of hidden = silu(gate x) * up x as tiles, for all tokens of an expert. */
static void columns_in(const experts *x, int32_t e, size_t unit, const room *own) {
    size_t first, m = tokens_of(x, e, &first), row = unit * DM_TILE_COLUMNS;
    dm_weight gate = dm_forward_expert_matrix(x->session, x->weights, DM_FFN_GATE_EXPS, e);
    dm_weight up = dm_forward_expert_matrix(x->session, x->weights, DM_FFN_UP_EXPS, e);
    dm_tiles_product(own->gate, grouped_tiles(x, e), m, &gate, row, 1, own->scratch);
    dm_tiles_product(own->up, grouped_tiles(x, e), m, &up, row, 1, own->scratch);
    dm_vector()->swiglu(own->gate, own->gate, own->up, m * DM_TILE_COLUMNS);
    dm_tiles_pack(hidden_tiles(x, e) + unit * dm_tiles_bytes(1, DM_TILE_COLUMNS), x->hidden_units, own->gate, DM_TILE_COLUMNS,
                  NULL, m, DM_TILE_COLUMNS);
}

/* Expert number i of a list. */
static int32_t expert_at(const experts *x, size_t list, size_t i) {
    return x->lists.experts[x->lists.starts[list] + i];
}

static void in_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const experts *x = user;
    const room own = room_of(x, thread);
    for (size_t i = begin; i < end; i++) {
        columns_in(x, expert_at(x, list, i / x->hidden_units), i % x->hidden_units, &own);
    }
}

/* sums = columns part * DM_TILES_TOGETHER .. of down hidden, for all tokens of an expert. */
static void product_out(const experts *x, int32_t e, size_t part, float *sums, void *scratch) {
    size_t first, m = tokens_of(x, e, &first);
    dm_weight down = dm_forward_expert_matrix(x->session, x->weights, DM_FFN_DOWN_EXPS, e);
    dm_tiles_product(sums, hidden_tiles(x, e), m, &down, part * DM_TILES_TOGETHER, 1, scratch);
}

/* Those columns of h += gates * sums. */
static void add_out(const experts *x, int32_t e, size_t part, const float *sums) {
    size_t first, m = tokens_of(x, e, &first), row = part * DM_TILES_TOGETHER;
    size_t columns = x->dim - row < DM_TILES_TOGETHER ? x->dim - row : DM_TILES_TOGETHER;
    dm_tiles_add(x->a->h + row, x->dim, sums, x->a->tokens + first, x->a->token_gates + first, m, columns);
}

/* Where the sums of an expert and some columns wait until they are added. */
static float *waiting(const experts *x, int32_t e, size_t part) {
    size_t tile = (size_t)DM_TILE_ROWS * DM_TILES_TOGETHER, first, m = tokens_of(x, e, &first);
    size_t before = (size_t)x->a->tile_rows[e] * parts_of(x->dim), own = (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS;
    return x->a->apart_sums + (before + part * own) * tile;
}

static void apart_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const experts *x = user;
    const room own = room_of(x, thread);
    const size_t parts = parts_of(x->dim);
    for (size_t i = begin; i < end; i++) {
        const int32_t e = expert_at(x, list, i / parts);
        product_out(x, e, i % parts, waiting(x, e, i % parts), own.scratch);
    }
}

/* Columns part * DM_TILES_TOGETHER .. of h += sum over the experts of gates * down hidden. */
static void columns_out(const experts *x, size_t part, const room *own) {
    for (size_t i = 0; i < x->n_active; i++) {
        const int32_t e = x->active[i];
        if (x->lists.n > 1) {
            add_out(x, e, part, waiting(x, e, part));
        } else {
            product_out(x, e, part, own->gate, own->scratch);
            add_out(x, e, part, own->gate);
        }
    }
}

static void out_body(void *user, size_t begin, size_t end, int thread) {
    const experts *x = user;
    const room own = room_of(x, thread);
    for (size_t part = begin; part < end; part++) {
        columns_out(x, part, &own);
    }
}

/* ---- All of them --------------------------------------------------------- */

static experts about(const dm_expert_run *run, const int32_t *active, size_t n_active) {
    const dm_config *c = &run->session->model->config;
    experts x = {
        run->session, run->weights, &run->session->scratch, (size_t)c->dim, (size_t)c->expert_dim, 0, 0, active, n_active,
        run->n,       {0}};
    x.units = dm_tiles_units(x.dim);
    x.hidden_units = dm_tiles_units(x.width);
    return x;
}

static void begin_tiled(const dm_expert_run *run) {
    enum { ROUNDING_COST = 2 }; /* in float32 multiplications */
    experts x = about(run, NULL, 0);
    const dm_config *c = &run->session->model->config;
    size_t choices = (size_t)x.a->starts[c->n_experts], each = choices / (size_t)c->n_experts + 1;
    for (size_t i = 0; i < choices; i++) {
        x.a->tokens[i] = x.a->choices[i] / c->top_k;
        x.a->token_gates[i] = x.a->gates[x.a->choices[i]];
    }
    place_tiles(&x);
    dm_parallel(x.session->threads, (size_t)c->n_experts, dm_parallel_grain(ROUNDING_COST * each * x.dim), gather_body, &x);
    memset(x.a->h, 0, x.n * x.dim * sizeof *x.a->h);
}

static dm_status run_tiled(const dm_expert_run *run, const int32_t *active, size_t n) {
    enum { TILES_FASTER = 8 }; /* than float32 multiplications */
    experts x = about(run, active, n);
    size_t each = DM_TILE_ROWS; /* tokens, about, and what widening costs */
    for (size_t i = 0; i < n; i++) {
        size_t first;
        each += tokens_of(&x, active[i], &first) / n;
    }
    dm_forward_deal_out(run, active, n, &x.lists);
    dm_forward_share_experts(run, &x.lists, x.hidden_units, dm_parallel_grain(2 * DM_TILE_COLUMNS * x.dim * each / TILES_FASTER),
                             in_body, &x);
    size_t cost = DM_TILES_TOGETHER * x.width * each / TILES_FASTER; /* of an expert */
    if (x.lists.n > 1) {
        dm_forward_share_experts(run, &x.lists, parts_of(x.dim), dm_parallel_grain(cost), apart_body, &x);
    }
    dm_parallel(x.session->threads, parts_of(x.dim), dm_parallel_grain(n * cost), out_body, &x);
    return DM_OK;
}

static void end_tiled(const dm_expert_run *run) {
    (void)run; /* h was added up as the experts ran */
}

const dm_expert_kernel dm_experts_tiled = {begin_tiled, run_tiled, end_tiled};
