/* The encoder beyond its public face in tokenizer.h. */
#ifndef DM_MODEL_ENCODER_H
#define DM_MODEL_ENCODER_H

#include "model/tokenizer.h"

/* A stretch of a text that was written by a user, not by a template: no control token is found in it. */
typedef struct dm_span {
    size_t start, end;
} dm_span;

/* Encodes one text with any of DM_ENCODE_*; *ids (malloc) passes to the caller. `spans` are in order and do not overlap. */
dm_status dm_encoder_take(dm_encoder *encoder, const char *text, size_t length, unsigned flags, const dm_span *spans,
                          size_t n_spans, int32_t **ids, size_t *count);

/* A flag beside DM_ENCODE_*: text after a special token gets no space before it if it begins with one. Templates spell out
 * the space that the tokenizer would put there. */
enum { DM_ENCODE_TEMPLATE = 1 << 8 };

/* Turns the splitter's ASCII path off or on (dm_splitter_set_fast), for comparing them. */
void dm_encoder_set_fast(dm_encoder *encoder, bool fast);

#endif
