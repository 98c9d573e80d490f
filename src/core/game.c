#include "core/game.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "core/game_costs.h"

enum { COST = 4 }; /* of looking at a candidate, in multiplications */

/* What a token plays: places in its flock, those it always keeps before those it chooses. */
typedef struct seat {
    double offset;  /* added to each of its affinities: 0, or of the adaptive count */
    uint32_t kept;  /* places [0, kept) */
    uint32_t count; /* places [kept, count) are chosen */
    bool proposes;
} seat;

/* One thread's workspace. */
typedef struct hand {
    double *values; /* [g] payoff of each place, were it played; -INFINITY: cannot be */
    double *mine;   /* [max_k] of the places that are chosen now */
    uint32_t *best; /* [max_k] places */
    size_t count;   /* of `best` */
    double regret;  /* greatest gain seen */
} hand;

typedef struct board {
    const dm_routing_game *game;
    dm_loads loads;
    seat *seats;         /* [T] */
    uint32_t *places;    /* [T, max_k] */
    hand *hands;         /* [threads] */
    int32_t *strategies; /* [T, max_k], the caller's */
} board;

/* ---- Scratch ---- */

typedef struct carver {
    uint8_t *memory; /* NULL: only counts */
    size_t used;     /* bytes */
    bool overflow;
} carver;

static void *carve(carver *c, size_t rows, size_t row, size_t size) {
    size_t bytes, padded, start = c->used;
    if (!dm_mul_size(rows, row, &bytes) || !dm_mul_size(bytes, size, &bytes) || !dm_add_size(bytes, DM_ALIGNMENT - 1, &padded) ||
        !dm_add_size(start, padded & ~(size_t)(DM_ALIGNMENT - 1), &c->used)) {
        c->overflow = true;
        c->used = start;
    }
    return c->memory != NULL ? c->memory + start : NULL;
}

/* Threads' arrays lie in cache lines of their own. */
static void carve_board(board *b, carver *c) {
    const dm_routing_game *game = b->game;
    size_t threads = (size_t)game->threads;
    b->loads.game = game;
    b->loads.fetch = carve(c, 1, game->experts, sizeof *b->loads.fetch);
    b->loads.users = carve(c, 1, game->experts, sizeof *b->loads.users);
    b->loads.here = carve(c, 1, game->experts, sizeof *b->loads.here);
    b->loads.join = carve(c, 1, game->experts, sizeof *b->loads.join);
    b->seats = carve(c, 1, game->tokens, sizeof *b->seats);
    b->places = carve(c, game->tokens, game->max_k, sizeof *b->places);
    b->hands = carve(c, 1, threads, sizeof *b->hands);
    for (size_t t = 0; t < threads && !c->overflow; t++) {
        hand h = {0};
        h.values = carve(c, 1, game->flock, sizeof *h.values);
        h.mine = carve(c, 1, game->max_k, sizeof *h.mine);
        h.best = carve(c, 1, game->max_k, sizeof *h.best);
        if (b->hands != NULL) {
            b->hands[t] = h;
        }
    }
}

static dm_status check_sizes(const dm_routing_game *game) {
    if (game->experts < 1 || game->experts > INT32_MAX || game->flock < 1 || game->flock > game->experts) {
        return dm_fail(DM_ERR_ARGUMENT, "a flock of %zu among %zu experts: expected 1 to as many as there are", game->flock,
                       game->experts);
    }
    if (game->min_k < 1 || game->min_k > game->max_k || game->max_k > game->flock) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu to %zu experts per token from a flock of %zu: expected 1 <= least <= most <= flock",
                       game->min_k, game->max_k, game->flock);
    }
    if (game->keep_top > game->min_k) {
        return dm_fail(DM_ERR_ARGUMENT, "%zu experts always kept of at least %zu: expected no more than that", game->keep_top,
                       game->min_k);
    }
    if (game->threads < 1) {
        return dm_fail(DM_ERR_ARGUMENT, "a game on %d threads: expected 1 or more", game->threads);
    }
    return DM_OK;
}

dm_status dm_routing_game_scratch(const dm_routing_game *game, size_t *bytes) {
    DM_TRY(check_sizes(game));
    board b = {.game = game};
    carver c = {0};
    carve_board(&b, &c);
    size_t cells;
    if (c.overflow || !dm_mul_size(game->tokens, game->flock, &cells) || !dm_mul_size(cells, sizeof(float), &cells)) {
        return dm_fail(DM_ERR_MEMORY, "a game of %zu tokens over flocks of %zu is more than this machine can address",
                       game->tokens, game->flock);
    }
    *bytes = c.used;
    return DM_OK;
}

