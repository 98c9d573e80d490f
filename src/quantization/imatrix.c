#include "quantization/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/gguf.h"

enum { CHUNK = 512 }; /* tokens: llama.cpp counts in pieces of text, of this many by default */

dm_status dm_imatrix_create(const dm_config *config, dm_imatrix *out) {
    const size_t slots = dm_calibration_slots(config);
    *out = (dm_imatrix){.offsets = dm_alloc(slots + 1, sizeof *out->offsets)};
    if (out->offsets == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < slots; i++) {
        out->offsets[i + 1] = out->offsets[i] + dm_calibration_slot_at(config, i).columns;
    }
    out->means = dm_alloc(out->offsets[slots], sizeof *out->means);
    out->counts = dm_alloc(slots, sizeof *out->counts);
    out->there = dm_alloc(slots, sizeof *out->there);
    return out->means != NULL && out->counts != NULL && out->there != NULL ? DM_OK : DM_ERR_MEMORY;
}

void dm_imatrix_free(dm_imatrix *imatrix) {
    dm_free(imatrix->offsets);
    dm_free(imatrix->means);
    dm_free(imatrix->counts);
    dm_free(imatrix->there);
    *imatrix = (dm_imatrix){0};
}

static size_t copies_of(const dm_config *config, dm_role role) {
    return dm_role_is_expert(role) ? (size_t)config->n_experts : 1;
}

/* The first slot of a layer's matrices of a role; SIZE_MAX where the model has none. */
static size_t first_slot(const dm_config *config, int32_t layer, dm_role role) {
    return dm_calibration_slot_of(config, layer, role, dm_role_is_expert(role) ? 0 : -1);
}

/* ---- Reading ---- */

/* One entry of a file: sums or means of `n` values over `n_counts` counts. */
typedef struct entry {
    const char *name; /* of the tensor, "blk.0.attn_q.weight" */
    size_t length;
    const uint8_t *values; /* [n] float32, perhaps unaligned */
    uint64_t n;
    const uint8_t *counts; /* [n_counts] float32; NULL: calls, the values being as many times too large */
    uint64_t n_counts;
    double calls;
} entry;

static double number_at(const uint8_t *data, uint64_t i) {
    float value;
    memcpy(&value, data + i * sizeof value, sizeof value);
    return (double)value;
}

/* Where an entry belongs; false for tensors that are none of the model's matrices. */
static bool find_entry(const dm_config *config, const entry *e, size_t *slot, size_t *copies) {
    static const char suffix[] = ".weight";
    const size_t tail = sizeof suffix - 1;
    int32_t layer;
    dm_role role;
    if (e->length <= tail || memcmp(e->name + e->length - tail, suffix, tail) != 0 ||
        !dm_calibration_parse(config, e->name, e->length - tail, &layer, &role)) {
        return false;
    }
    *slot = first_slot(config, layer, role);
    *copies = copies_of(config, role);
    return true;
}

/* Columns of one slot. */
static dm_status take_slot(const char *path, const entry *e, uint64_t first, double count, dm_imatrix *out, size_t slot) {
    for (size_t i = 0; i < out->offsets[slot + 1] - out->offsets[slot]; i++) {
        const double value = number_at(e->values, first + i);
        if (!isfinite(value) || value < 0.0) {
            return dm_fail(DM_ERR_FORMAT, "%s: value %" PRIu64 " of %.*s is %g, expected 0 or more", path, first + i,
                           (int)e->length, e->name, value);
        }
        const double divisor = e->counts != NULL ? count : e->calls;
        out->means[out->offsets[slot] + i] = divisor > 0.0 ? (float)(value / divisor) : 0.0f;
    }
    out->there[slot] = true;
    out->counts[slot] = count;
    return DM_OK;
}

