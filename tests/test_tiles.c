/* Products on tile registers against double precision; skipped on machines without them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/linear_tiles.h"
#include "kernels/split_tiles.h"
#include "kernels/tiles.h"
#include "random_blocks.h"

enum { MOST_M = 70 };

static dm_random source;

static float random_float(void) {
    return (float)dm_random_normal(&source) * (dm_random_next(&source) % 7 == 0 ? 8.0f : 1.0f);
}

/* Nearest bfloat16, ties to even. */
static float rounded(float x) {
    uint32_t bits = dm_f32_to_bits(x);
    return dm_bits_to_f32((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

/* ---- Weights of every type ---- */

typedef struct matrix {
    dm_weight weight;
    uint8_t *data, *panels;
    float *values; /* [rows, columns] decoded, rounded */
} matrix;

static matrix make_matrix(dm_type type, size_t rows, size_t columns) {
    matrix w = {{.type = type, .rows = rows, .columns = columns}, random_blocks(&source, type, rows, columns), NULL, NULL};
    const dm_panel_format *format = dm_panel_format_of(type);
    if (format == NULL) { /* 16-bit floats of modest size */
        for (size_t i = 0; i < rows * columns; i++) {
            float x = random_float();
            uint16_t bits = type == DM_TYPE_F16 ? dm_f16_bits(x) : (uint16_t)(dm_f32_to_bits(x) >> 16);
            memcpy(w.data + 2 * i, &bits, 2);
        }
    } else {
        w.panels = dm_alloc(dm_panel_count(rows), dm_panel_bytes(format, columns));
        dm_panels_pack(w.panels, format, w.data, rows, columns, 0, dm_panel_count(rows));
        w.weight.panels = w.panels;
    }
    w.weight.data = w.data;
    w.values = dm_alloc(rows * columns, sizeof *w.values);
    dm_weight_widen(w.values, &w.weight);
    for (size_t i = 0; i < rows * columns; i++) { /* codes often lie half way: those of panels are rounded away from zero */
        w.values[i] = format != NULL ? dm_bits_to_f32((dm_f32_to_bits(w.values[i]) + 0x8000) & 0xffff0000) : rounded(w.values[i]);
    }
    return w;
}

static void drop_matrix(matrix *w) {
    dm_free(w->data);
    dm_free(w->panels);
    dm_free(w->values);
}

/* A weight that lies between two bfloat16 numbers may go either way. */
static void check_value(float got, const float *x, const float *w, size_t n) {
    double sum = 0.0, size = 0.0, largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        double term = (double)rounded(x[i]) * (double)w[i];
        sum += term;
        size += fabs(term);
        largest = fmax(largest, fabs(term));
    }
    assert_true(fabs((double)got - sum) <= 1e-5 * size + largest / 64.0 + 1e-9);
}

static void check_products(dm_type type, size_t rows, size_t columns) {
    static const size_t counts[] = {1, 15, 16, 17, 32, 33, MOST_M};
    matrix w = make_matrix(type, rows, columns);
    float *x = dm_alloc(MOST_M * columns, sizeof *x);
    for (size_t i = 0; i < MOST_M * columns; i++) {
        x[i] = random_float();
    }
    void *packed = dm_alloc(dm_tiles_bytes(MOST_M, columns), 1), *scratch = dm_alloc(dm_tiles_scratch(), 1);
    size_t groups = (rows + DM_TILES_TOGETHER - 1) / DM_TILES_TOGETHER, room = 80 * DM_TILES_TOGETHER * groups;
    float *all = dm_alloc(room, sizeof *all), *some = dm_alloc(room, sizeof *some);
    dm_tiles_pack(packed, dm_tiles_units(columns), x, columns, NULL, MOST_M, columns);
    dm_tiles_product(all, packed, MOST_M, &w.weight, 0, groups, scratch);
    for (size_t r = 0; r < rows; r++) {
        for (size_t t = 0; t < MOST_M; t++) {
            float got = dm_tiles_sums_of(all, MOST_M, r / DM_TILES_TOGETHER)[t * DM_TILES_TOGETHER + r % DM_TILES_TOGETHER];
            check_value(got, x + t * columns, w.values + r * columns, columns);
        }
    }
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) { /* the same bits for fewer tokens, group by group */
        size_t m = counts[c];
        dm_tiles_pack(packed, dm_tiles_units(columns), x, columns, NULL, m, columns);
        for (size_t g = 0; g < groups; g++) {
            size_t there = rows - g * DM_TILES_TOGETHER < DM_TILES_TOGETHER ? rows - g * DM_TILES_TOGETHER : DM_TILES_TOGETHER;
            dm_tiles_product(some, packed, m, &w.weight, g * DM_TILES_TOGETHER, 1, scratch);
            for (size_t t = 0; t < m; t++) {
                assert_memory_equal(some + t * DM_TILES_TOGETHER, dm_tiles_sums_of(all, MOST_M, g) + t * DM_TILES_TOGETHER,
                                    there * sizeof *some);
            }
        }
    }
    dm_free(x);
    dm_free(packed);
    dm_free(scratch);
    dm_free(all);
    dm_free(some);
    drop_matrix(&w);
}

static void products_of_panels(void **state) {
    (void)state;
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        check_products(dm_panel_format_at(f)->type, 5, 256);
        check_products(dm_panel_format_at(f)->type, 49, 768);
        check_products(dm_panel_format_at(f)->type, 80, 2304);
    }
    check_products(DM_TYPE_Q8_0, 20, 32); /* blocks of 32 need not come in eights */
    check_products(DM_TYPE_Q4_0, 33, 96);
    check_products(DM_TYPE_Q5_1, 64, 416);
}