/* ---- Checks ---- */

static dm_status check_costs(const dm_routing_game *game) {
    const dm_routing_game_costs *costs = &game->costs;
    if (!isfinite(costs->beta) || !isfinite(costs->gamma) || !isfinite(costs->spread)) {
        return dm_fail(DM_ERR_ARGUMENT, "beta, gamma and the spread of affinities must be finite");
    }
    if (costs->tau != NULL && !(costs->tau_disk > 0.0 && isfinite(costs->tau_disk))) {
        return dm_fail(DM_ERR_ARGUMENT, "fetching from disk takes %g seconds: expected more than 0", costs->tau_disk);
    }
    for (size_t e = 0; e < game->experts; e++) {
        if (costs->tau != NULL && !isfinite(costs->tau[e])) {
            return dm_fail(DM_ERR_ARGUMENT, "the time to fetch expert %zu is not finite", e);
        }
        if (costs->price != NULL && !isfinite(costs->price[e])) {
            return dm_fail(DM_ERR_ARGUMENT, "the price of expert %zu is not finite", e);
        }
    }
    return DM_OK;
}

/* seen[e] is the last row, counted from 1, that has expert e. */
static dm_status check_candidates(const dm_routing_game *game, size_t *seen) {
    memset(seen, 0, game->experts * sizeof *seen);
    for (size_t i = 0; i < game->tokens; i++) {
        const int32_t *row = game->candidates + i * game->flock;
        for (size_t j = 0; j < game->flock; j++) {
            if (row[j] < 0 || (size_t)row[j] >= game->experts) {
                return dm_fail(DM_ERR_ARGUMENT, "the flock of token %zu has expert %d, of %zu", i, row[j], game->experts);
            }
            if (seen[row[j]] == i + 1) {
                return dm_fail(DM_ERR_ARGUMENT, "the flock of token %zu has expert %d twice", i, row[j]);
            }
            seen[row[j]] = i + 1;
        }
    }
    return DM_OK;
}

dm_status dm_routing_game_check(const dm_routing_game *game, void *scratch) {
    size_t bytes;
    DM_TRY(dm_routing_game_scratch(game, &bytes));
    if (game->affinities == NULL || (game->candidates == NULL && game->flock != game->experts)) {
        return dm_fail(DM_ERR_ARGUMENT, "a game needs affinities, and the ids of flocks smaller than all experts");
    }
    if (game->min_k < game->max_k && !(game->theta > 0.0 && game->theta <= 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "theta is %g: expected more than 0, and 1 at most", game->theta);
    }
    if (!(game->eps >= 0.0 && isfinite(game->eps))) {
        return dm_fail(DM_ERR_ARGUMENT, "eps is %g: expected 0 or more", game->eps);
    }
    DM_TRY(check_costs(game));
    board b = {.game = game};
    carver c = {.memory = scratch};
    carve_board(&b, &c);
    return game->candidates != NULL ? check_candidates(game, b.loads.users) : DM_OK;
}

/* ---- One token ---- */

static double held(float affinity) {
    return (double)(affinity > FLT_MAX ? FLT_MAX : affinity);
}

static double affinity_at(const board *b, size_t i, size_t place) {
    return held(b->game->affinities[i * b->game->flock + place]);
}

static size_t expert_at(const board *b, size_t i, size_t place) {
    return b->game->candidates != NULL ? (size_t)b->game->candidates[i * b->game->flock + place] : place;
}

static uint32_t *places_of(const board *b, size_t i) {
    return b->places + i * b->game->max_k;
}

/* values[g]: what each place would pay if the token joined its expert now. */
static void evaluate(const board *b, size_t i, double *values) {
    const size_t g = b->game->flock;
    const float *a = b->game->affinities + i * g;
    const double *join = b->loads.join;
    const double offset = b->seats[i].offset;
    if (b->game->candidates == NULL) {
        for (size_t j = 0; j < g; j++) {
            values[j] = held(a[j]) + offset - join[j];
        }
        return;
    }
    const int32_t *ids = b->game->candidates + i * g;
    for (size_t j = 0; j < g; j++) {
        values[j] = held(a[j]) + offset - join[ids[j]];
    }
}

/* The order of choice: payoff, then affinity, then the lower expert. */
static bool beats(const board *b, size_t i, const double *values, size_t j, size_t other) {
    if (values[j] != values[other]) {
        return values[j] > values[other];
    }
    double mine = affinity_at(b, i, j), theirs = affinity_at(b, i, other);
    return mine != theirs ? mine > theirs : expert_at(b, i, j) < expert_at(b, i, other);
}

