#include <stdlib.h>

#include "base/utf8.h"
#include "model/hf_tokenizer.h"

/* Space, and SentencePiece's character for it. */
#define SPACE " "
#define ESCAPE "\xe2\x96\x81"

/* ---- Tokens ---- */

static const char *text_of(const dm_tokenizer *tokenizer, int32_t id, size_t *length) {
    return dm_strings_at(&tokenizer->texts, (uint32_t)id, length);
}

static json_t *json_text(const dm_tokenizer *tokenizer, int32_t id) {
    size_t length;
    const char *text = text_of(tokenizer, id, &length);
    return json_stringn(text, length);
}

/* Filling that reading a folder makes by itself. */
static bool is_filling(const dm_tokenizer *tokenizer, int32_t id) {
    char own[32];
    size_t length, n = (size_t)snprintf(own, sizeof own, "[PAD%d]", (int)id);
    const char *text = text_of(tokenizer, id, &length);
    return tokenizer->types[id] == DM_TOKEN_UNUSED && n == length && memcmp(text, own, n) == 0;
}

static bool is_added(const dm_tokenizer *tokenizer, int32_t id) {
    uint8_t type = tokenizer->types[id];
    return type == DM_TOKEN_CONTROL || type == DM_TOKEN_USER || type == DM_TOKEN_UNKNOWN;
}

/* All tokens but filling; special ones are in it too, for programs number them by what they find here. */
static dm_status write_vocabulary(const dm_tokenizer *tokenizer, json_t *vocabulary) {
    for (int32_t id = 0; id < dm_tokenizer_vocab(tokenizer); id++) {
        size_t length;
        const char *text = text_of(tokenizer, id, &length);
        if (is_filling(tokenizer, id)) {
            continue;
        }
        if (dm_utf8_valid_prefix(text, length) != length || memchr(text, 0, length) != NULL) {
            return dm_fail(DM_ERR_UNSUPPORTED, "the text of token %d is not UTF-8, which tokenizer.json needs", (int)id);
        }
        if (json_object_setn_new(vocabulary, text, length, json_integer(id)) != 0) {
            return dm_fail(DM_ERR_MEMORY, "out of memory writing a vocabulary");
        }
    }
    return DM_OK;
}

static json_t *write_added(const dm_tokenizer *tokenizer) {
    json_t *added = json_array();
    for (int32_t id = 0; id < dm_tokenizer_vocab(tokenizer); id++) {
        if (is_added(tokenizer, id)) {
            json_array_append_new(added, json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content",
                                                   json_text(tokenizer, id), "single_word", 0, "lstrip", 0, "rstrip", 0,
                                                   "normalized", 0, "special", (int)(tokenizer->types[id] != DM_TOKEN_USER)));
        }
    }
    return added;
}

/* ---- Merges ---- */

/* "a b", which every version reads; as a pair where a text has a space itself. */
static json_t *write_merge(const dm_tokenizer *tokenizer, int32_t left, int32_t right, bool pairs) {
    size_t a, b;
    const char *left_text = text_of(tokenizer, left, &a), *right_text = text_of(tokenizer, right, &b);
    return pairs ? json_pack("[s%, s%]", left_text, a, right_text, b) : json_pack("s%++%", left_text, a, " ", right_text, b);
}

static bool has_spaces(const dm_tokenizer *tokenizer) {
    for (int32_t id = 0; id < dm_tokenizer_vocab(tokenizer); id++) {
        size_t length;
        const char *text = text_of(tokenizer, id, &length);
        if (!is_added(tokenizer, id) && memchr(text, ' ', length) != NULL) {
            return true;
        }
    }
    return false;
}

/* SentencePiece joins any two pieces whose text is a piece: each way to make one is a merge. */
typedef struct piece_merges {
    dm_merge *list;
    size_t count, room;
    const float *scores;
} piece_merges;

static dm_status find_ways(const dm_tokenizer *tokenizer, int32_t id, piece_merges *merges) {
    size_t length;
    const char *text = text_of(tokenizer, id, &length);
    for (size_t at = 1; at < length; at++) {
        if (((uint8_t)text[at] & 0xc0) == 0x80) { /* within a character */
            continue;
        }
        uint32_t left = dm_strings_find(&tokenizer->texts, text, at);
        uint32_t right = dm_strings_find(&tokenizer->texts, text + at, length - at);
        if (left == DM_TABLE_NONE || right == DM_TABLE_NONE || tokenizer->types[left] != DM_TOKEN_NORMAL ||
            tokenizer->types[right] != DM_TOKEN_NORMAL) {
            continue;
        }
        DM_TRY(dm_reserve(&merges->list, &merges->room, merges->count + 1, sizeof *merges->list));
        merges->list[merges->count++] = (dm_merge){(int32_t)left, (int32_t)right, id};
    }
    return DM_OK;
}

