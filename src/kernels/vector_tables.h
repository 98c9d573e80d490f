/* The tables behind dm_vector(), one per source file. Which of them exist depends on the processor family built for. */
#ifndef DM_KERNELS_VECTOR_TABLES_H
#define DM_KERNELS_VECTOR_TABLES_H

#include "kernels/vector.h"

extern const dm_vector_table dm_vector_scalar;
#if defined(__x86_64__)
extern const dm_vector_table dm_vector_avx2;
extern const dm_vector_table dm_vector_avx512;
#elif defined(__aarch64__)
extern const dm_vector_table dm_vector_neon;
#endif

#endif
