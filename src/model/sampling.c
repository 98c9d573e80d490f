#include "model/sampling.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

dm_sampling dm_sampling_default(void) {
    return (dm_sampling){
        .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repetition_penalty = 1.0f, .penalty_window = 64};
}

static dm_status check(const dm_sampling *o) {
    if (!(o->temperature >= 0.0f) || !isfinite(o->temperature)) {
        return dm_fail(DM_ERR_ARGUMENT, "a temperature of %g cannot be used; 0 is greedy, 1 the model's own",
                       (double)o->temperature);
    }
    if (o->top_k < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "top-k of %d cannot be used; 1 or more, or 0 for off", o->top_k);
    }
    if (!(o->top_p > 0.0f && o->top_p <= 1.0f)) {
        return dm_fail(DM_ERR_ARGUMENT, "top-p of %g cannot be used; above 0 and up to 1 (off)", (double)o->top_p);
    }
    if (!(o->min_p >= 0.0f && o->min_p <= 1.0f)) {
        return dm_fail(DM_ERR_ARGUMENT, "min-p of %g cannot be used; 0 (off) to 1", (double)o->min_p);
    }
    if (!(o->repetition_penalty > 0.0f) || !isfinite(o->repetition_penalty)) {
        return dm_fail(DM_ERR_ARGUMENT, "a repetition penalty of %g cannot be used; 1 is off, 1.1 mild",
                       (double)o->repetition_penalty);
    }
    if (o->penalty_window < 0) {
        return dm_fail(DM_ERR_ARGUMENT, "a repetition window of %d tokens cannot be used; 0 or more", o->penalty_window);
    }
    return DM_OK;
}

dm_status dm_sampler_init(dm_sampler *sampler, const dm_sampling *options, int32_t vocab) {
    *sampler = (dm_sampler){.options = *options, .vocab = vocab};
    DM_TRY(check(options));
    dm_random_seed(&sampler->random, options->seed);
    sampler->candidates = dm_alloc((size_t)vocab, sizeof *sampler->candidates);
    return sampler->candidates != NULL ? DM_OK : DM_ERR_MEMORY;
}

void dm_sampler_free(dm_sampler *sampler) {
    dm_free(sampler->candidates);
    *sampler = (dm_sampler){0};
}

void dm_sampling_penalize(float *logits, int32_t vocab, const int32_t *recent, int32_t n, float penalty) {
    for (int32_t i = 0; i < n && penalty != 1.0f; i++) {
        bool seen = recent[i] < 0 || recent[i] >= vocab;
        for (int32_t j = 0; j < i && !seen; j++) {
            seen = recent[j] == recent[i];
        }
        if (!seen) {
            float *logit = &logits[recent[i]];
            *logit = *logit > 0.0f ? *logit / penalty : *logit * penalty;
        }
    }
}

