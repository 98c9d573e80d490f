/* Writing GGUF version 3: metadata is gathered in memory, tensor data goes straight from its source to the file. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/vector.h"
#include "model/gguf_internal.h"

typedef struct planned_tensor {
    char *name;
    dm_type type;
    uint32_t n_dims;
    uint64_t dims[DM_MAX_DIMS];
    uint64_t elements, bytes;
    const void *data;      /* as it is, or: */
    dm_gguf_source source; /* float32, converted on the way; or: */
    dm_gguf_maker maker;   /* bytes as they come */
    void *user;
} planned_tensor;

#define BAD_NAME "cannot be named so, expected 1 to 255 printable ASCII characters"

struct dm_gguf_writer {
    uint8_t *metadata; /* the keys as they will stand in the file */
    size_t size, capacity;
    uint64_t n_values;
    char **keys; /* [n_values], to refuse a second one of a name */
    planned_tensor *tensors;
    size_t n_tensors;
    uint32_t alignment;
    dm_status status; /* of the first add that failed */
    char message[256];
};

dm_gguf_writer *dm_gguf_writer_create(void) {
    dm_gguf_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory starting a GGUF file");
        return NULL;
    }
    writer->alignment = DM_GGUF_DEFAULT_ALIGNMENT;
    return writer;
}

void dm_gguf_writer_free(dm_gguf_writer *writer) {
    if (writer == NULL) {
        return;
    }
    for (uint64_t i = 0; i < writer->n_values; i++) {
        free(writer->keys[i]);
    }
    for (size_t i = 0; i < writer->n_tensors; i++) {
        free(writer->tensors[i].name);
    }
    free(writer->keys);
    free(writer->tensors);
    free(writer->metadata);
    free(writer);
}

/* "the key 'x' was added twice" */
static void remember(dm_gguf_writer *writer, dm_status status, const char *what, const char *name, const char *problem) {
    if (writer->status == DM_OK) {
        writer->status = status;
        snprintf(writer->message, sizeof writer->message, "the %s '%.80s' %s", what, name, problem);
    }
}

/* ---- Metadata ---- */

static bool put_bytes(dm_gguf_writer *writer, const void *bytes, size_t n) {
    size_t wanted;
    if ((bytes == NULL && n != 0) || !dm_add_size(writer->size, n, &wanted)) { /* NULL: a caller had no memory for it */
        return false;
    }
    if (wanted > writer->capacity) {
        size_t capacity = wanted < SIZE_MAX / 2 ? 2 * wanted : wanted;
        uint8_t *moved = realloc(writer->metadata, capacity);
        if (moved == NULL) {
            return false;
        }
        writer->metadata = moved;
        writer->capacity = capacity;
    }
    if (n != 0) {
        memcpy(writer->metadata + writer->size, bytes, n);
    }
    writer->size = wanted;
    return true;
}

static bool put_u32(dm_gguf_writer *writer, uint32_t value) {
    return put_bytes(writer, &value, sizeof value);
}

static bool put_u64(dm_gguf_writer *writer, uint64_t value) {
    return put_bytes(writer, &value, sizeof value);
}

static bool put_text(dm_gguf_writer *writer, const char *bytes, uint64_t length) {
    return put_u64(writer, length) && put_bytes(writer, bytes, (size_t)length);
}

static bool usable_name(const char *name) {
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        if (name[i] < 0x20 || name[i] > 0x7e) {
            return false;
        }
    }
    return length > 0 && length <= 255;
}

/* Starts a value: key and kind. False, remembered, if it cannot be added. */
static bool begin_value(dm_gguf_writer *writer, const char *key, dm_gguf_kind kind) {
    if (writer->status != DM_OK) {
        return false;
    }
    if (!usable_name(key)) {
        remember(writer, DM_ERR_ARGUMENT, "key", key, BAD_NAME);
        return false;
    }
    for (uint64_t i = 0; i < writer->n_values; i++) {
        if (strcmp(writer->keys[i], key) == 0) {
            remember(writer, DM_ERR_ARGUMENT, "key", key, "was added twice");
            return false;
        }
    }
    char *copy = strdup(key);
    char **keys = realloc(writer->keys, (size_t)(writer->n_values + 1) * sizeof *keys);
    writer->keys = keys != NULL ? keys : writer->keys;
    if (copy == NULL || keys == NULL || !put_text(writer, key, strlen(key)) || !put_u32(writer, (uint32_t)kind)) {
        free(copy);
        remember(writer, DM_ERR_MEMORY, "key", key, "found no memory");
        return false;
    }
    writer->keys[writer->n_values++] = copy;
    return true;
}

static void end_value(dm_gguf_writer *writer, const char *key, bool stored) {
    if (!stored) {
        remember(writer, DM_ERR_MEMORY, "key", key, "found no memory");
    }
}

