/* Encoding to the types of blocks: how near the weights come back, what importance does, and that no input upsets it. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/random.h"
#include "quantization/encode.h"

typedef struct bound {
    dm_type type;
    double gaussian; /* highest relative error (root of the mean square over that of the weights), Gaussian weights */
    uint64_t hash;   /* of the bytes for a fixed row: the same on every machine */
} bound;

static const bound bounds[] = {
    {DM_TYPE_Q8_0, 0.00508, 0x21ae9f1ae8873398},   {DM_TYPE_Q6_K, 0.01706, 0x7589383449082f34},
    {DM_TYPE_Q5_K, 0.03485, 0xb31851a4819aa1b9},   {DM_TYPE_Q5_1, 0.03355, 0x40d7c7fcaaf5e85c},
    {DM_TYPE_Q5_0, 0.04050, 0xb65ecb026d39dfcd},   {DM_TYPE_Q4_K, 0.07080, 0xca70b5793f51bc67},
    {DM_TYPE_Q4_1, 0.07020, 0xb7b69a2294149cfb},   {DM_TYPE_Q4_0, 0.08190, 0x4c845764ff4cae62},
    {DM_TYPE_IQ4_NL, 0.07530, 0xf29c9117773d780a}, {DM_TYPE_IQ4_XS, 0.07580, 0x52d051f57da9a648},
    {DM_TYPE_Q3_K, 0.14550, 0x2b379a4f0f53949a},   {DM_TYPE_Q2_K, 0.27250, 0xfa5e587d53159cf5},
};

enum { N_BOUNDS = sizeof bounds / sizeof *bounds, ROW = 1024, BLOCKS = DM_EMULATED ? 16 : 128, MANY = BLOCKS * 256 };

static dm_random source;

static float *draw(size_t n) {
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = 0.02f * (float)dm_random_normal(&source);
    }
    return x;
}

/* x as it comes back; the caller's to free(). `importance` [n] or NULL. */
static float *there_and_back(dm_type type, const float *x, const float *importance, size_t n) {
    void *blocks = malloc(dm_type_bytes(type, n));
    float *y = malloc(n * sizeof *y);
    assert_true(blocks != NULL && y != NULL);
    assert_int_equal(dm_encode(type, blocks, x, importance, n), DM_OK);
    dm_type_decoder((uint32_t)type)(y, blocks, n);
    free(blocks);
    return y;
}

/* sum of w (x - y)^2 over sum of w x^2 */
static double relative_error(const float *x, const float *y, const float *w, size_t n) {
    double error = 0.0, square = 0.0;
    for (size_t i = 0; i < n; i++) {
        double weight = w != NULL ? w[i] : 1.0;
        error += weight * ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        square += weight * (double)x[i] * x[i];
    }
    return sqrt(error / square);
}

static void test_gaussian_rows(void **state) {
    (void)state;
    float *x = draw(MANY);
    for (int b = 0; b < N_BOUNDS; b++) {
        float *y = there_and_back(bounds[b].type, x, NULL, MANY);
        double error = relative_error(x, y, NULL, MANY);
        print_message("%-7s relative error %.5f\n", dm_type_name((uint32_t)bounds[b].type), error);
        /* fewer blocks in an emulator: more of chance */
        assert_true(error < bounds[b].gaussian * (DM_EMULATED ? 1.02 : 1.0));
        free(y);
    }
    free(x);
}

/* A weight that counts a hundred times as much gets nearer, at the cost of the others. */
static void test_importance(void **state) {
    (void)state;
    float *x = draw(MANY);
    float *importance = malloc(MANY * sizeof *importance);
    assert_non_null(importance);
    for (size_t i = 0; i < MANY; i++) {
        importance[i] = i % 8 == 3 ? 1e4f : i % 8 == 5 ? 300.0f : 3.0f;
    }
    for (int b = 0; b < N_BOUNDS; b++) {
        float *without = there_and_back(bounds[b].type, x, NULL, MANY);
        float *with = there_and_back(bounds[b].type, x, importance, MANY);
        double gain = relative_error(x, with, importance, MANY) / relative_error(x, without, importance, MANY);
        print_message("%-7s weighted error %.2f of the unweighted\n", dm_type_name((uint32_t)bounds[b].type), gain);
        assert_true(gain < 0.9);
        assert_true(relative_error(x, with, NULL, MANY) > relative_error(x, without, NULL, MANY));
        free(without);
        free(with);
    }
    free(importance);
    free(x);
}

