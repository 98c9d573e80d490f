#include "model/encoder.h"

#include <stdlib.h>

#include "base/heap.h"
#include "model/split.h"
#include "model/vocabulary.h"

/* ---- Words met before ---- */

enum { CACHE_BITS = 16, CACHE_KEY = 23, CACHE_IDS = 9, SHORT_WORD = 32 };

/* One word's ids in one cache line. */
typedef struct cached_word {
    uint64_t key[3];        /* the word, zero-padded, and its length (never 0) in the last byte */
    uint32_t count;         /* of ids */
    int32_t ids[CACHE_IDS]; /* a word of more ids is not kept */
} cached_word;

/* ---- Long words: symbols as a linked list, pairs in a heap ---- */

typedef struct symbol {
    int32_t id;
    uint32_t previous, next; /* places; DM_TABLE_NONE at the ends */
    uint32_t rank;           /* of the pair with the next symbol; DM_TABLE_NONE: no merge, or this symbol is gone */
} symbol;

struct dm_encoder {
    const dm_tokenizer *tokenizer;
    dm_splitter *splitter;
    int32_t *ids;
    size_t count, ids_room;
    cached_word *cache; /* [2^CACHE_BITS], each word has one place */
    symbol *symbols;
    size_t symbols_room;
    dm_heap heap; /* rank and place: the lowest rank first, of equal ones the leftmost */
};

dm_status dm_encoder_create(const dm_tokenizer *tokenizer, dm_encoder **out) {
    *out = NULL;
    dm_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder != NULL) {
        encoder->tokenizer = tokenizer;
        /* calloc, not dm_alloc: a short text then touches few of the 4 MB. */
        encoder->cache = calloc((size_t)1 << CACHE_BITS, sizeof *encoder->cache);
    }
    if (encoder == NULL || encoder->cache == NULL) {
        dm_encoder_free(encoder);
        return dm_fail(DM_ERR_MEMORY, "out of memory for an encoder");
    }
    dm_status status = dm_splitter_create(&encoder->splitter);
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
        free(encoder->ids);
        free(encoder->cache);
        free(encoder->symbols);
        free(encoder->heap.entries);
        free(encoder);
    }
}

void dm_encoder_set_fast(dm_encoder *encoder, bool fast) {
    dm_splitter_set_fast(encoder->splitter, fast);
}

static uint32_t rank_of(const dm_encoder *encoder, int32_t left, int32_t right) {
    return dm_table_get(&encoder->tokenizer->ranks, dm_pair(left, right));
}

/* Merges a short word in place: ids [n] in, the result's length out. Scanning for the lowest rank beats any heap here. */
static size_t merge_short(const dm_encoder *encoder, int32_t *ids, size_t n) {
    uint32_t ranks[SHORT_WORD]; /* ranks[i] of the pair ids[i], ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) {
        ranks[i] = rank_of(encoder, ids[i], ids[i + 1]);
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            best = ranks[i] < ranks[best] ? i : best;
        }
        if (ranks[best] == DM_TABLE_NONE) {
            break;
        }
        ids[best] = encoder->tokenizer->merges[ranks[best]].result;
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
        memmove(ranks + best, ranks + best + 1, (n - 1 - best) * sizeof *ranks);
        if (best + 1 < n) {
            ranks[best] = rank_of(encoder, ids[best], ids[best + 1]);
        }
        if (best > 0) {
            ranks[best - 1] = rank_of(encoder, ids[best - 1], ids[best]);
        }
    }
    return n;
}

/* Brings the rank of the pair that starts at `at` up to date, and with it the heap. */
static dm_status rerank(dm_encoder *encoder, uint32_t at) {
    symbol *symbols = encoder->symbols;
    uint32_t next = symbols[at].next;
    symbols[at].rank = next == DM_TABLE_NONE ? DM_TABLE_NONE : rank_of(encoder, symbols[at].id, symbols[next].id);
    return symbols[at].rank == DM_TABLE_NONE ? DM_OK : dm_heap_push(&encoder->heap, (dm_heap_entry){symbols[at].rank, at});
}

static dm_status fill_symbols(dm_encoder *encoder, const char *word, size_t n) {
    if (n >= DM_TABLE_NONE) {
        return dm_fail(DM_ERR_UNSUPPORTED, "a single word of %zu bytes is too long to encode", n);
    }
    DM_TRY(dm_reserve(&encoder->symbols, &encoder->symbols_room, n, sizeof *encoder->symbols));
    symbol *symbols = encoder->symbols;
    for (size_t i = 0; i < n; i++) {
        symbols[i] = (symbol){encoder->tokenizer->byte_id[(uint8_t)word[i]], (uint32_t)i - 1, (uint32_t)i + 1, DM_TABLE_NONE};
    }
    symbols[0].previous = symbols[n - 1].next = DM_TABLE_NONE;
    encoder->heap.count = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        symbols[i].rank = rank_of(encoder, symbols[i].id, symbols[i + 1].id);
        if (symbols[i].rank != DM_TABLE_NONE) {
            DM_TRY(dm_heap_append(&encoder->heap, (dm_heap_entry){symbols[i].rank, i}));
        }
    }
    dm_heap_order(&encoder->heap);
    return DM_OK;
}

