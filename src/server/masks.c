#include "server/masks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/table.h"

/* ---- The vocabulary in byte order ---- */

typedef struct entry {
    const char *bytes;
    size_t length;
    int32_t id;
} entry;

static int compare(const void *a, const void *b) {
    const entry *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);
    return order != 0               ? order
           : x->length != y->length ? (x->length > y->length) - (x->length < y->length)
                                    : (x->id > y->id) - (x->id < y->id);
}

static size_t words_of(int32_t vocab) {
    return ((size_t)vocab + 63) / 64;
}

static void set_bit(uint64_t *bits, int32_t id) {
    bits[id / 64] |= UINT64_C(1) << id % 64;
}

static bool has_bit(const uint64_t *bits, int32_t id) {
    return (bits[id / 64] >> id % 64 & 1) != 0;
}

dm_status dm_vocabulary_order_init(const dm_tokenizer *tokenizer, int32_t vocab, dm_vocabulary_order *out) {
    int32_t known = dm_tokenizer_vocab(tokenizer);
    known = known < vocab ? known : vocab;
    *out = (dm_vocabulary_order){.tokenizer = tokenizer, .vocab = vocab};
    entry *entries = dm_alloc((size_t)known, sizeof *entries);
    out->ids = dm_alloc((size_t)known, sizeof *out->ids);
    out->silent = dm_alloc(words_of(vocab), sizeof *out->silent);
    if (entries == NULL || out->ids == NULL || out->silent == NULL) {
        dm_free(entries);
        return DM_ERR_MEMORY; /* the owner frees the order */
    }
    for (int32_t id = 0; id < known; id++) {
        entry *it = &entries[out->n];
        it->bytes = dm_tokenizer_bytes(tokenizer, id, &it->length);
        it->id = id;
        out->n += it->bytes != NULL && it->length > 0 && !dm_tokenizer_is_end(tokenizer, id);
    }
    qsort(entries, out->n, sizeof *entries, compare);
    for (int32_t id = 0; id < vocab; id++) {
        set_bit(out->silent, id);
    }
    for (size_t i = 0; i < out->n; i++) {
        out->ids[i] = entries[i].id;
        out->silent[entries[i].id / 64] &= ~(UINT64_C(1) << entries[i].id % 64);
    }
    for (int32_t id = 0; id < known; id++) {
        bool ends = dm_tokenizer_is_end(tokenizer, id);
        out->silent[id / 64] &= ~((uint64_t)ends << id % 64);
    }
    dm_free(entries);
    return DM_OK;
}

void dm_vocabulary_order_free(dm_vocabulary_order *order) {
    dm_free(order->ids);
    dm_free(order->silent);
    *order = (dm_vocabulary_order){0};
}

/* ---- Masks ---- */

enum { KEPT = 64 }; /* masks of states that an answer is in again and again */

typedef struct kept_mask {
    int32_t state;  /* -1: none */
    uint64_t *bits; /* [words] tokens that may come */
    bool all;       /* everything may but ends, of which nothing is said */
    uint64_t used;
} kept_mask;

struct dm_masks {
    const dm_vocabulary_order *order;
    const int32_t *marks; /* [DM_CHAT_MARKS]; NULL: there are none */
    dm_walk *walk;
    int32_t state;
    size_t words;
    kept_mask kept[KEPT];
    uint64_t uses;
    int32_t *path; /* [path_room] states after each byte of the token that is looked at */
    size_t path_room;
};

dm_status dm_masks_create(const dm_grammar *grammar, const dm_vocabulary_order *order, const int32_t *marks, dm_masks **out) {
    *out = NULL;
    dm_masks *masks = dm_alloc(1, sizeof *masks);
    if (masks == NULL) {
        return DM_ERR_MEMORY;
    }
    masks->order = order;
    masks->marks = marks;
    masks->words = words_of(order->vocab);
    for (size_t i = 0; i < KEPT; i++) {
        masks->kept[i].state = -1;
    }
    dm_status status = dm_walk_create(grammar, &masks->walk);
    if (status != DM_OK) {
        dm_masks_free(masks);
        return status;
    }
    masks->state = dm_walk_start(masks->walk);
    *out = masks;
    return DM_OK;
}

void dm_masks_free(dm_masks *masks) {
    if (masks == NULL) {
        return;
    }
    for (size_t i = 0; i < KEPT; i++) {
        dm_free(masks->kept[i].bits);
    }
    dm_walk_free(masks->walk);
    free(masks->path);
    dm_free(masks);
}

static size_t shared(const char *a, size_t n, const char *b, size_t m) {
    size_t same = 0;
    while (same < n && same < m && a[same] == b[same]) {
        same++;
    }
    return same;
}

/* A token's byte as the grammar has it: those that are in no text are taken for other things there. */
static uint8_t byte_of(char byte) {
    return (uint8_t)byte < DM_GRAMMAR_MARK ? (uint8_t)byte : DM_GRAMMAR_MARK - 1;
}

/* The mark that a token is; -1: none. */
static int mark_of(const dm_masks *masks, int32_t id) {
    for (int i = 0; masks->marks != NULL && i < DM_CHAT_MARKS; i++) {
        if (masks->marks[i] == id) {
            return i;
        }
    }
    return -1;
}

