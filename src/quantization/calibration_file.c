#include "quantization/calibration_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- Names ---- */

void dm_calibration_product_name(const dm_calibration_slot *slot, char *out, size_t size) {
    char name[64];
    dm_calibration_name(slot->layer, slot->role, name, sizeof name);
    if (slot->expert >= 0) {
        snprintf(out, size, "%s.%" PRId32 ".h", name, slot->expert);
    } else {
        snprintf(out, size, "%s.h", name);
    }
}

void dm_calibration_slope_name(int32_t layer, dm_role role, char *out, size_t size) {
    char name[64];
    dm_calibration_name(layer, role, name, sizeof name);
    snprintf(out, size, "%s.d", name);
}

/* ---- Reading ---- */

dm_status dm_calibration_file_open(const char *path, dm_gguf **out) {
    dm_gguf_string type = {NULL, 0};
    uint32_t version = 0;
    DM_TRY(dm_gguf_open(path, out));
    dm_status status = dm_gguf_has(*out, "general.type") ? dm_gguf_get_string(*out, "general.type", &type) : DM_OK;
    if (status == DM_OK && (type.length != strlen("calibration") || memcmp(type.bytes, "calibration", type.length) != 0)) {
        status = dm_fail(DM_ERR_FORMAT, "%s: this is no file of statistics; `dilmodeli calibrate` writes them", path);
    }
    if (status == DM_OK) {
        status = dm_gguf_get_u32(*out, DM_CALIBRATION_KEY "version", &version);
    }
    if (status == DM_OK && version != DM_CALIBRATION_VERSION) {
        status = dm_fail(DM_ERR_UNSUPPORTED, "%s: statistics of version %" PRIu32 ", expected %d", path, version,
                         DM_CALIBRATION_VERSION);
    }
    if (status != DM_OK) {
        dm_gguf_close(*out);
        *out = NULL;
    }
    return status;
}

dm_status dm_calibration_numbers(const dm_gguf *file, const char *key, dm_gguf_kind kind, uint64_t count, void *out) {
    const void *data;
    uint64_t found;
    DM_TRY(dm_gguf_get_array(file, key, kind, &data, &found));
    if (found != count) {
        return dm_fail(DM_ERR_FORMAT, "%s: %s has %" PRIu64 " values, expected %" PRIu64, dm_gguf_path(file), key, found, count);
    }
    memcpy(out, data, count * sizeof(uint64_t));
    const double *numbers = out;
    for (uint64_t i = 0; kind == DM_GGUF_F64 && i < count; i++) {
        if (!isfinite(numbers[i]) || numbers[i] < 0.0) {
            return dm_fail(DM_ERR_FORMAT, "%s: value %" PRIu64 " of %s is %g, expected 0 or more", dm_gguf_path(file), i, key,
                           numbers[i]);
        }
    }
    return DM_OK;
}

dm_status dm_calibration_tensor(const dm_gguf *file, const char *name, uint64_t dim0, uint64_t dim1, const float **out) {
    const dm_gguf_tensor *tensor = dm_gguf_find_tensor(file, name);
    if (tensor == NULL) {
        return dm_fail(DM_ERR_FORMAT, "%s: tensor %s is missing", dm_gguf_path(file), name);
    }
    if (tensor->type != DM_TYPE_F32 || tensor->dims[0] != dim0 || tensor->dims[1] != dim1 || tensor->elements != dim0 * dim1) {
        return dm_fail(DM_ERR_FORMAT, "%s: expected tensor %s to be float32 of %" PRIu64 " x %" PRIu64, dm_gguf_path(file), name,
                       dim0, dim1);
    }
    *out = tensor->data;
    return DM_OK;
}

dm_status dm_calibration_check(const dm_gguf *file, const char *name, const float *numbers, uint64_t n, bool least) {
    for (uint64_t i = 0; i < n; i++) {
        if (!isfinite(numbers[i]) || (least && numbers[i] < 0.0f)) {
            return dm_fail(DM_ERR_FORMAT, "%s: number %" PRIu64 " of tensor %s is %g, expected %s", dm_gguf_path(file), i, name,
                           (double)numbers[i], least ? "0 or more" : "a finite one");
        }
    }
    return DM_OK;
}

