/* Whole numbers of any length, by identities that hold for all of them and against 128-bit arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/big.h"
#include "base/random.h"

enum { LIMBS = 24, ROOM = 2 * LIMBS + 3 };

typedef struct number {
    uint64_t limbs[ROOM];
    dm_big big;
} number;

static number *zero(number *n) {
    n->big = (dm_big){n->limbs, 0, 0};
    return n;
}

/* Any sign and length, with runs of bits that make carries and borrows long. */
static void draw(dm_random *random, number *out) {
    zero(out)->big.count = (uint32_t)(dm_random_next(random) % LIMBS);
    for (uint32_t i = 0; i < out->big.count; i++) {
        uint64_t what = dm_random_next(random) % 4;
        out->limbs[i] = what == 0 ? 0 : what == 1 ? UINT64_MAX : dm_random_next(random);
    }
    while (out->big.count > 0 && out->limbs[out->big.count - 1] == 0) {
        out->big.count--;
    }
    out->big.sign = out->big.count == 0 ? 0 : dm_random_next(random) % 2 == 0 ? 1 : -1;
}

static void assert_same(const dm_big *a, const dm_big *b) {
    assert_int_equal(dm_big_compare(a, b), 0);
    assert_int_equal(a->sign, b->sign);
    assert_int_equal(a->count, b->count);
}

/* a * b - a * c = a * (b - c), and what was multiplied can be divided by again. */
static void products_and_quotients(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 1);
    number a, b, c, ab, ac, odd;
    dm_big_divisor divisor = {.odd = zero(&odd)->big};
    for (int round = 0; round < 20000; round++) {
        draw(&random, &a);
        draw(&random, &b);
        draw(&random, &c);
        dm_big_multiply(&zero(&ab)->big, &a.big, &b.big);
        dm_big_multiply(&zero(&ac)->big, &a.big, &c.big);
        dm_big_subtract(&ab.big, &ac.big);
        dm_big_subtract(&b.big, &c.big);
        dm_big_multiply(&ac.big, &a.big, &b.big);
        assert_same(&ab.big, &ac.big);
        if (a.big.sign > 0) {
            dm_big_prepare(&divisor, &a.big);
            dm_big_divide_exact(&ab.big, &divisor);
            assert_same(&ab.big, &b.big);
        }
    }
}

static void small_factors(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 2);
    number a, b, rest;
    for (int round = 0; round < 5000; round++) {
        draw(&random, &a);
        uint64_t factor = 1 + dm_random_next(&random) % (UINT64_MAX / 2);
        dm_big_copy(&zero(&b)->big, &a.big);
        dm_big_multiply_small(&b.big, factor);
        dm_big_set(&zero(&rest)->big, -(int64_t)(factor - 1));
        rest.big.sign *= a.big.sign >= 0 ? 1 : -1;
        dm_big_subtract(&b.big, &rest.big); /* farther from 0 by factor - 1, which is the remainder */
        assert_true(dm_big_divide_small(&b.big, factor) == factor - 1);
        assert_same(&a.big, &b.big);
    }
}

static void order_length_and_ratio(void **state) {
    (void)state;
    number a, b;
    dm_random random;
    dm_random_seed(&random, 3);
    for (int round = 0; round < 5000; round++) {
        int64_t x = (int64_t)dm_random_next(&random) >> dm_random_next(&random) % 64;
        int64_t y = (int64_t)dm_random_next(&random) >> dm_random_next(&random) % 64;
        dm_big_set(&zero(&a)->big, x);
        dm_big_set(&zero(&b)->big, y);
        assert_int_equal(dm_big_compare(&a.big, &b.big), (x > y) - (x < y));
        if (y != 0) {
            double ratio = (double)x / (double)y;
            assert_true(fabs(dm_big_ratio(&a.big, &b.big) - ratio) <= 1e-15 * fabs(ratio));
        }
    }
    dm_big_set(&a.big, 3);
    for (int i = 0; i < 1000; i++) {
        dm_big_multiply_small(&a.big, 2);
    }
    assert_int_equal(dm_big_bits(&a.big), 1002);
    dm_big_set(&b.big, 1);
    for (int i = 0; i < 1001; i++) {
        dm_big_multiply_small(&b.big, 2);
    }
    assert_true(dm_big_ratio(&a.big, &b.big) == 1.5);
    dm_big_set(&a.big, 0);
    assert_int_equal(dm_big_bits(&a.big), 0);
    assert_true(dm_big_ratio(&a.big, &b.big) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_and_quotients),
        cmocka_unit_test(small_factors),
        cmocka_unit_test(order_length_and_ratio),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