/* n log n in the word's length, whatever the word. */
static dm_status append_long(dm_encoder *encoder, const char *word, size_t n) {
    DM_TRY(fill_symbols(encoder, word, n));
    symbol *symbols = encoder->symbols;
    while (encoder->heap.count > 0) {
        dm_heap_entry top = dm_heap_pop(&encoder->heap);
        uint32_t at = (uint32_t)top.value;
        if (symbols[at].rank != top.key) {
            continue; /* the pair has changed since it was pushed */
        }
        uint32_t gone = symbols[at].next;
        symbols[at].id = encoder->tokenizer->merges[top.key].result;
        symbols[at].next = symbols[gone].next;
        symbols[gone].rank = DM_TABLE_NONE;
        if (symbols[at].next != DM_TABLE_NONE) {
            symbols[symbols[at].next].previous = at;
        }
        DM_TRY(rerank(encoder, at));
        if (symbols[at].previous != DM_TABLE_NONE) {
            DM_TRY(rerank(encoder, symbols[at].previous));
        }
    }
    DM_TRY(dm_reserve(&encoder->ids, &encoder->ids_room, encoder->count + n, sizeof *encoder->ids));
    for (uint32_t at = 0; at != DM_TABLE_NONE; at = symbols[at].next) {
        encoder->ids[encoder->count++] = symbols[at].id;
    }
    return DM_OK;
}

static dm_status append_word(dm_encoder *encoder, const char *word, size_t n) {
    if (n > SHORT_WORD) {
        return append_long(encoder, word, n);
    }
    DM_TRY(dm_reserve(&encoder->ids, &encoder->ids_room, encoder->count + SHORT_WORD, sizeof *encoder->ids));
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
    for (size_t i = 0; i < n; i++) {
        ids[i] = encoder->tokenizer->byte_id[(uint8_t)word[i]];
    }
    size_t count = merge_short(encoder, ids, n);
    encoder->count += count;
    if (cached != NULL && count <= CACHE_IDS) {
        memcpy(cached->key, key, sizeof key);
        memcpy(cached->ids, ids, count * sizeof *ids);
        cached->count = (uint32_t)count;
    }
    return DM_OK;
}

static dm_status append_text(dm_encoder *encoder, const char *text, size_t length) {
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

/* Cuts the text at its special tokens. */
static dm_status encode(dm_encoder *encoder, const char *text, size_t length, bool special) {
    const dm_tokenizer *tokenizer = encoder->tokenizer;
    encoder->count = 0;
    size_t start = 0;
    for (size_t at = 0; at < length && (special || tokenizer->has_user);) {
        int32_t id = dm_vocabulary_special(tokenizer, text + at, length - at, special);
        if (id < 0) {
            at++;
            continue;
        }
        DM_TRY(append_text(encoder, text + start, at - start));
        DM_TRY(dm_reserve(&encoder->ids, &encoder->ids_room, encoder->count + 1, sizeof *encoder->ids));
        encoder->ids[encoder->count++] = id;
        size_t n;
        dm_strings_at(&tokenizer->texts, (uint32_t)id, &n);
        at = start = at + n;
    }
    return append_text(encoder, text + start, length - start);
}

dm_status dm_encoder_run(dm_encoder *encoder, const char *text, size_t length, const int32_t **ids, size_t *count) {
    DM_TRY(encode(encoder, text, length, false));
    *ids = encoder->ids;
    *count = encoder->count;
    return DM_OK;
}

dm_status dm_encoder_take(dm_encoder *encoder, const char *text, size_t length, bool special, int32_t **ids, size_t *count) {
    DM_TRY(encode(encoder, text, length, special));
    DM_TRY(dm_reserve(&encoder->ids, &encoder->ids_room, 1, sizeof *encoder->ids)); /* an empty text has an array as well */
    *ids = encoder->ids;
    *count = encoder->count;
    encoder->ids = NULL;
    encoder->ids_room = encoder->count = 0;
    return DM_OK;
}
