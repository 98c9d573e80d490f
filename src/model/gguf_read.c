/*
 * Opening a GGUF file: the header is walked once, front to back, and nothing in it is believed before it was compared
 * with what is left of the file. Counts never size an allocation; tables grow with the entries that were really read.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/gguf_internal.h"

#define MAX_KEY 65535u      /* the specification's limit */
#define MAX_TENSOR_NAME 255 /* four times the specification's */
#define MAX_NESTING 4       /* arrays in arrays */

typedef struct cursor {
    const char *path;
    const uint8_t *start, *at, *end;
    uint64_t n_values, n_tensors; /* as the header claims */
} cursor;

static size_t left(const cursor *c) {
    return (size_t)(c->end - c->at);
}

static dm_status cut_off(const cursor *c, const char *what, const char *of) {
    return dm_fail(DM_ERR_FORMAT, "%s: ends within %s%s%.80s (the file has %zu bytes)", c->path, what, *of != '\0' ? " of " : "",
                   of, (size_t)(c->end - c->start));
}

/* *out is set in any case. */
static dm_status take(cursor *c, void *out, size_t size, const char *what, const char *of) {
    memset(out, 0, size);
    if (left(c) < size) {
        return cut_off(c, what, of);
    }
    memcpy(out, c->at, size);
    c->at += size;
    return DM_OK;
}

static dm_status take_length(cursor *c, uint64_t *out, const char *what, const char *of) {
    DM_TRY(take(c, out, sizeof *out, what, of));
    if (*out > left(c)) {
        return dm_fail(DM_ERR_FORMAT, "%s: %s%s%.80s claims %" PRIu64 " bytes where %zu are left in the file", c->path, what,
                       *of != '\0' ? " of " : "", of, *out, left(c));
    }
    return DM_OK;
}

/* Names are printable ASCII: they go into messages, and other programs compare them as C strings. *out is the caller's. */
static dm_status take_name(cursor *c, size_t longest, const char *what, uint64_t number, char **out) {
    char label[64];
    snprintf(label, sizeof label, "the name of %s %" PRIu64, what, number);
    uint64_t length;
    DM_TRY(take_length(c, &length, label, ""));
    if (length == 0 || length > longest) {
        return dm_fail(DM_ERR_FORMAT, "%s: %s has %" PRIu64 " bytes, expected 1 to %zu", c->path, label, length, longest);
    }
    for (uint64_t i = 0; i < length; i++) {
        if (c->at[i] < 0x20 || c->at[i] > 0x7e) {
            return dm_fail(DM_ERR_FORMAT, "%s: %s holds the byte 0x%02x, expected printable ASCII", c->path, label, c->at[i]);
        }
    }
    *out = malloc((size_t)length + 1);
    if (*out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory reading its header", c->path);
    }
    memcpy(*out, c->at, (size_t)length);
    (*out)[length] = '\0';
    c->at += length;
    return DM_OK;
}

/* ---- Metadata ---- */

static dm_status check_bools(const cursor *c, uint64_t count, const char *key) {
    for (uint64_t i = 0; i < count; i++) {
        if (c->at[i] > 1) {
            return dm_fail(DM_ERR_FORMAT, "%s: key '%.80s': %u is no bool, expected 0 or 1", c->path, key, c->at[i]);
        }
    }
    return DM_OK;
}

/* Steps over `count` values of one kind, checking them on the way. */
static dm_status skip_values(cursor *c, uint32_t kind, uint64_t count, const char *key, int depth);

static dm_status take_array_header(cursor *c, const char *key, uint32_t *element, uint64_t *count) {
    DM_TRY(take(c, element, sizeof *element, "the array's kind", key));
    DM_TRY(take(c, count, sizeof *count, "the array's length", key));
    if (dm_gguf_kind_name(*element) == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%.80s': an array of unknown kind %" PRIu32, c->path, key, *element);
    }
    /* what one element takes at least: a length for strings, kind and length for arrays */
    size_t least = *element == DM_GGUF_STRING ? 8 : *element == DM_GGUF_ARRAY ? 12 : dm_gguf_kind_size(*element);
    if (*count > left(c) / least) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%.80s': an array of %" PRIu64 " x %s where %zu bytes are left in the file",
                       c->path, key, *count, dm_gguf_kind_name(*element), left(c));
    }
    return DM_OK;
}