static dm_status check_number(const dm_gguf *file, const char *key, uint64_t expected, uint64_t *out) {
    DM_TRY(dm_gguf_get_u64(file, key, out));
    return *out == expected ? DM_OK
                            : dm_fail(DM_ERR_ARGUMENT, "%s: %s is %" PRIu64 ", not %" PRIu64 ": it is of another calibration",
                                      dm_gguf_path(file), key, *out, expected);
}

static dm_status check_origin(const dm_gguf *file, const dm_calibration_origin *origin) {
    uint64_t found;
    DM_TRY(check_number(file, DM_CALIBRATION_KEY "model", origin->model, &found));
    DM_TRY(check_number(file, DM_CALIBRATION_KEY "text", origin->text, &found));
    DM_TRY(check_number(file, DM_CALIBRATION_KEY "tokens", origin->tokens, &found));
    return check_number(file, DM_CALIBRATION_KEY "windows", origin->windows, &found);
}

dm_status dm_calibration_check_origin(const char *path, const dm_calibration_origin *origin) {
    dm_gguf *file;
    DM_TRY(dm_calibration_file_open(path, &file));
    dm_status status = check_origin(file, origin);
    dm_gguf_close(file);
    return status;
}

/* How many windows a part has read. */
static dm_status read_done(const dm_gguf *file, const dm_calibration_origin *origin, uint64_t *done) {
    DM_TRY(dm_gguf_get_u64(file, DM_CALIBRATION_KEY "done", done));
    if (*done > origin->windows) {
        return dm_fail(DM_ERR_FORMAT, "%s: %" PRIu64 " windows done of %" PRIu64, dm_gguf_path(file), *done, origin->windows);
    }
    return DM_OK;
}

/* product's lower triangle from its rows one after another */
static void unpack(float *product, size_t columns, const float *packed) {
    for (size_t r = 0; r < columns; r++) {
        memcpy(product + r * columns, packed, (r + 1) * sizeof *packed);
        packed += r + 1;
    }
}

static dm_status read_products(const dm_gguf *file, const dm_calibration_sums *sums) {
    for (size_t i = sums->first; i < sums->end; i++) {
        const dm_calibration_slot slot = dm_calibration_slot_at(sums->config, i);
        const uint64_t n = dm_calibration_triangle(slot.columns);
        char name[96];
        const float *packed;
        dm_calibration_product_name(&slot, name, sizeof name);
        DM_TRY(dm_calibration_tensor(file, name, n, 1, &packed));
        DM_TRY(dm_calibration_check(file, name, packed, n, false));
        unpack(sums->products[i - sums->first], slot.columns, packed);
    }
    return DM_OK;
}

static dm_status read_sums(const dm_gguf *file, const dm_calibration_origin *origin, const dm_calibration_sums *sums,
                           uint64_t *done) {
    const uint64_t n = sums->end - sums->first;
    uint64_t found;
    DM_TRY(check_origin(file, origin));
    DM_TRY(check_number(file, DM_CALIBRATION_KEY "first", sums->first, &found));
    DM_TRY(read_done(file, origin, done));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "visits", DM_GGUF_U64, n, sums->visits));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "squares", DM_GGUF_F64, n, sums->squares));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "fourths", DM_GGUF_F64, n, sums->fourths));
    return read_products(file, sums);
}

dm_status dm_calibration_read_sums(const char *path, const dm_calibration_origin *origin, const dm_calibration_sums *sums,
                                   uint64_t *done) {
    dm_gguf *file;
    DM_TRY(dm_calibration_file_open(path, &file));
    dm_status status = read_sums(file, origin, sums, done);
    dm_gguf_close(file);
    return status;
}

static dm_status check_method(const dm_gguf *file, const char *method) {
    dm_gguf_string found;
    DM_TRY(dm_gguf_get_string(file, DM_CALIBRATION_KEY "slope_method", &found));
    return found.length == strlen(method) && memcmp(found.bytes, method, found.length) == 0
               ? DM_OK
               : dm_fail(DM_ERR_ARGUMENT, "%s: its slopes were found in another way than by %s", dm_gguf_path(file), method);
}

