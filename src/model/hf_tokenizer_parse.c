/* tokenizer.json alone: tokens, merges, and how words are cut. */
#include <inttypes.h>
#include <stdlib.h>

#include "model/hf_tokenizer.h"

/* ---- Tokens ---- */

typedef struct token_entry {
    int32_t id;
    uint32_t text; /* its number in `texts` */
    dm_token_type type;
} token_entry;

typedef struct token_list {
    const char *path;
    int32_t vocab;
    dm_strings texts;
    token_entry *entries; /* [texts.count] */
    size_t room;
} token_list;

/* Length of a text as printf's precision. */
static int shown(size_t length) {
    return length < 64 ? (int)length : 64;
}

/* A token of the vocabulary, or one added to it, which may repeat what is there. */
static dm_status add_entry(token_list *list, const char *text, size_t length, json_int_t id, dm_token_type type, bool again) {
    uint32_t index;
    bool added;
    if (id < 0 || id >= list->vocab) {
        if (again && id > 0) {
            dm_log("%s: the added token '%.*s' is number %lld, beyond the model's %d; left out", list->path, shown(length), text,
                   (long long)id, list->vocab);
            return DM_OK;
        }
        return dm_fail(DM_ERR_FORMAT, "%s: token '%.*s' is number %lld, expected 0 to %d, below the model's vocabulary",
                       list->path, shown(length), text, (long long)id, list->vocab - 1);
    }
    DM_TRY(dm_strings_add(&list->texts, text, length, &index, &added));
    if (!added && (!again || list->entries[index].id != id)) {
        return dm_fail(DM_ERR_FORMAT, "%s: token '%.*s' is number %d and %lld", list->path, shown(length), text,
                       list->entries[index].id, (long long)id);
    }
    DM_TRY(dm_reserve(&list->entries, &list->room, list->texts.count, sizeof *list->entries));
    list->entries[index] = (token_entry){(int32_t)id, index, type};
    return DM_OK;
}

static bool is_byte_name(const char *text, size_t length) {
    return length == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>' && strspn(text + 3, "0123456789ABCDEF") == 2;
}

static dm_status add_vocabulary(token_list *list, const json_t *vocabulary, bool byte_names) {
    const char *text;
    const json_t *id;
    void *at;
    if (!json_is_object(vocabulary)) {
        return dm_fail(DM_ERR_FORMAT, "%s: the model has no 'vocab'", list->path);
    }
    json_object_foreach_safe((json_t *)(uintptr_t)vocabulary, at, text, id) {
        size_t length = strlen(text);
        if (!json_is_integer(id)) {
            return dm_fail(DM_ERR_FORMAT, "%s: the number of token '%.*s' is no whole number", list->path, shown(length), text);
        }
        dm_token_type type = byte_names && is_byte_name(text, length) ? DM_TOKEN_BYTE : DM_TOKEN_NORMAL;
        DM_TRY(add_entry(list, text, length, json_integer_value(id), type, false));
    }
    return DM_OK;
}

static dm_status add_added(token_list *list, const json_t *added) {
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const json_t *text = json_object_get(token, "content"), *id = json_object_get(token, "id");
        if (!json_is_string(text) || !json_is_integer(id)) {
            return dm_fail(DM_ERR_FORMAT, "%s: added token %zu has no 'content' or no 'id'", list->path, i);
        }
        bool special = json_is_true(json_object_get(token, "special"));
        DM_TRY(add_entry(list, json_string_value(text), json_string_length(text), json_integer_value(id),
                         special ? DM_TOKEN_CONTROL : DM_TOKEN_USER, true));
    }
    return DM_OK;
}

