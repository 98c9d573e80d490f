/* The vocabulary as GGUF keys tokenizer.ggml.*, in the meaning that llama.cpp gives them. */
#include <inttypes.h>
#include <stdlib.h>

#include "model/vocabulary.h"

static bool is(dm_gguf_string string, const char *text) {
    return string.length == strlen(text) && memcmp(string.bytes, text, string.length) == 0;
}

/* Length of a string from a file as printf's precision. */
static int shown(dm_gguf_string string) {
    return string.length < 64 ? (int)string.length : 64;
}

static dm_status refuse_rules(const char *path, dm_gguf_string pre) {
    char known[1024];
    dm_pretokenizer_list(known, sizeof known);
    return dm_fail(DM_ERR_UNSUPPORTED, "%s: its tokenizer cuts words by the rules '%.*s'; known are %s", path, shown(pre),
                   pre.bytes, known);
}

/* How words are cut: as the file says, or as files of its architecture mean that say nothing. */
static dm_status read_rules(const dm_gguf *file, dm_tokenizer *tokenizer) {
    const char *path = dm_gguf_path(file);
    dm_gguf_string name;
    if (dm_gguf_has(file, "tokenizer.ggml.pre")) {
        DM_TRY(dm_gguf_get_string(file, "tokenizer.ggml.pre", &name));
        tokenizer->rules = dm_pretokenizer_find(name.bytes, name.length);
        if (tokenizer->rules == NULL || name.length >= sizeof tokenizer->pre) {
            return refuse_rules(path, name);
        }
    } else {
        dm_gguf_string architecture = {"", 0};
        if (dm_gguf_has(file, "general.architecture")) {
            DM_TRY(dm_gguf_get_string(file, "general.architecture", &architecture));
        }
        tokenizer->rules = dm_pretokenizer_guess(architecture.bytes, architecture.length);
        size_t length;
        name.bytes = dm_pretokenizer_name(tokenizer->rules, &length);
        name.length = length;
        dm_log("%s: tokenizer.ggml.pre is missing; words are cut by the rules '%.*s'", path, shown(name), name.bytes);
    }
    memcpy(tokenizer->pre, name.bytes, name.length);
    tokenizer->pre[name.length] = '\0';
    tokenizer->add_bos = tokenizer->rules->add_bos;
    return DM_OK;
}

static dm_status read_kind(const dm_gguf *file, dm_tokenizer *tokenizer) {
    dm_gguf_string model;
    DM_TRY(dm_gguf_get_string(file, "tokenizer.ggml.model", &model));
    if (is(model, "gpt2")) {
        return read_rules(file, tokenizer);
    }
    if (!is(model, "llama")) {
        return dm_fail(DM_ERR_UNSUPPORTED,
                       "%s: its tokenizer is of kind '%.*s'; known are 'gpt2' (byte-level BPE) and 'llama' (SentencePiece BPE)",
                       dm_gguf_path(file), shown(model), model.bytes);
    }
    tokenizer->kind = DM_TOKENIZER_PIECES;
    tokenizer->add_bos = true;
    return dm_gguf_get_bool_or(file, "tokenizer.ggml.add_space_prefix", true, &tokenizer->space_prefix);
}

/* Types of all tokens; NULL where the file gives none. `unsigned` integers appear in files as well as the usual signed ones. */
static dm_status get_types(const dm_gguf *file, uint64_t vocab, const uint8_t **types) {
    const char *key = "tokenizer.ggml.token_type";
    *types = NULL;
    if (!dm_gguf_has(file, key)) {
        return DM_OK;
    }
    const void *data;
    uint64_t count;
    dm_status status = dm_gguf_get_array(file, key, DM_GGUF_I32, &data, &count);
    if (status != DM_OK) {
        DM_TRY(dm_gguf_get_array(file, key, DM_GGUF_U32, &data, &count));
    }
    if (count != vocab) {
        return dm_fail(DM_ERR_FORMAT, "%s has %" PRIu64 " entries for %" PRIu64 " tokens", key, count, vocab);
    }
    *types = data;
    return DM_OK;
}

