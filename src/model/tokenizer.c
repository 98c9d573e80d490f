#include "model/tokenizer.h"

#include <stdlib.h>

#include "model/encoder.h"
#include "model/vocabulary.h"

dm_status dm_tokenizer_open(const char *path, dm_tokenizer **out) {
    *out = NULL;
    dm_gguf *file;
    DM_TRY(dm_gguf_open(path, &file));
    dm_status status = dm_tokenizer_read(file, out);
    dm_gguf_close(file);
    return status;
}

int32_t dm_tokenizer_vocab(const dm_tokenizer *tokenizer) {
    return (int32_t)tokenizer->texts.count;
}

int32_t dm_tokenizer_bos(const dm_tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t dm_tokenizer_eos(const dm_tokenizer *tokenizer) {
    return tokenizer->eos;
}

dm_status dm_tokenizer_encode(const dm_tokenizer *tokenizer, const char *text, size_t length, bool special, int32_t **ids,
                              size_t *count) {
    *ids = NULL;
    *count = 0;
    dm_encoder *encoder;
    DM_TRY(dm_encoder_create(tokenizer, &encoder));
    dm_status status = dm_encoder_take(encoder, text, length, special, ids, count);
    dm_encoder_free(encoder);
    return status;
}

const char *dm_tokenizer_bytes(const dm_tokenizer *tokenizer, int32_t id, size_t *length) {
    *length = 0;
    if (id < 0 || id >= dm_tokenizer_vocab(tokenizer)) {
        return NULL;
    }
    *length = tokenizer->byte_start[id + 1] - tokenizer->byte_start[id];
    return tokenizer->bytes + tokenizer->byte_start[id];
}

uint64_t dm_tokenizer_fingerprint(const dm_tokenizer *tokenizer) {
    const dm_strings *texts = &tokenizer->texts;
    uint64_t hash = dm_hash_bytes(texts->bytes, texts->starts[texts->count], 1);
    hash = dm_hash_bytes(texts->starts, ((size_t)texts->count + 1) * sizeof *texts->starts, hash);
    hash = dm_hash_bytes(tokenizer->types, texts->count, hash);
    hash = dm_hash_bytes(tokenizer->merges, tokenizer->n_merges * sizeof *tokenizer->merges, hash);
    return dm_hash_mix(hash, dm_pair(tokenizer->bos, tokenizer->eos));
}

/* The 256 bytes, filling, and the end of text as the last token. */
static dm_status fill(dm_tokenizer *tokenizer, int32_t vocab) {
    DM_TRY(dm_vocabulary_add_bytes(tokenizer));
    while (dm_tokenizer_vocab(tokenizer) < vocab - 1) {
        char text[32];
        int length = snprintf(text, sizeof text, "<unused_%d>", (int)dm_tokenizer_vocab(tokenizer));
        DM_TRY(dm_vocabulary_add(tokenizer, text, (size_t)length, DM_TOKEN_UNUSED));
    }
    return dm_vocabulary_end(tokenizer);
}

dm_status dm_tokenizer_bytes_padded(int32_t vocab, dm_tokenizer **out) {
    *out = NULL;
    dm_tokenizer *tokenizer;
    DM_TRY(dm_vocabulary_create(&tokenizer));
    dm_status status = fill(tokenizer, vocab);
    if (status != DM_OK) {
        dm_tokenizer_close(tokenizer);
        return status;
    }
    *out = tokenizer;
    return DM_OK;
}

dm_status dm_tokenizer_bytes_only(dm_tokenizer **out) {
    return dm_tokenizer_bytes_padded(257, out);
}
