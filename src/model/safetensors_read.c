#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/table.h"
#include "model/safetensors.h"

enum {
    LARGEST_HEADER = 100000000, /* the limit of the format's own library */
    LARGEST_INDEX = 100000000,
};

typedef struct shard {
    char *path;
    dm_map map;
} shard;

struct dm_safetensors {
    shard *shards;
    size_t n_shards, shards_room;
    dm_safetensor *tensors; /* their names owned */
    uint32_t *shard_of;     /* [n] */
    size_t n, tensors_room, shard_of_room;
    dm_strings names; /* a tensor's number is its name's */
};

/* ---- One tensor ---- */

typedef struct dtype_row {
    const char *name;
    uint32_t bits;
    bool known;
    dm_type type;
} dtype_row;

/* Those that are not known can lie in a file, unused. */
static const dtype_row dtypes[] = {
    {"F32", 32, true, DM_TYPE_F32},    {"F16", 16, true, DM_TYPE_F16},    {"BF16", 16, true, DM_TYPE_BF16},
    {"F64", 64, false, DM_TYPE_F64},   {"I64", 64, false, DM_TYPE_I64},   {"I32", 32, false, DM_TYPE_I32},
    {"I16", 16, false, DM_TYPE_I16},   {"I8", 8, false, DM_TYPE_I8},      {"U64", 64, false, DM_TYPE_I64},
    {"U32", 32, false, DM_TYPE_I32},   {"U16", 16, false, DM_TYPE_I16},   {"U8", 8, false, DM_TYPE_I8},
    {"BOOL", 8, false, DM_TYPE_I8},    {"F8_E4M3", 8, false, DM_TYPE_I8}, {"F8_E5M2", 8, false, DM_TYPE_I8},
    {"F8_E8M0", 8, false, DM_TYPE_I8}, {"F4", 4, false, DM_TYPE_I8},      {"F6_E2M3", 6, false, DM_TYPE_I8},
    {"F6_E3M2", 6, false, DM_TYPE_I8},
};

static dm_status bad(const char *path, const char *name, const char *problem) {
    return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' %s", path, name, problem);
}

static dm_status read_dtype(const char *path, const json_t *entry, dm_safetensor *out, uint32_t *bits) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; name != NULL && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            snprintf(out->dtype, sizeof out->dtype, "%s", name);
            out->known = dtypes[i].known;
            out->tensor.type = dtypes[i].type;
            *bits = dtypes[i].bits;
            return DM_OK;
        }
    }
    return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' has the dtype '%.20s', which is unknown here", path, out->tensor.name,
                   name != NULL ? name : "");
}

/* A whole number that is not negative; false for any other value. */
static bool take_size(const json_t *value, uint64_t *out) {
    *out = json_is_integer(value) && json_integer_value(value) >= 0 ? (uint64_t)json_integer_value(value) : 0;
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static dm_status read_shape(const char *path, const json_t *entry, uint32_t bits, dm_gguf_tensor *tensor) {
    const json_t *shape = json_object_get(entry, "shape");
    size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > DM_MAX_DIMS) {
        return bad(path, tensor->name, "has no shape of up to 4 dimensions");
    }
    tensor->n_dims = (uint32_t)n;
    tensor->elements = 1;
    for (size_t d = 0; d < DM_MAX_DIMS; d++) {
        tensor->dims[d] = 1;
        if (d < n && (!take_size(json_array_get(shape, n - 1 - d), &tensor->dims[d]) ||
                      __builtin_mul_overflow(tensor->elements, tensor->dims[d], &tensor->elements))) {
            return bad(path, tensor->name, "has a shape that cannot be");
        }
    }
    uint64_t in_bits;
    if (__builtin_mul_overflow(tensor->elements, (uint64_t)bits, &in_bits) || in_bits % 8 != 0) {
        return bad(path, tensor->name, "has a shape that cannot be");
    }
    tensor->bytes = in_bits / 8;
    return DM_OK;
}

/* `room` bytes of data start at `data`. */
static dm_status read_place(const char *path, const json_t *entry, const uint8_t *data, uint64_t room, dm_gguf_tensor *tensor) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (json_array_size(offsets) != 2 || !take_size(json_array_get(offsets, 0), &begin) ||
        !take_size(json_array_get(offsets, 1), &end) || begin > end) {
        return bad(path, tensor->name, "has no data_offsets [begin, end]");
    }
    if (end > room) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' ends at byte %" PRIu64 " of the data, past its end (%" PRIu64 " bytes)",
                       path, tensor->name, end, room);
    }
    if (end - begin != tensor->bytes) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' has %" PRIu64 " bytes, but its shape and dtype need %" PRIu64, path,
                       tensor->name, end - begin, tensor->bytes);
    }
    tensor->data = data + begin;
    return DM_OK;
}

/* ---- One file ---- */

