#include "model/vocabulary.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "model/byte_map.h"

dm_status dm_vocabulary_create(dm_tokenizer **out) {
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a vocabulary");
    }
    dm_tokenizer *tokenizer = *out;
    tokenizer->bos = tokenizer->eos = tokenizer->eot = tokenizer->eom = tokenizer->unknown = tokenizer->padding = -1;
    tokenizer->rules = dm_pretokenizer_find("gpt-2", 5);
    memcpy(tokenizer->pre, "gpt-2", 6);
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
    free(tokenizer->special.ids);
    free(tokenizer->ends.ids);
    free(tokenizer->chat_template);
    free(tokenizer->scores);
    dm_strings_free(&tokenizer->pieces);
    free(tokenizer->piece_ids);
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

/* Special tokens are met as a whole or not at all, and those of bytes are the last resort. */
static bool is_met(uint8_t type) {
    return type == DM_TOKEN_NORMAL || type == DM_TOKEN_UNUSED;
}

/* Both texts joined, in `small` where they fit or else from malloc; NULL when memory is short. */
static char *joined_text(const dm_tokenizer *tokenizer, int32_t left, int32_t right, char small[256], size_t *length) {
    size_t a, b;
    const char *left_text = dm_strings_at(&tokenizer->texts, (uint32_t)left, &a);
    const char *right_text = dm_strings_at(&tokenizer->texts, (uint32_t)right, &b);
    char *joined = a + b <= 256 ? small : malloc(a + b);
    if (joined != NULL) {
        memcpy(joined, left_text, a);
        memcpy(joined + a, right_text, b);
    }
    *length = a + b;
    return joined;
}

/* The token whose text is left's and right's joined; -1 where there is none, unless `add`, which adds one. */
static dm_status join(dm_tokenizer *tokenizer, int32_t left, int32_t right, bool add, int32_t *result) {
    char small[256];
    size_t length;
    char *joined = joined_text(tokenizer, left, right, small, &length);
    if (joined == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a token of %zu bytes", length);
    }
    dm_status status = DM_OK;
    uint32_t found = dm_strings_find(&tokenizer->texts, joined, length);
    *result = found != DM_TABLE_NONE ? (int32_t)found : -1;
    if (*result < 0 && add) {
        *result = (int32_t)tokenizer->texts.count;
        status = dm_vocabulary_add(tokenizer, joined, length, DM_TOKEN_NORMAL);
    }
    if (joined != small) {
        free(joined);
    }
    return status;
}

dm_status dm_vocabulary_join(const dm_tokenizer *tokenizer, int32_t left, int32_t right, int32_t *result) {
    DM_TRY(join((dm_tokenizer *)(uintptr_t)tokenizer, left, right, false, result)); /* without `add` nothing changes */
    if (*result >= 0) {
        return DM_OK;
    }
    size_t a, b;
    const char *left_text = dm_strings_at(&tokenizer->texts, (uint32_t)left, &a);
    const char *right_text = dm_strings_at(&tokenizer->texts, (uint32_t)right, &b);
    return dm_fail(DM_ERR_FORMAT, "'%.*s' and '%.*s' join to no token of the vocabulary", a < 64 ? (int)a : 64, left_text,
                   b < 64 ? (int)b : 64, right_text);
}

dm_status dm_vocabulary_parts(const dm_tokenizer *tokenizer, uint64_t number, const char *left, size_t a, const char *right,
                              size_t b, int32_t ids[2]) {
    uint32_t first = dm_strings_find(&tokenizer->texts, left, a);
    uint32_t second = dm_strings_find(&tokenizer->texts, right, b);
    if (first == DM_TABLE_NONE || second == DM_TABLE_NONE) {
        return dm_fail(DM_ERR_FORMAT, "merge %" PRIu64 " '%.*s %.*s' names a %s that is not in the vocabulary", number,
                       a < 64 ? (int)a : 64, left, b < 64 ? (int)b : 64, right,
                       first == DM_TABLE_NONE ? "left part" : "right part");
    }
    ids[0] = (int32_t)first;
    ids[1] = (int32_t)second;
    return DM_OK;
}

