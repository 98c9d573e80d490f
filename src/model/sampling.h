/* From logits to the next token. */
#ifndef DM_MODEL_SAMPLING_H
#define DM_MODEL_SAMPLING_H

#include "base/random.h"
#include "base/status.h"

typedef struct dm_candidate {
    float logit;
    float p; /* among the candidates */
    int32_t id;
} dm_candidate;

/* Room for one choice after another; nothing is allocated per token. */
typedef struct dm_sampler {
    dm_sampling options;
    dm_random random;
    int32_t vocab;
    dm_candidate *candidates; /* [vocab] */
    int32_t n_candidates;
} dm_sampler;

/* Refuses options outside their meaning. Free with dm_sampler_free(). */
dm_status dm_sampler_init(dm_sampler *sampler, const dm_sampling *options, int32_t vocab);
void dm_sampler_free(dm_sampler *sampler);

/* Divides positive logits of the distinct ids in recent[n] by `penalty` and multiplies negative ones by it (Keskar et al. 2019).
 */
void dm_sampling_penalize(float *logits, int32_t vocab, const int32_t *recent, int32_t n, float penalty);

/* The set that is drawn from, most probable first and equals by id: the top_k best of logits[vocab]; of these the
 * fewest that hold top_p of the probability (Holtzman et al. 2020); of these the ones with at least min_p times the
 * best one's. Temperature then reshapes p inside the set and does not change the set. NaN counts as impossible. */
void dm_sampler_candidates(dm_sampler *sampler, const float *logits);

/* Penalizes, then draws; at temperature 0 the best logit, of equals the lowest id. logits [vocab] are changed.
 * DM_ERR_FORMAT when no logit is a finite number. */
dm_status dm_sampler_next(dm_sampler *sampler, float *logits, const int32_t *recent, int32_t n_recent, int32_t *id);

#endif
