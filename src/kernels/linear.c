#include "kernels/linear.h"

#include <string.h>

#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/linear_tiles.h"
#include "kernels/matmul.h"
#include "kernels/quantized.h"
#include "kernels/vector.h"

enum {
    FEW_TOKENS = 6,           /* up to here dot products win: the weights are read once either way */
    SCRATCH_FLOATS = 1 << 18, /* one block of widened rows, 1 MB: it stays in the second-level cache until it is used */
    ROWS_TOGETHER = 16,       /* smallest share of a thread: one cache line of results */
    BLOCK_ROWS = 128,         /* most rows of a float32 product */
    NEAR_FLOATS = 1 << 15,    /* rows of weights that an expert's tokens pass by four at a time: 128 KB */
    MANY_TOKENS = 128,        /* of an expert: from here on it is they who are far, and pass by four times as many rows */
    ROUNDING_COST = 4,        /* of an activation, in multiplications */
    INT8_FASTER = 2,          /* than float32 multiplications */
    FEW_ROWS = 16,            /* of rounded activations: up to here reading panels takes longer than multiplying */
    PANELS_IN_A_RUN = 8,
};

/* Floats of a thread's own. */
static size_t scratch_each(size_t columns) {
    return columns > SCRATCH_FLOATS / ROWS_TOGETHER ? columns * ROWS_TOGETHER : SCRATCH_FLOATS;
}

size_t dm_linear_scratch(size_t columns, size_t m, int threads) {
    size_t tiles = dm_linear_tiles_scratch(columns, m, threads), others = (size_t)threads * scratch_each(columns);
    return tiles > others ? tiles : others;
}

/* Row `row` of the results of m <= FEW_TOKENS tokens. */
static void dot_row(const dm_linear_product *product, size_t row, const float *x, size_t ldx, size_t m, float *y) {
    float bias = product->bias != NULL ? product->bias[row] : 0.0f;
    float sums[FEW_TOKENS];
    dm_weight_dots(&product->weight, row, x, ldx, m, sums);
    for (size_t t = 0; t < m; t++) {
        y[t * product->ldy + row] = sums[t] + bias;
    }
}

/* Rows begin .. end - 1 of one product, for all m tokens. */
static void dot_rows(const dm_linear_product *product, const float *x, size_t ldx, size_t m, size_t begin, size_t end) {
    for (size_t row = begin; row < end; row++) {
        for (size_t t = 0; t < m; t += FEW_TOKENS) {
            size_t few = m - t < FEW_TOKENS ? m - t : FEW_TOKENS;
            dot_row(product, row, x + t * ldx, ldx, few, product->y + t * product->ldy);
        }
    }
}

/* What the threads share: products of the same x [m, columns]. */
typedef struct shared {
    const dm_linear_product *products;
    size_t count;
    const float *x;
    size_t ldx, m;
    dm_linear_rows rows;
    float *scratch; /* [threads, scratch_size] */
    size_t scratch_size;
    dm_failure failure;
    const dm_q8_block *rounded; /* [m, stride] of the tokens at hand, which begin with `token` */
    size_t stride, token;
} shared;

/* The rows of all products laid end to end, in groups. */
static void few_body(void *user, size_t first, size_t last, int thread) {
    const shared *s = user;
    size_t begin = first * ROWS_TOGETHER, end = last * ROWS_TOGETHER;
    (void)thread;
    for (size_t i = 0, base = 0; i < s->count; i++) {
        size_t rows = s->products[i].weight.rows;
        size_t from = begin > base ? begin - base : 0;
        size_t to = end > base ? end - base : 0;
        dot_rows(&s->products[i], s->x, s->ldx, s->m, from, to < rows ? to : rows);
        base += rows;
    }
}

