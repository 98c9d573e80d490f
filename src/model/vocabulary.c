#include "model/vocabulary.h"

#include <stdlib.h>

#include "base/memory.h"
#include "model/byte_map.h"

dm_status dm_vocabulary_create(dm_tokenizer **out) {
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a vocabulary");
    }
    (*out)->bos = (*out)->eos = -1;
    return DM_OK;
}

void dm_tokenizer_close(dm_tokenizer *tokenizer) {
    if (tokenizer == NULL) {
        return;
    }
    dm_strings_free(&tokenizer->texts);
    dm_table_free(&tokenizer->ranks);
    free(tokenizer->types);
    free(tokenizer->bytes);
    free(tokenizer->byte_start);
    free(tokenizer->merges);
    free(tokenizer->special);
    free(tokenizer);
}

dm_status dm_vocabulary_add(dm_tokenizer *tokenizer, const char *text, size_t length, dm_token_type type) {
    uint32_t id, next = tokenizer->texts.count;
    bool added;
    if (next >= INT32_MAX) {
        return dm_fail(DM_ERR_UNSUPPORTED, "more than %d tokens", INT32_MAX);
    }
    char name[32];
    if (length == 0) { /* cannot be met in text; a name keeps it apart from other ones */
        length = (size_t)snprintf(name, sizeof name, "[EMPTY_%u]", next);
        text = name;
    }
    DM_TRY(dm_reserve(&tokenizer->types, &tokenizer->types_room, (size_t)next + 1, 1));
    DM_TRY(dm_strings_add(&tokenizer->texts, text, length, &id, &added));
    if (!added) {
        return dm_fail(DM_ERR_FORMAT, "tokens %u and %u have the same text '%.*s'", id, next, length < 64 ? (int)length : 64,
                       text);
    }
    tokenizer->types[id] = (uint8_t)type;
    return DM_OK;
}

dm_status dm_vocabulary_add_bytes(dm_tokenizer *tokenizer) {
    for (int byte = 0; byte < 256; byte++) {
        char name[4];
        DM_TRY(dm_vocabulary_add(tokenizer, name, dm_byte_name((uint8_t)byte, name), DM_TOKEN_NORMAL));
    }
    return DM_OK;
}

/* The token whose text is left's and right's joined, added if `add` and there is none. */
static dm_status join(dm_tokenizer *tokenizer, int32_t left, int32_t right, bool add, int32_t *result) {
    size_t a, b;
    const char *left_text = dm_strings_at(&tokenizer->texts, (uint32_t)left, &a);
    const char *right_text = dm_strings_at(&tokenizer->texts, (uint32_t)right, &b);
    char small[256], *joined = a + b <= sizeof small ? small : malloc(a + b);
    if (joined == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a token of %zu bytes", a + b);
    }
    memcpy(joined, left_text, a);
    memcpy(joined + a, right_text, b);
    dm_status status = DM_OK;
    uint32_t found = dm_strings_find(&tokenizer->texts, joined, a + b);
    if (found == DM_TABLE_NONE && add) {
        found = tokenizer->texts.count;
        status = dm_vocabulary_add(tokenizer, joined, a + b, DM_TOKEN_NORMAL);
    } else if (found == DM_TABLE_NONE) {
        status = dm_fail(DM_ERR_FORMAT, "'%.*s' and '%.*s' join to no token of the vocabulary", a < 64 ? (int)a : 64, left_text,
                         b < 64 ? (int)b : 64, right_text);
    }
    if (joined != small) {
        free(joined);
    }
    *result = (int32_t)found;
    return status;
}

dm_status dm_vocabulary_merge(dm_tokenizer *tokenizer, int32_t left, int32_t right, bool add, int32_t *result) {
    DM_TRY(join(tokenizer, left, right, add, result));
    if (tokenizer->n_merges >= DM_TABLE_NONE - 1) {
        return dm_fail(DM_ERR_UNSUPPORTED, "more than %zu merges", tokenizer->n_merges);
    }
    uint64_t pair = dm_pair(left, right);
    if (dm_table_get(&tokenizer->ranks, pair) != DM_TABLE_NONE) {
        return DM_OK;
    }
    DM_TRY(dm_reserve(&tokenizer->merges, &tokenizer->merges_room, tokenizer->n_merges + 1, sizeof *tokenizer->merges));
    DM_TRY(dm_table_set(&tokenizer->ranks, pair, (uint32_t)tokenizer->n_merges));
    tokenizer->merges[tokenizer->n_merges++] = (dm_merge){left, right, *result};
    return DM_OK;
}

/* ---- What follows from the tokens ---- */

/* Words of plain text are kept as they are written: in tokens found as a whole, and where a character names no byte. */
static bool is_plain(dm_token_type type) {
    return type == DM_TOKEN_CONTROL || type == DM_TOKEN_USER || type == DM_TOKEN_UNKNOWN;
}

