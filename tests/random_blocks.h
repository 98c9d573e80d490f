/* Random weights in blocks of any type that has panels. */
#ifndef DM_TEST_RANDOM_BLOCKS_H
#define DM_TEST_RANDOM_BLOCKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/block_types.h"
#include "kernels/half.h"

/* Blocks of random bits whose halves are small numbers; dm_free() them. */
static inline uint8_t *random_blocks(dm_random *random, dm_type type, size_t rows, size_t columns) {
    uint32_t width, bytes;
    assert_true(dm_type_block(type, &width, &bytes));
    size_t blocks = rows * columns / width;
    uint8_t *data = dm_alloc(blocks, bytes);
    for (size_t i = 0; i < blocks * bytes; i++) {
        data[i] = (uint8_t)dm_random_next(random);
    }
    for (size_t b = 0; b < blocks; b++) {
        /* where each type keeps its halves: at the front, but for Q2_K (the last 4 bytes), Q3_K and Q6_K (the last 2) */
        size_t at = type == DM_TYPE_Q2_K ? bytes - 4 : type == DM_TYPE_Q3_K || type == DM_TYPE_Q6_K ? bytes - 2 : 0;
        size_t halves =
            type == DM_TYPE_Q2_K || type == DM_TYPE_Q4_1 || type == DM_TYPE_Q5_1 || type == DM_TYPE_Q4_K || type == DM_TYPE_Q5_K
                ? 2
                : 1;
        for (size_t i = 0; i < halves; i++) {
            uint16_t half = dm_f16_bits((float)dm_random_normal(random) * 0.01f);
            memcpy(data + b * bytes + at + 2 * i, &half, 2);
        }
    }
    return data;
}

#endif