/* Calls of `each` for the slopes of every layer and role. */
typedef dm_status (*slope_fn)(void *user, int32_t layer, dm_role role, const char *name, uint64_t rows, uint64_t copies);

static dm_status for_slopes(const dm_config *config, slope_fn each, void *user) {
    for (int32_t layer = -1; layer < config->n_layers; layer++) {
        for (int r = 0; r < DM_ROLES; r++) {
            const dm_role role = (dm_role)r;
            const size_t rows = (role == DM_OUTPUT) == (layer < 0) ? dm_calibration_rows(config, role) : 0;
            char name[96];
            if (rows == 0) {
                continue;
            }
            dm_calibration_slope_name(layer, role, name, sizeof name);
            DM_TRY(each(user, layer, role, name, rows, dm_calibration_copies(config, role)));
        }
    }
    return DM_OK;
}

typedef struct reading {
    const dm_gguf *file;
    const dm_calibration_slopes *slopes;
} reading;

static dm_status read_slope(void *user, int32_t layer, dm_role role, const char *name, uint64_t rows, uint64_t copies) {
    const reading *it = user;
    const float *data;
    DM_TRY(dm_calibration_tensor(it->file, name, rows, copies, &data));
    DM_TRY(dm_calibration_check(it->file, name, data, rows * copies, true));
    memcpy(it->slopes->sums + dm_calibration_slopes_at(it->slopes->config, layer, role, 0), data, rows * copies * sizeof *data);
    return DM_OK;
}

static dm_status read_slopes(const dm_gguf *file, const dm_calibration_origin *origin, const dm_calibration_slopes *slopes,
                             const char *method, uint64_t *done) {
    const size_t slots = dm_calibration_slots(slopes->config);
    reading it = {file, slopes};
    DM_TRY(check_origin(file, origin));
    DM_TRY(check_method(file, method));
    DM_TRY(dm_gguf_get_u64(file, DM_CALIBRATION_KEY "done", done));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "slope_visits", DM_GGUF_U64, slots, slopes->visits));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "slope_squares", DM_GGUF_F64, slots, slopes->squares));
    return for_slopes(slopes->config, read_slope, &it);
}

dm_status dm_calibration_read_slopes(const char *path, const dm_calibration_origin *origin, const dm_calibration_slopes *slopes,
                                     const char *method, uint64_t *done) {
    dm_gguf *file;
    DM_TRY(dm_calibration_file_open(path, &file));
    dm_status status = read_slopes(file, origin, slopes, method, done);
    dm_gguf_close(file);
    return status;
}

/* ---- Writing ---- */

static dm_gguf_writer *begin(const dm_calibration_origin *origin) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    if (writer == NULL) {
        return NULL;
    }
    dm_gguf_add_string(writer, "general.type", "calibration");
    dm_gguf_add_u32(writer, DM_CALIBRATION_KEY "version", DM_CALIBRATION_VERSION);
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "model", origin->model);
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "text", origin->text);
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "tokens", origin->tokens);
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "windows", origin->windows);
    return writer;
}

/* Where the triangle of a slot is read: rows of growing length, in order. */
typedef struct triangle {
    const float *product;
    size_t columns, row, column;
} triangle;

static dm_status pack(void *user, uint64_t first, size_t n, float *out) {
    triangle *at = user;
    if (first == 0) {
        at->row = at->column = 0;
    }
    while (n > 0) {
        const size_t left = at->row + 1 - at->column, some = n < left ? n : left;
        memcpy(out, at->product + at->row * at->columns + at->column, some * sizeof *out);
        out += some;
        n -= some;
        at->column += some;
        if (at->column > at->row) {
            at->row++;
            at->column = 0;
        }
    }
    return DM_OK;
}

static dm_status write_products(dm_gguf_writer *writer, const dm_calibration_sums *sums, const char *path) {
    const size_t n = sums->end - sums->first;
    triangle *triangles = dm_alloc(n, sizeof *triangles);
    if (triangles == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        const dm_calibration_slot slot = dm_calibration_slot_at(sums->config, sums->first + i);
        const uint64_t dims[] = {dm_calibration_triangle(slot.columns)};
        char name[96];
        dm_calibration_product_name(&slot, name, sizeof name);
        triangles[i] = (triangle){.product = sums->products[i], .columns = slot.columns};
        dm_gguf_add_tensor_from(writer, name, DM_TYPE_F32, dims, 1, pack, &triangles[i]);
    }
    dm_status status = dm_gguf_writer_finish(writer, path);
    dm_free(triangles);
    return status;
}

