/* JSON from files that nobody vouches for: bounded, UTF-8, no key twice; values are asked for with what is expected of them. */
#ifndef DM_BASE_JSON_H
#define DM_BASE_JSON_H

#include <jansson.h>

#include "base/status.h"

/* Parses `size` bytes, an object. `where` names them in messages. *out is the caller's to json_decref(). Whole numbers too
 * large for 64 bits are read as reals, as some programs write "no limit". */
dm_status dm_json_parse(const char *where, const char *bytes, size_t size, json_t **out);
/* The same of a file, of at most `most` bytes. */
dm_status dm_json_load(const char *path, size_t most, json_t **out);

/* An object to read from, with what messages call it. */
typedef struct dm_json_reader {
    const json_t *object;
    const char *path;
} dm_json_reader;

/* The value of `key`; NULL where it is missing or null. */
const json_t *dm_json_get(const dm_json_reader *from, const char *key);
/* Typed reads: `fallback` for a key that is missing or null, DM_ERR_FORMAT for a value of another kind. Whole numbers beyond
 * int32 are cut to its ends. */
dm_status dm_json_int_or(const dm_json_reader *from, const char *key, int32_t fallback, int32_t *out);
dm_status dm_json_float_or(const dm_json_reader *from, const char *key, float fallback, float *out);
dm_status dm_json_bool_or(const dm_json_reader *from, const char *key, bool fallback, bool *out);
/* *out belongs to the object; `fallback` may be NULL. */
dm_status dm_json_text_or(const dm_json_reader *from, const char *key, const char *fallback, const char **out);
/* The same for keys that must be there. */
dm_status dm_json_int(const dm_json_reader *from, const char *key, int32_t *out);

/* A string of any bytes; those that are no UTF-8 become U+FFFD. */
json_t *dm_json_bytes(const char *bytes, size_t length);

/* Writes `object` (taken over) as a file of a folder, atomically, indented for people. NULL, for want of memory, is reported. */
dm_status dm_json_save(json_t *object, const char *folder, const char *name);

#endif