static int by_id(const void *a, const void *b) {
    const token_entry *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static dm_status add_filling(dm_tokenizer *tokenizer, int32_t end) {
    while (dm_tokenizer_vocab(tokenizer) < end) {
        char text[32];
        int length = snprintf(text, sizeof text, "[PAD%d]", (int)dm_tokenizer_vocab(tokenizer));
        DM_TRY(dm_vocabulary_add(tokenizer, text, (size_t)length, DM_TOKEN_UNUSED));
    }
    return DM_OK;
}

/* In the order of their numbers; numbers without a token are filled. */
static dm_status hand_over(token_list *list, dm_tokenizer *tokenizer) {
    size_t n = list->texts.count;
    if (n > 0) {
        qsort(list->entries, n, sizeof *list->entries, by_id);
    }
    for (size_t i = 0; i < n; i++) {
        const token_entry *entry = &list->entries[i];
        size_t length;
        const char *text = dm_strings_at(&list->texts, entry->text, &length);
        if (i > 0 && entry->id == entry[-1].id) {
            return dm_fail(DM_ERR_FORMAT, "%s: token '%.*s' is number %d, and so is another one", list->path, shown(length), text,
                           (int)entry->id);
        }
        DM_TRY(add_filling(tokenizer, entry->id));
        DM_TRY(dm_vocabulary_add(tokenizer, text, length, entry->type));
    }
    return add_filling(tokenizer, list->vocab);
}

static dm_status read_tokens(const json_t *object, const json_t *model, const char *path, int32_t vocab,
                             dm_tokenizer *tokenizer) {
    token_list list = {.path = path, .vocab = vocab};
    bool byte_names = tokenizer->kind == DM_TOKENIZER_PIECES && json_is_true(json_object_get(model, "byte_fallback"));
    dm_status status = add_vocabulary(&list, json_object_get(model, "vocab"), byte_names);
    if (status == DM_OK) {
        status = add_added(&list, json_object_get(object, "added_tokens"));
    }
    if (status == DM_OK) {
        status = hand_over(&list, tokenizer);
    }
    dm_strings_free(&list.texts);
    free(list.entries);
    return status;
}

/* ---- Merges ---- */

/* "a b" in files of old, ["a", "b"] since 2024. */
static dm_status read_merge(const dm_tokenizer *tokenizer, size_t number, const json_t *merge, int32_t ids[2]) {
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    if (json_is_string(merge)) {
        return dm_vocabulary_line(tokenizer, number, json_string_value(merge), json_string_length(merge), ids);
    }
    if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right)) {
        return dm_vocabulary_parts(tokenizer, number, json_string_value(left), json_string_length(left), json_string_value(right),
                                   json_string_length(right), ids);
    }
    return dm_fail(DM_ERR_FORMAT, "merge %zu is no pair of tokens", number);
}

/* SentencePiece's scores, which tokenizer.json leaves out, from the order of the merges: the token that is made first has the
 * highest, 0; those that none makes follow, as in SentencePiece's own files. */
static void finish_scores(dm_tokenizer *tokenizer, float next) {
    for (uint32_t id = 0; id < tokenizer->texts.count; id++) {
        if (tokenizer->scores[id] > 0.0f) { /* not set */
            bool text = tokenizer->types[id] == DM_TOKEN_NORMAL;
            tokenizer->scores[id] = text ? next : 0.0f;
            next -= text;
        }
    }
}

static dm_status read_scores(const json_t *merges, dm_tokenizer *tokenizer) {
    uint32_t vocab = tokenizer->texts.count;
    float next = 0.0f;
    tokenizer->scores = calloc((size_t)vocab + 1, sizeof *tokenizer->scores);
    if (tokenizer->scores == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for the scores of %u tokens", vocab);
    }
    for (uint32_t id = 0; id < vocab; id++) {
        tokenizer->scores[id] = 1.0f;
    }
    for (size_t i = 0; i < json_array_size(merges); i++) {
        int32_t ids[2], result;
        DM_TRY(read_merge(tokenizer, i, json_array_get(merges, i), ids));
        DM_TRY(dm_vocabulary_join(tokenizer, ids[0], ids[1], &result));
        if (tokenizer->scores[result] > 0.0f) {
            tokenizer->scores[result] = next;
            next -= 1.0f;
        }
    }
    finish_scores(tokenizer, next);
    return DM_OK;
}