dm_status dm_calibration_write_sums(const char *path, const dm_calibration_origin *origin, const dm_calibration_sums *sums,
                                    uint64_t done) {
    const uint64_t n = sums->end - sums->first;
    dm_gguf_writer *writer = begin(origin);
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "first", sums->first);
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "done", done);
    dm_gguf_add_array(writer, DM_CALIBRATION_KEY "visits", DM_GGUF_U64, sums->visits, n);
    dm_gguf_add_array(writer, DM_CALIBRATION_KEY "squares", DM_GGUF_F64, sums->squares, n);
    dm_gguf_add_array(writer, DM_CALIBRATION_KEY "fourths", DM_GGUF_F64, sums->fourths, n);
    dm_status status = write_products(writer, sums, path);
    dm_gguf_writer_free(writer);
    return status;
}

typedef struct writing {
    dm_gguf_writer *writer;
    const dm_calibration_slopes *slopes;
} writing;

static dm_status add_slope(void *user, int32_t layer, dm_role role, const char *name, uint64_t rows, uint64_t copies) {
    const writing *it = user;
    const uint64_t dims[] = {rows, copies};
    dm_gguf_add_tensor(it->writer, name, DM_TYPE_F32, dims, 2,
                       it->slopes->sums + dm_calibration_slopes_at(it->slopes->config, layer, role, 0));
    return DM_OK;
}

static dm_status add_slopes(dm_gguf_writer *writer, const dm_calibration_slopes *slopes, const char *method) {
    const size_t slots = dm_calibration_slots(slopes->config);
    writing it = {writer, slopes};
    dm_gguf_add_string(writer, DM_CALIBRATION_KEY "slope_method", method);
    dm_gguf_add_array(writer, DM_CALIBRATION_KEY "slope_visits", DM_GGUF_U64, slopes->visits, slots);
    dm_gguf_add_array(writer, DM_CALIBRATION_KEY "slope_squares", DM_GGUF_F64, slopes->squares, slots);
    return for_slopes(slopes->config, add_slope, &it);
}

dm_status dm_calibration_write_slopes(const char *path, const dm_calibration_origin *origin, const dm_calibration_slopes *slopes,
                                      const char *method, uint64_t done) {
    dm_gguf_writer *writer = begin(origin);
    if (writer == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_gguf_add_u64(writer, DM_CALIBRATION_KEY "done", done);
    dm_status status = add_slopes(writer, slopes, method);
    status = status == DM_OK ? dm_gguf_writer_finish(writer, path) : status;
    dm_gguf_writer_free(writer);
    return status;
}

/* ---- The whole ---- */

typedef struct merging {
    const dm_config *config;
    dm_gguf_writer *writer;
    dm_gguf **files; /* [n + 1] the last one the slopes' */
    size_t n;
    uint64_t *visits;          /* [slots] */
    double *squares, *fourths; /* [slots] */
} merging;

/* Adds the slots of one part, which are to begin with *next. */
static dm_status add_part(const merging *m, const dm_gguf *file, const dm_calibration_origin *origin, size_t *next) {
    const size_t slots = dm_calibration_slots(m->config);
    uint64_t first, done, n;
    DM_TRY(check_origin(file, origin));
    DM_TRY(check_number(file, DM_CALIBRATION_KEY "first", *next, &first));
    DM_TRY(check_number(file, DM_CALIBRATION_KEY "done", origin->windows, &done));
    DM_TRY(dm_gguf_count(file, DM_CALIBRATION_KEY "visits", &n));
    if (n > slots - *next) {
        return dm_fail(DM_ERR_FORMAT, "%s: %" PRIu64 " slots from %zu on, of %zu", dm_gguf_path(file), n, *next, slots);
    }
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "visits", DM_GGUF_U64, n, m->visits + *next));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "squares", DM_GGUF_F64, n, m->squares + *next));
    DM_TRY(dm_calibration_numbers(file, DM_CALIBRATION_KEY "fourths", DM_GGUF_F64, n, m->fourths + *next));
    for (uint64_t i = 0; i < n; i++, ++*next) {
        const dm_calibration_slot slot = dm_calibration_slot_at(m->config, *next);
        const uint64_t dims[] = {dm_calibration_triangle(slot.columns)};
        const float *data;
        char name[96];
        dm_calibration_product_name(&slot, name, sizeof name);
        DM_TRY(dm_calibration_tensor(file, name, dims[0], 1, &data));
        dm_gguf_add_tensor(m->writer, name, DM_TYPE_F32, dims, 1, data);
    }
    return DM_OK;
}