static void linear_few(shared *s, int threads) {
    size_t total = 0;
    for (size_t i = 0; i < s->count; i++) {
        total += s->products[i].weight.rows;
    }
    size_t groups = (total + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
    dm_parallel(threads, groups, dm_parallel_grain(ROWS_TOGETHER * s->products[0].weight.columns * s->m), few_body, s);
}

/* Rows begin .. end - 1 of the results y of m tokens. */
static void add_bias(const dm_linear_product *product, float *y, size_t m, size_t begin, size_t end) {
    const dm_vector_table *vector = dm_vector();
    for (size_t t = 0; t < m; t++) {
        float *part = y + t * product->ldy + begin;
        vector->add(part, part, product->bias + begin, end - begin);
    }
}

/* Rows of weights that are one float32 product: a number that does not depend on the threads, nor exceeds the scratch. */
static size_t block_rows(const shared *s) {
    const dm_weight *weight = &s->products->weight;
    size_t fit = scratch_each(weight->columns) / weight->columns;
    size_t wanted = weight->rows >= 8 * BLOCK_ROWS ? BLOCK_ROWS : 2 * ROWS_TOGETHER;
    if (s->rows == DM_ROWS_OF_EXPERT) {
        size_t near = (s->m < MANY_TOKENS ? NEAR_FLOATS : 4 * NEAR_FLOATS) / weight->columns;
        wanted = near > ROWS_TOGETHER ? near : ROWS_TOGETHER;
    }
    return fit < wanted ? fit : wanted;
}

/* y [m, rows] = x w^T of a block. How oneDNN sums depends on m; an expert's rows are each summed in one order instead. */
static dm_status multiply_rows(const shared *s, float *y, const float *w, size_t rows, const void *ahead) {
    size_t columns = s->products->weight.columns, ldy = s->products->ldy;
    if (s->rows == DM_ROWS_OF_EXPERT) {
        const dm_cached_rows block = {w, rows, columns, ahead};
        dm_vector()->rows_dot_f32(y, ldy, &block, s->x, s->m);
        return DM_OK;
    }
    return dm_matmul_forward(DM_PRECISION_F32, y, ldy, s->x, s->ldx, w, columns, s->m, rows, columns, false);
}

static dm_status multiply_block(const shared *s, size_t row, float *widened) {
    const dm_linear_product *product = s->products;
    size_t step = block_rows(s), left = product->weight.rows - row;
    size_t rows = left < step ? left : step;
    dm_weight part = dm_weight_rows(&product->weight, row, rows);
    const float *w = part.data, *ahead = left >= 2 * step ? w + step * part.columns : NULL;
    if (part.type != DM_TYPE_F32) {
        dm_weight_widen(widened, &part);
        w = widened;
        ahead = NULL;
    }
    DM_TRY(multiply_rows(s, product->y + row, w, rows, ahead));
    if (product->bias != NULL) {
        add_bias(product, product->y, s->m, row, row + rows);
    }
    return DM_OK;
}

static void many_body(void *user, size_t begin, size_t end, int thread) {
    shared *s = user;
    for (size_t i = begin; i < end; i++) {
        size_t row = i * block_rows(s);
        dm_failure_note(&s->failure, multiply_block(s, row, s->scratch + (size_t)thread * s->scratch_size));
    }
}

static dm_status linear_many(shared *s, int threads) {
    size_t columns = s->products->weight.columns, step = block_rows(s);
    size_t blocks = (s->products->weight.rows + step - 1) / step;
    dm_parallel(threads, blocks, dm_parallel_grain(step * columns * s->m), many_body, s);
    return dm_failure_raise(&s->failure);
}

/* ---- Panels ---- */

/* Panels [begin, end) of all products laid end to end. */
static void panels_body(void *user, size_t begin, size_t end, int thread) {
    const shared *s = user;
    (void)thread;
    for (size_t i = 0, base = 0; i < s->count && base < end; i++) {
        const dm_linear_product *product = &s->products[i];
        size_t panels = dm_panel_count(product->weight.rows);
        size_t from = begin > base ? begin - base : 0;
        size_t to = end - base < panels ? end - base : panels;
        float *y = product->y + s->token * product->ldy;
        if (from < to) {
            size_t row = from * DM_PANEL_ROWS, last = to * DM_PANEL_ROWS;
            dm_weight_panels_product(&product->weight, from, to - from, s->rounded, s->stride, s->m, y + row, product->ldy, NULL);
            if (product->bias != NULL) {
                add_bias(product, y, s->m, row, last < product->weight.rows ? last : product->weight.rows);
            }
        }
        base += panels;
    }
}

static void round_body(void *user, size_t begin, size_t end, int thread) {
    const shared *s = user;
    dm_q8_block *rounded = (dm_q8_block *)(void *)s->scratch;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        dm_quantized()->quantize(rounded + t * s->stride, s->x + (s->token + t) * s->ldx, s->products->weight.columns);
    }
}

/* As many tokens at a time as fit the scratch when rounded. */
static void linear_packed(shared *s, int threads) {
    size_t columns = s->products->weight.columns, m = s->m, panels = 0;
    for (size_t i = 0; i < s->count; i++) {
        panels += dm_panel_count(s->products[i].weight.rows);
    }
    s->stride = dm_q8_stride(columns);
    s->rounded = (const dm_q8_block *)(const void *)s->scratch;
    size_t most = s->scratch_size * sizeof(float) / (s->stride * sizeof(dm_q8_block));
    for (s->token = 0; s->token < m; s->token += most) {
        s->m = m - s->token < most ? m - s->token : most;
        dm_parallel(threads, s->m, dm_parallel_grain(ROUNDING_COST * columns), round_body, s);
        size_t grain = dm_parallel_grain(DM_PANEL_ROWS * columns * s->m / INT8_FASTER);
        dm_parallel(threads, panels, s->m <= FEW_ROWS ? dm_parallel_run(grain, PANELS_IN_A_RUN, panels, threads) : grain,
                    panels_body, s);
    }
}

static size_t count_packed(const dm_linear_product *products, size_t count) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        n += products[i].weight.panels != NULL;
    }
    return n;
}

/* One product at a time, where some are packed and others not. */
static dm_status linear_each(const shared *s, int threads) {
    for (size_t i = 0; i < s->count; i++) {
        DM_TRY(dm_linear(s->products + i, 1, s->x, s->ldx, s->m, s->rows, s->scratch, threads));
    }
    return DM_OK;
}

dm_status dm_linear(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, dm_linear_rows rows,
                    float *scratch, int threads) {
    shared s = {.products = products, .count = count, .x = x, .ldx = ldx, .m = m, .rows = rows, .scratch = scratch};
    s.scratch_size = scratch_each(products->weight.columns);
    if (rows == DM_ROWS_OF_CHUNK && dm_linear_takes_tiles(products, count, m)) {
        dm_linear_tiles(products, count, x, ldx, m, scratch, threads);
        return DM_OK;
    }
    const size_t packed = count_packed(products, count);
    if (packed == count) {
        linear_packed(&s, threads);
        return DM_OK;
    }
    if (packed > 0) {
        return linear_each(&s, threads);
    }
    if (rows == DM_ROWS_APART || (rows == DM_ROWS_OF_CHUNK && m <= FEW_TOKENS)) {
        linear_few(&s, threads);
        return DM_OK;
    }
    for (size_t i = 0; i < count; i++) {
        s.products = products + i;
        DM_TRY(linear_many(&s, threads));
    }
    return DM_OK;
}