static dm_status read_tokens(const dm_gguf *file, const dm_gguf_string *tokens, uint64_t count, dm_tokenizer *tokenizer) {
    const uint8_t *types;
    DM_TRY(get_types(file, count, &types));
    for (uint64_t i = 0; i < count; i++) {
        uint32_t type = DM_TOKEN_NORMAL;
        if (types != NULL) {
            memcpy(&type, types + 4 * i, sizeof type);
        } else if (is(tokens[i], DM_END_OF_TEXT)) {
            type = DM_TOKEN_CONTROL;
        }
        if (type < DM_TOKEN_NORMAL || type > DM_TOKEN_BYTE) {
            type = DM_TOKEN_NORMAL; /* 0 is "undefined" */
        }
        DM_TRY(dm_vocabulary_add(tokenizer, tokens[i].bytes, tokens[i].length, (dm_token_type)type));
    }
    return DM_OK;
}

static dm_status read_scores(const dm_gguf *file, uint64_t vocab, dm_tokenizer *tokenizer) {
    const char *key = "tokenizer.ggml.scores";
    const void *data;
    uint64_t count;
    DM_TRY(dm_gguf_get_array(file, key, DM_GGUF_F32, &data, &count));
    if (count != vocab) {
        return dm_fail(DM_ERR_FORMAT, "%s has %" PRIu64 " entries for %" PRIu64 " tokens", key, count, vocab);
    }
    tokenizer->scores = calloc(vocab + 1, sizeof *tokenizer->scores);
    if (tokenizer->scores == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for the scores of %" PRIu64 " tokens", vocab);
    }
    memcpy(tokenizer->scores, data, vocab * sizeof *tokenizer->scores);
    return DM_OK;
}

static dm_status read_merges(const dm_gguf_string *merges, uint64_t count, dm_tokenizer *tokenizer) {
    for (uint64_t i = 0; i < count; i++) {
        int32_t parts[2];
        DM_TRY(dm_vocabulary_line(tokenizer, i, merges[i].bytes, merges[i].length, parts));
        int32_t result;
        dm_status status = dm_vocabulary_merge(tokenizer, parts[0], parts[1], false, &result);
        if (status != DM_OK) {
            return dm_fail(status, "merge %" PRIu64 ": %s", i, dm_error_message());
        }
    }
    return DM_OK;
}

/* A special token's id, if the file names one; one outside the vocabulary counts as none, as elsewhere. */
static dm_status read_id(const dm_gguf *file, const char *key, const dm_tokenizer *tokenizer, int32_t *id) {
    uint32_t value;
    if (!dm_gguf_has(file, key)) {
        return DM_OK;
    }
    *id = -1;
    DM_TRY(dm_gguf_get_u32(file, key, &value));
    if (value < tokenizer->texts.count) {
        *id = (int32_t)value;
    } else {
        dm_log("%s: %s is %u, outside the vocabulary of %u; ignored", dm_gguf_path(file), key, value, tokenizer->texts.count);
    }
    return DM_OK;
}

/* A flag that asks for a token at one end of a text; without the token it asks for nothing. */
static dm_status read_flag(const dm_gguf *file, const char *key, int32_t id, bool *flag) {
    DM_TRY(dm_gguf_get_bool_or(file, key, *flag, flag));
    if (*flag && id < 0) {
        dm_log("%s: %s has no token to add; ignored", dm_gguf_path(file), key);
        *flag = false;
    }
    return DM_OK;
}

