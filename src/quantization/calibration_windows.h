/* Which pieces of a text calibration reads. */
#ifndef DM_QUANTIZATION_CALIBRATION_WINDOWS_H
#define DM_QUANTIZATION_CALIBRATION_WINDOWS_H

#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

typedef struct dm_calibration_windows {
    const int32_t *ids; /* [n] the text; borrowed */
    size_t n;
    int32_t bos;   /* what a window that does not begin the text has instead of its first token; -1: nothing */
    size_t length; /* of every window but the last one of a text that is read whole */
    size_t count;
    size_t *starts; /* [count] ascending */
} dm_calibration_windows;

/* Windows of `length` tokens that hold `tokens` tokens together, spread evenly over the text, each at a place in its share of the
 * text that `seed` draws; or the whole text where it is no longer. On success free *out with dm_calibration_windows_free(). */
dm_status dm_calibration_windows_create(const int32_t *ids, size_t n, int32_t bos, size_t length, uint64_t tokens, uint64_t seed,
                                        dm_calibration_windows *out);
void dm_calibration_windows_free(dm_calibration_windows *windows);

/* The length of windows asked for, 0: 512; at most the model's context. */
size_t dm_calibration_context(const dm_model *model, int32_t asked);

/* Tokens of window number `index`, which go to ids [windows->length] unless that is NULL. */
size_t dm_calibration_window(const dm_calibration_windows *windows, size_t index, int32_t *ids);
/* Tokens in all windows, and a hash of them. */
uint64_t dm_calibration_windows_tokens(const dm_calibration_windows *windows);
dm_status dm_calibration_windows_hash(const dm_calibration_windows *windows, uint64_t *hash);

#endif
