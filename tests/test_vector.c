/*
 * Every table of row operations this machine runs, and the 16-lane one, beside
 * the scalar table, finite differences and exact rounding.
 *
 * Rows end where a page begins that may be neither read nor written, so one
 * element too far is a crash; what lies before a row must stay as it was.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dilmodeli.h"
#include "kernels/vector_tables.h"
#include "vector_lanes16.h"
#include "vector_operations.h"

enum { MAX_N = 4099, GUARD = 64, MAX_TABLES = 5 };

static unsigned char *slot_end[MAX_ROWS]; /* one past each row's last byte: the forbidden page */
static const dm_vector_table *tables[MAX_TABLES];
static size_t n_tables;
static dm_random source;

static int set_up(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (2 * MAX_N * sizeof(float) + GUARD + page - 1) / page * page + page;
    for (int i = 0; i < MAX_ROWS; i++) {
        unsigned char *slot = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slot == MAP_FAILED || mprotect(slot + room, page, PROT_NONE) != 0) {
            return -1;
        }
        slot_end[i] = slot + room;
    }
    const dm_vector_table *found[4];
    size_t n_found = dm_vector_tables(found);
    for (size_t i = 0; i < n_found; i++) {
        tables[n_tables++] = found[i];
    }
#if defined(__x86_64__)
    if (n_found > 1) {
        tables[n_tables++] = &dm_vector_lanes16;
    }
#else
    tables[n_tables++] = &dm_vector_lanes16;
#endif
    dm_random_seed(&source, 7);
    return 0;
}

/* `size` bytes that end `gap` bytes before the forbidden page, with a guard in front. */
static void *row(int slot, size_t size, size_t gap) {
    unsigned char *start = slot_end[slot] - gap - size;
    memset(start - GUARD, 0xa5, GUARD);
    return start;
}

static bool guard_intact(const void *start) {
    for (int i = 1; i <= GUARD; i++) {
        if (((const unsigned char *)start)[-i] != 0xa5) {
            return false;
        }
    }
    return true;
}

static bool close_to(double got, double want, double tolerance) {
    if (isnan(want) || isnan(got)) {
        return isnan(want) && isnan(got);
    }
    return got == want || fabs(got - want) <= tolerance;
}

static float normal(void) {
    return (float)dm_random_normal(&source);
}

/* ---- Every entry against the scalar table ---- */

/* The first difference in a row, as a message; false when there is none. */
static bool differs(const void *got, const void *want, char kind, size_t n, double tolerance, char *message, size_t room) {
    if (kind == 'h' || kind == 'b') {
        for (size_t i = 0; i < n; i++) {
            unsigned g = ((const uint16_t *)got)[i], w = ((const uint16_t *)want)[i];
            if (g != w) {
                snprintf(message, room, "element %zu: 0x%04x, expected 0x%04x", i, g, w);
                return true;
            }
        }
        return false;
    }
    size_t count = kind == 'F' ? 2 * n : n;
    for (size_t i = 0; i < count; i++) {
        float g = ((const float *)got)[i], w = ((const float *)want)[i];
        if (!close_to(g, w, tolerance * (1 + fabs((double)w)))) {
            snprintf(message, room, "element %zu: %.9g, expected %.9g", i, (double)g, (double)w);
            return true;
        }
    }
    return false;
}

/* One operation at one length: the table's rows in the guarded slots, the scalar table's in plain copies. */
static void compare(const dm_vector_table *table, const operation *op, size_t n, size_t gap) {
    static float copies[MAX_ROWS][2 * MAX_N];
    call got = {.n = n, .a = normal(), .b = normal(), .result = {0, 0}}, want = got;
    int rows = (int)strlen(op->kinds);
    for (int i = 0; i < rows; i++) {
        size_t size = row_bytes(op->kinds[i], n);
        got.row[i] = row(i, size, gap);
        want.row[i] = copies[i];
        fill_row(got.row[i], op->kinds[i], n, &source);
        memcpy(copies[i], got.row[i], size);
    }
    op->run(&dm_vector_scalar, &want);
    op->run(table, &got);
    char message[128];
    for (int i = 0; i < rows; i++) {
        if (differs(got.row[i], want.row[i], op->kinds[i], n, op->tolerance, message, sizeof message)) {
            fail_msg("%s, %s, n = %zu, row %d, %s", table->isa, op->name, n, i, message);
        }
        if (!guard_intact(got.row[i])) {
            fail_msg("%s, %s, n = %zu: wrote before row %d", table->isa, op->name, n, i);
        }
    }
    for (int i = 0; i < 2; i++) {
        double tolerance = op->tolerance * (1 + sqrt((double)n)) * (1 + fabs(want.result[i]));
        if (!close_to(got.result[i], want.result[i], tolerance)) {
            fail_msg("%s, %s, n = %zu: returned %.9g, expected %.9g", table->isa, op->name, n, got.result[i], want.result[i]);
        }
    }
}

