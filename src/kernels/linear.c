#include "kernels/linear.h"

#include <omp.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/matmul.h"
#include "kernels/quantized.h"
#include "kernels/vector.h"

enum {
    FEW_TOKENS = 6,           /* up to here dot products win: the weights are read once either way */
    SCRATCH_FLOATS = 1 << 18, /* one block of widened rows, 1 MB: it stays in the second-level cache until it is used */
    ROWS_TOGETHER = 16,       /* smallest share of a thread: one cache line of results */
    PANELS_TOGETHER = 4,      /* of which a thread takes as many at once */
};

static const void *row_at(const dm_weight *weight, size_t row) {
    return (const char *)weight->data + row * dm_type_bytes(weight->type, weight->columns);
}

dm_weight dm_weight_rows(const dm_weight *weight, size_t first, size_t rows) {
    dm_weight part = {row_at(weight, first), weight->type, rows, weight->columns, NULL};
    if (weight->panels != NULL && first % DM_PANEL_ROWS == 0) {
        const dm_panel_format *format = dm_panel_format_of(weight->type);
        part.panels = (const char *)weight->panels + first / DM_PANEL_ROWS * dm_panel_bytes(format, weight->columns);
    }
    return part;
}

size_t dm_weight_panel_bytes(const dm_weight *weight) {
    return dm_panel_count(weight->rows) * dm_panel_bytes(dm_panel_format_of(weight->type), weight->columns);
}

/* sums[t] = sum over i of W[row, i] x[t, i]: DM_MAX_BLOCK weights are decoded at a time, once for all m <= FEW_TOKENS. */
static void dot_blocks(const dm_weight *weight, size_t row, const float *x, size_t ldx, size_t m, float *sums) {
    const dm_vector_table *vector = dm_vector();
    dm_decode_fn decode = dm_type_decoder(weight->type);
    const char *blocks = row_at(weight, row);
    float decoded[DM_MAX_BLOCK];
    memset(sums, 0, m * sizeof *sums);
    for (size_t i = 0; i < weight->columns; i += DM_MAX_BLOCK) {
        size_t n = weight->columns - i < DM_MAX_BLOCK ? weight->columns - i : DM_MAX_BLOCK;
        decode(decoded, blocks + dm_type_bytes(weight->type, i), n);
        for (size_t t = 0; t < m; t++) {
            sums[t] += vector->dot(decoded, x + t * ldx + i, n);
        }
    }
}

static bool is_blocks(dm_type type) {
    return type != DM_TYPE_F32 && type != DM_TYPE_F16 && type != DM_TYPE_BF16;
}

float dm_weight_dot(const dm_weight *weight, size_t row, const float *x) {
    const dm_vector_table *vector = dm_vector();
    const void *w = row_at(weight, row);
    float sum;
    switch (weight->type) {
    case DM_TYPE_F32:
        return vector->dot(w, x, weight->columns);
    case DM_TYPE_F16:
        return vector->dot_f16(w, x, weight->columns);
    case DM_TYPE_BF16:
        return vector->dot_bf16(w, x, weight->columns);
    default:
        dot_blocks(weight, row, x, 0, 1, &sum);
        return sum;
    }
}

/* y [rows, columns] = the whole matrix as float32 */
static void widen(float *y, const dm_weight *weight) {
    dm_type_decoder(weight->type)(y, weight->data, weight->rows * weight->columns);
}

void dm_weight_row(float *y, const dm_weight *weight, size_t row) {
    dm_weight one = dm_weight_rows(weight, row, 1);
    widen(y, &one);
}

size_t dm_linear_scratch(size_t columns) {
    return columns > SCRATCH_FLOATS / ROWS_TOGETHER ? columns * ROWS_TOGETHER : SCRATCH_FLOATS;
}

