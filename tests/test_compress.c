/* The compression game on one panel: exact changes, a payoff that never falls, rest, budgets, and what each phase is worth. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "quantization/compress_prices.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, TILE = ROWS * UNIT };

/* A panel with random weights and second moments of inputs that hang together: x_t is a running mean of noise along the columns,
 * columns of different sizes. */
typedef struct problem {
    size_t columns;
    float *h, *diagonal, *w;
    float d[ROWS];
    dm_compress_moments moments;
    dm_level_tables tables;
    dm_panel panel;
} problem;

static void fill_moments(problem *p, dm_random *random) {
    const size_t n = p->columns;
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    for (size_t t = 0; t < 3 * n; t++) {
        double run = 0.0;
        for (size_t j = 0; j < n; j++) {
            run = 0.9 * run + dm_random_normal(random);
            x[j] = (float)(run * (1.0 + (double)(j * 7 % 13)));
        }
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < n; j++) {
                p->h[i * n + j] += x[i] * x[j] / (float)(3 * n);
            }
        }
    }
    for (size_t j = 0; j < n; j++) {
        p->diagonal[j] = p->h[j * n + j];
    }
    free(x);
}

static void problem_open(problem *p, size_t columns, bool whole, dm_neighbour_choice choice, uint64_t seed) {
    dm_random random;
    dm_random_seed(&random, seed);
    *p = (problem){.columns = columns,
                   .h = calloc(columns * columns, sizeof *p->h),
                   .diagonal = calloc(columns, sizeof *p->diagonal),
                   .w = calloc(columns * ROWS, sizeof *p->w)};
    assert_true(p->h != NULL && p->diagonal != NULL && p->w != NULL);
    fill_moments(p, &random);
    for (size_t i = 0; i < columns * ROWS; i++) {
        p->w[i] = (float)dm_random_normal(&random);
    }
    for (int l = 0; l < ROWS; l++) {
        p->d[l] = 0.5f + (float)dm_random_uniform(&random);
    }
    dm_level_tables_make(&p->tables, &dm_mixed_usual_levels);
    assert_int_equal(dm_compress_moments_make(&p->moments, whole ? p->h : NULL, p->diagonal, columns, &choice), DM_OK);
    assert_int_equal(dm_panel_create(&p->panel, &p->moments, &p->tables), DM_OK);
    dm_panel_load(&p->panel, p->w, p->d, ROWS);
}

static void problem_close(problem *p) {
    dm_panel_free(&p->panel);
    dm_compress_moments_free(&p->moments);
    free(p->h);
    free(p->diagonal);
    free(p->w);
}

/* sum of D (q - w)^T H (q - w) by the definition, in double, H damped as the solver has it if it has one. */
static double plain_error(const problem *p, const float *q, const float *h, double damping) {
    const size_t n = p->columns;
    double error = 0.0;
    for (size_t l = 0; l < ROWS; l++) {
        for (size_t i = 0; i < n; i++) {
            double sum = damping * ((double)q[i * ROWS + l] - p->panel.w[i * ROWS + l]);
            for (size_t j = 0; j < n; j++) {
                sum += (double)h[i * n + j] * ((double)q[j * ROWS + l] - p->panel.w[j * ROWS + l]);
            }
            error += p->d[l] * sum * ((double)q[i * ROWS + l] - p->panel.w[i * ROWS + l]);
        }
    }
    return error;
}

static void set_widths(problem *p, unsigned bits) {
    memset(p->panel.widths, (int)bits, p->moments.units);
}

static const dm_neighbour_choice seven = {.n = 7};

