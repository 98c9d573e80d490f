/* What a request's answers go on from: texts, ids, conversations. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/request_parts.h"

/* ---- Texts and ids ---- */

static bool is_ids(const json_t *value) {
    return json_is_array(value) && json_array_size(value) > 0 && json_is_integer(json_array_get(value, 0));
}

static dm_status read_ids(const json_t *value, int32_t vocab, dm_prompt *prompt) {
    prompt->n = json_array_size(value);
    prompt->ids = malloc(prompt->n * sizeof *prompt->ids);
    if (prompt->ids == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a prompt of %zu tokens", prompt->n);
    }
    for (size_t i = 0; i < prompt->n; i++) {
        const json_t *id = json_array_get(value, i);
        json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
        if (number < 0 || number >= vocab) {
            return dm_fail(DM_ERR_ARGUMENT, "token number %zu of the prompt is no id of 0 to %d", i + 1, vocab - 1);
        }
        prompt->ids[i] = (int32_t)number;
    }
    return DM_OK;
}

/* An empty text starts at the token that begins a document. */
static dm_status start_of_text(const dm_tokenizer *tokenizer, dm_prompt *prompt) {
    int32_t bos = dm_tokenizer_bos(tokenizer), start = bos >= 0 ? bos : dm_tokenizer_eos(tokenizer);
    free(prompt->ids);
    prompt->ids = malloc(sizeof *prompt->ids);
    if (prompt->ids == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a prompt");
    }
    prompt->ids[0] = start;
    prompt->n = start >= 0 ? 1 : 0;
    return DM_OK;
}

static dm_status read_prompt(const json_t *value, const dm_request_rules *rules, dm_request *request) {
    dm_prompt *prompt = &request->prompts[request->n_prompts++];
    if (is_ids(value)) {
        return read_ids(value, rules->vocab, prompt);
    }
    if (!json_is_string(value)) {
        return dm_fail(DM_ERR_ARGUMENT, "prompt number %zu is neither a text nor a list of token ids", request->n_prompts);
    }
    DM_TRY(dm_tokenizer_encode(rules->tokenizer, json_string_value(value), json_string_length(value),
                               DM_ENCODE_BOS | DM_ENCODE_SPECIAL, &prompt->ids, &prompt->n));
    return prompt->n > 0 ? DM_OK : start_of_text(rules->tokenizer, prompt);
}

static dm_status make_prompts(dm_request *request, size_t n) {
    if (n > DM_REQUEST_CHOICES) {
        return dm_fail(DM_ERR_ARGUMENT, "there are %zu prompts, expected at most %d", n, DM_REQUEST_CHOICES);
    }
    request->prompts = calloc(n, sizeof *request->prompts);
    return request->prompts != NULL ? DM_OK : dm_fail(DM_ERR_MEMORY, "out of memory for prompts");
}

dm_status dm_request_read_texts(dm_request_reader *from, const dm_request_rules *rules, const char *key, dm_request *request) {
    const json_t *value = dm_request_get(from, key);
    bool many = json_is_array(value) && !is_ids(value);
    size_t n = many ? json_array_size(value) : 1;
    if (value == NULL || n == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "'%s' is missing or empty", key);
    }
    DM_TRY(make_prompts(request, n));
    for (size_t i = 0; i < n; i++) {
        DM_TRY(read_prompt(many ? json_array_get(value, i) : value, rules, request));
    }
    return DM_OK;
}

/* ---- Conversations ---- */

typedef struct talk {
    dm_chat_message *messages;
    char **joined; /* contents that came in parts */
    dm_chat_extra *extras;
    size_t n;
} talk;

static dm_status copy_text(const json_t *text, size_t number, FILE *out) {
    if (!json_is_string(text) || strlen(json_string_value(text)) != json_string_length(text)) {
        return dm_fail(DM_ERR_ARGUMENT, "message number %zu has a content that is no text without NUL", number);
    }
    fputs(json_string_value(text), out);
    return DM_OK;
}

static dm_status copy_parts(const json_t *parts, size_t number, FILE *out) {
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *type = json_object_get(part, "type");
        if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0) {
            return dm_fail(DM_ERR_UNSUPPORTED, "message number %zu has a part that is no text", number);
        }
        DM_TRY(copy_text(json_object_get(part, "text"), number, out));
    }
    return DM_OK;
}

static dm_status read_content(const json_t *content, size_t number, char **text) {
    size_t length;
    FILE *out = open_memstream(text, &length);
    if (out == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory for a message");
    }
    dm_status status = json_is_array(content)                     ? copy_parts(content, number, out)
                       : content == NULL || json_is_null(content) ? DM_OK
                                                                  : copy_text(content, number, out);
    return fclose(out) == 0 ? status : dm_fail(DM_ERR_MEMORY, "out of memory for a message");
}

static dm_status read_message(const json_t *message, size_t i, talk *out) {
    const json_t *role = json_object_get(message, "role");
    if (!json_is_string(role)) {
        return dm_fail(DM_ERR_ARGUMENT, "message number %zu has no role", i + 1);
    }
    bool developer = strcmp(json_string_value(role), "developer") == 0;
    out->messages[i].role = developer ? "system" : json_string_value(role);
    out->n = i + 1;
    DM_TRY(dm_request_read_extra(message, out->messages[i].role, i + 1, &out->extras[i]));
    DM_TRY(read_content(json_object_get(message, "content"), i + 1, &out->joined[i]));
    out->messages[i].content = out->joined[i];
    return DM_OK;
}

static dm_status encode_talk(const json_t *list, const dm_request_rules *rules, talk *all, dm_chat_functions *functions,
                             dm_prompt *prompt) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        DM_TRY(read_message(json_array_get(list, i), i, all));
    }
    functions->extras = all->extras;
    return dm_chat_encode_functions(rules->tokenizer, rules->family, all->messages, all->n, functions, &prompt->ids, &prompt->n);
}

dm_status dm_request_read_messages(dm_request_reader *from, const dm_request_rules *rules, dm_chat_functions *functions,
                                   dm_request *request) {
    const json_t *list = dm_request_get(from, "messages");
    size_t n = json_array_size(list);
    if (n == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "'messages' is missing, empty or no list");
    }
    DM_TRY(make_prompts(request, 1));
    request->n_prompts = 1;
    talk all = {calloc(n, sizeof *all.messages), calloc(n, sizeof(char *)), calloc(n, sizeof *all.extras), 0};
    dm_status status = all.messages != NULL && all.joined != NULL && all.extras != NULL
                           ? encode_talk(list, rules, &all, functions, &request->prompts[0])
                           : dm_fail(DM_ERR_MEMORY, "out of memory for %zu messages", n);
    for (size_t i = 0; i < all.n; i++) {
        free(all.joined[i]);
        dm_request_free_extra(&all.extras[i]);
    }
    free(all.messages);
    free(all.extras);
    free(all.joined);
    return status;
}
