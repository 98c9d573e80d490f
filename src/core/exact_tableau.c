#include "core/exact_tableau.h"

#include <string.h>

#include "base/memory.h"
#include "core/exact_payoffs.h"

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
    dm_wholes wholes;
    dm_status status = dm_wholes_create(game, 1 - mixer, &wholes);
    if (status == DM_OK) {
        status = allocate(out, limbs_needed(out, wholes.values, n));
    }
    if (status == DM_OK) {
        fill(out, game, mixer, wholes.values);
    }
    dm_wholes_free(&wholes);
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
