#include "core/swarm_loss.h"

#include <math.h>
#include <string.h>

/* ---- L_balance ---- */

double dm_balance_loss(const float *p, size_t stride, size_t n, int32_t n_experts, double weight, float *slopes,
                       size_t slope_stride, double *scratch) {
    const size_t experts = (size_t)n_experts;
    double *loads = scratch, mass = 0.0, loss = 0.0;
    memset(loads, 0, experts * sizeof *loads);
    for (size_t t = 0; t < n; t++) {
        for (size_t e = 0; e < experts; e++) {
            loads[e] += (double)p[t * stride + e];
        }
    }
    for (size_t e = 0; e < experts; e++) {
        mass += loads[e];
    }
    if (!(mass > 0.0)) {
        return 0.0;
    }
    for (size_t e = 0; e < experts; e++) {
        loads[e] = loads[e] * (double)experts / mass - 1.0; /* over the mean, less 1 */
        loss += loads[e] * loads[e] / (double)experts;
    }
    for (size_t e = 0; e < experts; e++) {
        loads[e] = weight * 2.0 / mass * (loads[e] - loss); /* the mean moves too */
    }
    for (size_t t = 0; t < n; t++) {
        for (size_t e = 0; e < experts; e++) {
            slopes[t * slope_stride + e] += (float)loads[e];
        }
    }
    return loss;
}

/* ---- R_cache ---- */

void dm_cache_residents(dm_lru *lru, const int32_t *experts, size_t n, size_t k, uint8_t *resident) {
    const size_t things = (size_t)lru->things;
    for (size_t t = 0; t < n; t++) {
        for (size_t e = 0; e < things; e++) {
            resident[t * things + e] = dm_lru_has(lru, (int32_t)e);
        }
        for (size_t j = 0; j < k; j++) {
            if (experts[t * k + j] >= 0) {
                dm_lru_use(lru, experts[t * k + j]);
            }
        }
    }
}

double dm_cache_reward(const float *p, size_t stride, size_t n, int32_t n_experts, const uint8_t *resident, double weight,
                       float *slopes, size_t slope_stride, double *scratch) {
    const size_t experts = (size_t)n_experts;
    const float slope = n > 0 ? (float)(weight / (double)n) : 0.0f;
    double *masses = scratch, reward = 0.0; /* one sum per expert, as those can be added side by side */
    memset(masses, 0, experts * sizeof *masses);
    for (size_t t = 0; t < n; t++) {
        for (size_t e = 0; e < experts; e++) {
            const float here = (float)resident[t * experts + e];
            masses[e] += (double)(p[t * stride + e] * here);
            slopes[t * slope_stride + e] += slope * here;
        }
    }
    for (size_t e = 0; e < experts; e++) {
        reward += masses[e];
    }
    return n > 0 ? reward / (double)n : 0.0;
}

/* ---- R_swarm ---- */

/* sum [experts] = the rows of p that are neighbours, added; returns how many. */
static size_t add_neighbours(const float *p, size_t stride, size_t experts, const int32_t *near, size_t k, double *sum) {
    size_t count = 0;
    memset(sum, 0, experts * sizeof *sum);
    for (size_t j = 0; j < k; j++) {
        if (near[j] >= 0) {
            const float *row = p + (size_t)near[j] * stride;
            for (size_t e = 0; e < experts; e++) {
                sum[e] += (double)row[e];
            }
            count++;
        }
    }
    return count;
}

/* The cosine of a token's row and its neighbours' sum, and what its slopes are made of: d/drow = cross * sum - mine * row,
 * d/dsum = cross * row - others * sum. */
typedef struct pull {
    double cosine, cross, mine, others;
} pull;