static void products_of_halves(void **state) {
    (void)state;
    static const size_t widths[] = {1, 16, 31, 32, 40, 256, 300, 1000};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        check_products(DM_TYPE_F16, 1 + 13 * i, widths[i]);
        check_products(DM_TYPE_BF16, 1 + 13 * i, widths[i]);
    }
}

/* ---- What surrounds them ---- */

static void rows_are_gathered(void **state) {
    (void)state;
    enum { M = 19, N = 45, UNITS = 5 }; /* rows of tiles farther apart than these columns need */
    static const int32_t rows[M] = {3, 3, 0, 18, 7, 9, 1, 2, 4, 4, 4, 11, 12, 13, 5, 6, 8, 17, 10};
    float x[M * N];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        x[i] = random_float();
    }
    uint16_t *out = dm_alloc((size_t)2 * UNITS * DM_TILE_ROWS * DM_TILE_COLUMNS, sizeof *out);
    memset(out, 0x55, (size_t)2 * UNITS * DM_TILE_ROWS * DM_TILE_COLUMNS * sizeof *out);
    dm_tiles_pack(out, UNITS, x, N, rows, M, N);
    for (size_t i = 0; i < (size_t)2 * DM_TILE_ROWS; i++) {
        for (size_t j = 0; j < (size_t)UNITS * DM_TILE_COLUMNS; j++) {
            size_t tile = i / DM_TILE_ROWS * UNITS + j / DM_TILE_COLUMNS;
            uint16_t got = out[(tile * DM_TILE_ROWS + i % DM_TILE_ROWS) * DM_TILE_COLUMNS + j % DM_TILE_COLUMNS];
            float value = i < M && j < N ? rounded(x[(size_t)rows[i] * N + j]) : 0.0f;
            assert_int_equal(got, j < 2 * DM_TILE_COLUMNS ? dm_f32_to_bits(value) >> 16 : 0x5555);
        }
    }
    dm_free(out);
}

static void sums_are_put_and_added(void **state) {
    (void)state;
    enum { M = 21 };
    static const int32_t rows[M] = {1, 0, 5, 5, 20, 3, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 1};
    float *sums = dm_alloc((size_t)32 * DM_TILES_TOGETHER, sizeof *sums), bias[DM_TILES_TOGETHER], factors[M];
    for (size_t i = 0; i < (size_t)32 * DM_TILES_TOGETHER; i++) {
        sums[i] = random_float();
    }
    for (size_t n = 1; n <= DM_TILES_TOGETHER; n += n == 1 ? 14 : 1) {
        float put[M * 40], added[M * 40], want[M * 40];
        for (size_t i = 0; i < M * 40; i++) {
            put[i] = added[i] = want[i] = random_float();
        }
        for (size_t i = 0; i < DM_TILES_TOGETHER; i++) {
            bias[i] = random_float();
        }
        for (size_t i = 0; i < M; i++) {
            factors[i] = random_float();
            for (size_t j = 0; j < n; j++) {
                want[(size_t)rows[i] * 40 + j] =
                    fmaf(factors[i], sums[i * DM_TILES_TOGETHER + j], want[(size_t)rows[i] * 40 + j]);
            }
        }
        dm_tiles_add(added, 40, sums, rows, factors, M, n);
        assert_memory_equal(added, want, sizeof want);
        memcpy(want, put, sizeof want);
        for (size_t i = 0; i < M * n; i++) {
            want[i / n * 40 + i % n] = sums[i / n * DM_TILES_TOGETHER + i % n] + bias[i % n];
        }
        dm_tiles_put(put, 40, sums, M, n, bias);
        assert_memory_equal(put, want, sizeof want);
    }
    dm_free(sums);
}