static void add_number(dm_gguf_writer *writer, const char *key, dm_gguf_kind kind, const void *value) {
    if (begin_value(writer, key, kind)) {
        end_value(writer, key, put_bytes(writer, value, dm_gguf_kind_size(kind)));
    }
}

void dm_gguf_add_u32(dm_gguf_writer *writer, const char *key, uint32_t value) {
    add_number(writer, key, DM_GGUF_U32, &value);
}

void dm_gguf_add_u64(dm_gguf_writer *writer, const char *key, uint64_t value) {
    add_number(writer, key, DM_GGUF_U64, &value);
}

void dm_gguf_add_f32(dm_gguf_writer *writer, const char *key, float value) {
    add_number(writer, key, DM_GGUF_F32, &value);
}

void dm_gguf_add_f64(dm_gguf_writer *writer, const char *key, double value) {
    add_number(writer, key, DM_GGUF_F64, &value);
}

void dm_gguf_add_bool(dm_gguf_writer *writer, const char *key, bool value) {
    uint8_t byte = value;
    add_number(writer, key, DM_GGUF_BOOL, &byte);
}

void dm_gguf_add_string(dm_gguf_writer *writer, const char *key, const char *value) {
    if (begin_value(writer, key, DM_GGUF_STRING)) {
        end_value(writer, key, put_text(writer, value, strlen(value)));
    }
}

void dm_gguf_add_array(dm_gguf_writer *writer, const char *key, dm_gguf_kind kind, const void *data, uint64_t count) {
    size_t bytes;
    if (dm_gguf_kind_size(kind) == 0 || !dm_mul_size((size_t)count, dm_gguf_kind_size(kind), &bytes)) {
        remember(writer, DM_ERR_ARGUMENT, "array", key, "has no elements of fixed size, or too many");
    } else if (begin_value(writer, key, DM_GGUF_ARRAY)) {
        end_value(writer, key, put_u32(writer, (uint32_t)kind) && put_u64(writer, count) && put_bytes(writer, data, bytes));
    }
}

void dm_gguf_add_strings(dm_gguf_writer *writer, const char *key, const dm_gguf_string *values, uint64_t count) {
    if (!begin_value(writer, key, DM_GGUF_ARRAY)) {
        return;
    }
    bool stored = (values != NULL || count == 0) && put_u32(writer, DM_GGUF_STRING) && put_u64(writer, count);
    for (uint64_t i = 0; i < count && stored; i++) {
        stored = put_text(writer, values[i].bytes, values[i].length);
    }
    end_value(writer, key, stored);
}

/* True for keys that say something of the file that they are in, rather than of the model. */
static bool of_the_file(const char *key) {
    return strcmp(key, DM_GGUF_ALIGNMENT_KEY) == 0 || strcmp(key, DM_KEY_LAYOUT) == 0 ||
           strncmp(key, DM_GGUF_SPLIT_PREFIX, strlen(DM_GGUF_SPLIT_PREFIX)) == 0;
}

void dm_gguf_copy_values_but(dm_gguf_writer *writer, const dm_gguf *from, const char *prefix, const char *const *left_out) {
    for (size_t i = 0; i < from->n_values; i++) {
        const gguf_value *value = &from->values[i];
        bool copied = strncmp(value->key, prefix, strlen(prefix)) == 0 && !of_the_file(value->key);
        for (size_t k = 0; left_out != NULL && left_out[k] != NULL; k++) {
            copied = copied && strcmp(value->key, left_out[k]) != 0;
        }
        if (copied && begin_value(writer, value->key, value->kind)) {
            end_value(writer, value->key, put_bytes(writer, value->raw, value->raw_size));
        }
    }
}

void dm_gguf_copy_values(dm_gguf_writer *writer, const dm_gguf *from, const char *prefix) {
    dm_gguf_copy_values_but(writer, from, prefix, NULL);
}

void dm_gguf_set_alignment(dm_gguf_writer *writer, uint32_t alignment) {
    if (alignment < 8 || alignment > DM_GGUF_MOST_ALIGNMENT || (alignment & (alignment - 1)) != 0) {
        remember(writer, DM_ERR_ARGUMENT, "key", DM_GGUF_ALIGNMENT_KEY, "has to be a power of two from 8 to 4096");
        return;
    }
    dm_gguf_add_u32(writer, DM_GGUF_ALIGNMENT_KEY, alignment);
    writer->alignment = alignment;
}

/* ---- Tensors ---- */

