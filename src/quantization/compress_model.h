/* A model as the compression game sees it: which of its tensors are matrices in it, and what their errors cost. */
#ifndef DM_QUANTIZATION_COMPRESS_MODEL_H
#define DM_QUANTIZATION_COMPRESS_MODEL_H

#include "quantization/calibration.h"
#include "quantization/compress_matrix.h"
#include "quantization/convert.h"

/* One tensor of the file. */
typedef struct dm_compress_target {
    const dm_tensor_spec *spec;
    const dm_tensor *tensor;
    size_t first, matrices; /* of the tensor */
    bool plays;             /* its tiles are in the market */
    bool kept;              /* copied as it is; else made into panels */
    dm_converted copied;    /* of one that is kept */
    size_t panels, units;   /* of each matrix */
    size_t tile;            /* number of its first one in all widths */
} dm_compress_target;

typedef struct dm_compress_model {
    const dm_compress_options *options;
    dm_model *model;
    dm_calibration *calibration; /* or NULL */
    dm_tensor_spec *specs;
    size_t count;
    const dm_tensor_spec **order; /* [count] of a file laid out for streaming, or NULL */
    dm_compress_target *targets;  /* [count] */
    dm_conversion conversion;
    size_t tiles, playing; /* of all targets; those of the market come first */
    dm_level_tables tables;
    uint64_t done, total; /* weights that were gone through and are to be */
} dm_compress_model;

/* Opens `from` and lists its tensors; to be closed in any case. */
dm_status dm_compress_model_open(dm_compress_model *it, const char *from, const dm_compress_options *options);
void dm_compress_model_close(dm_compress_model *it);

/* What is told to the caller of one matrix of a target, but for what became of it. */
dm_compress_matrix dm_compress_matrix_of(const dm_compress_target *t, size_t matrix);

/* Bytes of tensors that are asked for; where bits are asked for of those alone that play, of these. DM_ERR_ARGUMENT where the
 * whole file has room for none. */
dm_status dm_compress_budget(const dm_compress_model *it, uint64_t *bytes);
/* Bits of the token embedding where the budget is so many bytes. */
unsigned dm_compress_embedding_bits(const dm_compress_model *it, uint64_t budget);

/* Bytes that stay whatever is decided: of tensors that are copied; of the file besides its tensors, at most. */
uint64_t dm_compress_copied_bytes(const dm_compress_model *it);
uint64_t dm_compress_overhead(const dm_compress_model *it);
/* Those of all tensors as they are. */
uint64_t dm_compress_bytes_in(const dm_compress_model *it);

/* Number of the first tile of a target's matrix. */
static inline size_t dm_compress_tile(const dm_compress_target *t, size_t matrix) {
    return t->tile + matrix * t->panels * t->units;
}

/* What a matrix's errors cost, as the method sees it. task->d and what the moments hold are the task's; `neighbours` may be NULL.
 */
dm_status dm_compress_task_open(dm_compress_model *it, const dm_compress_target *t, size_t matrix,
                                const dm_neighbour_choice *neighbours, dm_compress_task *task);
void dm_compress_task_close(dm_compress_task *task);

/* Goes through the matrices of a target with an open task of each, and tells how far it is. DM_ERR_INTERRUPTED after
 * dm_interrupt(). */
typedef dm_status (*dm_compress_each_fn)(void *user, size_t target, size_t matrix, const dm_compress_task *task);
dm_status dm_compress_each_of(dm_compress_model *it, size_t target, const dm_neighbour_choice *neighbours, dm_compress_each_fn fn,
                              void *user);
/* Those of all targets that are not kept, or only of those that play. */
typedef enum dm_compress_which { DM_COMPRESS_ALL, DM_COMPRESS_PLAYING } dm_compress_which;
dm_status dm_compress_each(dm_compress_model *it, dm_compress_which which, const dm_neighbour_choice *neighbours,
                           dm_compress_each_fn fn, void *user);
/* Tells that so many weights are done. */
void dm_compress_progress(dm_compress_model *it, uint64_t weights);
/* Weights that it goes through. */
uint64_t dm_compress_weights(const dm_compress_model *it, dm_compress_which which);

#endif
