/*
 * The quantized types: every weight of blocks of random bits beside its value worked out one by one, from byte offsets, as
 * the format is specified; and products with matrices of every type beside the same products of the decoded ones.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/linear.h"

/* ---- The formats once more, weight by weight ---- */

/* A half as sign * mantissa * 2^exponent. */
static double half_at(const uint8_t *bytes) {
    int bits = bytes[0] | bytes[1] << 8;
    int exponent = bits >> 10 & 31;
    double magnitude = exponent == 0 ? ldexp(bits & 1023, -24) : ldexp(1024 + (bits & 1023), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static int nibble(const uint8_t *bytes, int i) {
    return (i % 2 == 0 ? bytes[i / 2] : bytes[i / 2] >> 4) & 15;
}

static int bit(const uint8_t *bytes, int i) {
    return bytes[i / 8] >> (i % 8) & 1;
}

/* Of 32 weights in 16 bytes: low nibbles first. */
static int split_nibble(const uint8_t *bytes, int i) {
    return nibble(bytes, i < 16 ? 2 * i : 2 * (i - 16) + 1);
}

/* All values have few enough bits that each product below is one rounding at most, as in the decoders. */
static float weight_q4_0(const uint8_t *b, int i) {
    return (float)(half_at(b) * (split_nibble(b + 2, i) - 8));
}

static float weight_q4_1(const uint8_t *b, int i) {
    float product = (float)(half_at(b) * split_nibble(b + 4, i));
    return product + (float)half_at(b + 2);
}

static float weight_q5_0(const uint8_t *b, int i) {
    return (float)(half_at(b) * (split_nibble(b + 6, i) + 16 * bit(b + 2, i) - 16));
}

static float weight_q5_1(const uint8_t *b, int i) {
    float product = (float)(half_at(b) * (split_nibble(b + 8, i) + 16 * bit(b + 4, i)));
    return product + (float)half_at(b + 2);
}

static float weight_q8_0(const uint8_t *b, int i) {
    return (float)(half_at(b) * (b[2 + i] < 128 ? b[2 + i] : b[2 + i] - 256));
}

static int iq4_value(int index) {
    static const int negative[] = {127, 104, 83, 65, 49, 35, 22, 10};
    static const int positive[] = {1, 13, 25, 38, 53, 69, 89, 113};
    return index < 8 ? -negative[index] : positive[index - 8];
}

static float weight_iq4_nl(const uint8_t *b, int i) {
    return (float)(half_at(b) * iq4_value(split_nibble(b + 2, i)));
}

static float weight_iq4_xs(const uint8_t *b, int i) {
    int g = i / 32;
    int scale = nibble(b + 4, g) + 16 * (bit(b + 2, 2 * g) + 2 * bit(b + 2, 2 * g + 1)) - 32;
    float d = (float)(half_at(b) * scale);
    return d * (float)iq4_value(split_nibble(b + 8 + 16 * g, i % 32));
}

/* Two bits per weight: byte 32 (i / 128) + i % 32, pair i / 32 % 4 of it. */
static int pair_of(const uint8_t *bytes, int i) {
    int byte = 32 * (i / 128) + i % 32;
    int pair = i / 32 % 4;
    return bit(bytes + byte, 2 * pair) + 2 * bit(bytes + byte, 2 * pair + 1);
}

static float weight_q2_k(const uint8_t *b, int i) {
    float scale = (float)(half_at(b + 80) * (b[i / 16] & 15));
    float min = (float)(half_at(b + 82) * (b[i / 16] >> 4));
    return scale * (float)pair_of(b + 16, i) - min;
}

static float weight_q3_k(const uint8_t *b, int i) {
    int g = i / 16;
    const uint8_t *scales = b + 96;
    int low = g < 8 ? nibble(scales, 2 * g) : nibble(scales, 2 * (g - 8) + 1);
    int top = bit(scales + 8 + g % 4, 2 * (g / 4)) + 2 * bit(scales + 8 + g % 4, 2 * (g / 4) + 1);
    float d = (float)(half_at(b + 108) * (low + 16 * top - 32));
    return d * (float)(pair_of(b + 32, i) - (bit(b + i % 32, i / 32) ? 0 : 4));
}

static int q4_k_scale(const uint8_t *scales, int g) {
    return g < 4 ? scales[g] % 64 : scales[g + 4] % 16 + 16 * (scales[g - 4] / 64);
}

static int q4_k_min(const uint8_t *scales, int g) {
    return g < 4 ? scales[g + 4] % 64 : scales[g + 4] / 16 + 16 * (scales[g] / 64);
}

static float affine_k(const uint8_t *b, int g, int q) {
    float scale = (float)(half_at(b) * q4_k_scale(b + 4, g));
    float min = (float)(half_at(b + 2) * q4_k_min(b + 4, g));
    return scale * (float)q - min;
}

static float weight_q4_k(const uint8_t *b, int i) {
    int g = i / 32;
    return affine_k(b, g, nibble(b + 16 + 32 * (g / 2) + i % 32, g % 2));
}

static float weight_q5_k(const uint8_t *b, int i) {
    int g = i / 32;
    return affine_k(b, g, nibble(b + 48 + 32 * (g / 2) + i % 32, g % 2) + 16 * bit(b + 16 + i % 32, g));
}

static float weight_q6_k(const uint8_t *b, int i) {
    int h = i / 128, k = i / 32 % 4;
    int low = nibble(b + 64 * h + 32 * (k % 2) + i % 32, k / 2);
    int8_t scale;
    memcpy(&scale, b + 192 + i / 16, 1);
    float d = (float)(half_at(b + 208) * scale);
    return d * (float)(low + 16 * pair_of(b + 128, i) - 32);
}

typedef struct format {
    dm_type type;
    const char *name;
    uint32_t number, weights, bytes;
    float (*weight)(const uint8_t *block, int i);
    int halves[2]; /* where they are in the block; -1: none */
} format;

static const format formats[] = {
    {DM_TYPE_Q4_0, "Q4_0", 2, 32, 18, weight_q4_0, {0, -1}},
    {DM_TYPE_Q4_1, "Q4_1", 3, 32, 20, weight_q4_1, {0, 2}},
    {DM_TYPE_Q5_0, "Q5_0", 6, 32, 22, weight_q5_0, {0, -1}},
    {DM_TYPE_Q5_1, "Q5_1", 7, 32, 24, weight_q5_1, {0, 2}},
    {DM_TYPE_Q8_0, "Q8_0", 8, 32, 34, weight_q8_0, {0, -1}},
    {DM_TYPE_Q2_K, "Q2_K", 10, 256, 84, weight_q2_k, {80, 82}},
    {DM_TYPE_Q3_K, "Q3_K", 11, 256, 110, weight_q3_k, {108, -1}},
    {DM_TYPE_Q4_K, "Q4_K", 12, 256, 144, weight_q4_k, {0, 2}},
    {DM_TYPE_Q5_K, "Q5_K", 13, 256, 176, weight_q5_k, {0, 2}},
    {DM_TYPE_Q6_K, "Q6_K", 14, 256, 210, weight_q6_k, {208, -1}},
    {DM_TYPE_IQ4_NL, "IQ4_NL", 20, 32, 18, weight_iq4_nl, {0, -1}},
    {DM_TYPE_IQ4_XS, "IQ4_XS", 23, 256, 136, weight_iq4_xs, {0, -1}},
};

enum { N_FORMATS = sizeof formats / sizeof *formats };

static dm_random source;

/* Random bits; the halves finite, between about 2^-8 and 2 in magnitude. */
static void fill(const format *f, uint8_t *bytes, size_t blocks) {
    for (size_t i = 0; i < blocks * f->bytes; i++) {
        bytes[i] = (uint8_t)(dm_random_next(&source) >> 40);
    }
    for (size_t i = 0; i < blocks; i++) {
        for (int h = 0; h < 2 && f->halves[h] >= 0; h++) {
            uint8_t *top = bytes + i * f->bytes + (size_t)f->halves[h] + 1;
            *top = (uint8_t)((*top & 0x83) | (7 + *top / 4 % 9) << 2);
        }
    }
}

/* ---- Tests ---- */

static void test_table(void **state) {
    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        uint32_t weights, bytes;
        dm_type type;
        assert_int_equal(formats[f].type, formats[f].number);
        assert_string_equal(dm_type_name(formats[f].number), formats[f].name);
        assert_true(dm_type_block(formats[f].number, &weights, &bytes));
        assert_int_equal(weights, formats[f].weights);
        assert_int_equal(bytes, formats[f].bytes);
        assert_int_equal(DM_MAX_BLOCK % weights, 0);
        assert_int_equal(dm_type_bytes(formats[f].type, (size_t)3 * weights), (size_t)3 * bytes);
        assert_true(dm_type_from_name(formats[f].name, &type) && type == formats[f].type);
    }
    dm_type type;
    assert_true(dm_type_from_name("bf16", &type) && type == DM_TYPE_BF16);
    assert_true(dm_type_from_name("q4_k", &type) && type == DM_TYPE_Q4_K);
    assert_false(dm_type_from_name("q4", &type));
    assert_false(dm_type_from_name("", &type));
    assert_false(dm_type_from_name("Q8_K", &type)); /* known, but not of weights */
    assert_string_equal(dm_type_names(), "F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, "
                                         "BF16");
    const uint32_t unknown[] = {4, 5, 31, 33, 36, 38, 40, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        uint32_t weights, bytes;
        assert_null(dm_type_name(unknown[i]));
        assert_null(dm_type_decoder(unknown[i]));
        assert_false(dm_type_block(unknown[i], &weights, &bytes));
    }
}

static void test_decoding(void **state) {
    (void)state;
    enum { BLOCKS = 41 };
    uint8_t bytes[BLOCKS * 256];
    float decoded[BLOCKS * 256 + 1];
    for (int f = 0; f < N_FORMATS; f++) {
        fill(&formats[f], bytes, BLOCKS);
        size_t n = (size_t)BLOCKS * formats[f].weights;
        decoded[n] = 12345.0f;
        dm_type_decoder(formats[f].number)(decoded, bytes, n);
        assert_true(decoded[n] == 12345.0f);
        for (size_t i = 0; i < n; i++) {
            size_t block = i / formats[f].weights;
            float expected = formats[f].weight(bytes + block * formats[f].bytes, (int)(i % formats[f].weights));
            if (!(decoded[i] == expected)) {
                fail_msg("%s: weight %zu is %.9g, expected %.9g", formats[f].name, i, (double)decoded[i], (double)expected);
            }
        }
    }
}

/* Blocks of nothing but random bits: halves may be infinite or no numbers. */
static void test_any_bits(void **state) {
    (void)state;
    uint8_t bytes[512];
    float decoded[512];
    for (int f = 0; f < N_FORMATS; f++) {
        size_t n = formats[f].weights;
        for (int round = 0; round < 2000; round++) {
            for (size_t i = 0; i < formats[f].bytes; i++) {
                bytes[i] = (uint8_t)(dm_random_next(&source) >> 40);
            }
            memset(decoded, 0xff, sizeof decoded);
            dm_type_decoder(formats[f].number)(decoded, bytes, n);
            assert_true(isnan(decoded[n])); /* nothing behind the row is written */
            bool finite = true;
            for (int h = 0; h < 2 && formats[f].halves[h] >= 0; h++) {
                finite = finite && (bytes[formats[f].halves[h] + 1] & 0x7c) != 0x7c;
            }
            for (size_t i = 0; i < n && finite; i++) {
                assert_true(isfinite(decoded[i]));
            }
        }
    }
}

/* ---- Products ---- */

/* sum over i of w[i] x[i], and of the magnitudes */
static double exact_dot(const float *w, const float *x, size_t n, double *magnitude) {
    double sum = 0.0;
    *magnitude = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)w[i] * x[i];
        *magnitude += fabs((double)w[i] * x[i]);
    }
    return sum;
}

