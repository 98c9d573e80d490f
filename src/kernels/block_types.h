/*
 * The types of tensors in GGUF files: what each is called, how many weights and
 * bytes a block of it has, and how a row of blocks becomes float32. The layout
 * of the blocks is in block_layouts.h.
 */
#ifndef DM_KERNELS_BLOCK_TYPES_H
#define DM_KERNELS_BLOCK_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbered as in files. */
typedef enum dm_type {
    DM_TYPE_F32 = 0,
    DM_TYPE_F16 = 1,
    DM_TYPE_Q4_0 = 2,
    DM_TYPE_Q4_1 = 3,
    DM_TYPE_Q5_0 = 6,
    DM_TYPE_Q5_1 = 7,
    DM_TYPE_Q8_0 = 8,
    DM_TYPE_Q8_1 = 9,
    DM_TYPE_Q2_K = 10,
    DM_TYPE_Q3_K = 11,
    DM_TYPE_Q4_K = 12,
    DM_TYPE_Q5_K = 13,
    DM_TYPE_Q6_K = 14,
    DM_TYPE_Q8_K = 15,
    DM_TYPE_IQ2_XXS = 16,
    DM_TYPE_IQ2_XS = 17,
    DM_TYPE_IQ3_XXS = 18,
    DM_TYPE_IQ1_S = 19,
    DM_TYPE_IQ4_NL = 20,
    DM_TYPE_IQ3_S = 21,
    DM_TYPE_IQ2_S = 22,
    DM_TYPE_IQ4_XS = 23,
    DM_TYPE_I8 = 24,
    DM_TYPE_I16 = 25,
    DM_TYPE_I32 = 26,
    DM_TYPE_I64 = 27,
    DM_TYPE_F64 = 28,
    DM_TYPE_IQ1_M = 29,
    DM_TYPE_BF16 = 30,
    DM_TYPE_TQ1_0 = 34,
    DM_TYPE_TQ2_0 = 35,
    DM_TYPE_MXFP4 = 39,
    DM_TYPE_MIXED = 1000, /* of no file: a matrix of kernels/mixed_panels.h, which lies in a tensor of I8 */
} dm_type;

enum {
    DM_TYPES = 40,      /* numbers of files are below this */
    DM_MAX_BLOCK = 256, /* weights; every block size divides it */
};

/* Name ("F32", "Q4_K", ...), or NULL for a number that is no known type. */
const char *dm_type_name(uint32_t type);
/* Weights per block and bytes per block; false for an unknown type. */
bool dm_type_block(uint32_t type, uint32_t *weights, uint32_t *bytes);
/* Bytes of n weights of a known type, n whole blocks. */
size_t dm_type_bytes(dm_type type, size_t n);

/* The type of a name in upper or lower case, "q4_k" or "Q4_K", that can be decoded; false if there is none. */
bool dm_type_from_name(const char *name, dm_type *out);
/* "F32, F16, Q4_0, ...": the types that can be decoded, for messages. */
const char *dm_type_names(void);

/* y [n] = the weights of n / block size blocks; n is whole blocks. Blocks lie at even addresses. Any bytes may be decoded:
 * they give some numbers, which may be infinite or no numbers at all. */
typedef void (*dm_decode_fn)(float *y, const void *blocks, size_t n);
/* NULL for a type that is known by name and size only, and for unknown ones. */
dm_decode_fn dm_type_decoder(uint32_t type);

#endif
