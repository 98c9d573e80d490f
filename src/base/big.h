/*
 * Whole numbers of any length, for arithmetic without rounding. The digits (limbs of 64 bits, lowest first) lie in memory of the
 * caller, who knows how long numbers can get; each function says how many limbs its result may need.
 */
#ifndef DM_BASE_BIG_H
#define DM_BASE_BIG_H

#include <stddef.h>
#include <stdint.h>

typedef struct dm_big {
    uint64_t *limbs; /* the caller's; [count] are in use, the highest of them not 0 */
    uint32_t count;
    int32_t sign; /* -1, 0 or 1; 0 exactly where count is 0 */
} dm_big;

/* 1 limb. */
void dm_big_set(dm_big *out, int64_t value);
/* a.count limbs. */
void dm_big_copy(dm_big *out, const dm_big *a);
/* a.count + b.count limbs; `out` is neither a nor b. */
void dm_big_multiply(dm_big *out, const dm_big *a, const dm_big *b);
/* a *= factor, of a.count + 1 limbs. */
void dm_big_multiply_small(dm_big *a, uint64_t factor);
/* a /= divisor towards 0; returns the remainder of the absolute value. */
uint64_t dm_big_divide_small(dm_big *a, uint64_t divisor);
/* a -= b, of one limb more than the longer. */
void dm_big_subtract(dm_big *a, const dm_big *b);
/* Sign of a - b. */
int dm_big_compare(const dm_big *a, const dm_big *b);
/* a / b to a unit of the last place or two, rising with a; b is not 0. */
double dm_big_ratio(const dm_big *a, const dm_big *b);
/* Length of the absolute value. */
size_t dm_big_bits(const dm_big *a);

/* A positive number that others are divided by without remainder: its odd part, and what is needed beside it. */
typedef struct dm_big_divisor {
    dm_big odd;       /* as many limbs as the number */
    uint64_t inverse; /* of the odd part's lowest limb, modulo 2^64 */
    uint32_t shift;   /* trailing zero bits of the number */
} dm_big_divisor;

/* divisor->odd.limbs is the caller's memory. */
void dm_big_prepare(dm_big_divisor *divisor, const dm_big *value);
/* a /= the divisor, which is known to divide it: from the lowest limb up (Jebelean 1993). */
void dm_big_divide_exact(dm_big *a, const dm_big_divisor *divisor);

#endif
