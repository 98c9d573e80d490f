/* What the processor can do and the system lets this process use, asked once. */
#ifndef DM_KERNELS_PROCESSOR_H
#define DM_KERNELS_PROCESSOR_H

#include <stdbool.h>

typedef struct dm_processor {
    bool avx2;        /* with FMA and F16C */
    bool avx512;      /* F, BW, DQ, VL, and what avx2 says */
    bool avx512_vnni; /* int8 dot products */
    bool avx512_vbmi; /* permutations of bytes */
    bool avx512_bf16; /* bfloat16 dot products and conversions */
    bool amx_bf16;    /* tile registers, bfloat16 */
    bool amx_int8;    /* tile registers, int8 */
    bool neon;
    bool dotprod; /* int8 dot products */
} dm_processor;

/* The features of the machine, less those above what the environment variable DILMODELI_ISA names ("scalar", "avx2",
 * "avx512" without the tiles). */
const dm_processor *dm_processor_features(void);

/* False where DILMODELI_ISA names something that does not run here; *wanted is then what it says. */
bool dm_processor_request_met(const char **wanted);

#endif
