/* What reports consist of: each part draws its charts, or says why it has none. Parts fail for want of memory, or where a file
 * cannot be written. */
#ifndef DM_VISUALIZATION_PARTS_H
#define DM_VISUALIZATION_PARTS_H

#include "base/json.h"
#include "model/model.h"
#include "moe/trace.h"
#include "visualization/page.h"
#include "visualization/run_metrics.h"

/* A model's run over a text. */
typedef struct dm_run_over {
    const dm_model *model;
    const dm_tokenizer *tokenizer;
    const int32_t *ids; /* [n] 2 or more */
    size_t n;
    double beta, gamma; /* of games */
} dm_run_over;

/* "1.3 MB". */
void dm_bytes_text(double bytes, char text[DM_NUMBER_TEXT]);

/* Where a chart's name is made from a number: "NAME-3". */
void dm_name_with(char *out, size_t size, const char *name, size_t number);

/* Which of `all` things is number i of n of them: the last, the first, and some between. */
size_t dm_pick(size_t i, size_t n, size_t all);

dm_status dm_part_training(dm_page *page, const dm_run_metrics *metrics);
/* Experts' loads at validations. */
dm_status dm_part_loads(dm_page *page, const dm_run_metrics *metrics);
/* Types and sizes of a model's tensors. */
dm_status dm_part_weights(dm_page *page, const dm_gguf *file);
/* Experts by their keys. Sizes and moving tokens come from the trace, of ids[0 .. passes - 1], or sizes from the last of the
 * metrics' loads; either may be NULL. */
dm_status dm_part_flock(dm_page *page, const dm_model *model, const dm_run_over *run, const dm_trace *trace,
                        const dm_run_metrics *metrics);
dm_status dm_part_games(dm_page *page, const dm_run_over *run);
/* Who would serve what the trace asks for. */
dm_status dm_part_tiers(dm_page *page, const dm_model *model, const dm_trace *trace);
/* Time by kind of operation, and memory. */
dm_status dm_part_speed(dm_page *page, const dm_run_over *run);
/* What quantize or optimize reported. */
dm_status dm_part_compression(dm_page *page, const json_t *report);

#endif
