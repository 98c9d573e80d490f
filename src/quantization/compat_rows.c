#include "quantization/compat_rows.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "quantization/compat_codes.h"
#include "quantization/encode.h"

/* What counts as no gain: below the rounding errors of the numbers that it is the difference of. */
static const float LEAST_GAIN = 1e-5f;

/* One row being solved; arrays are [columns]. */
typedef struct row {
    const dm_compat_task *task;
    dm_type type;
    uint32_t block, bytes;
    dm_decode_fn decode;
    float *w, *q;        /* the original, and what is to be written */
    float *target;       /* of a block, before its codes are chosen */
    float *passed;       /* sum over the columns that are done of L_ij e_i; H e in play */
    float *importance;   /* what errors cost that nothing compensates, or that later columns do */
    uint8_t *blocks;     /* of the row */
    uint8_t *plain;      /* a block */
    float *spare, *sums; /* [block] */
} row;

typedef struct work {
    const dm_compat_task *task;
    dm_type type;
    size_t step;
    uint8_t *out;
    double *before, *after; /* [rows that are solved] */
    dm_failure failure;
} work;

/* ---- Construction ---- */

static void add_scaled(float *to, const float *from, float by, size_t n) {
    for (size_t j = 0; j < n; j++) {
        to[j] += by * from[j];
    }
}

/* target = what block [first, first + n) has to be so that nothing of the errors after it is left: L_bb^T (w - target) = passed.
 */
static void find_target(row *r, size_t first) {
    const dm_compress_moments *m = r->task->moments;
    const size_t n = r->block;
    memcpy(r->spare, r->passed + first, n * sizeof *r->spare);
    for (size_t i = n; i-- > 0;) {
        const float *l = m->lower + (first + i) * m->columns + first;
        const float x = r->spare[i] / l[i];
        r->target[first + i] = r->w[first + i] - x;
        add_scaled(r->spare, l, -x, i);
    }
}

/* |L_bb^T (value - target)|^2 of a block. */
static double block_cost(row *r, size_t first, const float *value) {
    const dm_compress_moments *m = r->task->moments;
    double sum = 0.0;
    memset(r->sums, 0, r->block * sizeof *r->sums);
    for (size_t i = 0; i < r->block; i++) {
        add_scaled(r->sums, m->lower + (first + i) * m->columns + first, value[i] - r->target[first + i], i + 1);
    }
    for (size_t j = 0; j < r->block; j++) {
        sum += (double)r->sums[j] * r->sums[j];
    }
    return sum;
}

/* Codes one by one from the last, each making up for those after it; `passed` then holds their errors too. */
static void choose_codes(row *r, uint8_t *block, size_t first) {
    const dm_compress_moments *m = r->task->moments;
    memcpy(r->spare, r->passed + first, r->block * sizeof *r->spare);
    for (size_t i = r->block; i-- > 0;) {
        const float *l = m->lower + (first + i) * m->columns + first;
        const dm_compat_grid grid = dm_compat_grid_of(r->type, block, i);
        const int code = dm_compat_nearest(&grid, r->w[first + i] - r->spare[i] / l[i]);
        dm_compat_set_code(r->type, block, i, code);
        r->q[first + i] = dm_compat_value(&grid, code);
        add_scaled(r->spare, l, r->q[first + i] - r->w[first + i], i);
    }
}

static dm_status construct_block(row *r, size_t first) {
    const dm_compress_moments *m = r->task->moments;
    uint8_t *block = r->blocks + first / r->block * r->bytes;
    find_target(r, first);
    DM_TRY(dm_encode(r->type, block, r->target + first, r->importance + first, r->block));
    memcpy(r->plain, block, r->bytes);
    choose_codes(r, block, first);
    const double chosen = block_cost(r, first, r->q + first);
    r->decode(r->spare, r->plain, r->block);
    if (block_cost(r, first, r->spare) < chosen) {
        memcpy(block, r->plain, r->bytes);
    }
    r->decode(r->q + first, block, r->block);
    for (size_t i = first; i < first + r->block; i++) {
        add_scaled(r->passed, m->lower + i * m->columns, r->q[i] - r->w[i], first);
    }
    return DM_OK;
}

static dm_status construct(row *r) {
    const dm_compress_moments *m = r->task->moments;
    const size_t n = m->columns;
    if (!r->task->compensate || m->h == NULL) {
        DM_TRY(dm_encode(r->type, r->blocks, r->w, m->diagonal, n));
        r->decode(r->q, r->blocks, n);
        return DM_OK;
    }
    memset(r->passed, 0, n * sizeof *r->passed);
    for (size_t j = 0; j < n; j++) {
        const float l = m->lower[j * n + j];
        r->importance[j] = l * l;
    }
    for (size_t first = n; first > 0;) {
        first -= r->block;
        DM_TRY(construct_block(r, first));
    }
    return DM_OK;
}

/* ---- Play ---- */