static void test_entries_agree_with_scalar(void **state) {
    (void)state;
    static const size_t long_ones[] = {127, 128, 129, 255, 511, 1000, 1023, 2049, MAX_N};
    for (size_t t = 0; t < n_tables; t++) {
        for (size_t o = 0; o < n_operations; o++) {
            for (size_t n = operations[o].least_n; n <= 70; n++) {
                compare(tables[t], &operations[o], n, 0);
            }
            for (size_t i = 0; i < sizeof long_ones / sizeof *long_ones; i++) {
                compare(tables[t], &operations[o], long_ones[i], 4 * (i % 8));
            }
        }
    }
}

/* A result may depend on the table and n, never on where the rows lie. */
static void test_alignment_changes_no_bit(void **state) {
    (void)state;
    static float first[MAX_ROWS][2 * MAX_N];
    for (size_t t = 0; t < n_tables; t++) {
        for (size_t o = 0; o < n_operations; o++) {
            const operation *op = &operations[o];
            size_t n = 1 + dm_random_next(&source) % 300;
            int rows = (int)strlen(op->kinds);
            call base = {.n = n, .a = normal(), .b = normal(), .result = {0, 0}};
            for (int i = 0; i < rows; i++) {
                base.row[i] = first[i];
                fill_row(first[i], op->kinds[i], n, &source);
            }
            call moved = base;
            for (int i = 0; i < rows; i++) {
                size_t size = row_bytes(op->kinds[i], n);
                moved.row[i] = row(i, size, 4 * (size_t)(i % 4));
                memcpy(moved.row[i], first[i], size);
            }
            op->run(tables[t], &base);
            op->run(tables[t], &moved);
            assert_memory_equal(base.result, moved.result, sizeof base.result);
            for (int i = 0; i < rows; i++) {
                assert_memory_equal(base.row[i], moved.row[i], row_bytes(op->kinds[i], n));
            }
        }
    }
}

/* ---- Special values ---- */

static const float specials[] = {0.0f,     -0.0f,   INFINITY, -INFINITY, NAN,     0x1p-149f, -0x1p-149f, 0x1.8p-130f, FLT_MIN,
                                 -FLT_MIN, FLT_MAX, -FLT_MAX, 1e30f,     -1e30f,  1e13f,     -1e13f,     88.0f,       88.72f,
                                 88.73f,   -86.0f,  -87.5f,   -88.0f,    -104.0f, -1000.0f,  13.0f,      -13.0f,      1.0f};
enum { N_SPECIALS = sizeof specials / sizeof *specials };

/* Of the same kind (NaN, infinite, finite) and, if finite, equal but for results below 1e-35. */
static void expect_special(const char *isa, const char *what, float x, float got, float want) {
    if (!close_to(got, want, 4e-7 * fabs((double)want) + 1e-35)) {
        fail_msg("%s, %s of %g: %g, expected %g", isa, what, (double)x, (double)got, (double)want);
    }
}

