#include "quantization/calibration.h"

#include <inttypes.h>
#include <string.h>

#include "base/memory.h"
#include "model/fingerprint.h"
#include "quantization/calibration_file.h"
#include "quantization/calibration_lend.h"

struct dm_calibration {
    const dm_config *config;
    dm_gguf *file;             /* NULL: an importance matrix */
    dm_imatrix imatrix;        /* empty: a file */
    uint64_t tokens;           /* of the text */
    uint64_t *visits;          /* [slots] */
    double *squares, *fourths; /* [slots] sums of gate^2, gate^4 */
    double *slope_squares;     /* [slots] sum of gate^2 over the tokens of the slopes; NULL: there are none */
    uint64_t *slope_visits;    /* [slots] those tokens */
    float *h, *diagonal, *d;   /* what get() gives: [h_size], [diagonal_size], [d_size] */
    size_t h_size, diagonal_size, d_size;
    float *own, *mean; /* [triangle_size] an expert's triangle and the mean of its layer's, per unit of gate^2 */
    size_t own_size, mean_size;
    size_t mean_of; /* first slot of the experts that `mean` is of; SIZE_MAX: none */
};

bool dm_calibration_has_slopes(const dm_calibration *c) {
    return c->slope_squares != NULL;
}

/* ---- Opening ---- */

static dm_status check_model(const dm_gguf *file, const dm_model *model) {
    const uint64_t expected = dm_model_fingerprint(model);
    uint64_t found;
    DM_TRY(dm_gguf_get_u64(file, DM_CALIBRATION_KEY "model", &found));
    return found == expected ? DM_OK
                             : dm_fail(DM_ERR_ARGUMENT,
                                       "%s: statistics of another model (fingerprint %016" PRIx64 ", this one's is %016" PRIx64
                                       "); calibrate this one",
                                       dm_gguf_path(file), found, expected);
}

static dm_status check_whole(const dm_gguf *file) {
    uint64_t done, windows;
    DM_TRY(dm_gguf_get_u64(file, DM_CALIBRATION_KEY "done", &done));
    DM_TRY(dm_gguf_get_u64(file, DM_CALIBRATION_KEY "windows", &windows));
    return done == windows ? DM_OK
                           : dm_fail(DM_ERR_FORMAT, "%s: a part of a calibration that is not over; go on with the same command",
                                     dm_gguf_path(file));
}

