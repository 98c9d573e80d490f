/* Blocks of GGUF's common types: codes one by one, errors under H of each step, and the budget of types. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "quantization/compat_codes.h"
#include "quantization/compat_rows.h"
#include "quantization/compat_types.h"
#include "quantization/encode.h"

enum { COLUMNS = 512, ROWS = 4, MOST_BYTES = 512 };

static void fill(float *x, size_t n, dm_random *random) {
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)dm_random_normal(random);
    }
}

/* Every code of every weight decodes to what the grid says, and no other weight changes. */
static void codes_go_round(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 1);
    for (int t = 0; t < DM_COMPAT_TYPES; t++) {
        const dm_type type = dm_compat_types[t];
        uint32_t n, bytes;
        float x[DM_MAX_BLOCK], before[DM_MAX_BLOCK], after[DM_MAX_BLOCK];
        _Alignas(8) uint8_t block[MOST_BYTES];
        assert_true(dm_type_block((uint32_t)type, &n, &bytes) && bytes <= MOST_BYTES);
        fill(x, n, &random);
        assert_int_equal(dm_encode(type, block, x, NULL, n), DM_OK);
        dm_type_decoder((uint32_t)type)(before, block, n);
        for (size_t i = 0; i < n; i++) {
            const dm_compat_grid grid = dm_compat_grid_of(type, block, i);
            assert_true(fabsf(dm_compat_value(&grid, dm_compat_nearest(&grid, before[i])) - before[i]) <= 1e-5f);
            for (int step = 1; step <= 3; step++) {
                const int code = (int)((i * 7 + (size_t)step * 5) % (size_t)grid.codes);
                dm_compat_set_code(type, block, i, code);
                dm_type_decoder((uint32_t)type)(after, block, n);
                before[i] = dm_compat_value(&grid, code);
                for (size_t k = 0; k < n; k++) {
                    assert_true(fabsf(after[k] - before[k]) <= 1e-5f);
                }
            }
        }
    }
}

/* The nearest code has no better one. */
static void nearest_is_nearest(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 2);
    for (int t = 0; t < DM_COMPAT_TYPES; t++) {
        float x[DM_MAX_BLOCK];
        _Alignas(8) uint8_t block[MOST_BYTES];
        fill(x, DM_MAX_BLOCK, &random);
        uint32_t n, bytes;
        assert_true(dm_type_block((uint32_t)dm_compat_types[t], &n, &bytes));
        assert_int_equal(dm_encode(dm_compat_types[t], block, x, NULL, n), DM_OK);
        for (size_t i = 0; i < n; i++) {
            const dm_compat_grid grid = dm_compat_grid_of(dm_compat_types[t], block, i);
            const float wanted = 3.0f * (float)dm_random_normal(&random);
            const float found = fabsf(dm_compat_value(&grid, dm_compat_nearest(&grid, wanted)) - wanted);
            for (int c = 0; c < grid.codes; c++) {
                assert_true(found <= fabsf(dm_compat_value(&grid, c) - wanted) + 1e-5f);
            }
        }
        const dm_compat_grid grid = dm_compat_grid_of(dm_compat_types[t], block, 0);
        const int code = dm_compat_nearest(&grid, NAN);
        assert_true(code >= 0 && code < grid.codes);
    }
}

/* Inputs that hang together: a running mean of noise. */
static float *make_moments(dm_random *random) {
    float *h = calloc((size_t)COLUMNS * COLUMNS, sizeof *h);
    assert_non_null(h);
    for (int t = 0; t < 300; t++) {
        float x[COLUMNS], run = 0.0f;
        for (size_t j = 0; j < COLUMNS; j++) {
            run = 0.9f * run + (float)dm_random_normal(random);
            x[j] = run;
        }
        for (size_t i = 0; i < COLUMNS; i++) {
            for (size_t j = 0; j < COLUMNS; j++) {
                h[i * COLUMNS + j] += x[i] * x[j] / 300.0f;
            }
        }
    }
    return h;
}

/* By the definition, in double, of what the bytes decode to. */
static double plain_error(const dm_compress_moments *m, const float *w, const float *d, dm_type type, const uint8_t *blocks) {
    double sum = 0.0;
    for (size_t r = 0; r < ROWS; r++) {
        float q[COLUMNS];
        dm_type_decoder((uint32_t)type)(q, blocks + r * dm_type_bytes(type, COLUMNS), COLUMNS);
        for (size_t i = 0; i < COLUMNS; i++) {
            for (size_t j = 0; j < COLUMNS; j++) {
                sum += (double)d[r] * (q[i] - w[r * COLUMNS + i]) * m->h[i * COLUMNS + j] * (q[j] - w[r * COLUMNS + j]);
            }
        }
    }
    return sum;
}