dm_status dm_vocabulary_line(const dm_tokenizer *tokenizer, uint64_t number, const char *text, size_t length, int32_t ids[2]) {
    const char *space = length > 2 ? memchr(text + 1, ' ', length - 1) : NULL; /* the left part has at least one byte */
    if (space == NULL) {
        return dm_fail(DM_ERR_FORMAT, "merge %" PRIu64 " '%.*s' is not two tokens with a space between", number,
                       length < 64 ? (int)length : 64, text);
    }
    size_t a = (size_t)(space - text);
    return dm_vocabulary_parts(tokenizer, number, text, a, space + 1, length - a - 1, ids);
}

dm_status dm_vocabulary_merge(dm_tokenizer *tokenizer, int32_t left, int32_t right, bool add, int32_t *result) {
    DM_TRY(add ? join(tokenizer, left, right, true, result) : dm_vocabulary_join(tokenizer, left, right, result));
    if (tokenizer->n_merges >= DM_TABLE_NONE - 1) {
        return dm_fail(DM_ERR_UNSUPPORTED, "more than %zu merges", tokenizer->n_merges);
    }
    uint64_t pair = dm_pair(left, right);
    if (dm_table_get(&tokenizer->ranks, pair) != DM_TABLE_NONE || !is_met(tokenizer->types[*result])) {
        return DM_OK;
    }
    DM_TRY(dm_reserve(&tokenizer->merges, &tokenizer->merges_room, tokenizer->n_merges + 1, sizeof *tokenizer->merges));
    DM_TRY(dm_table_set(&tokenizer->ranks, pair, (uint32_t)tokenizer->n_merges));
    tokenizer->merges[tokenizer->n_merges++] = (dm_merge){left, right, *result};
    return DM_OK;
}

/* ---- What follows from the tokens ---- */

/* SentencePiece's space, U+2581. */
static const char escape[3] = "\xe2\x96\x81";

static size_t unescape(const char *text, size_t length, char *bytes) {
    size_t n = 0;
    for (size_t at = 0; at < length;) {
        bool space = length - at >= sizeof escape && memcmp(text + at, escape, sizeof escape) == 0;
        bytes[n++] = space ? ' ' : text[at];
        at += space ? sizeof escape : 1;
    }
    return n;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0x41>" names; -1 for another text. */
static int named_byte(const char *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || hex_digit(text[3]) < 0 || hex_digit(text[4]) < 0) {
        return -1;
    }
    return hex_digit(text[3]) * 16 + hex_digit(text[4]);
}

/* What a token stands for, at most as long as its text; returns the bytes written. */
static size_t decode_token(const dm_tokenizer *tokenizer, dm_token_type type, const char *text, size_t length, char *bytes) {
    size_t n;
    int byte = type == DM_TOKEN_BYTE ? named_byte(text, length) : -1;
    if (type == DM_TOKEN_CONTROL || type == DM_TOKEN_UNKNOWN) {
        return 0;
    }
    if (byte >= 0) {
        bytes[0] = (char)byte;
        return 1;
    }
    if (type != DM_TOKEN_USER && tokenizer->kind == DM_TOKENIZER_PIECES) {
        return unescape(text, length, bytes);
    }
    if (type != DM_TOKEN_USER && dm_bytes_of_text(text, length, bytes, &n)) {
        return n;
    }
    memcpy(bytes, text, length); /* a user's token, or one with a character that names no byte: as it is written */
    return length;
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
        size_t length;
        const char *text = dm_strings_at(&tokenizer->texts, id, &length);
        used += decode_token(tokenizer, tokenizer->types[id], text, length, tokenizer->bytes + used);
        tokenizer->byte_start[id + 1] = used;
    }
    return DM_OK;
}