typedef struct product {
    const format *format;
    dm_weight weight;
    float *decoded; /* [rows, columns] */
    float *scratch, *x, *y, *bias;
} product;

/* y = x W^T + bias for m tokens, against exact sums. */
static void check_linear(const product *p, size_t m) {
    size_t rows = p->weight.rows, columns = p->weight.columns;
    const dm_linear_product linear = {p->weight, p->bias, p->y, rows};
    assert_int_equal(dm_linear(&linear, 1, p->x, columns, m, DM_ROWS_OF_CHUNK, p->scratch, 1), DM_OK);
    for (size_t t = 0; t < m; t++) {
        for (size_t row = 0; row < rows; row++) {
            double magnitude;
            double expected = exact_dot(p->decoded + row * columns, p->x + t * columns, columns, &magnitude) + p->bias[row];
            if (!(fabs(p->y[t * rows + row] - expected) <= 1e-6 * magnitude + 1e-6)) {
                fail_msg("%s: %zu tokens, row %zu, token %zu: %.9g, expected %.9g", p->format->name, m, row, t,
                         (double)p->y[t * rows + row], expected);
            }
        }
    }
}

static void check_rows(const product *p) {
    size_t columns = p->weight.columns;
    float row[2048];
    dm_weight tail = dm_weight_rows(&p->weight, 2, p->weight.rows - 2);
    for (size_t i = 0; i < tail.rows; i++) {
        double magnitude;
        double expected = exact_dot(p->decoded + (i + 2) * columns, p->x, columns, &magnitude);
        dm_weight_row(row, &tail, i);
        assert_memory_equal(row, p->decoded + (i + 2) * columns, columns * sizeof *row);
        assert_true(fabs(dm_weight_dot(&tail, i, p->x) - expected) <= 1e-6 * magnitude + 1e-6);
    }
}