/* L L^T is H; the own factors are those of its blocks. */
static void test_factors(void **state) {
    problem p;
    (void)state;
    problem_open(&p, 192, true, seven, 1);
    const size_t n = p.columns;
    for (size_t i = 0; i < n; i += 5) {
        for (size_t j = 0; j <= i; j += 3) {
            double sum = 0.0;
            for (size_t k = 0; k <= j; k++) {
                sum += (double)p.moments.lower[i * n + k] * p.moments.lower[j * n + k];
            }
            assert_float_equal(sum, p.moments.h[i * n + j], 1e-3f * sqrtf(p.moments.h[i * n + i] * p.moments.h[j * n + j]));
        }
    }
    for (size_t b = 0; b < p.moments.units; b++) { /* all six units have the five others for neighbours */
        assert_int_equal(p.moments.n_neighbours, 5);
        unsigned seen = 0;
        for (size_t k = 0; k < 5; k++) {
            seen |= 1u << p.moments.neighbours[b * 5 + k];
        }
        assert_int_equal(seen, 63u & ~(1u << b));
    }
    problem_close(&p);
}

/* Where no weight is far from a level, the nearest plane and the definition agree on the error. */
static void test_error_is_the_definition(void **state) {
    problem p;
    (void)state;
    problem_open(&p, 96, true, seven, 2);
    set_widths(&p, 3);
    p.panel.widths[1] = 0;
    p.panel.widths[2] = 6;
    dm_panel_construct(&p.panel);
    const double error = dm_panel_error(&p.panel), plain = plain_error(&p, p.panel.q, p.moments.h, 0.0);
    assert_float_equal(error, plain, 1e-4 * plain);
    problem_close(&p);
}

/* A change of any unit to anything: what the formula says is what the definition says. */
static void test_change_is_exact(void **state) {
    problem p;
    dm_random random;
    (void)state;
    problem_open(&p, 128, true, seven, 3);
    dm_random_seed(&random, 9);
    set_widths(&p, 2);
    dm_panel_construct(&p.panel);
    dm_panel_error(&p.panel);
    for (size_t unit = 0; unit < p.moments.units; unit++) {
        float q[TILE], old[TILE], change[ROWS];
        double said = 0.0;
        memcpy(old, p.panel.q + unit * TILE, sizeof old);
        for (int i = 0; i < TILE; i++) {
            q[i] = old[i] + 0.1f * (float)dm_random_normal(&random);
        }
        dm_panel_change(&p.panel, unit, q, change);
        for (int l = 0; l < ROWS; l++) {
            said += (double)p.d[l] * change[l];
        }
        const double before = plain_error(&p, p.panel.q, p.moments.h, 0.0);
        memcpy(p.panel.q + unit * TILE, q, sizeof q);
        const double after = plain_error(&p, p.panel.q, p.moments.h, 0.0);
        memcpy(p.panel.q + unit * TILE, old, sizeof old);
        assert_float_equal(said, after - before, 1e-4 * before);
    }
    problem_close(&p);
}

static double payoff(problem *p, const dm_prices *prices) {
    double paid = 0.0;
    for (size_t u = 0; u < p->moments.units; u++) {
        const int choice = dm_choice_of(p->panel.widths[u]);
        paid += prices->byte * (double)dm_choice_bytes(choice) + prices->kept * (choice > 0);
    }
    return -plain_error(p, p->panel.q, p->moments.h, 0.0) - paid;
}