static dm_status skip_array(cursor *c, const char *key, int depth) {
    if (depth >= MAX_NESTING) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%.80s': arrays nested deeper than %d", c->path, key, MAX_NESTING);
    }
    uint32_t element;
    uint64_t count;
    DM_TRY(take_array_header(c, key, &element, &count));
    return skip_values(c, element, count, key, depth + 1);
}

static dm_status skip_values(cursor *c, uint32_t kind, uint64_t count, const char *key, int depth) {
    size_t size = dm_gguf_kind_size(kind);
    if (size != 0) {
        if (count > left(c) / size) {
            return cut_off(c, "the value", key);
        }
        if (kind == DM_GGUF_BOOL) {
            DM_TRY(check_bools(c, count, key));
        }
        c->at += (size_t)count * size;
        return DM_OK;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (kind == DM_GGUF_STRING) {
            uint64_t length;
            DM_TRY(take_length(c, &length, "a string", key));
            c->at += length;
        } else {
            DM_TRY(skip_array(c, key, depth));
        }
    }
    return DM_OK;
}

static dm_status read_value(cursor *c, gguf_value *value) {
    uint32_t kind;
    DM_TRY(take(c, &kind, sizeof kind, "the kind", value->key));
    if (dm_gguf_kind_name(kind) == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%.80s' is of unknown kind %" PRIu32, c->path, value->key, kind);
    }
    value->kind = (dm_gguf_kind)kind;
    value->raw = c->at;
    cursor inside = *c;
    DM_TRY(skip_values(c, kind, 1, value->key, 0));
    value->raw_size = (size_t)(c->at - value->raw);
    value->data = value->raw;
    if (kind == DM_GGUF_STRING) {
        DM_TRY(take_length(&inside, &value->count, "a string", value->key));
        value->data = inside.at;
    } else if (kind == DM_GGUF_ARRAY) {
        DM_TRY(take_array_header(&inside, value->key, &value->element, &value->count));
        value->data = inside.at;
    }
    return DM_OK;
}

/* Makes room for one more entry; tables double, so that they stay within a small multiple of what was read. */
static dm_status grow(const cursor *c, void **entries, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) {
        return DM_OK;
    }
    size_t wanted = *capacity != 0 ? 2 * *capacity : 16;
    void *moved = realloc(*entries, wanted * size);
    if (moved == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory reading its header", c->path);
    }
    *entries = moved;
    *capacity = wanted;
    return DM_OK;
}

static dm_status read_values(cursor *c, dm_gguf *file) {
    size_t capacity = 0;
    void *entries = NULL;
    dm_status status = DM_OK;
    for (uint64_t i = 0; i < c->n_values && status == DM_OK; i++) {
        status = grow(c, &entries, file->n_values, &capacity, sizeof(gguf_value));
        file->values = entries;
        if (status == DM_OK) {
            gguf_value *value = &file->values[file->n_values];
            *value = (gguf_value){0};
            status = take_name(c, MAX_KEY, "key", i, &value->key);
            file->n_values += status == DM_OK;
            status = status == DM_OK ? read_value(c, value) : status;
        }
    }
    return status;
}

/* ---- Tensors ---- */

static dm_status read_shape(cursor *c, dm_gguf_tensor *tensor) {
    DM_TRY(take(c, &tensor->n_dims, sizeof tensor->n_dims, "the shape", tensor->name));
    if (tensor->n_dims > DM_MAX_DIMS) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' has %" PRIu32 " dimensions, expected at most %d", c->path, tensor->name,
                       tensor->n_dims, DM_MAX_DIMS);
    }
    tensor->elements = 1;
    for (uint32_t d = 0; d < DM_MAX_DIMS; d++) {
        tensor->dims[d] = 1;
        if (d >= tensor->n_dims) {
            continue;
        }
        DM_TRY(take(c, &tensor->dims[d], sizeof tensor->dims[d], "the shape", tensor->name));
        if (tensor->dims[d] == 0 || __builtin_mul_overflow(tensor->elements, tensor->dims[d], &tensor->elements)) {
            return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s': its dimension %" PRIu32 " of %" PRIu64 " cannot be", c->path,
                           tensor->name, d, tensor->dims[d]);
        }
    }
    return DM_OK;
}