/* Elements and bytes from type and shape; false if that is no tensor a reader would take. */
static bool measure(planned_tensor *tensor) {
    uint32_t weights, bytes;
    if (!dm_type_block((uint32_t)tensor->type, &weights, &bytes)) {
        return false;
    }
    tensor->elements = 1;
    for (uint32_t d = 0; d < tensor->n_dims; d++) {
        if (tensor->dims[d] == 0 || __builtin_mul_overflow(tensor->elements, tensor->dims[d], &tensor->elements)) {
            return false;
        }
    }
    return (tensor->n_dims == 0 ? 1 : tensor->dims[0]) % weights == 0 &&
           !__builtin_mul_overflow(tensor->elements / weights, (uint64_t)bytes, &tensor->bytes) && tensor->bytes <= INT64_MAX / 2;
}

static void add_planned(dm_gguf_writer *writer, const char *name, planned_tensor tensor, const uint64_t *dims) {
    if (writer->status != DM_OK) {
        return;
    }
    if (!usable_name(name)) {
        remember(writer, DM_ERR_ARGUMENT, "tensor", name, BAD_NAME);
        return;
    }
    if (tensor.n_dims <= DM_MAX_DIMS) {
        memcpy(tensor.dims, dims, tensor.n_dims * sizeof *dims);
    }
    if (tensor.n_dims > DM_MAX_DIMS || !measure(&tensor)) {
        remember(writer, DM_ERR_ARGUMENT, "tensor", name, "has a shape that its type cannot have");
        return;
    }
    tensor.name = strdup(name);
    planned_tensor *tensors = realloc(writer->tensors, (writer->n_tensors + 1) * sizeof *tensors);
    writer->tensors = tensors != NULL ? tensors : writer->tensors;
    if (tensor.name == NULL || tensors == NULL) {
        free(tensor.name);
        remember(writer, DM_ERR_MEMORY, "tensor", name, "found no memory");
        return;
    }
    tensors[writer->n_tensors++] = tensor;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Once for all tensors: there may be tens of thousands, each an expert's. */
static void refuse_doubles(dm_gguf_writer *writer) {
    const char **names = malloc((writer->n_tensors + 1) * sizeof *names);
    if (names == NULL) {
        remember(writer, DM_ERR_MEMORY, "list of", "tensors", "found no memory");
        return;
    }
    for (size_t i = 0; i < writer->n_tensors; i++) {
        names[i] = writer->tensors[i].name;
    }
    qsort(names, writer->n_tensors, sizeof *names, by_text);
    for (size_t i = 1; i < writer->n_tensors; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            remember(writer, DM_ERR_ARGUMENT, "tensor", names[i], "was added twice");
        }
    }
    free(names);
}

void dm_gguf_add_tensor(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                        const void *data) {
    add_planned(writer, name, (planned_tensor){.type = type, .n_dims = n_dims, .data = data}, dims);
}

void dm_gguf_add_tensor_from(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                             dm_gguf_source source, void *user) {
    if (type != DM_TYPE_F32 && type != DM_TYPE_F16 && type != DM_TYPE_BF16) {
        remember(writer, DM_ERR_ARGUMENT, "tensor", name, "can be converted to F32, F16 and BF16 only");
        return;
    }
    add_planned(writer, name, (planned_tensor){.type = type, .n_dims = n_dims, .source = source, .user = user}, dims);
}

void dm_gguf_add_tensor_made(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                             dm_gguf_maker maker, void *user) {
    add_planned(writer, name, (planned_tensor){.type = type, .n_dims = n_dims, .maker = maker, .user = user}, dims);
}

static dm_status copy_floats(void *user, uint64_t first, size_t n, float *out) {
    memcpy(out, (const float *)user + first, n * sizeof *out);
    return DM_OK;
}

void dm_gguf_add_tensor_f32(dm_gguf_writer *writer, const char *name, dm_type type, const uint64_t *dims, uint32_t n_dims,
                            const float *data) {
    if (type == DM_TYPE_F32) {
        dm_gguf_add_tensor(writer, name, type, dims, n_dims, data);
    } else {
        dm_gguf_add_tensor_from(writer, name, type, dims, n_dims, copy_floats, (void *)(uintptr_t)data);
    }
}

/* ---- The file ---- */

/* Nothing in this part looks at what fwrite returns: the stream remembers, and dm_replace_commit() asks it. */

static size_t padding_after(const dm_gguf_writer *writer, uint64_t bytes) {
    return (size_t)(-bytes % writer->alignment);
}

static void write_padding(const dm_gguf_writer *writer, uint64_t bytes, FILE *stream) {
    static const uint8_t zeros[DM_GGUF_MOST_ALIGNMENT];
    fwrite(zeros, 1, padding_after(writer, bytes), stream);
}

static void write_u32(FILE *stream, uint32_t value) {
    fwrite(&value, sizeof value, 1, stream);
}

static void write_u64(FILE *stream, uint64_t value) {
    fwrite(&value, sizeof value, 1, stream);
}

