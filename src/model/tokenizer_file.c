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

static dm_status check_kind(const dm_gguf *file) {
    const char *path = dm_gguf_path(file);
    dm_gguf_string model, pre;
    DM_TRY(dm_gguf_get_string(file, "tokenizer.ggml.model", &model));
    if (!is(model, "gpt2")) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: its tokenizer is of kind '%.*s'; this version reads 'gpt2' (byte-level BPE)",
                       path, shown(model), model.bytes);
    }
    bool named = dm_gguf_has(file, "tokenizer.ggml.pre");
    if (named) {
        DM_TRY(dm_gguf_get_string(file, "tokenizer.ggml.pre", &pre));
        if (is(pre, "gpt-2")) {
            return DM_OK;
        }
        if (!is(pre, "default")) {
            return dm_fail(DM_ERR_UNSUPPORTED,
                           "%s: its tokenizer splits words by the rules of '%.*s'; this version knows 'gpt-2'", path, shown(pre),
                           pre.bytes);
        }
    }
    dm_log("%s: tokenizer.ggml.pre is %s; GPT-2's splitting rules are used", path, named ? "'default'" : "missing");
    return DM_OK;
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

static dm_status read_merges(const dm_gguf_string *merges, uint64_t count, dm_tokenizer *tokenizer) {
    for (uint64_t i = 0; i < count; i++) {
        const char *text = merges[i].bytes;
        size_t length = merges[i].length;
        const char *space = length > 2 ? memchr(text + 1, ' ', length - 1) : NULL; /* the left part has at least one byte */
        if (space == NULL) {
            return dm_fail(DM_ERR_FORMAT, "merge %" PRIu64 " '%.*s' is not two tokens with a space between", i, shown(merges[i]),
                           text);
        }
        size_t a = (size_t)(space - text), b = length - a - 1;
        uint32_t left = dm_strings_find(&tokenizer->texts, text, a);
        uint32_t right = dm_strings_find(&tokenizer->texts, space + 1, b);
        if (left == DM_TABLE_NONE || right == DM_TABLE_NONE) {
            return dm_fail(DM_ERR_FORMAT, "merge %" PRIu64 " '%.*s' names a %s that is not in the vocabulary", i,
                           shown(merges[i]), text, left == DM_TABLE_NONE ? "left part" : "right part");
        }
        int32_t result;
        dm_status status = dm_vocabulary_merge(tokenizer, (int32_t)left, (int32_t)right, false, &result);
        if (status != DM_OK) {
            return dm_fail(status, "merge %" PRIu64 ": %s", i, dm_error_message());
        }
    }
    return DM_OK;
}

/* A special token's id; one outside the vocabulary counts as none, as elsewhere. */
static dm_status read_id(const dm_gguf *file, const char *key, const dm_tokenizer *tokenizer, int32_t *id) {
    uint32_t value;
    *id = -1;
    if (!dm_gguf_has(file, key)) {
        return DM_OK;
    }
    DM_TRY(dm_gguf_get_u32(file, key, &value));
    if (value < tokenizer->texts.count) {
        *id = (int32_t)value;
    } else {
        dm_log("%s: %s is %u, outside the vocabulary of %u; ignored", dm_gguf_path(file), key, value, tokenizer->texts.count);
    }
    return DM_OK;
}

static dm_status read_special(const dm_gguf *file, dm_tokenizer *tokenizer) {
    DM_TRY(read_id(file, "tokenizer.ggml.bos_token_id", tokenizer, &tokenizer->bos));
    DM_TRY(read_id(file, "tokenizer.ggml.eos_token_id", tokenizer, &tokenizer->eos));
    if (tokenizer->eos < 0) {
        uint32_t id = dm_strings_find(&tokenizer->texts, DM_END_OF_TEXT, strlen(DM_END_OF_TEXT));
        tokenizer->eos = id == DM_TABLE_NONE ? -1 : (int32_t)id;
    }
    return dm_gguf_get_bool_or(file, "tokenizer.ggml.add_bos_token", false, &tokenizer->add_bos);
}

/* With tokens and merges at hand. */
static dm_status assemble(const dm_gguf *file, const dm_gguf_string *tokens, uint64_t n_tokens, const dm_gguf_string *merges,
                          uint64_t n_merges, dm_tokenizer *tokenizer) {
    DM_TRY(read_tokens(file, tokens, n_tokens, tokenizer));
    DM_TRY(read_merges(merges, n_merges, tokenizer));
    DM_TRY(read_special(file, tokenizer));
    return dm_vocabulary_finish(tokenizer);
}

dm_status dm_tokenizer_read(const dm_gguf *file, dm_tokenizer **out) {
    *out = NULL;
    DM_TRY(check_kind(file));
    dm_gguf_string *tokens = NULL, *merges = NULL;
    uint64_t n_tokens, n_merges;
    dm_tokenizer *tokenizer = NULL;
    dm_status status = dm_gguf_get_strings(file, "tokenizer.ggml.tokens", &tokens, &n_tokens);
    if (status == DM_OK) {
        status = dm_gguf_get_strings(file, "tokenizer.ggml.merges", &merges, &n_merges);
    }
    if (status == DM_OK) {
        status = dm_vocabulary_create(&tokenizer);
    }
    if (status == DM_OK) {
        status = assemble(file, tokens, n_tokens, merges, n_merges, tokenizer);
        if (status != DM_OK) {
            dm_tokenizer_close(tokenizer);
            tokenizer = NULL;
            const char *path = dm_gguf_path(file);
            if (strncmp(dm_error_message(), path, strlen(path)) != 0) {
                dm_fail_in(status, path);
            }
        }
    }
    free(tokens);
    free(merges);
    *out = tokenizer;
    return status;
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

void dm_tokenizer_write(const dm_tokenizer *tokenizer, dm_gguf_writer *writer) {
    dm_gguf_add_string(writer, "tokenizer.ggml.model", "gpt2");
    dm_gguf_add_string(writer, "tokenizer.ggml.pre", "gpt-2");
    write_tokens(tokenizer, writer);
    write_merges(tokenizer, writer);
    if (tokenizer->bos >= 0) {
        dm_gguf_add_u32(writer, "tokenizer.ggml.bos_token_id", (uint32_t)tokenizer->bos);
    }
    if (tokenizer->eos >= 0) {
        dm_gguf_add_u32(writer, "tokenizer.ggml.eos_token_id", (uint32_t)tokenizer->eos);
    }
    dm_gguf_add_bool(writer, "tokenizer.ggml.add_bos_token", tokenizer->add_bos);
}
