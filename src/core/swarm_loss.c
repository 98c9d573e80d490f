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
            const bool here = resident[t * experts + e] != 0;
            masses[e] += here ? (double)p[t * stride + e] : 0.0;
            slopes[t * slope_stride + e] += here ? slope : 0.0f;
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
    double dot = 0.0, row2 = 0.0, sum2 = 0.0;
    for (size_t e = 0; e < experts; e++) {
        dot += (double)row[e] * sum[e];
        row2 += (double)row[e] * (double)row[e];
        sum2 += sum[e] * sum[e];
    }
    const double norms = sqrt(row2) * sqrt(sum2);
    if (!(norms > 0.0)) {
        return (pull){0};
    }
    const double cosine = fmin(fmax(dot / norms, -1.0), 1.0);
    return (pull){cosine, 1.0 / norms, cosine / row2, cosine / sum2};
}

double dm_swarm_reward(const float *p, size_t stride, size_t n, int32_t n_experts, const int32_t *neighbours, size_t k,
                       double weight, float *slopes, size_t slope_stride, double *scratch) {
    const size_t experts = (size_t)n_experts;
    const double half = weight / 2.0 / (double)(n > 0 ? n : 1);
    double *sum = scratch, aligned = 0.0;
    for (size_t t = 0; t < n; t++) {
        const float *row = p + t * stride;
        const int32_t *near = neighbours + t * k;
        if (add_neighbours(p, stride, experts, near, k, sum) == 0) {
            aligned += 1.0;
            continue;
        }
        const pull pulled = pull_of(row, sum, experts);
        const double cross = half * pulled.cross, mine = half * pulled.mine, others = half * pulled.others;
        aligned += pulled.cosine;
        for (size_t e = 0; e < experts; e++) {
            slopes[t * slope_stride + e] += (float)(cross * sum[e] - mine * (double)row[e]);
            sum[e] = cross * (double)row[e] - others * sum[e]; /* from here on, the slope of each neighbour */
        }
        for (size_t j = 0; j < k; j++) {
            for (size_t e = 0; near[j] >= 0 && e < experts; e++) {
                slopes[(size_t)near[j] * slope_stride + e] += (float)sum[e];
            }
        }
    }
    return n > 0 ? (1.0 + aligned / (double)n) / 2.0 : 1.0;
}

/* ---- L_nash ---- */

/* Below this a probability counts as 0, see the header. */
static const float LEAST_P = 1e-30f;

static double counted(const float *row, int32_t expert) {
    return expert >= 0 && row[expert] >= LEAST_P ? (double)row[expert] : 0.0;
}

/* 1 over the token's mass on its flock; 0 where it has none there. */
static double inverse_mass(const float *row, const int32_t *flock, size_t g) {
    double mass = 0.0;
    for (size_t j = 0; j < g; j++) {
        mass += counted(row, flock[j]);
    }
    return mass > 0.0 ? 1.0 / mass : 0.0;
}

/* One token's regret at the given costs. Adds step * d(regret)/dp to its slopes, and d(regret)/d(cost) to by_cost [E];
 * answers [g] receives exp(-cost), counted from the flock's cheapest expert so that one of them is 1. */
static double token_regret(const float *row, const int32_t *flock, size_t g, const double *costs, double step, float *slopes,
                           double *by_cost, double *answers) {
    const double inverse = inverse_mass(row, flock, g);
    double least = INFINITY, paid = 0.0, sum = 0.0;
    for (size_t j = 0; j < g; j++) {
        least = counted(row, flock[j]) > 0.0 ? fmin(least, costs[flock[j]]) : least;
    }
    for (size_t j = 0; j < g; j++) {
        const double q = counted(row, flock[j]) * inverse;
        if (q > 0.0) {
            const double cost = costs[flock[j]] - least;
            answers[j] = exp(-cost);
            paid += q * cost;
            sum += q * answers[j];
        }
    }
    for (size_t j = 0; j < g; j++) {
        const double q = counted(row, flock[j]) * inverse;
        if (q > 0.0) {
            const double answer = answers[j] / sum; /* the best answer plays q times this */
            slopes[flock[j]] += (float)(step * inverse * (costs[flock[j]] - least + answer - paid - 1.0));
            by_cost[flock[j]] += q * (1.0 - answer);
        }
    }
    return inverse > 0.0 ? fmax(paid + log(sum), 0.0) : 0.0; /* not below 0 by rounding */
}

/* Adds step * d(sum_e q[e] by_load[e])/dp to a token's slopes. */
static void add_load_slopes(const float *row, const int32_t *flock, size_t g, const double *by_load, double step, float *slopes) {
    const double inverse = inverse_mass(row, flock, g);
    double mean = 0.0;
    for (size_t j = 0; j < g; j++) {
        mean += flock[j] >= 0 ? counted(row, flock[j]) * inverse * by_load[flock[j]] : 0.0;
    }
    for (size_t j = 0; j < g; j++) {
        if (counted(row, flock[j]) > 0.0) {
            slopes[flock[j]] += (float)(step * inverse * (by_load[flock[j]] - mean));
        }
    }
}

double dm_nash_loss(const float *p, size_t stride, size_t n, int32_t n_experts, const int32_t *candidates, size_t g,
                    int32_t top_k, double beta, const float *price, double weight, float *slopes, size_t slope_stride,
                    double *scratch) {
    const size_t experts = (size_t)n_experts;
    if (n == 0) {
        return 0.0;
    }
    const double nbar = (double)top_k * (double)n / (double)experts;
    const double by_q = beta * (double)top_k / nbar; /* dc_e/dq[t][e] */
    double *costs = scratch, *by_cost = scratch + experts, *answers = scratch + 2 * experts, regret = 0.0;
    memset(scratch, 0, 2 * experts * sizeof *scratch);
    for (size_t t = 0; t < n; t++) {
        const double inverse = inverse_mass(p + t * stride, candidates + t * g, g);
        for (size_t j = 0; j < g; j++) {
            const double q = counted(p + t * stride, candidates[t * g + j]) * inverse;
            if (q > 0.0) {
                costs[candidates[t * g + j]] += by_q * q;
            }
        }
    }
    for (size_t e = 0; e < experts; e++) {
        costs[e] += price != NULL ? (double)price[e] : 0.0;
    }
    const double step = weight / (double)n;
    for (size_t t = 0; t < n; t++) {
        regret += token_regret(p + t * stride, candidates + t * g, g, costs, step, slopes + t * slope_stride, by_cost, answers);
    }
    for (size_t t = 0; t < n && by_q != 0.0; t++) {
        add_load_slopes(p + t * stride, candidates + t * g, g, by_cost, step * by_q, slopes + t * slope_stride);
    }
    return regret / (double)n;
}