static dm_status read_special(const dm_gguf *file, dm_tokenizer *tokenizer) {
    if (tokenizer->kind == DM_TOKENIZER_PIECES && tokenizer->texts.count > 2) { /* SentencePiece's own, where nothing is said */
        tokenizer->unknown = 0;
        tokenizer->bos = 1;
        tokenizer->eos = 2;
    }
    DM_TRY(read_id(file, "tokenizer.ggml.bos_token_id", tokenizer, &tokenizer->bos));
    DM_TRY(read_id(file, "tokenizer.ggml.eos_token_id", tokenizer, &tokenizer->eos));
    DM_TRY(read_id(file, "tokenizer.ggml.eot_token_id", tokenizer, &tokenizer->eot));
    DM_TRY(read_id(file, "tokenizer.ggml.eom_token_id", tokenizer, &tokenizer->eom));
    DM_TRY(read_id(file, "tokenizer.ggml.unknown_token_id", tokenizer, &tokenizer->unknown));
    DM_TRY(read_id(file, "tokenizer.ggml.padding_token_id", tokenizer, &tokenizer->padding));
    if (tokenizer->eos < 0) {
        uint32_t id = dm_strings_find(&tokenizer->texts, DM_END_OF_TEXT, strlen(DM_END_OF_TEXT));
        tokenizer->eos = id == DM_TABLE_NONE ? -1 : (int32_t)id;
    }
    DM_TRY(dm_special_find_ends(tokenizer));
    DM_TRY(read_flag(file, "tokenizer.ggml.add_bos_token", tokenizer->bos, &tokenizer->add_bos));
    return read_flag(file, "tokenizer.ggml.add_eos_token", tokenizer->eos, &tokenizer->add_eos);
}

/* The template of conversations. A file says nothing of Phi-3's habit but by its name. */
static dm_status read_manners(const dm_gguf *file, dm_tokenizer *tokenizer) {
    dm_gguf_string text;
    if (dm_gguf_has(file, "tokenizer.chat_template")) {
        DM_TRY(dm_gguf_get_string(file, "tokenizer.chat_template", &text));
        tokenizer->chat_template = strndup(text.bytes, text.length);
        if (tokenizer->chat_template == NULL) {
            return dm_fail(DM_ERR_MEMORY, "out of memory for the chat template");
        }
    }
    if (dm_gguf_has(file, "general.name")) {
        char name[128];
        DM_TRY(dm_gguf_get_string(file, "general.name", &text));
        dm_gguf_clean_text(text, name, sizeof name);
        tokenizer->strips_right = strcasestr(name, "phi-3") != NULL || strcasestr(name, "phi3") != NULL;
    }
    return DM_OK;
}

static dm_status read_tokenizer(const dm_gguf *file, dm_tokenizer *tokenizer) {
    DM_TRY(read_kind(file, tokenizer));
    dm_gguf_string *strings;
    uint64_t count, n_merges;
    DM_TRY(dm_gguf_get_strings(file, "tokenizer.ggml.tokens", &strings, &count));
    dm_status status = read_tokens(file, strings, count, tokenizer);
    free(strings);
    DM_TRY(status);
    DM_TRY(read_special(file, tokenizer));
    DM_TRY(read_manners(file, tokenizer));
    if (tokenizer->kind == DM_TOKENIZER_PIECES) {
        DM_TRY(read_scores(file, count, tokenizer));
        return dm_vocabulary_finish(tokenizer);
    }
    DM_TRY(dm_gguf_get_strings(file, "tokenizer.ggml.merges", &strings, &n_merges));
    status = read_merges(strings, n_merges, tokenizer);
    free(strings);
    DM_TRY(status);
    return dm_vocabulary_finish(tokenizer);
}

dm_status dm_tokenizer_read(const dm_gguf *file, dm_tokenizer **out) {
    *out = NULL;
    dm_tokenizer *tokenizer;
    dm_status status = dm_vocabulary_create(&tokenizer);
    if (status == DM_OK) {
        status = read_tokenizer(file, tokenizer);
    }
    if (status == DM_OK) {
        *out = tokenizer;
        return DM_OK;
    }
    dm_tokenizer_close(tokenizer);
    const char *path = dm_gguf_path(file);
    return strncmp(dm_error_message(), path, strlen(path)) != 0 ? dm_fail_in(status, path) : status;
}

/* ---- Writing ---- */

