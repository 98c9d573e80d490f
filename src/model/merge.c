#include "model/merge.h"

#include <stdlib.h>

#include "base/heap.h"
#include "base/utf8.h"
#include "model/vocabulary.h"

enum { SHORT_WORD = 32 };

/* Part of a word of which a token was or may be made. Its place in the array is that of its first byte in the word. */
typedef struct symbol {
    int32_t id;              /* -1: a character that is no token */
    uint32_t previous, next; /* places; DM_TABLE_NONE at the ends */
    uint32_t merge;          /* with the next symbol: its rank, or the token it makes; DM_TABLE_NONE: none, or this one is gone */
} symbol;

struct dm_merger {
    const dm_tokenizer *tokenizer;
    symbol *symbols;
    size_t symbols_room;
    dm_heap heap; /* candidates: urgency and place in the key, the merge in the value */
};

dm_status dm_merger_create(const dm_tokenizer *tokenizer, dm_merger **out) {
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for an encoder");
    }
    (*out)->tokenizer = tokenizer;
    return DM_OK;
}

void dm_merger_free(dm_merger *merger) {
    if (merger != NULL) {
        free(merger->symbols);
        free(merger->heap.entries);
        free(merger);
    }
}

/* ---- Bytes without a token ---- */

static dm_status no_token(uint8_t byte) {
    return dm_fail(DM_ERR_UNSUPPORTED, "the vocabulary has no token for the byte 0x%02x, so this text cannot be encoded",
                   (unsigned)byte);
}

/* Tokens of single bytes, or SentencePiece's unknown token where one of them has none. Vocabularies of bytes name another
 * token there that means something, often the end of text. */
static dm_status append_bytes(const dm_tokenizer *tokenizer, const char *bytes, size_t n, int32_t *ids, size_t *count) {
    for (size_t i = 0; i < n; i++) {
        int32_t id = tokenizer->byte_id[(uint8_t)bytes[i]];
        if (id < 0 && (tokenizer->unknown < 0 || tokenizer->kind == DM_TOKENIZER_BPE)) {
            return no_token((uint8_t)bytes[i]);
        }
        if (id < 0) {
            ids[0] = tokenizer->unknown;
            *count += 1;
            return DM_OK;
        }
        ids[i] = id;
    }
    *count += n;
    return DM_OK;
}

/* ---- Short words of bytes ---- */

static uint32_t rank_of(const dm_tokenizer *tokenizer, int32_t left, int32_t right) {
    return dm_table_get(&tokenizer->ranks, dm_pair(left, right));
}