static dm_status take_entry(const char *path, const dm_config *config, const entry *e, dm_imatrix *out) {
    size_t slot, copies;
    if (!find_entry(config, e, &slot, &copies) || out->there[slot]) {
        return DM_OK;
    }
    const size_t columns = out->offsets[slot + 1] - out->offsets[slot];
    if (e->n != columns * copies || (e->counts != NULL && e->n_counts != 1 && e->n_counts != copies)) {
        return dm_fail(DM_ERR_FORMAT, "%s: %.*s has %" PRIu64 " values and %" PRIu64 " counts, expected %zu x %zu values", path,
                       (int)e->length, e->name, e->n, e->n_counts, columns, copies);
    }
    for (size_t i = 0; i < copies; i++) {
        const double count = e->counts != NULL ? number_at(e->counts, e->n_counts > 1 ? i : 0) : e->calls * CHUNK;
        if (!isfinite(count) || count < 0.0) {
            return dm_fail(DM_ERR_FORMAT, "%s: a count of %.*s is %g, expected 0 or more", path, (int)e->length, e->name, count);
        }
        DM_TRY(take_slot(path, e, i * columns, count, out, slot + i));
        if (copies == 1 && count > (double)out->tokens && count < 1e18) {
            out->tokens = (uint64_t)count;
        }
    }
    out->per_expert = out->per_expert || e->n_counts > 1;
    return DM_OK;
}

static dm_status read_gguf(const char *path, const dm_config *config, const dm_gguf *file, dm_imatrix *out) {
    static const char suffix[] = ".in_sum2";
    const size_t tail = sizeof suffix - 1;
    for (size_t i = 0; i < dm_gguf_n_tensors(file); i++) {
        const dm_gguf_tensor *sums = dm_gguf_tensor_at(file, i);
        const size_t length = strlen(sums->name);
        char name[128];
        if (length <= tail || strcmp(sums->name + length - tail, suffix) != 0 || length >= sizeof name) {
            continue;
        }
        snprintf(name, sizeof name, "%.*s.counts", (int)(length - tail), sums->name);
        const dm_gguf_tensor *counts = dm_gguf_find_tensor(file, name);
        if (sums->type != DM_TYPE_F32 || counts == NULL || counts->type != DM_TYPE_F32) {
            return dm_fail(DM_ERR_FORMAT, "%s: entry %zu: expected sums and counts of float32", path, i);
        }
        const entry e = {sums->name, length - tail, sums->data, sums->elements, counts->data, counts->elements, 0.0};
        DM_TRY(take_entry(path, config, &e, out));
    }
    return DM_OK;
}

/* A file of the older format being read. */
typedef struct cursor {
    const uint8_t *at;
    size_t left;
} cursor;

static bool take_int(cursor *from, int32_t *out) {
    if (from->left < sizeof *out) {
        return false;
    }
    memcpy(out, from->at, sizeof *out);
    from->at += sizeof *out;
    from->left -= sizeof *out;
    return true;
}

static const uint8_t *take_bytes(cursor *from, size_t n) {
    const uint8_t *at = from->at;
    if (n > from->left) {
        return NULL;
    }
    from->at += n;
    from->left -= n;
    return at;
}

static bool take_next(cursor *from, entry *e) {
    int32_t length, calls, values;
    *e = (entry){0};
    if (!take_int(from, &length) || length <= 0 || (e->name = (const char *)take_bytes(from, (size_t)length)) == NULL) {
        return false;
    }
    if (!take_int(from, &calls) || calls < 0 || !take_int(from, &values) || values <= 0) {
        return false;
    }
    e->length = (size_t)length;
    e->calls = calls;
    e->n = (uint64_t)values;
    e->values = take_bytes(from, (size_t)values * sizeof(float));
    return e->values != NULL;
}

static dm_status read_old(const char *path, const dm_config *config, cursor from, dm_imatrix *out) {
    int32_t entries;
    if (!take_int(&from, &entries) || entries < 1) {
        return dm_fail(DM_ERR_FORMAT, "%s: this is no importance matrix: expected a number of entries first", path);
    }
    for (int32_t i = 0; i < entries; i++) {
        entry e;
        if (!take_next(&from, &e)) {
            return dm_fail(DM_ERR_FORMAT, "%s: entry %" PRId32 " of %" PRId32 " is damaged or cut short", path, i + 1, entries);
        }
        DM_TRY(take_entry(path, config, &e, out));
    }
    return DM_OK; /* what follows says how many calls there were, and the name of the text */
}

static bool is_gguf(const dm_map *map) {
    return map->size >= 4 && memcmp(map->data, "GGUF", 4) == 0;
}

