#include "quantization/compat_codes.h"

#include "kernels/block_layouts.h"
#include "kernels/half.h"

const dm_type dm_compat_types[DM_COMPAT_TYPES] = {DM_TYPE_Q2_K, DM_TYPE_Q3_K, DM_TYPE_IQ4_XS, DM_TYPE_IQ4_NL,
                                                  DM_TYPE_Q4_0, DM_TYPE_Q4_K, DM_TYPE_Q4_1,   DM_TYPE_Q5_0,
                                                  DM_TYPE_Q5_K, DM_TYPE_Q5_1, DM_TYPE_Q6_K,   DM_TYPE_Q8_0};

/* ---- What codes stand for ---- */

static dm_compat_grid k_grid(uint16_t d, uint16_t dmin, int scale, int min, int codes) {
    return (dm_compat_grid){dm_f16_value(d) * (float)scale, -dm_f16_value(dmin) * (float)min, codes, 0, NULL};
}

static dm_compat_grid q2_k_grid(const dm_block_q2_k *b, size_t i) {
    return k_grid(b->d, b->dmin, b->scales[i / 16] & 15, b->scales[i / 16] >> 4, 4);
}

static dm_compat_grid q3_k_grid(const dm_block_q3_k *b, size_t i) {
    const int g = (int)(i / 16);
    return (dm_compat_grid){dm_f16_value(b->d) * (float)dm_q3_k_scale(b->scales, g), 0.0f, 8, -4, NULL};
}

static dm_compat_grid q4_k_grid(const dm_block_q4_k *b, size_t i) {
    const int g = (int)(i / 32);
    return k_grid(b->d, b->dmin, dm_q4_k_scale(b->scales, g), dm_q4_k_min(b->scales, g), 16);
}

static dm_compat_grid q5_k_grid(const dm_block_q5_k *b, size_t i) {
    const int g = (int)(i / 32);
    return k_grid(b->d, b->dmin, dm_q4_k_scale(b->scales, g), dm_q4_k_min(b->scales, g), 32);
}

static dm_compat_grid q6_k_grid(const dm_block_q6_k *b, size_t i) {
    const size_t group = i / 16;
    return (dm_compat_grid){dm_f16_value(b->d) * (float)b->scales[group], 0.0f, 64, -32, NULL};
}

static dm_compat_grid iq4_xs_grid(const dm_block_iq4_xs *b, size_t i) {
    const int g = (int)(i / 32);
    return (dm_compat_grid){dm_f16_value(b->d) * (float)dm_iq4_xs_scale(b, g), 0.0f, 16, 0, dm_iq4_values};
}

/* Blocks of 32 begin with d, and those that have one go on with m. */
static dm_compat_grid small_grid(const uint16_t *halves, bool has_m, int codes, int low, const int8_t *levels) {
    return (dm_compat_grid){dm_f16_value(halves[0]), has_m ? dm_f16_value(halves[1]) : 0.0f, codes, low, levels};
}

dm_compat_grid dm_compat_grid_of(dm_type type, const void *block, size_t i) {
    switch (type) {
    case DM_TYPE_Q2_K:
        return q2_k_grid(block, i);
    case DM_TYPE_Q3_K:
        return q3_k_grid(block, i);
    case DM_TYPE_Q4_K:
        return q4_k_grid(block, i);
    case DM_TYPE_Q5_K:
        return q5_k_grid(block, i);
    case DM_TYPE_Q6_K:
        return q6_k_grid(block, i);
    case DM_TYPE_IQ4_XS:
        return iq4_xs_grid(block, i);
    case DM_TYPE_IQ4_NL:
        return small_grid(block, false, 16, 0, dm_iq4_values);
    case DM_TYPE_Q4_0:
        return small_grid(block, false, 16, -8, NULL);
    case DM_TYPE_Q4_1:
        return small_grid(block, true, 16, 0, NULL);
    case DM_TYPE_Q5_0:
        return small_grid(block, false, 32, -16, NULL);
    case DM_TYPE_Q5_1:
        return small_grid(block, true, 32, 0, NULL);
    default: /* Q8_0, whose encoder leaves out -128 */
        return small_grid(block, false, 255, -127, NULL);
    }
}

/* ---- Setting them ---- */

/* Bits at .. at + n - 1 of a byte. */
static void put(uint8_t *byte, unsigned at, unsigned n, unsigned value) {
    const unsigned mask = ((1u << n) - 1u) << at;
    *byte = (uint8_t)((*byte & ~mask) | ((value << at) & mask));
}

