#include "model/mixed_tensor.h"

#include <inttypes.h>

bool dm_tensor_is_mixed(const dm_gguf_tensor *tensor) {
    return tensor->type == DM_TYPE_I8 && dm_mixed_claims(tensor->data, (size_t)tensor->bytes);
}

dm_status dm_tensor_check_mixed(const dm_gguf *file, const dm_gguf_tensor *tensor, const dm_tensor_spec *spec) {
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
    dm_status status = dm_mixed_check_stack(tensor->data, (size_t)tensor->bytes, spec->dims[2], spec->dims[1], spec->dims[0]);
    if (status == DM_OK) {
        return DM_OK;
    }
    char where[512];
    snprintf(where, sizeof where, "%.300s: tensor '%s'", dm_gguf_path(file), spec->name);
    return dm_fail_in(status, where);
}
