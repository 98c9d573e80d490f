/* The tables behind dm_quantized(), one per source file. Which of them exist depends on the processor family built for. */
#ifndef DM_KERNELS_QUANTIZED_TABLES_H
#define DM_KERNELS_QUANTIZED_TABLES_H

#include "kernels/quantized.h"

extern const dm_quantized_table dm_quantized_scalar;
#if defined(__x86_64__)
extern const dm_quantized_table dm_quantized_avx2;
extern const dm_quantized_table dm_quantized_avx512; /* with VNNI */
#elif defined(__aarch64__)
extern const dm_quantized_table dm_quantized_neon; /* with dot products */
#endif

#endif
