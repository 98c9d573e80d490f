/*
 * The inputs whose moments calibration measures. Matrices that share an input share a slot: queries, keys and values; gate and
 * up. Routers have none: they are never compressed.
 */
#ifndef DM_QUANTIZATION_CALIBRATION_SLOTS_H
#define DM_QUANTIZATION_CALIBRATION_SLOTS_H

#include "model/config.h"

/* Slots come layer by layer, and last that of the output projection. A slot's role is the one that dm_observation gives it. */
typedef struct dm_calibration_slot {
    int32_t layer; /* -1: the output projection's */
    dm_role role;
    int32_t expert; /* -1 but for the roles of experts */
    size_t columns;
} dm_calibration_slot;

size_t dm_calibration_slots(const dm_config *config);
dm_calibration_slot dm_calibration_slot_at(const dm_config *config, size_t index);
/* The slot of a matrix of any role; SIZE_MAX where there is none. */
size_t dm_calibration_slot_of(const dm_config *config, int32_t layer, dm_role role, int32_t expert);

/* Numbers of the lower triangle of a matrix [columns, columns]. */
static inline uint64_t dm_calibration_triangle(size_t columns) {
    return (uint64_t)columns * (columns + 1) / 2;
}

/* Rows of a matrix of this role (one expert's); 0 where the model has none. */
size_t dm_calibration_rows(const dm_config *config, dm_role role);

/* "blk.3.attn_q" and so on: a tensor's name in a GGUF file without the ".weight", experts' as those of a stack, without the
 * expert's number. Roles that have slots only. */
void dm_calibration_name(int32_t layer, dm_role role, char *out, size_t size);
/* The other way, from a name of `length` bytes. False for names of nothing that has a slot in this model. */
bool dm_calibration_parse(const dm_config *config, const char *name, size_t length, int32_t *layer, dm_role *role);

#endif