/* Importance that is the same everywhere, however large or small, or none at all, changes nothing. */
static void test_even_importance(void **state) {
    (void)state;
    float *x = draw(ROW);
    static const float evens[] = {1.0f, 7e-30f, 3e37f, 0.0f, -1.0f, NAN, INFINITY};
    float importance[ROW];
    for (int b = 0; b < N_BOUNDS; b++) {
        float *expected = there_and_back(bounds[b].type, x, NULL, ROW);
        for (size_t e = 0; e < sizeof evens / sizeof *evens; e++) {
            for (size_t i = 0; i < ROW; i++) {
                importance[i] = evens[e];
            }
            float *y = there_and_back(bounds[b].type, x, importance, ROW);
            assert_memory_equal(y, expected, ROW * sizeof *y);
            free(y);
        }
        free(expected);
    }
    free(x);
}

/* ---- Odd inputs ---- */

/* One of many kinds of number, all of them finite if `finite`. */
static float odd_number(int kind, bool finite) {
    double u = dm_random_uniform(&source);
    switch (kind) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return (float)(u - 0.5);
    case 3:
        return (float)ldexp(u - 0.5, (int)(dm_random_next(&source) % 40) - 20);
    case 4:
        return 1.0f;
    case 5:
        return -3000.0f;
    case 6:
        return (float)(1e-9 * u);
    case 7:
        return finite ? 0.25f : 1e-42f;
    case 8:
        return finite ? -0.25f : FLT_MAX;
    case 9:
        return finite ? 0.0f : (float)(1e30 * (u - 0.5));
    case 10:
        return finite ? 0.0f : NAN;
    default:
        return finite ? 0.0f : u < 0.5 ? INFINITY : -INFINITY;
    }
}

enum { KINDS = 12 };

/* Rows of up to three kinds mixed, each at most 2^18 in magnitude: never worse than a row of zeros, but for rounding. */
static void test_odd_rows(void **state) {
    (void)state;
    enum { N = 256, ROUNDS = DM_EMULATED ? 30 : 1000 };
    float x[N], importance[N];
    for (int round = 0; round < ROUNDS; round++) {
        int kinds[3];
        for (int k = 0; k < 3; k++) {
            kinds[k] = (int)(dm_random_next(&source) % KINDS);
        }
        bool finite = round % 2 == 0;
        for (size_t i = 0; i < N; i++) {
            x[i] = odd_number(kinds[dm_random_next(&source) % 3], finite);
            importance[i] = odd_number((int)(dm_random_next(&source) % KINDS), false);
        }
        for (int b = 0; b < N_BOUNDS; b++) {
            float *plain = there_and_back(bounds[b].type, x, NULL, N);
            float *weighted = there_and_back(bounds[b].type, x, importance, N);
            double error = 0.0, square = 0.0;
            for (size_t i = 0; i < N; i++) {
                assert_true(isfinite(plain[i]) && isfinite(weighted[i]));
                error += ((double)x[i] - plain[i]) * ((double)x[i] - plain[i]);
                square += (double)x[i] * x[i];
            }
            if (finite && !(error <= square * 1.0001 + 1e-12)) {
                fail_msg("%s: error %g of %g", dm_type_name((uint32_t)bounds[b].type), error, square);
            }
            free(plain);
            free(weighted);
        }
    }
}

static void test_plain_rows(void **state) {
    (void)state;
    enum { N = 256 };
    float x[N];
    for (int b = 0; b < N_BOUNDS; b++) {
        memset(x, 0, sizeof x);
        float *y = there_and_back(bounds[b].type, x, NULL, N);
        for (size_t i = 0; i < N; i++) {
            assert_true(y[i] == 0.0f);
        }
        free(y);
        static const float same[] = {0.75f, -0.01f, 1e-3f, 40.0f};
        for (size_t s = 0; s < sizeof same / sizeof *same; s++) {
            for (size_t i = 0; i < N; i++) {
                x[i] = same[s];
            }
            y = there_and_back(bounds[b].type, x, NULL, N);
            for (size_t i = 0; i < N; i++) {
                assert_true(fabsf(y[i] - same[s]) <= 0.02f * fabsf(same[s])); /* halves near 0 are coarse */
            }
            free(y);
        }
        memset(x, 0, sizeof x);
        x[77] = -2.0f; /* one weight alone is kept */
        y = there_and_back(bounds[b].type, x, NULL, N);
        assert_true(fabsf(y[77] + 2.0f) < 0.02f);
        free(y);
    }
}