/* Row `row` of the results of m <= FEW_TOKENS tokens. */
static void dot_row(const dm_linear_product *product, size_t row, const float *x, size_t ldx, size_t m, float *y) {
    float bias = product->bias != NULL ? product->bias[row] : 0.0f;
    float sums[FEW_TOKENS];
    if (is_blocks(product->weight.type)) {
        dot_blocks(&product->weight, row, x, ldx, m, sums);
    } else {
        for (size_t t = 0; t < m; t++) {
            sums[t] = dm_weight_dot(&product->weight, row, x + t * ldx);
        }
    }
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

/* The rows of all products form one range, of which each thread takes an equal part. */
static void linear_few(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += products[i].weight.rows;
    }
    size_t groups = (total + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
#pragma omp parallel if (total * products[0].weight.columns * m > DM_WORTH_SHARING)
    {
        size_t n = (size_t)omp_get_num_threads();
        size_t thread = (size_t)omp_get_thread_num();
        size_t begin = groups * thread / n * ROWS_TOGETHER;
        size_t end = groups * (thread + 1) / n * ROWS_TOGETHER;
        for (size_t i = 0, base = 0; i < count; i++) {
            size_t rows = products[i].weight.rows;
            size_t from = begin > base ? begin - base : 0;
            size_t to = end > base ? end - base : 0;
            dot_rows(&products[i], x, ldx, m, from, to < rows ? to : rows);
            base += rows;
        }
    }
}

static void widen_rows(float *y, const dm_weight *weight, size_t first, size_t rows) {
    size_t groups = (rows + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
#pragma omp parallel for schedule(static) if (rows * weight->columns > DM_WORTH_SHARING)
    for (size_t g = 0; g < groups; g++) {
        size_t row = g * ROWS_TOGETHER;
        size_t n = rows - row < ROWS_TOGETHER ? rows - row : ROWS_TOGETHER;
        dm_weight part = dm_weight_rows(weight, first + row, n);
        widen(y + row * weight->columns, &part);
    }
}

/* Rows begin .. end - 1 of the results y of m tokens. */
static void add_bias(const dm_linear_product *product, float *y, size_t m, size_t begin, size_t end) {
    const dm_vector_table *vector = dm_vector();
    for (size_t t = 0; t < m; t++) {
        float *part = y + t * product->ldy + begin;
        vector->add(part, part, product->bias + begin, end - begin);
    }
}

static dm_status linear_many(const dm_linear_product *product, const float *x, size_t ldx, size_t m, float *scratch) {
    const dm_weight *weight = &product->weight;
    size_t columns = weight->columns;
    size_t block = weight->type == DM_TYPE_F32 ? weight->rows : dm_linear_scratch(columns) / columns;
    for (size_t row = 0; row < weight->rows; row += block) {
        size_t rows = weight->rows - row < block ? weight->rows - row : block;
        const float *w = scratch;
        if (weight->type == DM_TYPE_F32) {
            w = weight->data;
        } else {
            widen_rows(scratch, weight, row, rows);
        }
        DM_TRY(dm_matmul_forward(DM_PRECISION_F32, product->y + row, product->ldy, x, ldx, w, columns, m, rows, columns, false));
    }
    if (product->bias != NULL) {
        add_bias(product, product->y, m, 0, weight->rows);
    }
    return DM_OK;
}

/* ---- Panels ---- */

/* Blocks between rows of rounded activations: odd, so that rows lie in different cache sets. */
size_t dm_q8_stride(size_t columns) {
    return columns / DM_PANEL_UNIT | 1;
}

void dm_weight_panels_product(const dm_weight *weight, size_t first, size_t n, const dm_q8_block *x, size_t ldx, size_t m,
                              float *y, size_t ldy) {
    const dm_panel_format *format = dm_panel_format_of(weight->type);
    dm_panel_product_fn multiply = dm_quantized()->product[format - dm_panel_format_at(0)];
    size_t bytes = dm_panel_bytes(format, weight->columns);
    for (size_t panel = first; panel < first + n; panel++, y += DM_PANEL_ROWS) {
        const char *data = (const char *)weight->panels + panel * bytes;
        size_t left = weight->rows - panel * DM_PANEL_ROWS;
        if (left >= DM_PANEL_ROWS) {
            multiply(y, ldy, x, ldx, m, data, weight->columns);
            continue;
        }
        for (size_t t = 0; t < m; t++) {
            float whole[DM_PANEL_ROWS];
            multiply(whole, DM_PANEL_ROWS, x + t * ldx, ldx, 1, data, weight->columns);
            memcpy(y + t * ldy, whole, left * sizeof *y);
        }
    }
}

/* Panels [begin, end) of all products laid end to end, for tokens `token` .. token + m - 1. */
static void panel_range(const dm_linear_product *products, size_t count, size_t begin, size_t end, const dm_q8_block *x,
                        size_t ldx, size_t token, size_t m) {
    for (size_t i = 0, base = 0; i < count && base < end; i++) {
        const dm_linear_product *product = &products[i];
        size_t panels = dm_panel_count(product->weight.rows);
        size_t from = begin > base ? begin - base : 0;
        size_t to = end - base < panels ? end - base : panels;
        float *y = product->y + token * product->ldy;
        if (from < to) {
            size_t row = from * DM_PANEL_ROWS, last = to * DM_PANEL_ROWS;
            dm_weight_panels_product(&product->weight, from, to - from, x, ldx, m, y + row, product->ldy);
            if (product->bias != NULL) {
                add_bias(product, y, m, row, last < product->weight.rows ? last : product->weight.rows);
            }
        }
        base += panels;
    }
}

/* As many tokens at a time as fit the scratch when rounded; of each thread's turns the last ones are short. */
static void linear_packed(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, float *scratch) {
    size_t columns = products[0].weight.columns;
    size_t stride = dm_q8_stride(columns);
    size_t most = dm_linear_scratch(columns) * sizeof(float) / (stride * sizeof(dm_q8_block));
    dm_q8_block *rounded = (dm_q8_block *)(void *)scratch;
    size_t panels = 0;
    for (size_t i = 0; i < count; i++) {
        panels += dm_panel_count(products[i].weight.rows);
    }
    for (size_t first = 0; first < m; first += most) {
        size_t tokens = m - first < most ? m - first : most;
#pragma omp parallel if (panels * DM_PANEL_ROWS * columns * tokens > DM_WORTH_SHARING)
        {
#pragma omp for schedule(static)
            for (size_t t = 0; t < tokens; t++) {
                dm_quantized()->quantize(rounded + t * stride, x + (first + t) * ldx, columns);
            }
#pragma omp for schedule(dynamic, 1)
            for (size_t i = 0; i < panels; i += PANELS_TOGETHER) {
                size_t end = i + PANELS_TOGETHER < panels ? i + PANELS_TOGETHER : panels;
                panel_range(products, count, i, end, rounded, stride, first, tokens);
            }
        }
    }
}

static bool all_packed(const dm_linear_product *products, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (products[i].weight.panels == NULL) {
            return false;
        }
    }
    return true;
}

dm_status dm_linear(const dm_linear_product *products, size_t count, const float *x, size_t ldx, size_t m, dm_linear_rows rows,
                    float *scratch) {
    if (all_packed(products, count)) {
        linear_packed(products, count, x, ldx, m, scratch);
        return DM_OK;
    }
    if (rows == DM_ROWS_APART || m <= FEW_TOKENS) {
        linear_few(products, count, x, ldx, m);
        return DM_OK;
    }
    for (size_t i = 0; i < count; i++) {
        DM_TRY(linear_many(&products[i], x, ldx, m, scratch));
    }
    return DM_OK;
}
