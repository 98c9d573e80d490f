/* The second phase: units of a panel look for better strategies, and take what raises the payoff. */
#include <math.h>
#include <string.h>

#include "quantization/clones.h"
#include "quantization/compress_rounding.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT, TILE = ROWS * UNIT };

static const float LEAST_GAIN = 1e-5f; /* of the terms of a change: less may be rounding */

typedef struct game {
    dm_panel *panel;
    const dm_prices *prices;
    size_t most; /* bytes */
    bool *dirty; /* [units] something near has changed since the unit looked */
} game;

/* What a unit sees: its part of the state, in one place. */
typedef struct view {
    size_t unit;
    float *q;         /* [32, 16] */
    const float *g;   /* [32, 16] */
    const float *own; /* the factor of h */
    float h[DM_UNIT_SQUARE];
    float target[TILE]; /* the best q if any number could be written */
} view;

/* A strategy beside the one in use: what changes, by row. */
typedef struct offer {
    dm_rounding numbers;
    float change[ROWS]; /* of the row's error */
    float terms[ROWS];  /* what it is a difference of */
} offer;

/* ---- Exact changes ---- */

static void block_of(const dm_compress_moments *m, size_t unit, float *h) {
    memset(h, 0, DM_UNIT_SQUARE * sizeof *h);
    for (size_t i = 0; i < UNIT; i++) {
        if (m->h != NULL) {
            memcpy(h + i * UNIT, m->h + (unit * UNIT + i) * m->columns + unit * UNIT, UNIT * sizeof *h);
        } else {
            h[i * (UNIT + 1)] = m->diagonal[unit * UNIT + i];
        }
    }
}

/* change = 2 d^T g + d^T h d of each row, where d = q - the q in use. */
DM_CLONES static void exact_change(const view *v, const float *q, float *change, float *terms) {
    float d[TILE];
    memset(change, 0, ROWS * sizeof *change);
    memset(terms, 0, ROWS * sizeof *terms);
    for (size_t i = 0; i < TILE; i++) {
        d[i] = q[i] - v->q[i];
    }
    for (size_t i = 0; i < UNIT; i++) {
        dm_lanes sum = {0};
        for (size_t k = 0; k < UNIT; k++) {
            sum += v->h[i * UNIT + k] * *dm_const_lanes_at(d + k * ROWS);
        }
        for (size_t l = 0; l < ROWS; l++) {
            const float a = 2.0f * d[i * ROWS + l] * v->g[i * ROWS + l], b = d[i * ROWS + l] * sum[l];
            change[l] += a + b;
            terms[l] += fabsf(a) + fabsf(b);
        }
    }
}

static void open_view(view *v, dm_panel *it, size_t unit) {
    v->unit = unit;
    v->q = it->q + unit * TILE;
    v->g = it->g + unit * TILE;
    v->own = it->moments->own + unit * DM_UNIT_SQUARE;
    block_of(it->moments, unit, v->h);
}

void dm_panel_change(const dm_panel *it, size_t unit, const float *q, float *change) {
    view v;
    dm_panel panel = *it;
    float terms[ROWS];
    open_view(&v, &panel, unit);
    exact_change(&v, q, change, terms);
}

/* target = q - h^-1 g */
DM_CLONES static void find_target(view *v) {
    float *x = v->target;
    for (size_t i = 0; i < UNIT; i++) { /* L y = -g */
        float sum[ROWS];
        for (size_t l = 0; l < ROWS; l++) {
            sum[l] = -v->g[i * ROWS + l];
        }
        for (size_t k = 0; k < i; k++) {
            for (size_t l = 0; l < ROWS; l++) {
                sum[l] -= v->own[i * UNIT + k] * x[k * ROWS + l];
            }
        }
        for (size_t l = 0; l < ROWS; l++) {
            x[i * ROWS + l] = sum[l] / v->own[i * (UNIT + 1)];
        }
    }
    for (size_t i = UNIT; i-- > 0;) { /* L^T x = y */
        for (size_t k = i + 1; k < UNIT; k++) {
            for (size_t l = 0; l < ROWS; l++) {
                x[i * ROWS + l] -= v->own[k * UNIT + i] * x[k * ROWS + l];
            }
        }
        for (size_t l = 0; l < ROWS; l++) {
            x[i * ROWS + l] /= v->own[i * (UNIT + 1)];
        }
    }
    for (size_t i = 0; i < TILE; i++) {
        x[i] += v->q[i];
    }
}

/* ---- Strategies ---- */

/* Takes `tried` in the rows where it is better than what the offer has. */
static void improve(offer *best, dm_rounding *tried, const view *v) {
    float terms[ROWS], before[ROWS];
    exact_change(v, tried->q, tried->error, terms);
    memcpy(before, best->change, sizeof before);
    memcpy(best->numbers.error, best->change, sizeof best->change);
    dm_rounding_keep(&best->numbers, tried, false);
    for (int l = 0; l < ROWS; l++) {
        const bool taken = tried->error[l] < before[l];
        best->change[l] = taken ? tried->error[l] : before[l];
        best->terms[l] = taken ? terms[l] : best->terms[l];
    }
}

