/* Panels and their products: against decoded rows in double precision, and every instruction set against the portable one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "kernels/quantized.h"
#include "random_blocks.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

static const dm_quantized_table *tables[4];
static size_t n_tables;
static const dm_quantized_table *portable;

typedef struct product {
    const dm_panel_format *format;
    size_t rows, columns, m;
    uint8_t *blocks, *panels;
    float *x;       /* [m, columns] */
    dm_q8_block *q; /* [m, columns / UNIT] */
} product;

static product make(dm_random *random, const dm_panel_format *format, size_t rows, size_t columns, size_t m) {
    product p = {format, rows, columns, m, random_blocks(random, format->type, rows, columns), NULL, NULL, NULL};
    p.panels = dm_alloc(dm_panel_count(rows), dm_panel_bytes(format, columns));
    p.x = dm_alloc(m * columns, sizeof *p.x);
    p.q = dm_alloc(m * columns / UNIT, sizeof *p.q);
    dm_panels_pack(p.panels, format, p.blocks, rows, columns, 0, dm_panel_count(rows));
    for (size_t i = 0; i < m * columns; i++) {
        p.x[i] = (float)dm_random_normal(random) * (i / UNIT % 3 == 0 ? 10.0f : 1.0f);
    }
    portable->quantize(p.q, p.x, m * columns);
    return p;
}

static void drop(product *p) {
    dm_free(p->blocks);
    dm_free(p->panels);
    dm_free(p->x);
    dm_free(p->q);
}

/* y [m, panels * ROWS], as `table` gives it for `together` tokens at a time. */
static void run(const dm_quantized_table *table, const product *p, size_t together, float *y) {
    size_t ldy = dm_panel_count(p->rows) * ROWS;
    for (size_t panel = 0; panel < dm_panel_count(p->rows); panel++) {
        const uint8_t *data = p->panels + panel * dm_panel_bytes(p->format, p->columns);
        for (size_t t = 0; t < p->m; t += together) {
            size_t m = p->m - t < together ? p->m - t : together;
            table->product[p->format - dm_panel_format_at(0)](y + t * ldy + panel * ROWS, ldy, p->q + t * (p->columns / UNIT),
                                                              p->columns / UNIT, m, data, data, p->columns);
        }
    }
}

/* The portable table against the weights as the file's decoder gives them. */
static void check_values(const product *p, const float *y) {
    size_t ldy = dm_panel_count(p->rows) * ROWS;
    float *w = dm_alloc(p->columns, sizeof *w);
    for (size_t r = 0; r < ldy; r++) {
        if (r < p->rows) {
            dm_type_decoder(p->format->type)(w, p->blocks + r * dm_type_bytes(p->format->type, p->columns), p->columns);
        } else {
            memset(w, 0, p->columns * sizeof *w); /* rows that fill the last panel */
        }
        for (size_t t = 0; t < p->m; t++) {
            double sum = 0.0, bound = 0.0;
            for (size_t i = 0; i < p->columns; i++) {
                const dm_q8_block *block = p->q + (t * p->columns + i) / UNIT;
                double term = (double)w[i] * (double)block->scale * block->q[i % UNIT];
                sum += term;
                bound += fabs(term);
            }
            assert_true(fabs((double)y[t * ldy + r] - sum) <= 2e-6 * bound + 1e-9);
        }
    }
    dm_free(w);
}

static void test_products(void **state) {
    (void)state;
    static const size_t shapes[][3] = {{16, 256, 1}, {5, 256, 3}, {33, 512, 17}, {48, 768, 8}};
    dm_random random;
    dm_random_seed(&random, 3);
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes - (DM_EMULATED ? 2 : 0); s++) {
            product p = make(&random, dm_panel_format_at(f), shapes[s][0], shapes[s][1], shapes[s][2]);
            size_t count = p.m * dm_panel_count(p.rows) * ROWS;
            float *want = dm_alloc(count, sizeof *want), *got = dm_alloc(count, sizeof *got);
            run(portable, &p, p.m, want);
            check_values(&p, want);
            for (size_t t = 0; t < n_tables; t++) {
                for (size_t together = 1; together <= p.m; together = 2 * together + 1) {
                    memset(got, 0xff, count * sizeof *got);
                    run(tables[t], &p, together, got);
                    assert_memory_equal(got, want, count * sizeof *got);
                }
            }
            dm_free(want);
            dm_free(got);
            drop(&p);
        }
    }
}

