#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "model/safetensors.h"

static json_t *entry_of(const dm_safetensor_plan *plan, uint64_t begin) {
    json_t *shape = json_array();
    for (uint32_t d = plan->n_dims; d > 0; d--) {
        json_array_append_new(shape, json_integer((json_int_t)plan->dims[d - 1]));
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dm_type_name((uint32_t)plan->type), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + plan->bytes));
}

/* The header as text (malloc); NULL when memory is short. */
static char *header_of(const dm_safetensor_plan *plans, size_t n) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt"); /* without it some programs refuse the file */
    uint64_t begin = 0;
    bool built = header != NULL;
    for (size_t i = 0; i < n && built; i++) {
        built = json_object_set_new(header, plans[i].name, entry_of(&plans[i], begin)) == 0;
        begin += plans[i].bytes;
    }
    char *text = built ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    return text;
}

/* Errors of the stream are left to the commit. */
static dm_status write_data(const dm_safetensor_plan *plan, void *piece, FILE *stream) {
    for (uint64_t first = 0; first < plan->elements && !ferror(stream); first += DM_GGUF_PIECE) {
        size_t n = plan->elements - first < DM_GGUF_PIECE ? (size_t)(plan->elements - first) : DM_GGUF_PIECE;
        DM_TRY(plan->maker(plan->user, first, n, piece));
        fwrite(piece, 1, dm_type_bytes(plan->type, n), stream);
    }
    return DM_OK;
}

static dm_status write_all(const dm_safetensor_plan *plans, size_t n, const char *path, FILE *stream) {
    char *header = header_of(plans, n);
    void *piece = malloc(DM_GGUF_PIECE * sizeof(float)); /* of the widest type */
    dm_status status = header != NULL && piece != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "%s: out of memory writing it", path);
    if (status == DM_OK) {
        size_t length = strlen(header);
        uint64_t padded = (length + 7) / 8 * 8; /* so that data starts aligned */
        fwrite(&padded, sizeof padded, 1, stream);
        fprintf(stream, "%s%*s", header, (int)(padded - length), "");
    }
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        status = write_data(&plans[i], piece, stream);
    }
    free(header);
    free(piece);
    return status;
}

dm_status dm_safetensors_write(const char *path, const dm_safetensor_plan *plans, size_t n) {
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    dm_status status = write_all(plans, n, path, file.stream);
    if (status != DM_OK) {
        dm_replace_abandon(&file);
        return status;
    }
    return dm_replace_commit(&file);
}