static void test_special_values(void **state) {
    (void)state;
    float ones[N_SPECIALS], got[3][N_SPECIALS], want[3][N_SPECIALS];
    for (int i = 0; i < N_SPECIALS; i++) {
        ones[i] = 1.0f;
    }
    for (size_t t = 0; t < n_tables; t++) {
        const dm_vector_table *pair[2] = {tables[t], &dm_vector_scalar};
        float(*results[2])[N_SPECIALS] = {got, want};
        for (int p = 0; p < 2; p++) {
            memcpy(results[p][0], specials, sizeof specials);
            pair[p]->exp_sum(results[p][0], 1.0f, 0.0f, N_SPECIALS);
            pair[p]->swiglu(results[p][1], specials, ones, N_SPECIALS);
            pair[p]->gelu(results[p][2], specials, N_SPECIALS);
        }
        for (int i = 0; i < N_SPECIALS; i++) {
            expect_special(tables[t]->isa, "exp", specials[i], got[0][i], want[0][i]);
            expect_special(tables[t]->isa, "silu", specials[i], got[1][i], want[1][i]);
            expect_special(tables[t]->isa, "gelu", specials[i], got[2][i], want[2][i]);
        }
        for (int p = 0; p < 2; p++) {
            pair[p]->swiglu_backward(results[p][0], results[p][1], NULL, ones, specials, ones, N_SPECIALS);
            pair[p]->gelu_backward(results[p][2], ones, specials, N_SPECIALS);
        }
        for (int i = 0; i < N_SPECIALS; i++) {
            expect_special(tables[t]->isa, "silu's slope", specials[i], got[0][i], want[0][i]);
            expect_special(tables[t]->isa, "silu again", specials[i], got[1][i], want[1][i]);
            expect_special(tables[t]->isa, "gelu's slope", specials[i], got[2][i], want[2][i]);
        }
    }
}

static void test_masked_softmax(void **state) {
    (void)state;
    for (size_t t = 0; t < n_tables; t++) {
        float x[19];
        for (int i = 0; i < 19; i++) {
            x[i] = i < 7 ? (float)i * 100.0f : -INFINITY;
        }
        float logsum = tables[t]->softmax(x, 19);
        assert_true(logsum == 600.0f);
        for (int i = 0; i < 19; i++) {
            assert_true(i == 6 ? x[i] == 1.0f : fabsf(x[i]) < 1e-40f);
        }
        assert_true(tables[t]->max(x, 0) == -INFINITY);
    }
}

/* ---- Half precision, all of it ---- */

static double half_value(unsigned bits, int exponent_bits, int mantissa_bits) {
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
    int bias = (1 << (exponent_bits - 1)) - 1;
    double mantissa = bits & ((1u << mantissa_bits) - 1);
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) {
        return mantissa != 0 ? NAN : sign * INFINITY;
    }
    if (exponent == 0) {
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    }
    return sign * ldexp(mantissa + ldexp(1, mantissa_bits), exponent - bias - mantissa_bits);
}

typedef void widen(float *y, const uint16_t *x, size_t n);
typedef void narrow(uint16_t *y, const float *x, size_t n);

static void check_all_halves(const char *isa, widen *to_f32, narrow *to_half, int exponent_bits, int mantissa_bits) {
    static uint16_t halves[65536], back[65536];
    static float values[65536];
    for (unsigned i = 0; i < 65536; i++) {
        halves[i] = (uint16_t)i;
    }
    to_f32(values, halves, 65536);
    to_half(back, values, 65536);
    for (unsigned i = 0; i < 65536; i++) {
        double want = half_value(i, exponent_bits, mantissa_bits);
        if (isnan(want)) {
            assert_true(isnan(values[i]) && isnan(half_value(back[i], exponent_bits, mantissa_bits)));
        } else if ((double)values[i] != want || back[i] != i || (signbit(values[i]) != 0) != (i >= 0x8000)) {
            fail_msg("%s: half 0x%04x is %.9g, expected %.9g, and goes back to 0x%04x", isa, i, (double)values[i], want, back[i]);
        }
    }
}

/* Between every two neighbours: the middle goes to the even one, one ulp of float32 to either side to the nearer one. Past
 * the largest half the neighbour is infinity, whose bits come next. */
