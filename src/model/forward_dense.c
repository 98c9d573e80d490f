/* Dense feed-forward blocks: SwiGLU (Shazeer 2020) or GELU, and the expert that every token shares. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/linear_tiles.h"
#include "kernels/tiles.h"
#include "kernels/vector.h"
#include "model/forward.h"

/* The tensors of one block. */
typedef struct block {
    dm_role gate, gate_bias, up, up_bias, down, down_bias;
} block;

/* Columns of ffn, of each token. */
typedef struct activation {
    float *ffn;
    const float *up; /* NULL: GELU */
    size_t width;
} activation;

/* The nonlinearity over n numbers, up NULL: GELU. */
static void activate_row(float *ffn, const float *up, size_t n) {
    if (up != NULL) {
        dm_vector()->swiglu(ffn, ffn, up, n);
    } else {
        dm_vector()->gelu(ffn, ffn, n);
    }
}

static void activation_body(void *user, size_t begin, size_t end, int thread) {
    const activation *it = user;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        activate_row(it->ffn + t * it->width, it->up != NULL ? it->up + t * it->width : NULL, it->width);
    }
}

static void activate(const dm_pass *pass, const float *up, size_t width) {
    activation it = {pass->work->scratch.ffn, up, width};
    dm_parallel(pass->work->threads, pass->n, dm_parallel_grain(8 * width), activation_body, &it);
}

/* ---- On tile registers: what is between the matrices becomes tiles where it is made ---- */

typedef struct tiled {
    const dm_pass *pass;
    const dm_linear_product *in; /* up, or gate and up; y is not used */
    size_t count, groups;        /* of rows taken together */
    size_t lists;                /* of rows */
    const void *packed;          /* h */
    float *room;
} tiled;

/* Groups of hidden columns from number `task` * groups on, by a thread that reads what `reader` does. */
static void tiled_in(const tiled *it, size_t task, size_t reader, const dm_tiles_room *own) {
    size_t m = it->pass->n, width = it->in->weight.rows, row = task * it->groups * DM_TILES_TOGETHER;
    size_t left = (width - row) / DM_TILES_TOGETHER, groups = left < it->groups ? left : it->groups;
    uint8_t *tiles = it->pass->work->scratch.ffn_tiles;
    for (size_t i = 0; i < it->count; i++) {
        float *sums = dm_tiles_sums_of(own->sums, m, i * groups);
        const dm_weight near = dm_weight_near(&it->in[i].weight, reader);
        dm_tiles_product(sums, it->packed, m, &near, row, groups, own->scratch);
        for (size_t g = 0; g < groups && it->in[i].bias != NULL; g++) {
            float *one = dm_tiles_sums_of(sums, m, g);
            dm_tiles_put(one, DM_TILES_TOGETHER, one, m, DM_TILES_TOGETHER, it->in[i].bias + row + g * DM_TILES_TOGETHER);
        }
    }
    for (size_t g = 0; g < groups; g++, row += DM_TILES_TOGETHER) {
        float *hidden = dm_tiles_sums_of(own->sums, m, g);
        activate_row(hidden, it->count == 2 ? dm_tiles_sums_of(own->sums, m, groups + g) : NULL, m * DM_TILES_TOGETHER);
        dm_tiles_pack(tiles + dm_tiles_bytes(1, row), dm_tiles_units(width), hidden, DM_TILES_TOGETHER, NULL, m,
                      DM_TILES_TOGETHER);
    }
}

static void tiled_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const tiled *it = user;
    const dm_tiles_room own = dm_tiles_room_of(it->room, it->pass->n, it->pass->work->threads, thread);
    const size_t reader = dm_parallel_reader(it->lists, list, thread);
    size_t first, last;
    dm_weight_share(&it->in->weight, it->groups * DM_TILES_TOGETHER, it->lists, list, &first, &last);
    for (size_t task = begin; task < end; task++) {
        tiled_in(it, first + task, reader, &own);
    }
}

static bool takes_tiles(const dm_pass *pass, const dm_linear_product *in, size_t count, const dm_linear_product *down) {
    return pass->work->observer == NULL && pass->rows == DM_ROWS_OF_CHUNK && in->weight.rows % DM_TILE_COLUMNS == 0 &&
           dm_linear_takes_tiles(in, count, pass->n) && dm_linear_takes_tiles(down, 1, pass->n);
}

