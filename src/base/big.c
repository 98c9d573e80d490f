#include "base/big.h"

#include <math.h>
#include <string.h>

typedef unsigned __int128 wide; /* two limbs */

static void trim(dm_big *a) {
    while (a->count > 0 && a->limbs[a->count - 1] == 0) {
        a->count--;
    }
    if (a->count == 0) {
        a->sign = 0;
    }
}

void dm_big_set(dm_big *out, int64_t value) {
    out->sign = (value > 0) - (value < 0);
    out->count = value != 0;
    if (value != 0) {
        out->limbs[0] = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    }
}

void dm_big_copy(dm_big *out, const dm_big *a) {
    memcpy(out->limbs, a->limbs, a->count * sizeof *a->limbs);
    out->count = a->count;
    out->sign = a->sign;
}

void dm_big_multiply(dm_big *out, const dm_big *a, const dm_big *b) {
    out->sign = a->sign * b->sign;
    out->count = out->sign != 0 ? a->count + b->count : 0;
    if (out->sign == 0) {
        return;
    }
    memset(out->limbs, 0, out->count * sizeof *out->limbs);
    for (uint32_t i = 0; i < a->count; i++) {
        uint64_t carry = 0;
        for (uint32_t j = 0; j < b->count; j++) {
            wide sum = (wide)a->limbs[i] * b->limbs[j] + out->limbs[i + j] + carry;
            out->limbs[i + j] = (uint64_t)sum;
            carry = (uint64_t)(sum >> 64);
        }
        out->limbs[i + b->count] = carry;
    }
    trim(out);
}

void dm_big_multiply_small(dm_big *a, uint64_t factor) {
    uint64_t carry = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        wide sum = (wide)a->limbs[i] * factor + carry;
        a->limbs[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    if (carry != 0) {
        a->limbs[a->count++] = carry;
    }
    trim(a);
}

uint64_t dm_big_divide_small(dm_big *a, uint64_t divisor) {
    uint64_t rest = 0;
    for (uint32_t i = a->count; i-- > 0;) {
        wide part = (wide)rest << 64 | a->limbs[i];
        a->limbs[i] = (uint64_t)(part / divisor);
        rest = (uint64_t)(part % divisor);
    }
    trim(a);
    return rest;
}

static int compare_size(const dm_big *a, const dm_big *b) {
    if (a->count != b->count) {
        return a->count < b->count ? -1 : 1;
    }
    for (uint32_t i = a->count; i-- > 0;) {
        if (a->limbs[i] != b->limbs[i]) {
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
        }
    }
    return 0;
}

int dm_big_compare(const dm_big *a, const dm_big *b) {
    if (a->sign != b->sign) {
        return a->sign < b->sign ? -1 : 1;
    }
    return a->sign * compare_size(a, b);
}

/* |a| += |b| */
static void add_size(dm_big *a, const dm_big *b) {
    uint64_t carry = 0;
    for (uint32_t i = 0; i < b->count || carry != 0; i++) {
        if (i == a->count) {
            a->limbs[a->count++] = 0;
        }
        wide sum = (wide)a->limbs[i] + (i < b->count ? b->limbs[i] : 0) + carry;
        a->limbs[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
}

/* out = |large| - |small|; out may be either */
static void subtract_size(dm_big *out, const dm_big *large, const dm_big *small) {
    uint64_t borrow = 0;
    uint32_t count = large->count, few = small->count;
    for (uint32_t i = 0; i < count; i++) {
        wide difference = (wide)large->limbs[i] - (i < few ? small->limbs[i] : 0) - borrow;
        out->limbs[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
    out->count = count;
}

void dm_big_subtract(dm_big *a, const dm_big *b) {
    if (b->sign == 0) {
        return;
    }
    if (a->sign == 0) {
        dm_big_copy(a, b);
        a->sign = -b->sign;
        return;
    }
    if (a->sign != b->sign) {
        add_size(a, b);
        return;
    }
    if (compare_size(a, b) >= 0) {
        subtract_size(a, a, b);
    } else {
        subtract_size(a, b, a);
        a->sign = -a->sign;
    }
    trim(a);
}

/* The highest 64 bits of the absolute value, which is about that * 2^*exponent. What is below is cut, so a larger number never
 * gives less. */
static double leading(const dm_big *a, int *exponent) {
    uint64_t top = a->limbs[a->count - 1];
    int shift = __builtin_clzll(top);
    top <<= shift;
    if (a->count > 1 && shift > 0) {
        top |= a->limbs[a->count - 2] >> (64 - shift);
    }
    *exponent = 64 * ((int)a->count - 1) - shift;
    return (double)top;
}

double dm_big_ratio(const dm_big *a, const dm_big *b) {
    if (a->sign == 0) {
        return 0.0;
    }
    int above, below;
    double ratio = leading(a, &above);
    ratio /= leading(b, &below);
    return a->sign * b->sign * ldexp(ratio, above - below);
}

size_t dm_big_bits(const dm_big *a) {
    return a->count == 0 ? 0 : 64 * (size_t)a->count - (size_t)__builtin_clzll(a->limbs[a->count - 1]);
}

static void shift_right(dm_big *a, uint32_t shift) {
    uint32_t whole = shift / 64, bits = shift % 64;
    a->count = a->count > whole ? a->count - whole : 0;
    for (uint32_t i = 0; i < a->count; i++) {
        uint64_t low = a->limbs[i + whole] >> bits;
        uint64_t high = bits != 0 && i + 1 < a->count ? a->limbs[i + whole + 1] << (64 - bits) : 0;
        a->limbs[i] = low | high;
    }
    trim(a);
}

void dm_big_prepare(dm_big_divisor *divisor, const dm_big *value) {
    dm_big_copy(&divisor->odd, value);
    uint32_t whole = 0;
    while (value->limbs[whole] == 0) {
        whole++;
    }
    divisor->shift = 64 * whole + (uint32_t)__builtin_ctzll(value->limbs[whole]);
    shift_right(&divisor->odd, divisor->shift);
    uint64_t odd = divisor->odd.limbs[0];
    uint64_t inverse = odd; /* right to 3 bits; each step of Newton doubles them */
    for (int i = 0; i < 5; i++) {
        inverse *= 2 - odd * inverse;
    }
    divisor->inverse = inverse;
}

void dm_big_divide_exact(dm_big *a, const dm_big_divisor *divisor) {
    shift_right(a, divisor->shift);
    const dm_big *odd = &divisor->odd;
    if (a->sign == 0 || (odd->count == 1 && odd->limbs[0] == 1)) {
        return;
    }
    uint32_t quotient = a->count - odd->count + 1;
    for (uint32_t i = 0; i < quotient; i++) {
        uint64_t digit = a->limbs[i] * divisor->inverse;
        uint64_t carry = 0;
        for (uint32_t j = 0; j < odd->count && i + j < quotient; j++) { /* what is above comes out as 0 */
            wide product = (wide)digit * odd->limbs[j] + carry;
            uint64_t low = (uint64_t)product;
            carry = (uint64_t)(product >> 64) + (a->limbs[i + j] < low);
            a->limbs[i + j] -= low;
        }
        for (uint32_t j = i + odd->count; carry != 0 && j < quotient; j++) {
            uint64_t old = a->limbs[j];
            a->limbs[j] = old - carry;
            carry = old < carry;
        }
        a->limbs[i] = digit;
    }
    a->count = quotient;
    trim(a);
}
