/* The state of a training run in one GGUF file, written atomically: weights, AdamW's moments, the router's biases, and where
 * in the data the run stands. Everything random is a function of the seed and that position. */
#ifndef DM_TRAINING_CHECKPOINT_H
#define DM_TRAINING_CHECKPOINT_H

#include "model/tokenizer.h"
#include "training/parameters.h"

typedef struct dm_checkpoint {
    uint64_t step;   /* optimizer steps done */
    uint64_t window; /* next training window (dm_tokens_window) */
    uint64_t tokens; /* trained on */
    uint64_t seed;
    uint64_t corpus; /* fingerprint of what is trained on */
    uint32_t owed;   /* 1: what is due after `step`, a validation or a sample, was interrupted */
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