static pull pull_of(const float *row, const double *sum, size_t experts) {
    enum { LANES = 4 }; /* sums that go side by side */
    double dots[LANES] = {0}, rows[LANES] = {0}, sums[LANES] = {0};
    for (size_t e = 0; e < experts; e++) {
        const double x = (double)row[e], y = sum[e];
        dots[e % LANES] += x * y;
        rows[e % LANES] += x * x;
        sums[e % LANES] += y * y;
    }
    const double dot = dots[0] + dots[1] + dots[2] + dots[3], row2 = rows[0] + rows[1] + rows[2] + rows[3];
    const double sum2 = sums[0] + sums[1] + sums[2] + sums[3];
    const double norms = sqrt(row2) * sqrt(sum2);
    if (!(norms > 0.0)) {
        return (pull){0};
    }
    const double cosine = fmin(fmax(dot / norms, -1.0), 1.0);
    return (pull){cosine, 1.0 / norms, cosine / row2, cosine / sum2};
}

/* Adds step * d(cosine)/dp to the slopes of token t and of its neighbours. */
static void add_pull(pull pulled, const float *row, const double *sum, size_t experts, size_t t, const int32_t *near, size_t k,
                     double step, float *slopes, size_t slope_stride) {
    enum { PIECE = 64 };
    const double cross = step * pulled.cross, mine = step * pulled.mine, others = step * pulled.others;
    float push[PIECE];
    for (size_t first = 0; first < experts; first += PIECE) {
        const size_t width = experts - first < PIECE ? experts - first : PIECE;
        float *own = slopes + t * slope_stride + first;
        for (size_t i = 0; i < width; i++) {
            const double p = (double)row[first + i], s = sum[first + i];
            own[i] += (float)(cross * s - mine * p);
            push[i] = (float)(cross * p - others * s);
        }
        for (size_t j = 0; j < k; j++) {
            float *other = near[j] >= 0 ? slopes + (size_t)near[j] * slope_stride + first : NULL;
            for (size_t i = 0; other != NULL && i < width; i++) {
                other[i] += push[i];
            }
        }
    }
}

double dm_swarm_reward(const float *p, size_t stride, size_t n, int32_t n_experts, const int32_t *neighbours, size_t k,
                       double weight, float *slopes, size_t slope_stride, double *scratch) {
    const size_t experts = (size_t)n_experts;
    const double step = weight / 2.0 / (double)(n > 0 ? n : 1);
    double *sum = scratch, aligned = 0.0;
    for (size_t t = 0; t < n; t++) {
        const float *row = p + t * stride;
        const int32_t *near = neighbours + t * k;
        if (add_neighbours(p, stride, experts, near, k, sum) == 0) {
            aligned += 1.0;
            continue;
        }
        const pull pulled = pull_of(row, sum, experts);
        aligned += pulled.cosine;
        add_pull(pulled, row, sum, experts, t, near, k, step, slopes, slope_stride);
    }
    return n > 0 ? (1.0 + aligned / (double)n) / 2.0 : 1.0;
}

/* ---- L_nash ---- */

/* Below this a probability counts as 0, see the header. */
static const float LEAST_P = 1e-30f;

/* q [g] = the token's distribution over its flock; returns 1 over the mass it had there, 0 where none. */
static double shares(const float *row, const int32_t *flock, size_t g, double *q) {
    double mass = 0.0;
    for (size_t j = 0; j < g; j++) {
        q[j] = flock[j] >= 0 && row[flock[j]] >= LEAST_P ? (double)row[flock[j]] : 0.0;
        mass += q[j];
    }
    const double inverse = mass > 0.0 ? 1.0 / mass : 0.0;
    for (size_t j = 0; j < g; j++) {
        q[j] *= inverse;
    }
    return inverse;
}

