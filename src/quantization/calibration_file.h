/*
 * Files of statistics: the parts that a calibration leaves while it works, and the whole that they become. All are GGUF files of
 * one kind, described to the byte in docs/compression.md.
 */
#ifndef DM_QUANTIZATION_CALIBRATION_FILE_H
#define DM_QUANTIZATION_CALIBRATION_FILE_H

#include "model/gguf.h"
#include "quantization/calibration_slopes.h"
#include "quantization/calibration_sums.h"

/* What statistics are of. */
typedef struct dm_calibration_origin {
    uint64_t model;   /* its fingerprint */
    uint64_t text;    /* a hash of the tokens in their windows */
    uint64_t tokens;  /* in all windows */
    uint64_t windows; /* the text has */
} dm_calibration_origin;

/* A part: the sums of some slots over the first `done` windows. */
dm_status dm_calibration_write_sums(const char *path, const dm_calibration_origin *origin, const dm_calibration_sums *sums,
                                    uint64_t done);
/* Reads it into sums of the same slots. DM_ERR_ARGUMENT where it is of another origin or of other slots. */
dm_status dm_calibration_read_sums(const char *path, const dm_calibration_origin *origin, const dm_calibration_sums *sums,
                                   uint64_t *done);

/* The same for slopes found by `method`, which counts in `done` how far it is. */
dm_status dm_calibration_write_slopes(const char *path, const dm_calibration_origin *origin, const dm_calibration_slopes *slopes,
                                      const char *method, uint64_t done);
dm_status dm_calibration_read_slopes(const char *path, const dm_calibration_origin *origin, const dm_calibration_slopes *slopes,
                                     const char *method, uint64_t *done);

/* Puts n parts, which are of all slots in order, and slopes (NULL: none) into one file. */
dm_status dm_calibration_merge(const dm_config *config, const dm_calibration_origin *origin, const char *const *parts, size_t n,
                               const char *slopes, const char *out);

/* DM_ERR_ARGUMENT where a file, whole or part, is of another origin. */
dm_status dm_calibration_check_origin(const char *path, const dm_calibration_origin *origin);

/* Names of the tensors of a slot, and of a layer's slopes of a role. */
void dm_calibration_product_name(const dm_calibration_slot *slot, char *out, size_t size);
void dm_calibration_slope_name(int32_t layer, dm_role role, char *out, size_t size);

/* ---- Reading ---- */

/* Opens a file of this kind and this version, or fails saying what it is. */
dm_status dm_calibration_file_open(const char *path, dm_gguf **out);
/* An array of `count` numbers of 8 bytes, all at least 0 and finite where they are floating: copied to `out`. */
dm_status dm_calibration_numbers(const dm_gguf *file, const char *key, dm_gguf_kind kind, uint64_t count, void *out);
/* A tensor of float32 with these dimensions. */
dm_status dm_calibration_tensor(const dm_gguf *file, const char *name, uint64_t dim0, uint64_t dim1, const float **out);
/* DM_ERR_FORMAT, naming the tensor, unless all n numbers are finite and, with `least`, at least 0. */
dm_status dm_calibration_check(const dm_gguf *file, const char *name, const float *numbers, uint64_t n, bool least);

#define DM_CALIBRATION_KEY "dilmodeli.calibration."
enum { DM_CALIBRATION_VERSION = 1 };

#endif
