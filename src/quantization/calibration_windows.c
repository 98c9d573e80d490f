#include "quantization/calibration_windows.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"

dm_status dm_calibration_windows_create(const int32_t *ids, size_t n, int32_t bos, size_t length, uint64_t tokens, uint64_t seed,
                                        dm_calibration_windows *out) {
    *out = (dm_calibration_windows){.ids = ids, .n = n, .bos = bos, .length = length < n ? length : n};
    if (n == 0 || length == 0 || tokens == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "calibration wants at least one token: %zu in windows of %zu", n, length);
    }
    const bool whole = tokens >= n;
    const uint64_t wanted = whole ? n : tokens;
    out->count = (size_t)((wanted + out->length - 1) / out->length);
    if (!whole && out->count > n / out->length) {
        out->count = n / out->length;
    }
    out->starts = dm_alloc(out->count, sizeof *out->starts);
    if (out->starts == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < out->count; i++) {
        const size_t begin = (size_t)((double)n * (double)i / (double)out->count);
        const size_t end = i + 1 < out->count ? (size_t)((double)n * (double)(i + 1) / (double)out->count) : n;
        const size_t room = end - begin > out->length ? end - begin - out->length : 0;
        out->starts[i] = whole ? i * out->length : begin + (size_t)(dm_random_mix(seed + i) % (room + 1));
    }
    return DM_OK;
}

size_t dm_calibration_context(const dm_model *model, int32_t asked) {
    enum { USUAL = 512 };
    const int32_t most = model->config.context, wanted = asked > 0 ? asked : USUAL;
    return (size_t)(wanted < most ? wanted : most);
}

void dm_calibration_windows_free(dm_calibration_windows *windows) {
    dm_free(windows->starts);
    *windows = (dm_calibration_windows){0};
}

size_t dm_calibration_window(const dm_calibration_windows *w, size_t index, int32_t *ids) {
    const size_t start = w->starts[index], left = w->n - start, n = left < w->length ? left : w->length;
    if (ids != NULL) {
        memcpy(ids, w->ids + start, n * sizeof *ids);
        ids[0] = start > 0 && w->bos >= 0 ? w->bos : ids[0];
    }
    return n;
}

uint64_t dm_calibration_windows_tokens(const dm_calibration_windows *w) {
    uint64_t tokens = 0;
    for (size_t i = 0; i < w->count; i++) {
        tokens += dm_calibration_window(w, i, NULL);
    }
    return tokens;
}

dm_status dm_calibration_windows_hash(const dm_calibration_windows *w, uint64_t *hash) {
    int32_t *ids = dm_alloc(w->length, sizeof *ids);
    if (ids == NULL) {
        return DM_ERR_MEMORY;
    }
    *hash = w->length;
    for (size_t i = 0; i < w->count; i++) {
        const size_t n = dm_calibration_window(w, i, ids);
        *hash = dm_hash_bytes(ids, n * sizeof *ids, *hash);
    }
    dm_free(ids);
    return DM_OK;
}
