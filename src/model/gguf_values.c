/* Metadata of an open GGUF file as typed values, and as text for people. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/gguf_internal.h"

size_t dm_gguf_n_values(const dm_gguf *file) {
    return file->n_values;
}

const char *dm_gguf_key_at(const dm_gguf *file, size_t index, dm_gguf_kind *kind) {
    *kind = file->values[index].kind;
    return file->values[index].key;
}

bool dm_gguf_has(const dm_gguf *file, const char *key) {
    return dm_gguf_find_value(file, key) != NULL;
}

static dm_status find(const dm_gguf *file, const char *key, const char *expected, const gguf_value **out) {
    *out = dm_gguf_find_value(file, key);
    if (*out == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: the key '%s' (%s) is missing", file->path, key, expected);
    }
    return DM_OK;
}

static dm_status wrong_kind(const dm_gguf *file, const gguf_value *value, const char *expected) {
    bool array = value->kind == DM_GGUF_ARRAY;
    return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is of kind %s%s, expected %s", file->path, value->key, array ? "array of " : "",
                   dm_gguf_kind_name(array ? value->element : value->kind), expected);
}

/* ---- Numbers ---- */

/* A number as stored, in the widest form of its kind. */
typedef struct number {
    enum { NUMBER_UNSIGNED, NUMBER_SIGNED, NUMBER_FLOAT, NUMBER_BOOL, NUMBER_NONE } form;
    uint64_t u;
    int64_t i;
    double f;
} number;

static number unsigned_number(uint64_t value) {
    return (number){.form = NUMBER_UNSIGNED, .u = value};
}

static number signed_number(int64_t value) {
    return (number){.form = NUMBER_SIGNED, .i = value};
}

#define LOAD(type, make)                                                                                                         \
    do {                                                                                                                         \
        type loaded;                                                                                                             \
        memcpy(&loaded, data, sizeof loaded);                                                                                    \
        return make;                                                                                                             \
    } while (0)

static number load_number(uint32_t kind, const uint8_t *data) {
    switch (kind) {
    case DM_GGUF_U8:
        LOAD(uint8_t, unsigned_number(loaded));
    case DM_GGUF_U16:
        LOAD(uint16_t, unsigned_number(loaded));
    case DM_GGUF_U32:
        LOAD(uint32_t, unsigned_number(loaded));
    case DM_GGUF_U64:
        LOAD(uint64_t, unsigned_number(loaded));
    case DM_GGUF_I8:
        LOAD(int8_t, signed_number(loaded));
    case DM_GGUF_I16:
        LOAD(int16_t, signed_number(loaded));
    case DM_GGUF_I32:
        LOAD(int32_t, signed_number(loaded));
    case DM_GGUF_I64:
        LOAD(int64_t, signed_number(loaded));
    case DM_GGUF_F32:
        LOAD(float, ((number){.form = NUMBER_FLOAT, .f = (double)loaded}));
    case DM_GGUF_F64:
        LOAD(double, ((number){.form = NUMBER_FLOAT, .f = loaded}));
    case DM_GGUF_BOOL:
        LOAD(uint8_t, ((number){.form = NUMBER_BOOL, .u = loaded}));
    default:
        return (number){.form = NUMBER_NONE};
    }
}

static dm_status get_integer(const dm_gguf *file, const char *key, uint64_t largest, uint64_t *out) {
    const gguf_value *value = NULL;
    DM_TRY(find(file, key, "an integer", &value));
    number n = load_number(value->kind, value->data);
    if (n.form != NUMBER_UNSIGNED && n.form != NUMBER_SIGNED) {
        return wrong_kind(file, value, "an integer");
    }
    if (n.form == NUMBER_SIGNED && n.i < 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is %" PRId64 ", expected 0 to %" PRIu64, file->path, key, n.i, largest);
    }
    *out = n.form == NUMBER_SIGNED ? (uint64_t)n.i : n.u;
    if (*out > largest) {
        return dm_fail(DM_ERR_FORMAT, "%s: key '%s' is %" PRIu64 ", expected 0 to %" PRIu64, file->path, key, *out, largest);
    }
    return DM_OK;
}

dm_status dm_gguf_get_u32(const dm_gguf *file, const char *key, uint32_t *out) {
    uint64_t value = 0;
    DM_TRY(get_integer(file, key, UINT32_MAX, &value));
    *out = (uint32_t)value;
    return DM_OK;
}