/* The payoff rises from sweep to sweep, ends at what the definition gives, and the bytes stay within the budget. */
static void test_play(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++) {
        problem p;
        dm_play_counts counts = {0};
        problem_open(&p, 320, true, (dm_neighbour_choice){.n = k == 0 ? 0 : 7, .random = k == 2, .seed = 5}, 4);
        set_widths(&p, 3);
        dm_panel_construct(&p.panel);
        const double error = dm_panel_error(&p.panel);
        const dm_prices prices = {error / (double)(p.moments.units * dm_choice_bytes(2)), 0.01 * error};
        const size_t budget = dm_widths_bytes(p.panel.widths, p.moments.units);
        assert_float_equal(payoff(&p, &prices),
                           -error - prices.byte * (double)(p.moments.units * dm_choice_bytes(2)) -
                               prices.kept * (double)p.moments.units,
                           1e-3 * error);
        dm_panel_play(&p.panel, &prices, budget, DM_MOST_SWEEPS, &counts);
        assert_true(counts.at_rest);
        for (size_t s = 0; s < counts.sweeps; s++) {
            assert_true(counts.payoff[s + 1] >= counts.payoff[s]);
            assert_true(counts.proposals[s] <= p.moments.units && counts.moves[s] <= counts.proposals[s]);
        }
        assert_true(counts.payoff[counts.sweeps] > counts.payoff[0]);
        assert_float_equal(counts.payoff[counts.sweeps], payoff(&p, &prices), 1e-3 * error);
        assert_true(dm_widths_bytes(p.panel.widths, p.moments.units) <= budget);
        /* at rest another game from here finds nothing, whoever is asked first */
        dm_play_counts again = {0};
        dm_panel_play(&p.panel, &prices, budget, 1, &again);
        assert_int_equal(again.proposals[0], p.moments.units);
        assert_int_equal(again.moves[0], 0);
        problem_close(&p);
    }
}

/* At rest no single level of any weight, moved up or down within its tile's width, makes the error smaller. */
static void test_rest_is_an_equilibrium(void **state) {
    problem p;
    dm_play_counts counts = {0};
    const dm_prices none = {0};
    (void)state;
    problem_open(&p, 64, true, seven, 6);
    set_widths(&p, 2);
    dm_panel_construct(&p.panel);
    dm_panel_play(&p.panel, &none, dm_widths_bytes(p.panel.widths, p.moments.units), DM_MOST_SWEEPS, &counts);
    assert_true(counts.at_rest);
    const dm_width_levels *levels = &p.tables.of[0];
    for (size_t unit = 0; unit < p.moments.units; unit++) {
        if (p.panel.widths[unit] != 2) {
            continue;
        }
        for (size_t i = 0; i < TILE; i++) {
            const size_t l = i % ROWS;
            for (int k = 0; k < levels->n; k++) {
                float q[TILE], change[ROWS];
                memcpy(q, p.panel.q + unit * TILE, sizeof q);
                q[i] = dm_mixed_scale(p.panel.numbers.row_scales[l], p.panel.numbers.scales[unit * ROWS + l]) * levels->level[k];
                dm_panel_change(&p.panel, unit, q, change);
                assert_true(change[l] > -1e-4f * p.moments.h[unit * UNIT * (p.columns + 1)]);
            }
        }
    }
    problem_close(&p);
}

/* Error under the true H of: rounding to nearest by weights alone, by the diagonal of H, by compensation, by the game. */
static double error_of(size_t columns, int method, unsigned bits) {
    problem p, judge;
    dm_play_counts counts = {0};
    const dm_prices none = {0};
    problem_open(&judge, columns, true, seven, 7);
    problem_open(&p, columns, method >= 2, seven, 7);
    if (method == 0) {
        float *ones = calloc(columns, sizeof *ones);
        assert_non_null(ones);
        for (size_t j = 0; j < columns; j++) {
            ones[j] = 1.0f;
        }
        dm_compress_moments_free(&p.moments);
        assert_int_equal(dm_compress_moments_make(&p.moments, NULL, ones, columns, &seven), DM_OK);
        free(ones);
    }
    set_widths(&p, bits);
    dm_panel_construct(&p.panel);
    if (method == 3) {
        dm_panel_play(&p.panel, &none, dm_widths_bytes(p.panel.widths, p.moments.units), 8, &counts);
    }
    const double error = plain_error(&p, p.panel.q, judge.moments.h, 0.0);
    problem_close(&judge);
    problem_close(&p);
    return error;
}

