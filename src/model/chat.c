#include "model/chat.h"

#include <ctype.h>
#include <stdlib.h>

#include "model/vocabulary.h"

/* In marks: the vocabulary's own tokens that end and begin a text. */
#define EOS "\1"
#define BOS "\2"

/* What stands around a message. */
typedef struct turn {
    const char *before, *after;
} turn;

typedef struct family {
    const char *name;
    turn system, user, assistant;
    const char *again;  /* instead of user.before from the second user's turn on; NULL: the same */
    const char *answer; /* invites the assistant */
    bool trims;         /* white space around a message goes */
    bool inside;        /* a system message is the beginning of the user's next turn */
} family;

/* From the models' own published templates. */
static const family families[] = {
    {.name = "chatml",
     .system = {"<|im_start|>system\n", "<|im_end|>\n"},
     .user = {"<|im_start|>user\n", "<|im_end|>\n"},
     .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
     .answer = "<|im_start|>assistant\n"},
    {.name = "llama2",
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .again = BOS "[INST] ",
     .assistant = {" ", " " EOS},
     .answer = "",
     .trims = true,
     .inside = true},
    {.name = "llama3",
     .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .trims = true},
    {.name = "mistral-v1",
     .system = {"", "\n\n"},
     .user = {" [INST] ", " [/INST]"},
     .assistant = {" ", EOS},
     .answer = "",
     .inside = true},
    {.name = "mistral-v3",
     .system = {"", "\n\n"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", EOS},
     .answer = "",
     .inside = true},
    {.name = "mistral-v3-tekken",
     .system = {"", "\n\n"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", EOS},
     .answer = "",
     .inside = true},
    {.name = "mistral-v7",
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", EOS},
     .answer = ""},
    {.name = "mistral-v7-tekken",
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", EOS},
     .answer = ""},
    {.name = "zephyr",
     .system = {"<|system|>\n", EOS "\n"},
     .user = {"<|user|>\n", EOS "\n"},
     .assistant = {"<|assistant|>\n", EOS "\n"},
     .answer = "<|assistant|>\n"},
    {.name = "gemma",
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .answer = "<start_of_turn>model\n",
     .trims = true,
     .inside = true},
    {.name = "phi3",
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>\n"},
     .answer = "<|assistant|>\n"},
    {.name = "phi4",
     .system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
     .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     .assistant = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
     .answer = "<|im_start|>assistant<|im_sep|>"},
    {.name = "deepseek-coder",
     .system = {"", ""},
     .user = {"### Instruction:\n", "\n"},
     .assistant = {"### Response:\n", "\n<|EOT|>\n"},
     .answer = "### Response:\n"},
    {.name = "deepseek2",
     .system = {"", "\n\n"},
     .user = {"User: ", "\n\n"},
     .assistant = {"Assistant: ", EOS},
     .answer = "Assistant:"},
    {.name = "deepseek3",
     .system = {"", ""},
     .user = {"<｜User｜>", ""},
     .assistant = {"<｜Assistant｜>", EOS},
     .answer = "<｜Assistant｜>"},
    {.name = "plain", .system = {"", "\n"}, .user = {"", ""}, .assistant = {"", "\n"}, .answer = ""},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* The marks of a family's templates, tried in order: all of `has`, none of `lacks`. */
static const struct {
    const char *name, *has[3], *lacks[2];
} marks[] = {
    {"phi4", {"<|im_start|>", "<|im_sep|>"}, {NULL}},
    {"chatml", {"<|im_start|>", "<|im_end|>"}, {NULL}},
    {"llama3", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}, {NULL}},
    {"gemma", {"<start_of_turn>", "<end_of_turn>"}, {NULL}},
    {"llama2", {"[INST]", "<<SYS>>"}, {NULL}},
    {"mistral-v7", {"[INST]", "[SYSTEM_PROMPT] "}, {NULL}},
    {"mistral-v7-tekken", {"[INST]", "[SYSTEM_PROMPT]"}, {NULL}},
    {"mistral-v3-tekken", {"\"[INST]\"", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"mistral-v3-tekken", {"'[INST]'", "[AVAILABLE_TOOLS]"}, {NULL}},
    {"mistral-v3", {"[INST]", "[AVAILABLE_TOOLS]"}, {" [INST]"}},
    {"mistral-v1", {"[INST]", "[/INST]"}, {NULL}},
    {"phi3", {"<|assistant|>", "<|end|>"}, {NULL}},
    {"zephyr", {"<|user|>", "<|assistant|>", "+ eos_token"}, {"content'] + '\\n'", "content'] + '\n'"}},
    {"zephyr", {"<|user|>", "<|assistant|>", "<|endoftext|>"}, {"[gMASK]"}},
    {"deepseek-coder", {"### Instruction:", "### Response:", "<|EOT|>"}, {NULL}},
    {"deepseek3", {"<｜User｜>", "<｜Assistant｜>"}, {NULL}},
    {"deepseek2", {"'User: '", "'Assistant: '", "eos_token"}, {NULL}},
};

const char *dm_chat_family(size_t index) {
    return index < N_FAMILIES ? families[index].name : NULL;
}

/* ---- Recognising ---- */

const char *dm_chat_recognise(const char *chat_template) {
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        bool fits = true;
        for (size_t k = 0; k < 3 && marks[i].has[k] != NULL; k++) {
            fits = fits && strstr(chat_template, marks[i].has[k]) != NULL;
        }
        for (size_t k = 0; k < 2 && marks[i].lacks[k] != NULL; k++) {
            fits = fits && strstr(chat_template, marks[i].lacks[k]) == NULL;
        }
        if (fits) {
            return marks[i].name;
        }
    }
    return NULL;
}

const char *dm_tokenizer_chat_family(const dm_tokenizer *tokenizer) {
    return tokenizer->chat_template != NULL ? dm_chat_recognise(tokenizer->chat_template) : NULL;
}

bool dm_tokenizer_has_chat_template(const dm_tokenizer *tokenizer) {
    return tokenizer->chat_template != NULL;
}

static void list_families(char *text, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < N_FAMILIES && used < size; i++) {
        int wrote = snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", families[i].name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static dm_status find_family(const dm_tokenizer *tokenizer, const char *name, const family **out) {
    const char *wanted = name != NULL ? name : dm_tokenizer_chat_family(tokenizer);
    for (size_t i = 0; wanted != NULL && i < N_FAMILIES; i++) {
        if (strcmp(families[i].name, wanted) == 0) {
            *out = &families[i];
            return DM_OK;
        }
    }
    char known[256];
    list_families(known, sizeof known);
    if (name != NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "no chat template is called '%.40s'; known are %s", name, known);
    }
    return dm_fail(DM_ERR_UNSUPPORTED, "the model has %s; choose one of %s",
                   tokenizer->chat_template != NULL ? "a chat template that is not known here" : "no chat template", known);
}

/* ---- Writing ---- */

static dm_status append(dm_chat_text *out, const char *bytes, size_t length) {
    size_t needed = out->length + length + 1;
    DM_TRY(dm_reserve(&out->text, &out->room, needed, 1));
    memcpy(out->text + out->length, bytes, length);
    out->length += length;
    out->text[out->length] = '\0';
    return DM_OK;
}

/* The text of a vocabulary's token; of SentencePiece's usual one where it has none. */
static const char *token_text(const dm_tokenizer *tokenizer, int32_t id, const char *usual, size_t *length) {
    *length = strlen(usual);
    return id >= 0 ? dm_strings_at(&tokenizer->texts, (uint32_t)id, length) : usual;
}

static dm_status append_marks(const dm_tokenizer *tokenizer, const char *text, dm_chat_text *out) {
    while (*text != '\0') {
        size_t n = strcspn(text, EOS BOS), length;
        DM_TRY(append(out, text, n));
        text += n;
        if (*text != '\0') {
            const char *token = *text == EOS[0] ? token_text(tokenizer, tokenizer->eos, "</s>", &length)
                                                : token_text(tokenizer, tokenizer->bos, "<s>", &length);
            DM_TRY(append(out, token, length));
            text++;
        }
    }
    return DM_OK;
}

static dm_status append_content(const char *text, bool trims, dm_chat_text *out) {
    size_t length = strlen(text);
    while (trims && length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    while (trims && length > 0 && isspace((unsigned char)*text)) {
        text++;
        length--;
    }
    DM_TRY(dm_reserve(&out->spans, &out->spans_room, out->n_spans + 1, sizeof *out->spans));
    size_t start = out->length;
    DM_TRY(append(out, text, length));
    out->spans[out->n_spans] = (dm_span){start, out->length};
    out->n_spans += length > 0;
    return DM_OK;
}

static dm_status append_turn(const dm_tokenizer *tokenizer, const turn *around, const char *content, bool trims,
                             dm_chat_text *out) {
    DM_TRY(append_marks(tokenizer, around->before, out));
    DM_TRY(append_content(content, trims, out));
    return append_marks(tokenizer, around->after, out);
}

static bool is_role(const dm_chat_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

/* A user's turn that begins with the `n_system` messages at `message`; `content` follows them. */
static dm_status append_joined(const dm_tokenizer *tokenizer, const family *f, bool first, const dm_chat_message *message,
                               size_t n_system, const char *content, dm_chat_text *out) {
    DM_TRY(append_marks(tokenizer, first || f->again == NULL ? f->user.before : f->again, out));
    for (size_t i = 0; i < n_system; i++) {
        DM_TRY(append_turn(tokenizer, &f->system, message[i].content, f->trims, out));
    }
    DM_TRY(append_content(content, f->trims, out));
    return append_marks(tokenizer, f->user.after, out);
}

static dm_status write_messages(const dm_tokenizer *tokenizer, const family *f, const dm_chat_message *messages, size_t n,
                                dm_chat_text *out) {
    bool first = true; /* no user has spoken yet */
    for (size_t i = 0; i < n; i++) {
        size_t n_system = 0;
        while (f->inside && i + n_system < n && is_role(&messages[i + n_system], "system")) {
            n_system++;
        }
        bool user = i + n_system < n && is_role(&messages[i + n_system], "user");
        if (n_system > 0 || user) {
            DM_TRY(append_joined(tokenizer, f, first, messages + i, n_system, user ? messages[i + n_system].content : "", out));
            i += n_system - (user ? 0 : 1);
            first = false;
        } else {
            const turn *around = is_role(&messages[i], "system") ? &f->system : &f->assistant;
            DM_TRY(append_turn(tokenizer, around, messages[i].content, f->trims, out));
        }
    }
    return DM_OK;
}

dm_status dm_chat_write(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                        bool answer, dm_chat_text *out) {
    const family *f = NULL;
    DM_TRY(find_family(tokenizer, family_name, &f));
    for (size_t i = 0; i < n; i++) {
        if (!is_role(&messages[i], "system") && !is_role(&messages[i], "user") && !is_role(&messages[i], "assistant")) {
            return dm_fail(DM_ERR_ARGUMENT, "message %zu is by '%.40s'; expected system, user or assistant", i + 1,
                           messages[i].role);
        }
    }
    DM_TRY(append(out, "", 0));
    DM_TRY(write_messages(tokenizer, f, messages, n, out));
    return answer ? append_marks(tokenizer, f->answer, out) : DM_OK;
}

void dm_chat_text_free(dm_chat_text *text) {
    free(text->text);
    free(text->spans);
    *text = (dm_chat_text){0};
}

dm_status dm_chat_render(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                         bool answer, char **text) {
    *text = NULL;
    dm_chat_text out = {0};
    dm_status status = dm_chat_write(tokenizer, family_name, messages, n, answer, &out);
    if (status == DM_OK) {
        *text = out.text;
        out.text = NULL;
    }
    dm_chat_text_free(&out);
    return status;
}

dm_status dm_chat_encode(const dm_tokenizer *tokenizer, const char *family_name, const dm_chat_message *messages, size_t n,
                         bool answer, int32_t **ids, size_t *count) {
    *ids = NULL;
    *count = 0;
    dm_chat_text text = {0};
    dm_encoder *encoder = NULL;
    dm_status status = dm_chat_write(tokenizer, family_name, messages, n, answer, &text);
    if (status == DM_OK) {
        status = dm_encoder_create(tokenizer, &encoder);
    }
    if (status == DM_OK) {
        status = dm_encoder_take(encoder, text.text, text.length, DM_ENCODE_SPECIAL | DM_ENCODE_BOS | DM_ENCODE_TEMPLATE,
                                 text.spans, text.n_spans, ids, count);
    }
    dm_encoder_free(encoder);
    dm_chat_text_free(&text);
    return status;
}