static dm_status decode_tokens(dm_tokenizer *tokenizer) {
    uint32_t vocab = tokenizer->texts.count;
    size_t room = vocab > 0 ? tokenizer->texts.starts[vocab] : 0; /* decoding never lengthens */
    tokenizer->bytes = malloc(room + 1);
    tokenizer->byte_start = calloc((size_t)vocab + 1, sizeof *tokenizer->byte_start);
    if (tokenizer->bytes == NULL || tokenizer->byte_start == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a vocabulary of %u tokens", vocab);
    }
    size_t used = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        size_t length, n = 0;
        const char *text = dm_strings_at(&tokenizer->texts, id, &length);
        dm_token_type type = tokenizer->types[id];
        if (type != DM_TOKEN_CONTROL && (is_plain(type) || !dm_bytes_of_text(text, length, tokenizer->bytes + used, &n))) {
            memcpy(tokenizer->bytes + used, text, length);
            n = length;
        }
        used += n;
        tokenizer->byte_start[id + 1] = used;
    }
    return DM_OK;
}

static dm_status find_bytes(dm_tokenizer *tokenizer) {
    for (int byte = 0; byte < 256; byte++) {
        char name[4];
        uint32_t id = dm_strings_find(&tokenizer->texts, name, dm_byte_name((uint8_t)byte, name));
        if (id == DM_TABLE_NONE) {
            return dm_fail(DM_ERR_FORMAT, "no token stands for the byte 0x%02x, so not every text can be encoded",
                           (unsigned)byte);
        }
        tokenizer->byte_id[byte] = (int32_t)id;
    }
    return DM_OK;
}

typedef struct special_text {
    const uint8_t *text;
    size_t length;
    int32_t id;
} special_text;

static int by_byte_and_length(const void *a, const void *b) {
    const special_text *x = a, *y = b;
    if (x->text[0] != y->text[0]) {
        return x->text[0] < y->text[0] ? -1 : 1;
    }
    if (x->length != y->length) {
        return x->length > y->length ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

static dm_status sort_special(dm_tokenizer *tokenizer) {
    uint32_t vocab = tokenizer->texts.count;
    size_t n = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        n += is_plain(tokenizer->types[id]);
        tokenizer->has_user |= tokenizer->types[id] == DM_TOKEN_USER;
    }
    special_text *sorted = calloc(n + 1, sizeof *sorted);
    tokenizer->special = calloc(n + 1, sizeof *tokenizer->special);
    if (sorted == NULL || tokenizer->special == NULL) {
        free(sorted);
        return dm_fail(DM_ERR_MEMORY, "out of memory for %zu special tokens", n);
    }
    n = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        if (is_plain(tokenizer->types[id])) {
            size_t length;
            const char *text = dm_strings_at(&tokenizer->texts, id, &length);
            sorted[n++] = (special_text){(const uint8_t *)text, length, (int32_t)id};
        }
    }
    qsort(sorted, n, sizeof *sorted, by_byte_and_length);
    for (size_t i = 0; i < n; i++) {
        tokenizer->special[i] = sorted[i].id;
        tokenizer->special_start[sorted[i].text[0] + 1]++;
    }
    for (int byte = 0; byte < 256; byte++) {
        tokenizer->special_start[byte + 1] += tokenizer->special_start[byte];
    }
    free(sorted);
    return DM_OK;
}

dm_status dm_vocabulary_finish(dm_tokenizer *tokenizer) {
    DM_TRY(decode_tokens(tokenizer));
    DM_TRY(find_bytes(tokenizer));
    return sort_special(tokenizer);
}

dm_status dm_vocabulary_end(dm_tokenizer *tokenizer) {
    DM_TRY(dm_vocabulary_add(tokenizer, DM_END_OF_TEXT, strlen(DM_END_OF_TEXT), DM_TOKEN_CONTROL));
    tokenizer->bos = tokenizer->eos = dm_tokenizer_vocab(tokenizer) - 1;
    return dm_vocabulary_finish(tokenizer);
}

int32_t dm_vocabulary_special(const dm_tokenizer *tokenizer, const char *text, size_t n, bool control) {
    uint8_t first = (uint8_t)text[0];
    for (size_t i = tokenizer->special_start[first]; i < tokenizer->special_start[first + 1]; i++) {
        int32_t id = tokenizer->special[i];
        size_t length;
        const char *candidate = dm_strings_at(&tokenizer->texts, (uint32_t)id, &length);
        if ((control || tokenizer->types[id] == DM_TOKEN_USER) && length <= n && memcmp(candidate, text, length) == 0) {
            return id;
        }
    }
    return -1;
}
