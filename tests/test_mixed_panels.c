/* Mixed-width panels: what is written is what is read, products against it in double precision and on every instruction set,
 * and what is no such matrix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/half.h"
#include "kernels/quantized.h"
#include "quantization/mixed_encode.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

static const uint8_t all_widths[] = {0, 2, 3, 4, 5, 6, 8};

/* A matrix of random numbers, and what it says in plain floats. */
typedef struct matrix {
    size_t rows, columns, bytes;
    uint8_t *widths;
    dm_mixed_header *data;
    float *w; /* [rows, columns] */
} matrix;

/* `width` for all tiles; 1: any. */
static void choose_widths(dm_random *random, matrix *it, unsigned width) {
    size_t tiles = dm_panel_count(it->rows) * (it->columns / UNIT);
    it->widths = dm_alloc(tiles, 1);
    for (size_t i = 0; i < tiles; i++) {
        it->widths[i] = width != 1 ? (uint8_t)width : all_widths[dm_random_next(random) % sizeof all_widths];
    }
}

/* Numbers of a panel at random; w receives the rows that the matrix has of it, by the definition alone. */
static void choose_numbers(dm_random *random, const matrix *it, const dm_mixed_levels *levels, size_t panel,
                           dm_mixed_numbers *out) {
    const size_t units = it->columns / UNIT;
    for (size_t r = 0; r < ROWS; r++) {
        out->row_scales[r] = dm_f16_bits((float)dm_random_normal(random) * 1e-3f);
        for (size_t u = 0; u < units; u++) {
            const unsigned bits = it->widths[panel * units + u];
            const int8_t scale = out->scales[u * ROWS + r] = (int8_t)dm_random_next(random);
            for (size_t c = u * UNIT; c < (u + 1) * UNIT; c++) {
                const unsigned code = (unsigned)dm_random_next(random) & ((1u << bits) - 1);
                const int level = bits == 2   ? levels->of_2[code]
                                  : bits == 3 ? levels->of_3[code]
                                  : bits == 4 ? levels->of_4[code]
                                  : bits == 8 ? (int8_t)code
                                  : bits == 0 ? 0
                                              : (int)code - (1 << (bits - 1));
                out->codes[r * it->columns + c] = (uint8_t)code;
                if (panel * ROWS + r < it->rows) {
                    it->w[(panel * ROWS + r) * it->columns + c] = dm_f16_value(out->row_scales[r]) * (float)scale * (float)level;
                }
            }
        }
    }
}

static matrix make(dm_random *random, size_t rows, size_t columns, unsigned width) {
    matrix it = {.rows = rows, .columns = columns};
    choose_widths(random, &it, width);
    dm_mixed_plan plan = {rows, columns, it.widths, dm_mixed_usual_levels};
    for (size_t i = 0; i < sizeof plan.levels && width == 1; i++) {
        ((int8_t *)&plan.levels)[i] = (int8_t)dm_random_next(random); /* any levels will do */
    }
    assert_int_equal(dm_mixed_bytes(&plan, &it.bytes), DM_OK);
    it.data = dm_alloc(it.bytes, 1);
    it.w = dm_alloc(rows * columns, sizeof *it.w);
    memset(it.data, 0xff, it.bytes);
    dm_mixed_lay_out(it.data, &plan);
    dm_mixed_numbers numbers = {.scales = dm_alloc(columns / UNIT, ROWS), .codes = dm_alloc(columns, ROWS)};
    for (size_t p = 0; p < dm_panel_count(rows); p++) {
        choose_numbers(random, &it, &plan.levels, p, &numbers);
        dm_mixed_put_panel(it.data, p, &numbers);
    }
    dm_free(numbers.scales);
    dm_free(numbers.codes);
    return it;
}

static void drop(matrix *it) {
    dm_free(it->widths);
    dm_free(it->data);
    dm_free(it->w);
}

static const size_t shapes[][3] = {{16, 32, 1}, {5, 96, 3}, {33, 256, 17}, {48, 768, 9}};
enum { SHAPES = sizeof shapes / sizeof *shapes - (DM_EMULATED ? 1 : 0), WIDTHS = 9 };

/* Every width alone, then mixtures. */
static unsigned width_of(size_t i) {
    return i < sizeof all_widths ? all_widths[i] : 1;
}