static bool before(const dm_candidate *a, const dm_candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare(const void *a, const void *b) {
    return before(a, b) ? -1 : 1;
}

/* Brings the k best of n to the front, in any order (Hoare's selection); linear on average. */
static void select_best(dm_candidate *candidates, int32_t n, int32_t k) {
    int32_t low = 0;
    int32_t high = n - 1;
    while (low < high) {
        dm_candidate pivot = candidates[low + (high - low) / 2];
        int32_t i = low;
        int32_t j = high;
        while (i <= j) {
            while (before(&candidates[i], &pivot)) {
                i++;
            }
            while (before(&pivot, &candidates[j])) {
                j--;
            }
            if (i <= j) {
                dm_candidate kept = candidates[i];
                candidates[i++] = candidates[j];
                candidates[j--] = kept;
            }
        }
        if (k - 1 <= j) {
            high = j;
        } else if (k - 1 >= i) {
            low = i;
        } else {
            return;
        }
    }
}

/* p of the first n candidates: softmax of their logits over `temperature`. The first is the best. */
static void normalize(dm_candidate *candidates, int32_t n, float temperature) {
    double total = 0.0;
    for (int32_t i = 0; i < n; i++) {
        double weight = exp(((double)candidates[i].logit - (double)candidates[0].logit) / (double)temperature);
        candidates[i].p = (float)weight;
        total += weight;
    }
    for (int32_t i = 0; i < n; i++) {
        candidates[i].p = (float)((double)candidates[i].p / total);
    }
}

enum { RUN = 16, ROOM = 4 };

/* Whether one of up to RUN logits is above the level; NaN is not. Without branches: some instructions of a vector. */
static bool any_above(const float *logits, int32_t n, float level) {
    int any = 0;
    if (n < RUN) {
        return true;
    }
    for (int i = 0; i < RUN; i++) {
        any |= logits[i] > level;
    }
    return any != 0;
}

static float worst_of(const dm_candidate *candidates, int32_t n) {
    float worst = INFINITY;
    for (int32_t i = 0; i < n; i++) {
        worst = candidates[i].logit < worst ? candidates[i].logit : worst;
    }
    return worst;
}

/* The k best of the finite logits, or all where they are no more, in any order; returns how many. Those above the worst of k that
 * were seen before are few: the best of them are chosen whenever ROOM times k have come together. candidates [min(ROOM k, vocab)]
 */
static int32_t gather(const float *logits, int32_t vocab, int32_t k, dm_candidate *candidates) {
    const int32_t room = k > vocab / ROOM ? vocab : ROOM * k;
    float level = -INFINITY;
    int32_t n = 0;
    for (int32_t begin = 0; begin < vocab; begin += RUN) {
        const int32_t end = vocab - begin < RUN ? vocab : begin + RUN;
        for (int32_t id = any_above(logits + begin, end - begin, level) ? begin : end; id < end; id++) {
            if (!(logits[id] > level) || !isfinite(logits[id])) { /* one that equals the worst has a higher id */
                continue;
            }
            if (n == room && k < n) {
                select_best(candidates, n, k);
                n = k;
                level = worst_of(candidates, n);
            }
            if (logits[id] > level) {
                candidates[n++] = (dm_candidate){logits[id], 0.0f, id};
            }
        }
    }
    if (k < n) {
        select_best(candidates, n, k);
        n = k;
    }
    return n;
}

void dm_sampler_candidates(dm_sampler *sampler, const float *logits) {
    const dm_sampling *o = &sampler->options;
    dm_candidate *candidates = sampler->candidates;
    int32_t n = gather(logits, sampler->vocab, o->top_k > 0 ? o->top_k : sampler->vocab, candidates);
    qsort(candidates, (size_t)n, sizeof *candidates, compare);
    normalize(candidates, n, 1.0f);
    if (o->top_p < 1.0f) {
        double mass = 0.0;
        for (int32_t i = 0; i < n; i++) {
            mass += (double)candidates[i].p;
            if (mass >= (double)o->top_p) {
                n = i + 1;
            }
        }
    }
    while (n > 1 && candidates[n - 1].p < o->min_p * candidates[0].p) {
        n--;
    }
    if (o->temperature > 0.0f) {
        normalize(candidates, n, o->temperature);
    }
    sampler->n_candidates = n;
}

static int32_t greedy(const float *logits, int32_t vocab) {
    dm_candidate best[ROOM];
    return gather(logits, vocab, 1, best) > 0 ? best[0].id : -1;
}

static int32_t draw(dm_sampler *sampler, const float *logits) {
    dm_sampler_candidates(sampler, logits);
    double left = dm_random_uniform(&sampler->random);
    for (int32_t i = 0; i + 1 < sampler->n_candidates; i++) {
        left -= (double)sampler->candidates[i].p;
        if (left < 0.0) {
            return sampler->candidates[i].id;
        }
    }
    return sampler->n_candidates > 0 ? sampler->candidates[sampler->n_candidates - 1].id : -1;
}

dm_status dm_sampler_next(dm_sampler *sampler, float *logits, const int32_t *recent, int32_t n_recent, int32_t *id) {
    const dm_sampling *o = &sampler->options;
    int32_t n = n_recent < o->penalty_window ? n_recent : o->penalty_window;
    dm_sampling_penalize(logits, sampler->vocab, recent + (n_recent - n), n, o->repetition_penalty);
    *id = o->temperature == 0.0f ? greedy(logits, sampler->vocab) : draw(sampler, logits);
    return *id >= 0 ? DM_OK : dm_fail(DM_ERR_FORMAT, "the model gives no finite logit: its weights are damaged");
}
