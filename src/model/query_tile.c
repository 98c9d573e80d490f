/* What the ways of walking a prompt's queries and keys share: masks and the running softmax. */
#include <math.h>
#include <string.h>

#include "kernels/vector.h"
#include "model/attention_internal.h"

dm_query_tile dm_query_tile_of(const dm_attention_shape *s, const dm_attention_run *run, size_t head, size_t first, size_t n) {
    dm_query_tile t = {.ldq = run->ldq,
                       .ld_out = s->n_heads * s->width,
                       .n = n,
                       .width = s->width,
                       .position = run->start + first,
                       .window = s->window != 0 ? s->window : SIZE_MAX};
    t.q = run->q + first * t.ldq + head * s->width;
    t.out = run->out + first * t.ld_out + head * s->width;
    return t;
}

dm_key_span dm_query_tile_visible(const dm_query_tile *t, size_t i) {
    size_t end = t->position + i + 1;
    size_t begin = end > t->window ? end - t->window : 0;
    dm_key_span seen = {begin > t->first_key ? begin - t->first_key : 0, end > t->first_key ? end - t->first_key : 0};
    seen.to = seen.to < t->n_keys ? seen.to : t->n_keys;
    seen.from = seen.from < seen.to ? seen.from : seen.to;
    return seen;
}

void dm_query_tile_start(const dm_query_tile *t) {
    for (size_t i = 0; i < t->n; i++) {
        t->peaks[i] = -INFINITY;
        t->totals[i] = 0.0f;
        memset(t->out + i * t->ld_out, 0, t->width * sizeof *t->out);
    }
}

void dm_query_tile_weigh(const dm_query_tile *t) {
    const dm_vector_table *vector = dm_vector();
    float scale = 1.0f / sqrtf((float)t->width);
    for (size_t i = 0; i < t->n; i++) {
        float *row = t->scores + i * CHUNK_KEYS;
        dm_key_span seen = dm_query_tile_visible(t, i);
        size_t n = seen.to - seen.from;
        memset(row, 0, seen.from * sizeof *row);
        memset(row + seen.to, 0, (t->n_keys - seen.to) * sizeof *row);
        if (n == 0) {
            continue;
        }
        float peak = fmaxf(t->peaks[i], scale * vector->max(row + seen.from, n));
        float shrink = expf(t->peaks[i] - peak);
        t->totals[i] = shrink * t->totals[i] + vector->exp_sum(row + seen.from, scale, peak, n);
        if (shrink != 1.0f) {
            vector->scale(t->out + i * t->ld_out, shrink, t->out + i * t->ld_out, t->width);
        }
        t->peaks[i] = peak;
    }
}

void dm_query_tile_finish(const dm_query_tile *t) {
    for (size_t i = 0; i < t->n; i++) {
        dm_vector()->scale(t->out + i * t->ld_out, 1.0f / t->totals[i], t->out + i * t->ld_out, t->width);
    }
}