static void write_merges(const dm_tokenizer *tokenizer, dm_gguf_writer *writer) {
    size_t total = 0, a, b;
    for (size_t i = 0; i < tokenizer->n_merges; i++) {
        dm_strings_at(&tokenizer->texts, (uint32_t)tokenizer->merges[i].result, &a);
        total += a + 1;
    }
    char *text = malloc(total + 1), *at = text;
    dm_gguf_string *lines = calloc(tokenizer->n_merges + 1, sizeof *lines);
    for (size_t i = 0; text != NULL && lines != NULL && i < tokenizer->n_merges; i++) {
        const char *left = dm_strings_at(&tokenizer->texts, (uint32_t)tokenizer->merges[i].left, &a);
        const char *right = dm_strings_at(&tokenizer->texts, (uint32_t)tokenizer->merges[i].right, &b);
        memcpy(at, left, a);
        at[a] = ' ';
        memcpy(at + a + 1, right, b);
        lines[i] = (dm_gguf_string){at, a + 1 + b};
        at += a + 1 + b;
    }
    /* With nothing to write from, the writer is handed a NULL that it reports when it finishes. */
    dm_gguf_add_strings(writer, "tokenizer.ggml.merges", text != NULL ? lines : NULL, tokenizer->n_merges);
    free(text);
    free(lines);
}

static void write_tokens(const dm_tokenizer *tokenizer, dm_gguf_writer *writer) {
    uint32_t vocab = tokenizer->texts.count;
    dm_gguf_string *tokens = calloc((size_t)vocab + 1, sizeof *tokens);
    int32_t *types = calloc((size_t)vocab + 1, sizeof *types);
    for (uint32_t id = 0; tokens != NULL && types != NULL && id < vocab; id++) {
        size_t length;
        tokens[id].bytes = dm_strings_at(&tokenizer->texts, id, &length);
        tokens[id].length = length;
        types[id] = tokenizer->types[id];
    }
    dm_gguf_add_strings(writer, "tokenizer.ggml.tokens", types != NULL ? tokens : NULL, vocab);
    dm_gguf_add_array(writer, "tokenizer.ggml.token_type", DM_GGUF_I32, types, vocab);
    free(tokens);
    free(types);
}

static void write_id(dm_gguf_writer *writer, const char *key, int32_t id) {
    if (id >= 0) {
        dm_gguf_add_u32(writer, key, (uint32_t)id);
    }
}

void dm_tokenizer_write(const dm_tokenizer *tokenizer, dm_gguf_writer *writer) {
    bool bpe = tokenizer->kind == DM_TOKENIZER_BPE;
    dm_gguf_add_string(writer, "tokenizer.ggml.model", bpe ? "gpt2" : "llama");
    dm_gguf_add_string(writer, "tokenizer.ggml.pre", bpe ? tokenizer->pre : "default");
    write_tokens(tokenizer, writer);
    if (bpe) {
        write_merges(tokenizer, writer);
    } else {
        dm_gguf_add_array(writer, "tokenizer.ggml.scores", DM_GGUF_F32, tokenizer->scores, tokenizer->texts.count);
        dm_gguf_add_bool(writer, "tokenizer.ggml.add_space_prefix", tokenizer->space_prefix);
    }
    write_id(writer, "tokenizer.ggml.bos_token_id", tokenizer->bos);
    write_id(writer, "tokenizer.ggml.eos_token_id", tokenizer->eos);
    write_id(writer, "tokenizer.ggml.eot_token_id", tokenizer->eot);
    write_id(writer, "tokenizer.ggml.eom_token_id", tokenizer->eom);
    write_id(writer, "tokenizer.ggml.unknown_token_id", tokenizer->unknown);
    write_id(writer, "tokenizer.ggml.padding_token_id", tokenizer->padding);
    dm_gguf_add_bool(writer, "tokenizer.ggml.add_bos_token", tokenizer->add_bos);
    if (tokenizer->add_eos) {
        dm_gguf_add_bool(writer, "tokenizer.ggml.add_eos_token", true);
    }
    if (tokenizer->chat_template != NULL) {
        dm_gguf_add_string(writer, "tokenizer.chat_template", tokenizer->chat_template);
    }
}
