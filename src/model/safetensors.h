/*
 * Safetensors, in which Hugging Face keeps weights: eight bytes with the length of a JSON header, the header, the data. A
 * model is one file or several with an index. Read as mapped files of which nothing is believed unchecked.
 */
#ifndef DM_MODEL_SAFETENSORS_H
#define DM_MODEL_SAFETENSORS_H

#include "model/gguf.h"

/* One tensor; its shape in GGUF's order, the last of the file's dimensions first. */
typedef struct dm_safetensor {
    dm_gguf_tensor tensor; /* data may lie at any address; type means something only if `known` */
    char dtype[16];        /* as the file calls it */
    bool known;            /* F32, F16 or BF16 */
} dm_safetensor;

typedef struct dm_safetensors dm_safetensors;

/* Opens one file. Every offset, size and shape is checked: tensors fill the data without gap or overlap. */
dm_status dm_safetensors_open(const char *path, dm_safetensors **out);
/* Opens model.safetensors of a folder, or all files of model.safetensors.index.json, as one. */
dm_status dm_safetensors_open_folder(const char *folder, dm_safetensors **out);
void dm_safetensors_close(dm_safetensors *file);

size_t dm_safetensors_count(const dm_safetensors *file);
const dm_safetensor *dm_safetensors_at(const dm_safetensors *file, size_t index);
/* NULL if there is none of that name; *index, unless NULL, is its number. */
const dm_safetensor *dm_safetensors_find(const dm_safetensors *file, const char *name, size_t *index);
/* The file that a tensor lies in. */
const char *dm_safetensors_path(const dm_safetensors *file, size_t index);

/* ---- Writing ---- */

/* A tensor to be written; its bytes come from `maker`, in pieces and in order. */
typedef struct dm_safetensor_plan {
    char name[128];
    dm_type type; /* F32, F16 or BF16 */
    uint32_t n_dims;
    uint64_t dims[DM_MAX_DIMS]; /* GGUF's order */
    uint64_t elements, bytes;
    dm_gguf_maker maker;
    void *user;
} dm_safetensor_plan;

/* Writes a file atomically, its data in the order of the plans. */
dm_status dm_safetensors_write(const char *path, const dm_safetensor_plan *plans, size_t n);

#endif