/* The number of bytes, from type and shape; quantized rows are whole blocks. */
static dm_status read_type(cursor *c, dm_gguf_tensor *tensor) {
    uint32_t type, weights, bytes;
    DM_TRY(take(c, &type, sizeof type, "the type", tensor->name));
    if (!dm_type_block(type, &weights, &bytes)) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: tensor '%.80s' is of type %" PRIu32 ", which is unknown here; known are %s",
                       c->path, tensor->name, type, dm_type_names());
    }
    tensor->type = (dm_type)type;
    if (tensor->dims[0] % weights != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s': rows of %" PRIu64 " are not whole blocks of %" PRIu32 " (%s)", c->path,
                       tensor->name, tensor->dims[0], weights, dm_type_name(type));
    }
    if (__builtin_mul_overflow(tensor->elements / weights, (uint64_t)bytes, &tensor->bytes)) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s': %" PRIu64 " elements are more than any file holds", c->path,
                       tensor->name, tensor->elements);
    }
    return DM_OK;
}

/* The offset counts from the end of the header, not known yet: it is kept in data until place_tensors(). */
static dm_status read_tensor(cursor *c, dm_gguf_tensor *tensor) {
    DM_TRY(read_shape(c, tensor));
    DM_TRY(read_type(c, tensor));
    uint64_t offset;
    DM_TRY(take(c, &offset, sizeof offset, "the offset", tensor->name));
    if (offset > (uint64_t)(c->end - c->start)) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' starts at %" PRIu64 ", past the end of the file (%zu bytes)", c->path,
                       tensor->name, offset, (size_t)(c->end - c->start));
    }
    tensor->data = (const void *)(uintptr_t)offset;
    return DM_OK;
}

static dm_status read_tensors(cursor *c, dm_gguf *file) {
    size_t capacity = 0;
    void *entries = NULL;
    dm_status status = DM_OK;
    for (uint64_t i = 0; i < c->n_tensors && status == DM_OK; i++) {
        status = grow(c, &entries, file->n_tensors, &capacity, sizeof(dm_gguf_tensor));
        file->tensors = entries;
        if (status == DM_OK) {
            dm_gguf_tensor *tensor = &file->tensors[file->n_tensors];
            *tensor = (dm_gguf_tensor){0};
            char *name = NULL;
            status = take_name(c, MAX_TENSOR_NAME, "tensor", i, &name);
            tensor->name = name;
            file->n_tensors += status == DM_OK;
            status = status == DM_OK ? read_tensor(c, tensor) : status;
        }
    }
    return status;
}

/* The specification wants a multiple of 8; a power of two as every writer uses. Less would leave floats misaligned. */
static dm_status read_alignment(const dm_gguf *file, uint64_t *alignment) {
    uint32_t value;
    DM_TRY(dm_gguf_get_u32_or(file, DM_GGUF_ALIGNMENT_KEY, DM_GGUF_DEFAULT_ALIGNMENT, &value));
    if (value < 8 || (value & (value - 1)) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s': %" PRIu32 " is no alignment, expected a power of two from 8 on", file->path,
                       DM_GGUF_ALIGNMENT_KEY, value);
    }
    *alignment = value;
    return DM_OK;
}