/* Best score first, then in the order of the tokens, so that the file does not depend on the machine. */
static int by_score(const void *a, const void *b, void *user) {
    const dm_merge *x = a, *y = b;
    const float *scores = user;
    float left = scores[x->result], right = scores[y->result];
    if (left != right) {
        return left > right ? -1 : 1;
    }
    if (x->result != y->result) {
        return x->result < y->result ? -1 : 1;
    }
    return (x->left > y->left) - (x->left < y->left);
}

static dm_status list_pieces(const dm_tokenizer *tokenizer, piece_merges *merges) {
    for (int32_t id = 0; id < dm_tokenizer_vocab(tokenizer); id++) {
        if (tokenizer->types[id] == DM_TOKEN_NORMAL) {
            DM_TRY(find_ways(tokenizer, id, merges));
        }
    }
    if (merges->count > 0) {
        qsort_r(merges->list, merges->count, sizeof *merges->list, by_score, tokenizer->scores);
    }
    return DM_OK;
}

static dm_status write_merges(const dm_tokenizer *tokenizer, json_t *out) {
    piece_merges made = {0};
    dm_status status = tokenizer->kind == DM_TOKENIZER_PIECES ? list_pieces(tokenizer, &made) : DM_OK;
    const dm_merge *list = tokenizer->kind == DM_TOKENIZER_PIECES ? made.list : tokenizer->merges;
    size_t count = tokenizer->kind == DM_TOKENIZER_PIECES ? made.count : tokenizer->n_merges;
    bool pairs = has_spaces(tokenizer);
    for (size_t i = 0; i < count && status == DM_OK; i++) {
        if (json_array_append_new(out, write_merge(tokenizer, list[i].left, list[i].right, pairs)) != 0) {
            status = dm_fail(DM_ERR_MEMORY, "out of memory writing merges");
        }
    }
    free(made.list);
    return status;
}

/* ---- What surrounds the model ---- */

static json_t *write_normalizer(const dm_tokenizer *tokenizer) {
    if (tokenizer->kind == DM_TOKENIZER_BPE) {
        return json_null();
    }
    json_t *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", SPACE, "content", ESCAPE);
    return tokenizer->space_prefix ? json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend",
                                               "prepend", ESCAPE, replace)
                                   : replace;
}

static json_t *write_byte_level(void) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 1);
}

static json_t *write_decoder(const dm_tokenizer *tokenizer) {
    if (tokenizer->kind == DM_TOKENIZER_BPE) {
        return write_byte_level();
    }
    json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", ESCAPE, "content",
                              SPACE, "type", "ByteFallback", "type", "Fuse");
    if (tokenizer->space_prefix) {
        json_array_append_new(steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", SPACE, "start", 1, "stop", 0));
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

static json_t *special_part(const dm_tokenizer *tokenizer, int32_t id, int type_id) {
    return json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", json_text(tokenizer, id), "type_id", type_id);
}

static void append_text(const dm_tokenizer *tokenizer, json_t *parts, const char *name, int type_id) {
    if (tokenizer->add_bos) {
        json_array_append_new(parts, special_part(tokenizer, tokenizer->bos, type_id));
    }
    json_array_append_new(parts, json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type_id));
    if (tokenizer->add_eos) {
        json_array_append_new(parts, special_part(tokenizer, tokenizer->eos, type_id));
    }
}

static void define_special(const dm_tokenizer *tokenizer, json_t *specials, int32_t id) {
    size_t length;
    const char *text = text_of(tokenizer, id, &length);
    json_object_setn_new(
        specials, text, length,
        json_pack("{s:o, s:[i], s:[o]}", "id", json_text(tokenizer, id), "ids", (int)id, "tokens", json_text(tokenizer, id)));
}

/* Puts the marks of beginning and end around a text, where the vocabulary asks for them. */
static json_t *write_template(const dm_tokenizer *tokenizer) {
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    append_text(tokenizer, single, "A", 0);
    append_text(tokenizer, pair, "A", 0);
    append_text(tokenizer, pair, "B", 1);
    if (tokenizer->add_bos) {
        define_special(tokenizer, specials, tokenizer->bos);
    }
    if (tokenizer->add_eos) {
        define_special(tokenizer, specials, tokenizer->eos);
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens",
                     specials);
}

static json_t *write_post_processor(const dm_tokenizer *tokenizer) {
    bool marks = tokenizer->add_bos || tokenizer->add_eos;
    if (tokenizer->kind == DM_TOKENIZER_PIECES) {
        return marks ? write_template(tokenizer) : json_null();
    }
    return marks ? json_pack("{s:s, s:[o, o]}", "type", "Sequence", "processors", write_byte_level(), write_template(tokenizer))
                 : write_byte_level();
}

static bool has_bytes(const dm_tokenizer *tokenizer) {
    return memchr(tokenizer->types, DM_TOKEN_BYTE, (size_t)dm_tokenizer_vocab(tokenizer)) != NULL;
}

static dm_status write_model(const dm_tokenizer *tokenizer, json_t **out) {
    bool pieces = tokenizer->kind == DM_TOKENIZER_PIECES;
    json_t *vocabulary = json_object(), *merges = json_array();
    dm_status status = write_vocabulary(tokenizer, vocabulary);
    if (status == DM_OK) {
        status = write_merges(tokenizer, merges);
    }
    if (status != DM_OK) {
        json_decref(vocabulary);
        json_decref(merges);
        return status;
    }
    json_t *unknown = tokenizer->unknown >= 0 ? json_text(tokenizer, tokenizer->unknown) : json_null();
    *out = json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token", unknown,
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", (int)pieces, "byte_fallback",
                     (int)(pieces && has_bytes(tokenizer)), "ignore_merges", (int)(!pieces && tokenizer->rules->whole_words),
                     "vocab", vocabulary, "merges", merges);
    return DM_OK;
}

