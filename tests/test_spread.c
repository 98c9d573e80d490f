/* Medians of measurements. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/spread.h"

static void the_middle_is_found(void **state) {
    (void)state;
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2}, one[] = {-5}, equal[] = {7, 7, 7, 7};
    dm_spread spread = dm_spread_of(odd, 3);
    assert_true(spread.least == 1 && spread.median == 2 && spread.most == 3);
    spread = dm_spread_of(even, 4);
    assert_true(spread.least == 1 && spread.median == 2.5 && spread.most == 4);
    spread = dm_spread_of(one, 1);
    assert_true(spread.least == -5 && spread.median == -5 && spread.most == -5);
    spread = dm_spread_of(equal, 4);
    assert_true(spread.least == 7 && spread.median == 7 && spread.most == 7);
}

static void nothing_has_no_median(void **state) {
    (void)state;
    double none[1] = {0};
    const dm_spread spread = dm_spread_of(none, 0);
    assert_true(isnan(spread.least) && isnan(spread.median) && isnan(spread.most));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_middle_is_found),
        cmocka_unit_test(nothing_has_no_median),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
