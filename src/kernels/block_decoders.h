/* The decoders that the table in block_types.c is made of; call them through dm_type_decoder(). */
#ifndef DM_KERNELS_BLOCK_DECODERS_H
#define DM_KERNELS_BLOCK_DECODERS_H

#include <stddef.h>

/* decode_blocks.c */
void dm_decode_q4_0(float *y, const void *blocks, size_t n);
void dm_decode_q4_1(float *y, const void *blocks, size_t n);
void dm_decode_q5_0(float *y, const void *blocks, size_t n);
void dm_decode_q5_1(float *y, const void *blocks, size_t n);
void dm_decode_q8_0(float *y, const void *blocks, size_t n);
void dm_decode_iq4_nl(float *y, const void *blocks, size_t n);
void dm_decode_iq4_xs(float *y, const void *blocks, size_t n);

/* decode_k_blocks.c */
void dm_decode_q2_k(float *y, const void *blocks, size_t n);
void dm_decode_q3_k(float *y, const void *blocks, size_t n);
void dm_decode_q4_k(float *y, const void *blocks, size_t n);
void dm_decode_q5_k(float *y, const void *blocks, size_t n);
void dm_decode_q6_k(float *y, const void *blocks, size_t n);

#endif
