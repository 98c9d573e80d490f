/* What a token costs a model: bytes of weights to read, operations to do. */
#ifndef DM_OPTIMIZATION_TOKEN_COST_H
#define DM_OPTIMIZATION_TOKEN_COST_H

#include "model/model.h"

/* Embeddings are left out: of them a token reads a row. */
typedef struct dm_token_cost {
    double shared_bytes;       /* of weights that every token reads */
    double expert_bytes;       /* of one expert, in the mean over layers */
    double decode_operations;  /* additions and multiplications of a token whose logits are wanted */
    double prefill_operations; /* and of one whose logits are not */
} dm_token_cost;

dm_token_cost dm_token_cost_of(const dm_model *model);

#endif
