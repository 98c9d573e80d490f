#include "core/exact_tableau.h"

#include <string.h>

#include "base/memory.h"

/* ---- Payoffs as whole numbers ---- */

enum { MOST_BITS = 2048, SCALE_LIMBS = MOST_BITS / 64 + 4 };

/* The payoffs of one player over a common denominator: entry = whole / (denominators * 10^-ten * 2^-two). */
typedef struct scale {
    uint64_t limbs[SCALE_LIMBS];
    dm_big denominators; /* least common multiple */
    int32_t ten, two;    /* least powers */
} scale;

static uint64_t rest_of(const dm_big *a, uint64_t divisor) {
    uint64_t limbs[SCALE_LIMBS];
    dm_big copy = {limbs, 0, 0};
    dm_big_copy(&copy, a);
    return dm_big_divide_small(&copy, divisor);
}

static dm_status too_long(void) {
    return dm_fail(DM_ERR_UNSUPPORTED, "over a common denominator the payoffs have more than %d bits", MOST_BITS);
}

static dm_status find_scale(const dm_exact *payoffs, size_t n, scale *out) {
    out->denominators.limbs = out->limbs;
    dm_big_set(&out->denominators, 1);
    out->ten = out->two = INT32_MAX;
    for (size_t i = 0; i < n; i++) {
        const dm_exact *exact = &payoffs[2 * i];
        if (exact->numerator == 0) {
            continue;
        }
        uint64_t a = (uint64_t)exact->denominator, b = rest_of(&out->denominators, a);
        while (b != 0) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        dm_big_multiply_small(&out->denominators, (uint64_t)exact->denominator / a);
        if (dm_big_bits(&out->denominators) > MOST_BITS) {
            return too_long();
        }
        out->ten = exact->ten < out->ten ? exact->ten : out->ten;
        out->two = exact->two < out->two ? exact->two : out->two;
    }
    return DM_OK;
}

/* A payoff as a whole number; out has SCALE_LIMBS limbs. */
static dm_status to_whole(const dm_exact *exact, const scale *common, dm_big *out) {
    dm_big_set(out, 0);
    if (exact->numerator == 0) {
        return DM_OK;
    }
    int64_t tens = (int64_t)exact->ten - common->ten, twos = (int64_t)exact->two - common->two;
    if ((int64_t)dm_big_bits(&common->denominators) + 64 + 10 * tens / 3 + twos > MOST_BITS) {
        return too_long();
    }
    dm_big_copy(out, &common->denominators);
    dm_big_divide_small(out, (uint64_t)exact->denominator);
    int64_t numerator = exact->numerator;
    dm_big_multiply_small(out, numerator < 0 ? 0 - (uint64_t)numerator : (uint64_t)numerator);
    out->sign = numerator < 0 ? -1 : 1;
    for (int64_t i = 0; i < tens; i++) {
        dm_big_multiply_small(out, 10);
    }
    for (int64_t i = 0; i < twos; i++) {
        dm_big_multiply_small(out, 2);
    }
    return DM_OK;
}

/* The payoffs of `player`, [n] in the order of profiles, moved so that the least is 1. limbs is their memory. */
static dm_status whole_payoffs(const dm_game *game, int32_t player, dm_big *wholes, uint64_t *limbs) {
    size_t n = game->profiles, least = 0;
    scale common;
    DM_TRY(find_scale(game->exact + player, n, &common));
    for (size_t p = 0; p < n; p++) {
        wholes[p].limbs = limbs + p * SCALE_LIMBS;
        DM_TRY(to_whole(&game->exact[2 * p + (size_t)player], &common, &wholes[p]));
        least = dm_big_compare(&wholes[p], &wholes[least]) < 0 ? p : least;
    }
    uint64_t moved_limbs[SCALE_LIMBS], one_limb;
    dm_big moved = {moved_limbs, 0, 0}, one = {&one_limb, 0, 0};
    dm_big_copy(&moved, &wholes[least]);
    dm_big_set(&one, 1);
    dm_big_subtract(&moved, &one);
    for (size_t p = 0; p < n; p++) {
        dm_big_subtract(&wholes[p], &moved);
    }
    return DM_OK;
}

