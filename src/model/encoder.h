/* The encoder beyond its public face in tokenizer.h. */
#ifndef DM_MODEL_ENCODER_H
#define DM_MODEL_ENCODER_H

#include "model/tokenizer.h"

/* Encodes one text, with `special` also control tokens; *ids (malloc) passes to the caller. */
dm_status dm_encoder_take(dm_encoder *encoder, const char *text, size_t length, bool special, int32_t **ids, size_t *count);

/* Turns the splitter's ASCII path off or on (dm_splitter_set_fast), for comparing them. */
void dm_encoder_set_fast(dm_encoder *encoder, bool fast);

#endif