/* The older format has no mark: its first entry begins with the name of a tensor. */
static bool is_old(const dm_map *map) {
    cursor from = {map->data, map->size};
    int32_t entries, length;
    return take_int(&from, &entries) && entries > 0 && take_int(&from, &length) && length > 4 && length < 128 &&
           (size_t)length <= from.left && (memcmp(from.at, "blk.", 4) == 0 || memcmp(from.at, "outp", 4) == 0);
}

static bool is_gguf_imatrix(const char *path) {
    dm_gguf *file;
    dm_gguf_string type = {NULL, 0};
    if (dm_gguf_open(path, &file) != DM_OK) {
        return false;
    }
    bool is = dm_gguf_has(file, "general.type") && dm_gguf_get_string(file, "general.type", &type) == DM_OK &&
              type.length == strlen("imatrix") && memcmp(type.bytes, "imatrix", type.length) == 0;
    dm_gguf_close(file);
    return is;
}

bool dm_imatrix_is(const char *path) {
    dm_map map;
    if (dm_map_open(path, &map) != DM_OK) {
        return false;
    }
    bool is = is_gguf(&map) ? is_gguf_imatrix(path) : is_old(&map);
    dm_map_close(&map);
    return is;
}

static dm_status read_map(const char *path, const dm_config *config, const dm_map *map, dm_imatrix *out) {
    dm_gguf *file;
    if (!is_gguf(map)) {
        return read_old(path, config, (cursor){map->data, map->size}, out);
    }
    DM_TRY(dm_gguf_open(path, &file));
    dm_status status = read_gguf(path, config, file, out);
    dm_gguf_close(file);
    return status;
}

static bool is_empty(const dm_config *config, const dm_imatrix *imatrix) {
    for (size_t i = 0; i < dm_calibration_slots(config); i++) {
        if (imatrix->there[i]) {
            return false;
        }
    }
    return true;
}

dm_status dm_imatrix_read(const char *path, const dm_config *config, dm_imatrix *out) {
    dm_map map;
    *out = (dm_imatrix){0};
    DM_TRY(dm_map_open(path, &map));
    dm_status status = dm_imatrix_create(config, out);
    status = status == DM_OK ? read_map(path, config, &map, out) : status;
    if (status == DM_OK && is_empty(config, out)) {
        status = dm_fail(DM_ERR_FORMAT, "%s: an importance matrix of none of this model's tensors", path);
    }
    dm_map_close(&map);
    if (status != DM_OK) {
        dm_imatrix_free(out);
    }
    return status;
}

/* ---- Writing ---- */

/* Calls of `each` for every tensor that is there. */
typedef void (*tensor_fn)(void *user, const char *name, size_t slot, size_t copies);

static void for_tensors(const dm_config *config, const dm_imatrix *imatrix, tensor_fn each, void *user) {
    for (int32_t layer = -1; layer < config->n_layers; layer++) {
        for (int r = 0; r < DM_ROLES; r++) {
            const dm_role role = (dm_role)r;
            const size_t slot = first_slot(config, layer, role);
            char base[64], name[96];
            if (slot == SIZE_MAX || !imatrix->there[slot] || (role == DM_OUTPUT && config->tied_output)) {
                continue;
            }
            dm_calibration_name(layer, role, base, sizeof base);
            snprintf(name, sizeof name, "%s.weight", base);
            each(user, name, slot, copies_of(config, role));
        }
    }
}

typedef struct writing {
    const dm_imatrix *imatrix;
    dm_gguf_writer *writer;
    FILE *stream;
    float *sums, *counts; /* like `means` and imatrix->counts */
    int32_t entries;
} writing;

static void write_int(FILE *stream, int32_t value) {
    fwrite(&value, sizeof value, 1, stream); /* an error is reported when the file is committed */
}

static void count_entry(void *user, const char *name, size_t slot, size_t copies) {
    writing *w = user;
    (void)name;
    (void)slot;
    (void)copies;
    w->entries++;
}

static int32_t calls_of(double count) {
    const double calls = ceil(count / CHUNK);
    return calls < 1.0 ? 1 : calls < 1e9 ? (int32_t)calls : 1000000000;
}