static bool space_inside(const char *bytes, size_t length) {
    for (size_t i = 1; i < length; i++) {
        if (bytes[i] == ' ' && bytes[i - 1] != ' ') {
            return true;
        }
    }
    return false;
}

static dm_status find_pieces(dm_tokenizer *tokenizer) {
    uint32_t vocab = tokenizer->texts.count;
    tokenizer->whole_spaces = true;
    if (tokenizer->kind == DM_TOKENIZER_BPE && !tokenizer->rules->whole_words) {
        return DM_OK;
    }
    tokenizer->piece_ids = calloc((size_t)vocab + 1, sizeof *tokenizer->piece_ids);
    if (tokenizer->piece_ids == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a vocabulary of %u tokens", vocab);
    }
    for (uint32_t id = 0; id < vocab; id++) {
        size_t length;
        const char *bytes = dm_tokenizer_bytes(tokenizer, (int32_t)id, &length);
        if (!is_met(tokenizer->types[id])) {
            continue;
        }
        uint32_t index;
        bool added;
        DM_TRY(dm_strings_add(&tokenizer->pieces, bytes, length, &index, &added));
        if (added) { /* of several that stand for the same, the first */
            tokenizer->piece_ids[index] = (int32_t)id;
        }
        tokenizer->longest_piece = length > tokenizer->longest_piece ? length : tokenizer->longest_piece;
        tokenizer->whole_spaces = tokenizer->whole_spaces && !space_inside(bytes, length);
    }
    return DM_OK;
}

int32_t dm_vocabulary_piece(const dm_tokenizer *tokenizer, const char *bytes, size_t length) {
    if (length > tokenizer->longest_piece) {
        return -1;
    }
    uint32_t index = dm_strings_find(&tokenizer->pieces, bytes, length);
    return index == DM_TABLE_NONE ? -1 : tokenizer->piece_ids[index];
}

static int32_t token_of_byte(const dm_tokenizer *tokenizer, uint8_t byte) {
    char name[8];
    uint32_t id;
    if (tokenizer->kind == DM_TOKENIZER_BPE) {
        id = dm_strings_find(&tokenizer->texts, name, dm_byte_name(byte, name));
        return id != DM_TABLE_NONE && is_met(tokenizer->types[id]) ? (int32_t)id : -1; /* a user's token has its text's bytes */
    }
    snprintf(name, sizeof name, "<0x%02X>", byte);
    id = dm_strings_find(&tokenizer->texts, name, 6);
    if (id != DM_TABLE_NONE && tokenizer->types[id] == DM_TOKEN_BYTE) {
        return (int32_t)id;
    }
    return dm_vocabulary_piece(tokenizer, (const char *)&byte, 1);
}

static void find_bytes(dm_tokenizer *tokenizer) {
    for (int byte = 0; byte < 256; byte++) {
        tokenizer->byte_id[byte] = token_of_byte(tokenizer, (uint8_t)byte);
        tokenizer->lacks_bytes |= tokenizer->byte_id[byte] < 0;
    }
}

dm_status dm_vocabulary_finish(dm_tokenizer *tokenizer) {
    DM_TRY(decode_tokens(tokenizer));
    DM_TRY(find_pieces(tokenizer));
    find_bytes(tokenizer);
    return dm_special_sort(tokenizer);
}

dm_status dm_vocabulary_end(dm_tokenizer *tokenizer) {
    DM_TRY(dm_vocabulary_add(tokenizer, DM_END_OF_TEXT, strlen(DM_END_OF_TEXT), DM_TOKEN_CONTROL));
    tokenizer->bos = tokenizer->eos = dm_tokenizer_vocab(tokenizer) - 1;
    DM_TRY(dm_special_find_ends(tokenizer));
    return dm_vocabulary_finish(tokenizer);
}
