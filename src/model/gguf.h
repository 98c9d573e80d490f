/*
 * GGUF files, version 3 (and 2): mapped and checked on the way in, written
 * atomically on the way out.
 */
#ifndef DM_MODEL_GGUF_H
#define DM_MODEL_GGUF_H

#include "base/file.h"
#include "base/status.h"
#include "kernels/block_types.h"

#define DM_MAX_DIMS 4

/* dims[0] is the fastest-running one (a row), as GGUF stores it. */
typedef struct dm_gguf_tensor {
    const char *name; /* NUL-terminated, owned by the file */
    dm_type type;
    uint32_t n_dims;
    uint64_t dims[DM_MAX_DIMS]; /* unused ones are 1 */
    uint64_t elements;
    uint64_t bytes;
    const void *data; /* into the map, 32-byte aligned in well-formed files */
} dm_gguf_tensor;

typedef enum dm_gguf_kind {
    DM_GGUF_U8 = 0,
    DM_GGUF_I8 = 1,
    DM_GGUF_U16 = 2,
    DM_GGUF_I16 = 3,
    DM_GGUF_U32 = 4,
    DM_GGUF_I32 = 5,
    DM_GGUF_F32 = 6,
    DM_GGUF_BOOL = 7,
    DM_GGUF_STRING = 8,
    DM_GGUF_ARRAY = 9,
    DM_GGUF_U64 = 10,
    DM_GGUF_I64 = 11,
    DM_GGUF_F64 = 12,
} dm_gguf_kind;

/* Name ("u32", "string", ...), or NULL for a number that is no kind. */
const char *dm_gguf_kind_name(uint32_t kind);
/* Bytes of one value of a fixed-size kind; 0 for strings, arrays and unknown kinds. */
size_t dm_gguf_kind_size(uint32_t kind);

typedef struct dm_gguf_string {
    const char *bytes; /* into the map, NOT NUL-terminated */
    uint64_t length;
} dm_gguf_string;

typedef struct dm_gguf dm_gguf;

/* Opens and checks the whole header: every count, length, offset and size lies
 * within the file, names are unique, tensors do not overlap the header. The
 * message of a failure starts with the path. Allocates no more than a small
 * multiple of the header's own size. A file that is part of a split model
 * (name-00001-of-00003.gguf) opens with all its parts, as one file with the
 * first one's metadata and path. */
dm_status dm_gguf_open(const char *path, dm_gguf **out);
void dm_gguf_close(dm_gguf *file);
const char *dm_gguf_path(const dm_gguf *file);
uint64_t dm_gguf_size(const dm_gguf *file); /* bytes of the file, or of all parts */
/* A number that differs once the size or the time of any of its files has changed. */
uint64_t dm_gguf_stamp(const dm_gguf *file);
uint32_t dm_gguf_version(const dm_gguf *file);

/* One of the files of a model, as it was opened. */
typedef struct dm_gguf_file {
    const char *path;
    const uint8_t *data;     /* its bytes, mapped */
    uint64_t size, modified; /* bytes; nanoseconds since 1970 */
} dm_gguf_file;

size_t dm_gguf_n_files(const dm_gguf *file);
dm_gguf_file dm_gguf_file_at(const dm_gguf *file, size_t number);

size_t dm_gguf_n_tensors(const dm_gguf *file);
const dm_gguf_tensor *dm_gguf_tensor_at(const dm_gguf *file, size_t index);
/* NULL if there is none of that name (constant time). */
const dm_gguf_tensor *dm_gguf_find_tensor(const dm_gguf *file, const char *name);

size_t dm_gguf_n_values(const dm_gguf *file);
/* Key (owned by the file) and kind of metadata value `index`. */
const char *dm_gguf_key_at(const dm_gguf *file, size_t index, dm_gguf_kind *kind);
bool dm_gguf_has(const dm_gguf *file, const char *key);

/* Typed reads of metadata. Any integer kind serves for an integer if the value
 * fits. A missing key or another kind is DM_ERR_FORMAT, saying file, key and
 * what was expected; the _or forms give `fallback` for a missing key only. */
