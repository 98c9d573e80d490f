/* Loss on held-out text, per token and per byte. */
#ifndef DM_TRAINING_VALIDATION_H
#define DM_TRAINING_VALIDATION_H

#include "training/network.h"
#include "training/tokens.h"

typedef struct dm_validation {
    double loss;     /* nats per token */
    double bpb;      /* bits per byte of the text that the predicted tokens stand for */
    double maxvio;   /* over all tokens read, mean over layers */
    uint64_t tokens; /* predicted */
    uint64_t *loads; /* [n_layers, n_experts] tokens that chose each expert; allocated by the caller or NULL */
} dm_validation;

/* Reads the set in windows of `length` one after another, every token but the very first predicted once; only the first
 * `limit` tokens where limit is not 0. DM_ERR_INTERRUPTED when asked to stop. out->loads is filled if not NULL. */
dm_status dm_validate(dm_network *network, const dm_config *config, size_t sequences, size_t length, const dm_tokens *tokens,
                      const dm_tokenizer *tokenizer, uint64_t limit, dm_validation *out);

#endif
