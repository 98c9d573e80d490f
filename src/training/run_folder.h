/* The folder of a training run: lock, configuration as used, metrics. */
#ifndef DM_TRAINING_RUN_FOLDER_H
#define DM_TRAINING_RUN_FOLDER_H

#include <jansson.h>

#include "training/train_config.h"

/*
 * DIR/config.txt       every value of the run, readable by --config
 * DIR/tokenizer.gguf   the vocabulary, where the run learned one
 * DIR/train.tokens, DIR/valid.tokens
 * DIR/metrics.jsonl    one JSON object a line
 * DIR/checkpoint.gguf  complete state
 * DIR/model.gguf       the exported model
 */
typedef struct dm_run_folder {
    const char *path; /* the config's, not owned */
    int lock;
    FILE *metrics;
} dm_run_folder;

/* Creates the folder if need be, locks it against a second run, writes the configuration. End it with
 * dm_run_folder_close(). */
dm_status dm_run_folder_open(const dm_train_config *config, dm_run_folder *out);
void dm_run_folder_close(dm_run_folder *folder);

/* *path (malloc) = folder/name; the caller's to free(). */
dm_status dm_run_folder_file(const dm_run_folder *folder, const char *name, char **path);

/* Opens metrics.jsonl for appending after dropping lines of steps beyond `step`, which a run that was killed between
 * checkpoints left behind, and a torn last line. */
dm_status dm_run_folder_metrics(dm_run_folder *folder, int64_t step);
/* Appends one line; takes `object` over. */
dm_status dm_run_folder_record(dm_run_folder *folder, json_t *object);

#endif
