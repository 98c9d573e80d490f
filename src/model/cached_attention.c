#include "model/cached_attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/linear.h"
#include "kernels/matmul.h"
#include "kernels/vector.h"

enum {
    TILE_QUERIES = 64,
    TILE_KEYS = 256,
    FEW_QUERIES = 6, /* up to here dot products beat a matrix product */
};

/* Scores [TILE_QUERIES, TILE_KEYS], then the running maximum and sum of each query. */
size_t dm_cached_attention_scratch(void) {
    return TILE_QUERIES * TILE_KEYS + 2 * TILE_QUERIES;
}

/* The queries of one head that are handled together, and the keys at hand. */
typedef struct tile {
    const float *q;      /* [n, head_dim], ldq apart */
    float *out;          /* [n, head_dim], ld_out apart */
    const float *keys;   /* [n_keys, head_dim], ld_keys apart */
    const float *values; /* [n_keys, head_dim], ld_keys apart */
    size_t ldq, ld_out, ld_keys;
    size_t n, n_keys, width;
    size_t position;  /* of the first query */
    size_t window;    /* a query sees itself and window - 1 positions before */
    size_t first_key; /* position of keys[0] */
    float *scores;    /* [n, TILE_KEYS] */
} tile;

/* Which of the tile's keys query i may see: from .. to - 1. */
typedef struct span {
    size_t from, to;
} span;

static span visible(const tile *t, size_t i) {
    size_t end = t->position + i + 1;
    size_t begin = end > t->window ? end - t->window : 0;
    span seen = {begin > t->first_key ? begin - t->first_key : 0, end > t->first_key ? end - t->first_key : 0};
    seen.to = seen.to < t->n_keys ? seen.to : t->n_keys;
    seen.from = seen.from < seen.to ? seen.from : seen.to;
    return seen;
}

/* scores = q keys^T */
static dm_status score(const tile *t) {
    if (t->n > FEW_QUERIES) {
        return dm_matmul_forward(DM_PRECISION_F32, t->scores, TILE_KEYS, t->q, t->ldq, t->keys, t->ld_keys, t->n, t->n_keys,
                                 t->width, false);
    }
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < t->n; i++) {
        span seen = visible(t, i);
        for (size_t j = seen.from; j < seen.to; j++) {
            t->scores[i * TILE_KEYS + j] = vector->dot(t->q + i * t->ldq, t->keys + j * t->ld_keys, t->width);
        }
    }
    return DM_OK;
}

/* out += scores values */
static dm_status add_values(const tile *t) {
    if (t->n > FEW_QUERIES) {
        return dm_matmul_input_gradient(DM_PRECISION_F32, t->out, t->ld_out, t->scores, TILE_KEYS, t->values, t->ld_keys, t->n,
                                        t->n_keys, t->width, true);
    }
    const dm_vector_table *vector = dm_vector();
    for (size_t i = 0; i < t->n; i++) {
        span seen = visible(t, i);
        for (size_t j = seen.from; j < seen.to; j++) {
            vector->axpy(t->out + i * t->ld_out, t->scores[i * TILE_KEYS + j], t->values + j * t->ld_keys, t->width);
        }
    }
    return DM_OK;
}

/* Scores become weights against the running maximum; what was summed before shrinks when the maximum rises. */
static void rescale(const tile *t, float *peaks, float *totals) {
    const dm_vector_table *vector = dm_vector();
    float scale = 1.0f / sqrtf((float)t->width);
    for (size_t i = 0; i < t->n; i++) {
        float *row = t->scores + i * TILE_KEYS;
        span seen = visible(t, i);
        size_t n = seen.to - seen.from;
        memset(row, 0, seen.from * sizeof *row);
        memset(row + seen.to, 0, (t->n_keys - seen.to) * sizeof *row);
        if (n == 0) {
            continue;
        }
        float peak = fmaxf(peaks[i], scale * vector->max(row + seen.from, n));
        float shrink = expf(peaks[i] - peak);
        totals[i] = shrink * totals[i] + vector->exp_sum(row + seen.from, scale, peak, n);
        if (shrink != 1.0f) {
            vector->scale(t->out + i * t->ld_out, shrink, t->out + i * t->ld_out, t->width);
        }
        peaks[i] = peak;
    }
}

/* One head of queries first .. first + n - 1. */
static dm_status attend(const dm_cached_attention *a, int32_t head, size_t first, size_t n, float *scratch) {
    const dm_vector_table *vector = dm_vector();
    size_t width = (size_t)a->head_dim;
    size_t kv_offset = (size_t)(head / (a->n_heads / a->n_kv_heads)) * width;
    float *peaks = scratch + TILE_QUERIES * TILE_KEYS;
    float *totals = peaks + TILE_QUERIES;
    tile t = {.ldq = a->ldq,
              .ld_out = (size_t)a->n_heads * width,
              .ld_keys = (size_t)a->n_kv_heads * width,
              .n = n,
              .width = width,
              .position = a->start + first,
              .window = a->window != 0 ? a->window : SIZE_MAX,
              .scores = scratch};
    t.q = a->q + first * t.ldq + (size_t)head * width;
    t.out = a->out + first * t.ld_out + (size_t)head * width;
    for (size_t i = 0; i < n; i++) {
        peaks[i] = -INFINITY;
        totals[i] = 0.0f;
        memset(t.out + i * t.ld_out, 0, width * sizeof *t.out);
    }
    size_t end = t.position + n;                                              /* the last query sees itself */
    size_t begin = t.position + 1 > t.window ? t.position + 1 - t.window : 0; /* what the first query sees first */
    for (t.first_key = begin / TILE_KEYS * TILE_KEYS; t.first_key < end; t.first_key += TILE_KEYS) {
        t.n_keys = end - t.first_key < TILE_KEYS ? end - t.first_key : TILE_KEYS;
        t.keys = a->keys + t.first_key * t.ld_keys + kv_offset;
        t.values = a->values + t.first_key * t.ld_keys + kv_offset;
        DM_TRY(score(&t));
        rescale(&t, peaks, totals);
        DM_TRY(add_values(&t));
    }
    for (size_t i = 0; i < n; i++) {
        vector->scale(t.out + i * t.ld_out, 1.0f / totals[i], t.out + i * t.ld_out, width);
    }
    return DM_OK;
}

dm_status dm_cached_attention_forward(const dm_cached_attention *attention, float *scratch, int threads) {
    dm_failure failure = {DM_OK, ""};
    size_t blocks = (attention->n + TILE_QUERIES - 1) / TILE_QUERIES;
    size_t tasks = blocks * (size_t)attention->n_heads;
    size_t work = attention->n * (attention->start + attention->n) * (size_t)attention->n_heads * (size_t)attention->head_dim;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (work > DM_WORTH_SHARING)
    for (size_t task = 0; task < tasks; task++) {
        size_t first = (blocks - 1 - task / (size_t)attention->n_heads) * TILE_QUERIES; /* the longest first */
        size_t n = attention->n - first < TILE_QUERIES ? attention->n - first : TILE_QUERIES;
        int32_t head = (int32_t)(task % (size_t)attention->n_heads);
        float *own = scratch + (size_t)omp_get_thread_num() * dm_cached_attention_scratch();
        dm_failure_note(&failure, attend(attention, head, first, n, own));
    }
    return dm_failure_raise(&failure);
}
