/* What a folder says of a vocabulary beside tokenizer.json: which tokens mean something, and how conversations are marked. */
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/utf8.h"
#include "model/hf_tokenizer.h"

enum {
    LARGEST_VOCABULARY = 1 << 29, /* bytes of tokenizer.json */
    LARGEST_SETTINGS = 1 << 24,   /* of the files beside it */
};

/* The object of a file that may be missing: *out is NULL then. */
static dm_status load(const char *folder, const char *name, size_t most, json_t **out) {
    *out = NULL;
    char *path = dm_path_join(folder, name);
    dm_status status = DM_OK;
    if (path == NULL) {
        status = dm_fail(DM_ERR_MEMORY, "%s: out of memory", folder);
    } else if (access(path, F_OK) == 0) {
        status = dm_json_load(path, most, out);
    }
    free(path);
    return status;
}

/* Objects that may say the same, the first one first. */
typedef struct settings {
    const json_t *tokenizer;  /* tokenizer_config.json */
    const json_t *map;        /* special_tokens_map.json */
    const json_t *generation; /* generation_config.json */
    const json_t *config;     /* config.json */
} settings;

/* A text, or an object with it as "content". */
static int32_t named_token(const dm_tokenizer *tokenizer, const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return dm_hf_token(tokenizer, json_is_object(value) ? json_object_get(value, "content") : value);
}

/* Number `index` of a list, or a number alone, which is its first; -1 where it is no token's. */
static int32_t numbered_token(const dm_tokenizer *tokenizer, const json_t *object, const char *key, size_t index) {
    const json_t *value = json_object_get(object, key);
    value = json_is_array(value) ? json_array_get(value, index) : index == 0 ? value : NULL;
    bool usable =
        json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) < dm_tokenizer_vocab(tokenizer);
    return usable ? (int32_t)json_integer_value(value) : -1;
}

static void read_token(const settings *from, const dm_tokenizer *tokenizer, const char *name, const char *number, int32_t *id) {
    int32_t found = named_token(tokenizer, from->tokenizer, name);
    found = found >= 0 ? found : named_token(tokenizer, from->map, name);
    found = found >= 0 || *id >= 0 ? found : numbered_token(tokenizer, from->generation, number, 0);
    found = found >= 0 || *id >= 0 ? found : numbered_token(tokenizer, from->config, number, 0);
    *id = found >= 0 ? found : *id;
}

static void read_flag(const settings *from, const char *key, int32_t id, bool *flag) {
    const json_t *value = json_object_get(from->tokenizer, key);
    *flag = (json_is_boolean(value) ? json_is_true(value) : *flag) && id >= 0;
}

static void read_special(const settings *from, dm_tokenizer *tokenizer) {
    read_token(from, tokenizer, "bos_token", "bos_token_id", &tokenizer->bos);
    read_token(from, tokenizer, "eos_token", "eos_token_id", &tokenizer->eos);
    read_token(from, tokenizer, "unk_token", "unk_token_id", &tokenizer->unknown);
    read_token(from, tokenizer, "pad_token", "pad_token_id", &tokenizer->padding);
    read_flag(from, "add_bos_token", tokenizer->bos, &tokenizer->add_bos);
    read_flag(from, "add_eos_token", tokenizer->eos, &tokenizer->add_eos);
}

/* One template, or several with names of which "default" is meant. */
static const json_t *template_in(const json_t *object) {
    const json_t *value = json_object_get(object, "chat_template");
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            return json_object_get(entry, "template");
        }
    }
    return value;
}

/* chat_template.jinja: *out is NULL where the folder has none. */
static dm_status load_template(const char *folder, char **out) {
    *out = NULL;
    char *path = dm_path_join(folder, "chat_template.jinja");
    dm_map map = {0};
    dm_status status = path != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "%s: out of memory", folder);
    if (status == DM_OK && access(path, F_OK) == 0) {
        status = dm_map_open(path, &map);
    }
    const char *text = (const char *)map.data;
    if (map.size > LARGEST_SETTINGS || (map.size > 0 && dm_utf8_valid_prefix(text, map.size) != map.size) ||
        (map.size > 0 && memchr(text, 0, map.size) != NULL)) {
        status = dm_fail(DM_ERR_FORMAT, "%s: is no template in UTF-8", path);
    } else if (status == DM_OK && map.size > 0 && (*out = strndup(text, map.size)) == NULL) {
        status = dm_fail(DM_ERR_MEMORY, "%s: out of memory", path);
    }
    dm_map_close(&map);
    free(path);
    return status;
}