static void write_entry(void *user, const char *name, size_t slot, size_t copies) {
    const writing *w = user;
    const dm_imatrix *m = w->imatrix;
    double most = 0.0;
    for (size_t i = slot; i < slot + copies; i++) {
        most = m->counts[i] > most ? m->counts[i] : most;
    }
    const int32_t calls = calls_of(most);
    write_int(w->stream, (int32_t)strlen(name));
    fwrite(name, 1, strlen(name), w->stream);
    write_int(w->stream, calls);
    write_int(w->stream, (int32_t)(m->offsets[slot + copies] - m->offsets[slot]));
    for (size_t i = slot; i < slot + copies; i++) {
        for (size_t j = m->offsets[i]; j < m->offsets[i + 1]; j++) {
            const float value =
                (m->counts[i] > 0.0 ? m->means[j] : 1.0f) * (float)calls; /* as others say that nothing is known */
            fwrite(&value, sizeof value, 1, w->stream);
        }
    }
}

static dm_status write_old(const char *path, const dm_config *config, writing *w) {
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    w->stream = file.stream;
    for_tensors(config, w->imatrix, count_entry, w);
    write_int(w->stream, w->entries);
    for_tensors(config, w->imatrix, write_entry, w);
    write_int(w->stream, calls_of((double)w->imatrix->tokens));
    write_int(w->stream, 0); /* no name of a text */
    return dm_replace_commit(&file);
}

static void add_entry(void *user, const char *name, size_t slot, size_t copies) {
    const writing *w = user;
    const dm_imatrix *m = w->imatrix;
    const uint64_t columns = m->offsets[slot + 1] - m->offsets[slot];
    const uint64_t sums_dims[] = {columns, copies}, counts_dims[] = {1, copies};
    char full[128];
    snprintf(full, sizeof full, "%s.in_sum2", name);
    dm_gguf_add_tensor(w->writer, full, DM_TYPE_F32, sums_dims, 2, w->sums + m->offsets[slot]);
    snprintf(full, sizeof full, "%s.counts", name);
    dm_gguf_add_tensor(w->writer, full, DM_TYPE_F32, counts_dims, 2, w->counts + slot);
}

static dm_status write_gguf(const char *path, const dm_config *config, writing *w) {
    static const dm_gguf_string nameless = {"", 0};
    w->writer = dm_gguf_writer_create();
    if (w->writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_gguf_add_string(w->writer, "general.type", "imatrix");
    dm_gguf_add_strings(w->writer, "imatrix.datasets", &nameless, 1);
    dm_gguf_add_u32(w->writer, "imatrix.chunk_count", (uint32_t)calls_of((double)w->imatrix->tokens));
    dm_gguf_add_u32(w->writer, "imatrix.chunk_size", CHUNK);
    for_tensors(config, w->imatrix, add_entry, w);
    dm_status status = dm_gguf_writer_finish(w->writer, path);
    dm_gguf_writer_free(w->writer);
    return status;
}

static bool ends_in(const char *path, const char *suffix) {
    const size_t length = strlen(path), tail = strlen(suffix);
    return length >= tail && strcmp(path + length - tail, suffix) == 0;
}

dm_status dm_imatrix_write(const char *path, const dm_config *config, const dm_imatrix *imatrix) {
    const size_t slots = dm_calibration_slots(config);
    writing w = {.imatrix = imatrix};
    if (ends_in(path, ".dat")) {
        return write_old(path, config, &w);
    }
    w.sums = dm_alloc(imatrix->offsets[slots], sizeof *w.sums);
    w.counts = dm_alloc(slots, sizeof *w.counts);
    dm_status status = w.sums != NULL && w.counts != NULL ? DM_OK : DM_ERR_MEMORY;
    for (size_t i = 0; i < slots && status == DM_OK; i++) {
        w.counts[i] = (float)imatrix->counts[i];
        for (size_t j = imatrix->offsets[i]; j < imatrix->offsets[i + 1]; j++) {
            w.sums[j] = (float)((double)imatrix->means[j] * imatrix->counts[i]);
        }
    }
    status = status == DM_OK ? write_gguf(path, config, &w) : status;
    dm_free(w.sums);
    dm_free(w.counts);
    return status;
}