/* Blocks of 32 need not come in eights. */
static void test_short_rows(void **state) {
    (void)state;
    static const dm_type types[] = {DM_TYPE_Q4_0, DM_TYPE_Q4_1, DM_TYPE_Q5_0, DM_TYPE_Q5_1, DM_TYPE_Q8_0, DM_TYPE_IQ4_NL};
    dm_random random;
    dm_random_seed(&random, 4);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        product p = make(&random, dm_panel_format_of(types[i]), 19, 96, 2);
        float want[2 * 32], got[2 * 32];
        run(portable, &p, 2, want);
        check_values(&p, want);
        for (size_t t = 0; t < n_tables; t++) {
            run(tables[t], &p, 2, got);
            assert_memory_equal(got, want, sizeof got);
        }
        drop(&p);
    }
}

/* The largest codes and activations overflow nothing. */
static void test_extremes(void **state) {
    (void)state;
    enum { COLUMNS = 256 };
    dm_random random;
    dm_random_seed(&random, 5);
    for (int f = 0; f < DM_PANEL_COUNT; f++) {
        const dm_panel_format *format = dm_panel_format_at(f);
        for (int sign = 0; sign < 3; sign++) {
            product p = make(&random, format, ROWS, COLUMNS, 1);
            memset(p.panels, format->codes == DM_CODES_8 ? 0x80 : 0xff,
                   COLUMNS / UNIT * dm_panel_lines(format->codes) * DM_PANEL_LINE);
            for (int i = 0; i < COLUMNS; i++) {
                p.x[i] = sign == 0 ? 1.0f : sign == 1 ? -1.0f : i % 2 == 0 ? 1.0f : -1.0f;
            }
            portable->quantize(p.q, p.x, COLUMNS);
            float want[ROWS], got[ROWS];
            run(portable, &p, 1, want);
            for (size_t t = 0; t < n_tables; t++) {
                run(tables[t], &p, 1, got);
                assert_memory_equal(got, want, sizeof got);
            }
            drop(&p);
        }
    }
}

static void test_rounding(void **state) {
    (void)state;
    enum { N = 64 * UNIT };
    static float x[N];
    static dm_q8_block want[N / UNIT], got[N / UNIT];
    dm_random random;
    dm_random_seed(&random, 6);
    for (int i = 0; i < N; i++) {
        x[i] = (float)dm_random_normal(&random) * powf(10.0f, (float)(i / UNIT % 9 * 4 - 16));
    }
    memset(x, 0, UNIT * sizeof *x);
    portable->quantize(want, x, N);
    for (int i = 0; i < N; i++) {
        const dm_q8_block *block = &want[i / UNIT];
        assert_true(fabsf(x[i] - block->scale * (float)block->q[i % UNIT]) <= 0.5001f * block->scale);
    }
    assert_true(want[0].scale == 0.0f && want[0].sum == 0.0f);
    for (size_t t = 0; t < n_tables; t++) {
        tables[t]->quantize(got, x, N);
        assert_memory_equal(got, want, sizeof got);
    }
}

/* One bad value makes every product with its block bad, as it would in float32. */
static void test_not_finite(void **state) {
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    float x[UNIT] = {1.0f};
    dm_q8_block block;
    for (size_t i = 0; i < 3; i++) {
        x[7] = bad[i];
        for (size_t t = 0; t < n_tables; t++) {
            tables[t]->quantize(&block, x, UNIT);
            assert_false(isfinite(block.scale));
        }
    }
}

static int set_up(void **state) {
    (void)state;
    n_tables = dm_quantized_tables(tables);
    portable = tables[n_tables - 1];
    return strcmp(portable->isa, "scalar") == 0 ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products), cmocka_unit_test(test_short_rows), cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_rounding), cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
