#include "kernels/linear_tiles.h"

#include "base/parallel.h"
#include "kernels/tiles.h"

enum {
    ENOUGH_ROWS = 16,   /* from here on tiles beat int8 dot products */
    ROUNDING_COST = 2,  /* of an activation, in float32 multiplications */
    TILES_FASTER = 16,  /* than float32 multiplications */
    WIDENING_ROWS = 64, /* rows of activations that take as long as widening the weights */
};

bool dm_linear_takes_tiles(const dm_linear_product *products, size_t count, size_t m) {
    bool takes = dm_tiles() && m >= ENOUGH_ROWS;
    for (size_t i = 0; i < count && takes; i++) {
        takes = dm_tiles_take(&products[i].weight);
    }
    return takes;
}

/* ---- Memory ---- */

static size_t sums_floats(size_t m) {
    return (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS * DM_TILE_ROWS * DM_TILES_TOGETHER * DM_TILES_MOST_GROUPS;
}

size_t dm_tiles_room_floats(size_t m, int threads) {
    return dm_tiles() ? (size_t)threads * (sums_floats(m) + dm_tiles_scratch() / sizeof(float)) : 0;
}

dm_tiles_room dm_tiles_room_of(float *room, size_t m, int threads, int thread) {
    float *scratch = room + (size_t)threads * sums_floats(m) + (size_t)thread * (dm_tiles_scratch() / sizeof *room);
    return (dm_tiles_room){room + (size_t)thread * sums_floats(m), scratch};
}

size_t dm_linear_tiles_scratch(size_t columns, size_t m, int threads) {
    return dm_tiles() ? dm_tiles_bytes(m, columns) / sizeof(float) + dm_tiles_room_floats(m, threads) : 0;
}

/* ---- Packing ---- */

typedef struct packing {
    uint8_t *out;
    const float *x;
    size_t ldx, m, columns;
} packing;

/* Rows of tiles begin .. end - 1. */
static void pack_body(void *user, size_t begin, size_t end, int thread) {
    const packing *p = user;
    size_t first = begin * DM_TILE_ROWS, last = end * DM_TILE_ROWS < p->m ? end * DM_TILE_ROWS : p->m;
    (void)thread;
    dm_tiles_pack(p->out + dm_tiles_bytes(first, p->columns), dm_tiles_units(p->columns), p->x + first * p->ldx, p->ldx, NULL,
                  last - first, p->columns);
}

void dm_linear_tiles_pack(void *packed, const float *x, size_t ldx, size_t m, size_t columns, int threads) {
    packing p = {packed, x, ldx, m, columns};
    dm_parallel(threads, (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS, dm_parallel_grain(ROUNDING_COST * DM_TILE_ROWS * columns),
                pack_body, &p);
}

/* ---- Multiplying ---- */

typedef struct multiplying {
    const dm_linear_product *products;
    size_t count, m, lists;
    const void *packed;
    float *room;
    int threads;
} multiplying;

/* Rows of one product that are a task: dm_tiles_groups() groups. */
static size_t task_rows(const multiplying *it, const dm_linear_product *product) {
    return DM_TILES_TOGETHER * dm_tiles_groups(&product->weight, it->m, it->threads);
}

/* `weight`: the product's, as the calling thread reads it. */
static void multiply(const multiplying *it, const dm_linear_product *product, const dm_weight *weight, size_t task,
                     const dm_tiles_room *own) {
    size_t rows = task_rows(it, product), row = task * rows, most = rows / DM_TILES_TOGETHER;
    size_t groups = (weight->rows - row + DM_TILES_TOGETHER - 1) / DM_TILES_TOGETHER;
    groups = groups < most ? groups : most;
    dm_tiles_product(own->sums, it->packed, it->m, weight, row, groups, own->scratch);
    for (size_t g = 0; g < groups; g++, row += DM_TILES_TOGETHER) {
        size_t left = weight->rows - row;
        dm_tiles_put(product->y + row, product->ldy, dm_tiles_sums_of(own->sums, it->m, g), it->m,
                     left < DM_TILES_TOGETHER ? left : DM_TILES_TOGETHER, product->bias != NULL ? product->bias + row : NULL);
    }
}

/* Tasks begin .. end - 1 of all products' in a list, laid end to end. */
static void multiply_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const multiplying *it = user;
    const dm_tiles_room own = dm_tiles_room_of(it->room, it->m, it->threads, thread);
    for (size_t i = 0, base = 0; i < it->count && base < end; i++) {
        const dm_linear_product *product = &it->products[i];
        const dm_weight near = dm_weight_near(&product->weight, dm_parallel_reader(it->lists, list, thread));
        size_t first, last;
        dm_weight_share(&near, task_rows(it, product), it->lists, list, &first, &last);
        const size_t tasks = last - first, to = end - base < tasks ? end - base : tasks;
        for (size_t task = begin > base ? begin - base : 0; task < to; task++) {
            multiply(it, product, &near, first + task, &own);
        }
        base += tasks;
    }
}

void dm_linear_tiles_packed(const dm_linear_product *products, size_t count, const void *packed, size_t m, float *room,
                            int threads) {
    multiplying it = {products, count, m, dm_weight_lists(&products->weight), packed, room, threads};
    size_t tasks[DM_MOST_GROUPS] = {0};
    for (size_t list = 0; list < it.lists; list++) {
        for (size_t i = 0; i < count; i++) {
            tasks[list] += dm_linear_pieces(&products[i], 1, task_rows(&it, &products[i]), it.lists, list);
        }
    }
    dm_parallel_lists(threads, it.lists, tasks,
                      dm_parallel_grain(DM_TILES_TOGETHER * products->weight.columns * (m + WIDENING_ROWS) / TILES_FASTER),
                      multiply_body, &it);
}

void dm_linear_tiles(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, float *scratch,
                     int threads) {
    size_t columns = products->weight.columns;
    dm_linear_tiles_pack(scratch, x, ldx, m, columns, threads);
    dm_linear_tiles_packed(products, count, scratch, m, scratch + dm_tiles_bytes(m, columns) / sizeof *scratch, threads);
}
