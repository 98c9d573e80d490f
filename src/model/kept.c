#include "model/kept.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "kernels/panels.h"
#include "model/fingerprint.h"

enum { VERSION = 1 };

static const char magic[8] = {'D', 'M', 'P', 'A', 'N', 'E', 'L', 'S'};

dm_kept_header dm_kept_header_of(const dm_model *model, size_t matrices, size_t bytes) {
    dm_kept_header header = {.version = VERSION, .layout = DM_PANEL_LAYOUT, .matrices = matrices, .bytes = bytes};
    memcpy(header.magic, magic, sizeof magic);
    header.model = dm_model_fingerprint(model);
    header.stamp = dm_gguf_stamp(model->file);
    return header;
}

/* Of a header whose matrices and bytes are believed. */
static size_t panels_at(const dm_kept_header *header) {
    size_t end = sizeof *header + (size_t)header->matrices * sizeof(uint64_t);
    return (end + DM_KEPT_ALIGNMENT - 1) / DM_KEPT_ALIGNMENT * DM_KEPT_ALIGNMENT;
}

uint64_t dm_kept_hash(const dm_kept_header *header, const uint64_t *checks) {
    uint64_t hash = dm_hash_bytes(header, offsetof(dm_kept_header, hash), 0);
    return dm_hash_bytes(checks, (size_t)header->matrices * sizeof *checks, hash);
}

/* ---- Places ---- */

/* Number 0 or 1. False where there is none, for want of a home or of length. */
static bool place_at(const dm_model *model, int number, char *path, size_t size) {
    if (number > 0) {
        char name[48];
        snprintf(name, sizeof name, "panels/%016" PRIx64 ".panels", dm_gguf_stamp(model->file));
        return dm_cache_path(name, path, size);
    }
    int length = snprintf(path, size, "%s.panels", dm_gguf_path(model->file));
    return length > 0 && (size_t)length < size;
}

bool dm_kept_exists(const dm_model *model) {
    char path[DM_KEPT_PATH];
    for (int number = 0; number < 2; number++) {
        if (place_at(model, number, path, sizeof path) && access(path, F_OK) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- Reading ---- */

static dm_status check_header(const char *path, const dm_kept_header *found, const dm_kept_header *wanted) {
    if (memcmp(found->magic, wanted->magic, sizeof wanted->magic) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: does not hold a repacked model", path);
    }
    if (found->version != wanted->version || found->layout != wanted->layout) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: is of another version of dilmodeli", path);
    }
    if (found->model != wanted->model || found->stamp != wanted->stamp) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: was made from another model, or the model has changed since", path);
    }
    if (found->matrices != wanted->matrices || found->bytes != wanted->bytes) {
        return dm_fail(DM_ERR_FORMAT, "%s: is damaged: it has another number of weights than its model", path);
    }
    return DM_OK;
}

static dm_status check_file(const char *path, const dm_kept_header *wanted, dm_kept *kept) {
    dm_kept_header found;
    if (kept->map.size < sizeof found) {
        return dm_fail(DM_ERR_FORMAT, "%s: does not hold a repacked model (it has %zu bytes)", path, kept->map.size);
    }
    memcpy(&found, kept->map.data, sizeof found);
    DM_TRY(check_header(path, &found, wanted));
    size_t at = panels_at(wanted), expected = at + (size_t)wanted->bytes;
    if (kept->map.size != expected) {
        return dm_fail(DM_ERR_FORMAT, "%s: is damaged: it has %zu bytes, expected %zu", path, kept->map.size, expected);
    }
    kept->checks = (const uint64_t *)(const void *)(kept->map.data + sizeof found);
    kept->panels = kept->map.data + at;
    if (dm_kept_hash(&found, kept->checks) != found.hash) {
        return dm_fail(DM_ERR_FORMAT, "%s: is damaged: its header is not what was written", path);
    }
    return DM_OK;
}

dm_status dm_kept_open(const char *path, const dm_kept_header *wanted, dm_kept *out) {
    *out = (dm_kept){0};
    dm_kept kept = {0};
    DM_TRY(dm_map_open(path, &kept.map));
    dm_status status = check_file(path, wanted, &kept);
    if (status != DM_OK) {
        dm_kept_close(&kept);
        return status;
    }
    *out = kept;
    return DM_OK;
}

void dm_kept_close(dm_kept *kept) {
    dm_map_close(&kept->map);
    *kept = (dm_kept){0};
}

dm_status dm_kept_find(const dm_model *model, const dm_kept_header *wanted, char *path, size_t size, dm_kept *out) {
    dm_status status = DM_OK;
    *out = (dm_kept){0};
    for (int number = 0; number < 2; number++) {
        char candidate[DM_KEPT_PATH];
        if (!place_at(model, number, candidate, sizeof candidate) || access(candidate, F_OK) != 0) {
            continue;
        }
        snprintf(path, size, "%s", candidate);
        status = dm_kept_open(candidate, wanted, out);
        if (status == DM_OK) {
            return DM_OK;
        }
    }
    return status;
}

/* ---- Writing ---- */

/* The first place that lets a file be made. */
static dm_status start(const dm_model *model, dm_replace *out) {
    char path[DM_KEPT_PATH];
    dm_status status = dm_fail(DM_ERR_IO, "%s: there is no place for a file beside it", dm_gguf_path(model->file));
    for (int number = 0; number < 2; number++) {
        if (!place_at(model, number, path, sizeof path)) {
            continue;
        }
        if (number > 0) {
            char *slash = strrchr(path, '/');
            *slash = '\0';
            dm_status made = dm_make_directory(path);
            *slash = '/';
            DM_TRY(made);
        }
        status = dm_replace_open(path, out);
        if (status == DM_OK) {
            return DM_OK;
        }
    }
    return status;
}

dm_status dm_kept_write(const dm_model *model, const dm_kept_header *header, const uint64_t *checks, const uint8_t *panels,
                        char *path, size_t size) {
    static const uint8_t zeros[DM_KEPT_ALIGNMENT];
    dm_replace file;
    dm_kept_header whole = *header;
    whole.hash = dm_kept_hash(header, checks);
    DM_TRY(start(model, &file));
    size_t before = sizeof whole + (size_t)whole.matrices * sizeof *checks;
    fwrite(&whole, sizeof whole, 1, file.stream); /* errors are reported when the file is committed */
    fwrite(checks, sizeof *checks, (size_t)whole.matrices, file.stream);
    fwrite(zeros, 1, panels_at(&whole) - before, file.stream);
    fwrite(panels, 1, (size_t)whole.bytes, file.stream);
    snprintf(path, size, "%s", file.path);
    return dm_replace_commit(&file);
}
