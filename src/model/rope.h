/* Rotary positions (Su et al. 2021) with the ways that models reach past their trained context. */
#ifndef DM_MODEL_ROPE_H
#define DM_MODEL_ROPE_H

#include "model/config.h"

typedef struct dm_rope {
    dm_rope_kind kind;
    size_t half;         /* frequencies; 2 * half numbers of a head turn */
    double *frequencies; /* [half] radians per position, the caller's memory */
    float magnitude;     /* multiplies cosines and sines: YaRN's attention factor */
} dm_rope;

/* Fills rope->frequencies [dm_config_rope_dims() / 2] and the rest. `factors` divides each frequency, or is NULL.
 * DM_ERR_FORMAT when a factor is not a positive number. */
dm_status dm_rope_init(const dm_config *config, const float *factors, double *frequencies, dm_rope *rope);

/* Floats of one position's table. */
size_t dm_rope_table_size(const dm_rope *rope);
/* The table of a position: angles in double, as positions may be large. */
void dm_rope_table(const dm_rope *rope, int32_t position, float *table);
/* Turns n_heads heads, `stride` floats apart, in place. */
void dm_rope_turn(const dm_rope *rope, const float *table, float *heads, size_t n_heads, size_t stride);

#endif
