/*
 * Models split over several files, name-00001-of-00003.gguf and so on: the first holds the metadata, each some of the
 * tensors. Opening any of them opens all, as one.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf_internal.h"

#define COUNT_KEY DM_GGUF_SPLIT_PREFIX "count"
#define NUMBER_KEY DM_GGUF_SPLIT_PREFIX "no"
#define TENSORS_KEY DM_GGUF_SPLIT_PREFIX "tensors.count"
#define MOST_PARTS 99999u /* five digits in the name */

typedef struct split {
    uint32_t number, count; /* this part, from 0, of how many; count 1: not split */
} split;

static dm_status read_split(const dm_gguf *file, split *out) {
    *out = (split){0, 1};
    if (!dm_gguf_has(file, COUNT_KEY)) {
        return DM_OK;
    }
    DM_TRY(dm_gguf_get_u32(file, COUNT_KEY, &out->count));
    DM_TRY(dm_gguf_get_u32_or(file, NUMBER_KEY, 0, &out->number));
    if (out->count > MOST_PARTS || out->number >= out->count) {
        return dm_fail(DM_ERR_FORMAT, "%s: says to be part %" PRIu64 " of %" PRIu32 ", which cannot be", file->path,
                       (uint64_t)out->number + 1, out->count);
    }
    return DM_OK;
}

typedef struct ending {
    char text[32];
} ending;

static ending ending_of(const split *part) {
    ending out;
    snprintf(out.text, sizeof out.text, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", part->number + 1, part->count);
    return out;
}

/* Names of the parts differ in their endings only; *out is the caller's to free(). */
static dm_status part_path(const dm_gguf *opened, const split *as, uint32_t number, char **out) {
    ending own = ending_of(as), wanted = ending_of(&(split){number, as->count});
    size_t length = strlen(opened->path), end = strlen(own.text);
    if (length < end || strcmp(opened->path + length - end, own.text) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: is part %" PRIu32 " of %" PRIu32 " of a model: expected a name that ends in %s",
                       opened->path, as->number + 1, as->count, own.text);
    }
    *out = malloc(length - end + sizeof wanted.text);
    if (*out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory opening it", opened->path);
    }
    memcpy(*out, opened->path, length - end);
    memcpy(*out + length - end, wanted.text, sizeof wanted.text);
    return DM_OK;
}

/* Opens one part and checks that it is the one that its name says. */
static dm_status open_part(const dm_gguf *opened, const split *as, uint32_t number, dm_gguf **out) {
    char *path = NULL;
    split part;
    DM_TRY(part_path(opened, as, number, &path));
    dm_status status = dm_gguf_open_part(path, out);
    free(path);
    if (status == DM_OK) {
        status = read_split(*out, &part);
        if (status == DM_OK && (part.number != number || part.count != as->count)) {
            status =
                dm_fail(DM_ERR_FORMAT, "%s: says to be part %" PRIu32 " of %" PRIu32, (*out)->path, part.number + 1, part.count);
        }
    }
    if (status != DM_OK) {
        char context[64];
        snprintf(context, sizeof context, "part %" PRIu32 " of %" PRIu32, number + 1, as->count);
        dm_fail_in(status, context);
        return dm_fail_in(status, opened->path);
    }
    return DM_OK;
}

/* The tensors of `part` go over to `whole`, which keeps the part, where their data lie. */
static dm_status take_over(dm_gguf *whole, dm_gguf *part) {
    dm_gguf **parts = realloc(whole->parts, (whole->n_parts + 1) * sizeof(dm_gguf *));
    whole->parts = parts != NULL ? parts : whole->parts;
    size_t total = whole->n_tensors + part->n_tensors; /* both are far below what files of headers could hold */
    dm_gguf_tensor *tensors = parts != NULL ? realloc(whole->tensors, (total + 1) * sizeof *tensors) : NULL;
    if (tensors == NULL) {
        dm_gguf_close(part);
        return dm_fail(DM_ERR_MEMORY, "%s: out of memory opening it", whole->path);
    }
    if (part->n_tensors > 0) {
        memcpy(tensors + whole->n_tensors, part->tensors, part->n_tensors * sizeof *tensors);
    }
    whole->tensors = tensors;
    whole->n_tensors = total;
    part->n_tensors = 0; /* their names are the whole's now */
    whole->parts[whole->n_parts++] = part;
    return DM_OK;
}

static dm_status check_total(const dm_gguf *whole) {
    uint32_t stated = 0;
    if (!dm_gguf_has(whole, TENSORS_KEY)) {
        return DM_OK;
    }
    DM_TRY(dm_gguf_get_u32(whole, TENSORS_KEY, &stated));
    if (stated != whole->n_tensors) {
        return dm_fail(DM_ERR_FORMAT, "%s: its parts have %zu tensors, expected %" PRIu32, whole->path, whole->n_tensors, stated);
    }
    return DM_OK;
}

/* All parts as one file, which is the first part. */
static dm_status join(const dm_gguf *opened, const split *as, dm_gguf **out) {
    DM_TRY(open_part(opened, as, 0, out));
    for (uint32_t i = 1; i < as->count; i++) {
        dm_gguf *part = NULL;
        dm_status status = open_part(opened, as, i, &part);
        if (status != DM_OK) {
            dm_gguf_close(part);
            return status;
        }
        DM_TRY(take_over(*out, part));
    }
    DM_TRY(check_total(*out));
    return dm_gguf_index_tensors(*out);
}

dm_status dm_gguf_open(const char *path, dm_gguf **out) {
    *out = NULL;
    dm_gguf *file = NULL, *whole = NULL;
    split part;
    DM_TRY(dm_gguf_open_part(path, &file));
    dm_status status = read_split(file, &part);
    if (status == DM_OK && part.count > 1) {
        status = join(file, &part, &whole);
        dm_gguf_close(file);
        file = whole;
    }
    if (status != DM_OK) {
        dm_gguf_close(file);
        return status;
    }
    *out = file;
    return DM_OK;
}