static void check_rounding(const char *isa, narrow *to_half, int exponent_bits, int mantissa_bits) {
    unsigned infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
    double past_largest = ldexp(1, 1 << (exponent_bits - 1));
    for (unsigned low = 0; low < infinity; low++) {
        double next = low + 1 == infinity ? past_largest : half_value(low + 1, exponent_bits, mantissa_bits);
        float middle = (float)((half_value(low, exponent_bits, mantissa_bits) + next) / 2);
        float x[6] = {middle, nextafterf(middle, 0.0f), nextafterf(middle, INFINITY)};
        unsigned want[3] = {low + (low & 1), low, low + 1};
        uint16_t got[6];
        for (int i = 0; i < 3; i++) {
            x[i + 3] = -x[i];
        }
        to_half(got, x, 6);
        for (int i = 0; i < 3; i++) {
            if (got[i] != want[i] || got[i + 3] != (want[i] | 0x8000)) {
                fail_msg("%s: %.9g becomes 0x%04x, expected 0x%04x", isa, (double)x[i], got[i], want[i]);
            }
        }
    }
}

static void test_float16(void **state) {
    (void)state;
    for (size_t t = 0; t < n_tables; t++) {
        check_all_halves(tables[t]->isa, tables[t]->f16_to_f32, tables[t]->f32_to_f16, 5, 10);
        check_rounding(tables[t]->isa, tables[t]->f32_to_f16, 5, 10);
        float beyond[3] = {1e30f, -INFINITY, 0x1p-149f};
        uint16_t halves[3];
        tables[t]->f32_to_f16(halves, beyond, 3);
        assert_int_equal(halves[0], 0x7c00);
        assert_int_equal(halves[1], 0xfc00);
        assert_int_equal(halves[2], 0);
    }
}

static void test_bfloat16(void **state) {
    (void)state;
    for (size_t t = 0; t < n_tables; t++) {
        check_all_halves(tables[t]->isa, tables[t]->bf16_to_f32, tables[t]->f32_to_bf16, 8, 7);
        check_rounding(tables[t]->isa, tables[t]->f32_to_bf16, 8, 7);
        /* NaNs whose upper mantissa bits are clear must not become infinity, nor carry into the sign */
        uint32_t nans[2] = {0x7f800001, 0xffffffff};
        float in[2], rounded[2];
        uint16_t halves[2];
        memcpy(in, nans, sizeof in);
        tables[t]->f32_to_bf16(halves, in, 2);
        tables[t]->round_bf16(rounded, in, 2);
        for (int i = 0; i < 2; i++) {
            assert_true(isnan(rounded[i]) && (halves[i] & 0x7f80) == 0x7f80 && (halves[i] & 0x7f) != 0);
        }
    }
}

/* ---- Accuracy of the elementary functions ---- */

static void test_exp_accuracy(void **state) {
    (void)state;
    enum { BLOCK = 4096 };
    static float x[BLOCK], e[BLOCK];
    for (size_t t = 0; t < n_tables; t++) {
        double worst = 0;
        for (int block = 0; block < 40; block++) {
            for (int i = 0; i < BLOCK; i++) {
                double u = ((double)block * BLOCK + i) / (40.0 * BLOCK);
                /* evenly over the range, then ever closer to zero */
                x[i] = (float)(block % 4 != 0 ? -86.98 + u * (88.72 + 86.98) : (i & 1 ? -1 : 1) * exp2(-30.0 * u));
            }
            memcpy(e, x, sizeof e);
            tables[t]->exp_sum(e, 1.0f, 0.0f, BLOCK);
            for (int i = 0; i < BLOCK; i++) {
                worst = fmax(worst, fabs(e[i] / exp((double)x[i]) - 1));
            }
        }
        print_message("%s: exp within %.3g\n", tables[t]->isa, worst);
        assert_true(worst <= 1.2e-7);
    }
}

static void test_activation_accuracy(void **state) {
    (void)state;
    enum { N = 40001 };
    static float x[N], one[N], silu[N], gelu[N];
    for (int i = 0; i < N; i++) {
        x[i] = -40.0f + 80.0f * (float)i / (float)(N - 1);
        one[i] = 1.0f;
    }
    for (size_t t = 0; t < n_tables; t++) {
        tables[t]->swiglu(silu, x, one, N);
        tables[t]->gelu(gelu, x, N);
        for (int i = 0; i < N; i++) {
            double z = x[i], u = sqrt(2 / M_PI) * (z + 0.044715 * z * z * z);
            double want_silu = z / (1 + exp(-z)), want_gelu = 0.5 * z * (1 + tanh(u));
            assert_true(close_to(silu[i], want_silu, 3e-7 * fabs(want_silu)));
            assert_true(close_to(gelu[i], want_gelu, 3e-7 * fabs(want_gelu) + 1.2e-7 * fabs(z)));
        }
    }
}