/* costs [E] = beta m_e / nbar + price, where beta m_e / nbar = by_q * sum_t q[t][e]. */
static void charge(const float *p, size_t stride, size_t n, size_t experts, const int32_t *candidates, size_t g, double by_q,
                   const float *price, double *costs, double *q) {
    for (size_t e = 0; e < experts; e++) {
        costs[e] = price != NULL ? (double)price[e] : 0.0;
    }
    for (size_t t = 0; t < n; t++) {
        shares(p + t * stride, candidates + t * g, g, q);
        for (size_t j = 0; j < g; j++) {
            if (q[j] > 0.0) {
                costs[candidates[t * g + j]] += by_q * q[j];
            }
        }
    }
}

/* One token's regret at the given costs. Adds step * d(regret)/dp to its slopes, q in the logarithm held fixed, and
 * d(regret)/d(cost) to by_cost [E].
 * Leaves in answers [g] exp(-cost), costs counted from the least in the flock so that nothing overflows. */
static double token_regret(const float *row, const int32_t *flock, size_t g, const double *costs, double step, float *slopes,
                           double *by_cost, double *q, double *answers) {
    const double inverse = shares(row, flock, g, q);
    double least = INFINITY, paid = 0.0, sum = 0.0;
    for (size_t j = 0; j < g; j++) {
        least = q[j] > 0.0 && costs[flock[j]] < least ? costs[flock[j]] : least;
    }
    for (size_t j = 0; j < g; j++) {
        if (q[j] > 0.0) {
            const double cost = costs[flock[j]] - least;
            answers[j] = exp(-cost);
            paid += q[j] * cost;
            sum += q[j] * answers[j];
        }
    }
    if (!(sum > 0.0)) {
        return 0.0;
    }
    const double to_best = 1.0 / sum; /* the best answer plays q times answers / sum */
    for (size_t j = 0; j < g; j++) {
        if (q[j] > 0.0) {
            const double best = answers[j] * to_best;
            slopes[flock[j]] += (float)(step * inverse * (costs[flock[j]] - least - paid));
            by_cost[flock[j]] += q[j] * (1.0 - best);
        }
    }
    return fmax(paid + log(sum), 0.0); /* not below 0 by rounding */
}

/* Adds step * d(sum_e q[e] by_load[e])/dp to a token's slopes. */
static void add_load_slopes(const float *row, const int32_t *flock, size_t g, const double *by_load, double step, float *slopes,
                            double *q) {
    const double inverse = shares(row, flock, g, q);
    double mean = 0.0;
    for (size_t j = 0; j < g; j++) {
        mean += q[j] > 0.0 ? q[j] * by_load[flock[j]] : 0.0;
    }
    for (size_t j = 0; j < g; j++) {
        if (q[j] > 0.0) {
            slopes[flock[j]] += (float)(step * inverse * (by_load[flock[j]] - mean));
        }
    }
}

double dm_nash_loss(const float *p, size_t stride, size_t n, int32_t n_experts, const int32_t *candidates, size_t g,
                    int32_t top_k, double beta, const float *price, double weight, float *slopes, size_t slope_stride,
                    double *scratch) {
    const size_t experts = (size_t)n_experts;
    double *costs = scratch, *by_cost = scratch + experts, *q = scratch + 2 * experts, *answers = scratch + 3 * experts;
    if (n == 0) {
        return 0.0;
    }
    const double nbar = (double)top_k * (double)n / (double)experts;
    const double by_q = beta * (double)top_k / nbar; /* dc_e/dq[t][e] */
    const double step = weight / (double)n;
    double regret = 0.0;
    charge(p, stride, n, experts, candidates, g, by_q, price, costs, q);
    memset(by_cost, 0, experts * sizeof *by_cost);
    for (size_t t = 0; t < n; t++) {
        regret +=
            token_regret(p + t * stride, candidates + t * g, g, costs, step, slopes + t * slope_stride, by_cost, q, answers);
    }
    for (size_t t = 0; t < n && by_q != 0.0; t++) {
        add_load_slopes(p + t * stride, candidates + t * g, g, by_cost, step * by_q, slopes + t * slope_stride, q);
    }
    return regret / (double)n;
}
