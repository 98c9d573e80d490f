/* Text to ids on all threads, in the order of the text. */
#ifndef DM_TRAINING_CORPUS_ENCODER_H
#define DM_TRAINING_CORPUS_ENCODER_H

#include "training/token_file.h"

/* Text is gathered in pieces until there is enough for all threads to be busy with, then encoded and written. How it is
 * cut into pieces depends on the text alone. */
typedef struct dm_corpus_encoder dm_corpus_encoder;

/* `total` bytes are expected, for the progress lines. The tokenizer must outlive the encoder. */
dm_status dm_corpus_encoder_create(const dm_tokenizer *tokenizer, uint64_t total, dm_corpus_encoder **out);
void dm_corpus_encoder_free(dm_corpus_encoder *encoder);
/* Encodes a document (copied) for `writer`, followed by an end-of-text token. Empty ones add nothing. */
dm_status dm_corpus_encoder_add(dm_corpus_encoder *encoder, const char *text, size_t length, dm_token_writer *writer);
/* Writes what is still gathered. DM_ERR_INTERRUPTED, here and above, after dm_interrupt(). */
dm_status dm_corpus_encoder_flush(dm_corpus_encoder *encoder);

#endif
