/*
 * The system is solved by the method of Levenberg and Marquardt with the square of the residual as damping (Yamashita and
 * Fukushima 2001): as fast as Newton's method, and also where solutions are not isolated, as in degenerate games.
 */
#include "core/support_newton.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "core/linear_system.h"
#include "core/mixed_payoffs.h"

enum { STEPS = 30 };

typedef struct work {
    const dm_game *game;
    size_t *support; /* [k] strategies that are played */
    size_t k, m;     /* m = k + players: unknowns, the probabilities and then what each player earns */
    double *x, *u;   /* [total] */
    double *slopes;  /* [total, total] */
    double *earned;  /* [players] */
    double *residual, *jacobian, *normal, *step; /* [m], [m, m], [m, m], [m] */
} work;

static size_t player_of(const dm_game *game, size_t strategy) {
    size_t player = 0;
    while (strategy >= game->first[player + 1]) {
        player++;
    }
    return player;
}

/* Residuals: payoff of each played strategy minus what its player earns, then sums of probabilities minus 1. */
static double linearise(work *w) {
    size_t k = w->k, m = w->m;
    dm_deviation_slopes(w->game, w->x, w->u, w->slopes);
    memset(w->jacobian, 0, m * m * sizeof *w->jacobian);
    for (size_t i = 0; i < (size_t)w->game->players; i++) {
        w->residual[k + i] = -1.0;
    }
    double norm = 0.0;
    for (size_t a = 0; a < k; a++) {
        size_t player = player_of(w->game, w->support[a]);
        w->residual[a] = w->u[w->support[a]] - w->earned[player];
        w->residual[k + player] += w->x[w->support[a]];
        for (size_t b = 0; b < k; b++) {
            w->jacobian[a * m + b] = w->slopes[w->support[a] * w->game->total + w->support[b]];
        }
        w->jacobian[a * m + k + player] = -1.0;
        w->jacobian[(k + player) * m + a] = 1.0;
    }
    for (size_t r = 0; r < m; r++) {
        norm += w->residual[r] * w->residual[r];
    }
    return sqrt(norm);
}

/* step = -(J^T J + damping I)^-1 J^T residual */
static bool damped_step(work *w, double damping) {
    size_t m = w->m;
    for (size_t a = 0; a < m; a++) {
        w->step[a] = 0.0;
        for (size_t r = 0; r < m; r++) {
            w->step[a] -= w->jacobian[r * m + a] * w->residual[r];
        }
        for (size_t b = 0; b < m; b++) {
            double sum = a == b ? damping : 0.0;
            for (size_t r = 0; r < m; r++) {
                sum += w->jacobian[r * m + a] * w->jacobian[r * m + b];
            }
            w->normal[a * m + b] = sum;
        }
    }
    return dm_linear_solve(w->normal, w->step, m);
}

/* Iterates while the residual shrinks; true where it gets to rounding errors. */
static bool iterate(work *w) {
    double norm = linearise(w);
    for (int round = 0; round < STEPS && norm > 1e-15 && !dm_interrupted(); round++) {
        if (!damped_step(w, norm * norm + 1e-18)) {
            break;
        }
        for (size_t a = 0; a < w->k; a++) {
            w->x[w->support[a]] += w->step[a];
        }
        for (size_t i = 0; i < (size_t)w->game->players; i++) {
            w->earned[i] += w->step[w->k + i];
        }
        double before = norm;
        norm = linearise(w);
        if (!(norm < before)) {
            break;
        }
    }
    return norm < 1e-10;
}

/* Takes rounding errors below 0 for 0 and makes sums 1; false where a probability is really negative. */
static bool tidy(const dm_game *game, double *x) {
    for (size_t i = 0; i < (size_t)game->players; i++) {
        double sum = 0.0;
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            if (x[a] < -1e-9) {
                return false;
            }
            x[a] = fmax(x[a], 0.0);
            sum += x[a];
        }
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            x[a] /= sum;
        }
    }
    return true;
}

/* x with the strategies below the threshold left out. The most probable strategy of a player always stays. */
static void start(work *w, const double *x, double threshold) {
    const dm_game *game = w->game;
    w->k = 0;
    memset(w->x, 0, game->total * sizeof *w->x);
    for (size_t i = 0; i < (size_t)game->players; i++) {
        double most = 0.0, sum = 0.0;
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            most = fmax(most, x[a]);
        }
        size_t from = w->k;
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            if (x[a] >= fmin(threshold, most)) {
                w->support[w->k++] = a;
                sum += x[a];
            }
        }
        for (size_t s = from; s < w->k; s++) {
            w->x[w->support[s]] = x[w->support[s]] / sum;
        }
    }
    w->m = w->k + (size_t)game->players;
    dm_deviation_payoffs(game, w->x, w->u);
    for (size_t i = 0; i < (size_t)game->players; i++) {
        w->earned[i] = 0.0;
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            w->earned[i] += w->x[a] * w->u[a];
        }
    }
}

static bool try_thresholds(work *w, double *x, double tolerance) {
    static const double thresholds[] = {1e-2, 1e-3, 1e-4, 1e-6};
    size_t before = 0;
    for (size_t t = 0; t < sizeof thresholds / sizeof *thresholds; t++) {
        start(w, x, thresholds[t]);
        if (w->k == before) {
            continue; /* supports only grow, so these are the same */
        }
        before = w->k;
        if (iterate(w) && tidy(w->game, w->x) && dm_mixed_regret(w->game, w->x, w->u) <= tolerance) {
            memcpy(x, w->x, w->game->total * sizeof *x);
            return true;
        }
    }
    return false;
}

dm_status dm_support_newton(const dm_game *game, double *x, double tolerance, bool *found) {
    size_t total = game->total, players = (size_t)game->players, most = total + players;
    *found = false;
    size_t *support = dm_alloc(total, sizeof *support);
    double *numbers = dm_alloc(2 * total + total * total + players + 2 * most + 2 * most * most, sizeof *numbers);
    if (support != NULL && numbers != NULL) {
        work w = {.game = game, .support = support, .x = numbers};
        w.u = w.x + total;
        w.slopes = w.u + total;
        w.earned = w.slopes + total * total;
        w.residual = w.earned + players;
        w.step = w.residual + most;
        w.jacobian = w.step + most;
        w.normal = w.jacobian + most * most;
        *found = try_thresholds(&w, x, tolerance);
    }
    bool done = support != NULL && numbers != NULL;
    dm_free(support);
    dm_free(numbers);
    return done ? DM_OK : DM_ERR_MEMORY;
}