/* ---- Backward against finite differences, in double ---- */

enum { N_GRADIENT = 37 };

/* Loss of one layer: sum of dy * layer(inputs), the inputs being rows x, w, b as the layer needs them. */
typedef double loss(const double (*in)[N_GRADIENT], const float *dy);

static double rmsnorm_loss(const double (*in)[N_GRADIENT], const float *dy) {
    double squares = 0, total = 0;
    for (int i = 0; i < N_GRADIENT; i++) {
        squares += in[0][i] * in[0][i];
    }
    double r = 1 / sqrt(squares / N_GRADIENT + 1e-6);
    for (int i = 0; i < N_GRADIENT; i++) {
        total += dy[i] * in[0][i] * r * in[1][i];
    }
    return total;
}

static double layernorm_loss(const double (*in)[N_GRADIENT], const float *dy) {
    double mean = 0, squares = 0, total = 0;
    for (int i = 0; i < N_GRADIENT; i++) {
        mean += in[0][i] / N_GRADIENT;
    }
    for (int i = 0; i < N_GRADIENT; i++) {
        squares += (in[0][i] - mean) * (in[0][i] - mean);
    }
    double r = 1 / sqrt(squares / N_GRADIENT + 1e-5);
    for (int i = 0; i < N_GRADIENT; i++) {
        total += dy[i] * ((in[0][i] - mean) * r * in[1][i] + in[2][i]);
    }
    return total;
}

static double swiglu_loss(const double (*in)[N_GRADIENT], const float *dy) {
    double total = 0;
    for (int i = 0; i < N_GRADIENT; i++) {
        total += dy[i] * in[0][i] / (1 + exp(-in[0][i])) * in[1][i];
    }
    return total;
}

static double gelu_loss(const double (*in)[N_GRADIENT], const float *dy) {
    double total = 0;
    for (int i = 0; i < N_GRADIENT; i++) {
        double x = in[0][i];
        total += dy[i] * 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    }
    return total;
}

static const double attention_scale = 0.3;

static double softmax_loss(const double (*in)[N_GRADIENT], const float *dy) {
    double sum = 0, total = 0;
    for (int i = 0; i < N_GRADIENT; i++) {
        sum += exp(attention_scale * in[0][i]);
    }
    for (int i = 0; i < N_GRADIENT; i++) {
        total += dy[i] * exp(attention_scale * in[0][i]) / sum;
    }
    return total;
}

static void expect_gradient(const char *isa, const char *what, loss *f, double (*in)[N_GRADIENT], const float *dy, int which,
                            const float *gradient) {
    const double h = 1e-5;
    for (int i = 0; i < N_GRADIENT; i++) {
        double kept = in[which][i];
        in[which][i] = kept + h;
        double up = f((const double(*)[N_GRADIENT])in, dy);
        in[which][i] = kept - h;
        double down = f((const double(*)[N_GRADIENT])in, dy);
        in[which][i] = kept;
        double want = (up - down) / (2 * h);
        if (!close_to(gradient[i], want, 3e-6 * (1 + fabs(want)))) {
            fail_msg("%s, %s, gradient of input %d, element %d: %.9g, expected %.9g", isa, what, which, i, (double)gradient[i],
                     want);
        }
    }
}

