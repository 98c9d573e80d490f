/* The state of a training run in one GGUF file, written atomically: weights, AdamW's moments, the router's biases, and where
 * in the data the run stands. Everything random is a function of the seed and that position. */
#ifndef DM_TRAINING_CHECKPOINT_H
#define DM_TRAINING_CHECKPOINT_H

#include "model/tokenizer.h"
#include "training/parameters.h"

/* What is due after a step, a validation or a sample, and was interrupted. */
typedef enum dm_owed {
    DM_OWED_NOTHING,
    DM_OWED_ALL,
    DM_OWED_SETTLED, /* but not the prices, which have settled */
} dm_owed;

typedef struct dm_checkpoint {
    uint64_t step;   /* optimizer steps done */
    uint64_t window; /* next training window (dm_tokens_window) */
    uint64_t tokens; /* trained on */
    uint64_t seed;
    uint64_t corpus; /* fingerprint of what is trained on */
    uint32_t owed;   /* dm_owed */
    double val_loss; /* latest validation, NaN before the first */
    double val_bpb;
} dm_checkpoint;

dm_status dm_checkpoint_save(const char *path, const dm_parameters *parameters, const dm_checkpoint *checkpoint);
/* Refuses a file of another shape. */
dm_status dm_checkpoint_load(const char *path, dm_parameters *parameters, dm_checkpoint *checkpoint);

/* Writes the model as it stands for this and other programs: matrices in `type`. */
dm_status dm_model_export(const char *path, const dm_parameters *parameters, const dm_tokenizer *tokenizer, dm_type type,
                          const char *name);

#endif
