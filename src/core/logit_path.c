/*
 * The path is followed with a tangent step and Newton's method back to the path (Allgower and Georg 2003), in logarithms y of the
 * probabilities, so that rare strategies keep their digits. Where nothing changes but that rare ones get rarer the path is
 * straight and steps double. Arrays below are [d], d = strategies + 1, the last entry being the precision L.
 */
#include "core/logit_path.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "core/linear_system.h"
#include "core/mixed_payoffs.h"
#include "core/support_newton.h"

enum { PRIORS = 50, STEPS = 10000, CORRECTIONS = 8 };
static const double GOOD = 1e-11;     /* regret that is rounding */
static const double FARTHEST = 1e10;  /* precision at which a path has given what it can */
static const double SHORTEST = 1e-11; /* step at which a path counts as lost */

typedef struct path {
    const dm_game *game;
    size_t d;
    double *prior;                     /* [d - 1] log q */
    double *at, *tangent;              /* [d] where the path is, and its direction, of length 1 */
    double *predicted, *trial, *ahead; /* [d] the next point before and after correction, and the tangent there */
    double *x, *u;                     /* [d - 1] probabilities at the last point looked at, and payoffs against them */
    double *slopes;                    /* [d - 1, d - 1] */
    double *matrix, *right;            /* [d, d], [d] */
    double *numbers;                   /* all of these arrays */
} path;

static dm_status path_allocate(path *w, const dm_game *game) {
    size_t n = game->total, d = n + 1;
    *w = (path){.game = game, .d = d, .numbers = dm_alloc(3 * n + n * n + 6 * d + d * d, sizeof(double))};
    if (w->numbers == NULL) {
        return DM_ERR_MEMORY;
    }
    w->prior = w->numbers;
    w->x = w->prior + n;
    w->u = w->x + n;
    w->slopes = w->u + n;
    w->at = w->slopes + n * n;
    w->tangent = w->at + d;
    w->predicted = w->tangent + d;
    w->trial = w->predicted + d;
    w->ahead = w->trial + d;
    w->right = w->ahead + d;
    w->matrix = w->right + d;
    return DM_OK;
}

/* ---- The equations ---- */

/* Rows of one player: for its likeliest strategy, the logarithm of the sum of probabilities is 0; for each other strategy a
 *   ((y_a - y_r) - (log q_a - log q_r) - L (u_a - u_r)) / (1 + L) = 0,   r the likeliest.
 * right receives minus the residuals. */
static void player_rows(path *w, const double *point, size_t first, size_t last) {
    size_t d = w->d, n = d - 1, r = first;
    double precision = point[n], scale = 1.0 / (1.0 + precision), sum = 0.0;
    for (size_t a = first; a < last; a++) {
        r = point[a] > point[r] ? a : r;
        sum += w->x[a];
    }
    for (size_t a = first; a < last; a++) {
        double *row = w->matrix + a * d;
        if (a == r) {
            w->right[a] = -log(sum);
            for (size_t b = first; b < last; b++) {
                row[b] = w->x[b] / sum;
            }
            continue;
        }
        double gain = w->u[a] - w->u[r];
        w->right[a] = -scale * (point[a] - point[r] - w->prior[a] + w->prior[r] - precision * gain);
        for (size_t b = 0; b < n; b++) {
            row[b] = -scale * precision * (w->slopes[a * n + b] - w->slopes[r * n + b]) * w->x[b];
        }
        row[a] += scale;
        row[r] -= scale;
        row[n] = -scale * gain;
    }
}

/* The equations' linear form at `point` with the plane across the tangent as the last row. */
static void linearise(path *w, const double *point) {
    size_t d = w->d, n = d - 1;
    for (size_t a = 0; a < n; a++) {
        w->x[a] = exp(fmin(point[a], 1.0));
    }
    dm_deviation_slopes(w->game, w->x, w->u, w->slopes);
    memset(w->matrix, 0, d * d * sizeof *w->matrix);
    for (size_t i = 0; i < (size_t)w->game->players; i++) {
        player_rows(w, point, w->game->first[i], w->game->first[i + 1]);
    }
    memcpy(w->matrix + n * d, w->tangent, d * sizeof *w->tangent);
    w->right[n] = 0.0;
}

/* ---- One step ---- */

static double length(const double *v, size_t d) {
    double sum = 0.0;
    for (size_t a = 0; a < d; a++) {
        sum += v[a] * v[a];
    }
    return sqrt(sum);
}

/* Newton's method from trial back to the path. Gives up where a correction is no small part of the step `size`. */
static bool correct(path *w, double size, int *rounds) {
    double last = 0.5 * size;
    for (*rounds = 1; *rounds <= CORRECTIONS; ++*rounds) {
        linearise(w, w->trial);
        if (!dm_linear_solve(w->matrix, w->right, w->d)) {
            return false;
        }
        double moved = length(w->right, w->d), relative = 0.0;
        for (size_t a = 0; a < w->d; a++) {
            w->trial[a] += w->right[a];
            relative = fmax(relative, fabs(w->right[a]) / (1.0 + fabs(w->trial[a])));
        }
        if (relative < 1e-8 + 1e-14 * w->at[w->d - 1]) {
            return true;
        }
        if (!(moved <= last)) {
            return false;
        }
        last = 0.7 * moved;
    }
    return false;
}

