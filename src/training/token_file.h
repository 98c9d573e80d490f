/* Token files on disk: a header of 64 bytes and the ids, all little-endian. */
#ifndef DM_TRAINING_TOKEN_FILE_H
#define DM_TRAINING_TOKEN_FILE_H

#include "training/tokens.h"

enum { DM_TOKENS_HEADER = 64, DM_TOKENS_VERSION = 1 };

typedef struct dm_token_writer {
    dm_replace file;
    uint32_t width; /* bytes of an id: 2 where the vocabulary fits, else 4 */
    uint32_t vocab;
    uint64_t tokenizer, source; /* fingerprints */
    uint64_t count, bytes, checksum;
} dm_token_writer;

/* Starts replacing `path`; ended by exactly one finish or abandon. */
dm_status dm_token_writer_open(const char *path, const dm_tokenizer *tokenizer, uint64_t source, dm_token_writer *out);
/* Appends ids that stand for `bytes` of text. DM_ERR_INTERNAL for an id outside the vocabulary. */
dm_status dm_token_writer_add(dm_token_writer *writer, const int32_t *ids, size_t n, uint64_t bytes);
dm_status dm_token_writer_finish(dm_token_writer *writer);
void dm_token_writer_abandon(dm_token_writer *writer);

#endif