static void test_round_trip(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 1);
    for (size_t i = 0; i < WIDTHS * SHAPES; i++) {
        matrix it = make(&random, shapes[i / WIDTHS][0], shapes[i / WIDTHS][1], width_of(i % WIDTHS));
        assert_int_equal(dm_mixed_check(it.data, it.bytes, it.rows, it.columns), DM_OK);
        assert_int_equal(it.data->bytes, it.bytes);
        float *w = dm_alloc(it.rows * it.columns, sizeof *w);
        dm_mixed_widen(w, it.data);
        for (size_t k = 0; k < it.rows * it.columns; k++) {
            assert_true(w[k] == it.w[k]);
        }
        dm_mixed_totals seen = {0}, want = {.matrices = 1, .weights = it.rows * it.columns, .bytes = it.bytes};
        assert_int_equal(dm_mixed_measure(it.data, it.bytes, &seen), DM_OK);
        for (size_t t = 0; t < dm_panel_count(it.rows) * (it.columns / UNIT); t++) {
            int number = dm_mixed_number(it.widths[t]);
            *(number < 0 ? &want.pruned : &want.tiles[number]) += 1;
        }
        assert_memory_equal(&seen, &want, sizeof want);
        dm_free(w);
        drop(&it);
    }
}

/* y [m, panels * ROWS], `together` tokens at a time. */
static void run(const dm_quantized_table *table, const matrix *it, const dm_q8_block *x, size_t m, size_t together, float *y) {
    const size_t ldx = it->columns / UNIT, ldy = dm_panel_count(it->rows) * ROWS;
    for (size_t p = 0; p < dm_panel_count(it->rows); p++) {
        for (size_t t = 0; t < m; t += together) {
            table->mixed(y + t * ldy + p * ROWS, ldy, x + t * ldx, ldx, m - t < together ? m - t : together, it->data, p,
                         it->data);
        }
    }
}

static void check_values(const matrix *it, const dm_q8_block *x, size_t m, const float *y) {
    const size_t ldx = it->columns / UNIT, ldy = dm_panel_count(it->rows) * ROWS;
    for (size_t i = 0; i < m * it->rows; i++) {
        const float *w = it->w + i % it->rows * it->columns;
        double sum = 0.0, bound = 0.0;
        for (size_t c = 0; c < it->columns; c++) {
            const dm_q8_block *block = x + i / it->rows * ldx + c / UNIT;
            double term = (double)w[c] * (double)block->scale * block->q[c % UNIT];
            sum += term;
            bound += fabs(term);
        }
        assert_true(fabs((double)y[i / it->rows * ldy + i % it->rows] - sum) <= 2e-6 * bound + 1e-12);
    }
}

static void check_products(const matrix *it, const float *x, size_t m) {
    const dm_quantized_table *tables[4];
    const size_t n = dm_quantized_tables(tables), count = m * dm_panel_count(it->rows) * ROWS;
    dm_q8_block *q = dm_alloc(m * it->columns / UNIT, sizeof *q);
    float *want = dm_alloc(count, sizeof *want), *got = dm_alloc(count, sizeof *got);
    tables[n - 1]->quantize(q, x, m * it->columns);
    run(tables[n - 1], it, q, m, m, want);
    check_values(it, q, m, want);
    for (size_t t = 0; t < n; t++) {
        for (size_t together = 1; together <= m; together = 2 * together + 1) {
            memset(got, 0xff, count * sizeof *got);
            run(tables[t], it, q, m, together, got);
            assert_memory_equal(got, want, count * sizeof *got);
        }
    }
    dm_free(q);
    dm_free(want);
    dm_free(got);
}

static void test_products(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 2);
    for (size_t i = 0; i < WIDTHS * SHAPES; i++) {
        const size_t *shape = shapes[i / WIDTHS];
        matrix it = make(&random, shape[0], shape[1], width_of(i % WIDTHS));
        float *x = dm_alloc(shape[2] * shape[1], sizeof *x);
        for (size_t k = 0; k < shape[2] * shape[1]; k++) {
            x[k] = (float)dm_random_normal(&random) * (k / UNIT % 3 == 0 ? 10.0f : 1.0f);
        }
        check_products(&it, x, shape[2]);
        dm_free(x);
        drop(&it);
    }
}