static dm_status add_tensor(dm_safetensors *file, size_t shard_index, const char *name, const json_t *entry, const uint8_t *data,
                            uint64_t room) {
    const char *path = file->shards[shard_index].path;
    uint32_t index, bits = 0;
    bool added;
    for (const char *c = name; *c != '\0'; c++) {
        if (*c < 0x20 || *c > 0x7e) {
            return dm_fail(DM_ERR_FORMAT, "%s: the name of a tensor holds the byte 0x%02x, expected printable ASCII", path,
                           (unsigned)(uint8_t)*c);
        }
    }
    DM_TRY(dm_reserve(&file->tensors, &file->tensors_room, file->n + 1, sizeof *file->tensors));
    DM_TRY(dm_reserve(&file->shard_of, &file->shard_of_room, file->n + 1, sizeof *file->shard_of));
    DM_TRY(dm_strings_add(&file->names, name, strlen(name), &index, &added));
    if (!added) {
        return bad(path, name, "is there twice");
    }
    dm_safetensor *out = &file->tensors[file->n];
    *out = (dm_safetensor){.tensor.name = strdup(name)};
    file->shard_of[file->n++] = (uint32_t)shard_index;
    if (out->tensor.name == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory reading its header", path);
    }
    DM_TRY(read_dtype(path, entry, out, &bits));
    DM_TRY(read_shape(path, entry, bits, &out->tensor));
    return read_place(path, entry, data, room, &out->tensor);
}

typedef struct stretch {
    const uint8_t *begin;
    uint64_t bytes;
    const char *name;
} stretch;

static int by_place(const void *a, const void *b) {
    const stretch *x = a, *y = b;
    int order = (x->begin > y->begin) - (x->begin < y->begin);
    return order != 0 ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* What tensors [first, n) take is all of the data, each byte once. */
static dm_status check_places(const dm_safetensors *file, const char *path, size_t first, const uint8_t *data, uint64_t room) {
    size_t n = file->n - first;
    stretch *stretches = calloc(n + 1, sizeof *stretches);
    if (stretches == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory reading its header", path);
    }
    for (size_t i = 0; i < n; i++) {
        const dm_gguf_tensor *tensor = &file->tensors[first + i].tensor;
        stretches[i] = (stretch){tensor->data, tensor->bytes, tensor->name};
    }
    qsort(stretches, n, sizeof *stretches, by_place);
    dm_status status = DM_OK;
    const uint8_t *at = data;
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        if (stretches[i].begin != at) {
            status = bad(path, stretches[i].name, stretches[i].begin < at ? "overlaps another one" : "leaves a gap before it");
        }
        at += stretches[i].bytes;
    }
    if (status == DM_OK && (uint64_t)(at - data) != room) {
        status = dm_fail(DM_ERR_FORMAT, "%s: has %" PRIu64 " bytes of data, but its tensors take %" PRIu64, path, room,
                         (uint64_t)(at - data));
    }
    free(stretches);
    return status;
}

static dm_status read_header(dm_safetensors *file, size_t shard_index, const json_t *header, const uint8_t *data, uint64_t room) {
    const char *name;
    const json_t *entry;
    size_t first = file->n;
    void *at;
    json_object_foreach_safe((json_t *)(uintptr_t)header, at, name, entry) {
        if (strcmp(name, "__metadata__") != 0) {
            DM_TRY(add_tensor(file, shard_index, name, entry, data, room));
        }
    }
    return check_places(file, file->shards[shard_index].path, first, data, room);
}

static dm_status add_file(dm_safetensors *file, const char *path) {
    DM_TRY(dm_reserve(&file->shards, &file->shards_room, file->n_shards + 1, sizeof *file->shards));
    shard *s = &file->shards[file->n_shards];
    *s = (shard){.path = strdup(path)};
    file->n_shards++;
    if (s->path == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory opening it", path);
    }
    DM_TRY(dm_map_open(path, &s->map));
    uint64_t length = 0;
    if (s->map.size >= sizeof length) {
        memcpy(&length, s->map.data, sizeof length);
    }
    if (s->map.size < sizeof length || length > s->map.size - sizeof length) {
        return dm_fail(DM_ERR_FORMAT, "%s: no safetensors file: a header of %" PRIu64 " bytes in a file of %zu", path, length,
                       s->map.size);
    }
    if (length > LARGEST_HEADER) {
        return dm_fail(DM_ERR_FORMAT, "%s: a header of %" PRIu64 " bytes, expected at most %d", path, length, LARGEST_HEADER);
    }
    const uint8_t *data = s->map.data + sizeof length + length;
    json_t *header;
    DM_TRY(dm_json_parse(path, (const char *)s->map.data + sizeof length, (size_t)length, &header));
    dm_status status = read_header(file, file->n_shards - 1, header, data, s->map.size - sizeof length - length);
    json_decref(header);
    return status;
}

/* ---- A folder ---- */