static void run_tiled(const dm_pass *pass, const dm_linear_product *in, size_t count, const dm_linear_product *down) {
    enum { TILES_FASTER = 16 }; /* than float32 multiplications */
    const dm_activations *a = &pass->work->scratch;
    size_t columns = in->weight.columns, m = pass->n, together = dm_tiles_groups(&in->weight, m, pass->work->threads);
    size_t most = DM_TILES_MOST_GROUPS / count;
    tiled it = {pass, in, count, together < most ? together : most, dm_weight_lists(&in->weight), a->widened, NULL};
    it.room = a->widened + dm_tiles_bytes(m, columns) / sizeof *a->widened;
    dm_linear_tiles_pack(a->widened, a->h, columns, m, columns, pass->work->threads);
    size_t tasks[DM_MOST_GROUPS];
    for (size_t list = 0; list < it.lists; list++) { /* gate and up have one shape */
        tasks[list] = dm_linear_pieces(in, 1, it.groups * DM_TILES_TOGETHER, it.lists, list);
    }
    dm_parallel_lists(pass->work->threads, it.lists, tasks,
                      dm_parallel_grain(count * DM_TILES_TOGETHER * columns * m / TILES_FASTER), tiled_body, &it);
    dm_linear_tiles_packed(down, 1, a->ffn_tiles, m, it.room, pass->work->threads);
}

/* ---- Whole blocks ---- */

/* y = down(silu(gate(h)) * up(h)); the caller will multiply it with shares [n], unless NULL */
static dm_status gated(const dm_pass *pass, const dm_weights *weights, const block *with, const float *shares, float *y) {
    const dm_activations *a = &pass->work->scratch;
    const dm_linear_product in[] = {
        dm_forward_product(weights, with->gate, with->gate_bias, a->ffn),
        dm_forward_product(weights, with->up, with->up_bias, a->ffn_up),
    };
    const dm_linear_product down = dm_forward_product(weights, with->down, with->down_bias, y);
    if (takes_tiles(pass, in, 2, &down)) {
        run_tiled(pass, in, 2, &down);
        return DM_OK;
    }
    DM_TRY(dm_forward_watch(pass, weights, with->up, a->h, shares));
    DM_TRY(dm_linear(in, 2, a->h, in[0].weight.columns, pass->n, pass->rows, a->widened, pass->work->threads));
    activate(pass, a->ffn_up, in[0].weight.rows);
    DM_TRY(dm_forward_watch(pass, weights, with->down, a->ffn, shares));
    return dm_forward_linear(pass, weights, with->down, with->down_bias, a->ffn, pass->n, y);
}

/* h = down(gelu(up(h))) */
static dm_status plain(const dm_pass *pass, const dm_weights *weights) {
    const dm_activations *a = &pass->work->scratch;
    const dm_linear_product up = dm_forward_product(weights, DM_FFN_UP, DM_FFN_UP_B, a->ffn);
    const dm_linear_product down = dm_forward_product(weights, DM_FFN_DOWN, DM_FFN_DOWN_B, a->h);
    if (takes_tiles(pass, &up, 1, &down)) {
        run_tiled(pass, &up, 1, &down);
        return DM_OK;
    }
    DM_TRY(dm_forward_watch(pass, weights, DM_FFN_UP, a->h, NULL));
    DM_TRY(dm_forward_linear(pass, weights, DM_FFN_UP, DM_FFN_UP_B, a->h, pass->n, a->ffn));
    activate(pass, NULL, (size_t)pass->work->model->config.ffn_dim);
    DM_TRY(dm_forward_watch(pass, weights, DM_FFN_DOWN, a->ffn, NULL));
    return dm_forward_linear(pass, weights, DM_FFN_DOWN, DM_FFN_DOWN_B, a->ffn, pass->n, a->h);
}

dm_status dm_forward_dense(const dm_pass *pass, const dm_weights *weights) {
    static const block dense = {DM_FFN_GATE, DM_FFN_GATE_B, DM_FFN_UP, DM_FFN_UP_B, DM_FFN_DOWN, DM_FFN_DOWN_B};
    DM_TRY(weights->matrices[DM_FFN_GATE].data != NULL ? gated(pass, weights, &dense, NULL, pass->work->scratch.h)
                                                       : plain(pass, weights));
    dm_times_lap(&pass->work->times, DM_OPERATION_FEED_FORWARD);
    return DM_OK;
}

dm_status dm_forward_shared(const dm_pass *pass, const dm_weights *weights) {
    static const block shared = {DM_FFN_GATE_SHEXP, DM_ROLES, DM_FFN_UP_SHEXP, DM_ROLES, DM_FFN_DOWN_SHEXP, DM_ROLES};
    const dm_vector_table *vector = dm_vector();
    const dm_activations *a = &pass->work->scratch;
    const float *gate = weights->vectors[DM_FFN_ROUTER_SHEXP];
    size_t dim = (size_t)pass->work->model->config.dim;
    for (size_t t = 0; t < pass->n; t++) {
        a->shares[t] = 1.0f / (1.0f + expf(-vector->dot(gate, a->h + t * dim, dim)));
    }
    DM_TRY(gated(pass, weights, &shared, a->shares, a->shared));
    for (size_t t = 0; t < pass->n; t++) {
        vector->scale(a->shared + t * dim, a->shares[t], a->shared + t * dim, dim);
    }
    dm_times_lap(&pass->work->times, DM_OPERATION_SHARED_EXPERT);
    return DM_OK;
}
