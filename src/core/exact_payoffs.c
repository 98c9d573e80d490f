#include "core/exact_payoffs.h"

#include "base/memory.h"

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

/* [profiles] as they are, and which is least. */
static dm_status convert(const dm_game *game, int32_t player, dm_big *wholes, size_t *least) {
    scale common;
    DM_TRY(find_scale(game->exact + player, game->profiles, &common));
    *least = 0;
    for (size_t p = 0; p < game->profiles; p++) {
        DM_TRY(to_whole(&game->exact[2 * p + (size_t)player], &common, &wholes[p]));
        *least = dm_big_compare(&wholes[p], &wholes[*least]) < 0 ? p : *least;
    }
    return DM_OK;
}

dm_status dm_wholes_create(const dm_game *game, int32_t player, dm_wholes *out) {
    size_t n = game->profiles, least;
    *out = (dm_wholes){dm_alloc(n, sizeof *out->values), dm_alloc(n * SCALE_LIMBS, sizeof *out->limbs)};
    if (out->values == NULL || out->limbs == NULL) {
        return DM_ERR_MEMORY;
    }
    for (size_t p = 0; p < n; p++) {
        out->values[p].limbs = out->limbs + p * SCALE_LIMBS;
    }
    DM_TRY(convert(game, player, out->values, &least));
    uint64_t moved_limbs[SCALE_LIMBS], one_limb;
    dm_big moved = {moved_limbs, 0, 0}, one = {&one_limb, 0, 0};
    dm_big_copy(&moved, &out->values[least]);
    dm_big_set(&one, 1);
    dm_big_subtract(&moved, &one);
    for (size_t p = 0; p < n; p++) {
        dm_big_subtract(&out->values[p], &moved);
    }
    return DM_OK;
}

void dm_wholes_free(dm_wholes *wholes) {
    dm_free(wholes->values);
    dm_free(wholes->limbs);
}