static dm_status place_tensors(const cursor *c, dm_gguf *file) {
    uint64_t alignment = 0;
    DM_TRY(read_alignment(file, &alignment));
    uint64_t header = (uint64_t)(c->at - c->start); /* files are below 2^63, so adding a 32-bit alignment cannot wrap */
    uint64_t start = (header + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < file->n_tensors; i++) {
        dm_gguf_tensor *tensor = &file->tensors[i];
        uint64_t offset = (uint64_t)(uintptr_t)tensor->data;
        tensor->data = NULL;
        if (offset % alignment != 0) {
            return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' starts at %" PRIu64 ", no multiple of the alignment %" PRIu64,
                           file->path, tensor->name, offset, alignment);
        }
        if (start > file->map.size || offset > file->map.size - start || tensor->bytes > file->map.size - start - offset) {
            return dm_fail(DM_ERR_FORMAT,
                           "%s: tensor '%.80s' needs %" PRIu64 " bytes from %" PRIu64 " on, past the end of the file (%zu bytes)",
                           file->path, tensor->name, tensor->bytes, start + offset, file->map.size);
        }
        tensor->data = file->map.data + start + offset;
    }
    return DM_OK;
}

/* ---- Names to entries ---- */

static uint64_t hash_name(uint64_t seed, const char *name) {
    size_t length = strlen(name);
    uint64_t hash = dm_random_mix(seed ^ length);
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = 0;
        memcpy(&word, name + i, length - i < 8 ? length - i : 8);
        hash = dm_random_mix(hash ^ word);
    }
    return hash;
}

static const char *value_name(const dm_gguf *file, size_t i) {
    return file->values[i].key;
}

static const char *tensor_name(const dm_gguf *file, size_t i) {
    return file->tensors[i].name;
}

typedef const char *(*name_of)(const dm_gguf *file, size_t i);

/* The slot that holds `name`, or the free one where it belongs; half of the slots are free, so the walk ends. */
static uint32_t *find_slot(const dm_gguf *file, const gguf_index *index, name_of at, const char *name) {
    for (size_t i = (size_t)hash_name(file->hash_seed, name);; i++) {
        uint32_t *slot = &index->slots[i & index->mask];
        if (*slot == 0 || strcmp(at(file, *slot - 1), name) == 0) {
            return slot;
        }
    }
}

static dm_status build_index(dm_gguf *file, gguf_index *index, name_of at, size_t count, const char *what) {
    size_t slots = 16;
    while (slots < 2 * count) {
        slots *= 2;
    }
    if (slots > UINT32_MAX) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: %zu %ss are more than can be handled", file->path, count, what);
    }
    index->slots = calloc(slots, sizeof *index->slots);
    if (index->slots == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory reading its header", file->path);
    }
    index->mask = slots - 1;
    for (size_t i = 0; i < count; i++) {
        uint32_t *slot = find_slot(file, index, at, at(file, i));
        if (*slot != 0) {
            return dm_fail(DM_ERR_FORMAT, "%s: the %s '%.80s' is there twice", file->path, what, at(file, i));
        }
        *slot = (uint32_t)i + 1;
    }
    return DM_OK;
}

dm_status dm_gguf_index_tensors(dm_gguf *file) {
    free(file->tensor_index.slots);
    file->tensor_index.slots = NULL;
    return build_index(file, &file->tensor_index, tensor_name, file->n_tensors, "tensor");
}

const gguf_value *dm_gguf_find_value(const dm_gguf *file, const char *key) {
    uint32_t slot = *find_slot(file, &file->value_index, value_name, key);
    return slot != 0 ? &file->values[slot - 1] : NULL;
}

const dm_gguf_tensor *dm_gguf_find_tensor(const dm_gguf *file, const char *name) {
    uint32_t slot = *find_slot(file, &file->tensor_index, tensor_name, name);
    return slot != 0 ? &file->tensors[slot - 1] : NULL;
}

/* ---- The file ---- */