/* Whole layers, several with one input, wider than the second-level cache at a time. */
static void linear_layers(void **state) {
    (void)state;
    enum { M = 192, COLUMNS = 3072, ROWS_1 = 70, ROWS_2 = 33 };
    matrix a = make_matrix(DM_TYPE_Q4_K, ROWS_1, COLUMNS), b = make_matrix(DM_TYPE_F16, ROWS_2, COLUMNS);
    float *x = dm_alloc((size_t)M * COLUMNS, sizeof *x), *y = dm_alloc((size_t)M * (ROWS_1 + ROWS_2), sizeof *y);
    float *again = dm_alloc((size_t)M * (ROWS_1 + ROWS_2), sizeof *again), *scratch;
    float bias[ROWS_2];
    for (size_t i = 0; i < (size_t)M * COLUMNS; i++) {
        x[i] = random_float();
    }
    for (size_t i = 0; i < ROWS_2; i++) {
        bias[i] = random_float();
    }
    dm_linear_product products[] = {{a.weight, NULL, y, ROWS_1}, {b.weight, bias, y + (size_t)M * ROWS_1, ROWS_2}};
    assert_true(dm_linear_takes_tiles(products, 2, M));
    assert_false(dm_linear_takes_tiles(products, 2, 1));
    for (int threads = 1; threads <= 3; threads++) {
        scratch = dm_alloc(dm_linear_scratch(COLUMNS, M, threads), sizeof *scratch);
        products[0].y = threads == 1 ? y : again;
        products[1].y = products[0].y + (size_t)M * ROWS_1;
        assert_int_equal(dm_linear(products, 2, x, COLUMNS, M, DM_ROWS_OF_CHUNK, scratch, threads), DM_OK);
        dm_free(scratch);
        if (threads > 1) {
            assert_memory_equal(again, y, (size_t)M * (ROWS_1 + ROWS_2) * sizeof *y);
        }
    }
    for (size_t t = 0; t < M; t += 7) {
        for (size_t r = 0; r < ROWS_1; r++) {
            check_value(y[t * ROWS_1 + r], x + t * COLUMNS, a.values + r * COLUMNS, COLUMNS);
        }
        for (size_t r = 0; r < ROWS_2; r++) {
            check_value(y[(size_t)M * ROWS_1 + t * ROWS_2 + r] - bias[r], x + t * COLUMNS, b.values + r * COLUMNS, COLUMNS);
        }
    }
    dm_free(x);
    dm_free(y);
    dm_free(again);
    drop_matrix(&a);
    drop_matrix(&b);
}

/* ---- Operands as sums of two ---- */

static void check_split(size_t m, size_t n, size_t k, bool turned) {
    size_t ldc = (n + 31) / 32 * 32;
    float *a = dm_alloc(m * k, sizeof *a), *b = dm_alloc(n * k, sizeof *b);
    float *c = dm_alloc((m + 31) / 32 * 32 * ldc, sizeof *c);
    void *left = dm_alloc(dm_split_bytes(m, k), 1), *right = dm_alloc(dm_split_bytes(n, k), 1);
    for (size_t i = 0; i < m * k; i++) {
        a[i] = random_float();
    }
    for (size_t i = 0; i < n * k; i++) {
        b[i] = random_float();
    }
    dm_split_pack_left(left, a, k, m, k);
    if (turned) {
        dm_split_pack_turned(right, b, k, n, k);
    } else {
        dm_split_pack_right(right, b, n, k, n);
    }
    for (size_t part = (k + 1) / 2; part <= k; part += k / 2 + 1) { /* over some of k, then all */
        size_t whole = part < k ? part / 32 * 32 : k;
        dm_split_multiply(c, ldc, left, k, right, k, m, n, whole);
        for (size_t i = 0; i < m; i++) {
            for (size_t j = 0; j < n && whole > 0; j++) {
                double sum = 0.0, size = 0.0;
                for (size_t l = 0; l < whole; l++) {
                    double term = (double)a[i * k + l] * (double)(turned ? b[j * k + l] : b[l * n + j]);
                    sum += term;
                    size += fabs(term);
                }
                assert_true(fabs((double)c[i * ldc + j] - sum) <= 0x1p-15 * size + 1e-9);
            }
        }
    }
    dm_free(a);
    dm_free(b);
    dm_free(c);
    dm_free(left);
    dm_free(right);
}

static void split_products(void **state) {
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1}, {16, 16, 32}, {32, 256, 64}, {31, 33, 80}, {70, 17, 129}, {5, 100, 256}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        check_split(shapes[s][0], shapes[s][1], shapes[s][2], false);
        check_split(shapes[s][0], shapes[s][1], shapes[s][2], true);
    }
}

int main(void) {
    if (!dm_tiles()) {
        printf("skipped: this machine has no tile registers for bfloat16\n");
        return 77;
    }
    dm_random_seed(&source, 12);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_panels),     cmocka_unit_test(products_of_halves), cmocka_unit_test(rows_are_gathered),
        cmocka_unit_test(sums_are_put_and_added), cmocka_unit_test(linear_layers),      cmocka_unit_test(split_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