/* The largest levels and activations overflow nothing. */
static void test_extremes(void **state) {
    (void)state;
    enum { COLUMNS = 7 * UNIT };
    dm_random random;
    dm_random_seed(&random, 3);
    for (int sign = 0; sign < 6; sign++) {
        matrix it = {.rows = ROWS, .columns = COLUMNS};
        dm_mixed_plan plan = {ROWS, COLUMNS, all_widths, dm_mixed_usual_levels};
        memset(&plan.levels, sign < 3 ? -128 : 127, sizeof plan.levels);
        it.widths = dm_alloc(sizeof all_widths, 1);
        memcpy(it.widths, all_widths, sizeof all_widths);
        assert_int_equal(dm_mixed_bytes(&plan, &it.bytes), DM_OK);
        it.data = dm_alloc(it.bytes, 1);
        it.w = dm_alloc(ROWS * COLUMNS, sizeof *it.w);
        dm_mixed_lay_out(it.data, &plan);
        int8_t scales[ROWS * COLUMNS / UNIT];
        uint8_t codes[ROWS * COLUMNS];
        memset(scales, sign < 3 ? -128 : 127, sizeof scales);
        for (size_t i = 0; i < sizeof codes; i++) { /* the lowest or the highest of each width */
            const unsigned bits = all_widths[i % COLUMNS / UNIT];
            codes[i] = (uint8_t)(bits == 8 ? (sign < 3 ? 0x80 : 0x7f) : sign < 3 ? 0 : (1u << bits) - 1);
        }
        dm_mixed_numbers numbers = {{0}, scales, codes};
        for (int r = 0; r < ROWS; r++) {
            numbers.row_scales[r] = 0x3c00;
        }
        dm_mixed_put_panel(it.data, 0, &numbers);
        dm_mixed_widen(it.w, it.data);
        float x[COLUMNS];
        for (int i = 0; i < COLUMNS; i++) {
            x[i] = sign % 3 == 0 ? 1.0f : sign % 3 == 1 ? -1.0f : i % 2 == 0 ? 1.0f : -1.0f;
        }
        check_products(&it, x, 1);
        drop(&it);
    }
}

/* ---- Fitting ---- */

/* Squared error over the weights' own squares. */
static double error_of(unsigned width, const float *x, size_t rows, size_t columns, size_t *bytes) {
    matrix it = {.rows = rows, .columns = columns};
    choose_widths(NULL, &it, width);
    const dm_mixed_plan plan = {rows, columns, it.widths, dm_mixed_usual_levels};
    assert_int_equal(dm_mixed_bytes(&plan, &it.bytes), DM_OK);
    it.data = dm_alloc(it.bytes, 1);
    it.w = dm_alloc(rows * columns, sizeof *it.w);
    dm_mixed_lay_out(it.data, &plan);
    dm_mixed_numbers numbers = {.scales = dm_alloc(columns / UNIT, ROWS), .codes = dm_alloc(columns, ROWS)};
    for (size_t p = 0; p < dm_panel_count(rows); p++) {
        size_t n = rows - p * ROWS < ROWS ? rows - p * ROWS : ROWS;
        assert_int_equal(dm_mixed_fit_panel(&numbers, &plan.levels, x + p * ROWS * columns, n, columns, it.widths, NULL), DM_OK);
        dm_mixed_put_panel(it.data, p, &numbers);
    }
    assert_int_equal(dm_mixed_check(it.data, it.bytes, rows, columns), DM_OK);
    dm_mixed_widen(it.w, it.data);
    double error = 0.0, all = 0.0;
    for (size_t i = 0; i < rows * columns; i++) {
        error += ((double)x[i] - (double)it.w[i]) * ((double)x[i] - (double)it.w[i]);
        all += (double)x[i] * (double)x[i];
    }
    *bytes = it.bytes;
    dm_free(numbers.scales);
    dm_free(numbers.codes);
    drop(&it);
    return error / all;
}

/* Normal weights: the error of each width is near what its levels allow, and its size is what docs/format.md says. */
static void test_fit(void **state) {
    (void)state;
    enum { FIT_ROWS = 40, COLUMNS = 256 };
    static const double most[] = {1.0, 0.105, 0.0252, 0.0058, 0.0017, 0.0005, 0.00004};
    static float x[FIT_ROWS * COLUMNS];
    dm_random random;
    dm_random_seed(&random, 4);
    for (size_t i = 0; i < FIT_ROWS * COLUMNS; i++) {
        x[i] = (float)dm_random_normal(&random) * 0.02f;
    }
    for (size_t i = 0; i < sizeof all_widths; i++) {
        size_t bytes;
        double error = error_of(all_widths[i], x, FIT_ROWS, COLUMNS, &bytes);
        assert_true(error <= most[i] && error >= 0.5 * most[i]);
        double bits = 8.0 * (double)bytes / (48.0 * COLUMNS);
        double scales = all_widths[i] > 0 ? 0.25 : 0.0;
        assert_true(bits <= all_widths[i] + scales + 16.0 / COLUMNS + 0.15 + 64.0 * 8.0 / (48.0 * COLUMNS));
    }
}