/* Column by column, each to its best level while the others stay: the scales are those in use. */
DM_CLONES static void descend(dm_rounding *r, const dm_width_levels *levels, const view *v) {
    float g[TILE];
    memcpy(g, v->g, sizeof g);
    for (size_t j = 0; j < UNIT; j++) {
        float x[ROWS];
        for (size_t l = 0; l < ROWS; l++) {
            x[l] = v->q[j * ROWS + l] - g[j * ROWS + l] / v->h[j * (UNIT + 1)];
        }
        dm_rounding_column(levels, r->scale, x, r->level + j * ROWS, r->q + j * ROWS);
        for (size_t k = 0; k < UNIT; k++) {
            for (size_t l = 0; l < ROWS; l++) {
                g[k * ROWS + l] += v->h[j * UNIT + k] * (r->q[j * ROWS + l] - v->q[j * ROWS + l]);
            }
        }
    }
}

static void offer_scales(offer *best, const dm_rounding *from, const dm_width_levels *levels, const view *v,
                         const uint16_t *row_scales, int reach) {
    for (int by = -reach; by <= reach; by++) {
        dm_rounding tried = *from;
        dm_rounding_shift(&tried, row_scales, by);
        dm_rounding_plane(&tried, levels, v->target, v->target, v->own);
        improve(best, &tried, v);
    }
}

/* The width in use, other numbers: rows decide for themselves. */
static void offer_same(offer *best, const dm_panel *it, const view *v) {
    const dm_width_levels *levels = &it->tables->of[dm_mixed_number(it->widths[v->unit])];
    dm_rounding r;
    memset(best, 0, sizeof *best);
    memcpy(best->numbers.q, v->q, sizeof best->numbers.q);
    memcpy(best->numbers.level, it->level + v->unit * TILE, sizeof best->numbers.level);
    memcpy(best->numbers.step, it->numbers.scales + v->unit * ROWS, ROWS);
    r = best->numbers;
    dm_rounding_shift(&r, it->numbers.row_scales, 0);
    best->numbers = r;
    descend(&r, levels, v);
    improve(best, &r, v);
    r = best->numbers;
    offer_scales(best, &r, levels, v, it->numbers.row_scales, 1);
    dm_rounding_search(&r, levels, v->target, v->own);
    dm_rounding_steps(&r, it->numbers.row_scales);
    offer_scales(best, &r, levels, v, it->numbers.row_scales, 0);
}

/* Another width, for all rows at once. */
static void offer_width(offer *best, const dm_panel *it, const view *v, int choice) {
    dm_rounding r;
    memset(best, 0, sizeof *best);
    if (choice == 0) {
        exact_change(v, best->numbers.q, best->change, best->terms);
        return;
    }
    const dm_width_levels *levels = &it->tables->of[choice - 1];
    for (int l = 0; l < ROWS; l++) {
        best->change[l] = INFINITY;
    }
    dm_rounding_search(&r, levels, v->target, v->own);
    dm_rounding_steps(&r, it->numbers.row_scales);
    offer_scales(best, &r, levels, v, it->numbers.row_scales, 1);
}

/* ---- Moves ---- */

static void adopt(dm_panel *it, const view *v, const dm_rounding *numbers) {
    float change[TILE];
    for (size_t i = 0; i < TILE; i++) {
        change[i] = numbers->q[i] - v->q[i];
    }
    memcpy(v->q, numbers->q, sizeof numbers->q);
    memcpy(it->level + v->unit * TILE, numbers->level, sizeof numbers->level);
    memcpy(it->numbers.scales + v->unit * ROWS, numbers->step, ROWS);
    dm_panel_moved(it, v->unit, change);
}

/* Change of the payoff by the rows' moves. */
static double gain_of(const dm_panel *it, const offer *o, double *terms) {
    double gain = 0.0;
    *terms = 0.0;
    for (int l = 0; l < ROWS; l++) {
        gain -= (double)it->d[l] * o->change[l];
        *terms += (double)it->d[l] * o->terms[l];
    }
    return gain;
}

