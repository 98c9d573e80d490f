#include "model/encoder.h"

#include <ctype.h>
#include <stdlib.h>

#include "model/merge.h"
#include "model/split.h"
#include "model/vocabulary.h"

/* ---- Words met before ---- */

enum { CACHE_BITS = 16, CACHE_KEY = 23, CACHE_IDS = 9 };

/* One word's ids in one cache line. */
typedef struct cached_word {
    uint64_t key[3];        /* the word, zero-padded, and its length (never 0) in the last byte */
    uint32_t count;         /* of ids */
    int32_t ids[CACHE_IDS]; /* a word of more ids is not kept */
} cached_word;

struct dm_encoder {
    const dm_tokenizer *tokenizer;
    dm_splitter *splitter; /* NULL where words end at spaces */
    dm_merger *merger;
    int32_t *ids;
    size_t count, ids_room;
    cached_word *cache; /* [2^CACHE_BITS], each word has one place */
    char *first;        /* a text's first word with a space put before it */
    size_t first_room;
};

static dm_status fill(dm_encoder *encoder, const dm_tokenizer *tokenizer) {
    encoder->tokenizer = tokenizer;
    /* calloc, not dm_alloc: a short text then touches few of the 4 MB. */
    encoder->cache = calloc((size_t)1 << CACHE_BITS, sizeof *encoder->cache);
    if (encoder->cache == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for an encoder");
    }
    DM_TRY(dm_merger_create(tokenizer, &encoder->merger));
    return tokenizer->kind == DM_TOKENIZER_BPE ? dm_splitter_create(tokenizer->rules, &encoder->splitter) : DM_OK;
}

dm_status dm_encoder_create(const dm_tokenizer *tokenizer, dm_encoder **out) {
    *out = NULL;
    dm_encoder *encoder = calloc(1, sizeof *encoder);
    dm_status status = encoder != NULL ? fill(encoder, tokenizer) : dm_fail(DM_ERR_MEMORY, "out of memory for an encoder");
    if (status != DM_OK) {
        dm_encoder_free(encoder);
        return status;
    }
    *out = encoder;
    return DM_OK;
}

void dm_encoder_free(dm_encoder *encoder) {
    if (encoder != NULL) {
        dm_splitter_free(encoder->splitter);
        dm_merger_free(encoder->merger);
        free(encoder->ids);
        free(encoder->cache);
        free(encoder->first);
        free(encoder);
    }
}

void dm_encoder_set_fast(dm_encoder *encoder, bool fast) {
    if (encoder->splitter != NULL) {
        dm_splitter_set_fast(encoder->splitter, fast);
    }
}

/* ---- Text without special tokens ---- */

static dm_status make_room(dm_encoder *encoder, size_t n) {
    size_t needed = encoder->count + (n > CACHE_IDS ? n : CACHE_IDS);
    return dm_reserve(&encoder->ids, &encoder->ids_room, needed, sizeof *encoder->ids);
}

static dm_status append_word(dm_encoder *encoder, const char *word, size_t n) {
    const dm_tokenizer *tokenizer = encoder->tokenizer;
    DM_TRY(make_room(encoder, n));
    int32_t *ids = encoder->ids + encoder->count;
    cached_word *cached = NULL;
    uint64_t key[3] = {0};
    if (n <= CACHE_KEY) {
        memcpy(key, word, n);
        ((uint8_t *)key)[CACHE_KEY] = (uint8_t)n;
        uint64_t hash = dm_hash_mix(dm_hash_mix(key[0], key[1]), key[2]);
        cached = &encoder->cache[hash >> (64 - CACHE_BITS)];
        if (cached->key[0] == key[0] && cached->key[1] == key[1] && cached->key[2] == key[2]) {
            memcpy(ids, cached->ids, sizeof cached->ids);
            encoder->count += cached->count;
            return DM_OK;
        }
    }
    size_t count = 1;
    ids[0] = tokenizer->kind == DM_TOKENIZER_BPE && tokenizer->rules->whole_words ? dm_vocabulary_piece(tokenizer, word, n) : -1;
    if (ids[0] < 0) {
        DM_TRY(dm_merge_word(encoder->merger, word, n, ids, &count));
    }
    encoder->count += count;
    if (cached != NULL && count <= CACHE_IDS) {
        memcpy(cached->key, key, sizeof key);
        memcpy(cached->ids, ids, count * sizeof *ids);
        cached->count = (uint32_t)count;
    }
    return DM_OK;
}

static dm_status append_split(dm_encoder *encoder, const char *text, size_t length) {
    DM_TRY(dm_splitter_start(encoder->splitter, text, length));
    for (;;) {
        size_t n;
        DM_TRY(dm_splitter_next(encoder->splitter, &n));
        if (n == 0) {
            return DM_OK;
        }
        DM_TRY(append_word(encoder, text, n));
        text += n;
    }
}

/* Length of the first word, spaces before it included; all of the text where words cannot be told apart. No merge joins two
 * words, so that one by one they give the ids of the whole. */
static size_t spaced_word(const dm_tokenizer *tokenizer, const char *text, size_t length) {
    if (!tokenizer->whole_spaces) {
        return length;
    }
    size_t at = 0;
    while (at < length && text[at] == ' ') {
        at++;
    }
    const char *space = at < length ? memchr(text + at, ' ', length - at) : NULL;
    return space != NULL ? (size_t)(space - text) : length;
}

