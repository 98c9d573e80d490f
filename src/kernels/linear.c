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
    size_t count, lists; /* of their rows, dm_weight_lists() */
    const float *x;
    size_t ldx, m;
    dm_linear_rows rows;
    float *scratch; /* [threads, scratch_size] */
    size_t scratch_size;
    dm_failure failure;
    const dm_q8_block *rounded; /* [m, stride] of the tokens at hand, which begin with `token` */
    size_t stride, token;
} shared;

/* Shares out the pieces of `step` rows of all products, those of a list laid end to end. */
static void share_out(shared *s, size_t step, size_t grain, dm_parallel_list_body body, int threads) {
    size_t n[DM_MOST_GROUPS];
    for (size_t list = 0; list < s->lists; list++) {
        n[list] = dm_linear_pieces(s->products, s->count, step, s->lists, list);
    }
    dm_parallel_lists(threads, s->lists, n, grain, body, s);
}

/* One of the products, and which of its pieces of `step` rows are among pieces begin .. end - 1 of a list. */
typedef struct piece {
    dm_linear_product product; /* its weight as the list's threads read it */
    size_t from, to;
} piece;

/* `base`: the list's pieces of the products before it; those of this one are added. */
static piece piece_of(const shared *s, size_t i, size_t step, size_t list, int thread, size_t begin, size_t end, size_t *base) {
    piece out = {.product = s->products[i]};
    size_t first, last;
    dm_weight_share(&s->products[i].weight, step, s->lists, list, &first, &last);
    const size_t n = last - first;
    out.product.weight = dm_weight_near(&s->products[i].weight, dm_parallel_reader(s->lists, list, thread));
    out.from = first + (begin > *base ? begin - *base : 0);
    out.to = first + (end <= *base ? 0 : end - *base < n ? end - *base : n);
    *base += n;
    return out;
}

static void few_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const shared *s = user;
    for (size_t i = 0, base = 0; i < s->count; i++) {
        const piece it = piece_of(s, i, ROWS_TOGETHER, list, thread, begin, end, &base);
        const size_t rows = it.product.weight.rows, last = it.to * ROWS_TOGETHER;
        dot_rows(&it.product, s->x, s->ldx, s->m, it.from * ROWS_TOGETHER, last < rows ? last : rows);
    }
}

static void linear_few(shared *s, int threads) {
    share_out(s, ROWS_TOGETHER, dm_parallel_grain(ROWS_TOGETHER * s->products[0].weight.columns * s->m), few_body, threads);
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

static dm_status multiply_block(const shared *s, const dm_weight *weight, size_t row, float *widened) {
    const dm_linear_product *product = s->products;
    size_t step = block_rows(s), left = weight->rows - row;
    size_t rows = left < step ? left : step;
    dm_weight part = dm_weight_rows(weight, row, rows);
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

static void many_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    shared *s = user;
    const size_t step = block_rows(s);
    size_t base = 0;
    const piece it = piece_of(s, 0, step, list, thread, begin, end, &base);
    for (size_t i = it.from; i < it.to; i++) {
        float *widened = s->scratch + (size_t)thread * s->scratch_size;
        dm_failure_note(&s->failure, multiply_block(s, &it.product.weight, i * step, widened));
    }
}

/* Of one product. */
static dm_status linear_many(shared *s, int threads) {
    const size_t step = block_rows(s);
    share_out(s, step, dm_parallel_grain(step * s->products->weight.columns * s->m), many_body, threads);
    return dm_failure_raise(&s->failure);
}

/* ---- Panels ---- */

static void panels_body(void *user, size_t list, size_t begin, size_t end, int thread) {
    const shared *s = user;
    for (size_t i = 0, base = 0; i < s->count && base < end; i++) {
        const piece it = piece_of(s, i, DM_PANEL_ROWS, list, thread, begin, end, &base);
        const dm_linear_product *product = &it.product;
        float *y = product->y + s->token * product->ldy;
        if (it.from < it.to) {
            size_t row = it.from * DM_PANEL_ROWS, last = it.to * DM_PANEL_ROWS, n = it.to - it.from;
            dm_weight_panels_product(&product->weight, it.from, n, s->rounded, s->stride, s->m, y + row, product->ldy, NULL);
            if (product->bias != NULL) {
                add_bias(product, y, s->m, row, last < product->weight.rows ? last : product->weight.rows);
            }
        }
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
        grain = s->m <= FEW_ROWS ? dm_parallel_run(grain, PANELS_IN_A_RUN, panels, threads) : grain;
        share_out(s, DM_PANEL_ROWS, grain, panels_body, threads);
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

size_t dm_linear_pieces(const dm_linear_product *products, size_t count, size_t step, size_t lists, size_t list) {
    size_t pieces = 0;
    for (size_t i = 0; i < count; i++) {
        size_t begin, end;
        dm_weight_share(&products[i].weight, step, lists, list, &begin, &end);
        pieces += end - begin;
    }
    return pieces;
}

dm_status dm_linear(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, dm_linear_rows rows,
                    float *scratch, int threads) {
    shared s = {.products = products, .count = count, .x = x, .ldx = ldx, .m = m, .rows = rows, .scratch = scratch};
    s.scratch_size = scratch_each(products->weight.columns);
    s.lists = dm_weight_lists(&products->weight);
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
    s.count = 1;
    for (size_t i = 0; i < count; i++) {
        s.products = products + i;
        DM_TRY(linear_many(&s, threads));
    }
    return DM_OK;
}