static void test_backward(void **state) {
    (void)state;
    float x[N_GRADIENT], w[N_GRADIENT], b[N_GRADIENT], y[N_GRADIENT], dy[N_GRADIENT];
    double in[3][N_GRADIENT];
    for (int i = 0; i < N_GRADIENT; i++) {
        in[0][i] = x[i] = 2 * normal();
        in[1][i] = w[i] = normal();
        in[2][i] = b[i] = normal();
        dy[i] = normal();
    }
    for (size_t t = 0; t < n_tables; t++) {
        const dm_vector_table *v = tables[t];
        float g[8][N_GRADIENT] = {{0}};
        float r = v->rmsnorm(y, x, w, 1e-6f, N_GRADIENT), mean;
        v->rmsnorm_backward(g[0], g[1], dy, x, w, r, N_GRADIENT);
        expect_gradient(v->isa, "rmsnorm", rmsnorm_loss, in, dy, 0, g[0]);
        expect_gradient(v->isa, "rmsnorm", rmsnorm_loss, in, dy, 1, g[1]);

        v->layernorm(y, &mean, &r, x, w, b, 1e-5f, N_GRADIENT);
        v->layernorm_backward(g[2], g[3], g[4], dy, x, w, mean, r, N_GRADIENT);
        for (int which = 0; which < 3; which++) {
            expect_gradient(v->isa, "layernorm", layernorm_loss, in, dy, which, g[2 + which]);
        }

        v->swiglu_backward(g[5], g[6], y, dy, x, w, N_GRADIENT);
        expect_gradient(v->isa, "swiglu", swiglu_loss, in, dy, 0, g[5]);
        expect_gradient(v->isa, "swiglu", swiglu_loss, in, dy, 1, g[6]);

        v->gelu_backward(g[7], dy, x, N_GRADIENT);
        expect_gradient(v->isa, "gelu", gelu_loss, in, dy, 0, g[7]);

        float p[N_GRADIENT], ds[N_GRADIENT];
        v->scale(p, (float)attention_scale, x, N_GRADIENT);
        v->softmax(p, N_GRADIENT);
        v->softmax_backward(ds, p, dy, v->dot(p, dy, N_GRADIENT), (float)attention_scale, N_GRADIENT);
        expect_gradient(v->isa, "softmax", softmax_loss, in, dy, 0, ds);
    }
}

/* ---- Rope and AdamW against their definitions ---- */

static void test_rope_turns_and_returns(void **state) {
    (void)state;
    enum { HALF = 19 };
    float cosine[HALF], sine[HALF], x[2 * HALF], kept[2 * HALF];
    for (int i = 0; i < HALF; i++) {
        cosine[i] = (float)cos(0.37 * i);
        sine[i] = (float)sin(0.37 * i);
    }
    for (int i = 0; i < 2 * HALF; i++) {
        kept[i] = normal();
    }
    for (size_t t = 0; t < n_tables; t++) {
        memcpy(x, kept, sizeof x);
        tables[t]->rope(x, cosine, sine, 1.0f, HALF);
        for (int i = 0; i < HALF; i++) {
            double a = kept[i], b = kept[i + HALF];
            assert_true(close_to(x[i], a * cos(0.37 * i) - b * sin(0.37 * i), 1e-6));
            assert_true(close_to(x[i + HALF], b * cos(0.37 * i) + a * sin(0.37 * i), 1e-6));
        }
        tables[t]->rope(x, cosine, sine, -1.0f, HALF);
        for (int i = 0; i < 2 * HALF; i++) {
            assert_true(close_to(x[i], kept[i], 1e-6));
        }
    }
}

static void test_rope_pairs(void **state) {
    (void)state;
    enum { N = 38 };
    float cosine[N], sine[N], x[N], kept[N];
    for (int i = 0; i < N; i += 2) {
        cosine[i] = cosine[i + 1] = (float)cos(0.37 * i);
        sine[i + 1] = (float)sin(0.37 * i);
        sine[i] = -sine[i + 1];
        kept[i] = normal();
        kept[i + 1] = normal();
    }
    for (size_t t = 0; t < n_tables; t++) {
        memcpy(x, kept, sizeof x);
        tables[t]->rope_pairs(x, cosine, sine, N);
        for (int i = 0; i < N; i += 2) {
            double a = kept[i], b = kept[i + 1], angle = 0.37 * i;
            assert_true(close_to(x[i], a * cos(angle) - b * sin(angle), 1e-6));
            assert_true(close_to(x[i + 1], b * cos(angle) + a * sin(angle), 1e-6));
        }
    }
}

/* Rows of `width` numbers as a cache holds them, and the numbers that they stand for. */
enum { CACHE_ROWS = 67, CACHE_WIDEST = 150, CACHE_HEADS = 6 };