dm_status dm_gguf_get_u32_or(const dm_gguf *file, const char *key, uint32_t fallback, uint32_t *out) {
    *out = fallback;
    return dm_gguf_has(file, key) ? dm_gguf_get_u32(file, key, out) : DM_OK;
}

dm_status dm_gguf_get_u64(const dm_gguf *file, const char *key, uint64_t *out) {
    return get_integer(file, key, UINT64_MAX, out);
}

dm_status dm_gguf_get_f64(const dm_gguf *file, const char *key, double *out) {
    const gguf_value *value = NULL;
    DM_TRY(find(file, key, "a number", &value));
    number n = load_number(value->kind, value->data);
    if (n.form != NUMBER_FLOAT) {
        return wrong_kind(file, value, "f32 or f64");
    }
    *out = n.f;
    return DM_OK;
}

dm_status dm_gguf_get_f32(const dm_gguf *file, const char *key, float *out) {
    double value = 0;
    DM_TRY(dm_gguf_get_f64(file, key, &value));
    *out = (float)value;
    return DM_OK;
}

dm_status dm_gguf_get_f32_or(const dm_gguf *file, const char *key, float fallback, float *out) {
    *out = fallback;
    return dm_gguf_has(file, key) ? dm_gguf_get_f32(file, key, out) : DM_OK;
}

dm_status dm_gguf_get_bool_or(const dm_gguf *file, const char *key, bool fallback, bool *out) {
    const gguf_value *value = dm_gguf_find_value(file, key);
    *out = fallback;
    if (value == NULL) {
        return DM_OK;
    }
    if (value->kind != DM_GGUF_BOOL) {
        return wrong_kind(file, value, "bool");
    }
    *out = *value->data != 0;
    return DM_OK;
}

/* ---- Strings and arrays ---- */

dm_status dm_gguf_get_string(const dm_gguf *file, const char *key, dm_gguf_string *out) {
    const gguf_value *value = NULL;
    DM_TRY(find(file, key, "a string", &value));
    if (value->kind != DM_GGUF_STRING) {
        return wrong_kind(file, value, "string");
    }
    *out = (dm_gguf_string){(const char *)value->data, value->count};
    return DM_OK;
}

dm_status dm_gguf_count(const dm_gguf *file, const char *key, uint64_t *count) {
    const gguf_value *value = NULL;
    DM_TRY(find(file, key, "an array", &value));
    if (value->kind != DM_GGUF_ARRAY) {
        return wrong_kind(file, value, "an array");
    }
    *count = value->count;
    return DM_OK;
}

static dm_status find_array(const dm_gguf *file, const char *key, dm_gguf_kind kind, const gguf_value **out) {
    char expected[32];
    snprintf(expected, sizeof expected, "array of %s", dm_gguf_kind_name(kind));
    DM_TRY(find(file, key, expected, out));
    if ((*out)->kind != DM_GGUF_ARRAY || (*out)->element != (uint32_t)kind) {
        return wrong_kind(file, *out, expected);
    }
    return DM_OK;
}

dm_status dm_gguf_get_array(const dm_gguf *file, const char *key, dm_gguf_kind kind, const void **data, uint64_t *count) {
    if (dm_gguf_kind_size(kind) == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: key '%s': elements of kind %d have no fixed size", file->path, key, (int)kind);
    }
    const gguf_value *value = NULL;
    DM_TRY(find_array(file, key, kind, &value));
    *data = value->data;
    *count = value->count;
    return DM_OK;
}

/* The string at `at` in an array's value; *at moves behind it. Its length was checked when the file was opened: one that no
 * longer fits was changed since by another process, and is cut. */
static dm_gguf_string next_string(const gguf_value *value, const uint8_t **at) {
    uint64_t length = 0, left = (uint64_t)(value->raw + value->raw_size - *at);
    if (left < sizeof length) {
        return (dm_gguf_string){"", 0};
    }
    memcpy(&length, *at, sizeof length);
    left -= sizeof length;
    dm_gguf_string string = {(const char *)*at + sizeof length, length < left ? length : left};
    *at += sizeof length + string.length;
    return string;
}