/* Low nibbles are weights 0 .. 15, high ones 16 .. 31. */
static void put_nibble(uint8_t *nibbles, size_t i, unsigned value) {
    put(&nibbles[i % 16], i < 16 ? 0 : 4, 4, value);
}

static void put_fifth(uint8_t *fifth, size_t i, unsigned value) {
    put(&fifth[i / 8], (unsigned)(i % 8), 1, value >> 4);
}

/* Q4_K's and Q5_K's: groups of 32 in turn low and high nibbles. */
static void put_group_nibble(uint8_t *nibbles, size_t i, unsigned value) {
    put(&nibbles[32 * (i / 64) + i % 32], i / 32 % 2 == 0 ? 0 : 4, 4, value);
}

static void put_pair(uint8_t *pairs, size_t i, unsigned value) {
    put(&pairs[32 * (i / 128) + i % 32], 2 * (unsigned)(i / 32 % 4), 2, value);
}

static void set_q3_k(dm_block_q3_k *b, size_t i, unsigned code) {
    put_pair(b->pairs, i, code & 3u);
    put(&b->high[i % 32], (unsigned)(i / 32), 1, code >> 2);
}

static void set_q5_k(dm_block_q5_k *b, size_t i, unsigned code) {
    put_group_nibble(b->nibbles, i, code & 15u);
    put(&b->fifth[i % 32], (unsigned)(i / 32), 1, code >> 4);
}

static void set_q6_k(dm_block_q6_k *b, size_t i, unsigned code) {
    const size_t h = i / 128, k = i / 32 % 4;
    put(&b->low[64 * h + 32 * (k % 2) + i % 32], k < 2 ? 0 : 4, 4, code & 15u);
    put(&b->high[32 * h + i % 32], 2 * (unsigned)k, 2, code >> 4);
}

static void set_q5_0(dm_block_q5_0 *b, size_t i, unsigned code) {
    put_nibble(b->nibbles, i, code & 15u);
    put_fifth(b->fifth, i, code);
}

static void set_q5_1(dm_block_q5_1 *b, size_t i, unsigned code) {
    put_nibble(b->nibbles, i, code & 15u);
    put_fifth(b->fifth, i, code);
}

void dm_compat_set_code(dm_type type, void *block, size_t i, int code) {
    const unsigned c = (unsigned)code;
    switch (type) {
    case DM_TYPE_Q2_K:
        put_pair(((dm_block_q2_k *)block)->pairs, i, c);
        break;
    case DM_TYPE_Q3_K:
        set_q3_k(block, i, c);
        break;
    case DM_TYPE_Q4_K:
        put_group_nibble(((dm_block_q4_k *)block)->nibbles, i, c);
        break;
    case DM_TYPE_Q5_K:
        set_q5_k(block, i, c);
        break;
    case DM_TYPE_Q6_K:
        set_q6_k(block, i, c);
        break;
    case DM_TYPE_IQ4_XS:
        put_nibble(((dm_block_iq4_xs *)block)->nibbles + 16 * (i / 32), i % 32, c);
        break;
    case DM_TYPE_IQ4_NL:
    case DM_TYPE_Q4_0:
        put_nibble(((dm_block_q4_0 *)block)->nibbles, i, c); /* both are d and nibbles */
        break;
    case DM_TYPE_Q4_1:
        put_nibble(((dm_block_q4_1 *)block)->nibbles, i, c);
        break;
    case DM_TYPE_Q5_0:
        set_q5_0(block, i, c);
        break;
    case DM_TYPE_Q5_1:
        set_q5_1(block, i, c);
        break;
    default:
        ((dm_block_q8_0 *)block)->q[i] = (int8_t)(code - 127);
    }
}

int dm_compat_nearest(const dm_compat_grid *grid, float x) {
    const float level = (x - grid->m) / grid->d;
    if (!(level == level) || grid->d == 0.0f) {
        return grid->levels != NULL ? grid->codes / 2 : -grid->low; /* all are the same, or nothing is wanted */
    }
    if (grid->levels == NULL) {
        const float code = level - (float)grid->low;
        return code <= 0.0f ? 0 : code >= (float)(grid->codes - 1) ? grid->codes - 1 : (int)(code + 0.5f);
    }
    int c = 0;
    while (c + 1 < grid->codes && level > 0.5f * ((float)grid->levels[c] + (float)grid->levels[c + 1])) {
        c++;
    }
    return c;
}