/* Each step leaves less error than the one before, and errors are what they are said to be. */
static void steps_help(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 3);
    float w[ROWS * COLUMNS], d[ROWS] = {1.0f, 0.5f, 2.0f, 1.5f}, diagonal[COLUMNS];
    const dm_neighbour_choice nobody = {0};
    dm_compress_moments moments;
    float *h = make_moments(&random);
    uint8_t *blocks = malloc(ROWS * COLUMNS * 2);
    assert_non_null(blocks);
    fill(w, ROWS * COLUMNS, &random);
    for (size_t j = 0; j < COLUMNS; j++) {
        diagonal[j] = h[j * COLUMNS + j];
    }
    assert_int_equal(dm_compress_moments_make(&moments, h, diagonal, COLUMNS, &nobody), DM_OK);
    for (int t = 0; t < DM_COMPAT_TYPES; t++) {
        const dm_type type = dm_compat_types[t];
        const dm_weight weight = {.data = w, .type = DM_TYPE_F32, .rows = ROWS, .columns = COLUMNS};
        dm_compat_task task = {.weight = weight, .moments = &moments, .d = d};
        dm_compat_counts rtn, gptq, game;
        assert_int_equal(dm_compat_encode(&task, type, 1, blocks, &rtn), DM_OK);
        assert_float_equal(plain_error(&moments, w, d, type, blocks) / rtn.after, 1.0, 1e-3);
        task.compensate = true;
        assert_int_equal(dm_compat_encode(&task, type, 1, blocks, &gptq), DM_OK);
        assert_float_equal(plain_error(&moments, w, d, type, blocks) / gptq.after, 1.0, 1e-3);
        task.sweeps = 4;
        assert_int_equal(dm_compat_encode(&task, type, 1, blocks, &game), DM_OK);
        assert_float_equal(plain_error(&moments, w, d, type, blocks) / game.after, 1.0, 1e-3);
        assert_true(gptq.after < 0.8 * rtn.after);
        assert_true(game.before == gptq.after && game.after <= game.before * 1.0001);
    }
    dm_compress_moments_free(&moments);
    free(h);
    free(blocks);
}

/* Never over the budget, which is nearly used up; more bytes never cost more; too few are refused. */
static void budget_is_kept(void **state) {
    (void)state;
    enum { N = 20 };
    dm_random random;
    dm_random_seed(&random, 4);
    dm_compat_offer offers[N] = {0};
    uint64_t least = 0, most = 0;
    double price, before = INFINITY;
    for (int i = 0; i < N; i++) {
        const double weight = 1e-6 * (1.0 + 50.0 * dm_random_uniform(&random));
        for (int k = 0; k < DM_COMPAT_TYPES; k++) {
            const size_t bytes = dm_type_bytes(dm_compat_types[k], 4096);
            offers[i].bytes[k] = i % 5 == 0 && k < 3 ? 0 : bytes;
            offers[i].cost[k] = weight * exp2(-16.0 * (double)bytes / 4096.0);
        }
        least += offers[i].bytes[i % 5 == 0 ? 3 : 0];
        most += offers[i].bytes[DM_COMPAT_TYPES - 1];
    }
    assert_int_equal(dm_compat_settle(offers, N, least - 1, &price), DM_ERR_ARGUMENT);
    for (uint64_t budget = least; budget < most; budget += (most - least) / 17) {
        uint64_t bytes = 0;
        double cost = 0.0;
        assert_int_equal(dm_compat_settle(offers, N, budget, &price), DM_OK);
        for (int i = 0; i < N; i++) {
            assert_true(offers[i].bytes[offers[i].chosen] > 0);
            bytes += offers[i].bytes[offers[i].chosen];
            cost += offers[i].cost[offers[i].chosen];
        }
        assert_true(bytes <= budget && bytes + 1100 > budget);
        assert_true(cost <= before * 1.02);
        before = cost;
    }
    assert_int_equal(dm_compat_settle(offers, N, most, &price), DM_OK);
    assert_true(price == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_go_round),
        cmocka_unit_test(nearest_is_nearest),
        cmocka_unit_test(steps_help),
        cmocka_unit_test(budget_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