/* Tokens without bytes. */
static void find_silent(dm_masks *masks, uint64_t *bits) {
    if (dm_walk_step(masks->walk, masks->state, DM_GRAMMAR_TOKEN) != DM_WALK_DEAD) {
        for (size_t i = 0; i < masks->words; i++) {
            bits[i] |= masks->order->silent[i];
        }
    }
    for (int i = 0; masks->marks != NULL && i < DM_CHAT_MARKS; i++) {
        int32_t id = masks->marks[i];
        if (id >= 0 && id < masks->order->vocab) {
            bool may = dm_walk_step(masks->walk, masks->state, (uint8_t)(DM_GRAMMAR_MARK + i)) != DM_WALK_DEAD;
            bits[id / 64] &= ~(UINT64_C(1) << id % 64);
            bits[id / 64] |= (uint64_t)may << id % 64;
        }
    }
}

static bool is_all(const dm_masks *masks, const uint64_t *bits) {
    bool all = true;
    for (int32_t id = 0; id < masks->order->vocab && all; id++) {
        all = has_bit(bits, id) || dm_tokenizer_is_end(masks->order->tokenizer, id);
    }
    return all;
}

/* Walks all tokens in byte order; what a token shares with the one before it is not walked again. */
static dm_status find_tokens(dm_masks *masks, uint64_t *bits) {
    const dm_vocabulary_order *order = masks->order;
    const char *before = "";
    size_t walked = 0, length, before_length = 0; /* bytes of the token before that the path is of */
    for (size_t i = 0; i < order->n; i++) {
        const char *bytes = dm_tokenizer_bytes(order->tokenizer, order->ids[i], &length);
        DM_TRY(dm_reserve(&masks->path, &masks->path_room, length + 1, sizeof *masks->path));
        masks->path[0] = masks->state;
        size_t at = shared(before, before_length, bytes, length);
        at = at < walked ? at : walked;
        while (at < length && masks->path[at] != DM_WALK_DEAD) {
            masks->path[at + 1] = dm_walk_step(masks->walk, masks->path[at], byte_of(bytes[at]));
            at++;
        }
        walked = at;
        if (at == length && masks->path[at] != DM_WALK_DEAD) {
            set_bit(bits, order->ids[i]);
        }
        before = bytes;
        before_length = length;
    }
    find_silent(masks, bits);
    return dm_walk_status(masks->walk);
}

/* The mask of the present state. */
static dm_status mask_of(dm_masks *masks, const kept_mask **out) {
    kept_mask *oldest = &masks->kept[0];
    for (size_t i = 0; i < KEPT; i++) {
        if (masks->kept[i].state == masks->state && masks->state != DM_WALK_DEAD) {
            masks->kept[i].used = ++masks->uses;
            *out = &masks->kept[i];
            return DM_OK;
        }
        oldest = masks->kept[i].used < oldest->used ? &masks->kept[i] : oldest;
    }
    dm_free(oldest->bits);
    *oldest = (kept_mask){-1, dm_alloc(masks->words, sizeof *oldest->bits), false, ++masks->uses};
    if (oldest->bits == NULL) {
        return DM_ERR_MEMORY;
    }
    DM_TRY(find_tokens(masks, oldest->bits));
    oldest->state = masks->state;
    oldest->all = is_all(masks, oldest->bits);
    *out = oldest;
    return DM_OK;
}

/* An answer is as long as it likes: before there are too many states, all are forgotten but the present one. */
static dm_status forget(dm_masks *masks) {
    if (!dm_walk_is_long(masks->walk)) {
        return DM_OK;
    }
    for (size_t i = 0; i < KEPT; i++) {
        masks->kept[i].state = -1;
    }
    return dm_walk_forget(masks->walk, &masks->state);
}

dm_status dm_masks_apply(dm_masks *masks, float *logits) {
    const kept_mask *mask;
    DM_TRY(forget(masks));
    bool any = false, may_end = dm_walk_may_end(masks->walk, masks->state);
    DM_TRY(mask_of(masks, &mask));
    if (mask->all && may_end) {
        return DM_OK;
    }
    for (int32_t id = 0; id < masks->order->vocab; id++) {
        bool may = has_bit(mask->bits, id) || (may_end && dm_tokenizer_is_end(masks->order->tokenizer, id));
        any = any || (may && isfinite(logits[id]));
        logits[id] = may ? logits[id] : -INFINITY;
    }
    return any ? DM_OK : dm_fail(DM_ERR_UNSUPPORTED, "no token of the vocabulary can go on as the answer's format wants it");
}

dm_status dm_masks_take(dm_masks *masks, int32_t id) {
    size_t length = 0;
    const char *bytes = dm_tokenizer_bytes(masks->order->tokenizer, id, &length);
    int mark = mark_of(masks, id);
    if (mark >= 0 || bytes == NULL || length == 0) {
        masks->state = dm_walk_step(masks->walk, masks->state, (uint8_t)(mark >= 0 ? DM_GRAMMAR_MARK + mark : DM_GRAMMAR_TOKEN));
        return dm_walk_status(masks->walk);
    }
    for (size_t i = 0; i < length; i++) {
        masks->state = dm_walk_step(masks->walk, masks->state, byte_of(bytes[i]));
    }
    return dm_walk_status(masks->walk);
}

bool dm_masks_complete(const dm_masks *masks) {
    return dm_walk_must_end(masks->walk, masks->state);
}