static dm_status copy_slope(void *user, int32_t layer, dm_role role, const char *name, uint64_t rows, uint64_t copies) {
    const merging *m = user;
    const uint64_t dims[] = {rows, copies};
    const float *data = NULL;
    (void)layer;
    (void)role;
    DM_TRY(dm_calibration_tensor(m->files[m->n], name, rows, copies, &data));
    dm_gguf_add_tensor(m->writer, name, DM_TYPE_F32, dims, 2, data);
    return DM_OK;
}

static dm_status merge(const merging *m, const dm_calibration_origin *origin, const char *out) {
    const size_t slots = dm_calibration_slots(m->config);
    size_t next = 0;
    for (size_t i = 0; i < m->n; i++) {
        DM_TRY(add_part(m, m->files[i], origin, &next));
    }
    if (next != slots) {
        return dm_fail(DM_ERR_INTERNAL, "%s: parts hold %zu of %zu slots", out, next, slots);
    }
    dm_gguf_add_u64(m->writer, DM_CALIBRATION_KEY "first", 0);
    dm_gguf_add_u64(m->writer, DM_CALIBRATION_KEY "done", origin->windows);
    dm_gguf_add_array(m->writer, DM_CALIBRATION_KEY "visits", DM_GGUF_U64, m->visits, slots);
    dm_gguf_add_array(m->writer, DM_CALIBRATION_KEY "squares", DM_GGUF_F64, m->squares, slots);
    dm_gguf_add_array(m->writer, DM_CALIBRATION_KEY "fourths", DM_GGUF_F64, m->fourths, slots);
    if (m->files[m->n] != NULL) {
        DM_TRY(check_origin(m->files[m->n], origin));
        dm_gguf_copy_values(m->writer, m->files[m->n], DM_CALIBRATION_KEY "slope_");
        DM_TRY(for_slopes(m->config, copy_slope, (void *)m));
    }
    return dm_gguf_writer_finish(m->writer, out);
}

static dm_status open_parts(const merging *m, const char *const *parts, const char *slopes) {
    for (size_t i = 0; i < m->n; i++) {
        DM_TRY(dm_calibration_file_open(parts[i], &m->files[i]));
    }
    return slopes != NULL ? dm_calibration_file_open(slopes, &m->files[m->n]) : DM_OK;
}

dm_status dm_calibration_merge(const dm_config *config, const dm_calibration_origin *origin, const char *const *parts, size_t n,
                               const char *slopes, const char *out) {
    const size_t slots = dm_calibration_slots(config);
    merging m = {.config = config, .writer = begin(origin), .files = dm_alloc(n + 1, sizeof(dm_gguf *)), .n = n};
    m.visits = dm_alloc(slots, sizeof *m.visits);
    m.squares = dm_alloc(slots, sizeof *m.squares);
    m.fourths = dm_alloc(slots, sizeof *m.fourths);
    bool room = m.writer != NULL && m.files != NULL && m.visits != NULL && m.squares != NULL && m.fourths != NULL;
    dm_status status = room ? open_parts(&m, parts, slopes) : DM_ERR_MEMORY;
    status = status == DM_OK ? merge(&m, origin, out) : status;
    for (size_t i = 0; m.files != NULL && i <= n; i++) {
        dm_gguf_close(m.files[i]);
    }
    dm_gguf_writer_free(m.writer);
    dm_free(m.files);
    dm_free(m.visits);
    dm_free(m.squares);
    dm_free(m.fourths);
    return status;
}