static void test_products(void **state) {
    (void)state;
    enum { ROWS = 37, MOST = 20 };
    const size_t widths[] = {32, 96, 256, 544, 1280};
    for (int f = 0; f < N_FORMATS; f++) {
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            size_t columns = widths[w];
            if (columns % formats[f].weights != 0) {
                continue;
            }
            size_t blocks = ROWS * columns / formats[f].weights;
            uint8_t *bytes = dm_alloc(blocks, formats[f].bytes);
            float *floats =
                dm_alloc(2 * ROWS * columns + 2 * MOST * columns + dm_linear_scratch(columns, MOST, 1), sizeof(float));
            product p = {.format = &formats[f],
                         .weight = {.data = bytes, .type = formats[f].type, .rows = ROWS, .columns = columns}};
            p.decoded = floats;
            p.x = p.decoded + ROWS * columns;
            p.bias = p.x + MOST * columns;
            p.y = p.bias + ROWS;
            p.scratch = p.y + (size_t)MOST * ROWS;
            fill(&formats[f], bytes, blocks);
            dm_type_decoder(formats[f].number)(p.decoded, bytes, ROWS * columns);
            for (size_t i = 0; i < MOST * columns + ROWS; i++) {
                p.x[i] = (float)dm_random_normal(&source);
            }
            for (size_t m = 1; m <= MOST; m += m < 7 ? 1 : 6) {
                check_linear(&p, m);
            }
            check_rows(&p);
            dm_free(bytes);
            dm_free(floats);
        }
    }
}

static int set_up(void **state) {
    (void)state;
    dm_random_seed(&source, 11);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_any_bits),
        cmocka_unit_test(test_products),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