static dm_status append_spaced(dm_encoder *encoder, const char *text, size_t length, bool prefix) {
    if (prefix && length > 0) {
        size_t n = spaced_word(encoder->tokenizer, text, length);
        DM_TRY(dm_reserve(&encoder->first, &encoder->first_room, n + 1, 1));
        encoder->first[0] = ' ';
        memcpy(encoder->first + 1, text, n);
        DM_TRY(append_word(encoder, encoder->first, n + 1));
        text += n;
        length -= n;
    }
    while (length > 0) {
        size_t n = spaced_word(encoder->tokenizer, text, length);
        DM_TRY(append_word(encoder, text, n));
        text += n;
        length -= n;
    }
    return DM_OK;
}

/* `fresh`: it begins a text, or stands after a special token. */
static dm_status append_text(dm_encoder *encoder, const char *text, size_t length, bool fresh, unsigned flags) {
    if (encoder->splitter != NULL) {
        return append_split(encoder, text, length);
    }
    bool spelled_out = (flags & DM_ENCODE_TEMPLATE) != 0 && length > 0 && text[0] == ' ';
    return append_spaced(encoder, text, length, encoder->tokenizer->space_prefix && fresh && !spelled_out);
}

/* ---- Special tokens ---- */

static dm_status append_id(dm_encoder *encoder, int32_t id) {
    DM_TRY(make_room(encoder, 1));
    encoder->ids[encoder->count++] = id;
    return DM_OK;
}

/* How many bytes from `at` on may hold a control token: up to the next span. */
static size_t control_room(size_t at, size_t length, const dm_span *spans, size_t n_spans, size_t *span) {
    while (*span < n_spans && spans[*span].end <= at) {
        ++*span;
    }
    if (*span == n_spans) {
        return length - at;
    }
    return spans[*span].start > at ? spans[*span].start - at : 0;
}

/* Phi-3's special tokens take the white space after them along, but for three. */
static size_t skip_white(const dm_tokenizer *tokenizer, int32_t id, const char *text, size_t length) {
    static const char *const keeping[] = {"<unk>", "<s>", DM_END_OF_TEXT};
    size_t n, skipped = 0;
    const char *name = dm_strings_at(&tokenizer->texts, (uint32_t)id, &n);
    bool strips = tokenizer->strips_right;
    for (size_t i = 0; i < sizeof keeping / sizeof *keeping; i++) {
        strips = strips && !(strlen(keeping[i]) == n && memcmp(keeping[i], name, n) == 0);
    }
    while (strips && skipped < length && isspace((unsigned char)text[skipped])) {
        skipped++;
    }
    return skipped;
}

/* Cuts the text at its special tokens. */
static dm_status encode(dm_encoder *encoder, const char *text, size_t length, unsigned flags, const dm_span *spans,
                        size_t n_spans) {
    const dm_tokenizer *tokenizer = encoder->tokenizer;
    bool control = (flags & DM_ENCODE_SPECIAL) != 0, fresh = (flags & DM_ENCODE_GOES_ON) == 0;
    size_t start = 0, span = 0;
    for (size_t at = 0; at < length && (control || tokenizer->special.has_user);) {
        size_t room = control ? control_room(at, length, spans, n_spans, &span) : 0;
        int32_t id = dm_special_find(tokenizer, text + at, length - at, room);
        if (id < 0) {
            at++;
            continue;
        }
        DM_TRY(append_text(encoder, text + start, at - start, fresh, flags));
        DM_TRY(append_id(encoder, id));
        size_t n;
        dm_strings_at(&tokenizer->texts, (uint32_t)id, &n);
        at += n;
        at += skip_white(tokenizer, id, text + at, length - at);
        start = at;
        fresh = true;
    }
    return append_text(encoder, text + start, length - start, fresh, flags);
}

static dm_status encode_all(dm_encoder *encoder, const char *text, size_t length, unsigned flags, const dm_span *spans,
                            size_t n_spans) {
    const dm_tokenizer *tokenizer = encoder->tokenizer;
    encoder->count = 0;
    bool bos = (flags & DM_ENCODE_BOS) != 0 && tokenizer->add_bos;
    if (bos) {
        DM_TRY(append_id(encoder, tokenizer->bos));
    }
    DM_TRY(encode(encoder, text, length, flags, spans, n_spans));
    if (bos && encoder->count > 1 && encoder->ids[1] == tokenizer->bos) { /* the text brings its own */
        memmove(encoder->ids, encoder->ids + 1, --encoder->count * sizeof *encoder->ids);
    }
    return (flags & DM_ENCODE_EOS) != 0 && tokenizer->add_eos ? append_id(encoder, tokenizer->eos) : DM_OK;
}

dm_status dm_encoder_run(dm_encoder *encoder, const char *text, size_t length, unsigned flags, const int32_t **ids,
                         size_t *count) {
    DM_TRY(encode_all(encoder, text, length, flags, NULL, 0));
    *ids = encoder->ids;
    *count = encoder->count;
    return DM_OK;
}

dm_status dm_encoder_take(dm_encoder *encoder, const char *text, size_t length, unsigned flags, const dm_span *spans,
                          size_t n_spans, int32_t **ids, size_t *count) {
    DM_TRY(encode_all(encoder, text, length, flags, spans, n_spans));
    DM_TRY(make_room(encoder, 1)); /* an empty text has an array as well */
    *ids = encoder->ids;
    *count = encoder->count;
    encoder->ids = NULL;
    encoder->ids_room = encoder->count = 0;
    return DM_OK;
}