static dm_status read_merges(const json_t *merges, dm_tokenizer *tokenizer) {
    for (size_t i = 0; i < json_array_size(merges); i++) {
        int32_t ids[2], result;
        DM_TRY(read_merge(tokenizer, i, json_array_get(merges, i), ids));
        DM_TRY(dm_vocabulary_merge(tokenizer, ids[0], ids[1], false, &result));
    }
    return DM_OK;
}

/* ---- Kinds ---- */

/* The part of that type in a normalizer, pre_tokenizer, decoder or post_processor, alone or in a sequence. */
static const json_t *find_part(const json_t *whole, const char *list, const char *type) {
    const json_t *sequence = json_object_get(whole, list);
    size_t n = sequence != NULL ? json_array_size(sequence) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *part = sequence != NULL ? json_array_get(sequence, i) : whole;
        const char *own = json_string_value(json_object_get(part, "type"));
        if (own != NULL && strcmp(own, type) == 0) {
            return part;
        }
    }
    return NULL;
}

static const json_t *pre_tokenizer_part(const json_t *object, const char *type) {
    return find_part(json_object_get(object, "pre_tokenizer"), "pretokenizers", type);
}

static const json_t *normalizer_part(const json_t *object, const char *type) {
    return find_part(json_object_get(object, "normalizer"), "normalizers", type);
}

static dm_status read_rules(const json_t *object, const json_t *model, const char *path, dm_tokenizer *tokenizer) {
    bool whole_words = json_is_true(json_object_get(model, "ignore_merges"));
    const json_t *pre_tokenizer = json_object_get(object, "pre_tokenizer");
    tokenizer->rules = dm_hf_rules_find(pre_tokenizer, whole_words, tokenizer->pre);
    if (tokenizer->rules != NULL) {
        return DM_OK;
    }
    char *text = json_dumps(pre_tokenizer, JSON_COMPACT | JSON_ENCODE_ANY);
    dm_status status =
        dm_fail(DM_ERR_UNSUPPORTED, "%s: words are cut by a rule that is not known: %.300s", path, text != NULL ? text : "");
    free(text);
    return status;
}

/* A space that is put before a text: by the normalizer in files of old, else by Metaspace. */
static bool reads_prefix(const json_t *object) {
    const json_t *metaspace = pre_tokenizer_part(object, "Metaspace");
    const char *scheme = json_string_value(json_object_get(metaspace, "prepend_scheme"));
    bool older = scheme == NULL && metaspace != NULL && !json_is_false(json_object_get(metaspace, "add_prefix_space"));
    return normalizer_part(object, "Prepend") != NULL || older || (scheme != NULL && strcmp(scheme, "never") != 0);
}

/* What is done to a text before it is cut. Unicode's composed form is what texts are in as a rule, and passed over, as in other
 * GGUF programs; what changes more is refused. */
static dm_status check_normalizer(const json_t *object, const char *path, const dm_tokenizer *tokenizer) {
    const json_t *normalizer = json_object_get(object, "normalizer");
    const json_t *sequence = json_object_get(normalizer, "normalizers");
    size_t n = sequence != NULL ? json_array_size(sequence) : (size_t)json_is_object(normalizer);
    for (size_t i = 0; i < n; i++) {
        const json_t *part = sequence != NULL ? json_array_get(sequence, i) : normalizer;
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *replaced = json_string_value(json_object_get(json_object_get(part, "pattern"), "String"));
        type = type != NULL ? type : "";
        bool pieces = tokenizer->kind == DM_TOKENIZER_PIECES;
        bool space = strcmp(type, "Replace") == 0 && replaced != NULL && strcmp(replaced, " ") == 0;
        if (strcmp(type, "NFC") != 0 && !(pieces && (space || strcmp(type, "Prepend") == 0))) {
            return dm_fail(DM_ERR_UNSUPPORTED, "%s: changes texts by the normalizer '%.40s', which is not supported here", path,
                           type);
        }
    }
    return DM_OK;
}