static dm_status write_tokenizer(const dm_tokenizer *tokenizer, json_t **out) {
    json_t *rules = json_null(), *model = NULL;
    if (tokenizer->kind == DM_TOKENIZER_BPE) {
        rules = dm_hf_rules_write(tokenizer->rules);
        if (rules == NULL) {
            return dm_fail(DM_ERR_UNSUPPORTED, "its words are cut by the rules '%s', which have no form in tokenizer.json here",
                           tokenizer->pre);
        }
    }
    dm_status status = write_model(tokenizer, &model);
    if (status != DM_OK) {
        json_decref(rules);
        return status;
    }
    *out = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens",
                     write_added(tokenizer), "normalizer", write_normalizer(tokenizer), "pre_tokenizer", rules, "post_processor",
                     write_post_processor(tokenizer), "decoder", write_decoder(tokenizer), "model", model);
    return DM_OK; /* NULL, for want of memory, is reported where it is saved */
}

/* ---- The files beside it ---- */

static void set_token(const dm_tokenizer *tokenizer, json_t *object, const char *key, int32_t id) {
    if (id >= 0) {
        json_object_set_new(object, key, json_text(tokenizer, id));
    }
}

static json_t *write_settings(const dm_tokenizer *tokenizer, int32_t context) {
    json_t *object = json_pack("{s:s, s:i, s:b, s:b, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "model_max_length",
                               (int)context, "add_bos_token", (int)tokenizer->add_bos, "add_eos_token", (int)tokenizer->add_eos,
                               "clean_up_tokenization_spaces", 0);
    set_token(tokenizer, object, "bos_token", tokenizer->bos);
    set_token(tokenizer, object, "eos_token", tokenizer->eos);
    set_token(tokenizer, object, "unk_token", tokenizer->unknown);
    set_token(tokenizer, object, "pad_token", tokenizer->padding);
    if (tokenizer->chat_template != NULL) {
        size_t length = strlen(tokenizer->chat_template);
        char *mended = malloc(3 * length + 1);
        size_t n = mended != NULL ? dm_utf8_mend(tokenizer->chat_template, length, mended) : 0;
        json_object_set_new(object, "chat_template", mended != NULL ? json_stringn(mended, n) : NULL);
        free(mended);
    }
    return object;
}

static json_t *write_generation(const dm_tokenizer *tokenizer) {
    json_t *object = json_object(), *ends = json_array();
    for (size_t i = 0; i < tokenizer->ends.count; i++) {
        json_array_append_new(ends, json_integer(tokenizer->ends.ids[i]));
    }
    if (tokenizer->bos >= 0) {
        json_object_set_new(object, "bos_token_id", json_integer(tokenizer->bos));
    }
    if (tokenizer->ends.count > 0) {
        json_object_set(object, "eos_token_id", tokenizer->ends.count == 1 ? json_array_get(ends, 0) : ends);
    }
    if (tokenizer->padding >= 0) {
        json_object_set_new(object, "pad_token_id", json_integer(tokenizer->padding));
    }
    json_decref(ends);
    return object;
}

dm_status dm_hf_tokenizer_write(const dm_tokenizer *tokenizer, int32_t context, const char *folder) {
    json_t *object = NULL;
    DM_TRY(write_tokenizer(tokenizer, &object));
    DM_TRY(dm_json_save(object, folder, "tokenizer.json"));
    DM_TRY(dm_json_save(write_settings(tokenizer, context), folder, "tokenizer_config.json"));
    return dm_json_save(write_generation(tokenizer), folder, "generation_config.json");
}