static size_t fill_cache(int type, size_t width, uint8_t *rows, double *values) {
    size_t padded = type == 2 ? (width + 31) / 32 * 32 : width;
    size_t at = 0;
    for (size_t j = 0; j < CACHE_ROWS; j++) {
        for (size_t i = 0; i < padded; i++) {
            float x = i < width ? normal() : 0.0f;
            uint16_t half;
            if (type == 0) {
                memcpy(rows + at, &x, sizeof x);
            } else if (type == 1) {
                dm_vector_scalar.f32_to_f16(&half, &x, 1);
                memcpy(rows + at, &half, sizeof half);
                dm_vector_scalar.f16_to_f32(&x, &half, 1);
            } else {
                if (i % 32 == 0) {
                    float scale = 0.01f + 0.001f * (float)((i + j) % 32);
                    dm_vector_scalar.f32_to_f16(&half, &scale, 1);
                    memcpy(rows + at, &half, sizeof half);
                    at += sizeof half;
                }
                float scale;
                dm_vector_scalar.f16_to_f32(&scale, &half, 1);
                int8_t q = (int8_t)(40.0f * x > 127.0f ? 127.0f : 40.0f * x < -127.0f ? -127.0f : 40.0f * x);
                rows[at] = (uint8_t)q;
                x = scale * (float)q;
            }
            at += type == 0 ? 4 : type == 1 ? 2 : 1;
            if (i < width) {
                values[j * width + i] = (double)x;
            }
        }
    }
    return at;
}

static void check_cache_rows(const dm_vector_table *t, int type, const dm_cached_rows *rows, size_t heads, const double *values) {
    enum { LDY = CACHE_WIDEST + 3, LDW = CACHE_ROWS + 2 };
    static float x[CACHE_HEADS * CACHE_WIDEST], y[CACHE_HEADS * LDY], weights[CACHE_HEADS * LDW], dots[CACHE_HEADS * LDW];
    size_t width = rows->width, n = rows->n;
    for (size_t i = 0; i < heads * width; i++) {
        x[i] = normal();
    }
    for (size_t i = 0; i < heads * LDW; i++) {
        weights[i] = normal();
        dots[i] = 7.0f;
    }
    for (size_t i = 0; i < heads * LDY; i++) {
        y[i] = i % LDY < width ? 0.5f : 7.0f;
    }
    (type == 0 ? t->rows_dot_f32 : type == 1 ? t->rows_dot_f16 : t->rows_dot_q8)(dots, LDW, rows, x, heads);
    (type == 0 ? t->rows_sum_f32 : type == 1 ? t->rows_sum_f16 : t->rows_sum_q8)(y, LDY, weights, LDW, rows, heads);
    for (size_t h = 0; h < heads; h++) {
        for (size_t j = 0; j < n; j++) {
            double dot = 0;
            for (size_t i = 0; i < width; i++) {
                dot += values[j * width + i] * (double)x[h * width + i];
            }
            assert_true(fabs((double)dots[h * LDW + j] - dot) < 1e-5 * (1.0 + sqrt((double)width)));
        }
        for (size_t i = 0; i < width; i++) {
            double sum = 0.5;
            for (size_t j = 0; j < n; j++) {
                sum += (double)weights[h * LDW + j] * values[j * width + i];
            }
            assert_true(fabs((double)y[h * LDY + i] - sum) < 1e-5 * (1.0 + sqrt((double)n)));
        }
        assert_true(dots[h * LDW + n] == 7.0f && y[h * LDY + width] == 7.0f); /* not to be touched */
    }
}

static void test_cache_rows(void **state) {
    (void)state;
    static uint8_t rows[4 * CACHE_ROWS * CACHE_WIDEST];
    static double values[CACHE_ROWS * CACHE_WIDEST];
    for (int type = 0; type < 3; type++) {
        for (size_t width = 1; width <= CACHE_WIDEST; width += width < 70 ? 1 : 16) {
            size_t bytes = fill_cache(type, width, rows, values);
            uint8_t *exact = malloc(bytes); /* so that a sanitizer sees a read past the end */
            assert_non_null(exact);
            memcpy(exact, rows, bytes);
            for (size_t n = 1; n <= CACHE_ROWS; n += n < 5 ? 1 : 31) { /* the last of them */
                dm_cached_rows few = {exact + (CACHE_ROWS - n) * (bytes / CACHE_ROWS), n, width, exact};
                for (size_t t = 0; t < n_tables; t++) {
                    check_cache_rows(tables[t], type, &few, 1 + (width + n) % CACHE_HEADS, values + (CACHE_ROWS - n) * width);
                }
            }
            free(exact);
        }
    }
}