/* Header, metadata and tensor list, padded; false when the offsets would overflow. */
static bool write_header(const dm_gguf_writer *writer, FILE *stream) {
    uint64_t written = 4 + 4 + 8 + 8 + (uint64_t)writer->size;
    fwrite("GGUF", 1, 4, stream);
    write_u32(stream, 3);
    write_u64(stream, writer->n_tensors);
    write_u64(stream, writer->n_values);
    if (writer->size > 0) { /* else there is no buffer */
        fwrite(writer->metadata, 1, writer->size, stream);
    }
    uint64_t offset = 0;
    for (size_t i = 0; i < writer->n_tensors; i++) {
        const planned_tensor *tensor = &writer->tensors[i];
        size_t length = strlen(tensor->name);
        write_u64(stream, length);
        fwrite(tensor->name, 1, length, stream);
        write_u32(stream, tensor->n_dims);
        fwrite(tensor->dims, sizeof *tensor->dims, tensor->n_dims, stream);
        write_u32(stream, (uint32_t)tensor->type);
        write_u64(stream, offset);
        written += 8 + length + 4 + 8 * (uint64_t)tensor->n_dims + 4 + 8;
        if (__builtin_add_overflow(offset, tensor->bytes + padding_after(writer, tensor->bytes), &offset)) {
            return false;
        }
    }
    write_padding(writer, written, stream);
    return true;
}

enum { PIECE = 1 << 16 }; /* elements converted at a time */

static void write_piece(const planned_tensor *tensor, const float *values, uint16_t *halves, size_t n, FILE *stream) {
    if (tensor->type == DM_TYPE_F32) {
        fwrite(values, sizeof *values, n, stream);
        return;
    }
    const dm_vector_table *vector = dm_vector();
    (tensor->type == DM_TYPE_F16 ? vector->f32_to_f16 : vector->f32_to_bf16)(halves, values, n);
    fwrite(halves, sizeof *halves, n, stream);
}

static dm_status write_converted(const planned_tensor *tensor, FILE *stream) {
    float *values = malloc(PIECE * sizeof *values);
    uint16_t *halves = malloc(PIECE * sizeof *halves);
    dm_status status = values != NULL && halves != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory converting weights");
    for (uint64_t first = 0; first < tensor->elements && status == DM_OK; first += PIECE) {
        size_t n = tensor->elements - first < PIECE ? (size_t)(tensor->elements - first) : PIECE;
        status = tensor->source(tensor->user, first, n, values);
        if (status == DM_OK) {
            write_piece(tensor, values, halves, n, stream);
        }
    }
    free(values);
    free(halves);
    return status;
}

static dm_status write_made(const planned_tensor *tensor, FILE *stream) {
    size_t room = tensor->elements < DM_GGUF_PIECE ? (size_t)tensor->elements : DM_GGUF_PIECE;
    void *bytes = malloc(dm_type_bytes(tensor->type, room));
    dm_status status = bytes != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory writing weights");
    for (uint64_t first = 0; first < tensor->elements && status == DM_OK; first += DM_GGUF_PIECE) {
        size_t n = tensor->elements - first < DM_GGUF_PIECE ? (size_t)(tensor->elements - first) : DM_GGUF_PIECE;
        status = tensor->maker(tensor->user, first, n, bytes);
        if (status == DM_OK) {
            fwrite(bytes, 1, dm_type_bytes(tensor->type, n), stream);
        }
    }
    free(bytes);
    return status;
}

static dm_status write_tensors(const dm_gguf_writer *writer, FILE *stream) {
    for (size_t i = 0; i < writer->n_tensors; i++) {
        const planned_tensor *tensor = &writer->tensors[i];
        if (tensor->maker != NULL) {
            DM_TRY(write_made(tensor, stream));
        } else if (tensor->source != NULL) {
            DM_TRY(write_converted(tensor, stream));
        } else {
            fwrite(tensor->data, 1, (size_t)tensor->bytes, stream);
        }
        write_padding(writer, tensor->bytes, stream);
        if (ferror(stream)) {
            break; /* a full disk is found now rather than at the end */
        }
    }
    return DM_OK;
}

dm_status dm_gguf_writer_finish(dm_gguf_writer *writer, const char *path) {
    refuse_doubles(writer);
    if (writer->status != DM_OK) {
        return dm_fail(writer->status, "%s: %s", path, writer->message);
    }
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    dm_status status = DM_OK;
    if (!write_header(writer, file.stream)) {
        status = dm_fail(DM_ERR_ARGUMENT, "%s: the tensors are more than a file can hold", path);
    } else {
        status = write_tensors(writer, file.stream);
        if (status != DM_OK) {
            dm_fail_in(status, path);
        }
    }
    if (status != DM_OK) {
        dm_replace_abandon(&file);
        return status;
    }
    return dm_replace_commit(&file);
}
