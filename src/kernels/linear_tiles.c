#include "kernels/linear_tiles.h"

#include "base/parallel.h"
#include "kernels/tiles.h"

enum {
    ENOUGH_ROWS = 16,   /* from here on tiles beat int8 dot products */
    ROUNDING_COST = 2,  /* of an activation, in float32 multiplications */
    TILES_FASTER = 16,  /* than float32 multiplications */
    WIDENING_ROWS = 64, /* rows of activations that take as long as widening the weights */
};

typedef struct shared {
    const dm_linear_product *products;
    size_t count;
    const float *x;
    size_t ldx, m;
    uint8_t *packed;  /* x as tiles */
    float *sums;      /* [threads, m rounded up to 16, 32] */
    uint8_t *scratch; /* [threads, dm_tiles_scratch()] */
    size_t sums_each, units, columns;
} shared;

static size_t groups_of(const dm_weight *weight) {
    return (weight->rows + DM_TILES_TOGETHER - 1) / DM_TILES_TOGETHER;
}

static size_t sums_floats(size_t m) {
    return (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS * DM_TILE_ROWS * DM_TILES_TOGETHER;
}

bool dm_linear_takes_tiles(const dm_linear_product *products, size_t count, size_t m) {
    bool takes = dm_tiles() && m >= ENOUGH_ROWS;
    for (size_t i = 0; i < count && takes; i++) {
        takes = dm_tiles_take(&products[i].weight);
    }
    return takes;
}

size_t dm_linear_tiles_scratch(size_t columns, size_t m, int threads) {
    size_t each = sums_floats(m) + dm_tiles_scratch() / sizeof(float);
    return dm_tiles() ? dm_tiles_bytes(m, columns) / sizeof(float) + (size_t)threads * each : 0;
}

/* Rows of tiles begin .. end - 1 of x. */
static void pack_body(void *user, size_t begin, size_t end, int thread) {
    const shared *s = user;
    size_t first = begin * DM_TILE_ROWS, last = end * DM_TILE_ROWS < s->m ? end * DM_TILE_ROWS : s->m;
    (void)thread;
    dm_tiles_pack(s->packed + dm_tiles_bytes(first, s->columns), s->units, s->x + first * s->ldx, s->ldx, NULL, last - first,
                  s->columns);
}

/* Groups of rows begin .. end - 1 of all products laid end to end. */
static void multiply_body(void *user, size_t begin, size_t end, int thread) {
    const shared *s = user;
    float *sums = s->sums + (size_t)thread * s->sums_each;
    uint8_t *scratch = s->scratch + (size_t)thread * dm_tiles_scratch();
    for (size_t i = 0, base = 0; i < s->count && base < end; i++) {
        const dm_linear_product *product = &s->products[i];
        size_t groups = groups_of(&product->weight);
        size_t to = end - base < groups ? end - base : groups;
        for (size_t group = begin > base ? begin - base : 0; group < to; group++) {
            size_t row = group * DM_TILES_TOGETHER, left = product->weight.rows - row;
            dm_tiles_product(sums, s->packed, s->m, &product->weight, row, scratch);
            dm_tiles_put(product->y + row, product->ldy, sums, s->m, left < DM_TILES_TOGETHER ? left : DM_TILES_TOGETHER,
                         product->bias != NULL ? product->bias + row : NULL);
        }
        base += groups;
    }
}

void dm_linear_tiles(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, float *scratch,
                     int threads) {
    size_t columns = products->weight.columns, groups = 0;
    shared s = {.products = products, .count = count, .x = x, .ldx = ldx, .m = m, .columns = columns};
    s.units = dm_tiles_units(columns);
    s.sums_each = sums_floats(m);
    s.packed = (uint8_t *)(void *)scratch;
    s.sums = scratch + dm_tiles_bytes(m, columns) / sizeof *scratch;
    s.scratch = (uint8_t *)(void *)(s.sums + (size_t)threads * s.sums_each);
    for (size_t i = 0; i < count; i++) {
        groups += groups_of(&products[i].weight);
    }
    dm_parallel(threads, (m + DM_TILE_ROWS - 1) / DM_TILE_ROWS, dm_parallel_grain(ROUNDING_COST * DM_TILE_ROWS * columns),
                pack_body, &s);
    dm_parallel(threads, groups, dm_parallel_grain(DM_TILES_TOGETHER * columns * (m + WIDENING_ROWS) / TILES_FASTER),
                multiply_body, &s);
}