/* What is no number, too large or too small becomes something finite. */
static void test_hostile_weights(void **state) {
    (void)state;
    enum { COLUMNS = 96 };
    float x[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        x[i] = i % 5 == 0 ? NAN : i % 5 == 1 ? INFINITY : i % 5 == 2 ? -1e38f : i % 5 == 3 ? 1e-42f : 0.0f;
    }
    for (size_t i = 1; i < sizeof all_widths; i++) {
        const uint8_t widths[] = {all_widths[i], 0, all_widths[i]};
        const dm_mixed_plan plan = {1, COLUMNS, widths, dm_mixed_usual_levels};
        size_t bytes;
        assert_int_equal(dm_mixed_bytes(&plan, &bytes), DM_OK);
        void *data = dm_alloc(bytes, 1);
        int8_t scales[ROWS * COLUMNS / UNIT];
        uint8_t codes[ROWS * COLUMNS];
        dm_mixed_numbers numbers = {{0}, scales, codes};
        dm_mixed_lay_out(data, &plan);
        assert_int_equal(dm_mixed_fit_panel(&numbers, &plan.levels, x, 1, COLUMNS, widths, NULL), DM_OK);
        dm_mixed_put_panel(data, 0, &numbers);
        float y[COLUMNS];
        dm_mixed_part(y, data, 0, 0, COLUMNS);
        for (int c = 0; c < COLUMNS; c++) {
            assert_true(isfinite(y[c]) && (c / UNIT != 1 || y[c] == 0.0f));
        }
        dm_free(data);
    }
}

static void test_numbers(void **state) {
    (void)state;
    const dm_mixed_levels *levels = &dm_mixed_usual_levels;
    assert_int_equal(dm_mixed_nearest(levels, 2, 19.0f), 2);
    assert_int_equal(dm_mixed_nearest(levels, 3, -1000.0f), 0);
    assert_int_equal(dm_mixed_nearest(levels, 4, 106.0f), 15);
    assert_int_equal(dm_mixed_nearest(levels, 5, -16.4f), 0);
    assert_int_equal(dm_mixed_nearest(levels, 6, 31.0f), 63);
    assert_int_equal(dm_mixed_nearest(levels, 8, -1.0f), 255);
    const float wanted[] = {1.0f, -2.0f, 0.5f};
    const uint16_t row = dm_mixed_row_scale(wanted, 3);
    assert_int_equal(dm_mixed_tile_scale(row, -2.0f), -127);
    assert_true(fabsf(dm_mixed_scale(row, dm_mixed_tile_scale(row, 1.0f)) - 1.0f) < 0.51f * dm_mixed_scale(row, 1));
    assert_true(dm_mixed_weight(0x3c00, -3, 5) == -15.0f);
}

/* ---- What is no such matrix ---- */

static void test_plans(void **state) {
    (void)state;
    static const uint8_t widths[2] = {4, 7};
    size_t bytes;
    const dm_mixed_plan wrong[] = {{0, 32, widths, {{0}, {0}, {0}}},
                                   {16, 0, widths, {{0}, {0}, {0}}},
                                   {16, 48, widths, {{0}, {0}, {0}}},
                                   {16, 64, widths, {{0}, {0}, {0}}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(dm_mixed_bytes(&wrong[i], &bytes), DM_ERR_ARGUMENT);
    }
}

/* A copy of the tables reads the panels where they are; what its original says afterwards is not looked at. */
static void test_copy(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 7);
    matrix it = make(&random, 40, 256, 1);
    dm_mixed_header *copy, *none;
    assert_int_equal(dm_mixed_copy(it.data, it.bytes, 40, 256, &copy), DM_OK);
    assert_ptr_equal(dm_mixed_origin(copy), it.data);
    assert_int_equal(dm_mixed_copy(it.data, it.bytes - 1, 40, 256, &none), DM_ERR_FORMAT);
    assert_null(none);
    memset(it.data, 0xff, dm_mixed_front_bytes(40, copy->tiles));
    float *w = dm_alloc((size_t)40 * 256, sizeof *w);
    dm_mixed_widen(w, copy);
    for (size_t i = 0; i < (size_t)40 * 256; i++) {
        assert_true(w[i] == it.w[i]);
    }
    dm_free(w);
    dm_free(copy);
    drop(&it);
}

