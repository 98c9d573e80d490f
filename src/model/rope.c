#include "model/rope.h"

#include <math.h>

#include "kernels/vector.h"
#include "model/arch.h"

static const double two_pi = 6.283185307179586;

/* The frequency number, as a fraction, that makes `turns` full turns within the original context (Peng et al. 2023, 3.2). */
static double yarn_index(const dm_config *c, double turns) {
    double dims = dm_config_rope_dims(c);
    return dims * log(c->rope_scaling.original_context / (turns * two_pi)) / (2.0 * log((double)c->rope_base));
}

/* How far frequency number i is divided by the factor: 0 not at all, 1 wholly. */
static double yarn_share(const dm_config *c, size_t i) {
    double low = floor(yarn_index(c, (double)c->rope_scaling.beta_fast));
    double high = ceil(yarn_index(c, (double)c->rope_scaling.beta_slow));
    low = fmax(low, 0.0);
    high = fmin(high, dm_config_rope_dims(c) - 1.0);
    return fmin(1.0, fmax(0.0, ((double)i - low) / fmax(high - low, 0.001)));
}

static double scaled(const dm_config *c, double frequency, size_t i) {
    const dm_rope_scaling *s = &c->rope_scaling;
    switch (s->kind) {
    case DM_SCALING_LINEAR:
        return frequency / (double)s->factor;
    case DM_SCALING_YARN: {
        double share = yarn_share(c, i);
        return frequency * (1.0 - share) + frequency / (double)s->factor * share;
    }
    case DM_SCALING_NONE:
        break;
    }
    return frequency;
}

dm_status dm_rope_init(const dm_config *c, const float *factors, double *frequencies, dm_rope *rope) {
    const dm_rope_scaling *s = &c->rope_scaling;
    size_t half = (size_t)dm_config_rope_dims(c) / 2;
    *rope = (dm_rope){.kind = dm_arch_row_of(c->arch)->rope, .half = half, .frequencies = frequencies, .magnitude = 1.0f};
    for (size_t i = 0; i < half; i++) {
        double factor = factors != NULL ? (double)factors[i] : 1.0;
        if (!(factor > 0.0 && isfinite(factor))) {
            return dm_fail(DM_ERR_FORMAT,
                           "the tensor 'rope_freqs.weight' divides frequency %zu by %g, expected a positive number", i, factor);
        }
        double frequency = pow((double)c->rope_base, -(double)i / (double)half);
        frequencies[i] = scaled(c, frequency / factor, i);
    }
    if (s->kind == DM_SCALING_YARN) {
        rope->magnitude = (float)(1.0 + 0.1 * log((double)s->factor));
    }
    rope->magnitude *= s->attention != 0.0f ? s->attention : 1.0f;
    return DM_OK;
}

/* Cosines, then sines; for pairs, each number's own: its sine has the sign that it needs. */
size_t dm_rope_table_size(const dm_rope *rope) {
    return (rope->kind == DM_ROPE_PAIRS ? 4 : 2) * rope->half;
}

void dm_rope_table(const dm_rope *rope, int32_t position, float *table) {
    size_t half = rope->half;
    for (size_t i = 0; i < half; i++) {
        double angle = position * rope->frequencies[i];
        float cosine = (float)cos(angle) * rope->magnitude;
        float sine = (float)sin(angle) * rope->magnitude;
        if (rope->kind == DM_ROPE_PAIRS) {
            table[2 * i] = table[2 * i + 1] = cosine;
            table[2 * half + 2 * i] = -sine;
            table[2 * half + 2 * i + 1] = sine;
        } else {
            table[i] = cosine;
            table[half + i] = sine;
        }
    }
}

void dm_rope_turn(const dm_rope *rope, const float *table, float *heads, size_t n_heads, size_t stride) {
    const dm_vector_table *vector = dm_vector();
    size_t half = rope->half;
    for (size_t h = 0; h < n_heads; h++) {
        float *head = heads + h * stride;
        if (rope->kind == DM_ROPE_PAIRS) {
            vector->rope_pairs(head, table, table + 2 * half, 2 * half);
        } else {
            vector->rope(head, table, table + half, 1.0f, half);
        }
    }
}