static bool plain_name(const char *name) {
    return *name != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Each file that `map` names, once, in the order of their names' first appearance. */
static dm_status add_named(dm_safetensors *file, const char *folder, const char *index_path, const json_t *map) {
    dm_strings seen = {0};
    dm_status status = DM_OK;
    const char *tensor;
    const json_t *value;
    void *at;
    json_object_foreach_safe((json_t *)(uintptr_t)map, at, tensor, value) {
        const char *name = json_string_value(value);
        uint32_t number;
        bool added = false;
        if (name == NULL || strlen(name) != json_string_length(value) || !plain_name(name)) {
            status = dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' lies in '%.80s', expected the name of a file in the folder",
                             index_path, tensor, name != NULL ? name : "");
        } else {
            status = dm_strings_add(&seen, name, strlen(name), &number, &added);
        }
        char *path = added ? dm_path_join(folder, name) : NULL;
        if (added && status == DM_OK) {
            status = path != NULL ? add_file(file, path) : dm_fail(DM_ERR_MEMORY, "%s: out of memory", index_path);
        }
        free(path);
        if (status != DM_OK) {
            break;
        }
    }
    dm_strings_free(&seen);
    return status;
}

static dm_status check_named(const dm_safetensors *file, const char *index_path, const json_t *map) {
    const char *tensor;
    const json_t *value;
    void *at;
    json_object_foreach_safe((json_t *)(uintptr_t)map, at, tensor, value) {
        size_t index = 0;
        const char *path = dm_safetensors_find(file, tensor, &index) != NULL ? dm_safetensors_path(file, index) : NULL;
        const char *slash = path != NULL ? strrchr(path, '/') : NULL;
        if (slash == NULL || strcmp(slash + 1, json_string_value(value)) != 0) {
            return dm_fail(DM_ERR_FORMAT, "%s: tensor '%.80s' is not in '%s'", index_path, tensor, json_string_value(value));
        }
    }
    return DM_OK;
}

static dm_status add_indexed(dm_safetensors *file, const char *folder, const char *index_path) {
    json_t *index;
    DM_TRY(dm_json_load(index_path, LARGEST_INDEX, &index));
    const json_t *map = json_object_get(index, "weight_map");
    dm_status status = json_is_object(map) && json_object_size(map) > 0
                           ? add_named(file, folder, index_path, map)
                           : dm_fail(DM_ERR_FORMAT, "%s: the key 'weight_map' names no tensors", index_path);
    if (status == DM_OK) {
        status = check_named(file, index_path, map);
    }
    json_decref(index);
    return status;
}

static dm_status add_folder(dm_safetensors *file, const char *folder) {
    char *whole = dm_path_join(folder, "model.safetensors");
    char *index = dm_path_join(folder, "model.safetensors.index.json");
    dm_status status;
    if (whole == NULL || index == NULL) {
        status = dm_fail(DM_ERR_MEMORY, "%s: out of memory opening it", folder);
    } else if (access(whole, F_OK) == 0) {
        status = add_file(file, whole);
    } else if (access(index, F_OK) == 0) {
        status = add_indexed(file, folder, index);
    } else {
        status = dm_fail(DM_ERR_IO, "%s: has neither model.safetensors nor model.safetensors.index.json", folder);
    }
    free(whole);
    free(index);
    return status;
}

static dm_status open_with(dm_status (*add)(dm_safetensors *file, const char *path), const char *path, dm_safetensors **out) {
    *out = NULL;
    dm_safetensors *file = calloc(1, sizeof *file);
    dm_status status = file != NULL ? add(file, path) : dm_fail(DM_ERR_MEMORY, "%s: out of memory opening it", path);
    if (status != DM_OK) {
        dm_safetensors_close(file);
        return status;
    }
    *out = file;
    return DM_OK;
}

dm_status dm_safetensors_open(const char *path, dm_safetensors **out) {
    return open_with(add_file, path, out);
}

dm_status dm_safetensors_open_folder(const char *folder, dm_safetensors **out) {
    return open_with(add_folder, folder, out);
}

void dm_safetensors_close(dm_safetensors *file) {
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < file->n; i++) {
        free((void *)(uintptr_t)file->tensors[i].tensor.name);
    }
    for (size_t i = 0; i < file->n_shards; i++) {
        free(file->shards[i].path);
        dm_map_close(&file->shards[i].map);
    }
    dm_strings_free(&file->names);
    free(file->tensors);
    free(file->shard_of);
    free(file->shards);
    free(file);
}

size_t dm_safetensors_count(const dm_safetensors *file) {
    return file->n;
}

const dm_safetensor *dm_safetensors_at(const dm_safetensors *file, size_t index) {
    return &file->tensors[index];
}

const dm_safetensor *dm_safetensors_find(const dm_safetensors *file, const char *name, size_t *index) {
    uint32_t found = dm_strings_find(&file->names, name, strlen(name));
    if (found == DM_TABLE_NONE) {
        return NULL;
    }
    if (index != NULL) {
        *index = found;
    }
    return &file->tensors[found];
}

const char *dm_safetensors_path(const dm_safetensors *file, size_t index) {
    return file->shards[file->shard_of[index]].path;
}