static dm_status read_slope_numbers(dm_calibration *c, size_t slots) {
    c->slope_squares = dm_alloc(slots, sizeof *c->slope_squares);
    c->slope_visits = dm_alloc(slots, sizeof *c->slope_visits);
    if (c->slope_squares == NULL || c->slope_visits == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(dm_calibration_numbers(c->file, DM_CALIBRATION_KEY "slope_squares", DM_GGUF_F64, slots, c->slope_squares));
    return dm_calibration_numbers(c->file, DM_CALIBRATION_KEY "slope_visits", DM_GGUF_U64, slots, c->slope_visits);
}

static dm_status read_numbers(dm_calibration *c) {
    const size_t slots = dm_calibration_slots(c->config);
    c->visits = dm_alloc(slots, sizeof *c->visits);
    c->squares = dm_alloc(slots, sizeof *c->squares);
    c->fourths = dm_alloc(slots, sizeof *c->fourths);
    if (c->visits == NULL || c->squares == NULL || c->fourths == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(dm_gguf_get_u64(c->file, DM_CALIBRATION_KEY "tokens", &c->tokens));
    if (c->tokens == 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: statistics of 0 tokens", dm_gguf_path(c->file));
    }
    DM_TRY(dm_calibration_numbers(c->file, DM_CALIBRATION_KEY "visits", DM_GGUF_U64, slots, c->visits));
    DM_TRY(dm_calibration_numbers(c->file, DM_CALIBRATION_KEY "squares", DM_GGUF_F64, slots, c->squares));
    DM_TRY(dm_calibration_numbers(c->file, DM_CALIBRATION_KEY "fourths", DM_GGUF_F64, slots, c->fourths));
    return dm_gguf_has(c->file, DM_CALIBRATION_KEY "slope_method") ? read_slope_numbers(c, slots) : DM_OK;
}

static dm_status open_file(const char *path, const dm_model *model, dm_calibration *c) {
    DM_TRY(dm_calibration_file_open(path, &c->file));
    DM_TRY(check_model(c->file, model));
    DM_TRY(check_whole(c->file));
    return read_numbers(c);
}

dm_status dm_calibration_open(const char *path, const dm_model *model, dm_calibration **out) {
    *out = NULL;
    dm_calibration *c = dm_alloc(1, sizeof *c);
    if (c == NULL) {
        return DM_ERR_MEMORY;
    }
    c->config = &model->config;
    c->mean_of = SIZE_MAX;
    dm_status status;
    if (dm_imatrix_is(path)) {
        status = dm_imatrix_read(path, c->config, &c->imatrix);
        c->tokens = c->imatrix.tokens;
    } else {
        status = open_file(path, model, c);
    }
    if (status != DM_OK) {
        dm_calibration_close(c);
        return status;
    }
    *out = c;
    return DM_OK;
}

void dm_calibration_close(dm_calibration *c) {
    if (c == NULL) {
        return;
    }
    void *const owned[] = {c->visits, c->squares,  c->fourths, c->slope_squares, c->slope_visits,
                           c->h,      c->diagonal, c->d,       c->own,           c->mean};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        dm_free(owned[i]);
    }
    dm_gguf_close(c->file);
    dm_imatrix_free(&c->imatrix);
    dm_free(c);
}

uint64_t dm_calibration_tokens(const dm_calibration *c) {
    return c->tokens;
}

bool dm_calibration_has(const dm_calibration *c, int32_t layer, dm_role role, int32_t expert) {
    const size_t slot = dm_calibration_slot_of(c->config, layer, role, expert);
    return slot != SIZE_MAX && (c->file != NULL || c->imatrix.there[slot]);
}

/* ---- Memory that grows ---- */

static dm_status make_room(float **memory, size_t *size, size_t wanted) {
    if (wanted <= *size) {
        return DM_OK;
    }
    dm_free(*memory);
    *memory = dm_alloc(wanted, sizeof **memory);
    *size = *memory != NULL ? wanted : 0;
    return *memory != NULL ? DM_OK : DM_ERR_MEMORY;
}

/* ---- One matrix ---- */

/* What is being loaded. */
typedef struct loading {
    dm_calibration *c;
    size_t slot, columns;
    int32_t layer, expert;
    dm_role role;
    bool lend; /* to an expert */
} loading;

/* The first slot of the layer's experts of the same kind. */
static size_t first_expert(const loading *it) {
    return it->slot - (size_t)it->expert;
}

static dm_status find_triangle(const dm_calibration *c, size_t index, const float **out) {
    const dm_calibration_slot slot = dm_calibration_slot_at(c->config, index);
    const uint64_t n = dm_calibration_triangle(slot.columns);
    char name[96];
    dm_calibration_product_name(&slot, name, sizeof name);
    DM_TRY(dm_calibration_tensor(c->file, name, n, 1, out));
    DM_TRY(dm_calibration_check(c->file, name, *out, n, false));
    for (size_t i = 0; i < slot.columns; i++) {
        DM_TRY(dm_calibration_check(c->file, name, *out + i * (i + 3) / 2, 1, true));
    }
    return DM_OK;
}

typedef struct totals {
    double squares;
    uint64_t visits;
} totals;

static totals totals_of(const double *squares, const uint64_t *visits, size_t first, size_t n) {
    totals all = {0.0, 0};
    for (size_t i = first; i < first + n; i++) {
        all.squares += squares[i];
        all.visits += visits[i];
    }
    return all;
}

/* mean = the layer's experts' products per unit of gate^2 */
static dm_status load_mean(const loading *it) {
    dm_calibration *c = it->c;
    const size_t first = first_expert(it), experts = (size_t)c->config->n_experts;
    const uint64_t n = dm_calibration_triangle(it->columns);
    if (c->mean_of == first) {
        return DM_OK;
    }
    c->mean_of = SIZE_MAX;
    DM_TRY(make_room(&c->mean, &c->mean_size, n));
    memset(c->mean, 0, n * sizeof *c->mean);
    const double squares = totals_of(c->squares, c->visits, first, experts).squares;
    const float scale = squares > 0.0 ? (float)(1.0 / squares) : 0.0f;
    for (size_t e = 0; e < experts; e++) {
        const float *triangle;
        DM_TRY(find_triangle(c, first + e, &triangle));
        for (uint64_t i = 0; i < n; i++) {
            c->mean[i] += scale * triangle[i];
        }
    }
    c->mean_of = first;
    return DM_OK;
}

/* h [columns, columns] = scale * triangle, and its diagonal */
static void spread(const dm_calibration *c, const float *triangle, size_t columns, double scale) {
    for (size_t r = 0; r < columns; r++) {
        for (size_t i = 0; i <= r; i++) {
            const float value = (float)(scale * (double)triangle[i]);
            c->h[r * columns + i] = value;
            c->h[i * columns + r] = value;
        }
        c->diagonal[r] = c->h[r * columns + r];
        triangle += r + 1;
    }
}

/* own = the expert's triangle with what it is lent; *weight its mass over all tokens */
static dm_status lend(const loading *it, const float *triangle, double *weight) {
    dm_calibration *c = it->c;
    const uint64_t n = dm_calibration_triangle(it->columns);
    const totals all = totals_of(c->squares, c->visits, first_expert(it), (size_t)c->config->n_experts);
    const double squares = c->squares[it->slot];
    DM_TRY(load_mean(it));
    DM_TRY(make_room(&c->own, &c->own_size, n));
    for (uint64_t i = 0; i < n; i++) {
        c->own[i] = squares > 0.0 ? (float)((double)triangle[i] / squares) : 0.0f;
    }
    const double tokens = dm_calibration_effective(squares, c->fourths[it->slot]);
    const float lent = (float)dm_calibration_lent(c->own, c->mean, it->columns, tokens);
    for (uint64_t i = 0; i < n; i++) {
        c->own[i] += lent * (c->mean[i] - c->own[i]);
    }
    *weight = dm_calibration_mass(squares, all.squares, all.visits) / (double)c->tokens;
    return DM_OK;
}

static dm_status load_products(const loading *it, dm_moments *out) {
    dm_calibration *c = it->c;
    const float *triangle;
    DM_TRY(find_triangle(c, it->slot, &triangle));
    DM_TRY(make_room(&c->h, &c->h_size, it->columns * it->columns));
    out->tokens = dm_calibration_effective(c->squares[it->slot], c->fourths[it->slot]);
    out->weight = c->squares[it->slot] / (double)c->tokens;
    if (it->lend && it->expert >= 0) {
        DM_TRY(lend(it, triangle, &out->weight));
        spread(c, c->own, it->columns, out->weight);
    } else {
        spread(c, triangle, it->columns, 1.0 / (double)c->tokens);
    }
    out->h = c->h;
    return DM_OK;
}

/* ---- Slopes ---- */

/* d = half of the sums per unit of gate^2, with the mean of the layer's experts where they are lent it */
static void load_expert_slopes(const loading *it, const float *sums, size_t rows) {
    const dm_calibration *c = it->c;
    const size_t first = first_expert(it), experts = (size_t)c->config->n_experts;
    const totals all = totals_of(c->slope_squares, c->slope_visits, first, experts);
    const double squares = c->slope_squares[it->slot];
    const double lent = it->lend ? dm_calibration_lent_slope((double)c->slope_visits[it->slot]) : 0.0;
    for (size_t r = 0; r < rows; r++) {
        double mean = 0.0;
        for (size_t e = 0; e < experts && lent > 0.0; e++) {
            mean += (double)sums[e * rows + r];
        }
        const double own = squares > 0.0 ? (double)sums[(size_t)it->expert * rows + r] / squares : 0.0;
        mean = all.squares > 0.0 ? mean / all.squares : 0.0;
        c->d[r] = (float)(0.5 * (own + lent * (mean - own)));
    }
}

static dm_status load_slopes(const loading *it, dm_moments *out) {
    dm_calibration *c = it->c;
    const size_t rows = out->rows, copies = dm_calibration_copies(c->config, it->role);
    const float *sums;
    char name[96];
    dm_calibration_slope_name(it->layer, it->role, name, sizeof name);
    DM_TRY(dm_calibration_tensor(c->file, name, rows, copies, &sums));
    DM_TRY(dm_calibration_check(c->file, name, sums, rows * copies, true));
    DM_TRY(make_room(&c->d, &c->d_size, rows));
    if (it->expert >= 0) {
        load_expert_slopes(it, sums, rows);
    } else {
        const double squares = c->slope_squares[it->slot];
        for (size_t r = 0; r < rows; r++) {
            c->d[r] = squares > 0.0 ? (float)(0.5 * (double)sums[r] / squares) : 0.0f;
        }
    }
    out->d = c->d;
    return DM_OK;
}

/* ---- Importance matrices ---- */

/* They know no gates: each of a token's top_k experts is taken to have a gate of 1 / top_k, and where they do not tell experts
 * apart, each expert an equal share of the tokens. */
static double imatrix_weight(const dm_calibration *c, size_t slot) {
    const double top_k = (double)c->config->top_k, experts = (double)c->config->n_experts;
    return c->imatrix.per_expert && c->tokens > 0 ? c->imatrix.counts[slot] / (double)c->tokens / (top_k * top_k)
                                                  : 1.0 / (top_k * experts);
}

static dm_status lend_diagonal(const loading *it) {
    dm_calibration *c = it->c;
    const size_t first = first_expert(it);
    const double count = c->imatrix.counts[it->slot];
    double all = 0.0;
    DM_TRY(make_room(&c->mean, &c->mean_size, it->columns));
    memset(c->mean, 0, it->columns * sizeof *c->mean);
    for (size_t e = first; e < first + (size_t)c->config->n_experts; e++) {
        all += c->imatrix.counts[e];
    }
    for (size_t e = first; e < first + (size_t)c->config->n_experts && all > 0.0; e++) {
        const float *means = c->imatrix.means + c->imatrix.offsets[e];
        for (size_t i = 0; i < it->columns; i++) {
            c->mean[i] += (float)(c->imatrix.counts[e] / all * (double)means[i]);
        }
    }
    const float lent = (float)dm_calibration_lent_diagonal(c->diagonal, c->mean, it->columns, count);
    for (size_t i = 0; i < it->columns; i++) {
        c->diagonal[i] += lent * (c->mean[i] - c->diagonal[i]);
    }
    return DM_OK;
}

static dm_status load_diagonal(const loading *it, dm_moments *out) {
    dm_calibration *c = it->c;
    memcpy(c->diagonal, c->imatrix.means + c->imatrix.offsets[it->slot], it->columns * sizeof *c->diagonal);
    out->tokens = c->imatrix.counts[it->slot];
    out->weight = it->expert >= 0 ? imatrix_weight(c, it->slot) : 1.0;
    if (it->lend && it->expert >= 0 && c->imatrix.per_expert) {
        DM_TRY(lend_diagonal(it));
    }
    for (size_t i = 0; i < it->columns && it->expert >= 0; i++) {
        c->diagonal[i] *= (float)out->weight;
    }
    return DM_OK;
}

/* ---- What is given out ---- */

static dm_status get(const loading *it, dm_moments *out) {
    dm_calibration *c = it->c;
    *out = (dm_moments){.rows = dm_calibration_rows(c->config, it->role), .columns = it->columns};
    DM_TRY(make_room(&c->diagonal, &c->diagonal_size, it->columns));
    out->diagonal = c->diagonal;
    if (c->file == NULL) {
        return load_diagonal(it, out);
    }
    DM_TRY(load_products(it, out));
    return c->slope_squares != NULL ? load_slopes(it, out) : DM_OK;
}

static dm_status find_and_get(dm_calibration *c, int32_t layer, dm_role role, int32_t expert, bool lent, dm_moments *out) {
    *out = (dm_moments){0};
    if (!dm_calibration_has(c, layer, role, expert)) {
        return dm_fail(DM_ERR_ARGUMENT, "there are no statistics of the matrix of role %d, layer %" PRId32 ", expert %" PRId32,
                       (int)role, layer, expert);
    }
    const size_t slot = dm_calibration_slot_of(c->config, layer, role, expert);
    const loading it = {c, slot, dm_calibration_slot_at(c->config, slot).columns, layer, expert, role, lent};
    return get(&it, out);
}

dm_status dm_calibration_get(dm_calibration *c, int32_t layer, dm_role role, int32_t expert, dm_moments *out) {
    return find_and_get(c, layer, role, expert, true, out);
}

dm_status dm_calibration_get_raw(dm_calibration *c, int32_t layer, dm_role role, int32_t expert, dm_moments *out) {
    return find_and_get(c, layer, role, expert, false, out);
}

/* ---- For others ---- */

static dm_status fill_diagonals(const dm_calibration *c, dm_imatrix *out) {
    out->tokens = c->tokens;
    out->per_expert = c->config->n_experts > 0;
    for (size_t slot = 0; slot < dm_calibration_slots(c->config); slot++) {
        const float *triangle;
        float *means = out->means + out->offsets[slot];
        DM_TRY(find_triangle(c, slot, &triangle));
        for (size_t i = 0; i < out->offsets[slot + 1] - out->offsets[slot]; i++) {
            const double value = (double)triangle[i * (i + 3) / 2];
            means[i] = c->squares[slot] > 0.0 ? (float)(value / c->squares[slot]) : 0.0f;
        }
        out->counts[slot] = (double)c->visits[slot];
        out->there[slot] = true;
    }
    return DM_OK;
}

dm_status dm_calibration_diagonals(const dm_calibration *c, dm_imatrix *out) {
    *out = (dm_imatrix){0};
    if (c->file == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "an importance matrix cannot be made of another one");
    }
    DM_TRY(dm_imatrix_create(c->config, out));
    dm_status status = fill_diagonals(c, out);
    if (status != DM_OK) {
        dm_imatrix_free(out);
    }
    return status;
}
