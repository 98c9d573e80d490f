#include "model/mixed_tensor.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"

bool dm_tensor_is_mixed(const dm_gguf_tensor *tensor) {
    return tensor->type == DM_TYPE_I8 && dm_mixed_claims(tensor->data, (size_t)tensor->bytes);
}

static dm_status check_version(const dm_gguf *file, const dm_tensor_spec *spec) {
    uint32_t version;
    DM_TRY(dm_gguf_get_u32(file, DM_KEY_FORMAT, &version));
    if (version != DM_MIXED_VERSION) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: key '%s' is %" PRIu32 ", expected %d: another version of this program wrote it",
                       dm_gguf_path(file), DM_KEY_FORMAT, version, DM_MIXED_VERSION);
    }
    if (spec->n_dims == 1) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: tensor '%s' has mixed-width panels, expected F32", dm_gguf_path(file),
                       spec->name);
    }
    return DM_OK;
}

static dm_status add(dm_mixed_tables *tables, dm_mixed_header *matrix) {
    if (tables->n == tables->room) {
        const size_t room = tables->room > 0 ? 2 * tables->room : 64;
        dm_mixed_header **of = realloc(tables->of, room * sizeof(dm_mixed_header *));
        if (of == NULL) {
            dm_free(matrix);
            return dm_fail(DM_ERR_MEMORY, "out of memory for the tables of %zu matrices", room);
        }
        tables->of = of;
        tables->room = room;
    }
    tables->of[tables->n++] = matrix;
    return DM_OK;
}

/* Matrices one after another fill the tensor. */
static dm_status read_all(const dm_gguf_tensor *tensor, const dm_tensor_spec *spec, dm_mixed_tables *tables) {
    size_t at = 0, bytes = (size_t)tensor->bytes;
    for (uint64_t i = 0; i < spec->dims[2]; i++) {
        dm_mixed_header *matrix;
        DM_TRY(dm_mixed_copy((const uint8_t *)tensor->data + at, bytes - at, spec->dims[1], spec->dims[0], &matrix));
        at += matrix->bytes;
        DM_TRY(add(tables, matrix));
    }
    return at == bytes ? DM_OK
                       : dm_fail(DM_ERR_FORMAT, "%" PRIu64 " matrices of mixed-width panels take %zu bytes, but there are %zu",
                                 spec->dims[2], at, bytes);
}

dm_status dm_tensor_read_mixed(const dm_gguf *file, const dm_gguf_tensor *tensor, const dm_tensor_spec *spec,
                               dm_mixed_tables *tables, size_t *first) {
    *first = tables->n;
    DM_TRY(check_version(file, spec));
    dm_status status = read_all(tensor, spec, tables);
    if (status == DM_OK) {
        return DM_OK;
    }
    char where[512];
    snprintf(where, sizeof where, "%.300s: tensor '%s'", dm_gguf_path(file), spec->name);
    return dm_fail_in(status, where);
}

void dm_mixed_tables_free(dm_mixed_tables *tables) {
    for (size_t i = 0; i < tables->n; i++) {
        dm_free(tables->of[i]);
    }
    free(tables->of);
    *tables = (dm_mixed_tables){0};
}