static dm_status read_magic(cursor *c, dm_gguf *file) {
    if (left(c) < 4 || memcmp(c->at, "GGUF", 4) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: not a GGUF file (it does not start with the letters GGUF)", c->path);
    }
    c->at += 4;
    DM_TRY(take(c, &file->version, sizeof file->version, "the version", ""));
    if (file->version != 0 && (file->version & 0xffff) == 0) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: written for big-endian machines, expected little-endian", c->path);
    }
    if (file->version != 2 && file->version != 3) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: GGUF version %" PRIu32 ", expected 2 or 3", c->path, file->version);
    }
    DM_TRY(take(c, &c->n_tensors, sizeof c->n_tensors, "the number of tensors", ""));
    DM_TRY(take(c, &c->n_values, sizeof c->n_values, "the number of keys", ""));
    /* at least: a key is length, one letter, kind and one byte; a tensor length, one letter, dimensions, type, offset */
    if (c->n_values > left(c) / 14 || c->n_tensors > left(c) / 25) {
        return dm_fail(DM_ERR_FORMAT, "%s: claims %" PRIu64 " tensors and %" PRIu64 " keys in %zu bytes", c->path, c->n_tensors,
                       c->n_values, left(c));
    }
    return DM_OK;
}

static dm_status read_header(dm_gguf *file) {
    cursor c = {file->path, file->map.data, file->map.data, file->map.data + file->map.size, 0, 0};
    DM_TRY(read_magic(&c, file));
    DM_TRY(read_values(&c, file));
    DM_TRY(build_index(file, &file->value_index, value_name, file->n_values, "key"));
    DM_TRY(read_tensors(&c, file));
    DM_TRY(dm_gguf_index_tensors(file));
    return place_tensors(&c, file);
}

dm_status dm_gguf_open_part(const char *path, dm_gguf **out) {
    *out = NULL;
    dm_gguf *file = calloc(1, sizeof *file);
    char *copy = strdup(path);
    if (file == NULL || copy == NULL) {
        free(file);
        free(copy);
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory opening it", path);
    }
    file->path = copy;
    if (getrandom(&file->hash_seed, sizeof file->hash_seed, GRND_NONBLOCK) != (ssize_t)sizeof file->hash_seed) {
        file->hash_seed = (uint64_t)(uintptr_t)file; /* early in boot; where it lies still differs */
    }
    dm_status status = dm_map_open(path, &file->map);
    if (status == DM_OK) {
        status = file->map.size == 0 ? dm_fail(DM_ERR_FORMAT, "%s: empty, expected a GGUF file", path) : read_header(file);
    }
    if (status != DM_OK) {
        dm_gguf_close(file);
        return status;
    }
    *out = file;
    return DM_OK;
}

void dm_gguf_close(dm_gguf *file) {
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < file->n_parts; i++) {
        dm_gguf_close(file->parts[i]);
    }
    free(file->parts);
    for (size_t i = 0; i < file->n_values; i++) {
        free(file->values[i].key);
    }
    for (size_t i = 0; i < file->n_tensors; i++) {
        free((void *)(uintptr_t)file->tensors[i].name);
    }
    free(file->values);
    free(file->tensors);
    free(file->value_index.slots);
    free(file->tensor_index.slots);
    dm_map_close(&file->map);
    free(file->path);
    free(file);
}

const char *dm_gguf_path(const dm_gguf *file) {
    return file->path;
}

uint64_t dm_gguf_size(const dm_gguf *file) {
    uint64_t bytes = file->map.size;
    for (size_t i = 0; i < file->n_parts; i++) {
        bytes += file->parts[i]->map.size;
    }
    return bytes;
}

size_t dm_gguf_n_files(const dm_gguf *file) {
    return 1 + file->n_parts;
}

dm_gguf_file dm_gguf_file_at(const dm_gguf *file, size_t number) {
    const dm_gguf *part = number == 0 ? file : file->parts[number - 1];
    return (dm_gguf_file){part->path, part->map.data, part->map.size, part->map.modified};
}

uint64_t dm_gguf_stamp(const dm_gguf *file) {
    uint64_t stamp = dm_hash_mix(file->map.size, file->map.modified);
    for (size_t i = 0; i < file->n_parts; i++) {
        stamp = dm_hash_mix(stamp, dm_gguf_stamp(file->parts[i]));
    }
    return stamp;
}

uint32_t dm_gguf_version(const dm_gguf *file) {
    return file->version;
}

size_t dm_gguf_n_tensors(const dm_gguf *file) {
    return file->n_tensors;
}

const dm_gguf_tensor *dm_gguf_tensor_at(const dm_gguf *file, size_t index) {
    return &file->tensors[index];
}
