/* What `dilmodeli optimize` prints. */
#ifndef DM_CLI_OPTIMIZE_REPORT_H
#define DM_CLI_OPTIMIZE_REPORT_H

#include "cli/compression.h"

/* A model before or after. */
typedef struct optimize_side {
    uint64_t bytes; /* of the file */
    double bpw;     /* bits per weight of it */
    int32_t threads;
    dm_bench_result speed;
    dm_evaluate_result loss; /* after: with the model before as its base */
} optimize_side;

typedef struct optimize_result {
    optimize_side before, after;
    dm_tune_result advice; /* of the model after */
    dm_bench_options how;  /* of speeds */
    const char *kept;      /* where repacked weights are; NULL: nothing had to be repacked */
    uint64_t kept_bytes;
    bool generated; /* the text was: the model wrote it */
} optimize_result;

/* What of a side's memory is the model's own: weights, keys and values, scratch. */
uint64_t optimize_memory(const optimize_side *side);

json_t *optimize_json(const cli_compressing *compressing, const optimize_result *result);
void optimize_print(const cli_compressing *compressing, const optimize_result *result);

#endif