static dm_status read_kind(const json_t *object, const json_t *model, const char *path, dm_tokenizer *tokenizer) {
    const json_t *type = json_object_get(model, "type");
    if (!json_is_object(model) || (type != NULL && strcmp(json_is_string(type) ? json_string_value(type) : "", "BPE") != 0)) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: its model is of type '%.40s', expected BPE", path,
                       json_is_string(type) ? json_string_value(type) : "");
    }
    bool pieces = json_is_true(json_object_get(model, "byte_fallback")) || normalizer_part(object, "Replace") != NULL ||
                  pre_tokenizer_part(object, "Metaspace") != NULL;
    if (pre_tokenizer_part(object, "ByteLevel") != NULL || !pieces) {
        return read_rules(object, model, path, tokenizer);
    }
    tokenizer->kind = DM_TOKENIZER_PIECES;
    tokenizer->space_prefix = reads_prefix(object);
    return DM_OK;
}

int32_t dm_hf_token(const dm_tokenizer *tokenizer, const json_t *text) {
    uint32_t id = json_is_string(text) ? dm_strings_find(&tokenizer->texts, json_string_value(text), json_string_length(text))
                                       : DM_TABLE_NONE;
    return id == DM_TABLE_NONE ? -1 : (int32_t)id;
}

static void read_unknown(const json_t *model, dm_tokenizer *tokenizer) {
    tokenizer->unknown = dm_hf_token(tokenizer, json_object_get(model, "unk_token"));
    if (tokenizer->unknown >= 0 && tokenizer->kind == DM_TOKENIZER_PIECES) {
        tokenizer->types[tokenizer->unknown] = DM_TOKEN_UNKNOWN;
    }
}

/* What the template puts around a text: a token before it is the beginning, one after it the end. */
static void read_template(const json_t *object, dm_tokenizer *tokenizer) {
    const json_t *template = find_part(json_object_get(object, "post_processor"), "processors", "TemplateProcessing");
    const json_t *single = json_object_get(template, "single");
    bool before = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i);
        int32_t id = dm_hf_token(tokenizer, json_object_get(json_object_get(part, "SpecialToken"), "id"));
        before = before && json_object_get(part, "Sequence") == NULL;
        if (id >= 0 && before) {
            tokenizer->bos = id;
            tokenizer->add_bos = true;
        } else if (id >= 0) {
            tokenizer->eos = id;
            tokenizer->add_eos = true;
        }
    }
}

static dm_status parse(const json_t *object, const char *path, int32_t vocab, dm_tokenizer *tokenizer) {
    const json_t *model = json_object_get(object, "model"), *merges = json_object_get(model, "merges");
    DM_TRY(read_kind(object, model, path, tokenizer));
    DM_TRY(check_normalizer(object, path, tokenizer));
    DM_TRY(read_tokens(object, model, path, vocab, tokenizer));
    read_unknown(model, tokenizer);
    read_template(object, tokenizer);
    return tokenizer->kind == DM_TOKENIZER_PIECES ? read_scores(merges, tokenizer) : read_merges(merges, tokenizer);
}

dm_status dm_hf_tokenizer_parse(const json_t *object, const char *path, int32_t vocab, dm_tokenizer **out) {
    *out = NULL;
    dm_tokenizer *tokenizer;
    dm_status status = dm_vocabulary_create(&tokenizer);
    if (status == DM_OK) {
        status = parse(object, path, vocab, tokenizer);
    }
    if (status == DM_OK) {
        *out = tokenizer;
        return DM_OK;
    }
    dm_tokenizer_close(tokenizer);
    return strncmp(dm_error_message(), path, strlen(path)) != 0 ? dm_fail_in(status, path) : status;
}