/* The tangent at a point of the path, on the side of the one before; false where it cannot be had. */
static bool find_tangent(path *w, const double *point, double *tangent) {
    linearise(w, point);
    memset(w->right, 0, w->d * sizeof *w->right);
    w->right[w->d - 1] = 1.0;
    if (!dm_linear_solve(w->matrix, w->right, w->d)) {
        return false;
    }
    double norm = length(w->right, w->d);
    for (size_t a = 0; a < w->d; a++) {
        tangent[a] = w->right[a] / norm;
    }
    return isfinite(norm) && norm > 0.0;
}

/* A correction that moves probabilities much may have landed on another part of the path. */
static bool near_prediction(const path *w) {
    for (size_t a = 0; a + 1 < w->d; a++) {
        if (fabs(exp(fmin(w->predicted[a], 1.0)) - exp(w->trial[a])) > 0.1) {
            return false;
        }
    }
    return w->trial[w->d - 1] > 0.0;
}

/* Goes ahead by *size, or makes it smaller. */
static void step(path *w, double *size) {
    int rounds;
    for (size_t a = 0; a < w->d; a++) {
        w->predicted[a] = w->trial[a] = w->at[a] + *size * w->tangent[a];
    }
    double turn = 0.0;
    if (correct(w, *size, &rounds) && near_prediction(w) && find_tangent(w, w->trial, w->ahead)) {
        for (size_t a = 0; a < w->d; a++) {
            turn += w->tangent[a] * w->ahead[a];
        }
    }
    if (turn < 0.9) {
        *size *= 0.4;
        return;
    }
    memcpy(w->at, w->trial, w->d * sizeof *w->at);
    memcpy(w->tangent, w->ahead, w->d * sizeof *w->tangent);
    *size *= rounds <= 3 && turn > 0.99 ? 2.0 : rounds <= 4 ? 1.2 : 0.8;
}

/* ---- The path ---- */

/* Random priors, at first close to even, then anywhere. */
static void draw_prior(path *w, dm_random *random, int attempt) {
    const dm_game *game = w->game;
    double spread = attempt == 0 ? 0.2 : 1.0;
    for (size_t i = 0; i < (size_t)game->players; i++) {
        double sum = 0.0;
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            double share = 1.05 - dm_random_uniform(random);
            w->prior[a] = 1.0 - spread + spread * share * share;
            sum += w->prior[a];
        }
        for (size_t a = game->first[i]; a < game->first[i + 1]; a++) {
            w->prior[a] = log(w->prior[a] / sum);
        }
    }
    memcpy(w->at, w->prior, game->total * sizeof *w->prior);
    w->at[game->total] = 0.0;
    memset(w->tangent, 0, w->d * sizeof *w->tangent);
    w->tangent[game->total] = 1.0; /* only a side to start to */
}

/* Keeps the path's profile in best where it has less regret, its last digits found if its supports are clear already. */
static dm_status look(path *w, double *best, double *regret) {
    size_t n = w->game->total;
    for (size_t i = 0; i < (size_t)w->game->players; i++) {
        double sum = 0.0;
        for (size_t a = w->game->first[i]; a < w->game->first[i + 1]; a++) {
            w->x[a] = exp(fmin(w->at[a], 1.0));
            sum += w->x[a];
        }
        for (size_t a = w->game->first[i]; a < w->game->first[i + 1]; a++) {
            w->x[a] /= sum;
        }
    }
    bool found;
    DM_TRY(dm_support_newton(w->game, w->x, GOOD, &found));
    double here = dm_mixed_regret(w->game, w->x, w->u);
    if (here < *regret) {
        *regret = here;
        memcpy(best, w->x, n * sizeof *best);
    }
    return DM_OK;
}

static dm_status follow(path *w, double *best, double *regret) {
    double size = 0.1, next_look = 8.0;
    double *precision = &w->at[w->d - 1];
    if (!find_tangent(w, w->at, w->ahead)) {
        return DM_OK;
    }
    memcpy(w->tangent, w->ahead, w->d * sizeof *w->tangent);
    for (int i = 0; i<STEPS && * regret> GOOD && *precision < FARTHEST && size > SHORTEST * (1.0 + *precision); i++) {
        if (dm_interrupted()) {
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted looking for an equilibrium");
        }
        step(w, &size);
        if (*precision >= next_look) {
            DM_TRY(look(w, best, regret));
            next_look = 3.0 * *precision;
        }
    }
    return *regret > GOOD ? look(w, best, regret) : DM_OK;
}

static dm_status check_size(const dm_game *game) {
    if (game->players < 2 || game->players > DM_MIXED_MAX_PLAYERS || game->total > DM_LOGIT_MAX_STRATEGIES) {
        return dm_fail(DM_ERR_UNSUPPORTED,
                       "mixed equilibria are looked for in games of 2 to %d players with up to %d strategies in all",
                       DM_MIXED_MAX_PLAYERS, DM_LOGIT_MAX_STRATEGIES);
    }
    return DM_OK;
}

dm_status dm_logit_equilibrium(const dm_game *game, uint64_t seed, double *x, double *regret) {
    DM_TRY(check_size(game));
    path w;
    DM_TRY(path_allocate(&w, game));
    dm_random random;
    dm_random_seed(&random, seed);
    *regret = INFINITY;
    dm_status status = DM_OK;
    for (int attempt = 0; attempt < PRIORS && status == DM_OK && *regret > GOOD; attempt++) {
        draw_prior(&w, &random, attempt);
        status = follow(&w, x, regret);
    }
    dm_free(w.numbers);
    return status;
}
