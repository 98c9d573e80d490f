/*
 * The blocks of GGUF's quantized types, byte by byte. A block holds small
 * integers q and what turns them into weights; d, m, dmin are halves.
 *
 * Blocks of 32 weights: x = d q, or x = d q + m. Of nibbles, the low ones are
 * weights 0 .. 15, the high ones 16 .. 31.
 *
 * Blocks of 256 (those named K, and IQ4_XS) are 8 groups of 32 or 16 groups of
 * 16 weights, and each group has a scale of a few bits:
 *   x = d scale q - dmin min   (Q2_K, Q4_K, Q5_K)
 *   x = d scale q              (Q3_K, Q6_K, IQ4_XS)
 */
#ifndef DM_KERNELS_BLOCK_LAYOUTS_H
#define DM_KERNELS_BLOCK_LAYOUTS_H

#include <stdint.h>

typedef struct dm_block_q4_0 { /* q 0 .. 15 stands for q - 8 */
    uint16_t d;
    uint8_t nibbles[16];
} dm_block_q4_0;

typedef struct dm_block_q4_1 {
    uint16_t d, m;
    uint8_t nibbles[16];
} dm_block_q4_1;

typedef struct dm_block_q5_0 { /* q 0 .. 31 stands for q - 16; bit i of the little-endian 32 in `fifth` is weight i's */
    uint16_t d;
    uint8_t fifth[4];
    uint8_t nibbles[16];
} dm_block_q5_0;

typedef struct dm_block_q5_1 {
    uint16_t d, m;
    uint8_t fifth[4];
    uint8_t nibbles[16];
} dm_block_q5_1;

typedef struct dm_block_q8_0 {
    uint16_t d;
    int8_t q[32];
} dm_block_q8_0;

typedef struct dm_block_iq4_nl { /* nibbles index dm_iq4_values */
    uint16_t d;
    uint8_t nibbles[16];
} dm_block_iq4_nl;

/* 16 groups of 16. Weight 128 h + 32 k + l (h < 2, k < 4, l < 32) is bits 2 k, 2 k + 1 of pairs[32 h + l]. */
typedef struct dm_block_q2_k {
    uint8_t scales[16]; /* low nibble scale, high nibble min */
    uint8_t pairs[64];
    uint16_t d, dmin;
} dm_block_q2_k;

/* The same order of weights; q = pair - 4 where bit 4 h + k of high[l] is clear, the pair where it is set. */
typedef struct dm_block_q3_k {
    uint8_t high[32];
    uint8_t pairs[64];
    uint8_t scales[12]; /* 16 of 6 bits, each standing for scale - 32: dm_q3_k_scale() */
    uint16_t d;
} dm_block_q3_k;

/* 8 groups of 32. Group 2 g is the low, 2 g + 1 the high nibbles of nibbles[32 g ...]. */
typedef struct dm_block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12]; /* 8 scales and 8 mins of 6 bits: dm_q4_k_scale(), dm_q4_k_min() */
    uint8_t nibbles[128];
} dm_block_q4_k;

/* The same, and bit g of fifth[l] is weight l's of group g. */
typedef struct dm_block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t fifth[32];
    uint8_t nibbles[128];
} dm_block_q5_k;

/* 16 groups of 16; q 0 .. 63 stands for q - 32. Weight 128 h + 32 k + l: its low 4 bits are in low[64 h + 32 (k % 2) + l],
 * the low nibble for k < 2, else the high one; bits 2 k, 2 k + 1 of high[32 h + l] are the others. */
typedef struct dm_block_q6_k {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t d;
} dm_block_q6_k;

/* 8 groups of 32, each 16 bytes: low nibbles, then high ones. */
typedef struct dm_block_iq4_xs {
    uint16_t d;
    uint16_t scales_high;  /* two bits a group */
    uint8_t scales_low[4]; /* a nibble a group; together they stand for scale - 32 */
    uint8_t nibbles[128];
} dm_block_iq4_xs;

_Static_assert(sizeof(dm_block_q4_0) == 18 && sizeof(dm_block_q4_1) == 20 && sizeof(dm_block_q5_0) == 22 &&
                   sizeof(dm_block_q5_1) == 24 && sizeof(dm_block_q8_0) == 34 && sizeof(dm_block_iq4_nl) == 18 &&
                   sizeof(dm_block_q2_k) == 84 && sizeof(dm_block_q3_k) == 110 && sizeof(dm_block_q4_k) == 144 &&
                   sizeof(dm_block_q5_k) == 176 && sizeof(dm_block_q6_k) == 210 && sizeof(dm_block_iq4_xs) == 136,
               "blocks lie in files without padding");

/* What the nibbles of IQ4_NL and IQ4_XS stand for. */
extern const int8_t dm_iq4_values[16];

/* Scale and min of group j of Q4_K and Q5_K: groups 0 .. 3 have bytes of their own, whose top two bits belong to 4 .. 7. */
static inline int dm_q4_k_scale(const uint8_t scales[12], int j) {
    return j < 4 ? scales[j] & 63 : (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4;
}

static inline int dm_q4_k_min(const uint8_t scales[12], int j) {
    return j < 4 ? scales[j + 4] & 63 : scales[j + 4] >> 4 | (scales[j] >> 6) << 4;
}

/* Scale of group j of Q3_K, -32 .. 31: 16 low nibbles, then the top two bits of groups i, i + 4, i + 8, i + 12 in a byte. */
static inline int dm_q3_k_scale(const uint8_t scales[12], int j) {
    int low = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4;
    return (low | (scales[8 + j % 4] >> (2 * (j / 4)) & 3) << 4) - 32;
}

/* Scale of group j of IQ4_XS, -32 .. 31. */
static inline int dm_iq4_xs_scale(const dm_block_iq4_xs *block, int j) {
    int low = block->scales_low[j / 2] >> (4 * (j % 2)) & 15;
    return (low | (block->scales_high >> (2 * j) & 3) << 4) - 32;
}

#endif