static void test_adamw_over_steps(void **state) {
    (void)state;
    enum { N = 21, STEPS = 20 };
    for (size_t t = 0; t < n_tables; t++) {
        float w[N], m[N] = {0}, v[N] = {0}, g[N];
        double dw[N], dm[N] = {0}, dv[N] = {0};
        for (int i = 0; i < N; i++) {
            dw[i] = w[i] = normal();
        }
        for (int step = 1; step <= STEPS; step++) {
            dm_adamw s = {0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, (float)(1 - pow(0.9, step)), (float)(1 - pow(0.95, step)), 0.5f};
            for (int i = 0; i < N; i++) {
                g[i] = i == 3 ? 0.0f : normal(); /* one weight that never sees a gradient only decays */
                double scaled = 0.5 * g[i];
                dm[i] = 0.9 * dm[i] + 0.1 * scaled;
                dv[i] = 0.95 * dv[i] + 0.05 * scaled * scaled;
                dw[i] -= 0.01 * (dm[i] / s.correction1 / (sqrt(dv[i] / s.correction2) + 1e-8) + 0.1 * dw[i]);
            }
            tables[t]->adamw(w, m, v, g, &s, N);
        }
        for (int i = 0; i < N; i++) {
            assert_true(close_to(w[i], dw[i], 3e-6) && close_to(m[i], dm[i], 1e-6) && close_to(v[i], dv[i], 1e-6));
        }
    }
}

/* ---- Choice of the table ---- */

static const char *const wishes[] = {"scalar", "avx2", "avx512", "neon", "z80", ""};
enum { N_WISHES = sizeof wishes / sizeof *wishes };
static char choices[N_WISHES][16]; /* dm_isa() under each wish */

/* Asks in children, since a process chooses once, and before this one has chosen. */
static void ask_children(void) {
    for (int i = 0; i < N_WISHES; i++) {
        int ends[2];
        if (pipe(ends) != 0) {
            continue;
        }
        pid_t child = fork();
        if (child == 0) {
            setenv("DILMODELI_ISA", wishes[i], 1);
            const char *isa = dm_isa();
            _exit(strcmp(isa, dm_vector()->isa) == 0 && write(ends[1], isa, strlen(isa)) > 0 ? 0 : 1);
        }
        int status = -1;
        close(ends[1]);
        if (waitpid(child, &status, 0) != child || status != 0 || read(ends[0], choices[i], sizeof choices[i] - 1) <= 0) {
            choices[i][0] = '\0';
        }
        close(ends[0]);
    }
}

static void test_choice(void **state) {
    (void)state;
    if (getenv("DILMODELI_ISA") != NULL) {
        skip(); /* the tables at hand are then not all that the machine has */
    }
    const dm_vector_table *found[4];
    size_t n = dm_vector_tables(found);
    assert_true(n >= 1);
    assert_string_equal(found[n - 1]->isa, "scalar");
    for (int i = 0; i < N_WISHES; i++) {
        const char *want = found[0]->isa; /* the best, where the wish cannot be met */
        for (size_t t = 0; t < n; t++) {
            want = strcmp(found[t]->isa, wishes[i]) == 0 ? wishes[i] : want;
        }
        assert_string_equal(choices[i], want);
    }
}

int main(void) {
    ask_children();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_entries_agree_with_scalar),
        cmocka_unit_test(test_alignment_changes_no_bit),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_masked_softmax),
        cmocka_unit_test(test_float16),
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_exp_accuracy),
        cmocka_unit_test(test_activation_accuracy),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_rope_turns_and_returns),
        cmocka_unit_test(test_rope_pairs),
        cmocka_unit_test(test_cache_rows),
        cmocka_unit_test(test_adamw_over_steps),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
