/* What the parts of the GGUF reader share: how an open file is held in memory. */
#ifndef DM_MODEL_GGUF_INTERNAL_H
#define DM_MODEL_GGUF_INTERNAL_H

#include "model/gguf.h"

#define DM_GGUF_ALIGNMENT_KEY "general.alignment"
#define DM_GGUF_DEFAULT_ALIGNMENT 32u
#define DM_GGUF_SPLIT_PREFIX "split." /* of the keys of a file that is part of a model */

typedef struct gguf_value {
    char *key; /* owned */
    dm_gguf_kind kind;
    uint32_t element;    /* kind of an array's elements */
    uint64_t count;      /* of an array's elements; a string's length */
    const uint8_t *data; /* first element, a string's bytes, or the number; unaligned */
    const uint8_t *raw;  /* the value as stored, after its kind ... */
    size_t raw_size;     /* ... bytes of it */
} gguf_value;

/* Open addressing over the names of an array of entries; slots hold an index plus one, 0 is free. */
typedef struct gguf_index {
    uint32_t *slots;
    size_t mask; /* slots - 1 */
} gguf_index;

struct dm_gguf {
    char *path;
    dm_map map;
    uint32_t version;
    gguf_value *values;
    size_t n_values;
    dm_gguf_tensor *tensors; /* their names owned */
    size_t n_tensors;
    gguf_index value_index, tensor_index;
    dm_gguf **parts; /* of a split model: the files after the first, whose tensors are among `tensors` */
    size_t n_parts;
    uint64_t hash_seed; /* differs from file to file, so that no file can be made of colliding names */
};

/* dm_gguf_open() of one file, whatever it says of others. */
dm_status dm_gguf_open_part(const char *path, dm_gguf **out);
/* Makes the index of tensors anew; DM_ERR_FORMAT when one is there twice. */
dm_status dm_gguf_index_tensors(dm_gguf *file);

/* NULL if there is none of that key. */
const gguf_value *dm_gguf_find_value(const dm_gguf *file, const char *key);

#endif