/* ---- The tableau ---- */

/* Limbs that no entry outgrows: entries are minors of [G | I | 1], which Hadamard's bound limits by the product of the rows'
 * lengths. */
static size_t limbs_needed(const dm_tableau *t, const dm_big *wholes, size_t n) {
    size_t bits = 1;
    for (size_t p = 0; p < n; p++) {
        bits = dm_big_bits(&wholes[p]) > bits ? dm_big_bits(&wholes[p]) : bits;
    }
    return t->rows * (bits + 4) / 64 + 2; /* a row has less than 2^8 entries, so its length is below 2^(bits + 4) */
}

static dm_status allocate(dm_tableau *t, size_t limbs) {
    size_t n = t->rows * (t->variables + 1);
    t->entries = dm_alloc(n, sizeof *t->entries);
    t->limbs = dm_alloc((n + 2) * limbs + 2 * (2 * limbs + 1), sizeof *t->limbs);
    if (t->entries == NULL || t->limbs == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        t->entries[i].limbs = t->limbs + i * limbs;
    }
    t->determinant.limbs = t->limbs + n * limbs;
    t->divisor.odd.limbs = t->determinant.limbs + limbs;
    t->product.limbs = t->divisor.odd.limbs + limbs;
    t->other.limbs = t->product.limbs + 2 * limbs + 1;
    return DM_OK;
}

static void fill(dm_tableau *t, const dm_game *game, int32_t mixer, const dm_big *wholes) {
    size_t own = game->first[mixer], others = game->first[1 - mixer], columns = t->variables + 1;
    size_t step_k = mixer == 0 ? 1 : t->rows, step_row = mixer == 0 ? t->k : 1; /* in the order of profiles */
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t j = 0; j < t->k; j++) {
            dm_big_copy(&t->entries[r * columns + j], &wholes[r * step_row + j * step_k]);
        }
        dm_big_set(&t->entries[r * columns + t->k + r], 1);
        dm_big_set(&t->entries[r * columns + t->variables], 1);
        t->basis[r] = t->k + r;
        t->basic |= (uint64_t)1 << (t->k + r);
    }
    for (size_t v = 0; v < t->variables; v++) {
        t->labels[v] = (uint8_t)(v < t->k ? own + v : others + v - t->k);
        t->variable[t->labels[v]] = (uint8_t)v;
    }
    dm_big_set(&t->determinant, 1);
}

dm_status dm_tableau_create(const dm_game *game, int32_t mixer, dm_tableau *out) {
    *out = (dm_tableau){.k = (size_t)game->strategies[mixer], .rows = (size_t)game->strategies[1 - mixer]};
    out->variables = out->k + out->rows;
    size_t n = game->profiles;
    dm_big *wholes = dm_alloc(n, sizeof *wholes);
    uint64_t *limbs = dm_alloc(n * SCALE_LIMBS, sizeof *limbs);
    dm_status status = wholes != NULL && limbs != NULL ? DM_OK : DM_ERR_MEMORY;
    if (status == DM_OK) {
        status = whole_payoffs(game, 1 - mixer, wholes, limbs);
    }
    if (status == DM_OK) {
        status = allocate(out, limbs_needed(out, wholes, n));
    }
    if (status == DM_OK) {
        fill(out, game, mixer, wholes);
    }
    dm_free(wholes);
    dm_free(limbs);
    return status;
}

void dm_tableau_free(dm_tableau *tableau) {
    dm_free(tableau->entries);
    dm_free(tableau->limbs);
}

/* ---- Walking ---- */

