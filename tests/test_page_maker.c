/* Pages that are made before anybody needs them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/page_maker.h"
#include "base/pages.h"

enum { BYTES = 24 << 20, MOST_PAGES = BYTES / 4096 };

/* Pages of data[bytes] that are there; both are multiples of a page. */
static size_t pages_of(void *data, size_t bytes) {
    static unsigned char there[MOST_PAGES];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t n = 0;
    assert_int_equal(mincore(data, bytes, there), 0);
    for (size_t i = 0; i < bytes / page; i++) {
        n += there[i] & 1;
    }
    return n;
}

/* Until all of them are there, however long that takes. */
static void wait_for(void *data, size_t bytes) {
    const struct timespec moment = {.tv_nsec = 1000000};
    while (pages_of(data, bytes) < bytes / (size_t)sysconf(_SC_PAGESIZE)) {
        nanosleep(&moment, NULL);
    }
}

static bool system_can(void) {
    dm_pages one;
    assert_int_equal(dm_pages_map(1, &one), DM_OK);
    const bool can = dm_pages_make(one.data, 1);
    dm_pages_unmap(&one);
    return can;
}

static void pages_are_there_before_they_are_touched(void **state) {
    (void)state;
    dm_pages memory;
    if (!system_can()) {
        skip();
    }
    dm_set_huge_pages(false); /* so that nothing comes but what is asked for */
    assert_int_equal(dm_pages_map(BYTES, &memory), DM_OK);
    assert_int_equal(pages_of(memory.data, BYTES), 0);
    const dm_stretch stretches[] = {{memory.data + (16 << 20), 8 << 20}, {memory.data, 3 << 20}};
    dm_page_maker *maker = dm_page_maker_start(stretches, 2);
    assert_non_null(maker);
    memset(memory.data, 7, 1 << 20); /* meanwhile somebody writes */
    wait_for(stretches[0].data, stretches[0].bytes);
    wait_for(stretches[1].data, stretches[1].bytes);
    dm_page_maker_stop(maker);
    assert_int_equal(pages_of(memory.data + (3 << 20), 13 << 20), 0);
    for (size_t i = 0; i < BYTES; i += 512) {
        assert_int_equal(memory.data[i], i < 1 << 20 ? 7 : 0);
    }
    dm_set_huge_pages(true);
    dm_pages_unmap(&memory);
}

static void a_part_of_a_page_is_a_page(void **state) {
    (void)state;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    dm_pages memory;
    if (!system_can()) {
        skip();
    }
    dm_set_huge_pages(false);
    assert_int_equal(dm_pages_map(BYTES, &memory), DM_OK);
    assert_true(dm_pages_make(memory.data + page - 1, 2));
    assert_int_equal(pages_of(memory.data, BYTES), 2);
    dm_set_huge_pages(true);
    dm_pages_unmap(&memory);
}

static void it_ends_wherever_it_is(void **state) {
    (void)state;
    dm_pages memory;
    dm_page_maker_stop(NULL);
    dm_page_maker_stop(dm_page_maker_start(NULL, 0));
    for (int i = 0; i < 50; i++) {
        assert_int_equal(dm_pages_map(BYTES, &memory), DM_OK);
        const dm_stretch all = {memory.data, BYTES};
        dm_page_maker_stop(dm_page_maker_start(&all, 1));
        dm_pages_unmap(&memory);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_there_before_they_are_touched),
        cmocka_unit_test(a_part_of_a_page_is_a_page),
        cmocka_unit_test(it_ends_wherever_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