dm_status dm_gguf_get_strings(const dm_gguf *file, const char *key, dm_gguf_string **out, uint64_t *count) {
    *out = NULL;
    *count = 0;
    const gguf_value *value = NULL;
    DM_TRY(find_array(file, key, DM_GGUF_STRING, &value));
    /* every string takes 8 bytes of the file at least, so this cannot overflow nor outgrow the file much */
    dm_gguf_string *strings = malloc((size_t)(value->count + 1) * sizeof *strings);
    if (strings == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory reading the %" PRIu64 " strings of '%s'", file->path, value->count, key);
    }
    const uint8_t *at = value->data;
    for (uint64_t i = 0; i < value->count; i++) {
        strings[i] = next_string(value, &at);
    }
    *out = strings;
    *count = value->count;
    return DM_OK;
}

/* ---- Text for people ---- */

void dm_gguf_clean_text(dm_gguf_string string, char *text, size_t size) {
    size_t used = 0;
    for (uint64_t i = 0; i < string.length;) {
        uint32_t code = 0;
        size_t length = dm_utf8_decode(string.bytes + i, (size_t)(string.length - i), &code);
        bool usable = length != 0 && !dm_utf8_is_control(code);
        size_t add = usable ? length : 1;
        if (used + add >= size) {
            break;
        }
        memcpy(text + used, usable ? string.bytes + i : "?", add);
        used += add;
        i += length != 0 ? length : 1;
    }
    if (size != 0) {
        text[used] = '\0';
    }
}

/* A growing text in a buffer that may be too small. */
typedef struct text_out {
    char *text;
    size_t size, used;
} text_out;

static void put(text_out *out, const char *piece) {
    size_t length = strlen(piece);
    size_t room = out->size - out->used - 1;
    memcpy(out->text + out->used, piece, length < room ? length : room);
    out->used += length < room ? length : room;
    out->text[out->used] = '\0';
}

static void put_string(text_out *out, dm_gguf_string string) {
    enum { LONGEST = 120 };
    char piece[LONGEST + 1];
    dm_gguf_clean_text(string, piece, sizeof piece);
    put(out, "\"");
    put(out, piece);
    put(out, string.length > LONGEST ? "...\"" : "\"");
}

static void put_number(text_out *out, number n) {
    char piece[40];
    switch (n.form) {
    case NUMBER_UNSIGNED:
        snprintf(piece, sizeof piece, "%" PRIu64, n.u);
        break;
    case NUMBER_SIGNED:
        snprintf(piece, sizeof piece, "%" PRId64, n.i);
        break;
    case NUMBER_FLOAT:
        snprintf(piece, sizeof piece, "%.7g", n.f);
        break;
    case NUMBER_BOOL:
        snprintf(piece, sizeof piece, "%s", n.u != 0 ? "true" : "false");
        break;
    default:
        snprintf(piece, sizeof piece, "...");
    }
    put(out, piece);
}

static void put_array(text_out *out, const gguf_value *value) {
    enum { SHOWN = 8 };
    char head[64];
    snprintf(head, sizeof head, "[%" PRIu64 " x %s", value->count, dm_gguf_kind_name(value->element));
    put(out, head);
    const uint8_t *at = value->data;
    for (uint64_t i = 0; i < value->count && i <= SHOWN && value->element != DM_GGUF_ARRAY; i++) {
        put(out, i == 0 ? ": " : ", ");
        if (i == SHOWN) {
            put(out, "...");
        } else if (value->element == DM_GGUF_STRING) {
            put_string(out, next_string(value, &at));
        } else {
            put_number(out, load_number(value->element, at));
            at += dm_gguf_kind_size(value->element);
        }
    }
    put(out, "]");
}

void dm_gguf_describe(const dm_gguf *file, size_t index, char *text, size_t size) {
    if (size == 0) {
        return;
    }
    const gguf_value *value = &file->values[index];
    text_out out = {text, size, 0};
    text[0] = '\0';
    if (value->kind == DM_GGUF_STRING) {
        put_string(&out, (dm_gguf_string){(const char *)value->data, value->count});
    } else if (value->kind == DM_GGUF_ARRAY) {
        put_array(&out, value);
    } else {
        put_number(&out, load_number(value->kind, value->data));
    }
    text[dm_utf8_valid_prefix(text, out.used)] = '\0'; /* the end of the buffer may have torn a character */
}