/* Merges in place: ids [n] in, the result's length out. Scanning for the lowest rank beats any heap here. */
static size_t merge_short(const dm_tokenizer *tokenizer, int32_t *ids, size_t n) {
    uint32_t ranks[SHORT_WORD]; /* ranks[i] of the pair ids[i], ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) {
        ranks[i] = rank_of(tokenizer, ids[i], ids[i + 1]);
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            best = ranks[i] < ranks[best] ? i : best;
        }
        if (ranks[best] == DM_TABLE_NONE) {
            break;
        }
        ids[best] = tokenizer->merges[ranks[best]].result;
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
        memmove(ranks + best, ranks + best + 1, (n - 1 - best) * sizeof *ranks);
        if (best + 1 < n) {
            ranks[best] = rank_of(tokenizer, ids[best], ids[best + 1]);
        }
        if (best > 0) {
            ranks[best - 1] = rank_of(tokenizer, ids[best - 1], ids[best]);
        }
    }
    return n;
}

/* ---- Any words ---- */

/* Higher scores are more urgent: a smaller number. */
static uint32_t urgency_of(float score) {
    float plain = score == score ? score + 0.0f : -1e38f; /* one zero, and no NaN */
    uint32_t bits;
    memcpy(&bits, &plain, sizeof bits);
    return (bits & 0x80000000u) != 0 ? bits : ~(bits | 0x80000000u);
}

/* What the symbol at `at` and the next one may become; DM_TABLE_NONE: nothing. */
static uint32_t find_merge(const dm_merger *merger, const char *word, size_t n, uint32_t at, uint32_t *urgency) {
    const symbol *symbols = merger->symbols;
    const dm_tokenizer *tokenizer = merger->tokenizer;
    uint32_t next = symbols[at].next;
    if (next == DM_TABLE_NONE) {
        return DM_TABLE_NONE;
    }
    if (tokenizer->kind == DM_TOKENIZER_BPE) {
        return *urgency = rank_of(tokenizer, symbols[at].id, symbols[next].id);
    }
    size_t end = symbols[next].next == DM_TABLE_NONE ? n : symbols[next].next;
    int32_t id = dm_vocabulary_piece(tokenizer, word + at, end - at);
    if (id < 0) {
        return DM_TABLE_NONE;
    }
    *urgency = urgency_of(tokenizer->scores[id]);
    return (uint32_t)id;
}

/* Brings the merge of the symbol at `at` up to date; *candidate is filled if there is one. */
static bool update(const dm_merger *merger, const char *word, size_t n, uint32_t at, dm_heap_entry *candidate) {
    uint32_t urgency = 0;
    uint32_t merge = find_merge(merger, word, n, at, &urgency);
    merger->symbols[at].merge = merge;
    *candidate = (dm_heap_entry){(uint64_t)urgency << 32 | at, merge};
    return merge != DM_TABLE_NONE;
}

static dm_status update_and_push(dm_merger *merger, const char *word, size_t n, uint32_t at) {
    dm_heap_entry candidate;
    return update(merger, word, n, at, &candidate) ? dm_heap_push(&merger->heap, candidate) : DM_OK;
}

/* Bytes of the symbol that starts a word of bytes, or of characters; a byte that is no UTF-8 stands alone. */
static size_t symbol_length(const dm_tokenizer *tokenizer, const char *word, size_t n) {
    uint32_t code;
    size_t length = tokenizer->kind == DM_TOKENIZER_BPE ? 1 : dm_utf8_decode(word, n, &code);
    return length > 0 ? length : 1;
}

static dm_status fill_symbols(dm_merger *merger, const char *word, size_t n) {
    const dm_tokenizer *tokenizer = merger->tokenizer;
    DM_TRY(dm_reserve(&merger->symbols, &merger->symbols_room, n, sizeof *merger->symbols));
    uint32_t previous = DM_TABLE_NONE;
    for (size_t at = 0; at < n;) {
        size_t length = symbol_length(tokenizer, word + at, n - at);
        bool bpe = tokenizer->kind == DM_TOKENIZER_BPE;
        int32_t id = bpe ? tokenizer->byte_id[(uint8_t)word[at]] : dm_vocabulary_piece(tokenizer, word + at, length);
        uint32_t next = at + length < n ? (uint32_t)(at + length) : DM_TABLE_NONE;
        merger->symbols[at] = (symbol){id, previous, next, DM_TABLE_NONE};
        previous = (uint32_t)at;
        at += length;
    }
    merger->heap.count = 0;
    for (uint32_t at = 0; at != DM_TABLE_NONE; at = merger->symbols[at].next) {
        dm_heap_entry candidate;
        if (update(merger, word, n, at, &candidate)) {
            DM_TRY(dm_heap_append(&merger->heap, candidate));
        }
    }
    dm_heap_order(&merger->heap);
    return DM_OK;
}

static dm_status merge_symbols(dm_merger *merger, const char *word, size_t n) {
    symbol *symbols = merger->symbols;
    while (merger->heap.count > 0) {
        dm_heap_entry top = dm_heap_pop(&merger->heap);
        uint32_t at = (uint32_t)top.key;
        if (symbols[at].merge != top.value) {
            continue; /* the pair has changed since it was pushed */
        }
        uint32_t gone = symbols[at].next;
        bool bpe = merger->tokenizer->kind == DM_TOKENIZER_BPE;
        symbols[at].id = bpe ? merger->tokenizer->merges[top.value].result : (int32_t)top.value;
        symbols[at].next = symbols[gone].next;
        symbols[gone].merge = DM_TABLE_NONE;
        if (symbols[at].next != DM_TABLE_NONE) {
            symbols[symbols[at].next].previous = at;
        }
        DM_TRY(update_and_push(merger, word, n, at));
        if (symbols[at].previous != DM_TABLE_NONE) {
            DM_TRY(update_and_push(merger, word, n, symbols[at].previous));
        }
    }
    return DM_OK;
}

dm_status dm_merge_word(dm_merger *merger, const char *word, size_t n, int32_t *ids, size_t *count) {
    const dm_tokenizer *tokenizer = merger->tokenizer;
    *count = 0;
    if (tokenizer->kind == DM_TOKENIZER_BPE && n <= SHORT_WORD && !tokenizer->lacks_bytes) {
        for (size_t i = 0; i < n; i++) {
            ids[i] = tokenizer->byte_id[(uint8_t)word[i]];
        }
        *count = merge_short(tokenizer, ids, n);
        return DM_OK;
    }
    if (n >= DM_TABLE_NONE) {
        return dm_fail(DM_ERR_UNSUPPORTED, "a single word of %zu bytes is too long to encode", n);
    }
    DM_TRY(fill_symbols(merger, word, n));
    DM_TRY(merge_symbols(merger, word, n));
    for (uint32_t at = 0; at != DM_TABLE_NONE; at = merger->symbols[at].next) {
        const symbol *s = &merger->symbols[at];
        if (s->id >= 0) {
            ids[(*count)++] = s->id;
            continue;
        }
        size_t end = s->next == DM_TABLE_NONE ? n : s->next;
        DM_TRY(append_bytes(tokenizer, word + at, end - at, ids + *count, count));
    }
    return DM_OK;
}