static dm_big *entry(const dm_tableau *t, size_t row, size_t column) {
    return &t->entries[row * (t->variables + 1) + column];
}

/* Sign of entry(a, column) / entry(a, entering) - entry(b, column) / entry(b, entering), both divisors above 0 */
static int compare_ratios(dm_tableau *t, size_t a, size_t b, size_t column, size_t entering) {
    const dm_big *first = entry(t, a, column), *second = entry(t, b, column);
    if (first->sign != second->sign || first->sign == 0) {
        return (first->sign > second->sign) - (first->sign < second->sign);
    }
    dm_big_multiply(&t->product, first, entry(t, b, entering));
    dm_big_multiply(&t->other, second, entry(t, a, entering));
    return dm_big_compare(&t->product, &t->other);
}

/* By the right side, then by the columns of the first basis, which the infinitely small changes of the right side follow. */
static bool leaves_first(dm_tableau *t, size_t a, size_t b, size_t entering) {
    int order = compare_ratios(t, a, b, t->variables, entering);
    for (size_t column = t->k; order == 0 && column < t->variables; column++) {
        order = compare_ratios(t, a, b, column, entering);
    }
    return order < 0;
}

size_t dm_tableau_leaving(dm_tableau *t, size_t entering) {
    size_t best = t->rows;
    for (size_t r = 0; r < t->rows; r++) {
        if (entry(t, r, entering)->sign > 0 && (best == t->rows || leaves_first(t, r, best, entering))) {
            best = r;
        }
    }
    return best; /* there is one, as a polytope has no end */
}

void dm_tableau_pivot(dm_tableau *t, size_t row, size_t entering) {
    dm_big_prepare(&t->divisor, &t->determinant);
    const dm_big *pivot = entry(t, row, entering);
    for (size_t r = 0; r < t->rows; r++) {
        if (r == row) {
            continue;
        }
        const dm_big *factor = entry(t, r, entering);
        for (size_t c = 0; c <= t->variables; c++) {
            dm_big *value = entry(t, r, c);
            if (c == entering || (value->sign == 0 && (factor->sign == 0 || entry(t, row, c)->sign == 0))) {
                continue;
            }
            dm_big_multiply(&t->product, value, pivot);
            dm_big_multiply(&t->other, factor, entry(t, row, c));
            dm_big_subtract(&t->product, &t->other);
            dm_big_divide_exact(&t->product, &t->divisor);
            dm_big_copy(value, &t->product);
        }
        dm_big_set(entry(t, r, entering), 0); /* last, as it was the factor */
    }
    dm_big_copy(&t->determinant, pivot);
    t->basic ^= (uint64_t)1 << entering ^ (uint64_t)1 << t->basis[row];
    t->basis[row] = entering;
}

/* ---- What a vertex is ---- */

uint64_t dm_tableau_labels(const dm_tableau *t) {
    uint64_t labels = 0;
    for (size_t v = 0; v < t->variables; v++) {
        labels |= (uint64_t)(~t->basic >> v & 1) << t->labels[v];
    }
    for (size_t r = 0; r < t->rows; r++) {
        labels |= (uint64_t)(entry(t, r, t->variables)->sign == 0) << t->labels[t->basis[r]];
    }
    return labels;
}

void dm_tableau_mixture(dm_tableau *t, double *probabilities) {
    dm_big *sum = &t->other;
    dm_big_set(sum, 0);
    for (size_t r = 0; r < t->rows; r++) {
        if (t->basis[r] < t->k) {
            dm_big_subtract(sum, entry(t, r, t->variables)); /* minus the sum, with room for its carries */
        }
    }
    sum->sign = -sum->sign;
    memset(probabilities, 0, t->k * sizeof *probabilities);
    for (size_t r = 0; r < t->rows; r++) {
        if (t->basis[r] < t->k) {
            probabilities[t->basis[r]] = dm_big_ratio(entry(t, r, t->variables), sum);
        }
    }
}