/* passed = H (q - w); returns (q - w)^T H (q - w). */
static double measure(row *r) {
    const dm_compress_moments *m = r->task->moments;
    double sum = 0.0;
    memset(r->passed, 0, m->columns * sizeof *r->passed);
    for (size_t i = 0; i < m->columns; i++) {
        const float e = r->q[i] - r->w[i];
        if (m->h == NULL) {
            r->passed[i] = m->diagonal[i] * e;
        } else if (e != 0.0f) {
            add_scaled(r->passed, m->h + i * m->columns, e, m->columns);
        }
    }
    for (size_t i = 0; i < m->columns; i++) {
        sum += (double)r->passed[i] * (r->q[i] - r->w[i]);
    }
    return sum;
}

/* Gives weight i its best code with all others as they are; whether that is another one. */
static bool improve(row *r, size_t i) {
    const dm_compress_moments *m = r->task->moments;
    uint8_t *block = r->blocks + i / r->block * r->bytes;
    const float own = m->h[i * m->columns + i];
    const dm_compat_grid grid = dm_compat_grid_of(r->type, block, i % r->block);
    const int code = dm_compat_nearest(&grid, r->q[i] - r->passed[i] / own);
    const float q = dm_compat_value(&grid, code), by = q - r->q[i];
    const float linear = 2.0f * by * r->passed[i], square = by * by * own;
    if (!(linear + square < -LEAST_GAIN * (fabsf(linear) + square))) {
        return false;
    }
    dm_compat_set_code(r->type, block, i % r->block, code);
    r->q[i] = q;
    add_scaled(r->passed, m->h + i * m->columns, by, m->columns);
    return true;
}

static void play(row *r) {
    const size_t n = r->task->moments->columns;
    bool moved = r->task->moments->h != NULL;
    for (size_t sweep = 0; sweep < r->task->sweeps && moved; sweep++) {
        moved = false;
        for (size_t i = 0; i < n; i++) {
            moved = improve(r, i) || moved;
        }
    }
    r->decode(r->q, r->blocks, n);
}

/* ---- Rows ---- */

static dm_status row_create(row *r, const work *w) {
    const size_t n = w->task->moments->columns;
    *r = (row){.task = w->task, .type = w->type, .decode = dm_type_decoder((uint32_t)w->type)};
    dm_type_block((uint32_t)w->type, &r->block, &r->bytes);
    r->w = dm_alloc(7 * n, sizeof *r->w);
    r->blocks = dm_alloc(dm_type_bytes(w->type, n) + r->bytes, 1);
    if (r->w == NULL || r->blocks == NULL) {
        return DM_ERR_MEMORY;
    }
    r->q = r->w + n;
    r->target = r->q + n;
    r->passed = r->target + n;
    r->importance = r->passed + n;
    r->spare = r->importance + n;
    r->sums = r->spare + n;
    r->plain = r->blocks + dm_type_bytes(w->type, n);
    return DM_OK;
}

static dm_status solve(const work *w, row *r, size_t number) {
    const size_t n = w->task->moments->columns, at = number * w->step, bytes = dm_type_bytes(w->type, n);
    dm_weight_row(r->w, &w->task->weight, at);
    for (size_t j = 0; j < n; j++) {
        r->w[j] = isfinite(r->w[j]) ? r->w[j] : 0.0f; /* as dm_encode() has it, but for what is too large for any type */
    }
    DM_TRY(construct(r));
    w->before[number] = w->task->d[at] * measure(r);
    if (w->task->sweeps > 0) {
        play(r);
    }
    w->after[number] = w->task->sweeps > 0 ? w->task->d[at] * measure(r) : w->before[number];
    if (w->out != NULL) {
        memcpy(w->out + number * bytes, r->blocks, bytes);
    }
    return DM_OK;
}

static void body(void *user, size_t begin, size_t end, int thread) {
    work *w = user;
    row r;
    (void)thread;
    dm_status status = row_create(&r, w);
    for (size_t i = begin; i < end && status == DM_OK && !dm_interrupted(); i++) {
        status = solve(w, &r, i);
    }
    dm_failure_note(&w->failure, status);
    dm_free(r.w);
    dm_free(r.blocks);
}

dm_status dm_compat_encode(const dm_compat_task *task, dm_type type, size_t step, void *out, dm_compat_counts *counts) {
    const size_t rows = (task->weight.rows + step - 1) / step;
    work w = {.task = task, .type = type, .step = step, .out = out};
    *counts = (dm_compat_counts){0.0, 0.0};
    w.before = dm_alloc(2 * rows, sizeof *w.before);
    if (w.before == NULL) {
        return DM_ERR_MEMORY;
    }
    w.after = w.before + rows;
    dm_parallel(dm_threads(), rows, 8, body, &w);
    dm_status status = dm_failure_raise(&w.failure);
    for (size_t i = 0; i < rows && status == DM_OK; i++) {
        counts->before += w.before[i];
        counts->after += w.after[i];
    }
    dm_free(w.before);
    DM_TRY(status);
    return dm_interrupted() ? dm_fail(DM_ERR_INTERRUPTED, "interrupted, nothing was written") : DM_OK;
}
