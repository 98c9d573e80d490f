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

bool dm_tokenizer_adds_bos(const dm_tokenizer *tokenizer) {
    return tokenizer->add_bos;
}

dm_status dm_tokenizer_encode(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, int32_t **ids,
                              size_t *count) {
    *ids = NULL;
    *count = 0;
    dm_encoder *encoder;
    DM_TRY(dm_encoder_create(tokenizer, &encoder));
    dm_status status = dm_encoder_take(encoder, text, length, flags, NULL, 0, ids, count);
    dm_encoder_free(encoder);
    return status;
}

/* What a token adds to a text. *fresh tells whether the text begins here or a special token stood before: there the space is
 * the tokenizer's own. */
static const char *piece_of(const dm_tokenizer *tokenizer, int32_t id, bool special, bool *fresh, size_t *length) {
    uint8_t type = tokenizer->types[id];
    bool control = type == DM_TOKEN_CONTROL || type == DM_TOKEN_UNKNOWN;
    const char *bytes =
        control && special ? dm_strings_at(&tokenizer->texts, (uint32_t)id, length) : dm_tokenizer_bytes(tokenizer, id, length);
    bool own_space = *fresh && tokenizer->space_prefix && *length > 0 && bytes[0] == ' ' && !control && type != DM_TOKEN_USER;
    *length -= own_space;
    *fresh = control || type == DM_TOKEN_USER;
    return bytes + own_space;
}

dm_status dm_tokenizer_decode(const dm_tokenizer *tokenizer, const int32_t *ids, size_t n, bool special, char **text,
                              size_t *length) {
    *text = NULL;
    *length = 0;
    char *out = NULL;
    size_t room = 0, used = 0;
    dm_status status = dm_reserve(&out, &room, 1, 1);
    bool fresh = true;
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        if (ids[i] < 0 || ids[i] >= dm_tokenizer_vocab(tokenizer)) {
            status = dm_fail(DM_ERR_ARGUMENT, "token %d is outside the vocabulary of %d", (int)ids[i],
                             (int)dm_tokenizer_vocab(tokenizer));
            break;
        }
        size_t piece;
        const char *bytes = piece_of(tokenizer, ids[i], special, &fresh, &piece);
        status = dm_reserve(&out, &room, used + piece + 1, 1);
        if (status == DM_OK) {
            memcpy(out + used, bytes, piece);
            used += piece;
        }
    }
    if (status != DM_OK) {
        free(out);
        return status;
    }
    out[used] = '\0';
    *text = out;
    *length = used;
    return DM_OK;
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
    if (tokenizer->kind == DM_TOKENIZER_PIECES) {
        hash = dm_hash_bytes(tokenizer->scores, texts->count * sizeof *tokenizer->scores, hash);
        hash = dm_hash_mix(hash, tokenizer->space_prefix);
    } else if (strcmp(tokenizer->pre, "gpt-2") != 0) {
        hash = dm_hash_bytes(tokenizer->pre, strlen(tokenizer->pre), hash);
    }
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