/* What no half can scale becomes the largest that can be, with its sign. */
static void test_too_large(void **state) {
    (void)state;
    enum { N = 256 };
    float x[N];
    for (size_t i = 0; i < N; i++) {
        x[i] = i % 2 == 0 ? 1e30f : -1e30f;
    }
    for (int b = 0; b < N_BOUNDS; b++) {
        float *y = there_and_back(bounds[b].type, x, NULL, N);
        for (size_t i = 0; i < N; i += 2) {
            assert_true(isfinite(y[i]) && y[i] > 60000.0f);
            assert_true(isfinite(y[i + 1]) && y[i + 1] < -60000.0f);
        }
        free(y);
    }
}

/* ---- The same bytes ---- */

/* Sums of uniform numbers, which are exact on every machine. */
static void fill_exactly(float *x, size_t n, uint64_t seed) {
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t i = 0; i < n; i++) {
        int32_t sum = 0;
        for (int k = 0; k < 4; k++) {
            sum += (int32_t)(dm_random_next(&random) >> 48) - 32768;
        }
        x[i] = (float)sum * 0x1p-22f;
    }
}

static void test_same_bytes_everywhere(void **state) {
    (void)state;
    float x[ROW], importance[ROW];
    uint8_t blocks[ROW * 2];
    fill_exactly(x, ROW, 3);
    fill_exactly(importance, ROW, 4);
    int differ = 0;
    for (int b = 0; b < N_BOUNDS; b++) {
        size_t bytes = dm_type_bytes(bounds[b].type, ROW);
        assert_int_equal(dm_encode(bounds[b].type, blocks, x, NULL, ROW), DM_OK);
        uint64_t hash = dm_hash_bytes(blocks, bytes, 0);
        assert_int_equal(dm_encode(bounds[b].type, blocks, x, importance, ROW), DM_OK);
        hash = dm_hash_bytes(blocks, bytes, hash);
        if (hash != bounds[b].hash) {
            print_error("%s: 0x%016llx\n", dm_type_name((uint32_t)bounds[b].type), (unsigned long long)hash);
            differ++;
        }
    }
    assert_int_equal(differ, 0);
}

/* Parts on several threads, cut anywhere between blocks, give the bytes of rows one by one. */
static void test_parts(void **state) {
    (void)state;
    enum { ROWS = 37, COLUMNS = 768, N = ROWS * COLUMNS };
    static const dm_type types[] = {DM_TYPE_F32, DM_TYPE_BF16, DM_TYPE_Q8_0, DM_TYPE_Q4_K, DM_TYPE_IQ4_XS};
    float *x = draw(N);
    float *importance = draw(COLUMNS);
    uint8_t *rows = malloc((size_t)N * 4), *parts = malloc((size_t)N * 4);
    assert_true(rows != NULL && parts != NULL);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (size_t r = 0; r < ROWS; r++) {
            size_t i = r * COLUMNS;
            assert_int_equal(dm_encode(types[t], rows + dm_type_bytes(types[t], i), x + i, importance, COLUMNS), DM_OK);
        }
        for (int threads = 1; threads <= 3; threads++) {
            dm_set_threads(threads);
            memset(parts, 0xff, (size_t)N * 4);
            for (size_t first = 0, n; first < N; first += n) {
                n = 256 * (size_t)(1 + 7 * threads);
                n = n < N - first ? n : N - first;
                assert_int_equal(
                    dm_encode_part(types[t], parts + dm_type_bytes(types[t], first), x + first, importance, COLUMNS, first, n),
                    DM_OK);
            }
            assert_memory_equal(parts, rows, dm_type_bytes(types[t], N));
        }
    }
    dm_set_threads(0);
    free(x);
    free(importance);
    free(rows);
    free(parts);
}

static void test_refuses(void **state) {
    (void)state;
    float x[256] = {0};
    uint8_t out[2048];
    assert_int_equal(dm_encode(DM_TYPE_Q4_K, out, x, NULL, 255), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "255 weights are not whole blocks of 256 (Q4_K)"));
    assert_int_equal(dm_encode(DM_TYPE_Q8_K, out, x, NULL, 256), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "Q4_0"));
    assert_int_equal(dm_encode((dm_type)77, out, x, NULL, 256), DM_ERR_ARGUMENT);
    assert_int_equal(dm_encode_part(DM_TYPE_Q8_0, out, x, NULL, 48, 0, 48), DM_ERR_ARGUMENT);
    assert_int_equal(dm_encode(DM_TYPE_Q4_K, out, x, NULL, 0), DM_OK);
}

static int set_up(void **state) {
    (void)state;
    dm_random_seed(&source, 5);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gaussian_rows),
        cmocka_unit_test(test_importance),
        cmocka_unit_test(test_even_importance),
        cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_plain_rows),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_same_bytes_everywhere),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
