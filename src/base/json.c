#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"

dm_status dm_json_parse(const char *where, const char *bytes, size_t size, json_t **out) {
    json_error_t error;
    *out = json_loadb(bytes, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (*out == NULL && json_error_code(&error) == json_error_numeric_overflow) {
        *out = json_loadb(bytes, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    }
    if (*out == NULL) {
        return json_error_code(&error) == json_error_out_of_memory
                   ? dm_fail(DM_ERR_MEMORY, "%s: out of memory reading %zu bytes of JSON", where, size)
                   : dm_fail(DM_ERR_FORMAT, "%s: line %d: no JSON that can be used: %s", where, error.line, error.text);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return dm_fail(DM_ERR_FORMAT, "%s: holds no JSON object", where);
    }
    return DM_OK;
}

dm_status dm_json_load(const char *path, size_t most, json_t **out) {
    *out = NULL;
    dm_map map;
    DM_TRY(dm_map_open(path, &map));
    dm_status status = map.size <= most ? dm_json_parse(path, map.data != NULL ? (const char *)map.data : "", map.size, out)
                                        : dm_fail(DM_ERR_FORMAT, "%s: has %zu bytes, expected at most %zu", path, map.size, most);
    dm_map_close(&map);
    return status;
}

const json_t *dm_json_get(const dm_json_reader *from, const char *key) {
    const json_t *value = json_object_get(from->object, key);
    return json_is_null(value) ? NULL : value;
}

static dm_status wrong_kind(const dm_json_reader *from, const char *key, const char *expected) {
    return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is not %s", from->path, key, expected);
}

dm_status dm_json_float_or(const dm_json_reader *from, const char *key, float fallback, float *out) {
    const json_t *value = dm_json_get(from, key);
    *out = fallback;
    if (value != NULL && !json_is_number(value)) {
        return wrong_kind(from, key, "a number");
    }
    *out = value != NULL ? (float)json_number_value(value) : fallback;
    return DM_OK;
}

dm_status dm_json_int_or(const dm_json_reader *from, const char *key, int32_t fallback, int32_t *out) {
    const json_t *value = dm_json_get(from, key);
    *out = fallback;
    double number = value != NULL && json_is_number(value) ? json_number_value(value) : 0.5;
    if (value != NULL && number != floor(number)) {
        return wrong_kind(from, key, "a whole number");
    }
    if (value != NULL) {
        *out = (int32_t)fmax(fmin(number, INT32_MAX), INT32_MIN);
    }
    return DM_OK;
}

dm_status dm_json_int(const dm_json_reader *from, const char *key, int32_t *out) {
    *out = 0;
    if (dm_json_get(from, key) == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: the key '%s' is missing", from->path, key);
    }
    return dm_json_int_or(from, key, 0, out);
}

dm_status dm_json_bool_or(const dm_json_reader *from, const char *key, bool fallback, bool *out) {
    const json_t *value = dm_json_get(from, key);
    *out = fallback;
    if (value != NULL && !json_is_boolean(value)) {
        return wrong_kind(from, key, "true or false");
    }
    *out = value != NULL ? json_is_true(value) : fallback;
    return DM_OK;
}

dm_status dm_json_text_or(const dm_json_reader *from, const char *key, const char *fallback, const char **out) {
    const json_t *value = dm_json_get(from, key);
    *out = fallback;
    if (value != NULL && (!json_is_string(value) || json_string_length(value) != strlen(json_string_value(value)))) {
        return wrong_kind(from, key, "a text");
    }
    *out = value != NULL ? json_string_value(value) : fallback;
    return DM_OK;
}

json_t *dm_json_bytes(const char *bytes, size_t length) {
    json_t *text = json_stringn(bytes, length);
    if (text != NULL) {
        return text;
    }
    char *mended = malloc(3 * length + 1);
    text = mended != NULL ? json_stringn(mended, dm_utf8_mend(bytes, length, mended)) : NULL;
    free(mended);
    return text;
}

static dm_status save(const json_t *object, const char *path) {
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    int dumped = json_dumpf(object, file.stream, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    fputc('\n', file.stream);
    if (dumped != 0 && ferror(file.stream) == 0) {
        dm_replace_abandon(&file);
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory writing JSON", path);
    }
    return dm_replace_commit(&file);
}

dm_status dm_json_save(json_t *object, const char *folder, const char *name) {
    char *path = dm_path_join(folder, name);
    dm_status status =
        object != NULL && path != NULL ? save(object, path) : dm_fail(DM_ERR_MEMORY, "%s: out of memory for %s", folder, name);
    free(path);
    json_decref(object);
    return status;
}
