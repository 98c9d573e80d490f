/* Keys with neighbourhoods, as trained routers have them, and sequences of queries that drift among them. */
#ifndef DM_TESTS_STRUCTURED_KEYS_H
#define DM_TESTS_STRUCTURED_KEYS_H

#include <math.h>
#include <string.h>

#include "base/random.h"

static inline void structured_add(float *row, size_t dim, uint64_t seed, double size) {
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t i = 0; i < dim; i++) {
        row[i] += (float)(size * dm_random_normal(&random));
    }
}

/* rows [n, dim]: keys around centres that lie around centres of their own, and so on: of each level, `fan` times as many as
 * of the one above and 0.7 times as far from it, some `fan` keys to a centre of the last. Norms differ by some 10%. With a fan
 * as large as n there are no neighbourhoods, only directions. Centres are drawn anew from their numbers, so nothing is
 * stored. */
static inline void structured_keys(float *rows, size_t n, size_t dim, size_t fan, uint64_t seed) {
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t e = 0; e < n; e++) {
        float *row = rows + e * dim;
        size_t place = (size_t)(dm_random_next(&random) % n), level = 1;
        double size = 1.0;
        memset(row, 0, dim * sizeof *row);
        for (size_t keys = n / fan; keys >= fan; keys /= fan, level++) {
            structured_add(row, dim, dm_random_mix(seed + (level << 32) + place / keys), size);
            size *= 0.7;
        }
        structured_add(row, dim, dm_random_next(&random), size);
        float norm = (float)(1.0 + 0.1 * dm_random_normal(&random));
        for (size_t i = 0; i < dim; i++) {
            row[i] *= norm / sqrtf((float)dim);
        }
    }
}

/* queries [n, dim] near keys drawn at random. */
static inline void structured_near(float *queries, size_t n, const float *rows, size_t n_rows, size_t dim, uint64_t seed) {
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t q = 0; q < n; q++) {
        memcpy(queries + q * dim, rows + (size_t)(dm_random_next(&random) % n_rows) * dim, dim * sizeof *queries);
        structured_add(queries + q * dim, dim, dm_random_next(&random), 0.3 / sqrt((double)dim));
    }
}

/* queries [n, dim]: each goes on from the one before, drawn to a key that is left for another, now and then, and disturbed. */
static inline void structured_sequence(float *queries, size_t n, const float *rows, size_t n_rows, size_t dim, uint64_t seed) {
    dm_random random;
    dm_random_seed(&random, seed);
    size_t key = 0;
    for (size_t q = 0; q < n; q++) {
        if (q == 0 || dm_random_uniform(&random) < 0.2) {
            key = (size_t)(dm_random_next(&random) % n_rows);
        }
        for (size_t i = 0; i < dim; i++) {
            float before = q > 0 ? queries[(q - 1) * dim + i] : 0.0f;
            queries[q * dim + i] = 0.5f * (before + rows[key * dim + i]);
        }
        structured_add(queries + q * dim, dim, dm_random_next(&random), 0.3 / sqrt((double)dim));
    }
}

#endif
