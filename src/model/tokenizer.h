/* Vocabularies of byte-level BPE and of SentencePiece's BPE: text to ids and back, exact for any bytes. */
#ifndef DM_MODEL_TOKENIZER_H
#define DM_MODEL_TOKENIZER_H

#include "model/gguf.h"

/* The vocabulary in an open file; the file may be closed afterwards. */
dm_status dm_tokenizer_read(const dm_gguf *file, dm_tokenizer **out);

/* 256 byte tokens and <|endoftext|>, no merges. */
dm_status dm_tokenizer_bytes_only(dm_tokenizer **out);
/* The same, filled up to `vocab` (257 or more) with tokens that stand for nothing: for models that are only measured. */
dm_status dm_tokenizer_bytes_padded(int32_t vocab, dm_tokenizer **out);

/* Adds the vocabulary's tokenizer.* keys, as read by other GGUF programs. */
void dm_tokenizer_write(const dm_tokenizer *tokenizer, dm_gguf_writer *writer);

/* Changes when any token, merge, score or special id does, or how words are cut. */
uint64_t dm_tokenizer_fingerprint(const dm_tokenizer *tokenizer);

/* True where DM_ENCODE_BOS puts a token before a text. */
bool dm_tokenizer_adds_bos(const dm_tokenizer *tokenizer);

/* A reusable encoder for one thread: appends to `ids`, growing it, so that encoding a stream allocates nothing once
 * warm. The tokenizer must outlive it. */
typedef struct dm_encoder dm_encoder;
dm_status dm_encoder_create(const dm_tokenizer *tokenizer, dm_encoder **out);
void dm_encoder_free(dm_encoder *encoder);
/* Encodes one text with any of DM_ENCODE_*. *ids stays owned by the encoder and valid until the next call. */
dm_status dm_encoder_run(dm_encoder *encoder, const char *text, size_t length, unsigned flags, const int32_t **ids,
                         size_t *count);

/* Text written in files to mark the end of a document; also the end-of-text token's text. */
#define DM_END_OF_TEXT "<|endoftext|>"

#endif