/* Moves to another width if that is best of all. The offer of the same width is what it has to beat. */
static double move_width(game *it, const view *v, double to_beat) {
    dm_panel *p = it->panel;
    const int now = dm_choice_of(p->widths[v->unit]);
    const uint8_t before = p->widths[v->unit];
    const int choices[] = {now - 1, now + 1, 0};
    offer best, tried;
    double best_gain = to_beat;
    int chosen = now;
    for (int i = 0; i < 3; i++) {
        if (choices[i] < 0 || choices[i] >= DM_CHOICES || choices[i] == now || (i == 2 && now == 1)) {
            continue;
        }
        p->widths[v->unit] = (uint8_t)dm_choice_bits(choices[i]);
        const bool fits = choices[i] < now || dm_widths_bytes(p->widths, p->moments->units) <= it->most;
        p->widths[v->unit] = before;
        if (!fits) {
            continue;
        }
        double terms;
        offer_width(&tried, p, v, choices[i]);
        const double paid = it->prices->byte * ((double)dm_choice_bytes(now) - (double)dm_choice_bytes(choices[i])) +
                            it->prices->kept * ((now > 0) - (choices[i] > 0));
        const double gain = gain_of(p, &tried, &terms) + paid;
        if (gain > best_gain && gain > (double)LEAST_GAIN * (terms + fabs(paid))) {
            best_gain = gain;
            best = tried;
            chosen = choices[i];
        }
    }
    if (chosen == now) {
        return 0.0;
    }
    p->widths[v->unit] = (uint8_t)dm_choice_bits(chosen);
    adopt(p, v, &best.numbers);
    return best_gain;
}

/* Rows that would gain too little stay as they are. Returns what the rest gains. */
static double keep_rows(const game *it, const view *v, offer *o) {
    const dm_panel *p = it->panel;
    double gain = 0.0;
    for (size_t l = 0; l < ROWS; l++) {
        if (o->change[l] < -LEAST_GAIN * o->terms[l] && p->d[l] > 0.0f) {
            gain -= (double)p->d[l] * o->change[l];
            continue;
        }
        o->change[l] = 0.0f;
        o->numbers.step[l] = p->numbers.scales[v->unit * ROWS + l];
        for (size_t j = 0; j < UNIT; j++) {
            o->numbers.q[j * ROWS + l] = v->q[j * ROWS + l];
            o->numbers.level[j * ROWS + l] = p->level[v->unit * TILE + j * ROWS + l];
        }
    }
    return gain;
}

/* One unit looks at its strategies; returns the gain of its move, 0 for none. */
static double look(game *it, size_t unit) {
    view v;
    offer same;
    open_view(&v, it->panel, unit);
    find_target(&v);
    double gain = 0.0;
    const bool kept = it->panel->widths[unit] > 0;
    if (kept) {
        offer_same(&same, it->panel, &v);
        gain = keep_rows(it, &v, &same);
    }
    const double other = move_width(it, &v, gain);
    if (other > 0.0) {
        return other;
    }
    if (gain > 0.0) {
        adopt(it->panel, &v, &same.numbers);
    }
    return gain;
}

static void wake(const game *it, size_t unit) {
    const dm_compress_moments *m = it->panel->moments;
    it->dirty[unit] = true;
    for (size_t k = 0; k < m->n_neighbours; k++) {
        it->dirty[m->neighbours[unit * m->n_neighbours + k]] = true;
    }
}

static void wake_all(const game *it) {
    memset(it->dirty, true, it->panel->moments->units * sizeof *it->dirty);
}

/* Returns how many units moved. */
static uint64_t sweep(game *it, double *payoff, uint64_t *proposals) {
    uint64_t moves = 0;
    for (size_t u = 0; u < it->panel->moments->units; u++) {
        if (!it->dirty[u]) {
            continue;
        }
        it->dirty[u] = false;
        (*proposals)++;
        const double gain = look(it, u);
        if (gain > 0.0) {
            *payoff += gain;
            moves++;
            wake(it, u);
        }
    }
    return moves;
}

static double payoff_of(const game *it) {
    dm_panel *p = it->panel;
    double paid = 0.0;
    for (size_t u = 0; u < p->moments->units; u++) {
        const int choice = dm_choice_of(p->widths[u]);
        paid += it->prices->byte * (double)dm_choice_bytes(choice) + it->prices->kept * (choice > 0);
    }
    return -dm_panel_error(p) - paid;
}

/* Without neighbours everybody looks in each sweep. With them those do that a move has woken; once nobody is awake all look
 * once more, and if nobody moves then that is rest. */
void dm_panel_play(dm_panel *it, const dm_prices *prices, size_t bytes, size_t sweeps, dm_play_counts *counts) {
    bool dirty[DM_MIXED_MOST_UNITS];
    game g = {it, prices, bytes, dirty};
    double payoff = payoff_of(&g);
    bool everybody = true;
    size_t s = 0;
    counts->at_rest = false;
    wake_all(&g);
    for (; s < sweeps && s < DM_MOST_SWEEPS && !counts->at_rest; s++) {
        counts->payoff[s] += payoff;
        const uint64_t moves = sweep(&g, &payoff, &counts->proposals[s]);
        counts->moves[s] += moves;
        counts->at_rest = moves == 0 && everybody;
        everybody = moves == 0 || it->moments->n_neighbours == 0;
        if (everybody) {
            wake_all(&g);
        }
    }
    for (size_t rest = s; rest <= DM_MOST_SWEEPS; rest++) {
        counts->payoff[rest] += payoff;
    }
    counts->sweeps = s > counts->sweeps ? s : counts->sweeps;
}