dm_status dm_gguf_get_u32(const dm_gguf *file, const char *key, uint32_t *out);
dm_status dm_gguf_get_u32_or(const dm_gguf *file, const char *key, uint32_t fallback, uint32_t *out);
dm_status dm_gguf_get_u64(const dm_gguf *file, const char *key, uint64_t *out);
dm_status dm_gguf_get_f32(const dm_gguf *file, const char *key, float *out);
dm_status dm_gguf_get_f32_or(const dm_gguf *file, const char *key, float fallback, float *out);
dm_status dm_gguf_get_f64(const dm_gguf *file, const char *key, double *out);
dm_status dm_gguf_get_bool_or(const dm_gguf *file, const char *key, bool fallback, bool *out);
dm_status dm_gguf_get_string(const dm_gguf *file, const char *key, dm_gguf_string *out);
/* Number of elements of an array of any kind. */
dm_status dm_gguf_count(const dm_gguf *file, const char *key, uint64_t *count);
/* Array of fixed-size elements of exactly `kind`; *data points into the map, perhaps unaligned: read it with memcpy. */
dm_status dm_gguf_get_array(const dm_gguf *file, const char *key, dm_gguf_kind kind, const void **data, uint64_t *count);
/* Array of strings; *out (malloc) is the caller's to free(), its bytes lie in the map. */
dm_status dm_gguf_get_strings(const dm_gguf *file, const char *key, dm_gguf_string **out, uint64_t *count);
/* The string as UTF-8 that is safe to print: malformed bytes and control characters become '?', what does not fit is
 * cut between characters. Always terminates `text`. */
void dm_gguf_clean_text(dm_gguf_string string, char *text, size_t size);
/* One value as text for people: numbers, "text", [3 x u32: 1, 2, 3, ...]. Always terminates `text`. */
void dm_gguf_describe(const dm_gguf *file, size_t index, char *text, size_t size);

/* ---- Writing ---- */

typedef struct dm_gguf_writer dm_gguf_writer;

/* Starts a version 3 file. Nothing is on disk before dm_gguf_writer_finish(). A
 * failed add is remembered and reported by finish, so calls need no checks of their own; an array given as NULL is one. */
dm_gguf_writer *dm_gguf_writer_create(void); /* NULL when memory is short */
void dm_gguf_writer_free(dm_gguf_writer *writer);
void dm_gguf_add_u32(dm_gguf_writer *writer, const char *key, uint32_t value);
void dm_gguf_add_u64(dm_gguf_writer *writer, const char *key, uint64_t value);
void dm_gguf_add_f32(dm_gguf_writer *writer, const char *key, float value);
void dm_gguf_add_f64(dm_gguf_writer *writer, const char *key, double value);
void dm_gguf_add_bool(dm_gguf_writer *writer, const char *key, bool value);
void dm_gguf_add_string(dm_gguf_writer *writer, const char *key, const char *value);
/* Elements of a fixed-size kind, copied. */
void dm_gguf_add_array(dm_gguf_writer *writer, const char *key, dm_gguf_kind kind, const void *data, uint64_t count);
void dm_gguf_add_strings(dm_gguf_writer *writer, const char *key, const dm_gguf_string *values, uint64_t count);
/* How experts lie in a file, where they lie in another way than stacked: see model/expert_layout.h. */
#define DM_KEY_LAYOUT "dilmodeli.layout"
/* Copies metadata values of another file whose keys start with `prefix`, but for those that belong to the file they were
 * in: general.alignment, split.* and DM_KEY_LAYOUT. */
void dm_gguf_copy_values(dm_gguf_writer *writer, const dm_gguf *from, const char *prefix);
/* The same without the keys `left_out`, a list that ends with NULL: the caller adds its own. */
void dm_gguf_copy_values_but(dm_gguf_writer *writer, const dm_gguf *from, const char *prefix, const char *const *left_out);
enum { DM_GGUF_MOST_ALIGNMENT = 4096 };
/* Tensors begin at multiples of `alignment` bytes, a power of two from 8 to DM_GGUF_MOST_ALIGNMENT, instead of 32. Adds the
 * key that says so. */
void dm_gguf_set_alignment(dm_gguf_writer *writer, uint32_t alignment);
/* A tensor whose data (of `type`, not converted) must stay valid until finish. */
void dm_gguf_add_tensor(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                        const void *data);
/* The same with data that is float32 in memory and converted while it is written, in pieces; type F32, F16 or BF16. */
void dm_gguf_add_tensor_f32(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                            const float *data);
/* Gives elements [first, first + n) of a tensor as float32. */
typedef dm_status (*dm_gguf_source)(void *user, uint64_t first, size_t n, float *out);
/* The same with data that `source` makes while the file is written, in pieces and in order. */
void dm_gguf_add_tensor_from(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                             dm_gguf_source source, void *user);
enum { DM_GGUF_PIECE = 1 << 19 }; /* most elements asked for at a time; a multiple of every block */
/* Gives elements [first, first + n) of a tensor as bytes of its type; both are whole blocks, n is at most DM_GGUF_PIECE. */
typedef dm_status (*dm_gguf_maker)(void *user, uint64_t first, size_t n, void *out);
/* A tensor of any type whose bytes `maker` gives while the file is written, in pieces and in order. */
void dm_gguf_add_tensor_made(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                             dm_gguf_maker maker, void *user);
/* Writes everything to `path` atomically (dm_replace). The writer is still to be freed. */
dm_status dm_gguf_writer_finish(dm_gguf_writer *writer, const char *path);

#endif
