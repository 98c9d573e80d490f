/* Tensors of mixed-width panels as a GGUF file is written: their sizes are known from their plans, their bytes are made one
 * matrix at a time. */
#ifndef DM_QUANTIZATION_MIXED_WRITER_H
#define DM_QUANTIZATION_MIXED_WRITER_H

#include "model/gguf.h"
#include "quantization/mixed_encode.h"

/* Puts all panels of matrix number `matrix`, which was laid out. */
typedef dm_status (*dm_mixed_fill_fn)(void *user, size_t matrix, void *out);

typedef struct dm_mixed_writer dm_mixed_writer;

/* Of one tensor: `matrices` plans, those of a stack's experts or one. The plans, and the widths that they point to, stay the
 * caller's until dm_mixed_writer_free(). DM_ERR_ARGUMENT as dm_mixed_bytes() has it. */
dm_status dm_mixed_writer_create(const dm_mixed_plan *plans, size_t matrices, dm_mixed_fill_fn fill, void *user,
                                 dm_mixed_writer **out);
/* NULL is fine. */
void dm_mixed_writer_free(dm_mixed_writer *it);
uint64_t dm_mixed_writer_bytes(const dm_mixed_writer *it);

/* Adds the tensor, whose bytes are made when the file is; such a file also needs DM_KEY_FORMAT and an alignment of
 * DM_MIXED_ALIGNMENT or more. */
void dm_mixed_writer_add(dm_mixed_writer *it, dm_gguf_writer *writer, const char *name);

#endif
