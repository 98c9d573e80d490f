/* Text from a model in the middle of its training. */
#ifndef DM_TRAINING_SAMPLE_H
#define DM_TRAINING_SAMPLE_H

#include "model/tokenizer.h"
#include "training/parameters.h"

/* Continues `prompt` by up to n tokens at temperature 0.8. *text (malloc, the prompt included) is the caller's to free().
 * A young model writes anything: bytes that are no UTF-8, and zeros, are replaced by U+FFFD and '?'. */
dm_status dm_sample_text(const dm_parameters *parameters, const dm_tokenizer *tokenizer, const char *prompt, int32_t n,
                         uint64_t seed, char **text);

#endif