static void test_ladder(void **state) {
    (void)state;
    for (unsigned bits = 2; bits <= (DM_SLOW ? 2 : 4); bits++) {
        double error[4];
        for (int method = 0; method < 4; method++) {
            error[method] = error_of(256, method, bits);
        }
        print_message("%u bits: %g %g %g %g\n", bits, error[0], error[1], error[2], error[3]);
        assert_true(error[1] < error[0]);
        assert_true(error[2] < 0.8 * error[1]);
        assert_true(error[3] < error[2]);
    }
}

/* The codes that are written give back the weights that the game decided on. */
static void test_written(void **state) {
    problem p;
    (void)state;
    problem_open(&p, 224, true, seven, 8);
    const uint8_t widths[] = {0, 2, 3, 4, 5, 6, 8};
    memcpy(p.panel.widths, widths, sizeof widths);
    dm_panel_construct(&p.panel);
    dm_panel_finish(&p.panel);
    const dm_mixed_plan plan = {ROWS, p.columns, p.panel.widths, dm_mixed_usual_levels};
    size_t bytes;
    assert_int_equal(dm_mixed_bytes(&plan, &bytes), DM_OK);
    void *matrix = aligned_alloc(DM_MIXED_ALIGNMENT, bytes);
    float *back = calloc(ROWS * p.columns, sizeof *back);
    assert_true(matrix != NULL && back != NULL);
    dm_mixed_lay_out(matrix, &plan);
    dm_mixed_put_panel(matrix, 0, &p.panel.numbers);
    assert_int_equal(dm_mixed_check(matrix, bytes, ROWS, p.columns), DM_OK);
    dm_mixed_widen(back, matrix);
    for (size_t l = 0; l < ROWS; l++) {
        for (size_t j = 0; j < p.columns; j++) {
            assert_true(back[l * p.columns + j] == p.panel.q[j * ROWS + l]);
        }
    }
    free(back);
    free(matrix);
    problem_close(&p);
}

/* Bytes within the budget and close to it, enough pruned tiles, and no tile that would rather have another width at the prices.
 */
static void test_market(void **state) {
    enum { TILES = 3000 };
    static float cost[TILES * DM_CHOICES];
    static uint8_t widths[TILES];
    dm_random random;
    dm_market market = {TILES, cost, widths};
    dm_prices prices;
    (void)state;
    dm_random_seed(&random, 11);
    for (size_t t = 0; t < TILES; t++) {
        const double size = exp(2.0 * dm_random_normal(&random));
        for (int i = 0; i < DM_CHOICES; i++) {
            cost[t * DM_CHOICES + (size_t)i] = (float)(size * pow(0.25, dm_choice_bits(i)));
        }
    }
    for (int third = 0; third < 3; third++) {
        const double pruned = 0.3 * third;
        const dm_market_goal goal = {TILES * dm_choice_bytes(2), pruned, -1};
        uint64_t bytes = 0;
        size_t zeros = 0;
        assert_int_equal(dm_market_settle(&market, &goal, &prices), DM_OK);
        for (size_t t = 0; t < TILES; t++) {
            bytes += dm_choice_bytes(dm_choice_of(widths[t]));
            zeros += widths[t] == 0;
        }
        assert_true(bytes <= goal.bytes && (double)bytes > 0.99 * (double)goal.bytes);
        assert_true((double)zeros >= pruned * TILES);
        assert_true(prices.byte > 0.0 && (pruned == 0.0) == (prices.kept == 0.0));
    }
    const dm_market_goal forced = {0, 0.0, 3};
    assert_int_equal(dm_market_settle(&market, &forced, &prices), DM_OK);
    for (size_t t = 0; t < TILES; t++) {
        assert_int_equal(widths[t], 4);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factors),
        cmocka_unit_test(test_error_is_the_definition),
        cmocka_unit_test(test_change_is_exact),
        cmocka_unit_test(test_play),
        cmocka_unit_test(test_rest_is_an_equilibrium),
        cmocka_unit_test(test_ladder),
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_market),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