/* Matrices one after another fill their bytes. */
static void test_stack(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 6);
    matrix a = make(&random, 20, 64, 4), b = make(&random, 20, 64, 1);
    uint8_t *both = dm_alloc(a.bytes + b.bytes + 64, 1);
    memcpy(both, a.data, a.bytes);
    memcpy(both + a.bytes, b.data, b.bytes);
    dm_mixed_totals totals = {0};
    assert_int_equal(dm_mixed_measure(both, a.bytes + b.bytes + 64, &totals), DM_ERR_FORMAT);
    assert_int_equal(totals.matrices, 2);
    assert_int_equal(totals.bytes, a.bytes + b.bytes);
    assert_int_equal(dm_mixed_measure(both, a.bytes + b.bytes, &totals), DM_OK);
    assert_int_equal(totals.matrices, 4);
    dm_free(both);
    drop(&a);
    drop(&b);
}

/* One field at a time. */
static void test_damage(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 5);
    matrix it = make(&random, 40, 256, 1);
    dm_mixed_header *h = it.data;
    dm_mixed_entry *entry = (dm_mixed_entry *)(void *)(h + 1) + 1;
    uint16_t *units = (uint16_t *)(uintptr_t)(dm_mixed_units(h) + entry->first);
    assert_true(dm_mixed_tiles(entry) >= 2);
#define REFUSED(place, value)                                                                                                    \
    do {                                                                                                                         \
        __typeof__(place) kept = (place);                                                                                        \
        (place) = (value);                                                                                                       \
        assert_int_not_equal(dm_mixed_check(h, it.bytes, it.rows, it.columns), DM_OK);                                           \
        (place) = kept;                                                                                                          \
        assert_int_equal(dm_mixed_check(h, it.bytes, it.rows, it.columns), DM_OK);                                               \
    } while (0)
    REFUSED(h->magic[0], 'E');
    REFUSED(h->version, 2);
    REFUSED(h->rows, 41);
    REFUSED(h->rows, UINT32_MAX);
    REFUSED(h->columns, 288);
    REFUSED(h->bytes, h->bytes - 64);
    REFUSED(h->bytes, h->bytes + 64);
    REFUSED(h->bytes, h->bytes - 1);
    REFUSED(h->bytes, 0);
    REFUSED(h->bytes, UINT64_MAX - 63);
    REFUSED(h->tiles, h->tiles - 1);
    REFUSED(h->tiles, h->tiles + 1);
    REFUSED(h->tiles, UINT32_MAX);
    REFUSED(h->elsewhere, 1);
    REFUSED(entry->line, entry->line + 1);
    REFUSED(entry->line, UINT32_MAX);
    REFUSED(entry->first, entry->first + 1);
    REFUSED(entry->first, UINT32_MAX);
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        REFUSED(entry->tiles[i], (uint16_t)(entry->tiles[i] + 1));
        REFUSED(entry->tiles[i], UINT16_MAX);
    }
    REFUSED(units[0], 8);
    REFUSED(units[0], UINT16_MAX);
    REFUSED(units[0], units[1]);
    for (size_t bytes = 0; bytes < it.bytes; bytes += bytes < 256 ? 1 : 64) {
        uint8_t *cut = dm_alloc(bytes + 1, 1);
        memcpy(cut, h, bytes);
        assert_int_not_equal(dm_mixed_check(cut, bytes, it.rows, it.columns), DM_OK);
        dm_free(cut);
    }
    assert_int_not_equal(dm_mixed_check((uint8_t *)h + 32, it.bytes - 32, it.rows, it.columns), DM_OK);
    assert_int_equal(dm_mixed_check(h, it.bytes, it.rows, it.columns), DM_OK);
    drop(&it);
}

/* Ascending inside a width, and no unit of two widths. */
static void test_order(void **state) {
    (void)state;
    static const uint8_t widths[] = {4, 4, 2, 4};
    const dm_mixed_plan plan = {16, 128, widths, dm_mixed_usual_levels};
    size_t bytes;
    assert_int_equal(dm_mixed_bytes(&plan, &bytes), DM_OK);
    dm_mixed_header *h = dm_alloc(bytes, 1);
    dm_mixed_lay_out(h, &plan);
    uint16_t *units = (uint16_t *)(uintptr_t)dm_mixed_units(h);
    static const uint16_t right[] = {2, 0, 1, 3}, wrong[][4] = {{2, 1, 0, 3}, {2, 0, 1, 1}, {1, 0, 1, 3}, {2, 0, 2, 3}};
    assert_memory_equal(units, right, sizeof right);
    for (size_t i = 0; i < 4; i++) {
        memcpy(units, wrong[i], sizeof wrong[i]);
        assert_int_equal(dm_mixed_check(h, bytes, 16, 128), DM_ERR_FORMAT);
    }
    memcpy(units, right, sizeof right);
    assert_int_equal(dm_mixed_check(h, bytes, 16, 128), DM_OK);
    dm_free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_hostile_weights),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_stack),
        cmocka_unit_test(test_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