static dm_status read_manners(const char *folder, const settings *from, dm_tokenizer *tokenizer) {
    DM_TRY(load_template(folder, &tokenizer->chat_template));
    const json_t *text = template_in(from->tokenizer);
    if (tokenizer->chat_template == NULL && json_is_string(text)) {
        tokenizer->chat_template = strdup(json_string_value(text));
        return tokenizer->chat_template != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "%s: out of memory", folder);
    }
    return DM_OK;
}

/* Generation may stop at several tokens. Those that no text tells are kept as the end of a turn: one, as GGUF has it. */
static dm_status read_ends(const settings *from, dm_tokenizer *tokenizer) {
    DM_TRY(dm_special_find_ends(tokenizer));
    size_t n = json_array_size(json_object_get(from->generation, "eos_token_id"));
    for (size_t i = 0; i < n && tokenizer->eot < 0; i++) {
        int32_t id = numbered_token(tokenizer, from->generation, "eos_token_id", i);
        tokenizer->eot = id >= 0 && !dm_tokenizer_is_end(tokenizer, id) ? id : -1;
    }
    return tokenizer->eot >= 0 ? dm_special_find_ends(tokenizer) : DM_OK;
}

static dm_status read_settings(const char *folder, const settings *from, dm_tokenizer *tokenizer) {
    read_special(from, tokenizer);
    DM_TRY(read_manners(folder, from, tokenizer));
    DM_TRY(read_ends(from, tokenizer));
    return dm_vocabulary_finish(tokenizer);
}

static dm_status read_beside(const char *folder, const json_t *config, dm_tokenizer *tokenizer) {
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json", "generation_config.json"};
    json_t *objects[] = {NULL, NULL, NULL};
    dm_status status = DM_OK;
    for (size_t i = 0; i < 3 && status == DM_OK; i++) {
        status = load(folder, names[i], LARGEST_SETTINGS, &objects[i]);
    }
    if (status == DM_OK) {
        const settings from = {objects[0], objects[1], objects[2], config};
        status = read_settings(folder, &from, tokenizer);
    }
    for (size_t i = 0; i < 3; i++) {
        json_decref(objects[i]);
    }
    return status;
}

/* A folder may have no vocabulary at all; one in a form that is not read here is refused. */
static dm_status check_none(const char *folder) {
    static const char *const others[] = {"tokenizer.model", "vocab.json", "tekken.json", "vocab.txt"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = dm_path_join(folder, others[i]);
        bool there = path != NULL && access(path, F_OK) == 0;
        free(path);
        if (there) {
            return dm_fail(DM_ERR_UNSUPPORTED,
                           "%s: has %s but no tokenizer.json; AutoTokenizer.from_pretrained(..).save_pretrained(..) writes one",
                           folder, others[i]);
        }
    }
    dm_log("%s: has no tokenizer.json; the model gets no vocabulary", folder);
    return DM_OK;
}

dm_status dm_hf_tokenizer_read(const char *folder, const json_t *config, int32_t vocab, dm_tokenizer **out) {
    *out = NULL;
    json_t *object;
    DM_TRY(load(folder, "tokenizer.json", LARGEST_VOCABULARY, &object));
    if (object == NULL) {
        return check_none(folder);
    }
    char *path = dm_path_join(folder, "tokenizer.json");
    dm_status status =
        path != NULL ? dm_hf_tokenizer_parse(object, path, vocab, out) : dm_fail(DM_ERR_MEMORY, "%s: out of memory", folder);
    json_decref(object);
    if (status == DM_OK) {
        status = read_beside(folder, config, *out);
    }
    if (status != DM_OK) {
        dm_tokenizer_close(*out);
        *out = NULL;
    }
    free(path);
    return status;
}