/* Puts a place into a list of up to `most` that is sorted by `values`, best first; returns its new length. */
static size_t insert(const board *b, size_t i, const double *values, size_t j, uint32_t *best, size_t count, size_t most) {
    size_t at = count;
    while (at > 0 && beats(b, i, values, j, best[at - 1])) {
        at--;
    }
    if (at < most) {
        count += count < most;
        memmove(best + at + 1, best + at, (count - 1 - at) * sizeof *best);
        best[at] = (uint32_t)j;
    }
    return count;
}

/* Up to `most` places of the greatest values, best first; returns how many. */
static size_t select_best(const board *b, size_t i, const double *values, size_t most, uint32_t *best) {
    size_t count = 0;
    for (size_t j = 0; j < b->game->flock && most > 0; j++) {
        bool hopeless = count == most && values[j] < values[best[most - 1]];
        if (values[j] > -INFINITY && !hopeless) {
            count = insert(b, i, values, j, best, count, most);
        }
    }
    return count;
}

/* Four maxima side by side, or each comparison would wait for the one before. NaN is never the greatest. */
static double greatest_of(const double *values, size_t n) {
    double most[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    size_t j = 0;
    for (; j + 4 <= n; j += 4) {
        for (size_t l = 0; l < 4; l++) {
            most[l] = values[j + l] > most[l] ? values[j + l] : most[l];
        }
    }
    for (; j < n; j++) {
        most[0] = values[j] > most[0] ? values[j] : most[0];
    }
    most[0] = most[1] > most[0] ? most[1] : most[0];
    most[2] = most[3] > most[2] ? most[3] : most[2];
    return most[0] > most[2] ? most[0] : most[2];
}

/* True where no exchange, addition or removal of one expert pays; then no other choice does. `values` has the token's own
 * places out. */
static bool content(const dm_routing_game *game, const seat *s, const hand *h) {
    double least = INFINITY, greatest = greatest_of(h->values, game->flock);
    for (size_t q = 0; q < s->count - s->kept; q++) {
        least = h->mine[q] < least ? h->mine[q] : least;
    }
    bool exchange = greatest > least && s->count > s->kept;
    bool add = s->count < game->max_k && greatest > 0.0;
    bool drop = s->count > game->min_k && least < 0.0;
    return !exchange && !add && !drop;
}

static void sort_descending(double *values, size_t n) {
    for (size_t i = 1; i < n; i++) {
        double value = values[i];
        size_t at = i;
        for (; at > 0 && values[at - 1] < value; at--) {
            values[at] = values[at - 1];
        }
        values[at] = value;
    }
}

/* What token i gains by its best response, whose chosen places h->best receives where that is more than 0. Both sides are
 * compared rank by rank, so that every term is 0 or more and equal choices give exactly 0. */
static double best_response(const board *b, size_t i, hand *h) {
    const dm_routing_game *game = b->game;
    const seat *s = &b->seats[i];
    const uint32_t *places = places_of(b, i), *chosen = places + s->kept;
    const size_t n = s->count - s->kept;
    evaluate(b, i, h->values);
    for (size_t q = 0; q < n; q++) {
        h->mine[q] = affinity_at(b, i, chosen[q]) + s->offset - b->loads.here[expert_at(b, i, chosen[q])];
    }
    for (size_t q = 0; q < s->count; q++) {
        h->values[places[q]] = -INFINITY;
    }
    if (content(game, s, h)) {
        return 0.0;
    }
    for (size_t q = 0; q < n; q++) {
        h->values[chosen[q]] = h->mine[q];
    }
    h->count = select_best(b, i, h->values, game->max_k - s->kept, h->best);
    while (h->count + s->kept > game->min_k && h->values[h->best[h->count - 1]] <= 0.0) {
        h->count--;
    }
    sort_descending(h->mine, n);
    double gain = 0.0;
    for (size_t q = 0; q < n || q < h->count; q++) {
        gain += (q < h->count ? h->values[h->best[q]] : 0.0) - (q < n ? h->mine[q] : 0.0);
    }
    return gain;
}

/* Token i takes h->best. In h->values, +INFINITY marks the places to join. */
static void change(board *b, size_t i, hand *h, double gain) {
    seat *s = &b->seats[i];
    uint32_t *chosen = places_of(b, i) + s->kept;
    for (size_t q = 0; q < h->count; q++) {
        h->values[h->best[q]] = INFINITY;
    }
    for (size_t q = 0; q < s->count - s->kept; q++) {
        if (h->values[chosen[q]] == INFINITY) {
            h->values[chosen[q]] = 0.0;
        } else {
            dm_loads_leave(&b->loads, expert_at(b, i, chosen[q]));
        }
    }
    for (size_t q = 0; q < h->count; q++) {
        chosen[q] = h->best[q];
        if (h->values[chosen[q]] == INFINITY) {
            dm_loads_join(&b->loads, expert_at(b, i, chosen[q]));
        }
    }
    s->count = s->kept + (uint32_t)h->count;
    if (b->game->on_move != NULL) {
        int32_t *experts = b->strategies + i * b->game->max_k;
        for (size_t q = 0; q < s->count; q++) {
            experts[q] = (int32_t)expert_at(b, i, places_of(b, i)[q]);
        }
        b->game->on_move(b->game->on_move_user, i, experts, s->count, gain);
    }
}

/* ---- The start ---- */

/* The place of an expert in token i's flock; g where it is not there. */
static size_t place_of(const board *b, size_t i, int32_t expert) {
    size_t g = b->game->flock, j = 0;
    if (expert < 0) {
        return g;
    }
    if (b->game->candidates == NULL) {
        return (size_t)expert < g ? (size_t)expert : g;
    }
    while (j < g && b->game->candidates[i * g + j] != expert) {
        j++;
    }
    return j;
}

/* Adds the experts of the caller's row that can be had to places[count], up to *target in all, which the row decides. Places
 * that are taken have no value any more. */
static size_t take_given(const board *b, size_t i, double *values, size_t count, size_t *target) {
    const int32_t *given = b->strategies + i * b->game->max_k;
    size_t entries = 0;
    for (size_t q = 0; q < b->game->max_k; q++) {
        entries += given[q] >= 0;
    }
    *target = entries > b->game->min_k ? entries : b->game->min_k;
    for (size_t q = 0; q < b->game->max_k && count < *target; q++) {
        size_t place = place_of(b, i, given[q]);
        if (place < b->game->flock && values[place] > -INFINITY) {
            places_of(b, i)[count++] = (uint32_t)place;
            values[place] = -INFINITY;
        }
    }
    return count;
}

static void take_seat(const board *b, size_t i, bool warm, double *values) {
    const dm_routing_game *game = b->game;
    seat *s = &b->seats[i];
    uint32_t *places = places_of(b, i);
    double greatest = -INFINITY;
    for (size_t j = 0; j < game->flock; j++) {
        values[j] = game->off != NULL && game->off[expert_at(b, i, j)] ? -INFINITY : affinity_at(b, i, j);
        greatest = values[j] > greatest ? values[j] : greatest;
    }
    size_t target = game->max_k;
    size_t count = select_best(b, i, values, warm ? game->keep_top : target, places);
    *s = (seat){.kept = (uint32_t)(count < game->keep_top ? count : game->keep_top)};
    if (warm) {
        for (size_t q = 0; q < count; q++) {
            values[places[q]] = -INFINITY;
        }
        count = take_given(b, i, values, count, &target);
        count += select_best(b, i, values, target - count, places + count);
    }
    s->count = (uint32_t)count;
    s->offset = game->min_k < game->max_k && count > 0 ? -log(game->theta) - greatest : 0.0;
}

static void take_seats(void *user, size_t begin, size_t end, int thread) {
    const board *b = user;
    bool warm = b->game->warm && dm_costs_depend_on_loads(&b->game->costs);
    for (size_t i = begin; i < end; i++) {
        take_seat(b, i, warm, b->hands[thread].values);
    }
}

static void start(board *b) {
    const dm_routing_game *game = b->game;
    dm_loads_clear(&b->loads);
    dm_parallel(game->threads, game->tokens, dm_parallel_grain(COST * game->flock), take_seats, b);
    for (size_t i = 0; i < game->tokens; i++) {
        for (size_t q = 0; q < b->seats[i].count; q++) {
            b->loads.users[expert_at(b, i, places_of(b, i)[q])]++;
        }
    }
    dm_loads_price(&b->loads);
}

/* ---- Play ---- */

static double potential(const board *b) {
    double sum = 0.0;
    for (size_t i = 0; i < b->game->tokens; i++) {
        for (size_t q = 0; q < b->seats[i].count; q++) {
            sum += affinity_at(b, i, places_of(b, i)[q]) + b->seats[i].offset;
        }
    }
    return sum - dm_loads_rosenthal(&b->loads);
}

static void survey_tokens(void *user, size_t begin, size_t end, int thread) {
    const board *b = user;
    hand *h = &b->hands[thread];
    double regret = h->regret;
    for (size_t i = begin; i < end; i++) {
        double gain = best_response(b, i, h);
        b->seats[i].proposes = gain > b->game->eps;
        regret = gain > regret ? gain : regret;
    }
    h->regret = regret;
}

/* Who would gain, while nobody changes; returns the greatest gain. */
static double survey(board *b) {
    for (int t = 0; t < b->game->threads; t++) {
        b->hands[t].regret = 0.0;
    }
    dm_parallel(b->game->threads, b->game->tokens, dm_parallel_grain(COST * b->game->flock), survey_tokens, b);
    double regret = 0.0;
    for (int t = 0; t < b->game->threads; t++) {
        regret = b->hands[t].regret > regret ? b->hands[t].regret : regret;
    }
    return regret;
}

/* True where the token gained, and changed; *gain is what it found either way. */
static bool respond(board *b, size_t i, double *gain, dm_routing_game_result *result) {
    *gain = best_response(b, i, &b->hands[0]);
    if (!(*gain > b->game->eps)) {
        return false;
    }
    change(b, i, &b->hands[0], *gain);
    result->moves++;
    return true;
}

/* Changes nothing that play depends on. */
static void tell_sweep(board *b, const dm_routing_game_result *result) {
    if (b->game->on_sweep != NULL) {
        const dm_routing_game_sweep now = {.tokens = b->game->tokens,
                                           .sweeps = result->sweeps,
                                           .potential = potential(b),
                                           .max_regret = survey(b),
                                           .moves = result->moves};
        b->game->on_sweep(b->game->on_sweep_user, &now);
    }
}

/* Rest is reached when as many tokens as there are have been content, one after another; one that just changed is. */
static bool play_in_turn(board *b, dm_routing_game_result *result) {
    size_t quiet = 0, n = b->game->tokens;
    while (quiet < n && result->sweeps < b->game->most_sweeps) {
        result->sweeps++;
        for (size_t i = 0; i < n && quiet < n; i++) {
            double gain;
            if (respond(b, i, &gain, result)) {
                quiet = 1;
                result->max_regret = 0.0;
            } else {
                quiet++;
                result->max_regret = gain > result->max_regret ? gain : result->max_regret;
            }
        }
        tell_sweep(b, result);
    }
    return quiet >= n;
}

static bool play_proposals(board *b, dm_routing_game_result *result) {
    while (result->sweeps < b->game->most_sweeps) {
        result->sweeps++;
        result->max_regret = survey(b);
        if (!(result->max_regret > b->game->eps)) {
            tell_sweep(b, result);
            return true;
        }
        for (size_t i = 0; i < b->game->tokens; i++) {
            double gain;
            if (b->seats[i].proposes) {
                respond(b, i, &gain, result);
            }
        }
        tell_sweep(b, result);
    }
    return false;
}

/* A token's experts by affinity, as the model orders its own. */
static void write_strategy(const board *b, size_t i) {
    const seat *s = &b->seats[i];
    hand *h = &b->hands[0];
    int32_t *experts = b->strategies + i * b->game->max_k;
    size_t count = 0;
    for (size_t q = 0; q < s->count; q++) {
        size_t place = places_of(b, i)[q];
        h->values[place] = affinity_at(b, i, place);
        count = insert(b, i, h->values, place, h->best, count, s->count);
    }
    for (size_t q = 0; q < b->game->max_k; q++) {
        experts[q] = q < count ? (int32_t)expert_at(b, i, h->best[q]) : -1;
    }
}

void dm_routing_game_play(const dm_routing_game *game, int32_t *strategies, void *scratch, dm_routing_game_result *result) {
    board b = {.game = game, .strategies = strategies};
    carver c = {.memory = scratch};
    carve_board(&b, &c);
    start(&b);
    *result = (dm_routing_game_result){.potential_before = potential(&b)};
    tell_sweep(&b, result);
    result->at_rest = game->propose ? play_proposals(&b, result) : play_in_turn(&b, result);
    if (!result->at_rest) {
        result->max_regret = survey(&b);
        result->at_rest = !(result->max_regret > game->eps);
    }
    for (size_t i = 0; i < game->tokens; i++) {
        write_strategy(&b, i);
    }
    result->potential_after = potential(&b);
}
