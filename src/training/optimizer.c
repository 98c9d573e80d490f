#include "training/optimizer.h"

#include <math.h>
#include <string.h>

#include "kernels/vector.h"

/* Threads share out pieces of this many floats; sums go piece by piece, so they do not depend on the threads. */
enum { PIECE = 16384, PIECES_AT_A_TIME = 4096 };

static double tensor_squares(const float *g, size_t n) {
    const dm_vector_table *vector = dm_vector();
    double sums[PIECES_AT_A_TIME];
    double total = 0.0;
    for (size_t first = 0; first < n; first += (size_t)PIECE * PIECES_AT_A_TIME) {
        size_t left = n - first;
        size_t pieces = (left + PIECE - 1) / PIECE;
        pieces = pieces < PIECES_AT_A_TIME ? pieces : PIECES_AT_A_TIME;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < pieces; i++) {
            size_t at = i * PIECE;
            sums[i] = vector->sum_squares(g + first + at, left - at < PIECE ? left - at : PIECE);
        }
        for (size_t i = 0; i < pieces; i++) {
            total += sums[i];
        }
    }
    return total;
}

double dm_gradient_norm(const dm_parameters *p) {
    return sqrt(tensor_squares(p->gradients, p->total));
}

void dm_gradients_clear(dm_parameters *p) {
    size_t pieces = (p->total + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < pieces; i++) {
        size_t at = i * PIECE;
        memset(p->gradients + at, 0, (p->total - at < PIECE ? p->total - at : PIECE) * sizeof(float));
    }
}

double dm_learning_rate(const dm_train_config *config, int64_t step, int64_t steps) {
    if (step <= config->warmup) {
        return config->lr * (double)step / (double)config->warmup;
    }
    double span = (double)(steps - config->warmup);
    double gone = span > 0.0 ? (double)(step - config->warmup) / span : 1.0;
    gone = gone < 1.0 ? gone : 1.0;
    return config->lr * (config->min_lr + (1.0 - config->min_lr) * 0.5 * (1.0 + cos(3.141592653589793 * gone)));
}

void dm_optimizer_step(dm_parameters *p, const dm_train_config *config, int64_t step, double lr, double norm) {
    const dm_vector_table *vector = dm_vector();
    dm_adamw adamw = {
        .lr = (float)lr,
        .beta1 = (float)config->beta1,
        .beta2 = (float)config->beta2,
        .eps = (float)config->eps,
        .correction1 = (float)(1.0 - pow(config->beta1, (double)step)),
        .correction2 = (float)(1.0 - pow(config->beta2, (double)step)),
        .grad_scale = config->clip > 0.0 && norm > config->clip ? (float)(config->clip / norm) : 1.0f,
    };
    for (size_t t = 0; t < p->count; t++) {
        adamw.weight_decay = p->specs[t].n_dims >= 2 ? (float)config->weight_decay : 0.0f;
        size_t begin = p->offsets[t];
        size_t n = p->specs[t].elements;
        size_t pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < pieces; i++) {
            size_t at = begin + i * PIECE;
            size_t count = n - i * PIECE < PIECE ? n - i * PIECE : PIECE;
            vector->adamw(p->weights + at, p->momentum + at, p->variance + at, p->gradients + at, &adamw, count);
        }
    }
}
