/* Llama 3's scaling of rotary frequencies, between the four numbers of config.json and the factors of rope_freqs.weight. */
#include <math.h>

#include "model/hf_config.h"

static const double two_pi = 6.283185307179586;

/* Turns that rotary frequency i of `half` makes within one position. */
static double turns_of(float base, size_t i, size_t half) {
    return pow((double)base, -(double)i / (double)half) / two_pi;
}

static float factor_at(const dm_llama3_scaling *s, float base, size_t i, size_t half) {
    double turns = s->original_context * turns_of(base, i, half);
    double kept = (turns - (double)s->low) / (double)(s->high - s->low); /* share of the frequency that stays */
    kept = fmin(1.0, fmax(0.0, kept));
    return (float)(1.0 / ((1.0 - kept) / (double)s->factor + kept));
}

void dm_llama3_factors(const dm_llama3_scaling *s, float base, size_t half, float *factors) {
    for (size_t i = 0; i < half; i++) {
        factors[i] = factor_at(s, base, i, half);
    }
}

static bool gives(const dm_llama3_scaling *s, const float *factors, size_t half, float base) {
    for (size_t i = 0; i < half; i++) {
        if (fabsf(factor_at(s, base, i, half) - factors[i]) > 1e-5f * factors[i]) {
            return false;
        }
    }
    return true;
}

/* The share of frequency i that stays, by its factor; true where it lies between the ends. */
static bool share_of(const float *factors, size_t i, float whole, double *share) {
    double f = (double)factors[i], most = (double)whole;
    *share = (1.0 / f - 1.0 / most) / (1.0 - 1.0 / most);
    return f > 1.0001 && f < 0.9999 * most;
}

/* With the usual ends, one factor between them gives the context; without one, any context does that lies between. */
static bool find_context(const float *factors, size_t half, float base, dm_llama3_scaling *s) {
    double context = 1.0, share;
    for (size_t i = 0; i < half; i++) {
        if (share_of(factors, i, s->factor, &share)) {
            context = ((double)s->low + share * (double)(s->high - s->low)) / turns_of(base, i, half);
            break;
        }
        context = share > 0.5 ? ceil((double)s->high / turns_of(base, i, half)) : context;
    }
    s->original_context = context < 1e9 ? (int32_t)lround(context) : 0;
    return s->original_context > 0 && gives(s, factors, half, base);
}

/* Between its ends the share that stays grows evenly with the turns: two factors there give the line. Lines that start at
 * other numbers of turns within other contexts are the same; the usual start, 1, is taken. */
static bool find_line(const float *factors, size_t half, float base, dm_llama3_scaling *s) {
    double shares[2] = {0}, turns[2] = {0};
    size_t n = 0;
    for (size_t i = 0; i < half && n < 2; i++) {
        if (share_of(factors, i, s->factor, &shares[n])) {
            turns[n++] = turns_of(base, i, half);
        }
    }
    if (n < 2) {
        return false;
    }
    double slope = (shares[0] - shares[1]) / (turns[0] - turns[1]);
    double start = slope * turns[0] - shares[0]; /* low / (high - low) */
    double context = slope / start;
    if (!(start > 0.0 && context >= 1.0 && context < 1e9)) {
        return false;
    }
    s->high = (float)(1.0 + 1.0 / start);
    s->original_context = (int32_t)lround(context);
    return gives(s, factors, half, base);
}

bool dm_llama3_find(const float *factors, size_t half, float base, dm_llama3_scaling *out) {
    *out = (dm_llama3_scaling){.factor = 1.0f, .low = 1.0f, .high = 4.0f, .original_context = 8192};
    for (size_t i = 0; i < half; i++) {
        out->factor = fmaxf(out->factor, factors[i]);
    }
    return gives(out, factors, half, base) || find_context(factors, half, base, out) || find_line(factors, half, base, out);
}
